"""The CUDA attention operators, simulated: what csrc/attention/operators.cpp does, with launches that tests/ptxsim executes."""

import torch

from tests import ptxsim
from tests.ops.simulated import DTYPES, STREAM, launchers_of, taken_by_auto
from vdiff_kernels.ops.attention.schema import attention_kernels, cuda_backward_needs

_ROWS, _BIAS = "Q5q", "Qi?3x3q"  # PixelRows and AttentionBias, of csrc/attention/params.h


def launchers():
    return launchers_of("attention")


def kernels_of(run):
    """Those of each operator. run: `simulate.launcher`, or its like."""
    operators = SimulatedKernels(run)
    return {
        f"{kind}_attention": attention_kernels(operators.forward[kind], operators.backward[kind], cuda_backward_needs)
        for kind in ("temporal", "spatial")
    }


def simulated_by_default(run):
    """Auto takes the simulated CUDA kernels on the CPU."""
    return taken_by_auto(kernels_of(run))


class SimulatedKernels:
    """The compiled library's operators by kind, with the arguments of their schemas (vdiff_kernels/ops/attention/schema.py).

    run: `simulate.launcher`, `clean_run(..)`, or their like. outputs: makes them; those of ptxsim are held to be written whole.
    """

    def __init__(self, run, outputs=ptxsim.empty):
        self.run, self.empty = run, outputs
        self.forward = {"temporal": self.temporal, "spatial": self.spatial}
        self.backward = {"temporal": self.temporal_backward, "spatial": self.spatial_backward}

    # ------------------------------------------------------------------------------------------------------------ temporal

    def temporal(self, q, k, v, bias, rel_bias, scale, causal, focus_present, rotary, return_lse):
        format, values, tensors = _temporal(q, k, v, bias, rel_bias, scale, causal, focus_present, rotary)
        return self._forward("temporal", format, values, tensors, q, return_lse)

    def temporal_backward(
        self, grad_out, q, k, v, out, lse, bias, rel_bias, scale, causal, focus_present, rotary, packed, need_bias_grad
    ):
        format, values, tensors = _temporal(q, k, v, bias, rel_bias, scale, causal, focus_present, rotary)
        return self._backward(
            "temporal", format, values, tensors, grad_out, q, k, v, out, lse, bias, rel_bias, packed, need_bias_grad
        )

    # ------------------------------------------------------------------------------------------------------------- spatial

    def spatial(self, q, k, v, bias, rel_bias, scale, key_mask, return_lse):
        format, values, tensors = _spatial(q, k, v, bias, rel_bias, scale, key_mask)
        return self._forward("spatial", format, values, tensors, q, return_lse)

    def spatial_backward(self, grad_out, q, k, v, out, lse, bias, rel_bias, scale, key_mask, packed, need_bias_grad):
        format, values, tensors = _spatial(q, k, v, bias, rel_bias, scale, key_mask)
        return self._backward(
            "spatial", format, values, tensors, grad_out, q, k, v, out, lse, bias, rel_bias, packed, need_bias_grad
        )

    # ---------------------------------------------------------------------------------------------------------------- both

    def _forward(self, kind, format, values, tensors, q, return_lse):
        out = self.empty(*q.shape, dtype=q.dtype)
        lse = self.empty(*q.shape[:-1]) if return_lse else torch.empty(0)
        params = ptxsim.Struct(f"<{format}{_ROWS}Q", *values, *_pixel_rows(out), lse if return_lse else 0)
        self._launch(f"{kind}_attention_fwd", params, tensors)
        self._assert_written(out, lse)
        return out, lse

    def _backward(self, kind, format, values, tensors, grad_out, q, k, v, out, lse, bias, rel_bias, packed, need_bias_grad):
        if packed:
            first = self.empty(*q.shape[:4], 3, *q.shape[4:], dtype=q.dtype)
            grads, results = first.unbind(4), (first, torch.empty(0), torch.empty(0))
        else:
            grads = results = tuple(self.empty(*t.shape, dtype=t.dtype) for t in (q, k, v))
        table = rel_bias if bias is None else bias
        dbias = self.empty(*table.shape) if need_bias_grad and table is not None else torch.empty(0)
        rows = [value for grad in grads for value in _rows(grad)]
        incoming = *_rows(grad_out), *([0] * 6 if out is None else _rows(out)), _pointer(lse)
        layout = f"<{format}{2 * _ROWS}Q{3 * _ROWS}Q"
        params = ptxsim.Struct(layout, *values, *incoming, *rows, dbias if dbias.numel() else 0)
        self._launch(f"{kind}_attention_bwd", params, tensors)
        self._assert_written(*results, dbias)
        return *results, dbias

    def _assert_written(self, *outputs):
        if self.empty is ptxsim.empty:
            assert all(ptxsim.unwritten(t) == 0 for t in outputs if t.numel())

    def _launch(self, name, params, tensors):
        scratch = ptxsim.empty(max(1, launchers().call(f"{name}_scratch", params) // 4))
        self.run(launchers(), f"launch_{name}", params, scratch, STREAM, memory=tensors)
        assert launchers().streams <= {STREAM}


def _temporal(q, k, v, bias, rel_bias, scale, causal, focus_present, rotary):
    """(format, values, tensors) of TemporalAttentionParams."""
    assert all(t.stride(-1) == 1 or t.shape[-1] == 1 for t in (q, k, v))
    B, T, H, W, N, D = q.shape
    R = 0 if rotary is None else 2 * rotary.shape[1]
    focus = (0, 0) if focus_present is None else focus_present.stride()
    angles = (0, 0) if rotary is None else rotary.stride()
    values = [
        *_rows(q), *_rows(k), *_rows(v), *_bias(bias, rel_bias), _pointer(focus_present), _pointer(rotary), *focus, *angles,
        B, T, k.shape[1], H, W, N, D, R, scale, causal, DTYPES.index(q.dtype),
    ]  # fmt: skip
    return f"{3 * _ROWS}{_BIAS}QQ4q8qd?3xi", values, _present(q, k, v, bias, rel_bias, focus_present, rotary)


def _spatial(q, k, v, bias, rel_bias, scale, key_mask):
    """(format, values, tensors) of SpatialAttentionParams."""
    B, T, H, W, N, D = q.shape
    KH, KW = (H, W) if k.dim() == 6 else (1, k.shape[-3])
    sizes = (B, T, H, W, KH, KW, N, D)
    mask = 0, 0, 0
    if key_mask is not None:
        mask = key_mask, *key_mask.stride()
    values = [
        *_rows(q), *_rows(k), *_rows(v), *_bias(bias, rel_bias), *mask, *sizes, scale, k.dim() == 4, DTYPES.index(q.dtype)
    ]  # fmt: skip
    return f"{3 * _ROWS}{_BIAS}Q2q8qd?3xi", values, _present(q, k, v, bias, rel_bias, key_mask)


def _rows(tensor):
    if tensor.dim() == 6:
        return _pixel_rows(tensor)
    s = tensor.dim() - 3
    return tensor, tensor.stride(0), 0 if s == 1 else tensor.stride(1), 0, tensor.stride(s), tensor.stride(s + 1)


def _pixel_rows(tensor):
    return tensor, *tensor.stride()[:5]


def _bias(bias, rel_bias):
    if bias is None and rel_bias is None:
        return 0, 0, False, 0, 0, 0
    table = rel_bias if bias is None else bias
    return table, DTYPES.index(table.dtype), bias is None, table.stride(0), *table.stride()[-2:]


def _pointer(tensor):
    return 0 if tensor is None else tensor


def _present(*tensors):
    return tuple(tensor for tensor in tensors if tensor is not None)
