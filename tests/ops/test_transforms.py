"""torch.compile, torch.export, checkpointing, autocast and FakeTensorMode, through the public operators and modules."""

import copy

import pytest
import torch
import torch._dynamo.testing
from torch._subclasses import FakeTensorMode
from torch.utils.checkpoint import checkpoint

import vdiff_kernels as vdiff
from vdiff_kernels import verify

CASES = [
    verify.TemporalCase("all", B=2, T=5, H=2, W=3, N=2, D=8, bias="dense", causal=True, focus="frames", rotary=4),
    verify.SpatialCase("rel", T=2, H=3, W=2, bias="rel", layout="packed"),
    verify.SpatialCase("padded", B=3, T=2, H=3, W=2, context="shared", S=5, key_mask="padding"),
    verify.NormCase("group", B=2, scope="clip", residual=True, modulated=True),
    verify.ConvCase("conv", B=2, temb="clip", residual=True, mix="frame"),
    verify.LayerCase("layer", attention=verify.TemporalCase("", T=4, N=2, D=6, bias="rel")),
    verify.Pseudo3DCase("plain"),
    verify.LinearCase("linear", B=2, pos_emb=True, gate=True, residual=True),
    verify.GegluCase("plain"),
]


@pytest.fixture(autouse=True)
def _fresh_dynamo():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def assert_same(got: dict, expected: dict):
    for name in expected:
        torch.testing.assert_close(got[name], expected[name], msg=lambda m: f"{name}: {m}")


@pytest.mark.parametrize("case", CASES, ids=str)
def test_compiles_whole_forward_and_backward(case):
    """fullgraph=True, AOTAutograd over the fake kernels of both directions; the same numbers as eager."""
    function = verify.functions(case)[0]
    leaves = verify.make_leaves(case, torch.float32)

    def call(tensors):
        return case.call(function, tensors, backend="cpu")

    compiled = torch.compile(call, fullgraph=True, backend="aot_eager")

    def evaluate(run):
        inputs = {name: t.clone().requires_grad_() for name, t in leaves.items()}
        out = run(inputs)
        return {"out": out.detach(), **dict(zip(inputs, torch.autograd.grad(out.square().sum(), list(inputs.values()))))}

    assert_same(evaluate(compiled), evaluate(call))


@pytest.mark.parametrize("which", ["cpu", "reference"])
def test_dynamic_shapes_take_one_graph(which):
    """Frames, size and batch change; forward and backward stay one compiled graph."""

    def call(q, k, v, rel_bias, isolated, angles):
        return vdiff.temporal_attention(
            q, k, v, rel_bias=rel_bias, causal=True, focus_present=isolated, rotary=angles, backend=which
        )

    def inputs(B, T, H):
        q, k, v = (torch.randn(B, T, H, 3, 2, 8, requires_grad=True) for _ in range(3))
        return q, k, v, torch.randn(2, 2 * T - 1, requires_grad=True), torch.arange(B) % 3 == 0, torch.randn(T, 2)

    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(call, fullgraph=True, dynamic=True, backend=counter)
    for B, T, H in ((6, 5, 4), (3, 7, 9), (4, 16, 5)):  # all apart: equal sizes at first are guarded to stay equal
        arguments = inputs(B, T, H)
        grads = [torch.autograd.grad(f(*arguments).square().sum(), arguments[:4]) for f in (compiled, call)]
        for got, expected in zip(*grads):
            torch.testing.assert_close(got, expected)
    assert counter.frame_count == 1


def test_a_block_compiles_with_inductor_and_dynamic_frames():
    block = vdiff.nn.Pseudo3DBlock(4, 16)
    compiled = torch.compile(block, fullgraph=True, dynamic=True)
    for T in (4, 6):
        x = torch.randn(1, T, 4, 6, 5, requires_grad=True)
        (got,), (expected,) = (torch.autograd.grad(run(x).square().sum(), x) for run in (compiled, block))
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)


def test_compiles_inside_a_backend_context():
    q = torch.randn(1, 3, 2, 2, 1, 8)

    def call(q):
        return vdiff.temporal_attention(q, q, q)

    compiled = torch.compile(call, fullgraph=True, backend="eager")
    for name in ("cpu", "reference"):
        with vdiff.backend(name):
            torch.testing.assert_close(compiled(q), call(q))


