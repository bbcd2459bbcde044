"""The processes that run one ``jitconv train``: this one alone, or the ranks that mpiexec has started.

Ranks end together. What all of them find wrong is told once, as if there were one; what happens to one rank alone is
told with its number, and ends the others at once, wherever they are.
"""

from __future__ import annotations

import contextlib
import io
import os
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from . import ranks
from .watching import tell, watch

OPTION = "--data-parallel"
_COMMAND = "jitconv train"

# Seconds for which a rank that fails waits for the others to fail as well, each rank a little longer than the one
# before: the first to give up tells, and ends the others.
PATIENCE, STAGGER, MOST_STAGGERED = 2.0, 0.25, 16

Result = TypeVar("Result")


class Job:
    """This process alone."""

    communicator: Any = None
    size = 1
    first = True

    def run(self, work: Callable[[], int]) -> int:
        """Return what work returns, in all ranks."""
        return work()

    def of_first(self, make: Callable[[], Result]) -> Result:
        """Return what a function returns, or raise what it raises, in the first rank, where alone it is called."""
        return make()

    def any(self, asked: bool) -> bool:
        """Return whether any rank asks."""
        return asked

    def threads(self) -> int | None:
        """Return this rank's share of its node's cores, None for all of them."""
        return None


class RankedJob(Job):
    """The ranks of MPI's world."""

    def __init__(self) -> None:
        self._mpi = ranks.mpi()
        self.communicator = self._mpi.COMM_WORLD
        self._ranks = ranks.Ranks.of(self.communicator)
        self._failures = self.communicator.Dup()  # for those who have left the others' sequence of messages
        self.size, self.rank = self._ranks.size, self._ranks.rank
        self.first = self.rank == 0

    def of_first(self, make: Callable[[], Result]) -> Result:
        """As of `Job`."""
        made: list[Result] = []
        error: Exception | None = None
        if self.first:
            try:
                made.append(make())
            except Exception as raised:  # whatever it is, the other ranks wait to hear of it
                error = raised
        made, error = self._ranks.of_first((made, error))
        if error is not None:
            raise error
        return made[0]

    def any(self, asked: bool) -> bool:
        """As of `Job`."""
        return self._ranks.any(asked)

    def threads(self) -> int | None:
        """As of `Job`."""
        return self._ranks.threads()

    def run(self, work: Callable[[], int]) -> int:
        """As of `Job`. If work raises, the first rank alone does so if all do; if not all do, the job ends here."""
        try:
            return work()
        except BaseException as error:
            told = self._of_all(_words(error))
            if told is None:
                tell(f"{_COMMAND}: error: {self._name}: {_words(error)}")
                self.communicator.Abort(_status(error))
                os._exit(_status(error))  # MPI's call may return, before mpiexec ends this process too
            elif not self.first:
                raise SystemExit(_status(error)) from None
            elif len(set(told)) > 1:
                others = sum(words != told[0] for words in told)
                error.args = (f"{self._name}: {_words(error)} (and {others} other ranks for other reasons)",)
            raise

    @property
    def _name(self) -> str:
        return f"rank {self.rank} of {self.size} on {platform.node()}"

    def _of_all(self, words: str) -> list[str] | None:
        """Return why each rank fails, None if some rank does not within the time."""
        request = self._failures.Ibarrier()
        end = time.monotonic() + PATIENCE + STAGGER * min(self.rank, MOST_STAGGERED)
        while not request.Test():
            if time.monotonic() > end:
                return None
            time.sleep(0.01)  # the others need the cores
        told: list[str] = self._failures.allgather(words)
        return told


def _status(error: BaseException) -> int:
    """Return the exit status that the command has for an error."""
    if isinstance(error, KeyboardInterrupt):
        return 130
    return int(getattr(error, "status", 2 if isinstance(error, ImportError) else 1))


def _words(error: BaseException) -> str:
    """Return an error in one line; of one that nobody foresaw, its kind and where it was raised."""
    if hasattr(error, "status"):
        return str(error)
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    at = error.__traceback__
    while at is not None and at.tb_next is not None:
        at = at.tb_next
    where = f" ({os.path.basename(at.tb_frame.f_code.co_filename)}, line {at.tb_lineno})" if at is not None else ""
    return " ".join(f"{type(error).__name__}: {error}{where}".split())


@contextlib.contextmanager
def told_once(arguments: Sequence[str]) -> Iterator[None]:
    """Let the first rank alone print inside a `with` block, if these arguments of the command ask for ranks.

    It is where MPI starts.
    """
    if OPTION in arguments:
        watch(_COMMAND)  # before MPI starts
    try:
        silent = OPTION in arguments and ranks.mpi().COMM_WORLD.rank != 0
    except ImportError:  # which `RankedJob` tells
        silent = False
    with contextlib.ExitStack() as stack:
        if silent:
            stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
            stack.enter_context(contextlib.redirect_stderr(io.StringIO()))
        yield
