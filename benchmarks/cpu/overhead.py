"""What a call costs on an input that is next to nothing, beside the dispatch of an operator that does nothing."""

from dataclasses import dataclass

import torch

import vdiff_kernels as vdiff

from ..timing import Time, interleaved

ALLOWED = 15e-6  # s. More than the empty operator.
ROUNDS = 51


@dataclass(frozen=True)
class Overhead:
    label = "call overhead"

    def measure(self) -> "OverheadRow":
        # Its name is of this process: the operator is there for as long as the library object.
        library = torch.library.Library("vdiff_benchmarks", "DEF")
        library.define("empty(Tensor q, Tensor k, Tensor v, Tensor? bias, float scale) -> Tensor")
        library.impl("empty", lambda q, k, v, bias, scale: torch.empty_like(q), "CPU")
        empty = torch.ops.vdiff_benchmarks.empty.default
        q, table = torch.randn(1, 4, 1, 1, 1, 8), torch.randn(1, 7)
        x, qkv_weight, out_weight = torch.randn(1, 4, 1, 1, 8), torch.randn(24, 8), torch.randn(8, 8)
        clip, taps = torch.randn(1, 8, 2, 2, 2).contiguous(memory_format=torch.channels_last_3d), torch.randn(8, 8, 1, 3, 3)
        gate_weight = torch.randn(16, 8)
        norm = vdiff.Norm("group", torch.ones(8), torch.zeros(8), groups=4)
        calls = {
            "empty": lambda: empty(q, q, q, table, 1.0),
            "temporal_attention": lambda: vdiff.temporal_attention(q, q, q, rel_bias=table),
            "temporal_layer": lambda: vdiff.temporal_layer(x, qkv_weight, None, out_weight, None, num_heads=1, rel_bias=table),
            "norm_act_conv": lambda: vdiff.norm_act_conv(clip, taps, norm=norm, act="silu"),
            "geglu": lambda: vdiff.geglu(x, gate_weight, None),
        }
        with torch.no_grad():
            return OverheadRow(interleaved(calls, rounds=ROUNDS))


@dataclass(frozen=True)
class OverheadRow:
    times: dict[str, Time]

    def text(self, machine) -> str:
        empty = self.times["empty"].seconds
        cells = [f"{Overhead.label:46}", f"empty operator {empty * 1e6:.1f} us"]
        for name, time in self.times.items():
            if name != "empty":
                more = time.seconds - empty
                cells.append(f"{name} +{more * 1e6:.1f} us ({'met' if more <= ALLOWED else 'missed'} {ALLOWED * 1e6:g})")
        return " | ".join(cells)


def cases() -> list[Overhead]:
    return [Overhead()]
