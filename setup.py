"""Builds vdiff_kernels/_C.so, one plain shared library without Python in it, through ninja: only what changed recompiles.

Environment:
    VDIFF_NATIVE     auto: the library where there is a C++ compiler (default); 0: never; 1: a compiler or fail
    VDIFF_CUDA       auto: CUDA kernels where nvcc is found (default); 0: never; 1: nvcc or fail
    VDIFF_CUDA_ARCHS the GPUs that get machine code, 80;86;89;90;100;120 by default; others compile the PTX that is there too
    CUDA_HOME        where to look for bin/nvcc before PATH
    CXX              the C++ compiler, g++ by default
    CXXFLAGS         more flags for it, LDFLAGS for the linker
    VDIFF_BUILD      where objects go, build/cpu or build/cuda by default
    MAX_JOBS         how many compilers run at once, ninja's choice by default
"""

import base64
import ctypes
import hashlib
import json
import os
import platform
import re
import shlex
import shutil
import subprocess
from pathlib import Path

try:
    from setuptools import Command, Extension, setup
    from setuptools.command.bdist_wheel import bdist_wheel
    from setuptools.command.build_ext import build_ext
except ImportError as error:
    raise SystemExit(f"vdiff_kernels: building needs setuptools 77 or newer (pip install -U setuptools): {error}") from None

ROOT = Path(__file__).resolve().parent
CXX = os.environ.get("CXX", "g++")
MORE_CXX_FLAGS, MORE_LINK_FLAGS = (shlex.split(os.environ.get(name, "")) for name in ("CXXFLAGS", "LDFLAGS"))

# The library speaks the stable ABI of torch 2.10 and so serves that and every newer one.
TORCH_MINIMUM = (2, 10)
DEFINES = ["-DTORCH_TARGET_VERSION=0x020a000000000000"]
FLAGS = ["-O3", "-std=c++17", "-Icsrc"]
CXX_FLAGS = ["-fPIC", "-fvisibility=hidden", "-Wall", *MORE_CXX_FLAGS]
# The CPU kernels, csrc/<family>/cpu, are compiled once for each of these, and the best that the processor has is chosen at run
# time. No errno and no traps, so that loops with math in them vectorise; NaN and infinity keep their meaning. GCC 12 takes a loop
# over the first lanes of a vector, unrolled, to read beyond it.
KERNEL_FLAGS = ["-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast", "-Wno-maybe-uninitialized"]
X86_64 = platform.machine() in ("x86_64", "AMD64")
AVX2 = ["-mavx2", "-mfma", "-mf16c"]
AVX512 = [*AVX2, "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mprefer-vector-width=512"]
INSTRUCTION_SETS = {"baseline": []} | ({"avx2": AVX2, "avx512": AVX512} if X86_64 else {})
CUDA_ARCHS = [word for word in os.environ.get("VDIFF_CUDA_ARCHS", "80;86;89;90;100;120").replace(" ", ";").split(";") if word]
if not CUDA_ARCHS or not all(arch.isdigit() and int(arch) >= 80 for arch in CUDA_ARCHS):
    raise SystemExit(f"vdiff_kernels: VDIFF_CUDA_ARCHS is {';'.join(CUDA_ARCHS)!r}; allowed are numbers from 80 on, as in 80;90")
# Every cubin comes from the one PTX for compute_80, which is the one that the tests execute.
NVCC_FLAGS = [
    f"-gencode=arch=compute_80,code=[{','.join(f'sm_{arch}' for arch in CUDA_ARCHS)},compute_80]",
    "-lineinfo",
    "--compress-mode=size",  # a fifth of the bytes
    f"-Xcompiler={','.join(CXX_FLAGS)}",
    f"-ccbin={CXX}",
]


def chosen(variable: str) -> str:
    choice = os.environ.get(variable, "auto")
    if choice not in ("auto", "0", "1"):
        raise SystemExit(f"vdiff_kernels: {variable} is {choice!r}; allowed are auto, 0 and 1")
    return choice


def wants_library() -> bool:
    """Whether to build it. Without, the package computes by PyTorch, and says so where it is asked."""
    choice, compiler = chosen("VDIFF_NATIVE"), shlex.split(CXX)[0]
    if choice == "0" or shutil.which(compiler):
        return choice != "0"
    if choice == "1" or chosen("VDIFF_CUDA") == "1":
        raise SystemExit(f"vdiff_kernels: there is no C++ compiler {compiler!r}, which VDIFF_NATIVE=1 and VDIFF_CUDA=1 need")
    print(f"vdiff_kernels: no C++ compiler {compiler!r}: installing without the compiled library, on PyTorch alone", flush=True)
    return False


