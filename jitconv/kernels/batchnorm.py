"""Kernels of batch normalisation: two passes over memory forward, two backward.

Activations come flat, as (outer, C, inner): NCHW is (N, C, H*W), where a channel's run of `inner` elements
is contiguous; NHWC is (N*H*W, C, 1), where a row of channels is. Sums are taken over blocks whose size
depends on the shape alone, one plane or `rows` rows, and added up over the blocks in order afterwards: their
bits do not depend on the number of threads.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from .jit import kernel, step

LANES = 64  # partial sums of one plane: an addition of floats waits four cycles for the one before it


@step
def _add_lanes(x, shift, square, lanes):
    """Return the sum of (x - shift), or of its square.  x (n,); lanes (LANES,) overwritten."""
    zero = x.dtype.type(0)
    for j in range(LANES):
        lanes[j] = zero
    for start in range(0, x.size, LANES):
        run = x[start : start + LANES]
        for j in range(run.size):
            value = run[j] - shift
            lanes[j] += value * value if square else value
    total = zero
    for j in range(LANES):
        total += lanes[j]
    return total


@step
def _add_product_lanes(dy, x, shift, lanes):
    """Return the sum of dy * (x - shift).  dy, x (n,); lanes (LANES,) overwritten."""
    zero = x.dtype.type(0)
    for j in range(LANES):
        lanes[j] = zero
    for start in range(0, x.size, LANES):
        run, dy_run = x[start : start + LANES], dy[start : start + LANES]
        for j in range(run.size):
            lanes[j] += dy_run[j] * (run[j] - shift)
    total = zero
    for j in range(LANES):
        total += lanes[j]
    return total


@step
def _block_moments(x, mean, scatter):
    """Fill mean and scatter (sum of squared distances from it) of rows.  x (rows * C,); the others (C,)."""
    channels = mean.size
    zero = x.dtype.type(0)
    count = x.dtype.type(x.size // channels)
    for c in range(channels):
        mean[c] = zero
        scatter[c] = zero
    for start in range(0, x.size, channels):
        row = x[start : start + channels]
        for c in range(row.size):
            mean[c] += row[c]
    for c in range(channels):
        mean[c] /= count
    for start in range(0, x.size, channels):
        row = x[start : start + channels]
        for c in range(row.size):
            value = row[c] - mean[c]
            scatter[c] += value * value


@step
def _block_sums(dy, x, mean, total, product):
    """Fill the sums of dy and of dy * (x - mean) over rows.  dy, x (rows * C,); the others (C,)."""
    zero = x.dtype.type(0)
    for c in range(mean.size):
        total[c] = zero
        product[c] = zero
    for start in range(0, x.size, mean.size):
        row, dy_row = x[start : start + mean.size], dy[start : start + mean.size]
        for c in range(row.size):
            total[c] += dy_row[c]
            product[c] += dy_row[c] * (row[c] - mean[c])


@kernel(parallel=True)
def moments(x, inner, rows, lanes, partial, threads):
    """Fill partial (blocks, 2, C) with each block's mean and scatter about it.

    inner > 1: block n is image n, of `inner` values a channel. inner == 1: block b is `rows` rows, from
    b * rows. lanes (threads, LANES) is scratch.
    """
    blocks, _, channels = partial.shape
    units = blocks * channels if inner > 1 else blocks
    for i in prange(threads):
        part = np.int64(i)
        for unit in range(units * part // threads, units * (part + 1) // threads):
            if inner > 1:
                plane = x[unit * inner : (unit + 1) * inner]
                zero = x.dtype.type(0)
                mean = _add_lanes(plane, zero, False, lanes[part]) / x.dtype.type(inner)
                partial[unit // channels, 0, unit % channels] = mean
                partial[unit // channels, 1, unit % channels] = _add_lanes(plane, mean, True, lanes[part])
            else:
                size = rows * channels
                block = x[unit * size : (unit + 1) * size]
                _block_moments(block, partial[unit, 0], partial[unit, 1])


@kernel(parallel=True)
def gradient_sums(dy, x, mean, inner, rows, lanes, partial, threads):
    """Fill partial (blocks, 2, C) with each block's sums of dy and of dy * (x - mean), as in `moments`."""
    blocks, _, channels = partial.shape
    units = blocks * channels if inner > 1 else blocks
    for i in prange(threads):
        part = np.int64(i)
        for unit in range(units * part // threads, units * (part + 1) // threads):
            if inner > 1:
                n, c = unit // channels, unit % channels
                plane, dy_plane = x[unit * inner : (unit + 1) * inner], dy[unit * inner : (unit + 1) * inner]
                partial[n, 0, c] = _add_lanes(dy_plane, x.dtype.type(0), False, lanes[part])
                partial[n, 1, c] = _add_product_lanes(dy_plane, plane, mean[c], lanes[part])
            else:
                start, stop = unit * rows * channels, (unit + 1) * rows * channels
                _block_sums(dy[start:stop], x[start:stop], mean, partial[unit, 0], partial[unit, 1])


@step
def _scale_plane(x, mean, scale, shift, y):
    for i in range(x.size):
        y[i] = (x[i] - mean) * scale + shift


@step
def _scale_row(x, mean, scale, shift, y):
    for c in range(x.size):
        y[c] = (x[c] - mean[c]) * scale[c] + shift[c]


@kernel(parallel=True)
def normalise(x, mean, scale, shift, inner, y, threads):
    """Fill y with (x - mean) * scale + shift.  x, y (outer * C * inner,); the others (C,); y overwritten."""
    channels = mean.size
    width = inner if inner > 1 else channels
    runs = x.size // width
    for i in prange(threads):
        part = np.int64(i)
        for run in range(runs * part // threads, runs * (part + 1) // threads):
            x_run, y_run = x[run * width : (run + 1) * width], y[run * width : (run + 1) * width]
            if inner > 1:
                c = run % channels
                _scale_plane(x_run, mean[c], scale[c], shift[c], y_run)
            else:
                _scale_row(x_run, mean, scale, shift, y_run)


@step
def _slope_plane(dy, x, mean, scale, level, slope, dx):
    for i in range(x.size):
        dx[i] = (dy[i] - level - (x[i] - mean) * slope) * scale


@step
def _slope_row(dy, x, mean, scale, level, slope, dx):
    for c in range(x.size):
        dx[c] = (dy[c] - level[c] - (x[c] - mean[c]) * slope[c]) * scale[c]


@kernel(parallel=True)
def normalise_backward(dy, x, mean, scale, level, slope, inner, dx, threads):
    """Fill dx with (dy - level - (x - mean) * slope) * scale.  Shapes as in `normalise`; dx overwritten."""
    channels = mean.size
    width = inner if inner > 1 else channels
    runs = x.size // width
    for i in prange(threads):
        part = np.int64(i)
        for run in range(runs * part // threads, runs * (part + 1) // threads):
            start, stop = run * width, (run + 1) * width
            if inner > 1:
                c = run % channels
                _slope_plane(dy[start:stop], x[start:stop], mean[c], scale[c], level[c], slope[c], dx[start:stop])
            else:
                _slope_row(dy[start:stop], x[start:stop], mean, scale, level, slope, dx[start:stop])
