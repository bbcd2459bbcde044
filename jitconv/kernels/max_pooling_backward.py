"""Max pooling over sliding windows, backward; laid out and shared out as in `max_pooling`.

Each thread owns rows of dx and passes over the windows that touch them. It adds what falls into its rows, so
two threads read the windows across their border and none writes to another's rows. Every entry of argmax is
checked before it is used; the owner of a window's first row counts the bad ones.
"""

from __future__ import annotations

import numpy as np
from numba import carray

from .jit import inlined, step, worker
from .views import floats, int64s, uint8s, uint64s
from .windows import FIELDS, edge_column, full_columns, outputs_touching, share, taps_inside, window_of

# In NHWC each tap is compared with a vector of argmax up to this size of window; beyond it one scattered
# addition for each channel is less work.
COMPARED_TAPS = 32


@worker
def max_pool_backward_nchw(like, arguments, thread, threads):
    """Add dy at argmax. Arguments: dy (P, OH, OW), argmax, a uint8 array like it; dx (P, H, W), overwritten; bad
    (threads,), the number of bad entries; offsets, where each tap lies in dx, a table of KH * KW or, where the
    division by KW that it saves is not the cost, of 0; its size, P, the window.
    """
    a = carray(arguments, 7 + FIELDS)
    g = window_of(a[7:])
    dy, dx = floats(a[0], (a[6], g.oh, g.ow), like), floats(a[2], (a[6], g.h, g.w), like)
    offsets, bad = int64s(a[4], (a[5],)), int64s(a[3], (threads,))
    first, past = share(thread, threads, a[6] * g.h)
    bad[thread] = _max_backward_nchw(dy, uint8s(a[1], dy.shape), g, offsets, first, past, dx)


@worker
def wide_max_pool_backward_nchw(like, arguments, thread, threads):
    """As `max_pool_backward_nchw` for windows of more than 256 pixels: argmax is uint64."""
    a = carray(arguments, 7 + FIELDS)
    g = window_of(a[7:])
    dy, dx = floats(a[0], (a[6], g.oh, g.ow), like), floats(a[2], (a[6], g.h, g.w), like)
    offsets, bad = int64s(a[4], (a[5],)), int64s(a[3], (threads,))
    first, past = share(thread, threads, a[6] * g.h)
    bad[thread] = _max_backward_nchw(dy, uint64s(a[1], dy.shape), g, offsets, first, past, dx)


@worker
def max_pool_backward_nhwc(like, arguments, thread, threads):
    """Add dy at argmax. Arguments: dy (N, OH, OW, C), argmax, a uint8 array like it; dx (N, H, W, C), overwritten; bad
    (threads,), the number of bad entries; N, C, the window.
    """
    a = carray(arguments, 6 + FIELDS)
    g = window_of(a[6:])
    dy, dx = floats(a[0], (a[4], g.oh, g.ow, a[5]), like), floats(a[2], (a[4], g.h, g.w, a[5]), like)
    bad = int64s(a[3], (threads,))
    first, past = share(thread, threads, a[4] * g.h)
    bad[thread] = _max_backward_nhwc(dy, uint8s(a[1], dy.shape), g, first, past, dx)


@worker
def wide_max_pool_backward_nhwc(like, arguments, thread, threads):
    """As `max_pool_backward_nhwc` for windows of more than 256 pixels: argmax is uint64."""
    a = carray(arguments, 6 + FIELDS)
    g = window_of(a[6:])
    dy, dx = floats(a[0], (a[4], g.oh, g.ow, a[5]), like), floats(a[2], (a[4], g.h, g.w, a[5]), like)
    bad = int64s(a[3], (threads,))
    first, past = share(thread, threads, a[4] * g.h)
    bad[thread] = _max_backward_nhwc(dy, uint64s(a[1], dy.shape), g, first, past, dx)


# By the bytes of an entry of argmax, and whether the channels are planes.
MAX_POOL_BACKWARD = {
    (1, True): max_pool_backward_nchw,
    (1, False): max_pool_backward_nhwc,
    (8, True): wide_max_pool_backward_nchw,
    (8, False): wide_max_pool_backward_nhwc,
}


