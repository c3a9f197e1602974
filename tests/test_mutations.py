"""The table of tests/mutations.py still fits the sources. To plant its faults takes minutes: `python -m tests.mutations`."""

import pytest

from tests.mutations import MUTATIONS, ROOT
from tests.ptxsim.compile import CSRC


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_the_fault_can_be_planted(mutation):
    mutation.place(CSRC)
    assert mutation.new != mutation.old
    for test in mutation.tests:
        file, _, name = test.partition("[")[0].partition("::")
        assert f"def {name}(" in (ROOT / file).read_text()
