"""Triton kernels as a backend. There are none yet."""

from .backend import Availability, Backend, missing


class Triton(Backend):
    name = "triton"

    def __init__(self):
        self.kernels = {}

    def availability(self):
        return Availability(self.name, False, "this version has no Triton kernels")

    def supports(self, call):
        device = call.main.device.type
        return f"it runs on cuda tensors and these are on {device}" if device != "cuda" else missing(call.operator)
