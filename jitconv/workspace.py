"""Memory for scratch and for results: kept from call to call, for each Python thread apart, and bounded."""

from __future__ import annotations

import contextlib
import math
import threading
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .kernels.simd import ALIGNMENT, VECTOR_BYTES

# Memory that is kept has its pages already. More than this is given back after the call.
KEPT_BYTES = 64 * 1024 * 1024

# Results from this size on leave the caches before anyone reads them: they are stored past them, which spares reading
# the lines first. 64 channels of 27 products: 39 cycles a vector through the caches and 32 past them for 16 MB, 34 and
# 32 for 8 MB, the same for 4 MB; and summing the result afterwards takes no longer.
STREAM_BYTES = 8 * 1024 * 1024

# Bytes of a result from which on a cache line's alignment is asked for: it takes 1.5 us, a small convolution 5.
ALIGNED_BYTES = 256 * 1024


_local = threading.local()


def aligned_empty(shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return an uninitialised array that begins on a cache line.

    NumPy aligns to 16 bytes, where every vector store of a tile crosses a line. On Zen 4 that costs nothing that can be
    measured (116.0 and 116.5 GFLOP/s on one thread, 64 channels of 32x32 pixels in NHWC).
    """
    size = math.prod(shape) * dtype.itemsize
    raw = np.empty(size + ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start : start + size].view(dtype).reshape(shape)


def streams(size: int, pitch: int = 0) -> bool:
    """Whether a result of so many bytes is stored past the caches, if its parts, `pitch` bytes apart, are aligned."""
    return size >= STREAM_BYTES and pitch % VECTOR_BYTES == 0


def result(shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return an uninitialised array for a result, aligned to a cache line where that is worth its time.

    Inside `reusing` it lies in memory of the arena.
    """
    size = math.prod(shape) * dtype.itemsize
    if size < ALIGNED_BYTES:
        return np.empty(shape, dtype)
    arena: Arena | None = getattr(_local, "arena", None)
    if arena is None:
        return aligned_empty(shape, dtype)
    return arena.take(size)[:size].view(dtype).reshape(shape)


class Arena:
    """Memory that a network's activations and gradients take again at each step.

    A fresh page costs about as much as the arithmetic of a small layer: 4096 of them for 64 channels of 32x32 pixels
    in a batch of 64, 2 to 3 ms. Blocks that no step has taken since the reset before the last are given back.
    """

    def __init__(self) -> None:
        self._free: list[NDArray[np.uint8]] = []
        self._taken: dict[int, NDArray[np.uint8]] = {}
        self._used: set[int] = set()

    @property
    def bytes(self) -> int:
        """Bytes of all blocks."""
        return sum(block.size for block in (*self._free, *self._taken.values()))

    def take(self, size: int) -> NDArray[np.uint8]:
        """Return a block of at least `size` bytes that nobody has."""
        fitting = [block for block in self._free if block.size >= size]
        if fitting:
            block = min(fitting, key=len)
            self._free = [other for other in self._free if other is not block]
        else:
            block = aligned_empty((size,), np.dtype(np.uint8))
        self._taken[_address(block)] = block
        self._used.add(_address(block))
        return block

    def release(self, array: NDArray[Any]) -> None:
        """Take back the block that an array begins with, if it is one of these."""
        block = self._taken.pop(_address(array), None)
        if block is not None:
            self._free.append(block)

    def owns(self, array: NDArray[Any]) -> bool:
        """Return whether an array begins with a block that has been taken."""
        return _address(array) in self._taken

    def reset(self) -> None:
        """Take back all blocks: what was in them is lost."""
        self._free += self._taken.values()
        self._free = [block for block in self._free if _address(block) in self._used]
        self._taken, self._used = {}, set()


def _address(array: NDArray[Any]) -> int:
    return int(array.__array_interface__["data"][0])


@contextlib.contextmanager
def reusing(arena: Arena | None) -> Iterator[None]:
    """Let `result` take its memory from an arena inside a `with` block, in this Python thread; None: fresh."""
    before = getattr(_local, "arena", None)
    _local.arena = arena
    try:
        yield
    finally:
        _local.arena = before


def arena_in_use() -> Arena | None:
    """Return the arena of the innermost `reusing`."""
    return getattr(_local, "arena", None)


def arena_of(owner: Any) -> Arena:
    """Return the arena of an object in this Python thread; it goes with the object."""
    arenas: weakref.WeakKeyDictionary[Any, Arena] | None = getattr(_local, "arenas", None)
    if arenas is None:
        arenas = _local.arenas = weakref.WeakKeyDictionary()
    if owner not in arenas:
        arenas[owner] = Arena()
    return arenas[owner]


def scratch_bytes() -> int:
    """Return the bytes of scratch that are kept for this Python thread."""
    return sum(held.size for held in _local.__dict__.get("scratch", {}).values())


def scratch(size: int, use: str) -> NDArray[np.uint8]:
    """Return at least `size` bytes of aligned scratch; the next call of this thread with this `use` gets the same."""
    kept: dict[str, NDArray[np.uint8]] = _local.__dict__.setdefault("scratch", {})
    held = kept.get(use)
    if held is not None and held.size >= size:
        return held
    made = aligned_empty((size,), np.dtype(np.uint8))
    if size <= KEPT_BYTES:
        kept[use] = made
    return made
