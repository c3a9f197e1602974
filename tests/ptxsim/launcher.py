"""C++ launchers run as they ship: nvcc's host code on a stand-in for the CUDA runtime, every kernel it launches simulated.

launchers = Launchers([csrc / "norm/cuda/sm80/channel_stats.cu", csrc / "common/cuda/launch.cu"], include=(csrc,))
with launchers.simulated(run):     # run(kernel, grid, block, arguments, shared_bytes), for each launch
    launchers.call("launch_channel_stats", params, partials, None)
"""

import contextlib
import ctypes
import fcntl
import functools
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from vdiff_kernels.files import written_whole

from .compile import nvcc
from .core_library import cache_folder
from .memory import Struct
from .module import Kernel, Module, load
from .registers import Resources, parsed_resources

RUNTIME = Path(__file__).parent / "runtime.cpp"
# The PTX is what setup.py's build embeds; the cubin is for its figures, and takes most of the time.
COUNTED = os.environ.get("PTXSIM_COUNTS") != "0"
_CODE = "[sm_80,compute_80]" if COUNTED else "compute_80"
FLAGS = (f"-gencode=arch=compute_80,code={_CODE}", "-O3", "-std=c++17", "-lineinfo", "-Xptxas=-v", "-Xcompiler=-fPIC")
SHARED_BYTES = 99 << 10  # of a block, on the GPU that has the least of those we build for
_PATIENCE = 2  # compilers at once


