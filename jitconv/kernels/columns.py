"""im2col and col2im. x is (N, C, H, W), columns (N*OH*OW, C*KH*KW); `g` is the `Window`.

Both go through the matrix, which is KH*KW times the image, in the order of its memory; the few image rows
that a row of windows needs stay in cache. A window inside the image takes one loop over all its C*KH*KW
pixels with a table of their offsets, whatever the kernel: a loop of three taps for each row of a 3x3 window
took three times as long. Each output has one owner, so no bit of a result depends on the number of threads.
"""

from __future__ import annotations

import numpy as np
from numba import carray

from .jit import inlined, step, worker
from .views import floats, int64s
from .windows import FIELDS, outputs_touching, share, taps_inside, window_of


@worker
def im2col(like, arguments, thread, threads):
    """Copy each window into a row of `columns`, overwritten; the padding is 0.

    Arguments: x, columns; offsets (C*KH*KW,), where each pixel of a window lies in an image; N, C, the window.
    """
    a = carray(arguments, 5 + FIELDS)
    g = window_of(a[5:])
    size = a[4] * g.kh * g.kw
    x, columns = floats(a[0], (a[3], a[4], g.h, g.w), like), floats(a[1], (a[3] * g.oh * g.ow, size), like)
    first, past = share(thread, threads, a[3] * g.oh)
    _unfold_rows(x, g, int64s(a[2], (size,)), first, past, columns)


@worker
def col2im(like, arguments, thread, threads):
    """Add each row of `columns` to its window of x, overwritten. Arguments: columns, x; the rest as in im2col."""
    a = carray(arguments, 5 + FIELDS)
    g = window_of(a[5:])
    size = a[4] * g.kh * g.kw
    columns, x = floats(a[0], (a[3] * g.oh * g.ow, size), like), floats(a[1], (a[3], a[4], g.h, g.w), like)
    first, past = share(thread, threads, a[3] * g.h)
    _fold_rows(columns, g, int64s(a[2], (size,)), first, past, x)


@inlined
def _unfold_rows(x, g, offsets, first, past, columns):
    """Copy the rows [first, past) of all images' rows of windows."""
    for row in range(first, past):
        n, oh = row // g.oh, row % g.oh
        image = x[n]
        pixels = image.reshape(image.size)
        start_h = oh * g.stride_h - g.top
        k0, k1 = taps_inside(start_h, g.h, g.kh, g.dilation_h)
        for ow in range(g.ow):
            start_w = ow * g.stride_w - g.left
            l0, l1 = taps_inside(start_w, g.w, g.kw, g.dilation_w)
            target = columns[row * g.ow + ow]
            if k0 == 0 and k1 == g.kh and l0 == 0 and l1 == g.kw:
                start = start_h * g.w + start_w
                for i in range(target.size):
                    target[i] = pixels[np.uint64(start + offsets[i])]
            else:
                _unfold_edge(image, g, start_h, start_w, k0, k1, l0, l1, target)


@step
def _unfold_edge(image, g, start_h, start_w, k0, k1, l0, l1, target):
    """Copy a window of which only the taps [k0, k1) x [l0, l1) lie inside the image."""
    for i in range(target.size):
        target[i] = 0
    for c in range(image.shape[0]):
        for k in range(k0, k1):
            pixels = image[c, start_h + k * g.dilation_h]
            for tap_w in range(l0, l1):
                target[(c * g.kh + k) * g.kw + tap_w] = pixels[start_w + tap_w * g.dilation_w]


@inlined
def _fold_rows(columns, g, offsets, first, past, x):
    """Fill the rows [first, past) of all images' rows, in every channel."""
    size = g.oh * g.ow
    while first < past:
        n = first // g.h
        row0 = first - n * g.h
        row1 = min(g.h, row0 + past - first)
        _fold_image(columns[n * size : (n + 1) * size], g, offsets, row0, row1, x[n])
        first += row1 - row0


@step
def _fold_image(columns, g, offsets, row0, row1, image):
    """Fill the rows [row0, row1) of an image. columns (OH*OW, C*KH*KW); image (C, H, W)."""
    for c in range(image.shape[0]):
        for h in range(row0, row1):
            image[c, h] = 0
    pixels = image.reshape(image.size)
    oh0, oh1 = outputs_touching(row0, row1, g)
    for oh in range(oh0, oh1):
        start_h = oh * g.stride_h - g.top
        inside_h = start_h >= row0 and start_h + (g.kh - 1) * g.dilation_h < row1
        for ow in range(g.ow):
            start_w = ow * g.stride_w - g.left
            source = columns[oh * g.ow + ow]
            if inside_h and start_w >= 0 and start_w + (g.kw - 1) * g.dilation_w < g.w:
                start = start_h * g.w + start_w
                for i in range(source.size):
                    pixels[np.uint64(start + offsets[i])] += source[i]
            else:
                _fold_edge(source, g, start_h, start_w, row0, row1, image)


@step
def _fold_edge(source, g, start_h, start_w, row0, row1, image):
    """Add the taps of a window that lie in the rows [row0, row1) and in the image."""
    k0, k1 = taps_inside(start_h, g.h, g.kh, g.dilation_h)
    l0, l1 = taps_inside(start_w, g.w, g.kw, g.dilation_w)
    for c in range(image.shape[0]):
        for k in range(k0, k1):
            h = start_h + k * g.dilation_h
            if row0 <= h < row1:
                for tap_w in range(l0, l1):
                    image[c, h, start_w + tap_w * g.dilation_w] += source[(c * g.kh + k) * g.kw + tap_w]
