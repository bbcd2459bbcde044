"""Pooling of whole images, forward and backward.

NCHW arrays come as (P, L): P = N*C planes of L = H*W pixels; NHWC arrays as (N, L, C). Each output has one
owner and a fixed order of summation, so no bit of a result depends on the number of threads.

Sums are kept in float64 and in blocks: for float32 data the average is then exact but for its last rounding; for
float64 the error grows with L / BLOCK + BLOCK instead of L.
"""

from __future__ import annotations

import numpy as np
from numba import carray

from .global_tiles import (
    BLOCK,
    PIXELS,
    add_pixels,
    challenge_pixels,
    first_of,
    load_place,
    run_max,
    run_sum,
)
from .jit import inlined, step, worker
from .simd import copy_bytes, load, store, zero_bytes
from .views import float64s, floats, int64s, uint64s
from .windows import share

RUN = 64 * BLOCK  # elements of a plane, at least 16 side by side: a first-level cache of float32
LINE = 64  # channels that are read together, the least that a thread takes of an image
COPIED_BYTES = 16 * 1024  # of what is repeated, half a first-level cache


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


# Average


@worker
def global_avg_nchw(like, arguments, thread, threads):
    """Average each plane. Arguments: x (P, L), y (P,), overwritten; P, L."""
    x, y, planes, pixels = carray(arguments, 4)
    one = carray(like, 1)
    first, past = share(thread, threads, planes)
    for p in range(first, past):
        total = 0.0
        for start in range(0, pixels, RUN):
            total += run_sum(x + (p * pixels + start) * one.itemsize, min(RUN, pixels - start), one)
        store(y + p * one.itemsize, one.dtype.type(total / pixels), one)


