"""A filter in Python: passes temperatures from a threshold on, and everything that is no temperature.

The property `temperature_threshold` is in degrees Celsius; 20 when it is not given or no number.
"""
import json

from filter_impl import exports
from filter_impl.imports import types
from filter_impl.imports.logger import Level, log
from message import payload

DEFAULT = 20.0


class Filter(exports.Filter):
    threshold = DEFAULT

    def init(self, configuration: types.ModuleConfiguration) -> bool:
        for name, value in configuration.properties:
            if name != "temperature_threshold":
                continue
            try:
                # The class, not this object: every call of an export gets an object of its own.
                Filter.threshold = float(value)
            except ValueError:
                log(Level.WARN, "module-python/filter", f"temperature_threshold is no number: {value}")
        return True

    def process(self, message: types.DataModel) -> bool:
        data = json.loads(payload(types, message))
        temperature = data.get("temperature") if isinstance(data, dict) else None
        value = temperature.get("value") if isinstance(temperature, dict) else None
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            return True
        fahrenheit = str(temperature.get("unit", "C")).upper() == "F"
        celsius = (value - 32) * 5 / 9 if fahrenheit else value
        return celsius >= Filter.threshold
