"""Compiling kernels before they are needed, in processes of their own: of one process, Numba compiles in one thread.

The processes put what they compile into the cache, from which it is loaded afterwards. They are plain interpreters with
the same module path, fed through a pipe: nothing of the user's program runs in them, whether or not it has a `__main__`
guard, and a daemon of multiprocessing may start them as well.
"""

from __future__ import annotations

import collections
import contextlib
import importlib
import os
import pathlib
import pkgutil
import subprocess
import sys
import threading
from collections.abc import Iterable
from typing import Any

import numpy as np
from numba.core import config

from . import kernels, validate
from .kernels import waiting
from .kernels.cache import cache_folder, cache_problem
from .kernels.jit import WORKERS, Job, Worker, compile_launchers

BOTH = "both"
MOST_PROCESSES = 8  # each takes 330 MB

# Those that take longest come first, so that none of them is left for the end: seconds, of one core of Zen 4.
_SECONDS = {
    "winograd_weights.winograd_weights": 8.7,
    "weights.correlate_weights": 5.0,
    "correlate.correlate": 4.9,
    "winograd.winograd": 4.5,
    "max_pooling.argmax_pool_nchw": 3.1,
    "max_pooling.wide_argmax_pool_nchw": 2.9,
    "max_pooling.max_pool_nchw": 2.7,
    "depthwise.groups_of_16_nchw": 2.5,
    "max_pooling_backward.max_pool_backward_nchw": 2.2,
    "max_pooling.argmax_pool_nhwc": 2.2,
    "planes.planes": 1.9,
}
# Kernels of one layout say so at the end of their names, but for these.
_NCHW = (
    "columns.im2col",
    "columns.col2im",
    "depthwise_planes.depthwise_planes",
    "depthwise_planes.depthwise_planes_weights",
    "planes.planes",
    "planes_data.planes_data",
    "planes_weights.planes_weights",
    "planes_weights.reduce_planes",
)

_CHILD = "import sys; sys.path[:] = {path!r}; from jitconv.ahead import serve; serve()"
_DONE = "jitconv compiled"


def every_worker() -> dict[str, Worker]:
    """Return all workers by name, also those of modules that nothing has imported yet."""
    for module in pkgutil.iter_modules(kernels.__path__):
        importlib.import_module(f"{kernels.__name__}.{module.name}")
    return WORKERS


def layout_of(worker: Worker) -> str | None:
    """Return the only layout that a worker serves, None if it serves both."""
    if worker.name in _NCHW:
        return "NCHW"
    suffix = worker.name.rpartition("_")[2].upper()
    return suffix if suffix in ("NCHW", "NHWC") else None


def warmup(dtype: Any = BOTH, layout: str = BOTH) -> list[str]:
    """Compile all kernels of the library ahead, in several processes, and keep them on disk.

    Otherwise each is compiled at the first call that needs it, on this machine. What is on disk already is left alone.

    Parameters
    ----------
    dtype : float32, float64 or "both"
        Of the arrays.
    layout : {"NCHW", "NHWC", "both"}
        Kernels of the other layout alone are left out.

    Returns
    -------
    list of str
        What was compiled, as "kernel dtype".

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit.
    OSError
        If no cache folder can be written: nothing would be kept.
    """
    dtypes = ("float32", "float64") if isinstance(dtype, str) and dtype == BOTH else (validate.float_dtype(dtype).name,)
    layout = validate.choice(layout, "layout", ("NCHW", "NHWC", BOTH))
    chosen = [one for one in every_worker().values() if layout == BOTH or layout_of(one) in (None, layout)]
    return compile_kept((worker, np.dtype(name).char) for worker in chosen for name in dtypes)


def compile_kept(jobs: Iterable[Job]) -> list[str]:
    """As `compile_all`, for those who want the code to be kept on disk: OSError if it cannot be."""
    problem = cache_problem()
    if problem is not None:
        folder = cache_folder()
        raise OSError(f"{folder} {problem}" if folder else problem)
    waiting.keep_quiet()
    jobs = list(jobs)
    compiled = compile_all(jobs)
    for char in {char for _, char in jobs}:
        compile_launchers(np.dtype(char))
    return compiled


def compile_all(jobs: Iterable[Job], *, apart: bool = False) -> list[str]:
    """Compile each worker for its dtype, unless it is on disk, and load it; return what was compiled.

    With `apart`, in other processes even where that is no faster: LLVM, once it has begun, keeps Ctrl-C waiting, up to
    9 s for a kernel; a process can be ended.
    """
    if config.DISABLE_JIT:
        return []
    missing = [job for job in jobs if not job[0].load(np.dtype(job[1]))]
    faster = len(missing) > 1 and cores() > 1
    if (faster or (apart and missing)) and _can_start() and cache_problem() is None:
        with waiting.compiling(kept=True):
            _compile_in_processes(missing)
    for worker, char in missing:
        worker.address(np.dtype(char))  # from the disk; where a process failed it is compiled here
    return [f"{worker.name} {np.dtype(char).name}" for worker, char in missing]


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _can_start() -> bool:
    """Return whether `sys.executable` is a Python; in a frozen program it would start that program anew."""
    name = pathlib.Path(sys.executable or "").name.lower()
    return name.startswith("python") and not getattr(sys, "frozen", False)


def _compile_in_processes(jobs: list[Job]) -> None:
    """Let processes take workers one after the other, the longest first, each worker with all its dtypes.

    Two processes must not compile the same worker: both would write its index of dtypes.
    """
    chars: dict[str, list[str]] = {}
    for worker, char in jobs:
        chars.setdefault(worker.name, []).append(char)
    names = sorted(chars, key=lambda name: -_SECONDS.get(name, 0.0))
    left = collections.deque(" ".join([name, *chars[name]]) for name in names)
    processes: list[subprocess.Popen[str]] = []
    threads: list[threading.Thread] = []
    try:
        # Where no more processes or threads can be started, those that were do the work, or this process does.
        with contextlib.suppress(OSError, RuntimeError):
            for _ in range(min(cores(), MOST_PROCESSES, len(left))):
                processes.append(_start())
                thread = threading.Thread(target=_feed, args=(processes[-1], left), daemon=True)
                thread.start()
                threads.append(thread)
        for thread in threads:
            thread.join()
    finally:
        left.clear()
        for process in processes:
            process.kill()
        for thread in threads:
            thread.join()
        for process in processes:
            with contextlib.suppress(OSError), process:  # closes its pipes
                pass


def _start() -> subprocess.Popen[str]:
    folder = {"NUMBA_CACHE_DIR": config.CACHE_DIR} if config.CACHE_DIR else {}
    return subprocess.Popen(
        [sys.executable, "-c", _CHILD.format(path=sys.path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=os.environ | folder | {"JITCONV_QUIET": "1"},
        start_new_session=True,  # Ctrl-C is for this process, which ends them
    )


def _feed(process: Any, left: collections.deque[str]) -> None:
    """Give a process one line after the other, until none is left or the process ends."""
    with contextlib.suppress(IndexError, OSError, ValueError):
        while True:
            process.stdin.write(left.popleft() + "\n")
            process.stdin.flush()
            if not any(line.strip() == _DONE for line in process.stdout):
                return


def serve() -> None:
    """Compile what the lines of stdin name, and answer each."""
    workers = every_worker()
    for line in sys.stdin:
        name, *chars = line.split()
        for char in chars:
            workers[name].address(np.dtype(char))
        print(_DONE, flush=True)
