"""``jitconv train`` with a fault in one rank: ``failing.py FAULT RANK STEP ARGUMENT...``."""

from __future__ import annotations

import os
import signal
import sys

from jitconv.cli import main
from jitconv.training.parallel import DataParallel


def kill():
    os.kill(os.getpid(), signal.SIGKILL)


def exhaust():
    raise MemoryError("no room")


def crash():
    raise ZeroDivisionError("a fault\nof two lines")


def leave():
    os._exit(7)


FAULTS = {"kill": kill, "exhaust": exhaust, "crash": crash, "leave": leave}


def install(fault, rank, step):
    """Let the fault happen in a rank, in place of a step counted from 1."""
    take, taken = DataParallel.step_of, []

    def faulty(self, *arguments):
        taken.append(None)
        if len(taken) == step and self.ranks.rank == rank:
            fault()
        return take(self, *arguments)

    DataParallel.step_of = faulty


if __name__ == "__main__":
    install(FAULTS[sys.argv[1]], int(sys.argv[2]), int(sys.argv[3]))
    sys.exit(main(sys.argv[4:]))
