"""Golden counts fail when they get worse; the attention of kernels/ keeps its own; what the command line prints."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import triton
import triton.language as tl

from tests.ptxsim import core_library, empty, from_triton, registers
from tests.ptxsim.__main__ import main
from tests.ptxsim.fixtures import compiled, modules_of
from tests.ptxsim.golden import FOLDER, Golden, name_of
from vdiff_kernels.bench.gpus import GPUS

KERNELS = Path(__file__).parent / "kernels"
ROOT = Path(__file__).parents[2]
N, T, D = 10, 16, 64  # sequences: the last block has two of its four


def test_attention(simulate):
    q, k, v = (torch.randn(N, T, D).bfloat16() for _ in range(3))
    out = empty(N, T, D, dtype=torch.bfloat16)
    report = simulate(compiled(KERNELS / "attention.cu")["attention"], 3, 128, [q, k, v, out, N, D**-0.5])
    total, flops = report.counts.total, N * 2 * (2 * T * T * D)
    assert report.counts.mma_flops == flops
    assert total.wavefronts == total.ideal_wavefronts  # the swizzle leaves no bank conflict
    of_a_tensor = N * T * D * 2 // 32
    assert (report.counts.unique_read_sectors, report.counts.unique_written_sectors) == (3 * of_a_tensor, of_a_tensor)
    exact = torch.softmax(q.double() @ k.double().mT * D**-0.5, -1) @ v.double()
    # bf16 rounds p and the result: 2^-9 of each.
    assert (out.double() - exact).abs().max() < 2**-8 * v.abs().max().double()


@triton.jit
def doubled(x, out, n, BLOCK: tl.constexpr):
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out + place, 2 * tl.load(x + place, place < n, 0), place < n)


def test_of_triton(simulate):
    kernel = from_triton(doubled, {"x": "*fp32", "out": "*fp32", "n": "i32"}, {"BLOCK": 256})
    x, out = torch.randn(1008), empty(1008)
    report = simulate.triton(kernel, 4, [x, out, 1008])
    assert torch.equal(out, 2 * x) and report.counts.total.sectors == report.counts.total.ideal_sectors == 2 * 126


FIGURES = {"global sectors": 100, "registers": 40, "spilled bytes": 0}


def accepted(folder, **changes):
    Golden("kernel", folder).write({"case": {**FIGURES, **changes}})
    return Golden("kernel", folder)


def test_a_figure_that_gets_worse_fails_and_says_by_how_much(tmp_path):
    golden = accepted(tmp_path)
    golden.compare("case", FIGURES)
    golden.compare("case", {**FIGURES, "registers": 32})  # better is no failure
    with pytest.raises(AssertionError, match=r"case is worse than accepted: global sectors 125, accepted 100 \(\+25.0%\)$"):
        golden.compare("case", {**FIGURES, "global sectors": 125})
    with pytest.raises(AssertionError, match="spilled bytes 8, accepted 0$"):
        golden.compare("case", {**FIGURES, "spilled bytes": 8})
    with pytest.raises(AssertionError, match="kernel.json has no counts of 'other'.*make golden"):
        golden.compare("other", FIGURES)


def test_counts_of_what_a_test_does_not_launch_fail_it(tmp_path):
    golden = Golden("kernel", tmp_path)
    golden.write(dict.fromkeys(("sums[a b] add<float>", "sums[a b] add<float> (2)", "sums[a] add<float>", "sums"), FIGURES))
    golden = Golden("kernel", tmp_path)
    golden.assert_none_stale("sums[a b]", {"sums[a b] add<float>", "sums[a b] add<float> (2)"})
    with pytest.raises(AssertionError, match=r"does not launch, `make golden`: sums\[a b\] add<float> \(2\)$"):
        golden.assert_none_stale("sums[a b]", {"sums[a b] add<float>"})
    assert golden.without_test({"sums[a]", "sums"}) == ["sums[a b] add<float>", "sums[a b] add<float> (2)"]


def test_every_golden_count_has_its_test():
    """Whatever part of the tests this run is of: their names are collected anew, those of slow tests too."""
    files = {path.stem: modules_of(path.stem, ROOT) for path in FOLDER.glob("*.json")}
    homeless = {name: own for name, own in files.items() if len(own) != 1}
    assert not homeless, f"golden files that are not of one test file each, `make golden`: {homeless}"
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-m", "", "-p", "no:cacheprovider"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(
        [*command, *(path for own in files.values() for path in own)], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = [name_of(line) for line in done.stdout.splitlines() if "::" in line]
    stale = [case for name in files for case in Golden(name).without_test({test for module, test in found if module == name})]
    assert not stale, f"golden counts of no test, `make golden`: {stale}"


@pytest.mark.parametrize("more, words", [(["-n", "2"], "expected one process"), (["-k", "of_triton"], "expected whole files")])
def test_golden_counts_are_rewritten_of_whole_files_in_one_process(more, words):
    command = [sys.executable, "-m", "pytest", "--rewrite-golden", *more, str(Path(__file__))]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == pytest.ExitCode.USAGE_ERROR and words in done.stderr


def test_another_compiler_is_named(tmp_path):
    path = tmp_path / "kernel.json"
    accepted(tmp_path)
    path.write_text(path.read_text().replace(registers.version(), "12.0.1"))
    with pytest.raises(AssertionError, match=rf"\(accepted of nvcc 12.0.1, this is {registers.version()}\)"):
        Golden("kernel", tmp_path).compare("case", {**FIGURES, "registers": 41})


def test_what_a_kernel_takes():
    takes = registers.resources(compiled(KERNELS / "attention.cu").text)["attention"]
    assert takes.spilled_bytes == 0 and takes.shared_bytes == 4 * 3 * T * D * 2
    A100 = GPUS[0]
    # Occupancy by registers, shared memory, threads and blocks: one limit at a time.
    assert A100.blocks_at_once(64, 128, 0) == 8
    assert A100.blocks_at_once(16, 128, 24 * 1024) == 6
    assert A100.blocks_at_once(16, 1024, 0) == 2
    assert A100.blocks_at_once(16, 32, 0) == 32
    assert A100.blocks_at_once(16, 128, 82 * 1024 - 1024) == 2


# The command line


def test_a_file_s_kernels_and_a_launch(capsys):
    arguments = f"bfloat16[{N * T * D}]," * 4 + f"{N},0.125"
    assert main([str(KERNELS / "attention.cu"), "--launch", "attention", "--grid", "3", "--args", arguments]) == 0
    printed = capsys.readouterr().out
    assert "attention: 4" in printed and "registers, 0 bytes spilled, 24576 bytes of shared memory" in printed
    assert f"tensor cores       {N * 4 * T * T * D:,} flops" in printed and "attention.cu:48: requests" in printed


def test_findings_are_printed_and_are_its_exit_status(capsys):
    bugs = str(KERNELS / "bugs.cu")
    assert main([bugs, "--launch", "within_warpILi1E", "--block", "32", "--args", "float32[32],float32[32]"]) == 1
    assert "! shared-memory race: read after write at bugs.cu:21" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--launch", "nothing"], "kernels match 'nothing'; there are attention"),
        (["--launch", "attention", "--args", "bfloat17[3]"], "--args: 'bfloat17' is no torch dtype"),
        (["--launch", "attention", "--args", "3"], "attention: 1 arguments; expected 6"),
    ],
)
def test_bad_flags(arguments, message, capsys):
    assert main([str(KERNELS / "attention.cu"), *arguments]) == 2
    assert message in capsys.readouterr().err


def test_no_such_file(capsys):
    with pytest.raises(SystemExit):
        main(["nowhere.cu"])
    assert "nowhere.cu: no such file" in capsys.readouterr().err


def test_the_readme_lists_every_instruction():
    assert core_library.instruction_list() in (Path(__file__).parent / "README.md").read_text()
