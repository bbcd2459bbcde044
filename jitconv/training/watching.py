"""Telling which rank a signal has killed, and which signal: the rank itself cannot, and not every mpiexec does."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import signal
import sys
import warnings

# What launchers call a process's rank and the number of ranks: MPICH and Intel MPI, Open MPI, Slurm.
_LAUNCHERS = (
    ("PMI_RANK", "PMI_SIZE"),
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    ("SLURM_PROCID", "SLURM_NTASKS"),
)
_FORWARDED = (signal.SIGINT, signal.SIGTERM)
_PR_SET_PDEATHSIG = 1


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
        status = _wait(child)
        if os.WIFSIGNALED(status):
            print(
                f"{command}: error: rank {rank} of {size} on {platform.node()}: {_ended(os.WTERMSIG(status))}",
                file=sys.stderr,
                flush=True,
            )
        code = os.waitstatus_to_exitcode(status)
        os._exit(code if code >= 0 else 128 - code)
    os.setpgrp()  # a signal to the launcher's group comes once, from the process above
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _wait(child: int) -> int:
    """Return how a child ends; it gets the signals meanwhile."""

    def forward(number: int, frame: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, number)

    for number in _FORWARDED:
        signal.signal(number, forward)
    return os.waitpid(child, 0)[1]


def _ended(number: int) -> str:
    words = f"ended by signal {number} ({signal.strsignal(number)})"
    return f"{words}, as by the system when memory is out" if number == signal.SIGKILL else words
