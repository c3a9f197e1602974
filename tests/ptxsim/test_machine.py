"""What is around the arithmetic: divergence, calls, parameters, barriers; errors with their place; counts that never change."""

import re
from pathlib import Path

import pytest
import torch

from tests import ptxsim
from tests.ptxsim import PtxError, Struct, empty
from tests.ptxsim.fixtures import compiled

KERNELS = Path(__file__).parent / "kernels"
I32 = torch.int32
SEEDS = (0, 1, 2)


@pytest.fixture(scope="module")
def machine():
    return compiled(KERNELS / "machine.cu")


def test_calls_of_divergent_lanes(machine):
    def chain(x, n):
        a, d = x, 0.5
        for i in range(n):
            a = a * 2 + i
            d += a
        return a + n + n + d

    x, out = torch.randn(96), empty(96)
    machine["calls"].launch(1, 96, [x, out], seed=SEEDS).assert_clean()
    for t, a in enumerate(x.tolist()):
        b, c = a + 1, a * 3
        r = chain(a, t % 5) if t % 3 == 0 else chain(b, t % 7) + chain(c, 2) if t % 3 == 1 else 0
        assert out[t].item() == pytest.approx(r + a + b * c - (b - c), rel=1e-5, abs=1e-4)


def test_recursion_is_refused_by_name(machine):
    with pytest.raises(PtxError, match="fibonacci.* is recursive"):
        machine["recursive"].launch(1, 8, [torch.zeros(8, dtype=I32)])


def test_lanes_leave_at_places_of_their_own(machine):
    def steps_of(value):
        steps = 0
        for outer in range(4):
            while value > 1:
                value = 3 * value + 1 if value % 2 else value // 2
                steps += 1
                if steps % 11 == 0:
                    break
            case = (value + outer) % 5
            if case == 3:
                continue
            steps += {0: 1, 1: 110, 2: 100, 4: -7}[case]
            if steps > 400:
                return -steps
        return steps

    x, out = torch.arange(1, 97, dtype=I32), torch.full((96,), -1, dtype=I32)
    machine["divergent"].launch(1, 96, [x, out, 90], seed=SEEDS).assert_clean()
    assert out.tolist() == [steps_of(v) for v in range(1, 91)] + [-1] * 6


def test_structs_constants_and_globals(machine):
    fresh = ptxsim.load(machine.text)  # whose counter no other test has raised
    x, out = torch.randn(64), empty(33)
    params = Struct("<QQifff", x, out, 2, 0.5, -1.0, 4.0)
    for times in (1, 2):
        fresh["by_value"].launch(1, 32, [params, 2]).assert_clean()
        assert torch.equal(out[:32], x[::2] * 4.0 + torch.tensor([0.5, 1.5, 2.5, 3.5]).repeat(8))
        assert out[32] == 40 + 2 * times  # a module's memory outlives a launch


def test_barriers_that_reduce(machine):
    x, out = torch.arange(-20, 76, dtype=I32), torch.zeros(64, dtype=I32)
    machine["reducing_barriers"].launch(1, 96, [x, out], seed=SEEDS).assert_clean()
    expected = x[:64].flip(0) + 1000 * int((x > 0).sum()) + 100000 + 1000000
    assert torch.equal(out, expected)


def test_arrive_and_wait(machine):
    x, out = torch.randn(32), empty(32)
    machine["arrive"].launch(1, 64, [x, out], seed=SEEDS).assert_clean()
    assert torch.equal(out, x.flip(0))


def test_comments_and_paths_that_look_like_them():
    body = """/* add.f32 %f1,
  %f1, %f1; */ add.f32 %f1, %f1, %f1; // add.f32 %f1, %f1, %f1;
  .file 1 "a//b/../kernel.cu"
  .loc 1 7 3 // "
  add.f32 %f1, /* + */ %f1, %f1;"""
    out = empty(1)
    report = ptxsim.load(TEXT.replace("BODY", body))["one"].launch(1, 1, [out, 2.5]).assert_clean()
    assert out == 10 and set(report.lines) == {"kernel.cu:7"}


