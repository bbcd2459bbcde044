"""Max pooling over sliding windows, forward.

NCHW arrays come as P = N*C planes of (H, W), NHWC arrays as (N, H, W, C); `g` is the `Window`. Every pooling
kernel cuts its output into `threads` runs of rows. Each run is written by one thread, and each element sums
in the order of the output rows and columns, so no bit of a result depends on the number of threads.

A row is cut into tiles (`pool_tiles.py`), whose lanes are channels in NHWC and columns in NCHW.
"""

from __future__ import annotations

import numpy as np
from numba import carray

from .jit import inlined, worker
from .pool_tiles import (
    ANY,
    FOUR_ROWS,
    HALF_TRIPLES,
    PAIRS,
    STRIDED,
    TOGETHER,
    TRIPLES,
    TWO_ROWS,
    max_of_channels,
    max_of_columns,
)
from .simd import VECTOR_BYTES, fence, load
from .views import uint8_pointer, uint64_pointer
from .windows import FIELDS, full_columns, full_rows, share, taps_inside, window_of


@worker
def max_pool_nchw(like, arguments, thread, threads):
    """Take each window's maximum. Arguments: x (P, H, W), y (P, OH, OW), overwritten; whether y is stored past the
    caches, P, the window.
    """
    a = carray(arguments, 4 + FIELDS)
    g = window_of(a[4:])
    first, past = share(thread, threads, a[3] * g.oh)
    _rows_of_planes(a[0], a[1], None, 0, g, first, past, a[2], carray(like, 1))


@worker
def max_pool_nhwc(like, arguments, thread, threads):
    """Take each window's maximum. Arguments: x (N, H, W, C), y (N, OH, OW, C), overwritten; whether y is stored past
    the caches, N, C, the window.
    """
    a = carray(arguments, 5 + FIELDS)
    g = window_of(a[5:])
    first, past = share(thread, threads, a[3] * g.oh)
    _rows_of_images(a[0], a[1], None, 0, g, a[4], first, past, a[2], carray(like, 1))


@worker
def argmax_pool_nchw(like, arguments, thread, threads):
    """As `max_pool_nchw`, with argmax, a uint8 array like y, after y in the arguments."""
    a = carray(arguments, 5 + FIELDS)
    g = window_of(a[5:])
    first, past = share(thread, threads, a[4] * g.oh)
    _rows_of_planes(a[0], a[1], uint8_pointer(a[2]), 1, g, first, past, a[3], carray(like, 1))


@worker
def argmax_pool_nhwc(like, arguments, thread, threads):
    """As `max_pool_nhwc`, with argmax, a uint8 array like y, after y in the arguments."""
    a = carray(arguments, 6 + FIELDS)
    g = window_of(a[6:])
    first, past = share(thread, threads, a[4] * g.oh)
    _rows_of_images(a[0], a[1], uint8_pointer(a[2]), 1, g, a[5], first, past, a[3], carray(like, 1))


@worker
def wide_argmax_pool_nchw(like, arguments, thread, threads):
    """As `argmax_pool_nchw` for windows of more than 256 pixels: argmax is uint64."""
    a = carray(arguments, 5 + FIELDS)
    g = window_of(a[5:])
    first, past = share(thread, threads, a[4] * g.oh)
    _rows_of_planes(a[0], a[1], uint64_pointer(a[2]), 8, g, first, past, a[3], carray(like, 1))


@worker
def wide_argmax_pool_nhwc(like, arguments, thread, threads):
    """As `argmax_pool_nhwc` for windows of more than 256 pixels: argmax is uint64."""
    a = carray(arguments, 6 + FIELDS)
    g = window_of(a[6:])
    first, past = share(thread, threads, a[4] * g.oh)
    _rows_of_images(a[0], a[1], uint64_pointer(a[2]), 8, g, a[5], first, past, a[3], carray(like, 1))


# By the bytes of an entry of argmax, and whether the channels are planes.
ARGMAX_POOL = {
    (1, True): argmax_pool_nchw,
    (1, False): argmax_pool_nhwc,
    (8, True): wide_argmax_pool_nchw,
    (8, False): wide_argmax_pool_nhwc,
}


@inlined
def _rows_of_a_tile(g):
    """Return how many rows of windows one tile takes where all of them are inside the image."""
    if g.kh != 3 or g.kw != 3:
        return 1
    return TOGETHER[0] if g.stride_h == g.dilation_h else TOGETHER[1] if g.stride_h == 2 * g.dilation_h else 1


