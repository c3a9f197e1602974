"""patch: a model's modules served by the operators, in place; and unpatch, which gives them back.

A patched module is the same object with the same parameters, buffers and hooks. Its class is a subclass of what it was, made once
for each class, with the same name; its forward asks the adapter, and where that raises `Unserved` calls the original.

Every module of a known class is patched, the blocks and what is inside them. A block that is served does not call its inner
modules; one that is not does, and then they are served each by itself.
"""

import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode
from torch.utils import _pytree as pytree

from ..backends.registry import BACKENDS
from ..ops import checks
from . import formats
from .adapter import PARTS, Adapter, Patch, patch_of, put_patch
from .families import ADAPTERS, UNFACTORIZED, adapter_of, key_of
from .guards import Unserved, class_of
from .report import Left, Replaced, Report

COMPONENTS = ("unet", "transformer", "vae", "motion_adapter")  # of a pipeline


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
    for name, wanted in (("attention", attention), ("convolution", convolution), ("feedforward", feedforward)):
        checks.require_bool("patch", name, wanted)
    switches = dict(zip(PARTS, (attention, convolution, feedforward)))
    chosen = _Chosen(
        backend, frozenset(part for part, wanted in switches.items() if wanted),
        _patterns("include", include), _patterns("exclude", exclude), _own_adapters(adapters),
    )  # fmt: skip
    plan, report = [], Report()
    for name, root in _roots(model):
        chosen.plan(root, name, None, plan, report)
    if chosen.is_everything:
        for _, root in _roots(model):
            plan += formats.ends_of(root, {id(module) for module, _ in plan})
    classes = [patched_class(type(module)) for module, _ in plan]
    done = []
    try:
        for (module, one), cls in zip(plan, classes):
            done.append((module, type(module)))
            module.__class__ = cls
            put_patch(module, one)
    except BaseException:
        for module, cls in done:
            _restore(module, cls)
        raise
    report.warn_if_nothing(model)
    return report


def unpatch(model) -> None:
    """Gives every module of a model or pipeline its own class back. Nothing else of it was changed.

    Raises ValueError, before anything is changed, for a module whose class was changed again since it was patched.
    """
    modules = [(name, module) for name, root in _roots(model) for name, module in root.named_modules(prefix=name)]
    modules = [(name, module) for name, module in modules if patch_of(module) is not None]
    for name, module in modules:
        if "patched_from" not in vars(type(module)):
            raise ValueError(f"unpatch: {name} is of {type(module)!r} since it was patched; undo that first")
    for _, module in modules:
        _restore(module, class_of(module))


@contextlib.contextmanager
def patched(model, **options) -> Iterator[Report]:
    """Within, the model is patched, with the options of `patch`; what was patched before stays so afterwards."""
    before = {id(module) for _, root in _roots(model) for module in root.modules() if patch_of(module) is not None}
    report = patch(model, **options)
    try:
        yield report
    finally:
        for _, root in _roots(model):
            for module in root.modules():
                if patch_of(module) is not None and id(module) not in before:
                    _restore(module, class_of(module))


def _restore(module: nn.Module, cls: type) -> None:
    module.__class__ = cls
    put_patch(module, None)


# ------------------------------------------------------------------------------------------------------------- the plan


