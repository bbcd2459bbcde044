"""Pooling of whole images, forward and backward.

NCHW arrays come as (P, L): P = N*C planes of L = H*W pixels; NHWC arrays as (N, L, C). Each output has one
owner and a fixed order of summation, so no bit of a result depends on the number of threads.

Sums are kept in float64 and in blocks: BLOCK pixels of a channel at a time, then the sum of the blocks. For
float32 data the average is then exact but for its last rounding; for float64 the error grows with L / BLOCK +
BLOCK instead of L.
"""

from __future__ import annotations

import numpy as np
from numba import carray

from .jit import inlined, step, worker
from .views import float64s, floats, int64s, uint64s
from .windows import share

BLOCK = 128
LANES = 64  # running sums of a plane, side by side: eight AVX-512 vectors of float64
LINE = 16  # channels: a cache line of float32, the least that a thread takes of an image


@inlined
def _channel_range(unit, blocks, channels):
    """Return the image and the half-open range of its channels that are unit number `unit`."""
    lines = (channels + LINE - 1) // LINE
    n, block = unit // blocks, unit % blocks
    first, past = share(block, blocks, lines)
    return n, first * LINE, min(channels, past * LINE)


@inlined
def _channel_blocks(images, channels, threads):
    """Return into how many blocks of channels an image is cut, so that few images still use all threads."""
    lines = (channels + LINE - 1) // LINE
    return max(1, min(lines, (4 * threads + images - 1) // max(1, images)))


@inlined
def beats(value, best):
    return (not value <= best) & (best == best)


@step
def challenge(x, tap, best, index):
    for i in range(best.size):
        wins = beats(x[i], best[i])
        best[i] = x[i] if wins else best[i]
        index[i] = index.dtype.type(tap) if wins else index[i]


# Average


@worker
def global_avg_nchw(like, arguments, thread, threads):
    """Average each plane. Arguments: x (P, L), y (P,), overwritten; scratch (threads, LANES) of float64; P, L."""
    a = carray(arguments, 5)
    x, y = floats(a[0], (a[3], a[4]), like), floats(a[1], (a[3],), like)
    lanes = float64s(a[2], (threads, LANES))[thread]
    first, past = share(thread, threads, y.size)
    for p in range(first, past):
        y[p] = _plane_sum(x[p], lanes) / x.shape[1]


@step
def _plane_sum(x, lanes):
    total = 0.0
    for start in range(0, x.size, LANES * BLOCK):
        block = x[start : start + LANES * BLOCK]
        for j in range(LANES):
            lanes[j] = 0.0
        groups = block.size // LANES
        for i in range(groups):
            group = block[i * LANES : (i + 1) * LANES]
            for j in range(LANES):
                lanes[j] += group[j]
        rest = block[groups * LANES :]
        for j in range(rest.size):
            lanes[j] += rest[j]
        width = LANES // 2
        while width > 0:
            for j in range(width):
                lanes[j] += lanes[j + width]
            width //= 2
        total += lanes[0]
    return total


@worker
def global_avg_nhwc(like, arguments, thread, threads):
    """Average each channel of each image. Arguments: x (N, L, C), y (N, C), overwritten; scratch (threads, 2, C)
    of float64; N, L, C.
    """
    a = carray(arguments, 6)
    x, y = floats(a[0], (a[3], a[4], a[5]), like), floats(a[1], (a[3], a[5]), like)
    sums = float64s(a[2], (threads, 2, a[5]))[thread]
    blocks = _channel_blocks(a[3], a[5], threads)
    first, past = share(thread, threads, a[3] * blocks)
    for unit in range(first, past):
        n, c0, c1 = _channel_range(unit, blocks, a[5])
        total = sums[1, c0:c1]
        _channel_sums(x[n], c0, c1, sums[0, c0:c1], total)
        for c in range(total.size):
            y[n, c0 + c] = total[c] / x.shape[1]


@step
def _channel_sums(x, c0, c1, block, total):
    for c in range(total.size):
        total[c] = 0.0
    for start in range(0, x.shape[0], BLOCK):
        for c in range(block.size):
            block[c] = 0.0
        for pixel in range(start, min(start + BLOCK, x.shape[0])):
            values = x[pixel, c0:c1]
            for c in range(block.size):
                block[c] += values[c]
        for c in range(total.size):
            total[c] += block[c]


@worker
def global_avg_backward_nchw(like, arguments, thread, threads):
    """Spread dy evenly over each plane. Arguments: dy (P,), dx (P, L), overwritten; P, L."""
    a = carray(arguments, 4)
    dy, dx = floats(a[0], (a[2],), like), floats(a[1], (a[2], a[3]), like)
    first, past = share(thread, threads, dx.size)
    while first < past:
        p = first // dx.shape[1]
        row = dx[p, first - p * dx.shape[1] :][: past - first]
        even = dy[p] / dy.dtype.type(dx.shape[1])
        for i in range(row.size):
            row[i] = even
        first += row.size


@worker
def global_avg_backward_nhwc(like, arguments, thread, threads):
    """Spread dy evenly over each image. Arguments: dy (N, C), dx (N, L, C), overwritten; N, L, C."""
    a = carray(arguments, 5)
    dy, dx = floats(a[0], (a[2], a[4]), like), floats(a[1], (a[2], a[3], a[4]), like)
    first, past = share(thread, threads, dx.shape[0] * dx.shape[1])
    by = dy.dtype.type(dx.shape[1])
    for row in range(first, past):
        n = row // dx.shape[1]
        pixel, gradient = dx[n, row - n * dx.shape[1]], dy[n]
        for c in range(pixel.size):
            pixel[c] = gradient[c] / by


# Maximum


@worker
def global_max_nchw(like, arguments, thread, threads):
    """Take the maximum of each plane. Arguments: x (P, L), y (P,) and argmax (P,) of uint64, overwritten; scratch
    (threads, LANES); P, L.
    """
    a = carray(arguments, 6)
    x, y, argmax = floats(a[0], (a[4], a[5]), like), floats(a[1], (a[4],), like), uint64s(a[2], (a[4],))
    lanes = floats(a[3], (threads, LANES), like)[thread]
    first, past = share(thread, threads, y.size)
    for p in range(first, past):
        at = _plane_argmax(x[p], lanes)
        y[p] = x[p, at]
        argmax[p] = at


@step
def _plane_argmax(x, lanes):
    """Find the block that holds the maximum with LANES maxima side by side, then the pixel in that block."""
    best, found = x[0], 0
    for start in range(0, x.size, LANES * BLOCK):
        block = x[start : start + LANES * BLOCK]
        top = _block_max(block, lanes)
        if beats(top, best):
            best, found = top, start
    block = x[found : found + LANES * BLOCK]
    for i in range(block.size):
        if block[i] == best or (block[i] != block[i] and best != best):
            return found + i
    return np.int64(0)


@step
def _block_max(block, lanes):
    for j in range(LANES):
        lanes[j] = block[0]
    groups = block.size // LANES
    for i in range(groups):
        group = block[i * LANES : (i + 1) * LANES]
        for j in range(LANES):
            lanes[j] = group[j] if beats(group[j], lanes[j]) else lanes[j]
    rest = block[groups * LANES :]
    for j in range(rest.size):
        lanes[j] = rest[j] if beats(rest[j], lanes[j]) else lanes[j]
    best = lanes[0]
    for j in range(1, LANES):
        best = lanes[j] if beats(lanes[j], best) else best
    return best


@worker
def global_max_nhwc(like, arguments, thread, threads):
    """Take the maximum of each channel of each image. Arguments: x (N, L, C), y (N, C) and argmax (N, C) of uint64,
    overwritten; N, L, C.
    """
    a = carray(arguments, 6)
    x, y, argmax = floats(a[0], (a[3], a[4], a[5]), like), floats(a[1], (a[3], a[5]), like), uint64s(a[2], (a[3], a[5]))
    blocks = _channel_blocks(a[3], a[5], threads)
    first, past = share(thread, threads, a[3] * blocks)
    for unit in range(first, past):
        n, c0, c1 = _channel_range(unit, blocks, a[5])
        best, index = y[n, c0:c1], argmax[n, c0:c1]
        for c in range(best.size):
            best[c] = x[n, 0, c0 + c]
            index[c] = 0
        for pixel in range(1, x.shape[1]):
            challenge(x[n, pixel, c0:c1], pixel, best, index)


@worker
def global_max_backward_nchw(like, arguments, thread, threads):
    """Put dy at the argmax of each plane. Arguments: dy (P,), argmax (P,) of uint64, dx (P, L), overwritten; bad
    (threads,), the number of bad entries; P, L.
    """
    a = carray(arguments, 6)
    dy, argmax, dx = floats(a[0], (a[4],), like), uint64s(a[1], (a[4],)), floats(a[2], (a[4], a[5]), like)
    bad = int64s(a[3], (threads,))
    first, past = share(thread, threads, dy.size)
    bad[thread] = _put_in_planes(dy[first:past], argmax[first:past], dx[first:past])


@step
def _put_in_planes(dy, argmax, dx):
    bad = 0
    for p in range(dy.size):
        plane, at = dx[p], np.uint64(argmax[p])
        for i in range(plane.size):
            plane[i] = 0
        if at < np.uint64(plane.size):
            plane[at] = dy[p]
        else:
            bad += 1
    return bad


@worker
def global_max_backward_nhwc(like, arguments, thread, threads):
    """Put dy at the argmax of each channel. Arguments: dy (N, C), argmax (N, C) of uint64, dx (N, L, C), overwritten;
    bad (threads,), the number of bad entries; N, L, C.
    """
    a = carray(arguments, 7)
    dy, argmax = floats(a[0], (a[4], a[6]), like), uint64s(a[1], (a[4], a[6]))
    dx, bad = floats(a[2], (a[4], a[5], a[6]), like), int64s(a[3], (threads,))
    first, past = share(thread, threads, dx.shape[0] * dx.shape[1])
    bad[thread] = _put_in_images(dy, argmax, first, past, dx)


@step
def _put_in_images(dy, argmax, first, past, dx):
    """Fill the pixels [first, past) of all images' pixels, and return the number of bad entries."""
    bad, pixels = 0, dx.shape[1]
    while first < past:
        n = first // pixels
        image = dx[n, first - n * pixels :][: past - first]
        offset = first - n * pixels
        flat = image.reshape(image.size)
        for i in range(flat.size):
            flat[i] = 0
        for c in range(dy.shape[1]):
            at = np.uint64(argmax[n, c])
            if at >= np.uint64(pixels):
                bad += offset == 0
            elif offset <= np.int64(at) < offset + image.shape[0]:
                image[np.int64(at) - offset, c] = dy[n, c]
        first += image.shape[0]
    return bad
