"""What Triton makes of the kernels at sizes of models, on each GPU, and the table of it."""

import itertools
import json
import sys

import pytest
import torch

from benchmarks import triton_static
from benchmarks.static_subjects import SUBJECTS, directions, geglu
from benchmarks.triton_static import EVERY, figures_of, is_served, kernels_of, launches_of, measure
from vdiff_kernels.backends.triton import FUNCTIONS

# Of the kernels that most of a model's time goes to, what CI has the time for.
QUICK = {
    (name, torch.bfloat16, gpu)
    for name in SUBJECTS
    for gpu in ("A100", "H100")
    if name.startswith(("temporal_attention T16 H8 W4 N8 D64", "norm_act_conv 3x1x1", "geglu"))
}


def each():
    for name, dtype, gpu in itertools.product(SUBJECTS, (torch.bfloat16, torch.float32), EVERY):
        marks = [] if (name, dtype, gpu.name) in QUICK else pytest.mark.slow
        yield pytest.param(name, dtype, gpu, marks=marks, id=f"{name}-{dtype}-{gpu.name}")


# By the bytes of an element: at most 8 registers of half types spill. ptxas does that by itself where a few of them make room for
# another block: with `maxnreg=255`, which forbids it, short_backward of 32 frames spills none, but takes 188 in place of 168, and
# a B200 has 8 of its warps at once in place of 12. float32's, whose operands are three, spill up to 16.
MOST_SPILLED = {2: 32, 4: 64}


def test_every_operator_is_there():
    assert {name.split()[0] for name in SUBJECTS} == {operator.removesuffix("_backward") for operator in FUNCTIONS}


@pytest.mark.parametrize("name, dtype, gpu", list(each()))
def test_kernels_fit_a_gpu_and_its_registers(name, dtype, gpu):
    subject = SUBJECTS[name](dtype)
    if not is_served(subject):
        pytest.skip("Triton does not serve it")
    for direction in directions(kernels_of(subject)):
        for one in launches_of(subject, direction):
            takes = figures_of(one, gpu)
            most = MOST_SPILLED[dtype.itemsize]
            assert takes.stack_bytes <= most, f"{one} has a stack of {takes.stack_bytes} bytes on {gpu.name}"
            assert takes.shared_bytes <= gpu.shared_of_a_block and takes.occupancy > 0, f"{one} does not fit {gpu.name}"


@pytest.mark.slow
@pytest.mark.parametrize("name, dtype", list(itertools.product(SUBJECTS, (torch.bfloat16, torch.float32))))
def test_other_configurations_fit_registers(name, dtype):
    """Those that tuning may choose; one that has not the shared memory somewhere is not chosen there."""
    subject = SUBJECTS[name](dtype)
    if not is_served(subject):
        pytest.skip("Triton does not serve it")
    others = {
        str(one): one
        for direction in directions(kernels_of(subject))
        for number in range(1, 5)
        for one in launches_of(subject, direction, number=number)
    }
    for one, gpu in itertools.product(others.values(), EVERY):
        takes = figures_of(one, gpu)
        most = MOST_SPILLED[dtype.itemsize]
        assert takes.stack_bytes <= most, f"{one} has a stack of {takes.stack_bytes} bytes on {gpu.name}"


def test_the_tensor_cores_of_each_gpu():
    (one,) = launches_of(geglu(128, 64)(torch.bfloat16), "forward")
    kinds = [figures_of(one, gpu).tensor.partition(" ")[0] for gpu in EVERY]
    assert kinds == ["mma", "wgmma", "mma", "tcgen05", "mma"]  # A100, H100, RTX 4090, B200, RTX 5090


def test_counts_of_a_projection():
    M, C = 128, 64
    E, subject = 4 * C, geglu(M, C)(torch.bfloat16)
    forward, backward = (measure("geglu", subject, direction, None) for direction in directions(kernels_of(subject)))
    weight, bias = 2 * E * C, 2 * E
    assert forward.floor_bytes == 2 * (M * C + weight + M * E)
    assert forward.unique * forward.floor_bytes == pytest.approx(forward.floor_bytes + 2 * bias)
    assert forward.mma == 1 and forward.library == 0
    # Ours: a tile of rows, whose sums are 4 bytes; the library's: two products, the sum of those sums, its cast.
    ours = 2 * (M * C + weight + M * E + bias + 2 * M * E) + 4 * 2 * E
    theirs = 2 * (2 * M * E + weight + M * C + 2 * M * E + M * C + weight) + 4 * (2 * E + 2 * E) + 6 * 2 * E
    assert backward.floor_bytes == 2 * (2 * M * C + M * E + 2 * weight)
    assert backward.unique * backward.floor_bytes == pytest.approx(ours)
    assert backward.library * backward.floor_bytes == pytest.approx(theirs)
    eager = 2 * ((M * C + weight + bias + 2 * M * E) + 2 * M * E + 3 * M * E)  # linear, gelu, product
    assert forward.eager * forward.floor_bytes == pytest.approx(eager)


def test_accesses_of_16_bytes():
    ptx = """
    ld.global.v4.b32 { %r1, %r2, %r3, %r4 }, [ %rd1 + 0 ];
    @%p1 st.global.b16 [ %rd2 ], %rs1;
    ld.global.L1::evict_last.v2.b64 { %rd3, %rd4 }, [ %rd5 ];
    cp.async.cg.shared.global [ %r5 + 0 ], [ %rd6 + 0 ], 0x10, %r7;
    cp.async.ca.shared.global [ %r5 + 0 ], [ %rd6 + 0 ], 0x4, %r7;
    st.shared.v4.b32 [ %r8 ], { %r1, %r2, %r3, %r4 };
    """
    assert triton_static._wide(ptx) == (3, 5)


def test_the_tables(monkeypatch, capsys, tmp_path):
    path = tmp_path / "tables.json"
    monkeypatch.setattr(triton_static, "EVERY", EVERY[:2])
    monkeypatch.setattr(sys, "argv", ["triton_static", "--only", "channel_stats", "--no-cuda", "--json", str(path)])
    triton_static.main()
    printed, data = capsys.readouterr().out, json.loads(path.read_text())
    (row,) = data["calls"]
    assert row["kernels"] == ["stats_of_runs"] and 1 <= row["unique"] < 1.02
    assert f"| {row['name']}, forward |" in printed and all(f"| {kernel} |" in printed for kernel in data["kernels"])
    assert {gpu for takes in data["kernels"].values() for gpu in takes} == {"A100", "H100"}


def test_a_call_that_is_not_there(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["triton_static", "--only", "nothing"])
    with pytest.raises(SystemExit):
        triton_static.main()
    assert "--only is 'nothing'; expected a part of one of: temporal_attention T16" in capsys.readouterr().err
