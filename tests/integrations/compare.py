"""Runs a block and its adapter on the same weights and inputs: output, input gradients and every parameter gradient."""

import copy

import pytest
import torch
from torch import Tensor, nn

import vdiff_kernels
from vdiff_kernels.testing import assert_within_budget

BACKENDS = ("reference", "cpu")


def require_backend(backend: str) -> None:
    """A backend that is not there fails the test with the reason: skipping it would hide that nothing was compared."""
    verdict = vdiff_kernels.availability(backend)
    if not verdict:
        pytest.fail(str(verdict))


def randomize(module: nn.Module, seed: int = 0) -> nn.Module:
    """Random parameters in every layer, those that start as zero or one too, so that every branch matters. In eval mode."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if not parameter.requires_grad:
                continue
            values = torch.randn(parameter.shape, generator=generator)
            if parameter.dim() > 1 and "gamma" not in name:
                parameter.copy_(values * parameter[0].numel() ** -0.5)
            elif name.endswith(("weight", "gamma")):
                parameter.copy_(1 + 0.3 * values)
            else:
                parameter.copy_(0.3 * values)
    return module.eval()


def randn(*shape: int, seed: int = 1, scale: float = 1.0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * scale


def evaluate(call, module: nn.Module, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """call(module, **inputs): the output and every gradient. Inputs keep their memory format."""
    module.zero_grad(set_to_none=True)
    leaves = {name: t.detach().clone().requires_grad_(t.is_floating_point()) for name, t in inputs.items()}
    out = call(module, **leaves)
    out.backward(randn(*out.shape, seed=2).to(out.dtype))
    gradients = {f"d_{name}": leaf.grad for name, leaf in leaves.items() if leaf.requires_grad}
    gradients |= {f"d_{name}": parameter.grad for name, parameter in module.named_parameters()}
    return {"out": out.detach(), **{name: grad for name, grad in gradients.items() if grad is not None}}


def compare(module: nn.Module, original, adapter, inputs: dict[str, Tensor], backend: str) -> float:
    """original(module, **inputs) in float64 and float32 against adapter(module, backend=backend, **inputs) in float32.

    The original runs on contiguous inputs: there its group norm is the more exact. Returns the largest share of an error
    budget that was used.
    """
    require_backend(backend)
    plain = {name: t.contiguous() for name, t in inputs.items()}
    doubled = {name: t.double() if t.is_floating_point() else t for name, t in plain.items()}
    truth = evaluate(original, copy.deepcopy(module).double(), doubled)
    eager = evaluate(original, module, plain)
    candidate = evaluate(lambda block, **leaves: adapter(block, **leaves, backend=backend), module, inputs)
    assert candidate.keys() == truth.keys(), f"gradients: {sorted(candidate.keys() ^ truth.keys())} on one side only"
    assert_memory_format(candidate["out"], inputs["x"])
    return assert_within_budget(candidate, truth, eager, f"{type(module).__name__} {backend}")


def assert_memory_format(out: Tensor, given: Tensor) -> None:
    """Contiguous in, contiguous out; channels last in, channels last out."""
    last = torch.channels_last if out.dim() == 4 else torch.channels_last_3d
    wanted = torch.contiguous_format if given.is_contiguous() else last
    assert out.is_contiguous(memory_format=wanted), f"strides {out.stride()} of {tuple(out.shape)}; expected {wanted}"


def layouts(x: Tensor) -> dict[str, Tensor]:
    """x as it is, and with its channels innermost."""
    last = torch.channels_last if x.dim() == 4 else torch.channels_last_3d
    return {"contiguous": x, "channels_last": x.contiguous(memory_format=last)}


LAYOUTS = ("contiguous", "channels_last")
