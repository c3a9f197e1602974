"""Whether auto may take a GPU backend's operator: held to its definition here, once, on small inputs, and the verdict kept.

The GPU kernels are written and tested without a GPU (tests/ptxsim runs them on the CPU), and few kinds of GPU have run them. So
before auto first trusts one, it runs a few hostile cases, forward and every gradient, for the dtype in hand on the GPU in hand,
within the budget that the tests use. The verdict is kept in the user's cache for this library, torch and GPU; a log line or, where
it is bad, a warning says so. An explicit backend is not asked about.
"""

import functools
import hashlib
import json
import logging
import os
import warnings
from pathlib import Path

import torch

from ..files import written_whole
from . import gpu, library

# Of testing/suite.py. Small, and between them on every kernel family of the operator.
CASES = {
    "temporal_attention": ("odd-hw", "sixteen-causal", "thirty-three", "image-frames"),
    "spatial_attention": ("odd-hw-rel", "dense-bias", "shared-context"),
}
RIGHT = "right"

_log = logging.getLogger("vdiff_kernels")
_verdicts: dict[str, str] = {}  # RIGHT, or what is wrong, by _key()
_answers: dict[tuple, str | None] = {}


def cache_file() -> Path:
    """Where verdicts are kept: $XDG_CACHE_HOME/vdiff_kernels/verdicts.json, ~/.cache where that is not set."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vdiff_kernels" / "verdicts.json"


@torch.compiler.assume_constant_result
def why_not(backend: str, operator: str, dtype: torch.dtype, index: int | None) -> str | None:
    """Why auto may not take the operator, or None. Checks it, where that was not done yet."""
    question = backend, operator, dtype, index
    if question not in _answers:
        later = _why_later()
        if later:
            return later
        verdict = _verdict(*question)
        _answers[question] = None if verdict == RIGHT else f"it differs from its definition on this GPU: {verdict}"
    return _answers[question]


def known(backend: str) -> list[str]:
    """The operators and dtypes of a backend with a verdict on the current GPU, in words."""
    here = _place(None)
    found = {**_kept(), **_verdicts}
    words = [key.split(" | ")[0].split(" ", 2) + [verdict] for key, verdict in found.items() if key.endswith(here)]
    return [f"{operator} {dtype} {'right' if verdict == RIGHT else 'WRONG'}" for b, operator, dtype, verdict in words if b == backend]


def _why_later() -> str | None:
    """Why nothing can be checked at this moment, or None."""
    if torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing():
        return "it is not checked on this GPU yet, and a CUDA graph is being captured: call it once before"
    if torch._C._len_torch_dispatch_stack() > 0:
        return "it is not checked on this GPU yet, and this call is only traced: call it once before"
    return None


def _verdict(backend: str, operator: str, dtype: torch.dtype, index: int | None) -> str:
    short = str(dtype).removeprefix("torch.")
    key = f"{backend} {operator} {short} | {_place(index)}"
    if key not in _verdicts:
        _verdicts.update(_kept())
    if key not in _verdicts:
        _verdicts[key] = _checked(backend, operator, dtype, _device(index))
        kept = _keep()
        what = f"vdiff_kernels: checked {operator} ({short}) of backend {backend!r} against its definition on {gpu.name(index)}"
        if _verdicts[key] == RIGHT:
            _log.info("%s: right, so auto takes it; %s", what, kept)
        else:
            warnings.warn(f"{what}: it differs, so auto leaves it to eager PyTorch: {_verdicts[key]}; {kept}", stacklevel=2)
    return _verdicts[key]


def _checked(backend: str, operator: str, dtype: torch.dtype, device: torch.device) -> str:
    """RIGHT, or the first difference or error."""
    from ..testing.check import check  # above ops: the one budget and its cases live there
    from ..testing.suite import CASES as ALL

    cases = [case for case in ALL if case.operator == operator and case.name in CASES[operator]]
    with torch.inference_mode(False), torch.enable_grad(), torch.autocast("cuda", enabled=False):
        for case in cases:
            try:
                check(case, dtype, backend, device=device)
            except (AssertionError, RuntimeError) as error:
                return str(error)
    return RIGHT


def _device(index: int | None) -> torch.device:
    return torch.device("cuda") if index is None else torch.device("cuda", index)


@functools.cache
def _library_digest() -> str:
    return hashlib.sha256(library.LIBRARY_FILE.read_bytes()).hexdigest()[:16]


def _place(index: int | None) -> str:
    return f"{gpu.name(index)} | torch {torch.__version__} | library {_library_digest()}"


def _kept() -> dict[str, str]:
    try:
        kept = json.loads(cache_file().read_text())
    except (OSError, ValueError):
        return {}
    return kept if isinstance(kept, dict) else {}


def _keep() -> str:
    """Adds this process's verdicts to the user's cache. Returns where they are, in words."""
    path = cache_file()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(path) as draft:
            draft.write_text(json.dumps({**_kept(), **_verdicts}, indent=1) + "\n")
    except OSError as error:
        return f"the verdict is kept for this process alone ({error})"
    return f"the verdict is kept in {path}"