@pytest.mark.parametrize("strict", [False, True])
def test_export(strict):
    block = vdiff.nn.ResnetBlock3D(8, 16, temb_channels=6, groups=4).eval()
    frames, width = torch.export.Dim("frames", min=2, max=64), torch.export.Dim("width", min=2, max=64)
    arguments = torch.randn(2, 8, 3, 4, 5), torch.randn(2, 6)
    dynamic = ({2: frames, 4: width}, None)
    program = torch.export.export(block, arguments, dynamic_shapes=dynamic, strict=strict)
    longer = torch.randn(2, 8, 7, 4, 9), torch.randn(2, 6)
    for stage in (program, program.run_decompositions()):
        assert "vdiff_kernels.norm_act_conv_native" in stage.graph_module.print_readable(print_output=False)
        torch.testing.assert_close(stage.module()(*longer), block(*longer))


def test_export_of_attention():
    layer = vdiff.nn.FactorizedAttention(16, 2).eval()
    program = torch.export.export(
        layer, (torch.randn(1, 4, 3, 3, 16),), dynamic_shapes=({1: torch.export.Dim("T", min=2, max=31)},)
    )
    x = torch.randn(1, 9, 3, 3, 16)
    torch.testing.assert_close(program.module()(x), layer(x))


@pytest.mark.parametrize("reentrant", [False, True])
def test_activation_checkpointing(backend, reentrant):
    block = vdiff.nn.Pseudo3DBlock(4, 16, backend=backend)
    x = torch.randn(2, 3, 4, 5, 5, requires_grad=True)
    plain = torch.autograd.grad(block(x).square().sum(), [x, *block.parameters()])
    out = checkpoint(block, x, use_reentrant=reentrant)
    out.square().sum().backward()
    for got, expected in zip([x.grad, *(p.grad for p in block.parameters())], plain):
        torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_autocast_casts_activations_and_leaves_tables(backend, dtype):
    layer = vdiff.nn.TemporalAttention(16, 2, backend=backend)
    x = torch.randn(1, 4, 2, 2, 16, requires_grad=True)
    with torch.autocast("cpu", dtype=dtype):
        out = layer(x)
        q = torch.randn(1, 4, 2, 2, 2, 8)
        table = torch.randn(2, 4, 4, requires_grad=True)
        attended = vdiff.temporal_attention(q, q.to(dtype), q, bias=table, rotary=torch.rand(4, 2), backend=backend)
        norm = vdiff.Norm("group", torch.rand(16), torch.rand(16), 4)
        conv = vdiff.norm_act_conv(
            x.movedim(-1, 1), torch.randn(8, 16, 1, 3, 3), torch.rand(8), norm=norm, temb=torch.rand(1, 8), backend=backend
        )
        gate = vdiff.geglu(x, torch.randn(8, 16), torch.randn(8), backend=backend)
        projected = vdiff.norm_linear(x, torch.randn(8, 16), torch.randn(8), norm=norm, backend=backend)
        assert vdiff.norm_linear(x, torch.randn(16, 16), norm=norm, residual=x, backend=backend).dtype == torch.float32
    results = out, attended, conv, gate, projected
    assert {t.dtype for t in results} == {dtype}
    sum(t.float().sum() for t in results).backward()
    assert x.grad.dtype == torch.float32 and table.grad.dtype == torch.float32
    assert layer.rel_pos_emb.grad.dtype == torch.float32
    expected = layer(x)
    torch.testing.assert_close(out.float(), expected, rtol=0.05, atol=0.05)


@pytest.mark.parametrize("which", ["qkv", "kv", "norm", "residual"])
def test_a_tensor_given_twice_compiles(which):
    """Dynamo refuses an autograd.Function that takes one of its inputs twice."""

    def call(x, w):
        if which == "qkv":
            return vdiff.temporal_attention(x, x, x, rel_bias=w[:, :7])
        if which == "kv":
            k = x * 2
            return vdiff.spatial_attention(x, k, k)
        if which == "norm":
            return vdiff.norm_act(x.flatten(4).movedim(-1, 1), vdiff.Norm("layer", w.flatten()[:16], w.flatten()[:16]))
        return vdiff.temporal_layer(x.flatten(4), w, None, w[:16], None, num_heads=2, residual=x.flatten(4))

    x = torch.randn(1, 4, 2, 2, 2, 8)
    w = torch.randn(48, 16) * 0.2 if which == "residual" else torch.randn(2, 16)
    got, expected = [], []
    for run, found in ((torch.compile(call, fullgraph=True, backend="aot_eager"), got), (call, expected)):
        leaves = x.clone().requires_grad_(), w.clone().requires_grad_()
        out = run(*leaves)
        found += [out.detach(), *torch.autograd.grad(out.square().sum(), leaves, allow_unused=True)]
    for mine, eager in zip(got, expected):
        torch.testing.assert_close(mine, eager)