def find_nvcc() -> str | None:
    home = os.environ.get("CUDA_HOME")
    return (shutil.which("nvcc", path=f"{home}/bin") if home else None) or shutil.which("nvcc")


def chosen_nvcc() -> str | None:
    """The nvcc to build CUDA kernels with, or None to build without."""
    choice = chosen("VDIFF_CUDA")
    nvcc = None if choice == "0" else find_nvcc()
    if choice == "1" and nvcc is None:
        raise SystemExit("vdiff_kernels: VDIFF_CUDA=1, but there is no nvcc in CUDA_HOME/bin or on PATH")
    return nvcc


def torch_directory() -> Path:
    try:
        import torch
    except ImportError as error:
        raise SystemExit(
            f"vdiff_kernels: torch cannot be imported ({error}). The build uses the torch that is installed: install torch, "
            "setuptools and ninja first, then give pip --no-build-isolation"
        ) from None
    if tuple(int(part) for part in torch.__version__.split(".")[:2]) < TORCH_MINIMUM:
        raise SystemExit(f"vdiff_kernels: torch is {torch.__version__}; building needs 2.10 or newer")
    return Path(torch.__file__).parent


def ninja_program() -> str:
    try:
        import ninja

        return str(Path(ninja.BIN_DIR) / "ninja")
    except ImportError:
        program = shutil.which("ninja")
    if program is None:
        raise SystemExit("vdiff_kernels: building needs ninja (pip install ninja)")
    return program


def ninja_rule(name: str, *command: str, compiles: bool) -> str:
    text = " ".join(word if word in ("$in", "$out") else shlex.quote(word).replace("$", "$$") for word in command)
    if not compiles:
        return f"rule {name}\n  command = {text}\n"
    return f"rule {name}\n  command = {text} -MD -MF $out.d -c $in -o $out\n  depfile = $out.d\n  deps = gcc\n"


def is_cpu_kernel(source: Path) -> bool:
    return source.match("csrc/*/cpu/*.cpp") and not source.match("csrc/common/*/*")


def ninja_file(directory: Path, nvcc: str | None, torch: Path) -> str:
    """What builds `directory`/_C.so. Paths are relative to ROOT, so that no machine's path ends up in the library."""
    sources = sorted(path for path in Path("csrc").rglob("*") if path.suffix in (".cpp", ".cu"))
    if not nvcc:
        sources = [source for source in sources if "cuda" not in source.parts]
    defines = [*DEFINES, "-DVDIFF_WITH_CUDA"] if nvcc else DEFINES
    # libtorch_cpu.so is named as needed even where no symbol would ask for it; torch is in the process already: no rpath.
    libraries = [f"-L{torch / 'lib'}", "-ltorch_cpu", "-lc10"]
    linker = ["--no-undefined", "--exclude-libs=ALL", "--no-as-needed"]
    if nvcc:
        options = [word for option in linker for word in ("-Xlinker", option)]
        link = [nvcc, f"-ccbin={CXX}", "-shared", "-cudart=static", "--no-device-link", "$in", "-o", "$out"]
    else:
        options = [f"-Wl,{option}" for option in linker]
        link = [CXX, "-shared", "$in", "-o", "$out"]

    lines = [f"builddir = {directory}\n"]
    lines.append(ninja_rule("cxx", CXX, *FLAGS, *CXX_FLAGS, *defines, "-isystem", str(torch / "include"), compiles=True))
    for name, flags in INSTRUCTION_SETS.items():
        lines.append(ninja_rule(name, CXX, *FLAGS, *CXX_FLAGS, *KERNEL_FLAGS, *flags, f"-DVDIFF_ISA={name}", compiles=True))
    if nvcc:
        lines.append(ninja_rule("cuda", nvcc, *FLAGS, *NVCC_FLAGS, compiles=True))
    lines.append(ninja_rule("link", *link, *options, *libraries, *MORE_LINK_FLAGS, compiles=False))
    objects = []
    for source in sources:
        if is_cpu_kernel(source):
            units = {name: f"{directory}/{source}.{name}.o" for name in INSTRUCTION_SETS}
        else:
            units = {"cuda" if source.suffix == ".cu" else "cxx": f"{directory}/{source}.o"}
        lines += [f"build {unit}: {rule} {source}" for rule, unit in units.items()]
        objects += units.values()
    lines.append(f"build {directory}/_C.so: link {' '.join(objects)}\n")
    return "\n".join(lines)


