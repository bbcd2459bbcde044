"""Pooling of whole images, forward and backward.

NCHW arrays come as (P, L): P = N*C planes of L = H*W pixels; NHWC arrays as (N, L, C). Each output has one
owner and a fixed order of summation, so no bit of a result depends on the number of threads.

Sums are kept in float64 and in blocks: BLOCK pixels of a channel at a time, then the sum of the blocks. For
float32 data the average is then exact but for its last rounding; for float64 the error grows with L / BLOCK +
BLOCK instead of L.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from .jit import kernel, step
from .max_pooling import beats, challenge
from .windows import share

BLOCK = 128
LANES = 64  # running sums of a plane, side by side: eight AVX-512 vectors of float64
LINE = 16  # channels: a cache line of float32, the least that a thread takes of an image


@step
def channel_range(unit, blocks, channels):
    """Return the image and the half-open range of its channels that are unit number `unit`."""
    lines = (channels + LINE - 1) // LINE
    n, block = unit // blocks, unit % blocks
    first, past = share(block, blocks, lines)
    return n, first * LINE, min(channels, past * LINE)


@step
def channel_blocks(images, channels, threads):
    """Return into how many blocks of channels an image is cut, so that few images still use all threads."""
    lines = (channels + LINE - 1) // LINE
    return max(1, min(lines, (4 * threads + images - 1) // max(1, images)))


# Average


@kernel(parallel=True)
def global_avg_nchw(x, threads, y):
    """Average each plane. x (P, L); y (P,), overwritten."""
    for part in prange(threads):
        first, past = share(np.int64(part), threads, y.size)
        lanes = np.empty(LANES, np.float64)
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


@kernel(parallel=True)
def global_avg_nhwc(x, threads, y):
    """Average each channel of each image. x (N, L, C); y (N, C), overwritten."""
    images, channels = y.shape
    blocks = channel_blocks(images, channels, threads)
    for part in prange(threads):
        first, past = share(np.int64(part), threads, images * blocks)
        sums = np.empty((2, channels), np.float64)
        for unit in range(first, past):
            n, c0, c1 = channel_range(unit, blocks, channels)
            _channel_sums(x[n], c0, c1, sums[0, c0:c1], sums[1, c0:c1])
            for c in range(c0, c1):
                y[n, c] = sums[1, c] / x.shape[1]


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


@kernel(parallel=True)
def global_avg_backward_nchw(dy, threads, dx):
    """Spread dy evenly over each plane. dy (P,); dx (P, L), overwritten."""
    for part in prange(threads):
        first, past = share(np.int64(part), threads, dx.size)
        while first < past:
            p = first // dx.shape[1]
            row = dx[p, first - p * dx.shape[1] :][: past - first]
            even = dy[p] / dy.dtype.type(dx.shape[1])
            for i in range(row.size):
                row[i] = even
            first += row.size


@kernel(parallel=True)
def global_avg_backward_nhwc(dy, threads, dx):
    """Spread dy evenly over each image. dy (N, C); dx (N, L, C), overwritten."""
    for part in prange(threads):
        first, past = share(np.int64(part), threads, dx.shape[0] * dx.shape[1])
        by = dy.dtype.type(dx.shape[1])
        for row in range(first, past):
            n = row // dx.shape[1]
            pixel, gradient = dx[n, row - n * dx.shape[1]], dy[n]
            for c in range(pixel.size):
                pixel[c] = gradient[c] / by


# Maximum


@kernel(parallel=True)
def global_max_nchw(x, threads, y, argmax):
    """Take the maximum of each plane. x (P, L); y, argmax (P,), overwritten."""
    for part in prange(threads):
        first, past = share(np.int64(part), threads, y.size)
        lanes = np.empty(LANES, x.dtype)
        for p in range(first, past):
            at = _plane_argmax(x[p], lanes)
            y[p] = x[p, at]
            argmax[p] = argmax.dtype.type(at)


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


@kernel(parallel=True)
def global_max_nhwc(x, threads, y, argmax):
    """Take the maximum of each channel of each image. x (N, L, C); y, argmax (N, C), overwritten."""
    images, channels = y.shape
    blocks = channel_blocks(images, channels, threads)
    for part in prange(threads):
        first, past = share(np.int64(part), threads, images * blocks)
        for unit in range(first, past):
            n, c0, c1 = channel_range(unit, blocks, channels)
            best, index = y[n, c0:c1], argmax[n, c0:c1]
            for c in range(best.size):
                best[c] = x[n, 0, c0 + c]
                index[c] = 0
            for pixel in range(1, x.shape[1]):
                challenge(x[n, pixel, c0:c1], pixel, best, index)


@kernel(parallel=True)
def global_max_backward_nchw(dy, argmax, threads, dx, bad):
    """Put dy at each plane's argmax. dy, argmax (P,); dx (P, L), overwritten; bad (threads,): bad entries."""
    for part in prange(threads):
        first, past = share(np.int64(part), threads, dy.size)
        bad[part] = _put_in_planes(dy[first:past], argmax[first:past], dx[first:past])


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


@kernel(parallel=True)
def global_max_backward_nhwc(dy, argmax, threads, dx, bad):
    """Put dy at the argmax of each channel. dy, argmax (N, C); dx (N, L, C), overwritten; bad as in NCHW."""
    for part in prange(threads):
        first, past = share(np.int64(part), threads, dx.shape[0] * dx.shape[1])
        bad[part] = _put_in_images(dy, argmax, first, past, dx)


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
