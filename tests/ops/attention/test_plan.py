"""What the CUDA backward needs of forward: Python's answer is that of csrc/attention/cuda/plan.h, of any shape, and traced."""

import ctypes
import itertools

import pytest
import torch
import torch._dynamo.testing

from vdiff_kernels import library
from vdiff_kernels.ops.attention.call import AttentionCall, AttentionOptions
from vdiff_kernels.ops.attention.schema import cuda_backward_needs

LENGTHS = (1, 8, 9, 16, 17, 32, 33, 77)


def needs_of(kind: str, q, k) -> tuple[bool, bool]:
    return cuda_backward_needs(AttentionCall(f"{kind}_attention", q, k, k, AttentionOptions()))


def planned(L, S, D, dtype, shared_keys) -> tuple[bool, bool]:
    needs = ctypes.CDLL(str(library.LIBRARY_FILE)).vdiff_attention_backward_needs
    needs.argtypes = (*[ctypes.c_int64] * 4, ctypes.c_int)
    return (bool(needs(L, S, D, dtype.itemsize, shared_keys)),) * 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_python_asks_the_plan(dtype):
    for L, S, D in itertools.product(LENGTHS, LENGTHS, (1, 40, 64, 128, 129, 160, 256)):
        q, k = (torch.empty(1, length, 1, 1, 1, D, dtype=dtype, device="meta") for length in (L, S))
        assert needs_of("temporal", q, k) == planned(L, S, D, dtype, False), (L, S, D)
        q = q.transpose(1, 2)
        assert needs_of("spatial", q, q) == planned(L, L, D, dtype, False), (L, D)
        for shared in (True, False):
            k = torch.empty(*(1, S, 1, D) if shared else (1, 1, S, 1, D), dtype=dtype, device="meta")
            assert needs_of("spatial", q, k) == planned(L, S, D, dtype, shared), (L, S, D, shared)


@pytest.mark.parametrize(
    "L, D, dtype, needs",
    [
        (32, 256, torch.bfloat16, False), (33, 64, torch.bfloat16, True), (32, 128, torch.float32, False),
        (32, 129, torch.float32, True), (16, 256, torch.float32, False), (17, 256, torch.float32, True),
    ],
)  # fmt: skip
def test_what_the_plan_says(L, D, dtype, needs):
    assert planned(L, L, D, dtype, False) == (needs, needs)
    assert planned(L, L, D, dtype, True) == (True, True)


def test_traced_with_symbolic_sizes():
    """A length on the same side of the rule takes the same graph; one on the other side does not get its answer."""
    torch._dynamo.reset()
    counter = torch._dynamo.testing.CompileCounterWithBackend("eager")

    def call(q):
        return q + 1 if needs_of("temporal", q, q)[0] else q - 1

    compiled = torch.compile(call, fullgraph=True, dynamic=True, backend=counter)
    for L, D, graphs in ((5, 8, 1), (7, 8, 1), (31, 8, 1), (40, 8, 2), (77, 8, 2), (32, 8, 2)):
        q = torch.zeros(2, L, 3, 4, 6, D)
        assert torch.equal(compiled(q), call(q))
        assert counter.frame_count == graphs
    q = torch.zeros(2, 32, 3, 4, 6, 160)  # float32: too wide for short kernels
    assert torch.equal(compiled(q), call(q)) and call(q)[0, 0, 0, 0, 0, 0] == 1
    torch._dynamo.reset()
