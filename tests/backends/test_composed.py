"""What the composed backend makes of PyTorch's library attention, which it takes on a GPU: run here, on the CPU's."""

import pytest
import torch
import torch.nn.functional as F

from vdiff_kernels import verify
from vdiff_kernels.backends import composed

CASES = [
    verify.TemporalCase("plain", B=2, T=5, D=12, layout="packed"),
    verify.TemporalCase("causal", T=7, H=3, causal=True, scale=0.3),
    verify.TemporalCase("memory", T=3, S=6, D=12, N=3),
    verify.SpatialCase("pixels", B=2, T=3, H=3, W=5, D=40, layout="channels_first"),
    verify.SpatialCase("shared", B=2, T=3, H=3, W=5, N=3, D=12, context="shared", S=7),
    verify.SpatialCase("frames", B=2, T=3, H=3, W=5, D=20, context="frames", S=5),
    verify.SpatialCase("shared-padded", B=3, T=3, H=3, W=5, N=3, D=12, context="shared", S=7, key_mask="padding"),
    verify.SpatialCase("frames-padded", B=3, T=2, H=3, W=5, D=20, context="frames", S=5, key_mask="padding"),
    verify.SpatialCase("frames-holed", B=2, T=3, H=3, W=5, D=20, context="frames", S=5, key_mask="holes"),
]


@pytest.fixture
def library_calls(monkeypatch):
    """How often the library's attention was called; it serves on the CPU."""
    calls, attention = [], F.scaled_dot_product_attention

    def counted(*arguments, **options):
        calls.append(arguments)
        return attention(*arguments, **options)

    monkeypatch.setattr(composed, "LIBRARY_DEVICES", ("cpu",))
    monkeypatch.setattr(F, "scaled_dot_product_attention", counted)
    return calls


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_library_attention(case, dtype, library_calls):
    verify.check(case, dtype, "composed")
    assert len(library_calls) == 1


@pytest.mark.parametrize("case", [
    verify.TemporalCase("bias", bias="dense"),
    verify.TemporalCase("images", T=6, focus="frames"),
    verify.TemporalCase("angles", rotary=4),
    verify.SpatialCase("table", bias="rel"),
    verify.SpatialCase("masked", bias="masked"),
], ids=str)  # fmt: skip
def test_what_the_library_does_not_have_is_the_definition(case, library_calls):
    verify.check(case, torch.float32, "composed")
    assert not library_calls
