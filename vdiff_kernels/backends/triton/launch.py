"""The one place where kernels are launched."""

from collections.abc import Callable

import torch

from . import is_interpreted


def launch(kernel, programs: int, *arguments, num_warps: int = 4, num_stages: int = 2, **constants) -> None:
    """Runs a kernel as so many programs, on one flat grid, which is limited by 2^31 alone.

    arguments: its tensors and numbers, None where a tensor is absent; constants: its tl.constexpr, by name.

    Products and sums are fused only where a kernel says tl.fma. The compiler would fuse them also where lanes add to their own
    product those of other lanes: then each lane gets other bits of one sum, and which of them is stored is the machine's choice.
    """
    if programs:
        runner(kernel, programs, arguments, constants, num_warps, num_stages)


def _by_triton(kernel, programs, arguments, constants, num_warps, num_stages):
    if is_interpreted() and any(isinstance(one, torch.Tensor) and one.dtype == torch.bfloat16 for one in arguments):
        raise RuntimeError("Triton's interpreter computes bfloat16 wrongly; expected float32 or float16, or a GPU")
    kernel[(programs,)](*arguments, **constants, num_warps=num_warps, num_stages=num_stages, enable_fp_fusion=False)


runner: Callable = _by_triton  # tests put another in its place
