"""The gradient of a bias where nothing else reads dy."""

from __future__ import annotations

from numba import carray

from .jit import step, worker
from .simd import VECTOR_BYTES, add_rows, load, store, zero_bytes

# Pixels of one partial sum: the rounding error of a large batch stays near that of its blocks.
BLOCK = 1024


@step
def _plane(source, pixels, like):
    """Return the sum of a run of elements, in four sums that are added at the end."""
    size = like.itemsize
    zero = like.dtype.type(0)
    a, b, c, d = zero, zero, zero, zero
    for pixel in range(0, pixels - 3, 4):
        a += load(source + pixel * size, like)
        b += load(source + (pixel + 1) * size, like)
        c += load(source + (pixel + 2) * size, like)
        d += load(source + (pixel + 3) * size, like)
    for pixel in range(pixels // 4 * 4, pixels):
        a += load(source + pixel * size, like)
    return (a + b) + (c + d)


@worker
def bias_gradient(like, arguments, thread, threads):
    """Overwrite db (F,) with the sums of dy, (N, F, pixels) or, as one image, (1, pixels, F).

    Arguments: dy, 1 for the first form, N, F, pixels, db.
    """
    dy, channels_first, images, channels, pixels, db = carray(arguments, 6)
    element = carray(like, 1)
    size = element.itemsize
    if channels_first:
        for c in range(thread * channels // threads, (thread + 1) * channels // threads):
            total = element.dtype.type(0)
            for n in range(images):
                total += _plane(dy + (n * channels + c) * pixels * size, pixels, element)
            store(db + c * size, total, element)
        return
    lanes = VECTOR_BYTES // size
    whole = channels // lanes
    for vector in range(thread * whole // threads, (thread + 1) * whole // threads):
        place = vector * VECTOR_BYTES
        zero_bytes(db + place, VECTOR_BYTES)
        for first in range(0, pixels, BLOCK):
            source = dy + first * channels * size + place
            add_rows(source, channels * size, min(BLOCK, pixels - first), db + place, element)
    if thread == threads - 1:
        for c in range(whole * lanes, channels):
            total = element.dtype.type(0)
            for first in range(0, pixels, BLOCK):
                block = element.dtype.type(0)
                for pixel in range(first, min(first + BLOCK, pixels)):
                    block += load(dy + (pixel * channels + c) * size, element)
                total += block
            store(db + c * size, total, element)
