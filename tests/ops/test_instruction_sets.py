"""Each CPU kernel is compiled for several instruction sets, and none of their code may end up in another's."""

import re
import shutil
import subprocess

import pytest

from vdiff_kernels import library

WIDE = {"ymm": ("avx2", "avx512"), "zmm": ("avx512",)}  # Which instruction sets' namespaces may use a register.


@pytest.mark.skipif(shutil.which("objdump") is None, reason="needs objdump, of binutils")
def test_no_wide_register_outside_its_instruction_set():
    command = ["objdump", "-d", "--no-show-raw-insn", library.LIBRARY_FILE]
    used = {register: set() for register in WIDE}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            if line.endswith(">:\n"):
                function = line.split("<", 1)[1][:-3]
            for register in WIDE:
                if f"%{register}" in line:
                    used[register].add(function)
    assert process.returncode == 0
    for register, namespaces in WIDE.items():
        allowed = re.compile("|".join(f"{len(name)}{name}" for name in namespaces))  # as a mangled name has them
        assert not [name for name in used[register] if not allowed.search(name)], register
        assert used[register] or "avx2" not in library.instruction_sets(), register
