"""The trip of a layer's tensors from nn.TemporalAttention.forward to its kernel: the files that hand them on, and how often the
list of the attention's arguments is written on the way.

A file hands them on where a function that was given them, or the call that holds them, gives them to another file or to the
kernel, once every choice is made; what only looks at them, and returns None, does not. A list is written where a definition, a
call, a tuple or the fields of a class name four or more of the arguments, in code that runs on the first trip.
Run: python -m benchmarks.call_path
"""

import ast
import sys
from pathlib import Path
from types import CodeType, FrameType

import torch
from torch import Tensor

import vdiff_kernels

PACKAGE = Path(vdiff_kernels.__file__).parent
ARGUMENTS = {"bias", "rel_bias", "scale", "causal", "focus_present", "rotary"}


class Trip:
    """What runs of the package until the compiled library is reached."""

    def __init__(self, function):
        self._givers: dict[FrameType, Path] = {}
        self.code: set[CodeType] = set()
        self.arrived = False
        sys.setprofile(self._trace)
        try:
            function()
        finally:
            sys.setprofile(None)

    @property
    def hands_on(self) -> list[Path]:
        return list(dict.fromkeys(self._givers.values()))

    def _trace(self, frame: FrameType, event: str, result):
        if event == "return" and result is None and not self.arrived:
            self._givers.pop(frame, None)
        if event != "call" or self.arrived:
            return
        path, caller = Path(frame.f_code.co_filename), frame.f_back
        is_kernel = path.name == "_ops.py" and "vdiff_kernels" in str(frame.f_locals.get("self", ""))
        if PACKAGE in path.parents:
            self.code.add(frame.f_code)
        elif not is_kernel:
            return
        self.arrived = is_kernel
        giver = Path(caller.f_code.co_filename)
        if PACKAGE in giver.parents and giver != path and _carries(frame) and _carries(caller):
            self._givers[caller] = giver


def _carries(frame: FrameType) -> bool:
    """Whether a frame was given the tensors, or what holds them."""
    return any(_holds(value) for value in frame.f_locals.values())


def _holds(value) -> bool:
    if isinstance(value, (tuple, list)):
        return any(map(_holds, value))
    return isinstance(value, Tensor) or hasattr(value, "tensors")


def written(code: set[CodeType]) -> list[str]:
    """Where a list of the arguments is in those functions, or in the fields of a class beside them."""
    lines = {}
    for one in code:
        lines.setdefault(Path(one.co_filename), []).append(one.co_firstlineno)
    found = []
    for path, firsts in lines.items():
        tree = ast.parse(path.read_text())
        functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and _first(node) in firsts]
        nodes = {node for function in functions for node in ast.walk(function)}
        nodes |= {node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}
        found += [f"{path.relative_to(PACKAGE)}:{node.lineno}" for node in nodes if len(_names(node) & ARGUMENTS) >= 4]
    return sorted(found)


def _first(function: ast.FunctionDef) -> int:
    return min(node.lineno for node in (function, *function.decorator_list))


def _names(node) -> set[str]:
    if isinstance(node, ast.FunctionDef):
        return {argument.arg for argument in (*node.args.args, *node.args.kwonlyargs)}
    if isinstance(node, ast.Call):
        return {keyword.arg for keyword in node.keywords} | set(map(_name, node.args))
    if isinstance(node, ast.Tuple):
        return set(map(_name, node.elts))
    if isinstance(node, ast.ClassDef):
        return {_name(field.target) for field in node.body if isinstance(field, ast.AnnAssign)}
    return set()


def _name(node) -> str:
    return getattr(node, "id", getattr(node, "attr", ""))


def main():
    layer, norm = vdiff_kernels.nn.TemporalAttention(16, 2), vdiff_kernels.Norm("layer", torch.ones(16))
    x, angles = torch.randn(1, 4, 2, 2, 16), torch.rand(4, 2)

    def call():
        layer(x, norm=norm, residual=x, causal=True, rotary=angles)

    with torch.no_grad():
        first, later = Trip(call), Trip(call)
    lists = written(first.code)
    print(f"{len(later.hands_on)} files: {', '.join(str(path.relative_to(PACKAGE)) for path in later.hands_on)}")
    print(f"{len(lists)} lists of the arguments: {', '.join(lists)}")


if __name__ == "__main__":
    main()
