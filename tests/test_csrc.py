"""csrc is rooms, by family and by device: which file may name which."""

import re
from pathlib import Path

CSRC = Path(__file__).parents[1] / "csrc"
SOURCES = {path.relative_to(CSRC).as_posix(): path.read_text() for path in CSRC.rglob("*.*")}
INCLUDES = {name: re.findall(r'^#include "([^"]+)"', text, re.M) for name, text in SOURCES.items()}


def family(name: str) -> str:
    return name.split("/")[0]


def room(name: str) -> str | None:
    """ "cpu" or "cuda"; None for what stands above both."""
    return name.split("/")[1] if name.count("/") > 1 else None


def offences(is_one) -> list[str]:
    return [f"{name}: {named}" for name, all_named in INCLUDES.items() for named in all_named if is_one(name, named)]


def test_includes_are_files():
    assert not offences(lambda name, named: named not in SOURCES)


def test_a_family_s_rooms_are_its_own():
    """What stands above them (params.h, arguments.h, operators.h, ...) is what others may name."""
    assert not offences(lambda name, named: room(named) and family(named) not in ("common", family(name)))


def test_common_knows_no_family():
    assert not offences(lambda name, named: family(name) == "common" and family(named) != "common")


def test_the_rooms_of_a_device_do_not_know_the_other():
    allowed = "common/cpu/isa.h"  # the namespace of what every unit includes
    assert not offences(lambda name, named: named != allowed and {room(name), room(named)} == {"cpu", "cuda"})


def test_kernels_and_plans_know_no_torch():
    kernels = [
        name for name in SOURCES if name.endswith((".cu", ".cuh", "plan.h")) or room(name) == "cpu" and family(name) != "common"
    ]
    assert len(kernels) > 50 and not [name for name in kernels if "#include <torch" in SOURCES[name]]


def test_plans_need_no_cuda():
    seen, following = set(), [name for name in SOURCES if name.endswith("cuda/plan.h")]
    assert len(following) == 5
    while following:
        name = following.pop()
        seen.add(name)
        assert name.endswith(".h") and not re.search(r"<cuda|__global__|__shared__|threadIdx", SOURCES[name]), name
        following += [named for named in INCLUDES[name] if named not in seen]


def test_inline_ptx_stands_in_one_file():
    assert [name for name, text in SOURCES.items() if re.search(r"\basm\b", text) and room(name) == "cuda"] == [
        "common/cuda/ptx.cuh"
    ]
