"""Telling those who wait that compiling is what takes the time, and how to have it done ahead."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Iterator

from . import forks

PATIENCE = 2.0  # seconds of compiling in this process before it is told
NOTICE = "jitconv: compiling kernels, once for this machine; `jitconv warmup` does it ahead"
NOTICE_UNKEPT = "jitconv: compiling kernels, in each process anew: no cache folder can be written (see `jitconv info`)"

_lock = threading.Lock()
_seconds = 0.0
_told = False


def _tell(kept: bool) -> None:
    """Print the notice, unless this process has, or is told by JITCONV_QUIET=1 not to.

    To stderr itself: a warning is an error to many test suites, a log record of level INFO is not seen, and one of
    level WARNING rings bells in services.
    """
    global _told
    with _lock:
        told, _told = _told, True
    if not told and os.environ.get("JITCONV_QUIET", "0") in ("", "0") and sys.stderr is not None:
        with contextlib.suppress(OSError, ValueError):  # a stream that is closed
            print(NOTICE if kept else NOTICE_UNKEPT, file=sys.stderr, flush=True)


def keep_quiet() -> None:
    """Tell nothing in this process: it has been asked to compile."""
    global _told
    _told = True


@contextlib.contextmanager
def compiling(kept: bool) -> Iterator[None]:
    """Count the time of a block as compiling, and tell once it is too long; `kept`: whether it is kept on disk."""
    global _seconds
    if _told:
        yield
        return
    start = time.perf_counter()
    timer = threading.Timer(max(0.0, PATIENCE - _seconds), _tell, (kept,))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        with _lock:
            _seconds += time.perf_counter() - start


def _renew_lock() -> None:
    global _lock
    _lock = threading.Lock()


forks.renewed_after_fork(_renew_lock)
