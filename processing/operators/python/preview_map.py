"""A map in Python, written for the preview of the contract: the parts that a line made are added up in the state store.

A message whose payload has an integer `parts` gets the sum of all so far as `total`; everything else goes on unchanged.
The property `key` says where the sum is kept; `parts-total` when it is not given.
"""
import json

from message import payload
from preview_map_impl import exports
from preview_map_impl.imports import metrics, state_store, types
from preview_map_impl.imports.logger import Level, log
from preview_map_impl.imports.state_store_types import SetConditions, SetOptions

NAME = "module-python/preview-map"


class Map(exports.Map):
    key = b"parts-total"

    def init(self, configuration: types.ModuleConfiguration) -> bool:
        for name, value in configuration.properties:
            if name == "key":
                # The class, not this object: every call of an export gets an object of its own.
                Map.key = value.encode()
        # A message cannot be answered with an error in the preview: what will never work is refused here.
        return len(Map.key) > 0

    def process(self, message: types.DataModel) -> types.DataModel:
        data = json.loads(payload(types, message))
        parts = data.get("parts") if isinstance(data, dict) else None
        # A bool is an int in Python, and no number of parts.
        if not isinstance(parts, int) or isinstance(parts, bool):
            return message
        data["total"] = total() + parts
        remember(data["total"])
        metrics.add_to_counter("requests", metrics.CounterValue_U64(1), [metrics.Label("module", NAME)])
        message.value.payload = types.BufferOrBytes_Bytes(json.dumps(data).encode())
        return message


def total() -> int:
    """The sum so far. What is no number, somebody else has put there: the count begins anew."""
    found = state_store.get(Map.key, None).response
    try:
        return int(found) if found is not None else 0
    except ValueError:
        log(Level.WARN, NAME, f"{Map.key.decode()} is no number: {found!r}")
        return 0


def remember(value: int) -> None:
    """Keeps the sum."""
    options = SetOptions(SetConditions.UNCONDITIONAL, None)
    state_store.set(Map.key, str(value).encode(), None, None, options)