# As FactorizedAttention and ResnetBlock3D use them: (module, arguments).
AUTOCAST = {
    "attention": lambda: (vdiff.nn.FactorizedAttention(32, 4, max_frames=8), (300 + 0.1 * torch.randn(1, 4, 3, 3, 32),)),
    "resnet": lambda: (vdiff.nn.ResnetBlock3D(32, 32, groups=4), (300 + 0.1 * torch.randn(1, 32, 4, 3, 3),)),
    "pseudo3d": lambda: (vdiff.nn.Pseudo3DBlock(4, 16), (torch.randn(1, 4, 4, 5, 5),)),
}


def eager_twin(kind, module, x):
    """What the module says, in PyTorch's own layers."""
    if kind == "resnet":

        def half(norm, conv, h):
            frames = torch.nn.functional.silu(norm(h.transpose(1, 2).flatten(0, 1)))
            return (
                torch.nn.functional.conv2d(frames, conv.weight[:, :, 0], conv.bias, padding=1)
                .unflatten(0, (1, 4))
                .transpose(1, 2)
            )

        return x + half(module.norm2, module.conv2, half(module.norm1, module.conv1, x))

    def attention(layer, h, attended):
        q, k, v = layer.to_qkv(h).unflatten(-1, (3, layer.num_heads, -1)).unbind(-3)
        return layer.proj_out(attended(q, k, v).flatten(-2))

    h = x
    if kind == "pseudo3d":
        h = module.spatial_conv(x.flatten(0, 1)).unflatten(0, (1, 4)).movedim(2, -1)
        norm, layer = module.norm, module.temporal_attn
    else:
        norm, layer = module.temporal_norm, module.temporal_attn
        h = h + attention(module.spatial_attn, module.spatial_norm(h), vdiff.spatial_attention)
    bias = layer.rel_pos_emb[0, :, :4, :4]
    out = h + attention(layer, norm(h), lambda q, k, v: vdiff.temporal_attention(q, k, v, bias=bias))
    return out.movedim(-1, 2) if kind == "pseudo3d" else out


@pytest.mark.parametrize("kind", AUTOCAST)
def test_autocast_is_no_worse_than_eager(kind, backend):
    """In the norm and in the residual sum, of values far larger than what changes in them; and the dtype is eager's."""
    module, (x,) = AUTOCAST[kind]()
    truth = copy.deepcopy(module).double()(x.double())
    with vdiff.backend(backend), torch.autocast("cpu", torch.bfloat16):
        out, eager = module(x), eager_twin(kind, module, x)
    assert out.dtype == eager.dtype
    assert (out.double() - truth).abs().max() <= 2 * (eager.double() - truth).abs().max()


def test_autocast_checks_before_anything_runs():
    q, norm = torch.randn(1, 4, 2, 2, 16), vdiff.Norm("layer", torch.ones(16))
    weights = torch.randn(48, 16), None, torch.randn(16, 16), None
    with torch.autocast("cpu", torch.bfloat16):
        with pytest.raises(ValueError, match="temporal_layer: residual has shape"):
            vdiff.temporal_layer(q, *weights, num_heads=2, norm=norm, residual=q[..., :8])
        with pytest.raises(ValueError, match="norm_act_conv: mix is given without residual"):
            vdiff.norm_act_conv(q.movedim(-1, 1), torch.randn(8, 16, 1, 3, 3), norm=norm, mix=torch.ones(()))
        with pytest.raises(ValueError, match="norm_act: residual has shape"):
            vdiff.norm_act(q.movedim(-1, 1), norm, residual=q)


def test_autocast_leaves_float64_alone(backend):
    q = torch.randn(1, 4, 2, 2, 2, 8, dtype=torch.float64)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert vdiff.temporal_attention(q, q, q, backend=backend).dtype == torch.float64


@pytest.mark.parametrize("case", CASES, ids=str)
def test_fake_tensors(case, backend):
    """No data anywhere: shapes, dtypes and strides of the result and of every gradient."""
    leaves = verify.make_leaves(case, torch.float32)
    real = verify.evaluate(case, verify.functions(case)[0], leaves, torch.float32, backend=backend)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        fake_leaves = {name: mode.from_tensor(t).requires_grad_() for name, t in leaves.items()}
        out = case.call(verify.functions(case)[0], fake_leaves, backend=backend)
        grads = torch.autograd.grad(out.sum(), list(fake_leaves.values()))
    for got, expected in zip([out, *grads], real.values()):
        assert (got.shape, got.dtype) == (expected.shape, expected.dtype)
    assert out.stride() == real["out"].stride()
