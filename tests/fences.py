"""Arrays with forbidden ground on both sides.

`Poisoned` surrounds each array with bytes of 0xFF: NaN when read as a float, -1 when read as an index. What a
kernel reads there spoils its result, and `check` finds what it writes there. Its scratch is poisoned inside
as well. `Protected` puts each array against a page that may not be touched: one byte read too far, even if
its value is never used, ends the process.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import mmap

import numpy as np

from jitconv import workspace

MARGIN = 512  # bytes, several of the widest vectors


class Poisoned:
    """Allocates arrays inside poisoned memory."""

    def __init__(self):
        self._memory = []

    def _array(self, shape, dtype, offset):
        size = math.prod(np.atleast_1d(shape).tolist()) * dtype.itemsize
        memory = np.full(offset + size + 2 * MARGIN, 0xFF, np.uint8)
        start = MARGIN - memory.ctypes.data % 64 + offset
        self._memory.append((memory, start, start + size))
        return memory[start : start + size].view(dtype).reshape(shape)

    def empty(self, shape, dtype=float):
        """Return an array as numpy.empty does, aligned to one element only."""
        dtype = np.dtype(dtype)
        return self._array(shape, dtype, (1 + len(self._memory) % 7) * dtype.itemsize)

    def aligned_empty(self, shape, dtype):
        """Return an array as workspace.aligned_empty does."""
        return self._array(shape, dtype, 0)

    def check(self):
        """Assert that nothing outside the arrays was written."""
        for memory, start, stop in self._memory:
            assert (memory[:start] == 0xFF).all(), "written before an array"
            assert (memory[stop:] == 0xFF).all(), "written past an array"


class Protected:
    """Allocates arrays that end (or start) where a protected page starts (or ends)."""

    def __init__(self, side):
        self._side = side
        self._mprotect = ctypes.CDLL(None, use_errno=True).mprotect
        self._mprotect.argtypes = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int

    def _array(self, shape, dtype, alignment):
        size = math.prod(np.atleast_1d(shape).tolist()) * dtype.itemsize
        page = mmap.PAGESIZE
        inside = -(-size // page) * page
        memory = mmap.mmap(-1, inside + 2 * page)
        address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        for edge in (address, address + page + inside):
            if self._mprotect(edge, page, 0):
                raise OSError(ctypes.get_errno(), "mprotect failed")
        start = page + (inside - size) // alignment * alignment * (self._side == "end")
        return np.frombuffer(memory, np.uint8, size, start).view(dtype).reshape(shape)

    def empty(self, shape, dtype=float):
        """Return an array as numpy.empty does, aligned to one element only."""
        dtype = np.dtype(dtype)
        return self._array(shape, dtype, dtype.itemsize)

    def aligned_empty(self, shape, dtype):
        """Return an array as workspace.aligned_empty does; up to 63 bytes behind it are not protected."""
        return self._array(shape, dtype, 64)


def placed(fence, a):
    """Return a copy of `a` inside a fence (None stays None)."""
    if a is None:
        return None
    copy = fence.empty(a.shape, a.dtype)
    copy[...] = a
    return copy


@contextlib.contextmanager
def allocating_in(fence):
    """Let results and scratch come from `fence`. No kernel may compile meanwhile: Numba needs numpy.empty."""

    def zeros(shape, dtype=float):
        a = fence.empty(shape, dtype)
        a[...] = 0
        return a

    replaced = {
        (np, "empty"): fence.empty,
        (np, "zeros"): zeros,
        (np, "empty_like"): lambda a: fence.empty(a.shape, a.dtype),
        (np, "zeros_like"): lambda a: zeros(a.shape, a.dtype),
        (workspace, "aligned_empty"): fence.aligned_empty,
    }
    before = {place: getattr(*place) for place in replaced}
    workspace._local.__dict__.clear()  # what was kept from earlier calls
    try:
        for place, function in replaced.items():
            setattr(*place, function)
        yield
    finally:
        for place, function in before.items():
            setattr(*place, function)
        workspace._local.__dict__.clear()
