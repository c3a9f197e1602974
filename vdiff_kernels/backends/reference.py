"""The definition as a backend: eager PyTorch, on any device."""

from .backend import Availability, Backend, by_pytorch


class Reference(Backend):
    name = "reference"

    def __init__(self, definitions: dict):
        def served_by(definition):
            return by_pytorch(lambda call: definition(**call.arguments()))

        self.kernels = {operator: served_by(definition) for operator, definition in definitions.items()}

    def availability(self):
        return Availability(self.name, True, "eager PyTorch, on any device")

    def supports(self, call):
        return None
