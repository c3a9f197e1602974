"""The table of tests/mutations.py still fits the sources. To plant its faults takes minutes: `python -m tests.mutations`."""

import re
from dataclasses import replace

import pytest

from tests.mutations import MUTATIONS, ROOT, TYPES, copy_with
from tests.ptxsim.compile import CSRC


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_the_fault_can_be_planted(mutation):
    mutation.place(CSRC)
    assert mutation.new != mutation.old
    for test in mutation.tests:
        file, _, name = test.partition("[")[0].partition("::")
        assert f"def {name}(" in (ROOT / file).read_text()


@pytest.mark.parametrize("dtype, name", TYPES.items())
def test_a_copy_has_the_kernels_of_one_dtype(tmp_path, dtype, name):
    csrc = copy_with(replace(MUTATIONS[0], dtype=dtype), tmp_path)
    served = (csrc / "common" / "dispatch.h").read_text().partition("void dispatch_served")[2]
    assert re.findall(r"return body\(TypeTag<(\w+)>", served) == [name]
    units = {path.stem for path in csrc.rglob("instantiations/*.cu")}
    kinds = "short", "long", "geglu", "norm_linear"
    stems = [f"{kind}_{way}" for kind in kinds for way in ("fwd", "bwd")] + ["conv", "conv_du", "dweight"]
    assert units == {f"{stem}_{name.lower()}" for stem in stems}
