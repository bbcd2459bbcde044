"""The sum of gradients over the ranks of a communicator, begun while the backward pass still runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from ..layers.base import Array, Layer
from ..workspace import aligned_empty
from .ranks import Ranks
from .sequential import Sequential
from .steps import KNOWN, Step, leaves_of

# Between two ranks of one machine a sum takes 3 us, and 110 us more for each MiB: 64 KiB would do there. A cluster's 10
# to 50 us are some per cent of what it takes for 1 MiB: 0.1 ms at 10 GB/s, 1 ms at 1 GB/s. Models of less have one
# bucket: there is little to hide.
BUCKET_BYTES = 1 << 20

_ALIGNMENT = 64  # bytes: a gradient begins on a cache line, as it does by itself


class _Bucket(NamedTuple):
    """Gradients that are summed as one."""

    memory: Array  # one axis, all of them
    last: Layer  # the one whose backward pass completes them


class _Place(NamedTuple):
    """A gradient, and whose it is."""

    layer: Layer
    name: str
    gradient: Array

    @property
    def room(self) -> int:
        """Elements that it takes in a bucket."""
        lines = -(-self.gradient.nbytes // _ALIGNMENT)
        return lines * _ALIGNMENT // self.gradient.itemsize


class GradientSum:
    """The sum of a network's gradients over the ranks, in place, in buckets.

    Gradients of this library's layers move next to each other, in the order in which the backward pass completes them.
    A bucket's sum is begun as soon as all its gradients are complete, and goes on while earlier layers compute theirs.
    Those of other layers are summed where they lie, each by itself.

    The order of summation is MPI's: it does not depend on when a sum is begun or looked at.

    Parameters
    ----------
    model : Layer
    ranks : Ranks
    bucket_bytes : int
        A bucket is closed when it has so many.
    overlap : bool
        False: nothing is begun before `wait`, to see what that costs.
    """

    def __init__(self, model: Layer, ranks: Ranks, *, bucket_bytes: int = BUCKET_BYTES, overlap: bool = True) -> None:
        self._ranks, self._overlap = ranks, overlap
        layers = leaves_of([model], Sequential)
        self.buckets = _buckets(layers, bucket_bytes)
        self._begun = 0  # buckets of the step under way
        self._complete: set[int] = set()  # its layers, by id
        self._requests: list[Any] = []

    def begin(self, memory: Array) -> None:
        """Begin to overwrite an array with its sum over the ranks, done after `wait`."""
        communicator, here = self._ranks.communicator, self._ranks.mpi.IN_PLACE
        self._requests.append(communicator.Iallreduce(here, memory))

    def completed(self, step: Step) -> None:
        """Begin what the gradients of a step complete; the backward pass tells.

        MPI moves data only while it is called: looking at what was begun takes it a stage further. Of a step of
        vgg_cifar in two ranks of one thread, 82 ms, 0.4 to 1.3 are spent waiting, and 1.2 to 1.4 without looking. A
        thread that calls MPI meanwhile would spin on a core on which a rank computes.
        """
        if not self._overlap:
            return
        self._complete.update(map(id, step.layers))
        while self._begun < len(self.buckets) and id(self.buckets[self._begun].last) in self._complete:
            self._begin_next()
        self._ranks.mpi.Request.Testall(self._requests)

    def wait(self) -> None:
        """Begin what is left, and return when all sums are there."""
        while self._begun < len(self.buckets):
            self._begin_next()
        self._ranks.mpi.Request.Waitall(self._requests)
        self._begun = 0
        self._complete.clear()
        self._requests.clear()

    def _begin_next(self) -> None:
        self.begin(self.buckets[self._begun].memory)
        self._begun += 1


def _buckets(layers: Sequence[Layer], bucket_bytes: int) -> list[_Bucket]:
    """Return the buckets of layers, the last layer's first."""
    buckets: list[_Bucket] = []
    places: list[_Place] = []

    def close() -> None:
        if places:
            buckets.append(_side_by_side(places))
            places.clear()

    for layer in reversed(layers):
        for name, gradient in layer.gradients.items():
            if type(layer) not in KNOWN:  # it may hold on to its arrays
                close()
                buckets.append(_Bucket(gradient.reshape(-1), layer))
                continue
            if places and places[0].gradient.dtype != gradient.dtype:
                close()
            places.append(_Place(layer, name, gradient))
        if sum(place.gradient.nbytes for place in places) >= bucket_bytes:
            close()
    close()
    return buckets


def _side_by_side(places: Sequence[_Place]) -> _Bucket:
    memory = aligned_empty((sum(place.room for place in places),), places[0].gradient.dtype)
    memory[...] = 0
    start = 0
    for place in places:
        stop = start + place.gradient.size
        place.layer.move_gradient(place.name, memory[start:stop].reshape(place.gradient.shape))
        start += place.room
    return _Bucket(memory, places[-1].layer)
