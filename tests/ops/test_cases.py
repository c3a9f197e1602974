"""Every operator, on every hostile case, dtype and backend: forward and every gradient within the error budget."""

import os
import subprocess
import sys

import pytest

import vdiff_kernels
from vdiff_kernels import library, verify


@pytest.mark.parametrize("dtype", verify.DTYPES, ids=lambda dtype: str(dtype).removeprefix("torch."))
@pytest.mark.parametrize("case", verify.CASES, ids=str)
def test_case(case, dtype, backend):
    verify.check(case, dtype, backend)


@pytest.mark.parametrize("dtype", verify.DTYPES, ids=lambda dtype: str(dtype).removeprefix("torch."))
@pytest.mark.parametrize("case", verify.CASES, ids=str)
@pytest.mark.parametrize("instruction_set", library.instruction_sets()[:-1], indirect=True)
def test_case_by_instruction_set(case, dtype, instruction_set):
    assert library.instruction_set() == instruction_set
    verify.check(case, dtype, "cpu")


def test_the_environment_chooses_an_instruction_set():
    def answer(name):
        program = "import vdiff_kernels; print(vdiff_kernels.availability('cpu'))"
        run = [sys.executable, "-c", program]
        return subprocess.run(run, env={**os.environ, "VDIFF_CPU_ISA": name}, capture_output=True, text=True, check=True).stdout

    assert answer("baseline").strip().endswith("by baseline kernels")
    assert "VDIFF_CPU_ISA: instruction set is 'mmx'; expected one of baseline" in answer("mmx")
    assert vdiff_kernels.availability("cpu").reason.endswith(f"by {library.instruction_sets()[-1]} kernels")


def test_case_names_are_unique():
    names = [str(case) for case in verify.CASES if not isinstance(case, verify.LayerCase)]
    assert len(names) == len(set(names))
