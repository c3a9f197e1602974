"""What the commands refuse, as errors that `app` prints in one line; the options and checks that they share."""

import contextlib
from collections.abc import Iterable, Iterator

import typer

from ..backends.registry import BACKENDS, availability, preferred


class Refusal(Exception):
    exit_code = 2

    def format_message(self) -> str:
        return str(self)


@contextlib.contextmanager
def refusing(argument: str = "") -> Iterator[None]:
    """Turns what the library refuses into a Refusal, headed by the argument where the message does not name it."""
    try:
        yield
    except (ValueError, OSError) as error:
        raise Refusal(f"{argument}: {reason(error)}" if argument else reason(error)) from None


def reason(error: Exception) -> str:
    """What an error says, without the number of an OSError."""
    if not isinstance(error, OSError) or error.strerror is None:
        return str(error)
    return error.strerror if error.filename is None else f"{str(error.filename)!r}: {error.strerror}"


def number(option: str, low: float, high: float, **kwargs):
    """An option of a number from low to high: a whole one where these are."""
    kind, words = (int, "a whole number") if isinstance(low, int) else (float, "a number")

    def parse(text) -> int | float:
        with contextlib.suppress(ValueError):
            value = kind(text)
            if low <= value <= high:  # not so for nan
                return value
        raise Refusal(f"{option} is {str(text)!r}; expected {words} from {low} to {high}")

    return typer.Option(option, metavar="N" if kind is int else "X", parser=parse, **kwargs)


def choice(option: str, allowed: Iterable[str], **kwargs):
    def parse(text: str) -> str:
        if text not in allowed:
            raise Refusal(f"{option} is {text!r}; expected one of {', '.join(map(repr, allowed))}")
        return text

    return typer.Option(option, metavar="|".join(allowed), parser=parse, **kwargs)


BACKEND_OPTION = choice("--backend", BACKENDS, show_default="the fastest here", help="What computes the layers.")


def backend_that_runs(name: str | None) -> str:
    """The backend of --backend name, or auto's. Refuses one that cannot run here."""
    if name is not None and not availability(name):
        usable = ", ".join(repr(other) for other in BACKENDS if availability(other))
        raise Refusal(f"--backend is {name!r}, which cannot run here: {availability(name).reason}; expected one of {usable}")
    with refusing("--backend" if name else ""):
        return name or preferred("cpu")


def described(backend: str) -> str:
    """The backend that ran, in words; with the reason where it is not the fast one."""
    words = {"reference": "eager PyTorch", "composed": "PyTorch's library calls"}.get(backend, "the compiled library")
    native = availability("cpu")
    return f"{backend} ({words})" + ("" if native else f", as {native}")
