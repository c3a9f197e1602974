"""One environment's row for abi_check.sh: this torch loads the library, and one operator of each folder computes.

abi_probe.py any|cuda       cuda: this torch must be a CUDA build
"""

import ctypes
import sys

import torch
import torch.nn.functional as F

from vdiff_kernels.ops import library

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


def main(expect):
    reason = library.load()
    assert reason is None, reason
    names = sorted(name for name in torch._C._dispatch_get_all_op_names() if name.startswith("vdiff_kernels::"))
    names = [name.removeprefix("vdiff_kernels::") for name in names if "_native" in name]
    served = {key: [name for name in names if library.has_kernel(name, key)] for key in ("CPU", "CUDA")}
    assert served["CPU"] == names, f"no CPU kernel: {set(names) - set(served['CPU'])}"
    missing = {"channel_stats_native"} - set(served["CUDA"])
    for name in ("temporal_attention", "spatial_attention"):
        missing |= {f"{name}_native", f"{name}_native_backward"} - set(served["CUDA"])
    assert not missing, f"no CUDA kernel: {missing}"

    errors = []
    for check in (attention, norm, conv, feedforward):
        actual, expected = check()
        torch.testing.assert_close(actual, expected)
        errors.append(f"{check.__name__} {(actual - expected).abs().max():.0e}")

    assert expect != "cuda" or torch.version.cuda, "this torch is not a CUDA build"
    found = ctypes.CDLL(str(library.LIBRARY_FILE)).vdiff_stream_function_found()
    assert found == (torch.version.cuda is not None), f"vdiff_stream_function_found() is {found}"

    counts = ", ".join(f"{key} {len(kernels)} of {len(names)}" for key, kernels in served.items())
    print(f"torch {torch.__version__:13} kernels {counts} | {', '.join(errors)} | stream {'found' if found else 'absent'}")


main(*sys.argv[1:])
