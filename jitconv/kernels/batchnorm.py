"""Kernels of batch normalisation: two passes over memory forward, two backward.

Activations in NCHW are (N, C, L) with L = H*W, planes; in NHWC they are (R, C) with R = N*H*W, rows. Sums are taken
over blocks whose size depends on the shape alone, a plane or some rows, and added up over the blocks in order
afterwards: their bits do not depend on the number of threads. Means are sums of differences from the block's first
value: those of a constant channel are exact, and its variance is zero.

With `relu` 1 a ReLU follows in the same store; the backward passes then take dy where the saved output y is above zero
(or NaN). With `relu` 0 they never read y, whose address may be that of any array.
"""

from __future__ import annotations

from numba import carray

from .jit import inlined, step, worker
from .views import floats

LANES = 64  # partial sums of one plane: an addition of floats waits four cycles for the one before it


@inlined
def _rows(thread, threads, rows):
    return rows * thread // threads, rows * (thread + 1) // threads


@step
def _total(lanes):
    """Return the sum of LANES partial sums, which it overwrites: halves are added to halves."""
    for j in range(32):
        lanes[j] += lanes[32 + j]
    for j in range(16):
        lanes[j] += lanes[16 + j]
    for j in range(8):
        lanes[j] += lanes[8 + j]
    for j in range(4):
        lanes[j] += lanes[4 + j]
    return (lanes[0] + lanes[1]) + (lanes[2] + lanes[3])


# Forward: moments


@step
def _sum(x, shift, lanes):
    """Return the sum of x - shift.  x (n,); lanes (LANES,) overwritten."""
    for j in range(LANES):
        lanes[j] = 0
    whole = x.size // LANES * LANES
    for start in range(0, whole, LANES):
        for j in range(LANES):
            lanes[j] += x[start + j] - shift
    for j in range(x.size - whole):
        lanes[j] += x[whole + j] - shift
    return _total(lanes)


@step
def _square_sum(x, shift, lanes):
    """Return the sum of the squares of x - shift.  As `_sum`."""
    for j in range(LANES):
        lanes[j] = 0
    whole = x.size // LANES * LANES
    for start in range(0, whole, LANES):
        for j in range(LANES):
            value = x[start + j] - shift
            lanes[j] += value * value
    for j in range(x.size - whole):
        value = x[whole + j] - shift
        lanes[j] += value * value
    return _total(lanes)


@worker
def moments_nchw(like, arguments, thread, threads):
    """Fill partial (N, 2, C) with each plane's mean and scatter about it.

    Arguments: x (N, C, L), partial, lanes (threads, LANES), scratch; N, C, L.
    """
    a = carray(arguments, 6)
    channels, inner = a[4], a[5]
    x, partial = floats(a[0], (a[3] * channels, inner), like), floats(a[1], (a[3], 2, channels), like)
    lanes = floats(a[2], (threads, LANES), like)[thread]
    first, past = _rows(thread, threads, x.shape[0])
    for row in range(first, past):
        n, c = row // channels, row % channels
        mean = x[row, 0] + _sum(x[row], x[row, 0], lanes) / x.dtype.type(inner)
        partial[n, 0, c] = mean
        partial[n, 1, c] = _square_sum(x[row], mean, lanes)


@step
def _block_moments(x, mean, scatter):
    """Fill mean and scatter of the rows of x.  x (rows, C); the others (C,)."""
    first = x[0]
    for c in range(mean.size):
        mean[c] = 0
        scatter[c] = 0
    for r in range(x.shape[0]):
        row = x[r]
        for c in range(row.size):
            mean[c] += row[c] - first[c]
    count = x.dtype.type(x.shape[0])
    for c in range(mean.size):
        mean[c] = first[c] + mean[c] / count
    for r in range(x.shape[0]):
        row = x[r]
        for c in range(row.size):
            value = row[c] - mean[c]
            scatter[c] += value * value


@worker
def moments_nhwc(like, arguments, thread, threads):
    """Fill partial (blocks, 2, C) with the mean of each block of rows and the scatter about it.

    Arguments: x (R, C), partial; blocks, rows of a block, R, C.
    """
    a = carray(arguments, 6)
    blocks, rows, channels = a[2], a[3], a[5]
    x, partial = floats(a[0], (a[4], channels), like), floats(a[1], (blocks, 2, channels), like)
    first, past = _rows(thread, threads, blocks)
    for block in range(first, past):
        _block_moments(x[block * rows : (block + 1) * rows], partial[block, 0], partial[block, 1])


# Forward: the result


@step
def _scale_plane(x, mean, scale, shift, relu, y):
    zero = x.dtype.type(0)
    if relu:
        for i in range(x.size):
            value = (x[i] - mean) * scale + shift
            y[i] = zero if value < zero else value
    else:
        for i in range(x.size):
            y[i] = (x[i] - mean) * scale + shift


