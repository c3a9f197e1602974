"""What the driver and the GPU are, and why the compiled CUDA kernels cannot run there."""

import torch

from .. import library

MINIMUM_CAPABILITY = (8, 0)
MINIMUM_DRIVER = {13: "580"}  # the first NVIDIA driver of a major version of CUDA

_answers: dict[int | None, str | None] = {}


def constant_in_graphs(function):
    """Decorates a function that torch.compile is to call while it traces, in place of tracing it. It does what
    torch.compiler.assume_constant_result does, without that one's import of the compiler, as long as that of all of torch.
    """
    function._dynamo_marked_constant = True
    return function


@constant_in_graphs
def why_not(index: int | None) -> str | None:
    """Why the compiled CUDA kernels cannot run on that GPU, or None; asked once a process. index None: the current one."""
    if index not in _answers:
        _answers[index] = _why_no_driver() or _why_too_old(index)
    return _answers[index]


@constant_in_graphs
def why_no_gpu(index: int | None) -> str | None:
    """The same of kernels that bring no CUDA runtime of their own, but use torch's."""
    if torch.version.cuda is None:
        return _cpu_build()
    if not torch.cuda.is_available():
        return "torch finds no NVIDIA GPU, or no driver"
    return _why_too_old(index)


def _cpu_build() -> str:
    return f"this torch ({torch.__version__}) is a CPU build"


def _why_too_old(index: int | None) -> str | None:
    return why_too_old(torch.cuda.get_device_capability(index), torch.cuda.get_device_name(index))


def name(index: int | None) -> str:
    """The GPU's name and architecture: NVIDIA H100 (sm_90)."""
    major, minor = torch.cuda.get_device_capability(index)
    return f"{torch.cuda.get_device_name(index)} (sm_{major}{minor})"


def _why_no_driver() -> str | None:
    runtime, driver = library.cuda_versions()
    if torch.version.cuda is None:
        return _cpu_build()
    if driver == 0:
        return "there is no NVIDIA driver"
    if driver // 1000 < runtime // 1000:
        first = MINIMUM_DRIVER.get(runtime // 1000)
        newer = f" ({first} or newer)" if first else ""
        needed = f"the kernels need one that serves {_cuda(runtime)}{newer}"
        return f"the NVIDIA driver is too old: it serves {_cuda(driver)}, and {needed}"
    if not torch.cuda.is_available():
        return f"there is an NVIDIA driver ({_cuda(driver)}), but torch finds no GPU"
    return None


def why_too_old(capability: tuple[int, int], what: str) -> str | None:
    """Why a GPU of that compute capability is too old, or None."""
    if capability >= MINIMUM_CAPABILITY:
        return None
    return f"{what} (sm_{capability[0]}{capability[1]}) is too old; expected compute capability 8.0 or newer"


def _cuda(version: int) -> str:
    return f"CUDA {version // 1000}.{version % 1000 // 10}"
