"""Layers of your own, served by the fused operators: write an adapter for each class, and patch.

The classes are those of a common tutorial, as people copy them into their models (`vdiff_kernels/bench/seed_blocks.py`). The
model keeps its classes, parameters and checkpoints.

Run: python examples/swap_into_your_model.py
"""

import time

import torch
from torch import Tensor, nn

import vdiff_kernels as vdiff
from vdiff_kernels.bench.seed_blocks import Pseudo3DBlock, TemporalAttention


class ToyVideoModel(nn.Module):
    """Three blocks between two convolutions of each frame."""

    def __init__(
        self,
        channels: int = 3,
        width: int = 64,    # C inside.
        num_heads: int = 4, # N.
    ):  # fmt: skip
        super().__init__()
        self.first = nn.Conv3d(channels, width, (1, 3, 3), padding=(0, 1, 1))
        self.blocks = nn.Sequential(*(Pseudo3DBlock(width, width, num_heads) for _ in range(3)))
        self.last = nn.Conv3d(width, channels, (1, 3, 3), padding=(0, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, channels, T, H, W). Returns the same."""
        return self.last(self.blocks(self.first(x).transpose(1, 2).contiguous()).transpose(1, 2))


def temporal_attention(module: TemporalAttention, x: Tensor, *, backend: str | None = None, **around) -> Tensor:
    """Its forward, x (B, T, H, W, C), by one operator. around: a norm before it and a residual after it."""
    T = x.shape[1]
    return vdiff.temporal_layer(
        x, module.to_qkv.weight, module.to_qkv.bias, module.proj_out.weight, module.proj_out.bias,
        num_heads=module.num_heads, bias=module.rel_pos_emb[0, :, :T, :T], backend=backend, **around,
    )  # fmt: skip


def pseudo_3d_block(module: Pseudo3DBlock, x: Tensor, *, backend: str | None = None) -> Tensor:
    """Its forward, x (B, T, C, H, W): no permute to attention and back, for the operators have channels innermost already."""
    conv, group_norm, _ = module.spatial_conv
    h = vdiff.norm_act_conv(x.transpose(1, 2), conv.weight.unsqueeze(2), conv.bias, backend=backend)  # (B, Co, T, H, W)
    h = vdiff.norm_act(h, vdiff.Norm.of(group_norm), act="silu", backend=backend)
    rows = h.movedim(1, -1)  # (B, T, H, W, Co)
    norm = vdiff.Norm.of(module.norm)
    out = temporal_attention(module.temporal_attn, rows, norm=norm, residual=rows, backend=backend)
    return out.movedim(-1, 2).contiguous()


ADAPTERS = {Pseudo3DBlock: pseudo_3d_block, TemporalAttention: temporal_attention}


def seconds(model: nn.Module, x: Tensor) -> float:
    start = time.perf_counter()
    model(x)
    return time.perf_counter() - start


@torch.no_grad()
def main(size: int = 32, rounds: int = 5):
    torch.manual_seed(0)
    model = ToyVideoModel().eval()
    x = torch.randn(1, 3, 16, size, size)  # (B, C, T, H, W)
    expected, times = model(x), {"as it was": [], "patched": []}
    for _ in range(rounds):  # in turns, so that whatever disturbs the machine disturbs both
        times["as it was"].append(seconds(model, x))
        with vdiff.patched(model, adapters=ADAPTERS) as report:
            out = model(x)
            times["patched"].append(seconds(model, x))
    print(report)
    print(f"largest difference {(out - expected).abs().max():.1e} of {expected.abs().max():.1f}")
    before, after = (sorted(found)[rounds // 2] for found in times.values())
    print(f"{before * 1e3:.0f} ms, patched {after * 1e3:.0f} ms: {before / after:.2f} times as fast")


if __name__ == "__main__":
    main()
