"""Average pooling over sliding windows, forward and backward; laid out and shared out as in `max_pooling`."""

from __future__ import annotations

import numpy as np
from numba import carray

from .jit import inlined, step, worker
from .max_pooling import columns_inside, kind_of_columns
from .pool_tiles import ANY, avg_of_channels, avg_of_columns
from .simd import VECTOR_BYTES, fence
from .views import floats
from .windows import FIELDS, counted_columns, divisor, full_columns, outputs_touching, share, taps_inside, window_of


@worker
def avg_pool_nchw(like, arguments, thread, threads):
    """Average each window. Arguments: x (P, H, W), y (P, OH, OW), overwritten; whether y is stored past the caches, P,
    the window.
    """
    a = carray(arguments, 4 + FIELDS)
    g = window_of(a[4:])
    first, past = share(thread, threads, a[3] * g.oh)
    _rows_of_planes(a[0], a[1], g, first, past, a[2], carray(like, 1))


@worker
def avg_pool_nhwc(like, arguments, thread, threads):
    """Average each window. Arguments: x (N, H, W, C), y (N, OH, OW, C), overwritten; whether y is stored past the
    caches, N, C, the window.
    """
    a = carray(arguments, 5 + FIELDS)
    g = window_of(a[5:])
    first, past = share(thread, threads, a[3] * g.oh)
    _rows_of_images(a[0], a[1], g, a[4], first, past, a[2], carray(like, 1))


@worker
def avg_pool_backward_nchw(like, arguments, thread, threads):
    """Spread dy evenly over each window. Arguments: dy (P, OH, OW), dx (P, H, W), overwritten; scratch
    (threads, 2, OW); P, the window.
    """
    a = carray(arguments, 4 + FIELDS)
    g = window_of(a[4:])
    dy, dx = floats(a[0], (a[3], g.oh, g.ow), like), floats(a[1], (a[3], g.h, g.w), like)
    scratch = floats(a[2], (threads, 2, g.ow), like)
    first, past = share(thread, threads, a[3] * g.h)
    _avg_backward_nchw(dy, g, scratch[thread, 0], scratch[thread, 1], first, past, dx)


@worker
def avg_pool_backward_nhwc(like, arguments, thread, threads):
    """Spread dy evenly over each window. Arguments: dy (N, OH, OW, C), dx (N, H, W, C), overwritten; scratch
    (threads, OW, C); N, C, the window.
    """
    a = carray(arguments, 5 + FIELDS)
    g = window_of(a[5:])
    dy, dx = floats(a[0], (a[3], g.oh, g.ow, a[4]), like), floats(a[1], (a[3], g.h, g.w, a[4]), like)
    scratch = floats(a[2], (threads, g.ow, a[4]), like)
    first, past = share(thread, threads, a[3] * g.h)
    _avg_backward_nhwc(dy, g, scratch[thread], first, past, dx)


@step
def _zero(values):
    for i in range(values.size):
        values[i] = 0


@step
def _add(x, y):
    for i in range(y.size):
        y[i] += x[i]


@step
def _add_strided(x, stride, y):
    for i in range(y.size):
        y[i] += x[np.uint64(i * stride)]  # unsigned: no code for indices that count from the end


@step
def _add_pairs(x, y):
    """Add two neighbouring taps at stride 2: whole vectors are loaded and shuffled."""
    for i in range(y.size):
        y[i] = (y[i] + x[2 * i]) + x[2 * i + 1]


@step
def _add_triples(x, y):
    """Add three neighbouring taps at stride 2."""
    for i in range(y.size):
        y[i] = ((y[i] + x[2 * i]) + x[2 * i + 1]) + x[2 * i + 2]


@step
def _add_three(x0, x1, x2, y):
    for i in range(y.size):
        y[i] = ((y[i] + x0[i]) + x1[i]) + x2[i]


@step
def _divide(x, divided_by, y):
    """Divide rather than multiply by an inverse: the same bits in both layouts, and PyTorch's."""
    by = y.dtype.type(divided_by)
    for i in range(y.size):
        y[i] = x[i] / by


@step
def _divide_row(x, rows, columns, y):
    """Divide a row of outputs by their windows' pixels: `rows` times `columns`. x, columns, y (OW,)."""
    height = y.dtype.type(rows)
    for i in range(y.size):
        y[i] = x[i] / (height * columns[i])


@step
def _count_columns(g, columns):
    """Fill `columns` (OW,) with the number of columns that each window of a row counts."""
    for ow in range(g.ow):
        columns[ow] = columns.dtype.type(_columns(ow, g))


@inlined
def _columns(ow, g):
    return divisor(ow * g.stride_w - g.left, g.w, g.kw, g.padded_w, g.include_pad)


@inlined
def _rows(oh, g):
    return divisor(oh * g.stride_h - g.top, g.h, g.kh, g.padded_h, g.include_pad)


@inlined
def _rows_of_images(x, y, g, c, first, past, stream, like):
    """Fill the rows [first, past) of all images' rows."""
    size = like.itemsize
    lanes = VECTOR_BYTES // size
    pixel, line = c * size, g.w * c * size
    full0, full1 = full_columns(g)
    columns = g.kw - 1 if 2 <= g.kw <= 3 else ANY  # PAIRS or TRIPLES
    end, floor = counted_columns(g)
    for row in range(first, past):
        n, oh = row // g.oh, row % g.oh
        start_h = oh * g.stride_h - g.top
        k0, k1 = taps_inside(start_h, g.h, g.kh, 1)
        height = _rows(oh, g)
        line_at = x + (n * g.h + start_h + k0) * line
        ow = 0
        while ow < g.ow:
            start_w = ow * g.stride_w - g.left
            l0, l1 = taps_inside(start_w, g.w, g.kw, 1)
            inside = full0 <= ow < full1
            runs = full1 - ow if inside else 1
            avg_of_channels(
                columns if inside else ANY, runs, g.stride_w * pixel, pixel, line_at + (start_w + l0) * pixel, line, 0,
                c, 0, pixel, 1, k1 - k0, l1 - l0, c, c % lanes == 0, 0, g.kw, y + (row * g.ow + ow) * pixel, 0, stream,
                start_w, 0, end, floor, height, like,
            )  # fmt: skip
            ow += runs
    if stream != 0:
        fence()


