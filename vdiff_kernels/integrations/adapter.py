"""What serves a class of modules, and what a module that is patched knows of it."""

import collections
from collections.abc import Callable
from dataclasses import dataclass, field

from torch import nn

PARTS = ("attention", "convolution", "feedforward")


def any_module(module: nn.Module) -> None:
    """The check of an adapter that serves whatever it is given."""


@dataclass(frozen=True)
class Adapter:
    """forward(module, ..., backend=...) is called with what the class's own forward is called with and returns what that does; it
    raises `Unserved`, before it computes anything, where the original has to be called.

    check(module) raises `Unserved` for a module that would not be served however it is called. parts: of PARTS, what it fuses.
    saves: in a few words, for the report.
    """

    forward: Callable
    check: Callable[[nn.Module], None] = any_module
    parts: tuple[str, ...] = PARTS
    saves: str = ""


@dataclass
class Patch:
    """path: of the module. is_trusted: whether its results are known to be of the original's kind. served: how many calls were.
    stepped_aside: how many went to the original, by the reason.
    """

    adapter: Adapter
    backend: str | None
    path: str
    is_trusted: bool = True
    served: int = 0
    stepped_aside: collections.Counter = field(default_factory=collections.Counter)


_ATTRIBUTE = "_vdiff_patch"


def patch_of(module: nn.Module) -> Patch | None:
    """None of a module that is not patched."""
    return module.__dict__.get(_ATTRIBUTE)


def put_patch(module: nn.Module, patch: Patch | None) -> None:
    if patch is None:
        module.__dict__.pop(_ATTRIBUTE, None)
    else:
        module.__dict__[_ATTRIBUTE] = patch