@step
def _zero(rows):
    flat = rows.reshape(rows.size)
    for i in range(flat.size):
        flat[i] = 0


@inlined
def _counts_here(start, first_row, past_row):
    """Tell whether the owner of these rows counts a window's bad entries: it owns its first row inside."""
    return first_row <= max(start, 0) < past_row


@inlined
def _max_backward_nchw(dy, argmax, g, offsets, first, past, dx):
    """Fill the rows [first, past) of all planes' rows, and return the number of bad entries."""
    bad = 0
    while first < past:
        p = first // g.h
        row0 = first - p * g.h
        row1 = min(g.h, row0 + past - first)
        bad += _max_backward_plane(dy[p], argmax[p], g, offsets, row0, row1, dx[p])
        first += row1 - row0
    return bad


@step
def _max_backward_plane(dy, argmax, g, offsets, row0, row1, dx):
    """Fill the rows [row0, row1) of a plane, each set to zero just before the first window adds to it."""
    bad, zeroed = 0, row0
    reach = (g.kh - 1) * g.dilation_h + 1
    full = full_columns(g)
    # Windows of 2x2 at stride 2 do not overlap: two rows of dx are written at once, in whole vectors.
    halves = g.kh == 2 and g.kw == 2 and g.stride_h == 2 and g.stride_w == 2
    halves = halves and reach == 2 and g.dilation_w == 1 and full[0] == 0 and full[1] == g.ow and g.left == 0
    oh0, oh1 = outputs_touching(row0, row1, g)
    for oh in range(oh0, oh1):
        start = oh * g.stride_h - g.top
        inside = start >= row0 and start + reach <= row1
        if halves and inside:
            bad += _max_backward_halves(dy[oh], argmax[oh], dx[start], dx[start + 1])
            zeroed = start + 2
            continue
        end = min(row1, start + reach)
        if zeroed < end:
            _zero(dx[zeroed:end])
            zeroed = end
        full0, full1 = full if inside and offsets.size > 0 else (g.ow, g.ow)
        refused = _add_at_edges(dy[oh], argmax[oh], g, start, full0, full1, row0, row1, dx)
        bad += refused if _counts_here(start, row0, row1) else 0
        if full0 < full1:
            bad += _add_by_table(dy[oh], argmax[oh], g, offsets, start * g.w - g.left, full0, full1, dx)
    _zero(dx[zeroed:row1])
    return bad


@step
def _add_by_table(dy, argmax, g, offsets, start, first, past, dx):
    """Add the outputs [first, past) of a row, whose windows are inside. Return the number of bad entries."""
    bad = 0
    pixels = dx.reshape(dx.size)
    for ow in range(first, past):
        tap = np.uint64(argmax[ow])
        if tap < np.uint64(offsets.size):
            pixels[np.uint64(start + ow * g.stride_w + offsets[tap])] += dy[ow]
        else:
            bad += 1
    return bad


@step
def _add_at_edges(dy, argmax, g, start, skip, resume, row0, row1, dx):
    """Add the outputs [0, skip) and [resume, OW) of a row. Return the number of bad entries."""
    bad = 0
    for i in range(skip + g.ow - resume):
        ow = edge_column(i, skip, resume)
        h, w, valid = _pixel_at(argmax[ow], start, ow * g.stride_w - g.left, g)
        if not valid:
            bad += 1
        elif row0 <= h < row1:
            dx[h, w] += dy[ow]
    return bad


@step
def _pixel_at(entry, start_h, start_w, g):
    """Return the pixel that an entry of argmax points to, and whether the entry is valid.

    Row -1 is a valid answer: the window has no pixel at all, so its argmax is 0 and its gradient goes
    nowhere.
    """
    if np.uint64(entry) >= np.uint64(g.kh * g.kw):
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
def _max_backward_halves(dy, argmax, upper, lower):
    """Fill two rows of dx from a row of 2x2 windows at stride 2. Return the number of bad entries."""
    worst = argmax.dtype.type(0)
    zero = dy.dtype.type(0)
    for i in range(dy.size):
        at, gradient = argmax[i], dy[i]
        worst = max(worst, at)
        upper[2 * i] = gradient if at == 0 else zero
        upper[2 * i + 1] = gradient if at == 1 else zero
        lower[2 * i] = gradient if at == 2 else zero
        lower[2 * i + 1] = gradient if at == 3 else zero
    for i in range(2 * dy.size, upper.size):
        upper[i] = 0
        lower[i] = 0
    return _count_above(argmax, 3) if worst > 3 else 0


