"""Files are written whole or not at all: an error, a full disk or a kill leaves what stood there, and no draft."""

import errno
import os
import signal
import subprocess
import sys

import pytest

import vdiff_kernels.files
from vdiff_kernels.files import written_whole


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "film.v1.gif"
    path.write_bytes(b"old")
    return path


def assert_only(path, content):
    assert path.read_bytes() == content
    assert os.listdir(path.parent) == [path.name]


def test_replaces_at_the_end_and_not_before(path):
    with open(path, "rb") as reader:
        with written_whole(path) as draft:
            assert draft.parent == path.parent and draft.suffix == ".gif"  # writers look at the suffix; a rename needs one disk
            draft.write_bytes(b"new")
            assert path.read_bytes() == b"old"
        assert_only(path, b"new")
        assert reader.read() == b"old"  # another file took the name: at no moment was there half of it


@pytest.mark.parametrize("target", ["target.gif", "folder/target.gif", "new.gif", "other.gif"])
def test_a_symbolic_link_stays_and_its_target_is_written(path, target):
    folder = path.parent
    (folder / "folder").mkdir()
    for name in ("target.gif", "folder/target.gif"):
        (folder / name).write_bytes(b"old")
    (folder / "other.gif").symlink_to("folder/target.gif")
    link = folder / "link.gif"
    link.symlink_to(target)
    before = sorted(os.listdir(folder))
    with pytest.raises(KeyboardInterrupt), written_whole(link) as draft:
        draft.write_bytes(b"half")
        raise KeyboardInterrupt
    assert sorted(os.listdir(folder)) == before and os.listdir(folder / "folder") == ["target.gif"]
    with written_whole(link) as draft:
        assert draft.parent == (folder / target).resolve().parent  # a rename needs one disk
        draft.write_bytes(b"new")
    assert os.readlink(link) == target and link.read_bytes() == (folder / target).resolve().read_bytes() == b"new"
    assert (folder / "other.gif").is_symlink() and path.read_bytes() == b"old"


def test_a_new_file_has_the_permissions_of_any_other(tmp_path):
    before = os.umask(0o027)
    try:
        with written_whole(tmp_path / "new.gif") as draft:
            draft.write_bytes(b"new")
        assert os.umask(0o027) == 0o027  # and the umask is as it was
    finally:
        os.umask(before)
    assert (tmp_path / "new.gif").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt(), SystemExit(1)], ids=repr
)
def test_an_error_leaves_the_old_file_and_no_draft(path, error):
    with pytest.raises(type(error)):
        with written_whole(path) as draft:
            draft.write_bytes(b"half")
            raise error
    assert_only(path, b"old")


def test_a_disk_that_is_full_only_at_the_flush(path, monkeypatch):
    """Network file systems and quotas may tell no sooner: the file must be on the disk before it takes the name."""

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        with written_whole(path) as draft:
            draft.write_bytes(b"new")
    assert_only(path, b"old")


def test_a_folder_in_its_place_stays(tmp_path):
    (tmp_path / "film.gif").mkdir()
    with pytest.raises(OSError):
        with written_whole(tmp_path / "film.gif") as draft:
            draft.write_bytes(b"new")
    assert os.listdir(tmp_path) == ["film.gif"] and (tmp_path / "film.gif").is_dir()


def test_killed_while_it_writes(path):
    """kill -9 may leave a draft, never half a file."""
    code = (
        "import os, runpy, signal, sys\n"
        "written_whole = runpy.run_path(sys.argv[1])['written_whole']\n"
        "with written_whole(sys.argv[2]) as draft:\n"
        "    draft.write_bytes(b'half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, vdiff_kernels.files.__file__, str(path)])
    assert done.returncode == -signal.SIGKILL
    assert path.read_bytes() == b"old"
