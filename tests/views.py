"""Arrays of the same values with other memory layouts, as callers have them."""

from __future__ import annotations

import numpy as np


class Labelled(np.ndarray):
    """A subclass of ndarray, as libraries on top of NumPy have them."""


def read_only(a):
    a = a.copy()
    a.flags.writeable = False
    return a


def reversed_axes(a):
    """Return a view with a negative stride on every axis."""
    backwards = (slice(None, None, -1),) * a.ndim
    return np.ascontiguousarray(a[backwards])[backwards]


def every_second(a):
    """Return a view of a larger array, whose other elements are NaN (99 where there is none)."""
    larger = np.full([2 * size for size in a.shape], np.nan if a.dtype.kind == "f" else 99, a.dtype)
    view = larger[(slice(None, None, 2),) * a.ndim]
    view[...] = a
    return view


def moved_axes(a):
    """Return the view of an array that lies in memory with its second axis last: NCHW kept as NHWC."""
    return np.moveaxis(np.ascontiguousarray(np.moveaxis(a, min(1, a.ndim - 1), -1)), -1, min(1, a.ndim - 1))


def unaligned(a):
    memory = np.zeros(a.nbytes + 1, np.uint8)
    view = memory[1:].view(a.dtype).reshape(a.shape)
    view[...] = a
    return view


VIEWS = {
    "Fortran order": np.asfortranarray,
    "negative strides": reversed_axes,
    "every second element": every_second,
    "moved axes": moved_axes,
    "read-only": read_only,
    "read-only view": lambda a: read_only(every_second(a)),
    "unaligned": unaligned,
    "subclass": lambda a: a.view(Labelled),
}
