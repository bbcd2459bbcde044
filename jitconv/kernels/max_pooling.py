"""Max pooling over sliding windows, forward.

NCHW arrays come as P = N*C planes of (H, W), NHWC arrays as (N, H, W, C); `g` is the `Window`. Every pooling
kernel cuts its output into `threads` runs of rows. Each run is written by one thread, and each element sums
in the order of the output rows and columns, so no bit of a result depends on the number of threads.

Inner loops run over contiguous memory, columns in NCHW and channels in NHWC, and the output row stays in the
first-level cache over all taps. Two or three neighbouring taps share one pass where that is common.
"""

from __future__ import annotations

import numpy as np
from numba import carray

from .jit import inlined, step, worker
from .views import floats, uint8s, uint64s
from .windows import FIELDS, edge_column, full_columns, share, taps_inside, window_of


@worker
def max_pool_nchw(like, arguments, thread, threads):
    """Take each window's maximum. Arguments: x (P, H, W), y (P, OH, OW), overwritten; P, the window."""
    a = carray(arguments, 3 + FIELDS)
    g = window_of(a[3:])
    x, y = floats(a[0], (a[2], g.h, g.w), like), floats(a[1], (a[2], g.oh, g.ow), like)
    first, past = share(thread, threads, a[2] * g.oh)
    _max_rows_nchw(x, g, first, past, y, None)


@worker
def max_pool_nhwc(like, arguments, thread, threads):
    """Take each window's maximum. Arguments: x (N, H, W, C), y (N, OH, OW, C), overwritten; N, C, the window."""
    a = carray(arguments, 4 + FIELDS)
    g = window_of(a[4:])
    x, y = floats(a[0], (a[2], g.h, g.w, a[3]), like), floats(a[1], (a[2], g.oh, g.ow, a[3]), like)
    first, past = share(thread, threads, a[2] * g.oh)
    _max_rows_nhwc(x, g, first, past, y, None)


@worker
def argmax_pool_nchw(like, arguments, thread, threads):
    """As `max_pool_nchw`, with argmax, a uint8 array like y, after y in the arguments."""
    a = carray(arguments, 4 + FIELDS)
    g = window_of(a[4:])
    x, y = floats(a[0], (a[3], g.h, g.w), like), floats(a[1], (a[3], g.oh, g.ow), like)
    first, past = share(thread, threads, a[3] * g.oh)
    _max_rows_nchw(x, g, first, past, y, uint8s(a[2], y.shape))


@worker
def argmax_pool_nhwc(like, arguments, thread, threads):
    """As `max_pool_nhwc`, with argmax, a uint8 array like y, after y in the arguments."""
    a = carray(arguments, 5 + FIELDS)
    g = window_of(a[5:])
    x, y = floats(a[0], (a[3], g.h, g.w, a[4]), like), floats(a[1], (a[3], g.oh, g.ow, a[4]), like)
    first, past = share(thread, threads, a[3] * g.oh)
    _max_rows_nhwc(x, g, first, past, y, uint8s(a[2], y.shape))


@worker
def wide_argmax_pool_nchw(like, arguments, thread, threads):
    """As `argmax_pool_nchw` for windows of more than 256 pixels: argmax is uint64."""
    a = carray(arguments, 4 + FIELDS)
    g = window_of(a[4:])
    x, y = floats(a[0], (a[3], g.h, g.w), like), floats(a[1], (a[3], g.oh, g.ow), like)
    first, past = share(thread, threads, a[3] * g.oh)
    _max_rows_nchw(x, g, first, past, y, uint64s(a[2], y.shape))


@worker
def wide_argmax_pool_nhwc(like, arguments, thread, threads):
    """As `argmax_pool_nhwc` for windows of more than 256 pixels: argmax is uint64."""
    a = carray(arguments, 5 + FIELDS)
    g = window_of(a[5:])
    x, y = floats(a[0], (a[3], g.h, g.w, a[4]), like), floats(a[1], (a[3], g.oh, g.ow, a[4]), like)
    first, past = share(thread, threads, a[3] * g.oh)
    _max_rows_nhwc(x, g, first, past, y, uint64s(a[2], y.shape))


# By the bytes of an entry of argmax, and whether the channels are planes.
ARGMAX_POOL = {
    (1, True): argmax_pool_nchw,
    (1, False): argmax_pool_nhwc,
    (8, True): wide_argmax_pool_nchw,
    (8, False): wide_argmax_pool_nhwc,
}


@inlined
def beats(value, best):
    """Tell whether `value` replaces the earlier `best`: it is larger, or the first NaN."""
    return (not value <= best) & (best == best)


@step
def challenge(x, tap, best, index):
    """Let the pixels `x` challenge `best`, with `tap` as their index. All (L,); index may be None."""
    for i in range(best.size):
        wins = beats(x[i], best[i])
        best[i] = x[i] if wins else best[i]
        if index is not None:
            index[i] = index.dtype.type(tap) if wins else index[i]


