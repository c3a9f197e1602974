"""Whole models, patched, against the same unpatched in float64: the output, and the gradient of every input and parameter."""

import copy

import pytest
import torch

import vdiff_kernels as vdiff
from vdiff_kernels.verify import assert_within_budget, poisoned_memory

from .compare import as_double, eager_errors, evaluate
from .models import MODELS

# (B, T, H, W): guidance's two clips; one frame; more frames than a tile of the kernels, and sides that no level halves evenly.
SIZES = {"two clips": (2, 5, 8, 8), "one frame": (1, 1, 8, 6), "odd": (1, 18, 7, 9)}


def inputs_of(name: str, size: str) -> dict:
    B, T, H, W = SIZES[size]
    if name == "latte":  # its frames are in the table of its positions
        T = 5
    return MODELS[name].inputs(B, T, H, W)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", MODELS)
def test_output_and_gradients(name, size):
    kind, inputs = MODELS[name], inputs_of(name, size)
    model = kind.build()
    doubled = copy.deepcopy(model).double()
    truth = evaluate(kind.call, doubled, as_double(inputs))
    errors = eager_errors(kind.call, model, doubled, inputs, draws=7)  # of hundreds of gradients some are lucky in three
    expected = kind.call(model, **inputs)
    with poisoned_memory(), vdiff.patched(model) as report:
        candidate = evaluate(kind.call, model, inputs)
        calls = report.calls()
    assert all(made["served"] and not made["stepped_aside"] for made in calls.values()), calls
    assert candidate["out"].stride() == expected.stride()
    assert candidate.keys() == truth.keys(), f"gradients: {sorted(candidate.keys() ^ truth.keys())} on one side only"
    assert_within_budget(candidate, truth, {key: truth[key] + errors[key] for key in truth}, f"{name} {size}")


@pytest.mark.parametrize("name", [name for name in MODELS if name != "lucidrains"])  # whose embedding of time is float32
def test_bfloat16(name):
    """On the weights and inputs as bfloat16 has them."""
    kind, inputs = MODELS[name], inputs_of(name, "two clips")
    model = kind.build().bfloat16()
    inputs = {key: t.bfloat16() for key, t in inputs.items()}
    with torch.no_grad():
        truth = kind.call(copy.deepcopy(model).double(), **as_double(inputs))
        eager = kind.call(model, **inputs)
        with poisoned_memory(), vdiff.patched(model) as report:
            out = kind.call(model, **inputs)
            assert all(made["served"] for made in report.calls().values())
    assert_within_budget({"out": out}, {"out": truth}, {"out": eager.double()}, f"{name} bfloat16")


@pytest.mark.parametrize("name", MODELS)
def test_autocast(name):
    kind, inputs = MODELS[name], inputs_of(name, "two clips")
    model = kind.build()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        eager = kind.call(model, **inputs)
        with vdiff.patched(model):
            out = kind.call(model, **inputs)
    with torch.no_grad():
        truth = kind.call(copy.deepcopy(model).double(), **as_double(inputs))
    assert out.dtype == eager.dtype
    assert_within_budget({"out": out}, {"out": truth}, {"out": eager.double()}, f"{name} autocast")
