"""What a fork does to a process that has run kernels: its threads stay behind in the parent.

GNU's OpenMP ends a forked child that starts a parallel loop after its parent has, and other layers may wait for threads
that are not there. Such a child runs the parts of a launch one after the other, which gives the same bits.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from numba import threading_layer
from numba.core.compiler_lock import global_compiler_lock

_forked = False
_left_behind = False
_compiler_held = False


def is_forked() -> bool:
    """Return whether this process began with a fork."""
    return _forked


def threads_left_behind() -> bool:
    """Return whether this process was forked from one in which Numba's threads had been started."""
    return _left_behind


def renewed_after_fork(renew: Callable[[], None]) -> None:
    """Call `renew` in every forked child: a lock that another thread held would stay locked there for good."""
    if hasattr(os, "register_at_fork"):  # not on Windows
        os.register_at_fork(after_in_child=renew)


def _threads_started() -> bool:
    try:
        threading_layer()
    except ValueError:  # Numba: it "is not initialized"
        return False
    return True


def _hold_compiler() -> None:
    """Wait until no other thread compiles: a child must not get a compiler that somebody was in the midst of using."""
    global _compiler_held
    global_compiler_lock.acquire()
    _compiler_held = True


def _release_compiler() -> None:
    global _compiler_held
    if _compiler_held:  # a fork in C, as of uWSGI, calls only what comes after it
        _compiler_held = False
        global_compiler_lock.release()


def _begin_child() -> None:
    global _forked, _left_behind
    _forked, _left_behind = True, _left_behind or _threads_started()
    _release_compiler()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_hold_compiler, after_in_parent=_release_compiler, after_in_child=_begin_child)
