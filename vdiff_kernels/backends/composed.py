"""PyTorch's own library calls, in the user's dtype, on views that cost nothing: what serves where no kernel of this package does,
and on a GPU also where the library's are the faster ones.

Half types stay half, as in the code that a layer replaces; statistics and sums within a library call are float32. Everything here
is differentiable by PyTorch, and as deterministic as torch.use_deterministic_algorithms asks.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..ops.attention import reference as attention
from ..ops.attention.call import AttentionCall
from ..ops.call import Call
from ..ops.conv.call import ConvCall
from ..ops.conv.reference import epilogue
from ..ops.feedforward import reference as feedforward
from ..ops.norm import reference as norm
from ..ops.norm.call import NormCall
from ..ops.tensors import by_frame, wants_grad
from .backend import Availability, Backend, by_pytorch, missing


class Composed(Backend):
    name = "composed"

    def __init__(self, channel_stats):
        """channel_stats(x): those of an image tensor (B, C, T, H, W), by whatever is best for it."""
        self.kernels = {
            "temporal_attention": by_pytorch(lambda call: _attention(call, attention.temporal_attention, _temporal_rows)),
            "spatial_attention": by_pytorch(lambda call: _attention(call, attention.spatial_attention, _spatial_rows)),
            "channel_stats": by_pytorch(lambda call: norm.channel_stats(call.x)),
            "norm_act": by_pytorch(_norm_act),
            "norm_act_conv": by_pytorch(lambda call: _norm_act_conv(call, channel_stats)),
            "geglu": by_pytorch(lambda call: feedforward.geglu(**call.arguments(), compute_dtype=call.x.dtype)),
        }

    def availability(self):
        return Availability(self.name, True, "PyTorch's library calls, on any device")

    def supports(self, call: Call):
        return None if call.operator in self.kernels else missing(call.operator)


# ------------------------------------------------------------------------------------------------------------- attention


# Where scaled_dot_product_attention serves. On a CPU its gradients are further from the truth than those of eager PyTorch.
LIBRARY_DEVICES = ("cuda",)


def is_library_attention(call: AttentionCall) -> bool:
    """Whether PyTorch's scaled_dot_product_attention is the same: it is for a softmax of the plain scores, or causal ones, or of
    some keys of a sample. A bias may mask whole rows, of which the library makes what it likes.
    """
    options = call.options
    is_plain = options.table is None and options.focus_present is None and options.rotary is None
    return is_plain and call.q.device.type in LIBRARY_DEVICES


def _attention(call: AttentionCall, definition, rows) -> Tensor:
    """By the library where it is the same, else the definition in the user's dtype."""
    if not is_library_attention(call) or call.q.numel() == 0:
        return definition(**call.arguments(), compute_dtype=call.q.dtype)
    q, k, v = rows(call)
    seen, is_seen = _seen_keys(call, q.shape[0])
    out = F.scaled_dot_product_attention(q, k, v, seen, is_causal=call.options.causal, scale=call.scale)
    if is_seen is not None:
        out = out.masked_fill(~is_seen, 0)
    if call.is_temporal:
        B, T, H, W, N, D = call.q.shape
        return out.view(B, H, W, N, T, D).permute(0, 4, 1, 2, 3, 5).contiguous()
    return out.transpose(1, 2).contiguous().view(call.q.shape)


def _seen_keys(call: AttentionCall, sequences: int) -> tuple[Tensor | None, Tensor | None]:
    """(the keys that each sequence's queries see, (sequences, 1, 1, S), all where they see none; whether they see any)."""
    mask = call.options.key_mask
    if mask is None:
        return None, None
    mask = mask.repeat_interleave(sequences // mask.shape[0], 0)[:, None, None]
    is_seen = mask.any(-1, keepdim=True)
    return mask | ~is_seen, is_seen


def _temporal_rows(call: AttentionCall) -> tuple[Tensor, Tensor, Tensor]:
    """(B*H*W, N, T, D), a view where the batch is one clip."""
    return tuple(t.permute(0, 2, 3, 4, 1, 5).flatten(0, 2) for t in (call.q, call.k, call.v))


def _spatial_rows(call: AttentionCall) -> tuple[Tensor, Tensor, Tensor]:
    """Of frames (B*T, N, L, D), views of any slices of a packed qkv; of a context that the frames share (B, N, T*L, D)."""
    q, k, v = call.q, call.k, call.v
    if call.is_shared_context:
        return tuple(t.transpose(1, 2) for t in (q.flatten(1, 3), k, v))
    k, v = (t.flatten(2, 3) if t.dim() == 6 else t for t in (k, v))
    return tuple(t.flatten(0, 1).transpose(1, 2) for t in (q.flatten(2, 3), k, v))


# ---------------------------------------------------------------------------------------------------- norm and convolution

# Statistics that are given are not looked at here: the library's group norm makes its own in the pass that normalises, and to
# apply others would take several.


def _norm_act(call: NormCall) -> Tensor:
    return norm.norm_act(call.x, call.norm, act=call.act, residual=call.residual, compute_dtype=call.x.dtype)


# Measured on an H200 (docs/performance-gpu.md): cuDNN's convolution of frames takes 0.55 to 1.0 of the time of the one of clips.
# That of frames (T, H*W) with a 3x1 kernel takes 0.7 where there are few channels and nothing to differentiate, else 1.15 to 1.8.
FEW_CHANNELS = 128


def _norm_act_conv(call: ConvCall, channel_stats):
    dtype, h, weight = call.x.dtype, call.x, call.weight
    if call.norm is not None:
        h = norm.normalize(h.movedim(1, -1), call.norm).movedim(-1, 1)
    h = norm.activate(h, call.act)
    bias = None if call.bias is None else call.bias.to(dtype)
    if weight.shape[2] == 1:
        y = by_frame(lambda frames: F.conv2d(frames, weight.squeeze(2), bias, padding=1), h)
    elif h.shape[1] <= FEW_CHANNELS and not wants_grad(h, weight, bias):
        y = F.conv2d(h.flatten(3), weight.squeeze(-1), bias, padding=(1, 0)).unflatten(3, h.shape[3:])
    else:
        y = F.conv3d(h, weight, bias, padding=(1, 0, 0))
    out = epilogue(y, call.temb, call.residual, call.mix).contiguous(memory_format=torch.channels_last_3d)
    return (out, channel_stats(out)) if call.return_stats else out