@step
def _count_above(argmax, limit):
    count = 0
    for i in range(argmax.size):
        count += np.uint64(argmax[i]) > np.uint64(limit)
    return count


@inlined
def _max_backward_nhwc(dy, argmax, g, first, past, dx):
    """Fill the rows [first, past) of all images' rows, and return the number of bad entries."""
    bad = 0
    while first < past:
        n = first // g.h
        row0 = first - n * g.h
        row1 = min(g.h, row0 + past - first)
        bad += _max_backward_image(dy[n], argmax[n], g, row0, row1, dx[n])
        first += row1 - row0
    return bad


@step
def _max_backward_image(dy, argmax, g, row0, row1, dx):
    """Fill the rows [row0, row1) of an image, each set to zero just before the first window adds to it."""
    bad, zeroed = 0, row0
    compare = g.kh * g.kw <= COMPARED_TAPS
    oh0, oh1 = outputs_touching(row0, row1, g)
    for oh in range(oh0, oh1):
        start = oh * g.stride_h - g.top
        counted = _counts_here(start, row0, row1)
        end = min(row1, start + (g.kh - 1) * g.dilation_h + 1)
        if zeroed < end:
            _zero(dx[zeroed:end])
            zeroed = end
        for ow in range(g.ow):
            start_w = ow * g.stride_w - g.left
            if compare:
                _add_where_equal(dy[oh, ow], argmax[oh, ow], start, start_w, g, row0, row1, dx)
                if counted:
                    bad += _count_bad(argmax[oh, ow], start, start_w, g)
            else:
                refused = _add_scattered(dy[oh, ow], argmax[oh, ow], start, start_w, g, row0, row1, dx)
                bad += refused if counted else 0
    _zero(dx[zeroed:row1])
    return bad


@step
def _add_where_equal(dy, argmax, start_h, start_w, g, row0, row1, dx):
    zero = dy.dtype.type(0)
    k0, k1 = taps_inside(start_h, g.h, g.kh, g.dilation_h)
    l0, l1 = taps_inside(start_w, g.w, g.kw, g.dilation_w)
    for k in range(k0, k1):
        h = start_h + k * g.dilation_h
        if row0 <= h < row1:
            for tap_w in range(l0, l1):
                pixel = dx[h, start_w + tap_w * g.dilation_w]
                tap = argmax.dtype.type(k * g.kw + tap_w)
                for c in range(pixel.size):
                    pixel[c] += dy[c] if argmax[c] == tap else zero


@step
def _count_bad(argmax, start_h, start_w, g):
    """Count the entries of one output pixel that point to no pixel of its window. argmax (C,)."""
    worst = argmax.dtype.type(0)
    for c in range(argmax.size):
        worst = max(worst, argmax[c])
    inside = start_h >= 0 and start_h + (g.kh - 1) * g.dilation_h < g.h
    inside = inside and start_w >= 0 and start_w + (g.kw - 1) * g.dilation_w < g.w
    if inside and np.uint64(worst) < np.uint64(g.kh * g.kw):
        return 0
    bad = 0
    for c in range(argmax.size):
        bad += not _pixel_at(argmax[c], start_h, start_w, g)[2]
    return bad


@step
def _add_scattered(dy, argmax, start_h, start_w, g, row0, row1, dx):
    """Add each channel at its argmax, and return the number of bad entries."""
    bad = 0
    for c in range(dy.size):
        h, w, valid = _pixel_at(argmax[c], start_h, start_w, g)
        if not valid:
            bad += 1
        elif row0 <= h < row1:
            dx[h, w, c] += dy[c]
    return bad
