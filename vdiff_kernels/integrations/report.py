"""What `patch` did with a model, and why not more; and, after it ran, what was served."""

import collections
import warnings
import weakref
from dataclasses import asdict, dataclass, field

from torch import nn

from .adapter import patch_of


@dataclass(frozen=True)
class Replaced:
    """A module that is served. saves: what the operators do without."""

    path: str
    class_name: str
    saves: str


@dataclass(frozen=True)
class Left:
    """A candidate that computes as it did."""

    path: str
    class_name: str
    reason: str


@dataclass
class Report:
    """Prints as a text. inner: how many modules are patched inside those that are served, to serve where these step aside."""

    replaced: list[Replaced] = field(default_factory=list)
    left: list[Left] = field(default_factory=list)
    inner: int = 0
    _modules: list[weakref.ref] = field(default_factory=list, repr=False)

    def watch(self, module: nn.Module) -> None:
        self._modules.append(weakref.ref(module))

    def calls(self) -> dict[str, dict]:
        """By path of what was replaced: how many calls were served, and by reason how many went to the original."""
        found = {}
        for one, reference in zip(self.replaced, self._modules):
            module = reference()
            patch = None if module is None else patch_of(module)
            if patch is not None:
                found[one.path] = {"served": patch.served, "stepped_aside": dict(patch.stepped_aside)}
        return found

    def as_data(self) -> dict:
        """For JSON."""
        lists = {name: [asdict(one) for one in getattr(self, name)] for name in ("replaced", "left")}
        return {**lists, "inner": self.inner, "calls": self.calls()}

    def __str__(self) -> str:
        lines = [f"{len(self.replaced)} modules served, {len(self.left)} candidates left alone"]
        lines += _counted((one.class_name, one.saves) for one in self.replaced)
        if self.left:
            lines += ["left alone:", *_counted((one.class_name, one.reason) for one in self.left)]
        aside = collections.Counter()
        for calls in self.calls().values():
            aside.update(calls["stepped_aside"])
        if aside:
            lines += ["calls that went to the original:", *(f"  {count:4} {reason}" for reason, count in aside.items())]
        return "\n".join(lines)

    def warn_if_nothing(self, model) -> None:
        if not self.replaced and not self.left:
            warnings.warn(
                f"patch: {type(model).__name__} has nothing to serve; looked for layers of diffusers' video models and of "
                f"video-diffusion-pytorch, and for the classes in adapters",
                stacklevel=3,
            )


def _counted(pairs) -> list[str]:
    counts = collections.Counter(pairs)
    width = max(map(len, (name for name, _ in counts)), default=0)
    return [f"  {count:4} {name:{width}}  {words}" for (name, words), count in counts.items()]
