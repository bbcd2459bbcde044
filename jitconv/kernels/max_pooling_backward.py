"""Max pooling over sliding windows, backward; laid out and shared out as in `max_pooling`.

Each thread owns rows of dx. Every entry of argmax is checked; the owner of a window's first row counts the bad ones.
Where many windows cover each pixel, comparing all of them is more work than adding each dy at its pixel.
"""

from __future__ import annotations

import numpy as np
from numba import carray

from .argmax import count_bad, rows_counted
from .jit import inlined, step, worker
from .pool_gradient_tiles import (
    ANY,
    HALF_TRIPLES,
    PAIRS,
    STRIDED,
    TRIPLES,
    max_gradient_of_channels,
    max_gradient_of_columns,
    max_gradient_of_row,
)
from .simd import VECTOR_BYTES, fence, zero_bytes
from .views import floats, int64s, uint8_pointer, uint64s
from .windows import (
    FIELDS,
    RUN_FIELDS,
    classes_of_columns,
    outputs_touching,
    run_between,
    runs_over,
    share,
    steps_over,
    taps_inside,
    taps_of_residue,
    window_of,
    windows_over,
)

# Windows over a pixel up to which argmax is compared with the tap of each.
COMPARED_WINDOWS = 32


@worker
def max_pool_backward_nchw(like, arguments, thread, threads):
    """Add dy at argmax. Arguments: dy (P, OH, OW), argmax, a uint8 array like it; dx (P, H, W), overwritten; bad
    (threads,), the number of bad entries; scratch (threads, H, RUN_FIELDS) of int64; whether dx is stored past the
    caches, P, the window.
    """
    a = carray(arguments, 7 + FIELDS)
    g = window_of(a[7:])
    runs = int64s(a[4], (threads, g.h, RUN_FIELDS))[thread]
    first, past = share(thread, threads, a[6] * g.h)
    int64s(a[3], (threads,))[thread] = _rows_of_planes(a[0], a[1], a[2], g, runs, first, past, a[5], carray(like, 1))


@worker
def max_pool_backward_nhwc(like, arguments, thread, threads):
    """Add dy at argmax. Arguments: dy (N, OH, OW, C), argmax, a uint8 array like it; dx (N, H, W, C), overwritten; bad
    (threads,), the number of bad entries; scratch (threads, W, RUN_FIELDS) of int64; whether dx is stored past the
    caches, N, C, the window.
    """
    a = carray(arguments, 8 + FIELDS)
    g = window_of(a[8:])
    runs = int64s(a[4], (threads, g.w, RUN_FIELDS))[thread]
    first, past = share(thread, threads, a[6] * g.h)
    bad = int64s(a[3], (threads,))
    bad[thread] = _rows_of_images(a[0], a[1], a[2], g, a[7], runs, first, past, a[5], carray(like, 1))


@worker
def max_pool_backward_scattered(like, arguments, thread, threads):
    """As `max_pool_backward_nhwc` for any window, with argmax of uint64 and without scratch. Arguments: dy, argmax, dx,
    bad, N, C, the window; planes are images of one channel.
    """
    a = carray(arguments, 6 + FIELDS)
    g = window_of(a[6:])
    dy, dx = floats(a[0], (a[4], g.oh, g.ow, a[5]), like), floats(a[2], (a[4], g.h, g.w, a[5]), like)
    first, past = share(thread, threads, a[4] * g.h)
    int64s(a[3], (threads,))[thread] = _scatter_rows(dy, uint64s(a[1], dy.shape), g, first, past, dx)


@inlined
def kind_of_columns(g):
    """Return the kind of the tiles of a plane."""
    if g.stride_w == 1:
        return TRIPLES if g.kw == 3 else ANY
    if g.stride_w == 2 and g.dilation_w == 1 and 2 <= g.kw <= 3:
        return PAIRS if g.kw == 2 else HALF_TRIPLES
    return STRIDED


@inlined
def columns_inside(g, kind, lanes):
    """Tell whether whole vectors cover a row of dx, and all their windows exist."""
    return kind == PAIRS and g.left == 0 and g.w % (2 * lanes) == 0 and g.w <= 2 * g.ow


