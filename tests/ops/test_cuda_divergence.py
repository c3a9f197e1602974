"""No kernel that ships has an `.aligned` instruction that lanes of a warp may reach apart."""

import functools

import pytest

from tests import ptxsim
from tests.ops.simulated import launchers_of
from tests.ptxsim.compile import CSRC
from tests.ptxsim.divergence import reached_apart
from tests.ptxsim.launcher import Unit

WITHOUT_KERNELS = "common/cuda/versions.cu"
FILES = {path.relative_to(CSRC).as_posix() for path in CSRC.rglob("*.cu")} - {WITHOUT_KERNELS}
FAMILIES = sorted({file.partition("/")[0] for file in FILES} - {"common"})


@functools.cache
def units() -> dict[str, Unit]:
    return {unit.source.relative_to(CSRC).as_posix(): unit for unit in launchers_of(*FAMILIES).units}


@pytest.mark.parametrize("source", sorted(FILES))
def test_no_aligned_instruction_is_reached_apart(source):
    unit = units()[source]
    if ".aligned" in unit.ptx.read_text():  # to parse the others takes most of the time
        found = [apart for kernel in unit.module.kernels.values() for apart in reached_apart(kernel)]
        assert not found, "\n".join(sorted({*map(str, found)}))


def test_without_their_barriers_they_are_reached_apart():
    text = units()["attention/cuda/sm80/instantiations/short_fwd_half.cu"].ptx.read_text()
    kernels = ptxsim.load(text.replace("bar.warp.sync", "// bar.warp.sync")).kernels.values()
    assert all(map(reached_apart, kernels))