def test_any_number_but_zero_is_a_true_predicate():
    text = TEXT.replace(
        "BODY",
        """.reg .b32 %r<3>;
  mov.pred %p1, -1;
  mov.u32 %r1, %laneid;
  shl.b32 %r1, %r1, 2;
  cvt.u64.u32 %rd0, %r1;
  add.u64 %rd1, %rd1, %rd0;
  selp.f32 %f1, %f1, 0f00000000, %p1;
  vote.sync.ballot.b32 %r2, -2, -1;
  setp.eq.u32 %p1, %r2, -1;
  @!%p1 mov.f32 %f1, 0f00000000;""",
    )
    out = empty(32)
    ptxsim.load(text)["one"].launch(1, 32, [out, 2.5]).assert_clean()
    assert (out == 2.5).all()


# Counts


def test_traffic_is_what_arithmetic_says(machine):
    x, out = torch.randn(1024), empty(32)
    reports = {pad: machine[f"trafficILi{pad}E"].launch(1, 32, [x, out]).assert_clean() for pad in (0, 1)}
    for pad, report in reports.items():
        total = report.counts.total
        # 32 rows of 128 bytes, a column of 32 sectors, a row of 4; the column's sectors are the rows' own.
        assert (total.requests, total.sectors, total.ideal_sectors) == (34, 32 * 4 + 32 + 4, 32 * 4 + 4 + 4)
        assert (report.counts.unique_read_sectors, report.counts.unique_written_sectors) == (128, 4)
        assert total.bytes == 4096 + 128 + 128
        # Without a pad the lanes of a column share a bank.
        assert total.wavefronts == 32 + (32 * 32 if pad == 0 else 32) and total.ideal_wavefronts == 64
    assert reports[0].counts.instructions["memory"] == reports[1].counts.instructions["memory"]


# How often a lane waits for what it loads.
LATENCIES = {
    "each-used-before-the-next": (2, "LOAD(1) ADD(1) LOAD(2) ADD(2)"),
    "both-on-their-way": (1, "LOAD(1) LOAD(2) ADD(1) ADD(2)"),
    "handed-on": (1, "LOAD(2) mov.f32 %f1, %f2; LOAD(2) ADD(2) ADD(1)"),
    "one-stage": (2, "STAGE(0) WAIT(0) STAGE(4) WAIT(0)"),
    "two-stages": (2, "STAGE(0) STAGE(4) WAIT(1) STAGE(8) WAIT(1) STAGE(12) WAIT(1) WAIT(0)"),
    "nothing-loaded": (0, ""),
}


@pytest.mark.parametrize("case", LATENCIES)
def test_waits_for_memory(case):
    latencies, body = LATENCIES[case]
    words = {
        "LOAD": r"ld.global.f32 %f\1, [%rd1];",
        "ADD": r"add.f32 %f0, %f0, %f\1;",
        "STAGE": r"cp.async.ca.shared.global [s+\1], [%rd1], 4; cp.async.commit_group;",
        "WAIT": r"cp.async.wait_group \1;",
    }
    for word, ptx in words.items():
        body = re.sub(rf"{word}\((\d+)\)", ptx, body)
    text = TEXT.replace("BODY", ".shared .b32 s[4]; mov.f32 %f0, %f1;" + body)
    counts = ptxsim.load(text)["one"].launch(1, 1, [torch.zeros(1), 1.0]).assert_clean().counts
    assert counts.latencies == latencies and counts.fetched_bytes == 4 * len(re.findall("LOAD|STAGE", LATENCIES[case][1]))


def test_counts_are_the_same_for_each_seed_and_thread_count(machine):
    def counted(name, grid, block, arguments, **options):
        report = machine[name].launch(grid, block, arguments, **options)
        return report.counts, report.lines

    x = torch.arange(1, 97, dtype=I32)
    cases = {
        "divergent": (7, 96, lambda: [x, torch.zeros(96, dtype=I32), 90]),
        "calls": (5, 96, lambda: [torch.ones(96), torch.zeros(96)]),
        "reducing_barriers": (3, 96, lambda: [x, torch.zeros(64, dtype=I32)]),
    }
    for name, (grid, block, arguments) in cases.items():
        first = counted(name, grid, block, arguments())
        for seed, threads in ((1, 1), (2, 2), (0, 2), (3, 8)):
            assert counted(name, grid, block, arguments(), seed=seed, threads=threads) == first, (name, seed, threads)


