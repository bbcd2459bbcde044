"""Max pooling, backward, where every pixel that equals its window's largest gets a gradient.

Each thread owns rows of dx, and the sum over the windows of a pixel goes by output rows and columns: the number of
threads does not change a bit. Planes are images of one channel.
"""

from __future__ import annotations

from numba import carray

from .jit import inlined, step, worker
from .simd import zero_bytes
from .views import floats
from .windows import FIELDS, outputs_touching, share, taps_inside, window_of


@worker
def max_pool_shares(like, arguments, thread, threads):
    """Divide dy among the largest pixels of each window. Arguments: dy (N, OH, OW, C), y like it; x (N, H, W, C);
    shares, like dy, overwritten; N, C, the window.
    """
    a = carray(arguments, 6 + FIELDS)
    g = window_of(a[6:])
    n, c = a[4], a[5]
    dy, y = floats(a[0], (n, g.oh, g.ow, c), like), floats(a[1], (n, g.oh, g.ow, c), like)
    x, shares = floats(a[2], (n, g.h, g.w, c), like), floats(a[3], (n, g.oh, g.ow, c), like)
    first, past = share(thread, threads, n * g.oh)
    for row in range(first, past):
        image = row // g.oh
        oh = row - image * g.oh
        _divide_row(dy[image, oh], y[image, oh], x[image], oh * g.stride_h - g.top, g, shares[image, oh])


@worker
def max_pool_backward_ties(like, arguments, thread, threads):
    """Add dy at each pixel that equals y. Arguments: dy (N, OH, OW, C), y like it; x (N, H, W, C); dx like it,
    overwritten; N, C, the window.
    """
    a = carray(arguments, 6 + FIELDS)
    g = window_of(a[6:])
    n, c = a[4], a[5]
    dy, y = floats(a[0], (n, g.oh, g.ow, c), like), floats(a[1], (n, g.oh, g.ow, c), like)
    x, dx = floats(a[2], (n, g.h, g.w, c), like), floats(a[3], (n, g.h, g.w, c), like)
    first, past = share(thread, threads, n * g.h)
    while first < past:
        image = first // g.h
        row0 = first - image * g.h
        row1 = min(g.h, row0 + past - first)
        _rows_of_image(dy[image], y[image], x[image], g, row0, row1, dx[image])
        first += row1 - row0


@step
def _divide_row(dy, y, x, start, g, shares):
    """Overwrite shares (OW, C) with dy (OW, C) over how many pixels of x (H, W, C) equal y, in a row of windows."""
    for ow in range(shares.shape[0]):
        for c in range(shares.shape[1]):
            shares[ow, c] = 0
    k0, k1 = taps_inside(start, g.h, g.kh, g.dilation_h)
    for k in range(k0, k1):
        row = x[start + k * g.dilation_h]
        for tap in range(g.kw):
            offset = tap * g.dilation_w - g.left
            ow0, ow1 = _windows_inside(offset, g)
            for ow in range(ow0, ow1):
                pixel = row[ow * g.stride_w + offset]
                for c in range(pixel.size):
                    shares[ow, c] += 1 if pixel[c] == y[ow, c] else 0
    for ow in range(shares.shape[0]):
        for c in range(shares.shape[1]):
            if shares[ow, c] > 0:
                shares[ow, c] = dy[ow, c] / shares[ow, c]


@step
def _rows_of_image(dy, y, x, g, row0, row1, dx):
    """Fill the rows [row0, row1) of an image."""
    zero_bytes(dx[row0:].ctypes.data, (row1 - row0) * dx[0].size * dx.itemsize)
    oh0, oh1 = outputs_touching(row0, row1, g)
    for oh in range(oh0, oh1):
        for k in range(g.kh):
            h = oh * g.stride_h - g.top + k * g.dilation_h
            if row0 <= h < row1:
                _add_row(dy[oh], y[oh], x[h], g, dx[h])


@step
def _add_row(dy, y, x, g, dx):
    """Add dy (OW, C) to a row of dx (W, C) at each pixel of x that equals y."""
    for tap in range(g.kw):
        offset = tap * g.dilation_w - g.left
        ow0, ow1 = _windows_inside(offset, g)
        for ow in range(ow0, ow1):
            w = ow * g.stride_w + offset
            for c in range(dy.shape[1]):
                if x[w, c] == y[ow, c]:
                    dx[w, c] += dy[ow, c]


@inlined
def _windows_inside(offset, g):
    """Return the half-open range of windows of a row whose pixel at `offset` lies in the image."""
    first = max(0, (g.stride_w - 1 - offset) // g.stride_w)
    return first, max(first, min(g.ow, (g.w - 1 - offset) // g.stride_w + 1))