@inlined
def _rows_of_images(dy, argmax, dx, g, c, runs, first, past, stream, like):
    """Fill the rows [first, past) of all images' rows, and return the number of bad entries."""
    pixel = c * like.itemsize
    tap_row, window_row = steps_over(g.stride_h, g.dilation_h)
    tap_column, window_column = steps_over(g.stride_w, g.dilation_w)
    count = runs_over(g.w, g.ow, g.kw, g.stride_w, g.left, g.dilation_w, runs)
    whole = c % (VECTOR_BYTES // like.itemsize) == 0
    threes = g.kw == 3 and g.stride_w == 1 and g.dilation_w == 1 and stream == 0
    bad = 0
    while first < past:
        n = first // g.h
        row0 = first - n * g.h
        row1 = min(g.h, row0 + past - first)
        counted = rows_counted(row0, row1, g)
        bad += count_bad(argmax + n * g.oh * g.ow * c, g, c, counted[0], counted[1])
        for h in range(row0, row1):
            oh, rows, k = windows_over(h + g.top, g.oh, g.kh, g.stride_h, g.dilation_h)
            if threes and whole and 1 <= rows <= 3:
                source = (n * g.oh + oh) * g.ow
                max_gradient_of_row(
                    rows, pixel // VECTOR_BYTES, pixel, dy + source * pixel, window_row * g.ow * pixel, g.ow, k * g.kw,
                    tap_row * g.kw, dx + (n * g.h + h) * g.w * pixel, g.left, g.w,
                    uint8_pointer(argmax + source * c), like,
                )  # fmt: skip
                continue
            for i in range(count):
                windows, source = runs[i, 3], (n * g.oh + oh) * g.ow + runs[i, 2]
                max_gradient_of_channels(
                    windows if windows <= 3 else ANY, runs[i, 1], pixel, g.stride_w * pixel, dy + source * pixel,
                    window_row * g.ow * pixel, window_column * pixel, rows, windows, 0, 0, c, 0, 0,
                    k * g.kw + runs[i, 4], tap_row * g.kw, tap_column, dx + ((n * g.h + h) * g.w + runs[i, 0]) * pixel,
                    0, 0, 0, c, whole, stream, uint8_pointer(argmax + source * c), like,
                )  # fmt: skip
        first += row1 - row0
    if stream != 0:
        fence()
    return bad


@inlined
def _rows_of_planes(dy, argmax, dx, g, runs, first, past, stream, like):
    """Fill the rows [first, past) of all planes' rows, and return the number of bad entries."""
    size = like.itemsize
    tap_row, window_row = steps_over(g.stride_h, g.dilation_h)
    tap_column, window_column = steps_over(g.stride_w, g.dilation_w)
    count = runs_over(g.h, g.oh, g.kh, g.stride_h, g.top, g.dilation_h, runs)
    kind = kind_of_columns(g)
    inside = columns_inside(g, kind, VECTOR_BYTES // size)
    zero, one, odd = classes_of_columns(g)
    bad = 0
    while first < past:
        p = first // g.h
        row0 = first - p * g.h
        row1 = min(g.h, row0 + past - first)
        counted = rows_counted(row0, row1, g)
        bad += count_bad(argmax + p * g.oh * g.ow, g, 1, counted[0], counted[1])
        for i in range(count):
            skipped, rows = run_between(runs[i], g.stride_h, row0, row1)
            source = (p * g.oh + runs[i, 2] + skipped) * g.ow
            target = dx + (p * g.h + runs[i, 0] + skipped * g.stride_h) * g.w * size
            for residue in range(min(g.stride_w, g.w) if kind == STRIDED else 1):
                start, windows, column = zero - (g.kw - 2), 1, 2 * (g.kw - 2)
                columns = g.w
                if kind != PAIRS and kind != HALF_TRIPLES:
                    start, windows, column = taps_of_residue(residue, g)
                    columns = (g.w - residue + g.stride_w - 1) // g.stride_w
                max_gradient_of_columns(
                    kind, rows, g.ow * size, g.stride_h * g.w * size, dy + source * size, window_row * g.ow * size,
                    window_column * size, runs[i, 3], windows, start, window_column, g.ow, one, odd,
                    runs[i, 4] * g.kw + column, tap_row * g.kw, tap_column, target, residue, g.stride_w, g.w, columns,
                    inside, stream, uint8_pointer(argmax + source), like,
                )  # fmt: skip
        first += row1 - row0
    if stream != 0:
        fence()
    return bad


@inlined
def _scatter_rows(dy, argmax, g, first, past, dx):
    """Fill the rows [first, past) of all images' rows, and return the number of bad entries."""
    bad = 0
    while first < past:
        n = first // g.h
        row0 = first - n * g.h
        row1 = min(g.h, row0 + past - first)
        bad += _scatter_image(dy[n], argmax[n], g, row0, row1, dx[n])
        first += row1 - row0
    return bad


@step
def _scatter_image(dy, argmax, g, row0, row1, dx):
    """Fill the rows [row0, row1) of an image."""
    zero_bytes(dx[row0:].ctypes.data, (row1 - row0) * dx[0].size * dx.itemsize)
    bad = 0
    oh0, oh1 = outputs_touching(row0, row1, g)
    for oh in range(oh0, oh1):
        start = oh * g.stride_h - g.top
        counted = row0 <= max(start, 0) < row1
        for ow in range(g.ow):
            refused = _scatter_pixel(dy[oh, ow], argmax[oh, ow], start, ow * g.stride_w - g.left, g, row0, row1, dx)
            bad += refused if counted else 0
    return bad


@step
def _pixel_at(entry, start_h, start_w, g):
    """Return the pixel that an entry of argmax points to, and whether the entry is valid.

    Row -1 is a valid answer: the window has no pixel at all, so its argmax is 0 and its gradient goes
    nowhere.
    """
    if entry >= np.uint64(g.kh * g.kw):
        return np.int64(0), np.int64(0), False
    entry = np.int64(entry)
    k = entry // g.kw
    h, w = start_h + k * g.dilation_h, start_w + (entry - k * g.kw) * g.dilation_w
    if 0 <= h < g.h and 0 <= w < g.w:
        return h, w, True
    k0, k1 = taps_inside(start_h, g.h, g.kh, g.dilation_h)
    l0, l1 = taps_inside(start_w, g.w, g.kw, g.dilation_w)
    return np.int64(-1), np.int64(-1), entry == 0 and (k0 >= k1 or l0 >= l1)


@step
def _scatter_pixel(dy, argmax, start_h, start_w, g, row0, row1, dx):
    """Add each channel at its argmax, and return the number of bad entries."""
    bad = 0
    for c in range(dy.size):
        h, w, valid = _pixel_at(argmax[c], start_h, start_w, g)
        if not valid:
            bad += 1
        elif row0 <= h < row1:
            dx[h, w, c] += dy[c]
    return bad