@step
def _challenge_strided(x, stride, tap, best, index):
    for i in range(best.size):
        value = x[np.uint64(i * stride)]  # unsigned: no code for indices that count from the end
        wins = beats(value, best[i])
        best[i] = value if wins else best[i]
        if index is not None:
            index[i] = index.dtype.type(tap) if wins else index[i]


@step
def _challenge_pairs(x, tap, best, index):
    """Let two neighbouring taps at stride 2 challenge `best`: whole vectors are loaded and shuffled."""
    for i in range(best.size):
        top = best[i]
        wins0 = beats(x[2 * i], top)
        top = x[2 * i] if wins0 else top
        wins1 = beats(x[2 * i + 1], top)
        best[i] = x[2 * i + 1] if wins1 else top
        if index is not None:
            at = index.dtype.type(tap) if wins0 else index[i]
            index[i] = index.dtype.type(tap + 1) if wins1 else at


@step
def _challenge_triples(x, tap, best, index):
    """Let three neighbouring taps at stride 2 challenge `best`."""
    for i in range(best.size):
        top = best[i]
        wins0 = beats(x[2 * i], top)
        top = x[2 * i] if wins0 else top
        wins1 = beats(x[2 * i + 1], top)
        top = x[2 * i + 1] if wins1 else top
        wins2 = beats(x[2 * i + 2], top)
        best[i] = x[2 * i + 2] if wins2 else top
        if index is not None:
            at = index.dtype.type(tap) if wins0 else index[i]
            at = index.dtype.type(tap + 1) if wins1 else at
            index[i] = index.dtype.type(tap + 2) if wins2 else at


@step
def _challenge_three(x0, x1, x2, tap, best, index):
    """Let three pixels challenge `best`, one after the other."""
    for i in range(best.size):
        top = best[i]
        wins0 = beats(x0[i], top)
        top = x0[i] if wins0 else top
        wins1 = beats(x1[i], top)
        top = x1[i] if wins1 else top
        wins2 = beats(x2[i], top)
        best[i] = x2[i] if wins2 else top
        if index is not None:
            at = index.dtype.type(tap) if wins0 else index[i]
            at = index.dtype.type(tap + 1) if wins1 else at
            index[i] = index.dtype.type(tap + 2) if wins2 else at


@step
def _row_of(a, p, row):
    if a is not None:
        return a[p, row]
    return None


@step
def _pixel_of(a, n, row, column):
    if a is not None:
        return a[n, row, column]
    return None


@step
def _between(a, first, past):
    if a is not None:
        return a[first:past]
    return None


@inlined
def _squares(g):
    """Tell whether the windows are 2x2 at stride 2 inside the image: the commonest pooling.

    All four taps in one pass take 6 channels of 28x28 pixels from 3.5 to 1.5 us in NCHW, from 12.4 to 3.0 in NHWC.
    """
    narrow = g.kh == 2 and g.kw == 2 and g.stride_h == 2 and g.stride_w == 2 and g.dilation_h == 1 and g.dilation_w == 1
    return narrow and g.top == 0 and g.left == 0 and 2 * g.oh <= g.h and 2 * g.ow <= g.w


@inlined
def _max_of_four(a, b, c, d, i, best, index):
    """Set entry `i` of `best` to the largest of four pixels, the taps 0 to 3."""
    wins1 = beats(b, a)
    top = b if wins1 else a
    wins2 = beats(c, top)
    top = c if wins2 else top
    wins3 = beats(d, top)
    best[i] = d if wins3 else top
    if index is not None:
        at = index.dtype.type(1 if wins1 else 0)
        at = index.dtype.type(2) if wins2 else at
        index[i] = index.dtype.type(3) if wins3 else at


@step
def _max_square_columns(above, below, best, index):
    for i in range(best.size):
        _max_of_four(above[2 * i], above[2 * i + 1], below[2 * i], below[2 * i + 1], i, best, index)


@step
def _max_square_channels(a, b, c, d, best, index):
    for i in range(best.size):
        _max_of_four(a[i], b[i], c[i], d[i], i, best, index)


@inlined
def _squares_nchw(x, g, first, past, y, argmax):
    p, oh = first // g.oh, first % g.oh
    for _ in range(past - first):
        _max_square_columns(x[p, 2 * oh], x[p, 2 * oh + 1], y[p, oh], _row_of(argmax, p, oh))
        oh += 1
        if oh == g.oh:
            p, oh = p + 1, 0


@inlined
def _squares_nhwc(x, g, first, past, y, argmax):
    for row in range(first, past):
        n, oh = row // g.oh, row % g.oh
        above, below = x[n, 2 * oh], x[n, 2 * oh + 1]
        for ow in range(g.ow):
            left, right = 2 * ow, 2 * ow + 1
            best, index = y[n, oh, ow], _pixel_of(argmax, n, oh, ow)
            _max_square_channels(above[left], above[right], below[left], below[right], best, index)