@worker
def global_avg_nhwc(like, arguments, thread, threads):
    """Average each channel of each image. Arguments: x (N, L, C), y (N, C), overwritten; scratch of `threads` times two
    rows of float64; its bytes for a row; N, L, C.

    Pixels are read as they lie, and the sums of all channels stay in a first-level cache: with the sums of some
    channels in registers each pixel is a short run, which no prefetcher follows.
    """
    x, y, scratch, row, images, pixels, channels = carray(arguments, 7)
    one = carray(like, 1)
    pixel = channels * one.itemsize
    block_sums = scratch + 2 * thread * row
    sums = block_sums + row
    totals = float64s(sums, (channels,))
    blocks = _channel_blocks(images, channels, threads)
    first, past = share(thread, threads, images * blocks)
    for unit in range(first, past):
        n, c0, c1 = _channel_range(unit, blocks, channels)
        source = x + n * pixels * pixel + c0 * one.itemsize
        zero_bytes(sums, row)
        for begin in range(0, pixels, BLOCK):
            zero_bytes(block_sums, row)
            end = min(begin + BLOCK, pixels)
            p = begin
            while p < end:
                count = PIXELS if end - p >= PIXELS else 1
                add_pixels(source + p * pixel, pixel, count, c1 - c0, block_sums, one)
                p += count
            partial = float64s(block_sums, (channels,))
            for c in range(c1 - c0):
                totals[c] += partial[c]
        for c in range(c1 - c0):
            store(y + (n * channels + c0 + c) * one.itemsize, one.dtype.type(totals[c] / pixels), one)


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
    dy, dx, images, pixels, channels = carray(arguments, 5)
    one = carray(like, 1)
    size = one.itemsize
    pixel = channels * size
    by = one.dtype.type(pixels)
    first, past = share(thread, threads, images * pixels)
    while first < past and channels > 0:
        n = first // pixels
        count = min((n + 1) * pixels, past) - first
        begin = dx + first * pixel
        for c in range(channels):
            store(begin + c * size, load(dy + (n * channels + c) * size, one) / by, one)
        done = 1
        most = max(1, COPIED_BYTES // pixel)
        while done < count:
            more = min(done, most, count - done)
            copy_bytes(begin + done * pixel, begin, more * pixel)
            done += more
        first += count


# Maximum


@worker
def global_max_nchw(like, arguments, thread, threads):
    """Take the maximum of each plane. Arguments: x (P, L), y (P,) and argmax (P,) of uint64, overwritten; P, L."""
    x, y, argmax, planes, pixels = carray(arguments, 5)
    one = carray(like, 1)
    indices = uint64s(argmax, (planes,))
    first, past = share(thread, threads, planes)
    for p in range(first, past):
        plane = x + p * pixels * one.itemsize
        best, found = run_max(plane, min(RUN, pixels), one), 0
        for start in range(RUN, pixels, RUN):
            top = run_max(plane + start * one.itemsize, min(RUN, pixels - start), one)
            if best == best and not top <= best:
                best, found = top, start
        place = found + first_of(plane + found * one.itemsize, min(RUN, pixels - found), best, one)
        indices[p] = place
        store(y + p * one.itemsize, load(plane + place * one.itemsize, one), one)


@worker
def global_max_nhwc(like, arguments, thread, threads):
    """Take the maximum of each channel of each image. Arguments: x (N, L, C), y (N, C) and argmax (N, C) of uint64,
    overwritten; scratch of `threads` times two rows; its bytes for a row; N, L, C. Pixels are read as for the average.
    """
    x, y, argmax, scratch, row, images, pixels, channels = carray(arguments, 8)
    one = carray(like, 1)
    size = one.itemsize
    indices = uint64s(argmax, (images, channels))
    best, found = scratch + 2 * thread * row, scratch + (2 * thread + 1) * row
    blocks = _channel_blocks(images, channels, threads)
    first, past = share(thread, threads, images * blocks)
    for unit in range(first, past):
        n, c0, c1 = _channel_range(unit, blocks, channels)
        source = x + (n * pixels * channels + c0) * size
        zero_bytes(found, row)
        for c in range(row // size):
            store(best + c * size, one.dtype.type(-np.inf), one)
        p = 0
        while p < pixels:
            count = PIXELS if pixels - p >= PIXELS else 1
            challenge_pixels(source + p * channels * size, channels * size, p, count, c1 - c0, best, found, one)
            p += count
        for c in range(c1 - c0):
            indices[n, c0 + c] = load_place(found, c, one)
            store(y + (n * channels + c0 + c) * size, load(best + c * size, one), one)


@worker
def global_max_backward_nchw(like, arguments, thread, threads):
    """Put dy at the argmax of each plane. Arguments: dy (P,), argmax (P,) of uint64, dx (P, L), overwritten; bad
    (threads,), the number of bad entries; P, L.
    """
    a = carray(arguments, 6)
    dy, argmax, dx = floats(a[0], (a[4],), like), uint64s(a[1], (a[4],)), floats(a[2], (a[4], a[5]), like)
    bad = int64s(a[3], (threads,))
    first, past = share(thread, threads, dy.size)
    zero_bytes(a[2] + first * a[5] * dx.itemsize, (past - first) * a[5] * dx.itemsize)
    bad[thread] = _put_in_planes(dy[first:past], argmax[first:past], dx[first:past])


@step
def _put_in_planes(dy, argmax, dx):
    bad = 0
    for p in range(dy.size):
        at = np.uint64(argmax[p])
        if at < np.uint64(dx.shape[1]):
            dx[p, at] = dy[p]
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
    zero_bytes(a[2] + first * a[6] * dx.itemsize, (past - first) * a[6] * dx.itemsize)
    bad[thread] = _put_in_images(dy, argmax, first, past, dx)


@step
def _put_in_images(dy, argmax, first, past, dx):
    """Fill the pixels [first, past) of all images' pixels, and return the number of bad entries."""
    bad, pixels = 0, dx.shape[1]
    while first < past:
        n = first // pixels
        offset = first - n * pixels
        count = min(pixels - offset, past - first)
        for c in range(dy.shape[1]):
            at = np.uint64(argmax[n, c])
            if at >= np.uint64(pixels):
                bad += offset == 0
            elif offset <= np.int64(at) < offset + count:
                dx[n, at, c] = dy[n, c]
        first += count
    return bad
