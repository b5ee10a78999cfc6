"""A branch in Python: temperatures take the arm "False", everything else the arm "True"."""
import json

from branch_impl import exports
from branch_impl.imports import hybrid_logical_clock, types
from message import payload


class Branch(exports.Branch):
    def init(self, configuration: types.ModuleConfiguration) -> bool:
        return True

    def process(self, timestamp: hybrid_logical_clock.HybridLogicalClock, message: types.DataModel) -> bool:
        return "temperature" not in json.loads(payload(types, message))
