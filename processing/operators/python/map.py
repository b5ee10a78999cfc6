"""A map in Python: whole degrees Fahrenheit become whole degrees Celsius.

A message whose payload has an integer `temperature.value` is converted; everything else goes on unchanged.
"""
import json

from map_impl import exports
from map_impl.imports import types
from map_impl.imports.logger import Level, log
from message import payload


class Map(exports.Map):
    def init(self, configuration: types.ModuleConfiguration) -> bool:
        log(Level.INFO, "module-python/map", "started")
        return True

    def process(self, message: types.DataModel) -> types.DataModel:
        data = json.loads(payload(types, message))
        temperature = data.get("temperature") if isinstance(data, dict) else None
        value = temperature.get("value") if isinstance(temperature, dict) else None
        # A bool is an int in Python, and no temperature.
        if not isinstance(value, int) or isinstance(value, bool):
            return message
        temperature["value"] = round((value - 32) * 5 / 9)
        temperature["unit"] = "C"
        message.value.payload = types.BufferOrBytes_Bytes(json.dumps(data).encode())
        return message
