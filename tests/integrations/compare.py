"""Runs a block and its adapter on the same weights and inputs: output, input gradients and every parameter gradient."""

import copy

import torch
from torch import Tensor, nn

from vdiff_kernels.verify import assert_within_budget, poisoned_memory


def randomize(module: nn.Module, seed: int = 0) -> nn.Module:
    """Random parameters in every layer, those that start as zero or one too, so that every branch matters. In eval mode."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if not parameter.requires_grad or parameter.numel() == 0:
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

    Returns the largest share of an error budget that was used.
    """
    doubled = copy.deepcopy(module).double()
    truth = evaluate(original, doubled, as_double(inputs))
    with poisoned_memory():
        candidate = evaluate(lambda block, **leaves: adapter(block, **leaves, backend=backend), module, inputs)
    assert candidate.keys() == truth.keys(), f"gradients: {sorted(candidate.keys() ^ truth.keys())} on one side only"
    assert_memory_format(candidate["out"], inputs["x"])
    errors = eager_errors(original, module, doubled, inputs)
    eager = {name: expected + errors[name] for name, expected in truth.items()}
    return assert_within_budget(candidate, truth, eager, f"{type(module).__name__} {backend}")


def eager_errors(original, module: nn.Module, doubled: nn.Module, inputs: dict[str, Tensor], draws: int = 3) -> dict[str, Tensor]:
    """What float32 costs the original, on contiguous inputs, where its group norm is the more exact.

    The largest of several draws, on inputs a thousandth apart: a single draw of a gradient of few elements, or of one, may by
    luck be exact.
    """
    errors = {}
    for nudge in [1, *(1 + side * i * 2**-10 for i in range(1, draws) for side in (1, -1))][:draws]:
        nudged = {name: t.contiguous() * nudge if t.is_floating_point() else t for name, t in inputs.items()}
        truth = evaluate(original, doubled, as_double(nudged))
        for name, actual in evaluate(original, module, nudged).items():
            error = actual.double() - truth[name]
            if name not in errors or error.abs().max() > errors[name].abs().max():
                errors[name] = error
    return errors


def as_double(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: t.double() if t.is_floating_point() else t for name, t in inputs.items()}


def assert_memory_format(out: Tensor, given: Tensor) -> None:
    """Contiguous in, contiguous out; channels last in, channels last out."""
    last = torch.channels_last if out.dim() == 4 else torch.channels_last_3d
    wanted = torch.contiguous_format if given.is_contiguous() else last
    assert out.is_contiguous(memory_format=wanted), f"strides {out.stride()} of {tuple(out.shape)}; expected {wanted}"


def in_layout(x: Tensor, layout: str) -> Tensor:
    """x contiguous, as it is, or with its channels innermost ("channels_last")."""
    last = torch.channels_last if x.dim() == 4 else torch.channels_last_3d
    return x if layout == "contiguous" else x.contiguous(memory_format=last)
