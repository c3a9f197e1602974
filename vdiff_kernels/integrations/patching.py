"""patch: a model's modules served by the operators, in place; and unpatch, which gives them back.

A patched module is the same object with the same parameters, buffers and hooks. Its class is a subclass of what it was, made once
for each class, with the same name; its forward asks the adapter, and where that raises `Unserved` calls the original.

Every module of a known class is patched, the blocks and what is inside them. A block that is served does not call its inner
modules; one that is not does, and then they are served each by itself.
"""

import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from ..backends.registry import BACKENDS
from ..ops import checks
from .adapter import Adapter, Patch, patch_of, put_patch
from .guards import Unserved, class_of
from .plan import Plan, Wishes, roots_of
from .report import Report


@functools.cache
def patched_class(cls: type) -> type:
    """The subclass of a module's class whose forward asks the module's adapter first."""

    original = cls.forward

    @functools.wraps(original)
    def forward(self, *args, **kwargs):
        patch = patch_of(self)
        try:
            out = patch.adapter.forward(self, *args, backend=patch.backend, **kwargs)
        except Unserved as reason:
            if not torch.compiler.is_compiling():
                patch.stepped_aside[str(reason)] += 1
            return original(self, *args, **kwargs)
        if not torch.compiler.is_compiling():
            patch.served += 1
            if not patch.is_trusted:
                _require_like_original(self, patch, out, args, kwargs)
        return out

    def reduce(self, protocol):
        """Pickled and copied as the class that it was, to be patched on arrival."""
        make, (_, *arguments), *state = super(patched, self).__reduce_ex__(protocol)
        return _remake, (cls, make, arguments), *state

    members = {"forward": forward, "__reduce_ex__": reduce, "patched_from": cls}
    members |= {"__module__": cls.__module__, "__doc__": cls.__doc__}
    patched = type(cls.__name__, (cls,), members)
    patched.__qualname__ = cls.__qualname__
    return patched


def _require_like_original(module: nn.Module, patch: Patch, out, args: tuple, kwargs: dict) -> None:
    """Raises ValueError for the result of an adapter that is of another shape, dtype or type than the original's, which is run on
    tensors without data.
    """
    from torch._subclasses import FakeTensorMode  # which brings the compiler

    patch.is_trusted = True  # once is enough
    try:
        with FakeTensorMode(allow_non_fake_inputs=True) as mode, torch.no_grad():
            fakes = pytree.tree_map_only(Tensor, mode.from_tensor, (args, kwargs))
            expected = class_of(module).forward(module, *fakes[0], **fakes[1])
    except Exception:  # whatever depends on data cannot be asked
        return
    given, wanted = (pytree.tree_map_only(Tensor, _described, one) for one in (out, expected))
    if given != wanted:
        patch.is_trusted = False
        raise ValueError(
            f"the adapter of {patch.path} ({class_of(module).__name__}) returned {given}; its forward returns {wanted}"
        )


def _described(tensor: Tensor) -> str:
    return f"a tensor {tuple(tensor.shape)} of {tensor.dtype}"


def _remake(cls: type, make: Callable, arguments: list) -> nn.Module:
    return make(patched_class(cls), *arguments)


# --------------------------------------------------------------------------------------------------------- patch, unpatch


def patch(
    model,
    *,
    backend: str | None = None,
    attention: bool = True,
    convolution: bool = True,
    feedforward: bool = True,
    include: Iterable[str | type] | None = None,
    exclude: Iterable[str | type] | None = None,
    adapters: Mapping[type, Callable | Adapter] | Iterable[tuple[type, Callable | Adapter]] | None = None,
) -> Report:
    """Serves a model's modules by this package's operators, in place, with the same numbers; returns what was done, and why not.

    Parameters, their names and identities, `state_dict`, hooks and `isinstance` stay as they are. Calling it again patches what
    has come to the model since, and nothing twice.

    Args:
        model: a module, or a pipeline (whatever has `.unet`, `.transformer`, `.vae` or `.motion_adapter`).
        backend: that serves every call, or None for what is best for each.
        attention, convolution, feedforward: whether modules with such parts are served.
        include, exclude: paths of modules, with * and ?, and classes. With include only those are served; a module in which one
            is excluded is not served whole.
        adapters: for classes of yours: a function, called as the class's forward is, with the module before its arguments and
            backend= after them, or an `Adapter`.

    Raises ValueError, before anything is changed, for a class that has two adapters, for weights on the meta device, for a module
    that is patched with another backend, and whatever an adapter's check raises but `Unserved`; TypeError for other models.
    """
    checks.require_choice("patch", "backend", backend, (None, *BACKENDS))
    switches = dict(attention=attention, convolution=convolution, feedforward=feedforward)
    for name, wanted in switches.items():
        checks.require_bool("patch", name, wanted)
    plan = Plan(Wishes.of(backend, switches, include, exclude, adapters))
    for name, root in roots_of(model):
        plan.walk(root, name)
    plan.add_ends([root for _, root in roots_of(model)])
    classes = [patched_class(type(module)) for module, _ in plan.patches]
    done = []
    try:
        for (module, one), cls in zip(plan.patches, classes):
            was, module.__class__ = type(module), cls
            done.append((module, was))
            put_patch(module, one)
    except BaseException:
        for module, cls in done:
            _restore(module, cls)
        raise
    plan.report.warn_if_nothing(model)
    return plan.report


def unpatch(model) -> None:
    """Gives every module of a model or pipeline its own class back. Nothing else of it was changed.

    Raises ValueError, before anything is changed, for a module whose class was changed again since it was patched.
    """
    modules = [(name, module) for name, root in roots_of(model) for name, module in root.named_modules(prefix=name)]
    modules = [(name, module) for name, module in modules if patch_of(module) is not None]
    for name, module in modules:
        if "patched_from" not in vars(type(module)):
            raise ValueError(f"unpatch: {name} is of {type(module)!r} since it was patched; undo that first")
    for _, module in modules:
        _restore(module, class_of(module))


@contextlib.contextmanager
def patched(model, **options) -> Iterator[Report]:
    """Within, the model is patched, with the options of `patch`; what was patched before stays so afterwards."""
    before = {id(module) for _, root in roots_of(model) for module in root.modules() if patch_of(module) is not None}
    report = patch(model, **options)
    try:
        yield report
    finally:
        for _, root in roots_of(model):
            for module in root.modules():
                if patch_of(module) is not None and id(module) not in before:
                    _restore(module, class_of(module))


def _restore(module: nn.Module, cls: type) -> None:
    module.__class__ = cls
    put_patch(module, None)
