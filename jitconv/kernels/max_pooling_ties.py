"""Max pooling, backward, where every pixel that equals its window's largest gets a gradient.

Each thread owns rows of dx, and the sum over the windows of a pixel goes by output rows and columns: the number of
threads does not change a bit. Planes are images of one channel.
"""

from __future__ import annotations

from numba import carray, types
from numba.extending import intrinsic

from .jit import inlined, step, worker
from .pool_lanes import Lanes, place, rolled
from .simd import at, i64, load, store, zero_bytes
from .windows import FIELDS, outputs_touching, share, taps_inside, window_of


@intrinsic
def _add_equal(typingctx, total, terms, x, y, count, like):
    """Add `count` terms, or ones if their address is 0, to totals where x equals y."""

    def codegen(context, builder, signature, args):
        lanes = Lanes(builder, signature.args[-1])
        total, terms, x, y = (place(builder, address) for address in args[:4])
        ones = builder.icmp_signed("==", args[1], i64(0))
        vectors = builder.sdiv(builder.add(args[4], i64(lanes.lanes - 1)), i64(lanes.lanes))
        with rolled(builder, vectors) as vector:
            done = builder.mul(vector.index, i64(lanes.lanes))
            offset = builder.mul(done, i64(lanes.itemsize))
            mask = lanes.first_lanes(builder.sub(args[4], done))
            values, largest, held = (lanes.read(at(builder, each, offset), mask, 0.0) for each in (x, y, total))
            # Without terms those of y are read, and not used.
            read = lanes.read(at(builder, builder.select(ones, y, terms), offset), mask, 0.0)
            added = builder.fadd(held, builder.select(ones, lanes.fill(1.0), read))
            equal = builder.fcmp_ordered("==", values, largest)
            lanes.store_masked(builder.select(equal, added, held), at(builder, total, offset), mask)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 5, like), codegen


@inlined
def _windows_inside(offset, g):
    """Return the half-open range of windows of a row whose pixel at `offset` lies in the image."""
    first = max(0, (g.stride_w - 1 - offset) // g.stride_w)
    return first, max(first, min(g.ow, (g.w - 1 - offset) // g.stride_w + 1))


@step
def _add_row(total, total_stride, terms, x, y, g, channels, like):
    """Add the terms of a row of windows (OW, C), or ones, where the pixels of a row of x (W, C) equal y, tap by tap.

    `total` is a row of pixels, as x, if `total_stride` is the window's stride, and a row of windows if it is 0.
    """
    size = like.itemsize
    one, zero = like.dtype.type(1), like.dtype.type(0)
    for tap in range(g.kw):
        offset = tap * g.dilation_w - g.left
        ow0, ow1 = _windows_inside(offset, g)
        for ow in range(ow0, ow1):
            window, pixel = ow * channels * size, (ow * g.stride_w + offset) * channels * size
            to = total + (pixel if total_stride > 0 else window)
            term = terms + window if terms != 0 else terms
            if channels > 1:
                _add_equal(to, term, x + pixel, y + window, channels, like)
                continue
            # No branch, which nobody could predict.
            added = load(term, like) if terms != 0 else one
            equal = load(x + pixel, like) == load(y + window, like)
            store(to, load(to, like) + (added if equal else zero), like)


@worker
def max_pool_shares(like, arguments, thread, threads):
    """Divide dy among the largest pixels of each window. Arguments: dy (N, OH, OW, C), y like it; x (N, H, W, C);
    shares, like dy, overwritten; N, C, the window.
    """
    a = carray(arguments, 6 + FIELDS)
    g = window_of(a[6:])
    dy, y, x, shares, images, channels = a[0], a[1], a[2], a[3], a[4], a[5]
    one = carray(like, 1)
    size = one.itemsize
    windows, pixels = g.ow * channels * size, g.w * channels * size
    first, past = share(thread, threads, images * g.oh)
    for row in range(first, past):
        image, start = row // g.oh, row % g.oh * g.stride_h - g.top
        here = shares + row * windows
        zero_bytes(here, windows)
        k0, k1 = taps_inside(start, g.h, g.kh, g.dilation_h)
        for k in range(k0, k1):
            source = x + (image * g.h + start + k * g.dilation_h) * pixels
            _add_row(here, 0, 0, source, y + row * windows, g, channels, one)
        for i in range(0, windows, size):
            count = load(here + i, one)
            store(here + i, load(dy + row * windows + i, one) / max(count, one.dtype.type(1)), one)


@worker
def max_pool_backward_ties(like, arguments, thread, threads):
    """Add dy at each pixel that equals y. Arguments: dy (N, OH, OW, C), y like it; x (N, H, W, C); dx like it,
    overwritten; N, C, the window.
    """
    a = carray(arguments, 6 + FIELDS)
    g = window_of(a[6:])
    dy, y, x, dx, images, channels = a[0], a[1], a[2], a[3], a[4], a[5]
    one = carray(like, 1)
    windows, pixels = g.ow * channels * one.itemsize, g.w * channels * one.itemsize
    first, past = share(thread, threads, images * g.h)
    for row in range(first, past):
        image, h = row // g.h, row % g.h
        zero_bytes(dx + row * pixels, pixels)
        oh0, oh1 = outputs_touching(h, h + 1, g)
        for oh in range(oh0, oh1):
            down = h - oh * g.stride_h + g.top
            if down >= 0 and down % g.dilation_h == 0 and down < g.kh * g.dilation_h:
                source = (image * g.oh + oh) * windows
                _add_row(dx + row * pixels, g.stride_w, dy + source, x + row * pixels, y + source, g, channels, one)