@worker
def normalise_nchw(like, arguments, thread, threads):
    """Fill y with (x - mean) * scale + shift.

    Arguments: x (N, C, L), mean, scale, shift (C,), y, overwritten; N, C, L, relu.
    """
    a = carray(arguments, 9)
    channels, inner = a[6], a[7]
    x, y = floats(a[0], (a[5] * channels, inner), like), floats(a[4], (a[5] * channels, inner), like)
    mean, scale, shift = (
        floats(a[1], (channels,), like),
        floats(a[2], (channels,), like),
        floats(a[3], (channels,), like),
    )
    first, past = _rows(thread, threads, x.shape[0])
    for row in range(first, past):
        c = row % channels
        _scale_plane(x[row], mean[c], scale[c], shift[c], a[8] != 0, y[row])


@step
def _scale_rows(x, mean, scale, shift, relu, y):
    zero = x.dtype.type(0)
    if relu:
        for r in range(x.shape[0]):
            row, y_row = x[r], y[r]
            for c in range(row.size):
                value = (row[c] - mean[c]) * scale[c] + shift[c]
                y_row[c] = zero if value < zero else value
    else:
        for r in range(x.shape[0]):
            row, y_row = x[r], y[r]
            for c in range(row.size):
                y_row[c] = (row[c] - mean[c]) * scale[c] + shift[c]


@worker
def normalise_nhwc(like, arguments, thread, threads):
    """As `normalise_nchw`. Arguments: x (R, C), mean, scale, shift (C,), y, overwritten; R, C, relu."""
    a = carray(arguments, 8)
    channels = a[6]
    x, y = floats(a[0], (a[5], channels), like), floats(a[4], (a[5], channels), like)
    mean, scale, shift = (
        floats(a[1], (channels,), like),
        floats(a[2], (channels,), like),
        floats(a[3], (channels,), like),
    )
    first, past = _rows(thread, threads, x.shape[0])
    _scale_rows(x[first:past], mean, scale, shift, a[7] != 0, y[first:past])


# Backward: sums


@step
def _plane_sums(dy, x, shift, lanes, products):
    """Fill lanes and products (LANES,) with partial sums of dy and of dy * (x - shift)."""
    for j in range(LANES):
        lanes[j] = 0
        products[j] = 0
    whole = x.size // LANES * LANES
    for start in range(0, whole, LANES):
        for j in range(LANES):
            lanes[j] += dy[start + j]
            products[j] += dy[start + j] * (x[start + j] - shift)
    for j in range(x.size - whole):
        lanes[j] += dy[whole + j]
        products[j] += dy[whole + j] * (x[whole + j] - shift)


@step
def _plane_sums_relu(dy, x, y, shift, lanes, products):
    """As `_plane_sums`, of dy where y is above zero."""
    zero = x.dtype.type(0)
    for j in range(LANES):
        lanes[j] = 0
        products[j] = 0
    whole = x.size // LANES * LANES
    for start in range(0, whole, LANES):
        for j in range(LANES):
            slope = zero if y[start + j] <= zero else dy[start + j]
            lanes[j] += slope
            products[j] += slope * (x[start + j] - shift)
    for j in range(x.size - whole):
        slope = zero if y[whole + j] <= zero else dy[whole + j]
        lanes[j] += slope
        products[j] += slope * (x[whole + j] - shift)


@worker
def gradient_sums_nchw(like, arguments, thread, threads):
    """Fill partial (N, 2, C) with each plane's sums of dy and of dy * (x - mean).

    Arguments: dy, x, y (N, C, L), mean (C,), partial, lanes (threads, 2, LANES), scratch; N, C, L, relu.
    """
    a = carray(arguments, 10)
    channels, inner = a[7], a[8]
    planes = a[6] * channels
    dy, x, y = (
        floats(a[0], (planes, inner), like),
        floats(a[1], (planes, inner), like),
        floats(a[2], (planes, inner), like),
    )
    mean, partial = floats(a[3], (channels,), like), floats(a[4], (a[6], 2, channels), like)
    lanes = floats(a[5], (threads, 2, LANES), like)[thread]
    first, past = _rows(thread, threads, planes)
    for row in range(first, past):
        n, c = row // channels, row % channels
        if a[9]:
            _plane_sums_relu(dy[row], x[row], y[row], mean[c], lanes[0], lanes[1])
        else:
            _plane_sums(dy[row], x[row], mean[c], lanes[0], lanes[1])
        partial[n, 0, c] = _total(lanes[0])
        partial[n, 1, c] = _total(lanes[1])


