"""One environment's row for abi_check.sh: this torch loads the library, and one operator of each folder computes.

abi_probe.py any|cuda       cuda: this torch must be a CUDA build
"""

import ctypes
import sys

import torch
import torch.nn.functional as F
from torch._subclasses import FakeTensorMode

import vdiff_kernels as vdiff
from vdiff_kernels import library
from vdiff_kernels.backends import gpu

ops = torch.ops.vdiff_kernels
torch.manual_seed(0)


def attention():
    q, k, v = torch.randn(3, 2, 5, 3, 4, 2, 8).unbind()  # (B, T, H, W, N, D)
    out, _ = ops.temporal_attention_native(q, k, v, None, None, 0.3, False, None, None, False)
    scores = torch.einsum("bthwnd,bshwnd->bhwnts", q, k) * 0.3
    return out, torch.einsum("bhwnts,bshwnd->bthwnd", scores.softmax(-1), v)


def norm():
    x = torch.randn(2, 3, 5, 7, 6)  # (B, T, H, W, C)
    variance, mean = torch.var_mean(x, (2, 3), correction=0)
    return ops.channel_stats_native(x), torch.stack((mean, variance), -1)


def conv():
    x, weight, bias = torch.randn(1, 2, 5, 4, 3), torch.randn(6, 3, 1, 3, 3), torch.randn(6)
    nothing = ("none", None, None, 1, 1e-5, "frame", None, None, "silu", None)
    out, _ = ops.norm_act_conv_native(x, weight, bias, *nothing, None, None, None, False)
    expected = F.conv3d(F.silu(x.permute(0, 4, 1, 2, 3)), weight, bias, padding=(0, 1, 1))
    return out, expected.permute(0, 2, 3, 4, 1)


def feedforward():
    x, weight, bias = torch.randn(7, 5), torch.randn(8, 5), torch.randn(8)
    a, b = F.linear(x, weight, bias).chunk(2, -1)
    return ops.geglu_native(x, weight, bias), a * F.gelu(b)


class WithoutMemory(torch.Tensor):
    """A CUDA tensor in all but memory: under DisableTorchDispatch it goes to the CUDA kernels, and their checks see its shape."""

    @staticmethod
    def __new__(cls, *shape, dtype=torch.float16, strides=None):
        return torch.Tensor._make_wrapper_subclass(cls, shape, strides, dtype=dtype, device="cuda:0")

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        raise AssertionError(f"{function} was to go to its kernel")


def refused(expected, function, *arguments, **options):
    try:
        function(*arguments, **options)
    except (ValueError, TypeError, RuntimeError) as error:
        assert expected in str(error), f"{error}; expected {expected!r}"
    else:
        raise AssertionError(f"not refused; expected {expected!r}")


def check_cuda_arguments():
    """Both attention operators refuse wrong CUDA tensors before they launch: in Python, traced, and in C++."""
    q, k, short = (2, 5, 3, 4, 2, 8), (2, 6, 3, 4, 2, 8), (2, 6, 3, 4, 2, 7)
    gpu._answers[None] = gpu._answers[0] = None  # as if there were a GPU
    with FakeTensorMode():
        fake = lambda *shape, **options: torch.empty(shape, device="cuda", dtype=torch.float16, **options)  # noqa: E731
        out = vdiff.temporal_attention(fake(*q), fake(*k), fake(*k), backend="cuda")
        assert out.shape == q and out.device.type == "cuda"
        refused("v has shape (2, 6, 3, 4, 2, 7)", vdiff.temporal_attention, fake(*q), fake(*k), fake(*short), backend="cuda")
        refused("k has shape (3, 9, 2, 8)", vdiff.spatial_attention, fake(*q), fake(3, 9, 2, 8), fake(3, 9, 2, 8), backend="cuda")

    def temporal(q, k, v, *table):
        return ops.temporal_attention_native(q, k, v, *(table or (None, None)), 1.0, False, None, None, False)

    def spatial(q, k, v, *table):
        return ops.spatial_attention_native(q, k, v, *(table or (None, None)), 1.0, None, False)

    T = WithoutMemory
    with torch._C._DisableTorchDispatch():
        refused("v has shape (2, 6, 3, 4, 2, 7); expected (B, S, H, W, N, D)", temporal, T(*q), T(*k), T(*short))
        refused("k has dtype float32; expected float16, as q", temporal, T(*q), T(*k, dtype=torch.float32), T(*k))
        refused("q has stride 2 in its innermost", temporal, T(*q, strides=(960, 192, 64, 32, 16, 2)), T(*k), T(*k))
        refused("bias has shape (2, 5, 5); expected (N, T, S) = (2, 5, 6)", temporal, T(*q), T(*k), T(*k), T(2, 5, 5), None)
        refused("k is on cpu; expected cuda:0, as q", spatial, T(*q), torch.ones(q), torch.ones(q))
        refused("k has rank 3", spatial, T(*q), T(6, 2, 8), T(6, 2, 8))
        big = T(*q[:5], 257)
        refused("q has D = 257; expected 1 to 256", spatial, big, big, big)
        backward = ops.temporal_attention_native_backward
        refused(
            "grad_out has shape",
            backward,
            T(*k),
            T(*q),
            T(*k),
            T(*k),
            None,
            None,
            None,
            None,
            1.0,
            False,
            None,
            None,
            False,
            False,
        )
        double = T(*q, dtype=torch.float64)
        refused("q is float64", lambda: spatial(double, double, double))


def main(expect):
    reason = library.load()
    assert reason is None, reason
    names = sorted(name for name in torch._C._dispatch_get_all_op_names() if name.startswith("vdiff_kernels::"))
    names = [name.removeprefix("vdiff_kernels::") for name in names if "_native" in name]
    served = {key: [name for name in names if library.has_kernel(name, key)] for key in ("CPU", "CUDA")}
    missing = set(names) - set(served["CPU"]) - {"norm_linear_native", "norm_linear_native_backward"}
    assert not missing, f"no CPU kernel: {missing}"
    missing = {"channel_stats_native"} - set(served["CUDA"])
    for name in ("temporal_attention", "spatial_attention", "norm_linear"):
        missing |= {f"{name}_native", f"{name}_native_backward"} - set(served["CUDA"])
    assert not missing, f"no CUDA kernel: {missing}"

    errors = []
    for check in (attention, norm, conv, feedforward):
        actual, expected = check()
        torch.testing.assert_close(actual, expected)
        errors.append(f"{check.__name__} {(actual - expected).abs().max():.0e}")

    assert expect != "cuda" or torch.version.cuda, "this torch is not a CUDA build"
    if expect == "cuda":
        check_cuda_arguments()
    found = ctypes.CDLL(str(library.LIBRARY_FILE)).vdiff_stream_function_found()
    assert found == (torch.version.cuda is not None), f"vdiff_stream_function_found() is {found}"

    counts = ", ".join(f"{key} {len(kernels)} of {len(names)}" for key, kernels in served.items())
    print(f"torch {torch.__version__:13} kernels {counts} | {', '.join(errors)} | stream {'found' if found else 'absent'}")


main(*sys.argv[1:])
