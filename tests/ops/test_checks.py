"""The checks of a signature that has passed are left out: whatever else they look at must be part of the signature."""

import pytest
import torch

import vdiff_kernels as vdiff
from vdiff_kernels.backends import registry
from vdiff_kernels.ops.attention.call import AttentionCall

Q = torch.randn(1, 3, 2, 2, 1, 4)
ANGLES = torch.rand(3, 2)


@pytest.mark.parametrize(
    "changes",
    [
        {"k": Q.double()},
        {"v": torch.randn(1, 3, 2, 2, 1, 5)},
        {"k": torch.randn(1, 3, 2, 2, 1, 4, device="meta")},
        {"q": Q.to_sparse()},
        {"rotary": ANGLES.clone().requires_grad_()},
        {"rotary": ANGLES.half()},
        {"causal": 1},
        {"scale": True},
        {"scale": "1.0"},
        {"bias": torch.randn(1, 3, 3)},
    ],
    ids=lambda changes: "-".join(changes),
)
def test_a_call_that_passed_lets_no_other_through(changes):
    valid = dict(q=Q, k=Q, v=Q, rel_bias=torch.randn(1, 5), rotary=ANGLES, causal=True, scale=1.0)
    vdiff.temporal_attention(**valid)
    with pytest.raises((TypeError, ValueError), match="temporal_attention: "):
        vdiff.temporal_attention(**{**valid, **changes})


def test_a_norm_is_looked_into():
    x, norm = torch.randn(1, 4, 2, 2, 2), vdiff.Norm("group", torch.ones(4), groups=2)
    vdiff.norm_act(x, norm)
    for wrong in (vdiff.Norm("group", torch.ones(4), groups=3), vdiff.Norm("group", torch.ones(5), groups=2)):
        with pytest.raises(ValueError, match="norm_act: norm"):
            vdiff.norm_act(x, wrong)


@pytest.fixture
def checked(monkeypatch):
    """The calls that were checked."""
    calls, check = [], AttentionCall.check
    monkeypatch.setattr(AttentionCall, "check", lambda call: (calls.append(call), check(call)))
    registry.forget()
    yield calls
    registry.forget()


def test_a_call_is_checked_once_and_not_for_what_is_not_known(checked, monkeypatch):
    def call(q=Q, **options):
        vdiff.temporal_attention(q, q, q, **options)

    for _ in range(3):
        call()
    assert len(checked) == 1
    for other in (dict(causal=True), dict(scale=1.0), dict(q=Q.clone().requires_grad_()), dict(q=Q[:, :2]), dict(backend="cpu")):
        call(**other)
    assert len(checked) == 6
    with torch._subclasses.FakeTensorMode() as mode:
        for _ in range(2):
            call(mode.from_tensor(Q))
    assert len(checked) == 8
    monkeypatch.setattr(registry, "MAX_SIGNATURES", 2)
    call(Q[:, :1])  # the others are forgotten
    call()
    assert len(checked) == 10


def test_what_fails_is_not_remembered(checked):
    for _ in range(2):
        with pytest.raises(TypeError):
            vdiff.temporal_attention(Q, Q, Q.double())
    assert len(checked) == 2
