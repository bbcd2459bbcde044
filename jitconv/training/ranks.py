"""The ranks of an MPI job: what they are to each other, and what they tell each other besides gradients."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable, Iterable, Mapping
from fractions import Fraction
from types import ModuleType
from typing import Any, NamedTuple, TypeVar

import numpy as np

from .. import threads
from ..ahead import cores
from ..layers.base import Array
from .extras import needs_extra

Result = TypeVar("Result")

_PATIENCE = 0.01  # seconds between two looks at a request: a rank that waits must not take the core of one that works


def mpi() -> ModuleType:
    """Return mpi4py's module, whose import starts MPI.

    Raises
    ------
    ImportError
        If mpi4py is not installed, or finds no MPI library.
    """
    try:
        with needs_extra("mpi4py", "several ranks", "mpi"):
            from mpi4py import MPI
    except RuntimeError as error:  # its wheels bring no MPI library
        raise ImportError(f"several ranks need an MPI library: pip install mpich ({error})") from error
    return MPI


@functools.cache
def _key() -> int:
    """Return the key under which a communicator keeps its `Ranks`."""
    return int(mpi().Comm.Create_keyval())


class Share(NamedTuple):
    """A rank's images of a batch: those from `first` to before `past`, of `total`."""

    first: int
    past: int
    total: int


def share_of(total: int, rank: int, size: int) -> Share:
    """Return the images of a rank: as many as any other, or one more for the first ranks."""
    each, more = divmod(total, size)
    return Share(rank * each + min(rank, more), (rank + 1) * each + min(rank + 1, more), total)


class Ranks:
    """The processes of a communicator. All of them call its methods alike, and all get the same result.

    Parameters
    ----------
    communicator : mpi4py.MPI.Comm
        It is duplicated: messages here and messages of others do not meet. `of` does so once for all.

    Attributes
    ----------
    rank, size : int
        The number of this process, from 0, and that of all.
    communicator : mpi4py.MPI.Comm
        The duplicate.
    """

    def __init__(self, communicator: Any) -> None:
        self.mpi = mpi()
        self.communicator = communicator.Dup()
        self.rank, self.size = int(communicator.rank), int(communicator.size)
        self._node = self.communicator.Split_type(self.mpi.COMM_TYPE_SHARED)

    @classmethod
    def of(cls, communicator: Any) -> Ranks:
        """Return the ranks of a communicator, the same ones each time: MPI has some 2,000 communicators to give."""
        key = _key()
        found: Ranks | None = communicator.Get_attr(key)
        if found is None:
            found = cls(communicator)
            communicator.Set_attr(key, found)
        return found

    def share(self, total: int) -> Share:
        """Return which of a batch of so many images are this rank's."""
        return share_of(total, self.rank, self.size)

    def add_up(self, a: Array) -> None:
        """Overwrite an array with its sum over all ranks."""
        self.communicator.Allreduce(self.mpi.IN_PLACE, a)

    def any(self, asked: bool) -> bool:
        """Return whether any rank asks."""
        flag = np.array([asked], np.int32)
        self.communicator.Allreduce(self.mpi.IN_PLACE, flag, op=self.mpi.MAX)
        return bool(flag[0])

    def of_first(self, value: Result) -> Result:
        """Return what the first rank has given."""
        answer: Result = self.communicator.bcast(value)
        return answer

    def shares(self, images: int) -> Share:
        """Return which images of a batch are this rank's, if the ranks have so many each."""
        counts = np.zeros(self.size, np.int64)
        counts[self.rank] = images
        self.add_up(counts)
        first = int(counts[: self.rank].sum())
        return Share(first, first + images, int(counts.sum()))

    def overwrite(self, arrays: Iterable[Array]) -> None:
        """Overwrite arrays with those of the first rank."""
        for a in arrays:
            told = a.flatten()
            self.communicator.Bcast(told)
            a[...] = told.reshape(a.shape)

    def average(self, arrays: Iterable[Array]) -> None:
        """Overwrite arrays of floats with their means over the ranks."""
        for a in arrays:
            mean = a.astype(np.float64)
            self.add_up(mean)
            a[...] = mean / self.size

    def same(self, facts: Mapping[str, Any]) -> None:
        """Refuse ranks that do not agree on what they are about to do.

        Raises
        ------
        ValueError
            In every rank, with the name of the first fact that differs.
        """
        everyone: list[Mapping[str, Any]] = self.communicator.allgather(dict(facts))
        for name in facts:
            for rank, told in enumerate(everyone):
                if told[name] != everyone[0][name]:
                    raise ValueError(
                        f"the ranks do not agree on {name}: rank {rank} has {told[name]}, rank 0 {everyone[0][name]}"
                    )

    def once_on_each_node(self, run: Callable[[], None], *, kept: bool) -> None:
        """Let the first rank of each node run something before the others go on; all, if nothing of it is kept."""
        kept = self._node.bcast(kept)
        if self._node.rank == 0 or not kept:
            run()
        request = self._node.Ibarrier()
        while not request.Test():
            time.sleep(_PATIENCE)  # in the barrier itself a rank would spin on a core

    def threads(self) -> int:
        """Return how many threads this rank may use so that a node's ranks together have no more than its cores.

        A core that several ranks may run on is shared out among them.
        """
        own = _cores()
        everyone: list[set[int]] = self._node.allgather(own)
        share = sum(Fraction(1, sum(core in others for others in everyone)) for core in own)
        return max(1, min(int(share), threads.available_threads()))


def _cores() -> set[int]:
    """Return the numbers of the cores that this process may run on."""
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(cores()))
