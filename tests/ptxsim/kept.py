"""What is made of PTX in seconds, kept for the next test run: parsing and lowering are Python."""

import functools
import hashlib
import pickle
from collections.abc import Callable
from pathlib import Path

from vdiff_kernels.files import written_whole

from .core_library import cache_folder

_MAKERS = ("parser.py", "lowering.py")
_WORTH_KEEPING = 50_000  # characters of PTX


@functools.cache
def _makers() -> bytes:
    return b"".join(Path(__file__).with_name(name).read_bytes() for name in _MAKERS)


def kept(kind: str, text: str, make: Callable):
    """make(), or what it gave for this text, as long as the sources that made it are what they were."""
    if len(text) < _WORTH_KEEPING:
        return make()
    folder = cache_folder() / "parsed"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / hashlib.sha256(b"\0".join([_makers(), kind.encode(), text.encode()])).hexdigest()[:24]
    try:
        return pickle.loads(path.read_bytes())
    except (FileNotFoundError, EOFError, pickle.UnpicklingError):
        made = make()
        with written_whole(path) as draft:
            draft.write_bytes(pickle.dumps(made, pickle.HIGHEST_PROTOCOL))
        return made