@inlined
def _max_rows_nchw(x, g, first, past, y, argmax):
    if _squares(g):
        _squares_nchw(x, g, first, past, y, argmax)
        return
    narrow = g.stride_w == 2 and g.dilation_w == 1
    full0, full1 = full_columns(g)
    for row in range(first, past):
        p, oh = row // g.oh, row % g.oh
        start = oh * g.stride_h - g.top
        k0, k1 = taps_inside(start, g.h, g.kh, g.dilation_h)
        best, index = y[p, oh], _row_of(argmax, p, oh)
        _before_any_pixel(k0, k1, g, best, index)
        for k in range(k0, k1):
            pixels, tap = x[p, start + k * g.dilation_h], k * g.kw
            _challenge_edges(pixels, tap, g, full0, full1, best, index)
            if full0 == full1:
                continue
            seen = pixels[full0 * g.stride_w - g.left :]
            tops, indices = best[full0:full1], _between(index, full0, full1)
            if narrow and g.kw == 2:
                _challenge_pairs(seen, tap, tops, indices)
            elif narrow and g.kw == 3:
                _challenge_triples(seen, tap, tops, indices)
            elif g.stride_w == 1:
                for tap_w in range(g.kw):
                    challenge(seen[tap_w * g.dilation_w :], tap + tap_w, tops, indices)
            else:
                for tap_w in range(g.kw):
                    _challenge_strided(seen[tap_w * g.dilation_w :], g.stride_w, tap + tap_w, tops, indices)


@step
def _challenge_edges(pixels, tap, g, skip, resume, best, index):
    """Challenge the output columns [0, skip) and [resume, OW), whose windows reach into the padding."""
    for i in range(skip + g.ow - resume):
        ow = edge_column(i, skip, resume)
        start = ow * g.stride_w - g.left
        l0, l1 = taps_inside(start, g.w, g.kw, g.dilation_w)
        for tap_w in range(l0, l1):
            value = pixels[start + tap_w * g.dilation_w]
            if beats(value, best[ow]):
                best[ow] = value
                if index is not None:
                    index[ow] = index.dtype.type(tap + tap_w)


@step
def _before_any_pixel(k0, k1, g, best, index):
    """Set a row to -inf with the argmax of each window's first pixel: 0 for a window that has none."""
    for i in range(best.size):
        best[i] = -np.inf
    if index is not None:
        for i in range(index.size):
            index[i] = index.dtype.type(k0 * g.kw if k0 < k1 else 0)
        ow = 0
        while ow < g.ow and ow * g.stride_w < g.left:
            l0, l1 = taps_inside(ow * g.stride_w - g.left, g.w, g.kw, g.dilation_w)
            index[ow] = index.dtype.type(k0 * g.kw + l0 if k0 < k1 and l0 < l1 else 0)
            ow += 1


@inlined
def _max_rows_nhwc(x, g, first, past, y, argmax):
    if _squares(g):
        _squares_nhwc(x, g, first, past, y, argmax)
        return
    for row in range(first, past):
        n, oh = row // g.oh, row % g.oh
        start_h = oh * g.stride_h - g.top
        k0, k1 = taps_inside(start_h, g.h, g.kh, g.dilation_h)
        for ow in range(g.ow):
            start_w = ow * g.stride_w - g.left
            l0, l1 = taps_inside(start_w, g.w, g.kw, g.dilation_w)
            best, index = y[n, oh, ow], _pixel_of(argmax, n, oh, ow)
            if k0 < k1 and l0 < l1:
                _begin(
                    x[n, start_h + k0 * g.dilation_h, start_w + l0 * g.dilation_w],
                    k0 * g.kw + l0,
                    best,
                    index,
                )
                for k in range(k0, k1):
                    pixels = x[n, start_h + k * g.dilation_h]
                    _max_pixels(pixels, k * g.kw, g, start_w, l0, l1, best, index)
            else:
                _no_pixel(best, index)


@step
def _max_pixels(pixels, tap, g, start, l0, l1, best, index):
    """Challenge one output pixel with the taps [l0, l1) of a row of pixels (W, C)."""
    d, tap_w = g.dilation_w, l0
    while tap_w + 3 <= l1:
        at = start + tap_w * d
        _challenge_three(pixels[at], pixels[at + d], pixels[at + 2 * d], tap + tap_w, best, index)
        tap_w += 3
    while tap_w < l1:
        challenge(pixels[start + tap_w * d], tap + tap_w, best, index)
        tap_w += 1


@step
def _begin(x, tap, best, index):
    for i in range(best.size):
        best[i] = x[i]
    if index is not None:
        for i in range(index.size):
            index[i] = index.dtype.type(tap)


@step
def _no_pixel(best, index):
    for i in range(best.size):
        best[i] = -np.inf
    if index is not None:
        for i in range(index.size):
            index[i] = 0
