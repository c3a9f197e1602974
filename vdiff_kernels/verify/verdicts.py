"""Whether auto may take a GPU backend's kernels: held to the definition here, at their first use, and the verdict kept.

The GPU kernels are tested without a GPU (tests/ptxsim runs them on the CPU), and few kinds of GPU have run them. So before auto
first takes a variant of one, it runs a small case of that variant, forward and every gradient, within the budget that the tests
use. The verdict is kept in the user's cache for this library, torch and GPU; a log line or, where it is bad, a warning says so.
An explicit backend is not asked about. VDIFF_FIRST_USE_CHECK=0 turns it off.
"""

import contextlib
import json
import logging
import os
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch

from ..backends import gpu
from ..backends.backend import Variant
from ..backends.registry import BACKENDS
from ..files import cached, written_whole
from ..ops.norm.call import KINDS
from .check import check
from .inputs import Case, ConvCase, GegluCase, LayerCase, LinearCase, NormCase, SpatialCase, StatsCase, TemporalCase

RIGHT = "right"

_log = logging.getLogger("vdiff_kernels")
_verdicts: dict[str, str] = {}  # RIGHT, or what is wrong, by _key()
_answers: dict[tuple[str, Variant], str | None] = {}


def cache_file() -> Path:
    """Where verdicts are kept."""
    return cached("verdicts.json")


def why_not(backend: str, variant: Variant) -> str | None:
    """Why auto may not take a variant of a backend's kernels, or None. Checks it, where that was not done yet."""
    if os.environ.get("VDIFF_FIRST_USE_CHECK") == "0":
        return None
    question = backend, variant
    if question not in _answers:
        later = _why_later()
        if later:
            return later
        verdict = _verdict(backend, variant)
        _answers[question] = None if verdict == RIGHT else f"it differs from its definition on this GPU: {verdict}"
    return _answers[question]


def case_of(variant: Variant) -> Case:
    """A small case that the variant's kernels run: several tiles of long sequences, several units of a warp of short ones."""
    if variant.operator == "temporal_layer":
        return LayerCase("first-use", case_of(variant._replace(operator="temporal_attention")), C=72, Co=40)
    if "attention" not in variant.operator:
        return _case_of_pixels(variant)
    kinds = variant.kinds
    options = dict(N=2, D=variant.D, bias=variant.bias)
    if variant.operator == "spatial_attention":
        context = next((kind for kind in ("shared", "frames") if kind in kinds), None)
        H, W = {8: (2, 4), 16: (2, 7), 32: (4, 6)}.get(variant.rows, (3, 23))
        key_mask = "holes" if "keys" in kinds else None
        return SpatialCase("first-use", B=2, T=2, H=H, W=W, context=context, S=variant.rows or 67, key_mask=key_mask, **options)
    T = variant.rows or 67
    return TemporalCase(
        "first-use", B=2, T=T, H=1, W=3 if T > 32 else 9, causal="causal" in kinds, focus="frames" if "focus" in kinds else None,
        rotary=2 if "rotary" in kinds else None, **options,
    )  # fmt: skip


def _case_of_pixels(variant: Variant) -> Case:
    """Of several tiles of pixels, the last one smaller; of several of channels, where a kernel has such."""
    kinds = variant.kinds
    if variant.operator == "channel_stats":
        return StatsCase("first-use", B=2, T=3, H=9, W=31, C=variant.D or 40)
    if variant.operator == "geglu":
        return GegluCase("first-use", (300, 67 if "odd" in kinds else 72), E=140)
    norm = next((kind for kind in kinds if kind in KINDS), None)
    groups = 8 if (variant.D or 40) % 8 == 0 else 1
    options = dict(B=2, T=3, H=9, W=17, norm=norm, groups=groups if norm == "group" else None, residual=True)
    options["act"] = "silu" if "silu" in kinds else None
    if variant.operator == "norm_act":
        return NormCase("first-use", C=variant.D or 40, **options)
    if variant.operator == "norm_linear":
        return LinearCase("first-use", C=variant.D or 40, Co=200, pos_emb=True, gate=True, **options)
    kernel = "spatial" if "spatial" in kinds else "temporal"
    C, Co = (136, 130) if "many" in kinds else (40, 24)
    if "odd" in kinds:
        C, options["groups"] = C - 3, options["groups"] and 1
    return ConvCase("first-use", C=C, Co=Co, kernel=kernel, temb="frame", **options)


def _why_later() -> str | None:
    """Why nothing can be checked at this moment, or None."""
    if torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing():
        return "it is not checked on this GPU yet, and a CUDA graph is being captured: call it once before"
    if getattr(torch._C, "_len_torch_dispatch_stack", lambda: 0)() > 0:
        return "it is not checked on this GPU yet, and this call is only traced: call it once before"
    return None


def _verdict(backend: str, variant: Variant) -> str:
    key = f"{backend} {variant} | {_place(backend, variant.index)}"
    if key not in _verdicts:
        _verdicts.update(kept())
    if key not in _verdicts:
        _verdicts[key] = _checked(backend, variant)
        where = _keep()
        what = f"vdiff_kernels: checked {variant} of backend {backend!r} against its definition on {gpu.name(variant.index)}"
        if _verdicts[key] == RIGHT:
            _log.info("%s: right, so auto takes it; %s", what, where)
        else:
            warnings.warn(
                f"{what}: it differs, so auto leaves it alone: {_verdicts[key]}; {where}. Please report it; backend={backend!r} "
                "takes it all the same, and VDIFF_FIRST_USE_CHECK=0 makes auto do so",
                stacklevel=2,
            )
    return _verdicts[key]


def _checked(backend: str, variant: Variant) -> str:
    """RIGHT, or the first difference or error."""
    device = _device(variant.index)
    with torch.inference_mode(False), torch.enable_grad(), torch.autocast(device.type, enabled=False):
        try:
            check(case_of(variant), getattr(torch, variant.dtype), backend, device=device, memory=_spoiled(device))
        except (AssertionError, RuntimeError) as error:
            return str(error)
    return RIGHT


@contextlib.contextmanager
def _spoiled(device: torch.device) -> Iterator[None]:
    """The allocator's next blocks are filled with NaN, as far as it hands out again what was freed: what a kernel forgets to
    write shows. No switch of torch's is touched: another thread may be running a model.
    """
    blocks = [
        torch.full((elements,), torch.nan, device=device) for elements in (1 << 8, 1 << 12, 1 << 16, 1 << 20) for _ in range(8)
    ]
    del blocks
    yield


def _device(index: int | None) -> torch.device:
    return torch.device("cuda") if index is None else torch.device("cuda", index)


def _place(backend: str, index: int | None) -> str:
    return f"{gpu.name(index)} | torch {torch.__version__} | {BACKENDS[backend].digest()}"


def kept() -> dict[str, str]:
    """The verdicts in the cache file, by what was checked where: RIGHT, or what was wrong."""
    try:
        found = json.loads(cache_file().read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _keep() -> str:
    """Adds this process's verdicts to the user's cache. Returns where they are, in words."""
    path = cache_file()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(path) as draft:
            draft.write_text(json.dumps({**kept(), **_verdicts}, indent=1) + "\n")
    except OSError as error:
        return f"the verdict is kept for this process alone ({error})"
    return f"the verdict is kept in {path}"