@dataclass
class _Chosen:
    backend: str | None
    parts: frozenset[str]
    include: tuple[str | type, ...] | None
    exclude: tuple[str | type, ...]
    own: dict[type, Adapter]

    @property
    def is_everything(self) -> bool:
        return self.parts == frozenset(PARTS) and self.include is None and not self.exclude

    def plan(self, module: nn.Module, path: str, inside: str | None, plan: list, report: Report) -> None:
        """Adds to the plan every module that is to be patched, and to the report what becomes of each candidate.

        inside: the path of the module that is served with this one in it, or None.
        """
        if any(module is other for other, _ in plan):  # shared
            return
        adapter, why_none = self._adapter(module)
        if adapter is not None:
            reason = self._why_not(module, path, adapter)
            if reason is None:
                already = patch_of(module)
                if already is None:
                    plan.append((module, Patch(adapter, self.backend, path, is_trusted=class_of(module) not in self.own)))
                elif already.backend != self.backend:
                    raise ValueError(
                        f"patch: {path} is patched with backend {already.backend!r}; expected that again, or unpatch first"
                    )
                reason = _now(module, path, adapter)
            if inside is None and reason is None:
                report.replaced.append(Replaced(path, class_of(module).__name__, adapter.saves))
                report.watch(module)
                inside = path
            elif inside is None:
                report.left.append(Left(path, class_of(module).__name__, reason))
            if inside is not None:
                report.inner += inside != path
        elif why_none and inside is None:
            report.left.append(Left(path, class_of(module).__name__, why_none))
        for name, child in module.named_children():
            self.plan(child, f"{path}.{name}" if path else name, inside, plan, report)

    def _adapter(self, module: nn.Module) -> tuple[Adapter | None, str]:
        own = self.own.get(class_of(module))
        if own is not None:
            return own, ""
        if class_of(module).__name__ in UNFACTORIZED:
            return None, "it attends over all pixels of all frames at once; these kernels are for factorized space and time"
        return adapter_of(module)

    def _why_not(self, module: nn.Module, path: str, adapter: Adapter) -> str | None:
        """Why a module is not to be patched, for good."""
        unwanted = [part for part in adapter.parts if part not in self.parts]
        if unwanted:
            return f"{unwanted[0]}=False"
        if self.include is not None and not any(_matches(one, module, path) for one in self.include):
            return "it is not included"
        excluded = [
            name for name, inner in module.named_modules(prefix=path)
            for one in self.exclude if _matches(one, inner, name)
        ]  # fmt: skip
        if excluded:
            return "it is excluded" if path in excluded else f"{excluded[0]} in it is excluded"
        if "forward" in module.__dict__:
            return "its forward is replaced on the instance, as offloading does; patch before that"
        require_loaded(module, path)
        return None


def _now(module: nn.Module, path: str, adapter: Adapter) -> str | None:
    """Why a module would step aside as it is now."""
    try:
        adapter.check(module)
    except Unserved as reason:
        return str(reason)
    except Exception as error:
        error.add_note(f"patch: in the check of {path}; nothing was patched") if hasattr(error, "add_note") else None
        raise
    return None


def require_loaded(module: nn.Module, path: str) -> None:
    """Raises ValueError for weights without data, unless accelerate's hooks bring the data when they are needed."""
    for name, inner in module.named_modules(prefix=path):
        for key, tensor in inner.named_parameters(recurse=False):
            if tensor.device.type == "meta" and not hasattr(inner, "_hf_hook"):
                raise ValueError(f"patch: {name}.{key} is on the meta device; expected weights that are loaded")


def _matches(pattern: str | type, module: nn.Module, path: str) -> bool:
    return class_of(module) is pattern if isinstance(pattern, type) else fnmatchcase(path, pattern)


def _patterns(name: str, given) -> tuple[str | type, ...] | None:
    if given is None:
        return None if name == "include" else ()
    patterns = (given,) if isinstance(given, (str, type)) else tuple(given)
    for one in patterns:
        if not isinstance(one, (str, type)):
            raise TypeError(f"patch: {name} has {checks.shown(one)}; expected paths and classes of modules")
    return patterns


def _own_adapters(given) -> dict[type, Adapter]:
    own: dict[type, Adapter] = {}
    for cls, adapter in given.items() if isinstance(given, Mapping) else given or ():
        if not (isinstance(cls, type) and issubclass(cls, nn.Module)):
            raise TypeError(f"patch: adapters has {checks.shown(cls)}; expected classes of modules")
        if not callable(adapter) and not isinstance(adapter, Adapter):
            raise TypeError(f"patch: the adapter of {cls.__name__} is {checks.shown(adapter)}; expected a function or an Adapter")
        if cls in own:
            raise ValueError(f"patch: adapters has {cls.__name__} twice; expected one adapter for each class")
        if key_of(cls) in ADAPTERS:
            raise ValueError(f"patch: adapters has {cls.__name__}, which has an adapter already; expected other classes")
        own[cls] = adapter if isinstance(adapter, Adapter) else Adapter(adapter, saves="by an adapter of yours")
    return own


def _roots(model) -> list[tuple[str, nn.Module]]:
    """(its path, module): a module itself, or those of a pipeline that have layers of video models."""
    if isinstance(model, nn.Module):
        return [("", model)]
    found = [(name, getattr(model, name, None)) for name in COMPONENTS]
    found = [(name, one) for name, one in found if isinstance(one, nn.Module)]
    if not found:
        raise TypeError(f"patch: model is {checks.shown(model)}; expected a module, or a pipeline with {', '.join(COMPONENTS)}")
    return found