class Unit:
    """A .cu file, compiled: its object for the host, its PTX, and ptxas's figures. It is kept under what it is made of, wherever
    that lies: a copy of the sources compiles what is different in it, and no more."""

    def __init__(self, source: Path, include: tuple[Path, ...]):
        self.source = source
        name = f"{source.stem}-{_digest(_within(source, include), *FLAGS, nvcc())}"
        folder = cache_folder() / "units"
        folder.mkdir(parents=True, exist_ok=True)
        with open(folder / f"{name}-{_digest(str(source))}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # the workers of a test run want the same units
            made = (path for path in folder.glob(f"{name}-*.json") if _is_made_of(path, include))
            made_of = next(made, None) or self._compile(folder / name, include)
        self.object, self.ptx = made_of.with_suffix(".o"), made_of.with_suffix(".ptx")
        held = json.loads(made_of.read_text())
        self.log, self.digest = held["log"], _digest(*held["files"].values())

    def _compile(self, path, include) -> Path:
        with tempfile.TemporaryDirectory() as folder:
            output, dependencies = Path(folder, "unit.o"), Path(folder, "unit.d")
            command = [nvcc(), "-c", *FLAGS, "--keep", "--keep-dir", folder, "-MD", "-MF", str(dependencies)]
            command += [*(f"-I{one}" for one in include), str(self.source), "-o", str(output)]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                print(done.stderr, file=sys.stderr)
                done.check_returncode()
            (ptx,) = Path(folder).glob("*.ptx")
            words = dependencies.read_text().replace("\\\n", " ").split(":", 1)[1].split()
            ours = [word for word in words if any(Path(word).resolve().is_relative_to(Path(root).resolve()) for root in include)]
            files = {_within(Path(word), include): _digest_of_file(word) for word in (str(self.source), *ours)}
            made_of = path.with_name(f"{path.name}-{_digest(*files, *files.values())}.json")
            description = json.dumps({"log": done.stderr, "files": files}).encode()
            for suffix, content in (".ptx", ptx.read_bytes()), (".o", output.read_bytes()), (".json", description):
                with written_whole(made_of.with_suffix(suffix)) as draft:  # another checkout may make the same
                    draft.write_bytes(content)
            return made_of

    @functools.cached_property
    def module(self) -> Module:
        return load(self.ptx)

    @functools.cached_property
    def resources(self) -> dict[str, Resources]:
        return parsed_resources(self.log)

    @functools.cached_property
    def kernel_names(self) -> list[str]:
        return re.findall(r"\.entry\s+([\w$]+)", self.ptx.read_text())


class Launchers:
    """The functions of .cu files, linked with the stand-in."""

    def __init__(self, sources, include: tuple = ()):
        with ThreadPoolExecutor(_PATIENCE) as pool:
            self.units = list(pool.map(lambda source: Unit(Path(source), tuple(map(Path, include))), sources))
        library = cache_folder() / f"launchers-{_digest(RUNTIME.read_text(), *(unit.digest for unit in self.units))}.so"
        if not library.exists():
            draft = library.with_suffix(f".{os.getpid()}.so")
            compiler = os.environ.get("CXX", "g++")
            objects = [str(unit.object) for unit in self.units]
            flags = ["-std=c++17", "-O1", "-fPIC", "-shared", "-Wl,--no-undefined"]
            subprocess.run([compiler, *flags, str(RUNTIME), *objects, "-o", str(draft)], check=True)
            os.replace(draft, library)
        self.library = ctypes.CDLL(str(library))
        self.library.ptxsim_call.restype = ctypes.c_int64
        listed = subprocess.run(["nm", "-D", "--defined-only", str(library)], capture_output=True, text=True, check=True).stdout
        self.symbols = [line.split()[-1] for line in listed.splitlines()]
        self._unit_of = {name: unit for unit in self.units for name in unit.kernel_names}

    def kernel(self, name: str) -> tuple[Kernel, Resources | None]:
        """By its mangled name."""
        unit = self._unit_of[name]
        return unit.module[name], unit.resources[name] if COUNTED else None

    def symbol(self, name: str) -> str:
        """The mangled name of the function of that name. Raises KeyError unless there is one."""
        found = [symbol for symbol in self.symbols if re.search(rf"(?<!\d){len(name)}{name}(?![a-z0-9_])", symbol)]
        if len(found) != 1:
            raise KeyError(f"{len(found)} functions are called {name!r}" + (f": {', '.join(found)}" if found else ""))
        return found[0]

    def call(self, name: str, *arguments) -> int:
        """Calls it with tensors (by their addresses), Structs (by reference), integers and None.

        Raises RuntimeError for what it throws.
        """
        keep = [ctypes.create_string_buffer(value.data, len(value.data)) for value in arguments if isinstance(value, Struct)]
        structs = iter(keep)
        words = []
        for value in arguments:
            if isinstance(value, Struct):
                words.append(ctypes.addressof(next(structs)))
            elif isinstance(value, torch.Tensor):
                words.append(value.data_ptr())
            else:
                words.append(value or 0)
        if len(words) > 6:
            raise ValueError(f"{name}: {len(words)} arguments; expected at most 6")
        error = ctypes.create_string_buffer(1024)
        function = ctypes.cast(getattr(self.library, self.symbol(name)), ctypes.c_void_p)
        answer = self.library.ptxsim_call(function, (ctypes.c_int64 * 6)(*words), error, ctypes.c_int64(len(error)))
        if error.value:
            raise RuntimeError(error.value.decode())
        return answer

    @contextlib.contextmanager
    def simulated(self, run, shared_bytes: int = SHARED_BYTES):
        """Launches made within go to run(kernel, grid, block, arguments, shared_bytes); what it raises is raised at the end.

        arguments: the bytes of each. shared_bytes: what the GPU can give a block. `streams` holds those that they were launched
            on.
        """
        raised = []
        self.streams = set()

        def simulate(name, shape, dynamic, addresses, stream):
            try:
                self.streams.add(stream)
                kernel, _ = self.kernel(name.decode())
                parameters = kernel.function.parameters
                arguments = [ctypes.string_at(addresses[i], parameter.bytes) for i, parameter in enumerate(parameters)]
                run(kernel, tuple(shape[:3]), tuple(shape[3:6]), arguments, dynamic)
            except BaseException as error:  # it must not unwind through C++
                raised.append(error)
                return 1
            return 0

        kind = ctypes.CFUNCTYPE(
            ctypes.c_int, ctypes.c_char_p, ctypes.POINTER(ctypes.c_uint), ctypes.c_int64, ctypes.POINTER(ctypes.c_void_p),
            ctypes.c_void_p,
        )  # fmt: skip
        callback = kind(simulate)
        self.library.ptxsim_runtime(callback, ctypes.c_int64(shared_bytes))
        try:
            yield
        except RuntimeError:
            if not raised:
                raise
        if raised:
            raise raised[0]


def plain_name(mangled: str) -> str:
    """The kernel's name without namespaces, with its template arguments: short_attention_fwd_kernel<float, 8>."""
    readable = subprocess.run(["c++filt", mangled], capture_output=True, text=True, check=True).stdout.strip()
    readable = re.sub(r"\((?!int\))[^()]*\)$", "", readable.removeprefix("void ")).replace("(int)", "")
    return re.sub(r"\w+::", "", readable)


def _within(path: Path, include: tuple[Path, ...]) -> str:
    """The path within the folder of include that has it, or the whole path."""
    roots = [root.resolve() for root in include if path.resolve().is_relative_to(root.resolve())]
    return str(path.resolve().relative_to(roots[0]) if roots else path.resolve())


def _is_made_of(made_of: Path, include: tuple[Path, ...]) -> bool:
    files = json.loads(made_of.read_text())["files"]
    return all(any(_digest_of_file(root / path) == digest for root in include or (Path(),)) for path, digest in files.items())


def _digest(*texts: str) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]


def _digest_of_file(path: str) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:16] if Path(path).exists() else ""