@step
def _block_sums(dy, x, y, mean, relu, total, product):
    """Fill the sums of dy and of dy * (x - mean) over rows.  dy, x, y (rows, C); the others (C,)."""
    zero = x.dtype.type(0)
    for c in range(mean.size):
        total[c] = 0
        product[c] = 0
    if relu:
        for r in range(x.shape[0]):
            row, dy_row, y_row = x[r], dy[r], y[r]
            for c in range(row.size):
                slope = zero if y_row[c] <= zero else dy_row[c]
                total[c] += slope
                product[c] += slope * (row[c] - mean[c])
    else:
        for r in range(x.shape[0]):
            row, dy_row = x[r], dy[r]
            for c in range(row.size):
                total[c] += dy_row[c]
                product[c] += dy_row[c] * (row[c] - mean[c])


@worker
def gradient_sums_nhwc(like, arguments, thread, threads):
    """As `gradient_sums_nchw`, of blocks of rows.

    Arguments: dy, x, y (R, C), mean (C,), partial (blocks, 2, C); blocks, rows of a block, R, C, relu.
    """
    a = carray(arguments, 10)
    blocks, rows, count, channels = a[5], a[6], a[7], a[8]
    dy, x, y = (
        floats(a[0], (count, channels), like),
        floats(a[1], (count, channels), like),
        floats(a[2], (count, channels), like),
    )
    mean, partial = floats(a[3], (channels,), like), floats(a[4], (blocks, 2, channels), like)
    first, past = _rows(thread, threads, blocks)
    for block in range(first, past):
        start, stop = block * rows, (block + 1) * rows
        sums = partial[block]
        _block_sums(dy[start:stop], x[start:stop], y[start:stop], mean, a[9] != 0, sums[0], sums[1])


# Backward: dx


@step
def _slope_plane(dy, x, y, mean, scale, level, slope, relu, dx):
    zero = x.dtype.type(0)
    if relu:
        for i in range(x.size):
            gradient = zero if y[i] <= zero else dy[i]
            dx[i] = (gradient - level - (x[i] - mean) * slope) * scale
    else:
        for i in range(x.size):
            dx[i] = (dy[i] - level - (x[i] - mean) * slope) * scale


@worker
def normalise_backward_nchw(like, arguments, thread, threads):
    """Fill dx with (dy - level - (x - mean) * slope) * scale.

    Arguments: dy, x, y (N, C, L), mean, scale, level, slope (C,), dx, overwritten; N, C, L, relu.
    """
    a = carray(arguments, 12)
    channels, inner = a[9], a[10]
    planes = a[8] * channels
    dy, x, y = (
        floats(a[0], (planes, inner), like),
        floats(a[1], (planes, inner), like),
        floats(a[2], (planes, inner), like),
    )
    mean, scale = floats(a[3], (channels,), like), floats(a[4], (channels,), like)
    level, slope = floats(a[5], (channels,), like), floats(a[6], (channels,), like)
    dx = floats(a[7], (planes, inner), like)
    first, past = _rows(thread, threads, planes)
    for row in range(first, past):
        c = row % channels
        _slope_plane(dy[row], x[row], y[row], mean[c], scale[c], level[c], slope[c], a[11] != 0, dx[row])


@step
def _slope_rows(dy, x, y, mean, scale, level, slope, relu, dx):
    zero = x.dtype.type(0)
    if relu:
        for r in range(x.shape[0]):
            row, dy_row, y_row, dx_row = x[r], dy[r], y[r], dx[r]
            for c in range(row.size):
                gradient = zero if y_row[c] <= zero else dy_row[c]
                dx_row[c] = (gradient - level[c] - (row[c] - mean[c]) * slope[c]) * scale[c]
    else:
        for r in range(x.shape[0]):
            row, dy_row, dx_row = x[r], dy[r], dx[r]
            for c in range(row.size):
                dx_row[c] = (dy_row[c] - level[c] - (row[c] - mean[c]) * slope[c]) * scale[c]


@worker
def normalise_backward_nhwc(like, arguments, thread, threads):
    """As `normalise_backward_nchw`.

    Arguments: dy, x, y (R, C), mean, scale, level, slope (C,), dx, overwritten; R, C, relu.
    """
    a = carray(arguments, 11)
    count, channels = a[8], a[9]
    dy, x, y = (
        floats(a[0], (count, channels), like),
        floats(a[1], (count, channels), like),
        floats(a[2], (count, channels), like),
    )
    mean, scale = floats(a[3], (channels,), like), floats(a[4], (channels,), like)
    level, slope = floats(a[5], (channels,), like), floats(a[6], (channels,), like)
    dx = floats(a[7], (count, channels), like)
    first, past = _rows(thread, threads, count)
    part = slice(first, past)
    _slope_rows(dy[part], x[part], y[part], mean, scale, level, slope, a[10] != 0, dx[part])
