"""From CUDA C++ and Triton to PTX, without a GPU."""

import functools
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

import torch

from .module import Kernel, Module, load

CSRC = Path(os.environ.get("PTXSIM_CSRC", Path(__file__).parents[2] / "csrc")).resolve()  # the sources that tests compile
ARCH = 80  # what ships is made of compute_80's PTX


@functools.cache
def nvcc() -> str:
    """The path of nvcc: on PATH, or of PyPI's nvidia-cuda-nvcc. Raises FileNotFoundError."""
    found = os.environ.get("NVCC") or shutil.which("nvcc")
    if found:
        return found
    for root in Path(sysconfig.get_path("purelib")).glob("nvidia/**/bin/nvcc"):
        return str(root)
    raise FileNotFoundError("no nvcc on PATH, nor of PyPI's nvidia-cuda-nvcc")


def from_cuda(
    source: str | os.PathLike,          # a path, or the text of a .cu file
    *,
    arch: int = ARCH,
    include: tuple[str | os.PathLike, ...] = (),
    flags: tuple[str, ...] = (),
) -> Module:  # fmt: skip
    """The module that nvcc makes of CUDA C++. Raises CalledProcessError, with nvcc's words on stderr."""
    return load(ptx_of_cuda(source, arch, tuple(map(str, include)), tuple(flags)))


def ptx_of_cuda(source, arch: int, include: tuple[str, ...], flags: tuple[str, ...]) -> str:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(source) if "\n" not in str(source) else Path(folder, "kernel.cu")
        if "\n" in str(source):
            path.write_text(str(source))
        output = Path(folder, "kernel.ptx")
        command = [nvcc(), "-ptx", "-lineinfo", "-std=c++17", f"-arch=compute_{arch}", *flags, *(f"-I{one}" for one in include)]
        done = subprocess.run([*command, str(path), "-o", str(output)], capture_output=True, text=True)
        if done.returncode:
            print(done.stderr, file=sys.stderr)
            done.check_returncode()
        return output.read_text()


class TritonKernel:
    """A compiled @triton.jit function: launched with its arguments that are not constexpr."""

    def __init__(self, compiled, names: list[str]):
        self.compiled, self.names = compiled, names
        self.kernel: Kernel = next(iter(load(compiled.asm["ptx"]).kernels.values()))
        self.shared_bytes: int = compiled.metadata.shared
        self.threads: int = 32 * compiled.metadata.num_warps

    def arguments(self, args) -> list:
        """Those of the signature, in its order, and Triton's own scratch pointers, which are not used."""
        return [*args, *[None] * (len(self.kernel.function.parameters) - len(args))]

    def launch(self, grid, *args, **options):
        """grid: blocks. args: those of the signature. options: those of Kernel.launch."""
        return self.kernel.launch(grid, self.threads, self.arguments(args), self.shared_bytes, **options)


def from_triton(
    function,                            # decorated with @triton.jit
    signature: dict[str, str],           # argument to Triton type: "*bf16", "i32", "fp32"; "constexpr" is understood
    constexprs: dict[str, object],
    *,
    arch: int = ARCH,
    num_warps: int = 4,
    num_stages: int = 3,
    divisible: tuple[str, ...] | None = None,   # arguments known to be multiples of 16; None: all pointers and integers
    fused: bool = True,                  # whether the compiler may make one operation of a product and a sum
) -> TritonKernel:  # fmt: skip
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    names = list(function.arg_names)
    types = {name: "constexpr" if name in constexprs else signature[name] for name in names}
    if divisible is None:
        divisible = tuple(name for name, type_ in types.items() if type_.startswith("*") or type_.startswith("i"))
    attributes = {(names.index(name),): [["tt.divisibility", 16]] for name in divisible}
    source = ASTSource(function, types, {(names.index(name),): value for name, value in constexprs.items()}, attributes)
    options = {"num_warps": num_warps, "num_stages": num_stages, "enable_fp_fusion": fused}
    compiled = triton.compile(source, target=GPUTarget("cuda", arch, 32), options=options)
    return TritonKernel(compiled, [name for name in names if types[name] != "constexpr"])


TYPES = {
    torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16", torch.float64: "fp64", torch.bool: "u1",
    torch.int32: "i32", torch.int64: "i64",
}  # fmt: skip


def from_launch(kernel, arguments, constants, num_warps: int, num_stages: int, arch: int = ARCH) -> tuple[TritonKernel, list]:
    """What Triton compiles for this launch of a @triton.jit function, and the arguments that are left.

    As by backends/triton/launch.py on a GPU: a number that is 1 and a tensor that is None are constants, multiples of 16 are
    known to be such, and nothing is fused.
    """
    names = [name for name in kernel.arg_names if name not in constants]
    signature, known, left, divisible = {}, dict(constants), [], []
    for name, value in zip(names, arguments, strict=True):
        if value is None or (type(value) is int and value == 1):
            known[name] = value
            continue
        left.append(value)
        if isinstance(value, torch.Tensor):
            signature[name], is_divisible = "*" + TYPES[value.dtype], value.data_ptr() % 16 == 0
        elif isinstance(value, int):
            signature[name], is_divisible = "i32" if -(2**31) <= value < 2**31 else "i64", value % 16 == 0
        else:
            signature[name], is_divisible = "fp32", False
        if is_divisible:
            divisible.append(name)
    compiled = _compiled(kernel, tuple(signature.items()), tuple(known.items()), arch, num_warps, num_stages, tuple(divisible))
    return compiled, left


@functools.cache
def _compiled(kernel, signature, known, arch, num_warps, num_stages, divisible) -> TritonKernel:
    return from_triton(
        kernel, dict(signature), dict(known), arch=arch, num_warps=num_warps, num_stages=num_stages, divisible=divisible,
        fused=False,
    )  # fmt: skip
