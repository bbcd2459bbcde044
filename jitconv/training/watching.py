"""The last words of a rank. If a signal kills it they are another process's: not every mpiexec has some."""

from __future__ import annotations

import array
import contextlib
import ctypes
import os
import platform
import signal
import stat
import sys
import time
import warnings

# What launchers call a process's rank and the number of ranks: MPICH and Intel MPI, Open MPI, Slurm.
_LAUNCHERS = (
    ("PMI_RANK", "PMI_SIZE"),
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    ("SLURM_PROCID", "SLURM_NTASKS"),
)
_FORWARDED = (signal.SIGINT, signal.SIGTERM)
_PR_SET_PDEATHSIG = 1
_PATIENCE = 2.0  # seconds


def tell(words: str) -> None:
    """Print to stderr, and wait until the launcher has read it: as ranks end it may leave what it has not read."""
    print(words, file=sys.stderr, flush=True)
    end = time.monotonic() + _PATIENCE
    with contextlib.suppress(OSError, ValueError):  # no file, or none that can be asked
        while _unread(sys.stderr.fileno()) and time.monotonic() < end:
            time.sleep(0.01)


def _unread(descriptor: int) -> int:
    """Return the bytes that wait in a pipe; elsewhere there are none."""
    if sys.platform == "win32" or not stat.S_ISFIFO(os.fstat(descriptor).st_mode):
        return 0
    import fcntl
    import termios

    count = array.array("i", [0])
    fcntl.ioctl(descriptor, termios.FIONREAD, count)
    return count[0]


def watch(command: str) -> None:
    """Go on in a child process if a launcher has started this one as a rank; this one waits, and tells how it ends.

    MPI must not have started. Only on Linux, where the child ends with this process, whatever ends it.
    """
    names = next((names for names in _LAUNCHERS if all(name in os.environ for name in names)), None)
    if names is None or sys.platform != "linux" or "mpi4py.MPI" in sys.modules:
        return
    rank, size = (os.environ[name] for name in names)
    with warnings.catch_warnings():
        # Python warns of threads, which a child does not have. The only ones so far, those of BLAS, start anew in it.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child:
        status, forwarded = _wait(child)
        if os.WIFSIGNALED(status) and os.WTERMSIG(status) not in forwarded:  # else somebody wants the job to end
            tell(f"{command}: error: rank {rank} of {size} on {platform.node()}: {_ended(os.WTERMSIG(status))}")
        code = os.waitstatus_to_exitcode(status)
        os._exit(code if code >= 0 else 128 - code)
    os.setpgrp()  # a signal to the launcher's group comes once, from the process above
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _wait(child: int) -> tuple[int, set[int]]:
    """Return how a child ends, and the signals that it was sent from here: those that came meanwhile."""
    forwarded: set[int] = set()

    def forward(number: int, frame: object) -> None:
        forwarded.add(number)
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, number)

    for number in _FORWARDED:
        signal.signal(number, forward)
    return os.waitpid(child, 0)[1], forwarded


def _ended(number: int) -> str:
    words = f"ended by signal {number} ({signal.strsignal(number)})"
    return f"{words}, as by the system when memory is out" if number == signal.SIGKILL else words
