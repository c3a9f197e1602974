"""Every operator, on every hostile case, dtype and backend: forward and every gradient within the error budget."""

import pytest

from vdiff_kernels import testing


@pytest.mark.parametrize("dtype", testing.DTYPES, ids=lambda dtype: str(dtype).removeprefix("torch."))
@pytest.mark.parametrize("case", testing.CASES, ids=str)
def test_case(case, dtype, backend):
    testing.check(case, dtype, backend)


def test_case_names_are_unique():
    names = [str(case) for case in testing.CASES if not isinstance(case, testing.LayerCase)]
    assert len(names) == len(set(names))
