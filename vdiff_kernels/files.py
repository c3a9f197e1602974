"""Files that are written whole or not at all."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path


def cached(name: str) -> Path:
    """Where a file of this package is kept between runs: $XDG_CACHE_HOME/vdiff_kernels, ~/.cache where that is not set."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vdiff_kernels" / name


def written_path(path: str | os.PathLike) -> Path:
    """Where a file written to `path` lies: where the symbolic link that stands there leads, or path itself."""
    path = Path(path)
    return Path(os.path.realpath(path)) if path.is_symlink() else path


@contextlib.contextmanager
def written_whole(path: str | os.PathLike) -> Iterator[Path]:
    """A file to write in the folder of `path`, with its suffix, which becomes `path` when the block ends without an error.

    What stood at `path` stays until then, and for good where the block raises: also at Ctrl-C and on a full disk. A symbolic link
    stays, and its target becomes the file.
    """
    path = written_path(path)
    descriptor, name = tempfile.mkstemp(prefix=f".{path.stem}.", suffix=path.suffix, dir=path.parent)
    os.close(descriptor)
    draft = Path(name)
    try:
        yield draft
        with open(draft, "rb") as written:
            os.fsync(written.fileno())
        umask = os.umask(0)
        os.umask(umask)
        draft.chmod(0o666 & ~umask)  # mkstemp's are its owner's alone
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)
