"""Argument checks shared by every public operator: one error that names the argument, what was given and what is allowed."""

import torch
from torch import Tensor

FLOATING = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
HALF = (torch.float16, torch.bfloat16)
MAX_HEAD_DIM = 256


def shown(value) -> str:
    """A value within an error's one line: itself where it is small, else its type."""
    return repr(value) if value is None or isinstance(value, (bool, int, float, str)) else f"a {type(value).__name__}"


def require_tensor(op: str, name: str, value) -> None:
    if not isinstance(value, Tensor):
        raise TypeError(f"{op}: {name} is {shown(value)}; expected a torch.Tensor")
    if value.layout != torch.strided:
        raise TypeError(f"{op}: {name} has layout {value.layout}; expected a dense torch.Tensor")


def require_floating(op: str, name: str, tensor: Tensor) -> None:
    if tensor.dtype not in FLOATING:
        raise TypeError(f"{op}: {name} has dtype {tensor.dtype}; expected float32, float64, float16 or bfloat16")


def require_floating_tensor(op: str, name: str, value, letters: str | None = None) -> None:
    """A tensor of any dtype that operators take; letters: its dimensions, as in `require_rank`."""
    require_tensor(op, name, value)
    require_floating(op, name, value)
    if letters is not None:
        require_rank(op, name, value, letters)


def require_rank(op: str, name: str, tensor: Tensor, letters: str) -> None:
    """letters: the dimensions in the project's letters, "(B, T, C)"."""
    rank = letters.count(",") + 1
    if tensor.dim() != rank:
        raise ValueError(f"{op}: {name} has shape {tuple(tensor.shape)}; expected {rank} dimensions {letters}")


def require_shape(op: str, name: str, tensor: Tensor, letters: str, *allowed: tuple[int, ...]) -> None:
    """allowed: the sizes of each shape in letters, "(B,) or (B, T)"."""
    shape = tuple(tensor.shape)
    for sizes in allowed:  # not `in`: torch.compile finds no constant sizes among symbolic ones
        if shape == sizes:
            return
    raise ValueError(f"{op}: {name} has shape {shape}; expected {letters} = {' or '.join(map(str, allowed))}")


def require_extents(op: str, name: str, tensor: Tensor, **extents: int) -> None:
    """Raises for a size of 0, given by its letter."""
    for letter, size in extents.items():
        if size < 1:
            given = f"{name} has shape {tuple(tensor.shape)}, so {letter} = {size}"
            raise ValueError(f"{op}: {given}; expected {letter} at least 1")


def require_device(op: str, name: str, tensor: Tensor, like_name: str, like: Tensor) -> None:
    if tensor.device != like.device:
        raise ValueError(f"{op}: {name} is on {tensor.device}; expected {like.device}, as {like_name}")


def require_like(op: str, name: str, value, like_name: str, like: Tensor) -> None:
    """A tensor of the dtype and on the device of `like`."""
    require_tensor(op, name, value)
    require_device(op, name, value, like_name, like)
    if value.dtype != like.dtype:
        raise TypeError(
            f"{op}: {name} has dtype {value.dtype}; expected {like.dtype}, as {like_name} (mixed dtypes need autocast)"
        )


def require_table(op: str, name: str, value, like_name: str, like: Tensor) -> None:
    """A floating tensor of any dtype on the device of `like`: bias tables, mix."""
    require_tensor(op, name, value)
    require_device(op, name, value, like_name, like)
    require_floating(op, name, value)


def require_mask(op: str, name: str, value, like_name: str, like: Tensor, letters: str, *allowed: tuple[int, ...]) -> None:
    """A bool tensor of a shape as in `require_shape`, on the device of `like`."""
    require_tensor(op, name, value)
    require_device(op, name, value, like_name, like)
    if value.dtype != torch.bool:
        raise TypeError(f"{op}: {name} has dtype {value.dtype}; expected torch.bool")
    require_shape(op, name, value, letters, *allowed)


def require_parameter(op: str, name: str, value, like_name: str, like: Tensor, letters: str, *allowed: tuple[int, ...]) -> None:
    """A vector of parameters: of a shape as in `require_shape`, in the dtype of `like` or float32 beside a half `like`."""
    require_tensor(op, name, value)
    require_device(op, name, value, like_name, like)
    dtypes = (like.dtype, torch.float32) if like.dtype in HALF else (like.dtype,)
    if value.dtype not in dtypes:
        raise TypeError(f"{op}: {name} has dtype {value.dtype}; expected {' or '.join(map(str, dtypes))}")
    require_shape(op, name, value, letters, *allowed)


def require_bool(op: str, name: str, value) -> None:
    if not isinstance(value, bool):
        raise TypeError(f"{op}: {name} is {shown(value)}; expected True or False")


def require_positive_int(op: str, name: str, value) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, torch.SymInt)):
        raise TypeError(f"{op}: {name} is {shown(value)}; expected an int")
    if value < 1:
        raise ValueError(f"{op}: {name} is {value}; expected at least 1")


def require_choice(op: str, name: str, value, allowed: tuple) -> None:
    if value not in allowed:
        raise ValueError(f"{op}: {name} is {shown(value)}; expected one of {', '.join(map(repr, allowed))}")


def require_number(op: str, name: str, value) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float, torch.SymInt, torch.SymFloat)):
        raise TypeError(f"{op}: {name} is {shown(value)}; expected a number")


def require_eps(op: str, name: str, value) -> None:
    require_number(op, name, value)
    if not value >= 0:
        raise ValueError(f"{op}: {name} is {value}; expected at least 0")


def require_no_grad(op: str, name: str, value: Tensor) -> None:
    if value.requires_grad:
        raise ValueError(f"{op}: {name} requires grad; expected a constant (detach it)")
