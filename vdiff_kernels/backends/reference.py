"""The definition as a backend: eager PyTorch, on any device."""

from ..ops.call import Call
from ..ops.schema import Kernels
from ..ops.tensors import without_autocast
from .backend import Availability, Backend


def defined_by(definition) -> Kernels:
    """A definition (reference.py) as what serves its operator. Out of autocast's reach: it chooses its own precision."""

    def forward(call: Call, save: bool):
        with without_autocast(call.main):
            return definition(**call.arguments()), ()

    return Kernels(forward)


class Reference(Backend):
    name = "reference"

    def __init__(self, definitions: dict):
        self.kernels = {operator: defined_by(definition) for operator, definition in definitions.items()}

    def availability(self):
        return Availability(self.name, True, "eager PyTorch, on any device")

    def supports(self, call):
        return None
