"""What `patch` is going to do with a model: found before anything of it is changed."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from torch import nn

from ..ops import checks
from . import formats
from .adapter import PARTS, Adapter, Patch, patch_of
from .families import ADAPTERS, UNFACTORIZED, adapter_of
from .guards import Unserved, class_of, key_of
from .report import Left, Replaced, Report

COMPONENTS = ("unet", "transformer", "vae", "motion_adapter")  # of a pipeline


def roots_of(model) -> list[tuple[str, nn.Module]]:
    """(its path, module): a module itself, or those of a pipeline that have layers of video models."""
    if isinstance(model, nn.Module):
        return [("", model)]
    found = [(name, getattr(model, name, None)) for name in COMPONENTS]
    found = [(name, one) for name, one in found if isinstance(one, nn.Module)]
    if not found:
        raise TypeError(f"patch: model is {checks.shown(model)}; expected a module, or a pipeline with {', '.join(COMPONENTS)}")
    return found


@dataclass(frozen=True)
class Wishes:
    """The arguments of `patch`. parts: of PARTS, what is wanted; own: the adapters that were given."""

    backend: str | None
    parts: frozenset[str]
    include: tuple[str | type, ...] | None
    exclude: tuple[str | type, ...]
    own: dict[type, Adapter]

    @classmethod
    def of(cls, backend, switches: dict[str, bool], include, exclude, adapters) -> "Wishes":
        """Raises TypeError and ValueError for what is none of the arguments that `patch` takes."""
        parts = frozenset(part for part, wanted in switches.items() if wanted)
        return cls(backend, parts, _patterns("include", include), _patterns("exclude", exclude) or (), _own(adapters))

    @property
    def are_everything(self) -> bool:
        return self.parts == frozenset(PARTS) and self.include is None and not self.exclude

    def adapter_of(self, module: nn.Module) -> tuple[Adapter | None, str]:
        """(the adapter of a module, or None; why it has none, or "" where it is no candidate)."""
        cls = class_of(module)
        if cls in self.own:
            return self.own[cls], ""
        if cls.__name__ in UNFACTORIZED:
            return None, "it attends over all pixels of all frames at once; these kernels are for factorized space and time"
        return adapter_of(module)

    def why_not(self, module: nn.Module, path: str, adapter: Adapter) -> str | None:
        """Why a module is not to be patched, however it is."""
        unwanted = [part for part in adapter.parts if part not in self.parts]
        if unwanted:
            return f"{unwanted[0]}=False"
        if self.include is not None and not any(_matches(one, module, path) for one in self.include):
            return "it is not included"
        if not self.exclude:
            return None
        inside = module.named_modules(prefix=path)
        excluded = [name for name, inner in inside if any(_matches(one, inner, name) for one in self.exclude)]
        if excluded:
            return "it is excluded" if path in excluded else f"{excluded[0]} in it is excluded"
        return None


@dataclass
class Plan:
    """patches: the modules that are to be patched, the outer ones first, and what each then knows. report: of all candidates."""

    wishes: Wishes
    patches: list[tuple[nn.Module, Patch]] = field(default_factory=list)
    report: Report = field(default_factory=Report)
    _seen: set[int] = field(default_factory=set)

    def walk(self, module: nn.Module, path: str, inside: bool = False) -> None:
        """Adds a module and what is in it. inside: whether one that it is in is served.

        Raises ValueError for weights without data and for a module that is patched with another backend, and whatever a check
        raises but `Unserved`.
        """
        if id(module) in self._seen:  # shared
            return
        self._seen.add(id(module))
        inside = self._add(module, path, inside) or inside
        for name, child in module.named_children():
            self.walk(child, f"{path}.{name}" if path else name, inside)

    def _add(self, module: nn.Module, path: str, inside: bool) -> bool:
        """Whether it is served."""
        adapter, reason = self.wishes.adapter_of(module)
        name = class_of(module).__name__
        if adapter is not None:
            reason = self.wishes.why_not(module, path, adapter) or self._patched(module, path, adapter)
        if inside:
            self.report.inner += adapter is not None
        elif reason:
            self.report.left.append(Left(path, name, reason))
        elif adapter is not None:
            self.report.replaced.append(Replaced(path, name, adapter.saves))
            self.report.watch(module)
        return adapter is not None and not reason

    def _patched(self, module: nn.Module, path: str, adapter: Adapter) -> str | None:
        """Puts a module on the list. Returns why it would step aside as it is now, or None."""
        if "forward" in vars(module):
            return "its forward is replaced on the instance, as offloading does; patch before that"
        require_loaded(module, path)
        backend, already = self.wishes.backend, patch_of(module)
        if already is None:
            is_own = class_of(module) in self.wishes.own
            self.patches.append((module, Patch(adapter, backend, path, is_trusted=not is_own)))
        elif already.backend != backend:
            raise ValueError(f"patch: {path} is patched with backend {already.backend!r}; expected that again, or unpatch first")
        try:
            adapter.check(module)
        except Unserved as reason:
            return str(reason)
        except Exception as error:
            if hasattr(error, "add_note"):  # since Python 3.11
                error.add_note(f"patch: in the check of {path}; nothing was patched")
            raise
        return None

    def add_ends(self, roots: list[nn.Module]) -> None:
        """Of models whose every layer may be served, what lets their activations keep the operators' order in memory."""
        if self.wishes.are_everything:
            served = {id(module) for module, _ in self.patches}
            for root in roots:
                self.patches += formats.ends_of(root, served)


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
        return None
    patterns = (given,) if isinstance(given, (str, type)) else tuple(given)
    for one in patterns:
        if not isinstance(one, (str, type)):
            raise TypeError(f"patch: {name} has {checks.shown(one)}; expected paths and classes of modules")
    return patterns


def _own(given) -> dict[type, Adapter]:
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