@inlined
def _rows_of_planes(x, y, g, first, past, stream, like):
    """Fill the rows [first, past) of all planes' rows."""
    size = like.itemsize
    lanes = VECTOR_BYTES // size
    line = g.w * size
    kind = kind_of_columns(g)
    inside = columns_inside(g, kind, lanes)
    end, floor = counted_columns(g)
    for row in range(first, past):
        p, oh = row // g.oh, row % g.oh
        start_h = oh * g.stride_h - g.top
        k0, k1 = taps_inside(start_h, g.h, g.kh, 1)
        height = _rows(oh, g)
        line_at = x + (p * g.h + start_h + k0) * line
        avg_of_columns(
            kind, 1, 0, 0, line_at, line, -g.left, g.w, 1, size, g.stride_w, k1 - k0, g.kw, g.ow, inside, 0, g.kw,
            y + row * g.ow * size, 0, stream, -g.left, g.stride_w, end, floor, height, like,
        )  # fmt: skip
    if stream != 0:
        fence()


@inlined
def _avg_backward_nchw(dy, g, columns, even, first, past, dx):
    """Fill the rows [first, past) of all planes' rows. `columns` and `even` (OW,) are scratch."""
    _count_columns(g, columns)
    while first < past:
        p = first // g.h
        row0 = first - p * g.h
        row1 = min(g.h, row0 + past - first)
        _avg_backward_plane(dy[p], g, row0, row1, columns, even, dx[p])
        first += row1 - row0


@step
def _avg_backward_plane(dy, g, row0, row1, columns, even, dx):
    """Fill the rows [row0, row1) of a plane, each set to zero just before the first window adds to it."""
    zeroed = row0
    full0, full1 = full_columns(g)
    oh0, oh1 = outputs_touching(row0, row1, g)
    for oh in range(oh0, oh1):
        start = oh * g.stride_h - g.top
        first, past = max(start, row0), min(start + g.kh, row1)
        if zeroed < past:
            _zero(dx[zeroed:past].reshape((past - zeroed) * g.w))
            zeroed = past
        _divide_row(dy[oh], _rows(oh, g), columns, even)
        for h in range(first, past):
            _spread_row(even, g, full0, full1, dx[h])
    _zero(dx[zeroed:row1].reshape((row1 - zeroed) * g.w))


@step
def _spread_row(even, g, full0, full1, dx):
    """Add each output's share to the columns of its window. even (OW,); dx (W,)."""
    _spread_edges(even, g, 0, full0, dx)
    if full0 < full1:
        shares, pixels = even[full0:full1], dx[full0 * g.stride_w - g.left :]
        if g.kw == 2 and g.stride_w == 2:
            for i in range(shares.size):
                pixels[2 * i] += shares[i]
                pixels[2 * i + 1] += shares[i]
        else:
            # From the last tap to the first: each pixel sums in the order of the output columns, as in NHWC.
            for tap_w in range(g.kw - 1, -1, -1):
                if g.stride_w == 1:
                    _add(shares, pixels[tap_w : tap_w + shares.size])
                else:
                    for i in range(shares.size):
                        pixels[np.uint64(tap_w + i * g.stride_w)] += shares[i]
    _spread_edges(even, g, full1, g.ow, dx)


@step
def _spread_edges(even, g, first, past, dx):
    """Add the shares of the output columns [first, past), whose windows reach into the padding."""
    for ow in range(first, past):
        start = ow * g.stride_w - g.left
        for w in range(max(start, 0), min(start + g.kw, g.w)):
            dx[w] += even[ow]


@inlined
def _avg_backward_nhwc(dy, g, even, first, past, dx):
    """Fill the rows [first, past) of all images' rows. `even` (OW, C) is scratch."""
    while first < past:
        n = first // g.h
        row0 = first - n * g.h
        row1 = min(g.h, row0 + past - first)
        _avg_backward_image(dy[n], g, row0, row1, even, dx[n])
        first += row1 - row0


@step
def _avg_backward_image(dy, g, row0, row1, even, dx):
    """Fill the rows [row0, row1) of an image, each set to zero just before the first window adds to it."""
    zeroed = row0
    size = g.w * dx.shape[2]
    oh0, oh1 = outputs_touching(row0, row1, g)
    for oh in range(oh0, oh1):
        start_h = oh * g.stride_h - g.top
        first, past = max(start_h, row0), min(start_h + g.kh, row1)
        if zeroed < past:
            _zero(dx[zeroed:past].reshape((past - zeroed) * size))
            zeroed = past
        rows = _rows(oh, g)
        for ow in range(g.ow):
            _divide(dy[oh, ow], rows * _columns(ow, g), even[ow])
        for h in range(first, past):
            for ow in range(g.ow):
                start_w = ow * g.stride_w - g.left
                for w in range(max(start_w, 0), min(start_w + g.kw, g.w)):
                    _add(even[ow], dx[h, w])
    _zero(dx[zeroed:row1].reshape((row1 - zeroed) * size))
