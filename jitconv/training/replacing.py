"""Writing a file whole or not at all: in another folder first, from which it then takes the place of the old file."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import pathlib
import platform
import shutil
from collections.abc import Iterator

_PART = ".part"


def _begin(path: pathlib.Path) -> str:
    """Return how the names of `_folder` begin: hosts may share a disk, and each numbers its own processes."""
    return f".{path.name}.{hashlib.sha256(platform.node().encode()).hexdigest()[:8]}."


def _folder(path: pathlib.Path) -> pathlib.Path:
    """Return the folder beside a file in which this process writes it: its writer may make files of its own as well."""
    return path.with_name(f"{_begin(path)}{os.getpid()}{_PART}")


def check_writable(path: str | pathlib.Path) -> None:
    """Raise OSError if a file of this name could not be written. Nothing of that name changes."""
    target = pathlib.Path(os.path.realpath(path))
    _remove_leftovers(target)
    folder = _folder(target)
    folder.mkdir()
    folder.rmdir()


@contextlib.contextmanager
def replacing(path: str | pathlib.Path) -> Iterator[pathlib.Path]:
    """Give a `with` block another name to write a file under, which takes the place of `path` if there is no error.

    It is on the disk, not only in the system's memory, before it takes the place of an older file: after a loss of
    power there is the old one or the new one. What processes that were killed in such a block left behind is removed.

    Raises
    ------
    OSError
        If the file cannot be written.
    """
    target = pathlib.Path(os.path.realpath(path))
    folder = _folder(target)
    _remove_leftovers(target)
    folder.mkdir()
    try:
        part = folder / target.name
        part.touch()
        mode = part.stat().st_mode
        yield part
        part.chmod(mode)  # the user's own, whatever the block's writer chose
        _to_disk(part, os.O_RDWR)
        os.replace(part, target)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if os.name == "posix":  # elsewhere a folder cannot be opened
        with contextlib.suppress(OSError):  # there is a whole file in any case, the old one or the new one
            _to_disk(target.parent, os.O_RDONLY)


def _remove_leftovers(path: pathlib.Path) -> None:
    """Remove the folders of processes of this host that run no more, and that of another process of this number."""
    begin = _begin(path)
    with contextlib.suppress(OSError):  # a folder whose names cannot be read
        for name in os.listdir(path.parent):
            process = name.removeprefix(begin).removesuffix(_PART)
            if name == f"{begin}{process}{_PART}" and process.isdecimal() and not _runs(int(process)):
                shutil.rmtree(path.with_name(name), ignore_errors=True)


def _runs(process: int) -> bool:
    """Return whether another process of this number runs, or may run."""
    if process == os.getpid():
        return False
    if os.name != "posix":  # where asking would end it
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # another user's; more than the number of a process can be
        return True
    return True


def _to_disk(path: pathlib.Path, flags: int) -> None:
    """Return when a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # a file system that cannot tell
            raise
    finally:
        os.close(descriptor)
