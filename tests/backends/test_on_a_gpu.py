"""What a GPU user's modules run, proved without a GPU: fake CUDA tensors, in a process that lets torch switch to a device that is
not there. The library's CUDA kernels are taken to be there and right; what runs is recorded where it is dispatched. Autograd's
engine would need a real device, so of backward the nodes of our own rule are called one by one.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """What was dispatched of each module, by its name and "training" or "inference": (operator, dtype of its first argument)."""
    folder, source = tmp_path_factory.mktemp("guard"), Path(__file__).with_name("no_device_guard.cpp")
    place = Path(torch.__file__).parent
    library = folder / "no_device_guard.so"
    flags = ["-std=c++20", "-O0", "-fPIC", "-shared", "-isystem", place / "include", f"-L{place / 'lib'}", "-lc10"]
    subprocess.run([os.environ.get("CXX", "g++"), source, "-o", library, *flags], check=True)
    run = [sys.executable, source.with_name("modules_on_a_gpu.py"), library]
    done = subprocess.run(run, env={**os.environ, "PYTHONPATH": os.getcwd()}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def operators(ran, module: str) -> set[str]:
    return {name for name, _ in ran[module]}


def test_temporal_attention_reaches_its_kernels(ran):
    assert "vdiff_kernels.temporal_attention_native.default" in operators(ran, "temporal inference")
    training = operators(ran, "temporal training")
    assert {
        "vdiff_kernels.temporal_attention_native.default",
        "vdiff_kernels.temporal_attention_native_backward.default",
    } <= training
    assert "vdiff_kernels.temporal_attention_native_backward.default" in operators(ran, "seed training")


def test_attention_over_pixels_goes_to_the_library_unless_it_has_a_bias(ran):
    plain = operators(ran, "spatial training")
    # What scaled_dot_product_attention is made of where torch has no CUDA kernel for it.
    assert "aten._safe_softmax.default" in plain and not any("spatial_attention_native" in name for name in plain)
    assert "vdiff_kernels.spatial_attention_native_backward.default" in operators(ran, "spatial-biased training")


def test_statistics_reach_their_kernel(ran):
    assert "vdiff_kernels.channel_stats_native.default" in operators(ran, "resnet inference")


@pytest.mark.parametrize("module", ["temporal", "spatial-biased", "conv", "resnet", "feed-forward", "seed"])
def test_nothing_large_is_computed_in_float32(ran, module):
    """Products, convolutions and attention in the user's dtype, as in the code that a module replaces."""
    heavy = ("mm", "addmm", "bmm", "convolution", "scaled_dot_product", "attention_native")
    for mode in ("inference", "training"):
        names = [(name, dtype) for name, dtype in ran[f"{module} {mode}"] if any(word in name for word in heavy)]
        assert names and {dtype for _, dtype in names} == {"torch.bfloat16"}, names


def test_no_copy_stands_between_projection_and_kernel(ran):
    """q, k and v are slices of one product's result."""
    names = [name for name, _ in ran["temporal training"]]
    first = names.index("vdiff_kernels.temporal_attention_native.default")
    before = names[max(i for i in range(first) if "mm" in names[i]) : first]
    assert not [name for name in before if "clone" in name or "copy" in name or "cat" in name]