class BuildLibrary(build_ext):
    def get_ext_filename(self, fullname):
        return fullname.replace(".", "/") + ".so"

    def build_extension(self, extension):
        nvcc, torch, ninja = chosen_nvcc(), torch_directory(), ninja_program()
        print(f"vdiff_kernels: building CPU kernels {f'and CUDA kernels ({nvcc})' if nvcc else 'only'}", flush=True)
        directory = Path(os.environ.get("VDIFF_BUILD") or Path("build", "cuda" if nvcc else "cpu"))
        (ROOT / directory).mkdir(parents=True, exist_ok=True)
        (ROOT / directory / "build.ninja").write_text(ninja_file(directory, nvcc, torch))
        jobs = ["-j", os.environ["MAX_JOBS"]] if os.environ.get("MAX_JOBS") else []
        if subprocess.run([ninja, *jobs, "-f", f"{directory}/build.ninja"], cwd=ROOT).returncode:
            hint = "; VDIFF_CUDA=0 builds without CUDA" if nvcc else ""
            raise SystemExit(f"vdiff_kernels: the library did not compile, see above{hint}")
        target = Path(self.get_ext_fullpath(extension.name))
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)  # a process may have the old file mapped
        shutil.copyfile(ROOT / directory / "_C.so", target)  # a new time, so that setuptools sees it as newer than any other


def cuda_runtime(library: Path) -> int:
    """The version of the CUDA runtime in a library, 13000 for 13.0; 0 where it has none or there is no library."""
    torch_directory()  # imports torch, whose libraries ours needs
    return getattr(ctypes.CDLL(str(library)), "vdiff_cuda_runtime_version", lambda: 0)() if library.exists() else 0


class Hub(Command):
    """The package as it is in place, laid out for Hugging Face's `kernels`: <directory>/build/<variant>, with a metadata.json."""

    user_options = [("directory=", "d", "where to make it, build/hub by default")]

    def initialize_options(self):
        self.directory = "build/hub"

    def finalize_options(self):
        pass

    def run(self):
        from setuptools.compat.py310 import tomllib  # that of Python where it has one

        general = tomllib.loads((ROOT / "build.toml").read_text())["general"]
        cuda = cuda_runtime(ROOT / "vdiff_kernels" / "_C.so")
        backend = f"cu{cuda // 1000}{cuda % 1000 // 10}" if cuda else "cpu"
        abi = "".join(map(str, TORCH_MINIMUM))
        variant = Path(self.directory, "build", f"torch-stable-abi{abi}-{backend}-{platform.machine()}-linux")
        shutil.rmtree(variant, ignore_errors=True)
        shutil.copytree(ROOT / "vdiff_kernels", variant, ignore=shutil.ignore_patterns("__pycache__"))
        archs = [*(f"{arch[:-1]}.{arch[-1]}" for arch in CUDA_ARCHS), "8.0+PTX"]
        files = sorted(path for path in variant.rglob("*") if path.is_file())
        digests = {str(path.relative_to(variant)): hashlib.sha256(path.read_bytes()).digest() for path in files}
        metadata = {
            "id": re.sub(r"\W", "_", f"_{general['name']}_{backend}_{self.distribution.get_version()}"),  # a module's name
            **{key: general[key] for key in ("name", "version", "license")},
            "python-depends": [],
            "backend": {"type": "cuda", "archs": archs} if cuda else {"type": "cpu"},
            "digest": {"algorithm": "sha256", "files": {name: base64.b64encode(bits).decode() for name, bits in digests.items()}},
        }
        (variant / "metadata.json").write_text(json.dumps(metadata, indent=2) + "\n")
        print(f"vdiff_kernels: {variant}")


class PlatformWheel(bdist_wheel):
    def get_tag(self):
        return "py3", "none", super().get_tag()[2]  # serves every Python; "any" platform without the library


os.chdir(ROOT)
setup(
    ext_modules=[Extension("vdiff_kernels._C", sources=[])] if wants_library() else [],
    cmdclass={"build_ext": BuildLibrary, "bdist_wheel": PlatformWheel, "hub": Hub},
)
