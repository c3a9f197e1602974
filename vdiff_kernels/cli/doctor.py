"""`vdiff doctor`: what is here, which backends work and why not, and what auto takes for the layers of published models."""

import json
import os
import platform
import re
import shutil
import subprocess
from pathlib import Path
from typing import Annotated

import torch
import typer

from .. import __version__, library
from ..backends import gpu
from ..backends.explain import explain
from ..backends.registry import BACKENDS, ON_A_GPU, availability
from ..backends.triton import CACHE as TUNED
from ..bench.place import installed_version, processor
from ..bench.presets import PRESETS
from ..bench.suite import default_dtype
from ..files import cached
from ..ops.attention.api import spatial_attention, temporal_attention
from ..ops.conv.api import norm_act_conv
from ..ops.feedforward.api import geglu
from ..ops.linear.api import norm_linear
from ..ops.norm.api import norm_act
from ..ops.norm.call import Norm
from ..verify import verdicts
from .options import refusing

PACKAGES = ("torch", "triton", "safetensors", "numpy", "diffusers", "typer", "tqdm", "pillow", "av", "matplotlib", "scikit-learn")
COMPILERS = {"g++": ("g++", "-dumpfullversion"), "nvcc": ("nvcc", "--version")}


def doctor(
    device: Annotated[
        str | None,
        typer.Option(metavar="cpu|cuda|sm_NN", show_default="here", help="Where auto chooses; it need not be here."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
    clear_cache: Annotated[bool, typer.Option("--clear-cache", help="First remove what is kept between runs.")] = False,
) -> None:  # fmt: skip
    """What is here, which backends work, which one serves which layer, and why not another.

    \b
      vdiff doctor
      vdiff doctor --device sm_90        # what a Hopper GPU would be served by
    """
    with refusing():
        if clear_cache:
            clear()
        found = examined(device)
    typer.echo(json.dumps(found, indent=1) if as_json else text(found))


def examined(device: str | None = None) -> dict:
    """Everything, as data. Raises ValueError for a device that there is no such."""
    return {
        "vdiff_kernels": __version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}, {' '.join(platform.libc_ver())}".strip(", "),
        "packages": {name: installed_version(name) for name in PACKAGES},
        "processor": {"name": processor(), "threads": torch.get_num_threads(), **instruction_sets()},
        "gpus": gpus(),
        "compilers": {name: compiler(command) for name, command in COMPILERS.items()},
        "environment": {name: value for name, value in sorted(os.environ.items()) if name.startswith("VDIFF_")},
        "backends": {name: {"works": bool(availability(name)), "reason": availability(name).reason} for name in BACKENDS},
        "auto": choices(device),
        "preferences": [{"calls": one.calls, "first": one.first, "reason": one.reason} for one in ON_A_GPU],
        "cache": cache(),
    }


def instruction_sets() -> dict:
    if not availability("cpu"):
        return {"instruction_set": None, "instruction_sets": []}
    return {"instruction_set": library.instruction_set(), "instruction_sets": library.instruction_sets()}


def gpus() -> list[str]:
    return [gpu.name(index) for index in range(torch.cuda.device_count())] if torch.cuda.is_available() else []


def compiler(command: tuple[str, ...]) -> str | None:
    """Its version."""
    if shutil.which(command[0]) is None:
        return None
    try:
        printed = subprocess.run(command, capture_output=True, text=True, timeout=20).stdout
    except (OSError, subprocess.TimeoutExpired):
        return None
    versions = re.findall(r"\d+\.\d+(?:\.\d+)?", printed)
    return versions[-1] if versions else None


# ---------------------------------------------------------------------------------------------------------- auto's choice


def choices(device: str | None) -> dict:
    """By preset and operator: who serves it forward and backward, and why each better backend does not."""
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    place = None if device == "cpu" else device
    dtype = default_dtype(torch.device("cpu" if place is None else "cuda"))
    found = {}
    for name in PRESETS:
        own = {}
        for what, (operator, inputs, options) in calls(name, dtype).items():
            part = explain(operator, *inputs, **options, device=place, gradients=True).parts[0]
            own[what] = {"backend": part.backend, "in_parts": part.in_parts, "not": part.reasons}
        found[name] = own
    return {"device": device, "dtype": str(dtype).removeprefix("torch."), "presets": found}


def calls(preset: str, dtype: torch.dtype) -> dict:
    """(operator, inputs, keywords) of each at the first of its shapes; of tensors that nobody reads or writes."""
    shapes, found = PRESETS[preset], {}
    operators = {"temporal_attention": temporal_attention, "spatial_attention": spatial_attention}
    for shape in reversed(shapes.attention):
        q, k = torch.empty(shape.rows, dtype=dtype), torch.empty(shape.keys, dtype=dtype)
        bias = {} if shape.table is None else {"bias" if shape.bias == "dense" else "rel_bias": torch.empty(shape.table)}
        what = f"{shape.operator} to a context" if shape.context else shape.operator
        found[what] = operators[shape.operator], (q, k, k), bias
    for shape in shapes.convs[:1]:
        x = torch.empty(shape.B, shape.T, shape.H, shape.W, shape.Ci, dtype=dtype).movedim(-1, 1)
        norm = Norm("group", torch.empty(shape.Ci, dtype=dtype), torch.empty(shape.Ci, dtype=dtype), groups=32)
        found["norm_act"] = norm_act, (x, norm), {"act": "silu"}
        for kernel, taps in (("1x3x3", (1, 3, 3)), ("3x1x1", (3, 1, 1))):
            weight = torch.empty(shape.Co, shape.Ci, *taps, dtype=dtype)
            found[f"norm_act_conv {kernel}"] = norm_act_conv, (x, weight), {"norm": norm, "act": "silu"}
    for shape in shapes.rows[:1]:
        weight = torch.empty(8 * shape.C, shape.C, dtype=dtype)
        found["geglu"] = geglu, (torch.empty(shape.M, shape.C, dtype=dtype), weight, None), {}
    for shape in shapes.modules[:1]:
        x = torch.empty(shape.B, shape.T, shape.H, shape.W, shape.C, dtype=dtype)
        weight = torch.empty(3 * shape.C, shape.C, dtype=dtype)
        found["norm_linear"] = norm_linear, (x, weight), {"norm": Norm("layer", torch.empty(shape.C, dtype=dtype))}
    return dict(sorted(found.items()))


# ----------------------------------------------------------------------------------------------------------------- caches


def cache() -> dict:
    """What the package keeps between runs: the verdicts of auto's first-use check, and what was tuned."""
    path = verdicts.cache_file()
    kept = verdicts.kept()
    wrong = {key: verdict for key, verdict in kept.items() if verdict != verdicts.RIGHT}
    size = path.stat().st_size if path.exists() else 0
    found = {"file": shown(path), "bytes": size, "checked": len(kept), "right": len(kept) - len(wrong), "wrong": wrong}
    return {**found, "tuned": cached(TUNED).exists()}


def clear() -> None:
    for path in (verdicts.cache_file(), cached(TUNED)):
        path.unlink(missing_ok=True)


def shown(path: Path) -> str:
    """Without whose home it is."""
    home = Path.home()
    return f"~/{path.relative_to(home)}" if path.is_relative_to(home) else path.name


# ------------------------------------------------------------------------------------------------------------------- text


def text(found: dict) -> str:
    packages = ", ".join(f"{name} {number}" for name, number in found["packages"].items() if number)
    absent = ", ".join(name for name, number in found["packages"].items() if not number)
    cpu, kept, auto = found["processor"], found["cache"], found["auto"]
    kernels = (
        f"{cpu['instruction_set']} kernels of {', '.join(cpu['instruction_sets'])}" if cpu["instruction_sets"] else "no kernels"
    )
    lines = [
        f"vdiff_kernels {found['vdiff_kernels']}, Python {found['python']}, {found['system']}",
        f"packages   {packages}" + (f"; not here: {absent}" if absent else ""),
        f"processor  {cpu['name']}, {cpu['threads']} threads, {kernels}",
        f"GPUs       {', '.join(found['gpus']) or 'none that torch can use'}",
        f"compilers  {', '.join(f'{name} {number}' if number else f'no {name}' for name, number in found['compilers'].items())}",
    ]
    lines += [f"set        {name}={value}" for name, value in found["environment"].items()]
    lines.append("backends")
    lines += [
        f"  {name:10} {'works' if state['works'] else 'not here'}: {state['reason']}" for name, state in found["backends"].items()
    ]
    lines.append(f"auto on {auto['device']}, {auto['dtype']}, with gradients")
    for preset, own in auto["presets"].items():
        served: dict[str, list[str]] = {}
        for operator, one in own.items():
            served.setdefault(one["backend"], []).append(operator)  # whole or its core
        for backend, operators in served.items():
            lines.append(f"  {preset:16} {backend}: {'everything' if len(served) == 1 else ', '.join(operators)}")
    against: dict[str, dict[str, None]] = {}
    for own in auto["presets"].values():
        for operator, one in own.items():
            for name, reason in one["not"].items():
                against.setdefault(f"  not {name}: {reason}", {})[operator] = None
    lines += [f"{words} ({', '.join(operators)})" for words, operators in against.items()]
    if auto["device"] != "cpu":
        lines.append("auto on a GPU asks first")
        lines += [f"  {one['first']:10} for {one['calls']}: {one['reason']}" for one in found["preferences"]]
    checked = f"{kept['right']} of {kept['checked']} kernel variants right at their first use on a GPU"
    tuned = "; tuned configurations beside it" if kept["tuned"] else ""
    lines.append(f"cache      {kept['file']}, {kept['bytes']} bytes: {checked}{tuned}")
    lines += [f"  wrong: {key}: {verdict}" for key, verdict in kept["wrong"].items()]
    return "\n".join(lines)