def test_a_slice_of_the_grid(machine):
    x, out = torch.randn(1024), empty(32)
    report = machine["trafficILi1E"].launch(1000, 32, [x, out], blocks=(7, 3))
    assert report.counts.total.requests == 3 * 34


# Errors

TEXT = """
.version 8.0
.target sm_80
.address_size 64
.visible .entry one(.param .u64 out, .param .f32 a)
.maxntid 64, 1, 1
{
  .reg .b64 %rd<2>; .reg .f32 %f<3>; .reg .pred %p<2>;
  ld.param.u64 %rd1, [out];
  ld.param.f32 %f1, [a];
  BODY
  st.global.f32 [%rd1], %f1;
  ret;
}
"""

BAD_PTX = {
    "unknown-instruction": ("mbarrier.init.shared.b64 [%rd1], 1;", "one, PTX line 11: unknown instruction: 'mbarrier.init"),
    "unknown-modifier": ("add.rn.sparkling.f32 %f1, %f1, %f1;", "PTX line 11: modifier .sparkling is not known here"),
    "unknown-type": ("add.f8 %f1, %f1, %f1;", "PTX line 11: "),
    "unknown-register": ("add.f32 %f1, %f9, %f1;", "PTX line 11: unknown register '%f9'"),
    "unknown-name": ("ld.global.f32 %f1, [nowhere];", "PTX line 11: unknown name 'nowhere'"),
    "unknown-label": ("bra elsewhere;", "PTX line 11: no label 'elsewhere'"),
    "unknown-special": ("mov.u32 %f1, %unheard.x;", "unknown special register '%unheard.x'"),
    "too-few-operands": ("add.f32 %f1, %f1;", "PTX line 11: it "),
    "too-many-operands": ("add.f32 %f1, %f1, %f1, %f1;", "PTX line 11: it "),
    "no-such-function": ("call.uni nothing, ();", "PTX line 11: a call of a function that is not in this module"),
}


@pytest.mark.parametrize("case", BAD_PTX)
def test_ptx_that_cannot_run_is_refused_with_its_line(case):
    body, message = BAD_PTX[case]
    out = torch.zeros(1)
    with pytest.raises(PtxError) as error:
        ptxsim.load(TEXT.replace("BODY", body))["one"].launch(1, 1, [out, 1.0])
    assert message in str(error.value), error.value
    assert out == 0


def test_arguments_that_do_not_fit_are_refused():
    kernel, out = ptxsim.load(TEXT.replace("BODY", ""))["one"], torch.zeros(1)
    kernel.launch(1, 1, [out, 2.5]).assert_clean()
    assert out == 2.5
    with pytest.raises(ValueError, match="one: 1 arguments; expected 2"):
        kernel.launch(1, 1, [out])
    with pytest.raises(ValueError, match="argument 1 has 8 bytes; expected 4"):
        kernel.launch(1, 1, [out, out])
    with pytest.raises(ValueError, match=r"block is \(65, 1, 1\); expected at most 64 threads"):
        kernel.launch(1, 65, [out, 1.0])
    with pytest.raises(ValueError, match="argument 0 is on meta; expected a CPU tensor"):
        kernel.launch(1, 1, [out.to("meta"), 1.0])
    with pytest.raises(KeyError, match="0 kernels match 'two'; there are one"):
        ptxsim.load(TEXT.replace("BODY", ""))["two"]


def test_cuda_that_does_not_compile_says_why(capsys):
    with pytest.raises(Exception, match="nvcc"):
        ptxsim.from_cuda("__global__ void broken() {\n  nonsense;\n}\n")
    assert 'identifier "nonsense" is undefined' in capsys.readouterr().err
