"""The `TemporalAttention` module, without norm and residual, beside its two bare matrix products and its three rivals."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F

import vdiff_kernels as vdiff
from vdiff_kernels.bench.presets import CPU_LAYERS, LayerShape
from vdiff_kernels.bench.rivals import Frames, dense_temporal, sdpa
from vdiff_kernels.bench.rooflines import work
from vdiff_kernels.bench.rows import Row
from vdiff_kernels.bench.timing import interleaved
from vdiff_kernels.ops.attention.call import AttentionOptions, LayerCall

SHARE_OF_PRODUCTS = {64: 0.7, 128: 0.85, 320: 1.0, 640: 1.03}  # that it may take at most


@dataclass(frozen=True)
class Module:
    """training: forward and every gradient; beside eager autograd alone."""

    shape: LayerShape
    training: bool

    @property
    def label(self) -> str:
        sizes = " ".join(f"{letter}{getattr(self.shape, letter)}" for letter in "THWCN")
        return f"TemporalAttention {'fwd+bwd' if self.training else 'fwd'} f32 {sizes}"

    def contenders(self) -> dict:
        B, T, H, W, C, N = vars(self.shape).values()
        modules = {
            name: vdiff.nn.TemporalAttention(C, N, T, position="offset", backend=backend)
            for name, backend in (("ours", "cpu"), ("eager", "reference"))
        }
        module = modules["ours"]
        modules["eager"].load_state_dict(module.state_dict())
        x = torch.randn(B, T, H, W, C, requires_grad=self.training)
        if self.training:
            grad_out = torch.randn_like(x)

            def with_gradients(call):
                leaves = [x, *call.parameters()]
                return lambda: torch.autograd.grad(call(x), leaves, grad_out)

            return {name: with_gradients(each) for name, each in modules.items()}

        def by_sdpa():
            qkv = module.to_qkv(x).unflatten(-1, (3, N, -1))
            dense = dense_temporal(module.position(T)["rel_bias"], T)
            return module.proj_out(sdpa(Frames)(*qkv.unbind(-3), dense).flatten(-2))

        def products():
            return F.linear(F.linear(x.flatten(0, 3), module.to_qkv.weight)[:, :C], module.proj_out.weight)

        compiled = torch.compile(modules["eager"])
        calls = {
            "ours": lambda: module(x), "eager": lambda: modules["eager"](x), "sdpa": by_sdpa,
            "compile": lambda: compiled(x), "products": products,
        }  # fmt: skip
        return {name: torch.no_grad()(call) for name, call in calls.items()}

    def measure(self) -> Row:
        B, T, H, W, C, N = vars(self.shape).values()
        x, w_qkv, w_out = (torch.empty(size, device="meta") for size in ((B, T, H, W, C), (3 * C, C), (C, C)))
        call = LayerCall("temporal_layer", x, w_qkv, None, w_out, None, N, None, None, None, None, AttentionOptions())
        faster = {"eager": 1}
        if not self.training:
            faster |= {"sdpa": 1, "compile": 1, "products": 1 / SHARE_OF_PRODUCTS[C]}
        return Row(self.label, interleaved(self.contenders()), "ours", work(call, self.training), faster)


def cases() -> list[Module]:
    return [Module(shape, training) for training in (False, True) for shape in CPU_LAYERS]
