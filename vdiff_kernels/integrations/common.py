"""What the model families share. Modules are known by their attributes: nothing here imports the packages they come from.

An adapter is a function of a block, called with what its forward is called with. It reads the block's own parameters, so that
gradients land there, and keeps the memory format it is given. Where a block does what no operator says, it raises ValueError.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..nn.children import what_is_around
from ..ops.norm.api import norm_act
from ..ops.norm.call import Norm


def require(condition: bool, module: nn.Module, reason: str) -> None:
    if not condition:
        raise ValueError(f"{type(module).__name__} cannot be served: {reason}")


def require_no_dropout(*modules: nn.Module) -> None:
    """Raises if any of the modules is a dropout that would act now: the operators have none."""
    for module in modules:
        if isinstance(module, nn.Dropout) and module.training and module.p > 0:
            raise ValueError(f"Dropout cannot be served: p is {module.p} in training mode; expected p = 0 or eval()")


def require_plain(module: nn.Module, *classes: str) -> None:
    """Raises unless a module whose forward is not called computes what its class alone says: it is exactly of one of the classes,
    no subclass and no wrapper (LoRA, a parametrization, FreeNoise), has no hooks (weight norm, pruning, offloading) and no
    forward of its own.
    """
    name = type(module).__name__
    require(name in classes, module, f"expected {' or '.join(classes)}; fuse or undo what wraps or replaces it first")
    around = what_is_around(module)
    require(around is None, module, f"{around}, and it is not called; expected none")


def weight_and_bias(module: nn.Module, *classes: str) -> tuple[Tensor, Tensor | None]:
    """Of a plain module of one of the classes of torch.nn, by default Linear."""
    require_plain(module, *(classes or ("Linear",)))
    require(type(module).__module__.startswith("torch.nn."), module, "expected the class of torch.nn")
    return module.weight, module.bias


def norm_of(module: nn.Module, **options) -> Norm:
    """Norm.of a plain norm."""
    require_plain(module, "GroupNorm", "LayerNorm", "RMSNorm")
    return Norm.of(module, **options)


def normalize(x: Tensor, norm: Norm, backend: str | None) -> Tensor:
    """norm(x); x (B, T, H, W, C)."""
    return norm_act(x.movedim(-1, 1), norm, backend=backend).movedim(1, -1)


def channels_last(x: Tensor) -> Tensor:
    """x (B, C, T, H, W) with C innermost: itself, or one copy for all of its readers."""
    return x.contiguous(memory_format=torch.channels_last_3d)


def pointwise(conv: nn.Module, x: Tensor) -> Tensor:
    """A 1x1 or 1x1x1 convolution of x (B, C, T, H, W), as the matrix product that it is."""
    weight, bias = weight_and_bias(conv, "Conv2d", "Conv3d")
    return F.linear(x.movedim(1, -1), weight.flatten(1), bias).movedim(-1, 1)
