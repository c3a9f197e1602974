"""The C++ core: built on first use, for this processor, and loaded."""

import ctypes
import functools
import hashlib
import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

SOURCES = Path(__file__).parent / "core"
FLAGS = (
    "-std=c++17",
    "-O2",
    "-ftree-vectorize",
    "-march=native",
    "-fPIC",
    "-ffp-contract=off",
    "-frounding-math",
    "-Wall",
    "-Wextra",
)


def cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "vdiff_kernels" / "ptxsim"


def _build() -> Path:
    """The library of these sources: objects and library are kept under the hash of what they are made of."""
    compiler = os.environ.get("CXX", "g++")
    machine = subprocess.run([compiler, "-march=native", "-Q", "--help=target"], capture_output=True).stdout
    common = b"".join([*(header.read_bytes() for header in sorted(SOURCES.glob("*.h"))), " ".join(FLAGS).encode(), machine])
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)

    def make(name: str, content: bytes, suffix: str, *command: str) -> Path:
        target = folder / f"{name}-{hashlib.sha256(content).hexdigest()[:16]}{suffix}"
        if not target.exists():
            draft = target.with_suffix(f".{os.getpid()}{suffix}")
            subprocess.run([*command, "-o", str(draft)], check=True)
            os.replace(draft, target)  # whole at once: several processes may build
        return target

    def compile_one(source: Path) -> Path:
        return make(source.stem, common + source.read_bytes(), ".o", compiler, *FLAGS, "-c", str(source))

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = list(pool.map(compile_one, sorted(SOURCES.glob("*.cpp"))))
    names = [str(path) for path in objects]
    return make("core", "".join(names).encode(), ".so", compiler, "-shared", "-pthread", *names)


@functools.cache
def core() -> ctypes.CDLL:
    library = ctypes.CDLL(str(_build()))
    library.ptxsim_table.restype = ctypes.c_char_p
    library.ptxsim_answer.restype = ctypes.c_char_p
    library.ptxsim_decode.restype = ctypes.c_void_p
    library.ptxsim_launch.restype = ctypes.c_char_p
    library.ptxsim_specials_bytes.restype = ctypes.c_int64
    library.ptxsim_free.argtypes = [ctypes.c_void_p]
    return library


def instructions() -> list[tuple[str, str, str]]:
    """(name, forms, meaning) of every instruction that is known."""
    return [tuple(line.split("\t")) for line in core().ptxsim_table().decode().splitlines()]


def instruction_list() -> str:
    """The table of README.md."""
    cells = [(f"`{name}`", f"`{forms}`" if forms else "", meaning.replace("|", r"\|")) for name, forms, meaning in instructions()]
    rows = [f"| {' | '.join(row)} |" for row in sorted(cells)]
    return "\n".join(["| instruction | forms | meaning |", "|---|---|---|", *rows])
