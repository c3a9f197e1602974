"""The checks of a signature that has passed are left out: whatever else they look at must be part of the signature."""

import pytest
import torch

import vdiff_kernels as vdiff
from vdiff_kernels.ops import checks

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


def test_a_check_runs_once_and_not_for_what_it_does_not_know(monkeypatch):
    calls = []
    check = checks.once(lambda *arguments: calls.append(arguments))
    for _ in range(3):
        check(Q, 1)
    assert len(calls) == 1
    for other in ((Q, True), (Q, 1.0), (Q.clone().requires_grad_(), 1), (Q[:, :2], 1)):
        check(*other)
    assert len(calls) == 5
    with torch._subclasses.FakeTensorMode() as mode:
        for _ in range(2):
            check(mode.from_tensor(Q), 1)
    assert len(calls) == 7
    monkeypatch.setattr(checks, "MAX_SIGNATURES", 2)
    check(Q[:, :1], 1)  # the others are forgotten
    check(Q, 1)
    assert len(calls) == 9


def test_what_fails_is_not_remembered():
    def check(value):
        raise ValueError("no")

    checked = checks.once(check)
    for _ in range(2):
        with pytest.raises(ValueError):
            checked(1)
