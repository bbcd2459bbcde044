"""How many threads a call uses, and which threading layer carries them.

Numba owns the threads; this module decides only over how many parts a call is split. Nothing here changes
Numba's settings, so another library in the process sees its own.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.metadata
import threading
from collections.abc import Iterator

import numba
from numba.core import config

from . import validate

_chosen: int | None = None
_local = threading.local()


def available_threads() -> int:
    """Return the most threads that a call may use: Numba's NUMBA_NUM_THREADS."""
    return int(config.NUMBA_NUM_THREADS)


def get_num_threads() -> int:
    """Return the number of threads that a call from this thread uses."""
    return chosen_threads() or min(available_threads(), int(numba.get_num_threads()))


def chosen_threads() -> int | None:
    """Return the number of threads that `num_threads` or `set_num_threads` has asked for, None if neither has."""
    return getattr(_local, "threads", None) or _chosen


def set_num_threads(n: int) -> None:
    """Use `n` threads in every call from now on, in all Python threads. Results do not depend on it.

    Raises
    ------
    TypeError, ValueError
        If `n` is not an integer from 1 to the number that Numba was started with (NUMBA_NUM_THREADS).
    """
    global _chosen
    _chosen = validate.thread_count(n, available_threads())


@contextlib.contextmanager
def num_threads(n: int) -> Iterator[None]:
    """Use `n` threads inside a `with` block, in this Python thread only.

    Raises
    ------
    TypeError, ValueError
        As `set_num_threads`.
    """
    before = getattr(_local, "threads", None)
    _local.threads = validate.thread_count(n, available_threads())
    try:
        yield
    finally:
        _local.threads = before


def preload_tbb() -> None:
    """Load the libtbb that pip installed, which lies outside the loader's path, so that Numba finds it."""
    try:
        files = importlib.metadata.files("tbb") or []
    except importlib.metadata.PackageNotFoundError:
        return
    for file in files:
        if file.name in ("libtbb.so.12", "tbb12.dll"):
            with contextlib.suppress(OSError):  # a broken file: Numba goes on to its next layer
                ctypes.CDLL(str(file.locate()))
            return


preload_tbb()
