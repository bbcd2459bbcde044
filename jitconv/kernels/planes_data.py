"""Backward-data of few input channels in NCHW: what each pixel of dy brings to each tap, then the taps are added.

The tile's rows are the taps of all channels of dx, its lanes pixels of planes of dy, where they lie, and k runs over
those planes; the weights are read as they are. An image belongs to one thread, which adds the rows of products to its
planes of dx, tap after tap. As a correlation (`planes.py`) 1 channel would fill 1 of the 4 rows of the lowest tile: 30
planes of 24x24 pixels, 5x5, take it 5 times as long.
"""

from __future__ import annotations

import numpy as np
from numba import carray, types
from numba.extending import intrinsic

from .jit import inlined, step, worker
from .simd import POINTER, VECTOR_BYTES, Vector, add_vector, i64, load, record_at, store, zero_bytes
from .tile import sweep
from .windows import share

FIELDS = (
    # the arrays
    "n", "c", "h", "w", "f", "oh", "ow",
    # the window
    "kh", "kw", "stride_h", "stride_w", "top", "left", "dilation_h", "dilation_w",
    # strips of rows of dy in an image, vectors of a run of its pixels, bytes of a row of products
    "strips", "vectors", "pitch",
    # tables: offsets of one tap, of the taps in the weights and in the products
    "zero_at", "a_table", "c_table",
    # of a thread's scratch: the row of zeros, what `sweep` needs, the products
    "zeros_at", "spare_at", "products_at", "scratch",
)  # fmt: skip
GEOMETRY = np.dtype([(name, np.int64) for name in FIELDS])
_geometry = record_at(GEOMETRY)


@intrinsic
def _add_lanes(typingctx, target, source, count, like):
    """Add the first `count` lanes of a vector to those of another; no other byte is touched."""

    def codegen(context, builder, signature, args):
        vector = Vector(builder, signature.args[3])
        target, source = builder.inttoptr(args[0], POINTER), builder.inttoptr(args[1], POINTER)
        mask = vector.lanes_between(i64(0), args[2])
        total = builder.fadd(vector.load_masked(target, mask), vector.load_masked(source, mask))
        vector.store_masked(total, target, mask)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 3, like), codegen


@inlined
def _inside(first, past, size, stride, offset):
    """Return the part of [first, past) whose tap, `offset` pixels from the window's first, lies inside an axis."""
    return max(first, (stride - 1 - offset) // stride), min(past, (size - 1 - offset) // stride + 1)


@step
def _add_rows(target, target_pitch, source, source_pitch, rows, count, stride, like):
    """Add rows of `count` products to every `stride`-th element of rows of dx."""
    size = like.itemsize
    lanes = VECTOR_BYTES // size
    whole = count // lanes * lanes if stride == 1 else 0
    for _ in range(rows):
        for i in range(0, whole, lanes):
            add_vector(target + i * size, source + i * size, like)
        if stride == 1:
            if count > whole:
                _add_lanes(target + whole * size, source + whole * size, count - whole, like)
        else:
            for i in range(count):
                to = target + i * stride * size
                store(to, load(to, like) + load(source + i * size, like), like)
        target += target_pitch
        source += source_pitch


@step
def _add_strip(products, dx, g, first, past, like):
    """Add the products of the rows [first, past) of dy to the planes of an image of dx."""
    size = like.itemsize
    for c in range(g.c):
        for k in range(g.kh):
            down = k * g.dilation_h - g.top
            oh0, oh1 = _inside(first, past, g.h, g.stride_h, down)
            for tap in range(g.kw):
                across = tap * g.dilation_w - g.left
                ow0, ow1 = _inside(0, g.ow, g.w, g.stride_w, across)
                if oh1 > oh0 and ow1 > ow0:
                    pixel = (c * g.h + oh0 * g.stride_h + down) * g.w + ow0 * g.stride_w + across
                    source = products + ((c * g.kh + k) * g.kw + tap) * g.pitch + ((oh0 - first) * g.ow + ow0) * size
                    _add_rows(
                        dx + pixel * size, g.stride_h * g.w * size, source, g.ow * size, oh1 - oh0, ow1 - ow0,
                        g.stride_w, like,
                    )  # fmt: skip


@step
def _start_image(dx, bias, g, like):
    """Fill the planes of an image of dx with the bias, zeros if there is none."""
    size = like.itemsize
    plane = g.h * g.w * size
    if bias == 0:
        zero_bytes(dx, g.c * plane)
        return
    for c in range(g.c):
        value = load(bias + c * size, like)
        for at in range(dx + c * plane, dx + (c + 1) * plane, size):
            store(at, value, like)


@inlined
def _image(dy, w, bias, dx, g, tables, scratch, like):
    """Fill one image of dx; `dy` and `dx` are the addresses of the image's planes."""
    size = like.itemsize
    lanes = VECTOR_BYTES // size
    taps, plane = g.c * g.kh * g.kw, g.oh * g.ow * size
    products = scratch + g.products_at
    _start_image(dx, bias, g, like)
    for strip in range(g.strips):
        first, past = share(strip, g.strips, g.oh)
        source, pixels = dy + first * g.ow * size, (past - first) * g.ow
        for col in range(0, pixels, g.vectors * lanes):
            # The last run ends with the strip, over pixels of the one before.
            start = min(col, pixels - g.vectors * lanes)
            sweep(
                g.vectors, taps, 1, tables + 8 * g.zero_at, g.f, w, tables + 8 * g.a_table, taps * size,
                source + start * size, tables + 8 * g.zero_at, plane, products + start * size, tables + 8 * g.c_table,
                scratch + g.zeros_at, 0, source + (start + g.vectors * lanes) * size, plane, scratch + g.spare_at, like,
            )  # fmt: skip
        _add_strip(products, dx, g, first, past, like)


@worker
def planes_data(like, arguments, thread, threads):
    """Overwrite dx (n, c, h, w) with the gradient of a convolution's input, plus the bias.

    Arguments: dy (n, f, oh, ow), w (f, c, kh, kw), bias (c,) or 0, dx, geometry, tables, and scratch of `threads` times
    the geometry's scratch bytes.
    """
    dy, w, bias, dx, geometry, tables, scratch = carray(arguments, 7)
    g = _geometry(geometry)
    a = carray(like, 1)
    own = scratch + thread * g.scratch
    zero_bytes(own + g.zeros_at, g.spare_at - g.zeros_at)
    first, past = share(thread, threads, g.n)
    for image in range(first, past):
        source, target = image * g.f * g.oh * g.ow * a.itemsize, image * g.c * g.h * g.w * a.itemsize
        _image(dy + source, w, bias, dx + target, g, tables, own, a)
