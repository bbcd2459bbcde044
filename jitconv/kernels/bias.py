"""The gradient of a bias where nothing else reads dy."""

from __future__ import annotations

import numpy as np
from numba import prange

from .jit import kernel, step


@step
def _share(dy, channels_first, db, thread, threads):
    channels = db.size
    begin, end = thread * channels // threads, (thread + 1) * channels // threads
    zero = dy.dtype.type(0)
    if channels_first:
        for c in range(begin, end):
            total = zero
            for n in range(dy.shape[0]):
                # One image at a time, so that the rounding of a large batch stays that of its parts.
                image = zero
                for pixel in range(dy.shape[2]):
                    image += dy[n, c, pixel]
                total += image
            db[c] = total
        return
    block = np.empty(end - begin, dy.dtype)
    for first in range(0, dy.shape[1], 512):
        block[:] = zero
        for pixel in range(first, min(first + 512, dy.shape[1])):
            for c in range(begin, end):
                block[c - begin] += dy[0, pixel, c]
        for c in range(begin, end):
            db[c] = block[c - begin] + (db[c] if first else zero)


@kernel(parallel=True)
def bias_gradient(dy, channels_first, db, threads):
    """Overwrite db (F,) with the sums of dy, (N, F, pixels) or, as one image, (1, pixels, F)."""
    for thread in prange(threads):
        _share(dy, channels_first, db, np.int64(thread), threads)