@inlined
def _rows_of_images(x, y, index, entry, g, c, first, past, stream, like):
    """Fill the rows [first, past) of all images' rows. `entry`: bytes of one of argmax."""
    size = like.itemsize
    lanes = VECTOR_BYTES // size
    pixel, line = c * size, g.w * c * size
    full0, full1 = full_columns(g)
    columns = g.kw - 1 if 2 <= g.kw <= 3 else ANY  # PAIRS or TRIPLES
    most, full = _rows_of_a_tile(g), full_rows(g)
    row = first
    while row < past:
        n, oh = row // g.oh, row % g.oh
        start_h = oh * g.stride_h - g.top
        k0, k1 = taps_inside(start_h, g.h, g.kh, g.dilation_h)
        rows = most if full[0] <= oh and oh + most <= full[1] and row + most <= past else 1
        kind = columns if rows == 1 else FOUR_ROWS if rows == TOGETHER[0] else TWO_ROWS
        line_at = x + (n * g.h + start_h + k0 * g.dilation_h) * line
        ow = 0
        while ow < g.ow:
            start_w = ow * g.stride_w - g.left
            l0, l1 = taps_inside(start_w, g.w, g.kw, g.dilation_w)
            inside = full0 <= ow < full1
            runs = full1 - ow if inside else 1
            tap = k0 * g.kw + l0 if k0 < k1 and l0 < l1 else 0
            for i in range(1 if inside else rows):
                to = (row + i) * g.ow + ow
                max_of_channels(
                    kind if inside else ANY, runs, g.stride_w * pixel, pixel,
                    line_at + i * g.stride_h * line + (start_w + l0 * g.dilation_w) * pixel, g.dilation_h * line, 0, c,
                    0, g.dilation_w * pixel, 1, k1 - k0, l1 - l0, c, c % lanes == 0, tap, g.kw, y + to * pixel,
                    g.ow * pixel, stream, index, to * c * entry, g.ow * c * entry, like,
                )  # fmt: skip
            ow += runs
        row += rows
    if stream != 0:
        fence()


@inlined
def kind_of_columns(g):
    """Return the kind of a tile of one row."""
    if g.stride_w == 1:
        return TRIPLES if g.kw == 3 else ANY
    if g.stride_w == 2 and g.dilation_w == 1 and 2 <= g.kw <= 3:
        return PAIRS if g.kw == 2 else HALF_TRIPLES
    return STRIDED


@inlined
def columns_inside(g, kind, lanes):
    """Tell whether whole vectors cover a row of outputs, and whole vectors lie in the image under all taps."""
    beyond = 0 if kind == PAIRS else (g.kw - 1) * g.dilation_w
    return g.left == 0 and g.ow % lanes == 0 and g.ow * g.stride_w + beyond <= g.w


@inlined
def _rows_of_planes(x, y, index, entry, g, first, past, stream, like):
    """Fill the rows [first, past) of all planes' rows. `entry`: bytes of one of argmax."""
    size = like.itemsize
    lanes = VECTOR_BYTES // size
    line = g.w * size
    one_row = kind_of_columns(g)
    inside = columns_inside(g, one_row, lanes)
    left = min(g.ow, (g.left + g.stride_w - 1) // g.stride_w)
    most, full = _rows_of_a_tile(g), full_rows(g)
    if (one_row != TRIPLES and one_row != HALF_TRIPLES) or (one_row == TRIPLES) != (g.stride_h == g.dilation_h):
        most = 1
    row = first
    while row < past:
        p, oh = row // g.oh, row % g.oh
        start_h = oh * g.stride_h - g.top
        k0, k1 = taps_inside(start_h, g.h, g.kh, g.dilation_h)
        rows, runs, kind = 1, 1, one_row
        if full[0] <= oh < full[1]:
            runs = min(full[1] - oh, past - row)
            if runs >= most > 1:
                rows, runs, kind = most, runs // most, FOUR_ROWS if one_row == TRIPLES else TWO_ROWS
        to = row * g.ow
        max_of_columns(
            kind, runs, rows * g.stride_h * line, rows * g.ow * size,
            x + (p * g.h + start_h + k0 * g.dilation_h) * line, g.dilation_h * line, -g.left, g.w,
            g.dilation_w, g.dilation_w * size, g.stride_w, k1 - k0, g.kw, g.ow, inside, k0 * g.kw if k0 < k1 else 0,
            g.kw, y + to * size, g.ow * size, stream, index, to * entry, g.ow * entry, like,
        )  # fmt: skip
        if index is not None and left > 0:
            _first_pixels(y, index, g, row, rows * runs, left, k0, k1, like)
        row += rows * runs
    if stream != 0:
        fence()


@inlined
def _first_pixels(y, index, g, row, rows, left, k0, k1, like):
    """Set argmax of the `left` first columns, where it is that of padding: all pixels of the window are -inf."""
    for i in range(row * g.ow, (row + rows) * g.ow, g.ow):
        for ow in range(left):
            if load(y + (i + ow) * like.itemsize, like) == -np.inf:
                l0, l1 = taps_inside(ow * g.stride_w - g.left, g.w, g.kw, g.dilation_w)
                entries = carray(index, i + ow + 1)
                entries[i + ow] = k0 * g.kw + l0 if k0 < k1 and l0 < l1 else 0
