"""When a module may be served: it is of a class whose code is known, and calling it would run nothing else.

Every adapter asks all of this before it computes anything, so that whoever called it can still call the original.
"""

import ast
import hashlib
import inspect
import textwrap

from torch import nn

from ..backends.gpu import constant_in_graphs
from ..nn.children import what_is_around
from .known import KNOWN


class Unserved(ValueError):
    """Why a module, as it is or as it is called, is not served. Raised before anything is computed."""


def require(condition: bool, module: nn.Module, reason: str) -> None:
    if not condition:
        raise Unserved(f"{class_of(module).__name__} cannot be served: {reason}")


def require_silu(module: nn.Module) -> None:
    """Raises Unserved unless an activation, which is not called, is SiLU alone."""
    require(type(module) is nn.SiLU, module, "expected SiLU")
    require_nothing_around(module)


def require_idle(*dropouts: nn.Module) -> None:
    """Raises Unserved unless dropouts, which are not called, do nothing now: what they drop depends on the order in memory."""
    for module in dropouts:
        require(type(module) in (nn.Dropout, nn.Identity), module, "expected Dropout")
        idle = type(module) is nn.Identity or module.p == 0 or not module.training
        require(idle, module, "it is training with p above 0; expected p = 0 or eval()")
        require_nothing_around(module)


def require_known(module: nn.Module, *names: str) -> None:
    """Raises Unserved unless a module whose forward is not called is exactly of one of the classes, as published: no subclass, no
    wrapper and no other version's code, without hooks and without a forward of its own.
    """
    known = identity(class_of(module))
    require(known in names, module, f"expected {' or '.join(names)}, of a version that was tested")
    require_nothing_around(module)


def require_nothing_around(module: nn.Module) -> None:
    """Raises Unserved for hooks on a module that is not called, and for a forward of its own."""
    around = what_is_around(module)
    require(around is None, module, f"{around}, and it is not called")


def class_of(module: nn.Module) -> type:
    """The class that a module had before it was patched."""
    return getattr(type(module), "patched_from", type(module))


def key_of(cls: type) -> str:
    """The package and name of a class, as the tables have it."""
    return f"{cls.__module__.split('.')[0]}.{cls.__qualname__}"


_identities: dict[type, str | None] = {}


@constant_in_graphs  # what a class is does not change: torch.compile takes what it finds, not how
def identity(cls: type) -> str | None:
    """The name of a class whose code is known, or None."""
    if cls not in _identities:
        _identities[cls] = _identify(cls)
    return _identities[cls]


def _identify(cls: type) -> str | None:
    digests = KNOWN.get(key_of(cls))
    if digests is None:
        return None
    try:
        return cls.__qualname__ if digest(cls) in digests else None
    except (OSError, TypeError):  # there is no source to look at
        return None


def digest(cls: type) -> str:
    """Of what a class's forward (a processor's __call__) does, and its own methods that this calls; comments, docstrings,
    annotations and messages may differ.

    Raises OSError without the source.
    """
    texts, names = {}, ["forward" if "forward" in vars(cls) else "__call__"]
    while names:
        name = names.pop()
        tree = ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(vars(cls)[name])))).body[0]
        texts[name] = ast.unparse(ast.fix_missing_locations(_Bare().visit(tree)))
        used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "self"}
        names += [other for other in used - texts.keys() if inspect.isfunction(vars(cls).get(other))]
    return hashlib.sha256("\n".join(texts[name] for name in sorted(texts)).encode()).hexdigest()[:8]


class _Bare(ast.NodeTransformer):
    def visit_FunctionDef(self, node):
        if ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
        node.returns = None
        return self.generic_visit(node)

    def visit_arg(self, node):
        node.annotation = None
        return node

    def visit_AnnAssign(self, node):
        return ast.Assign([node.target], node.value, lineno=0) if node.value else None

    def visit_JoinedStr(self, node):  # written differently by each version of Python
        return ast.Constant("")
