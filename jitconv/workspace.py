"""Scratch memory: kept from call to call, one for each Python thread, and bounded."""

from __future__ import annotations

import math
import threading
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
    """Return an uninitialised array for a result, aligned to a cache line where that is worth its time."""
    if math.prod(shape) * dtype.itemsize < ALIGNED_BYTES:
        return np.empty(shape, dtype)
    return aligned_empty(shape, dtype)


def scratch(size: int, use: str) -> NDArray[np.uint8]:
    """Return at least `size` bytes of aligned scratch; the next call of this thread with this `use` gets the same."""
    kept: dict[str, NDArray[np.uint8]] = _local.__dict__
    held = kept.get(use)
    if held is not None and held.size >= size:
        return held
    made = aligned_empty((size,), np.dtype(np.uint8))
    if size <= KEPT_BYTES:
        kept[use] = made
    return made
