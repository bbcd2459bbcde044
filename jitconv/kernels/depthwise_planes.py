"""Depthwise convolution of stride 1 in NCHW: the lanes are pixels of a row, nothing is transposed.

A tile is a vector of columns of some rows of one plane. It loads each row of the input once for each column of the
kernel, with a mask for what lies outside the image, and adds it to all the rows that it reaches. The gradient of the
input is the same of dy with the kernel flipped; that of the weights multiplies the same loads with dy, and adds lanes
at the end. In `depthwise.py` the lanes are channels, and planes are transposed for it and back: with nine products a
pixel that takes longer than they do.
"""

from __future__ import annotations

import numpy as np
from numba import carray, types
from numba.extending import intrinsic

from .jit import inlined, worker
from .simd import (
    I64,
    POINTER,
    REGISTERS,
    VECTOR_BYTES,
    Vector,
    add_vector,
    at,
    cases,
    i64,
    load,
    record_at,
    store,
    store_i64,
    zero_bytes,
)
from .windows import share

FIELDS = (
    # planes of source (n, c, h, w) and target (n, c, oh, ow); rows and columns of zeros before the image
    "n", "c", "h", "w", "oh", "ow", "top", "left",
    # 1: the taps in reverse; 1: ReLU; 1: the gradient of the bias too
    "flipped", "relu", "bias",
    "scratch",
)  # fmt: skip
GEOMETRY = np.dtype([(name, np.int64) for name in FIELDS])
_geometry = record_at(GEOMETRY)

# The side of the kernels that there are tiles for. The 25 weights of 5x5 do not stay in registers: 14x14 pixels take
# 1.5 times as long as transposed.
SIDE = 3
# Rows of a tile; sides of 7, 14, 28 are whole tiles of 7, where each row that is loaded serves 2.3 rows of the result.
HEIGHTS = (7, 4, 2, 1) if REGISTERS == 32 else (4, 2, 1)


def _masks(builder, vector, column, left, w, ow):
    """Return the masks of the lanes whose pixel lies inside the image and inside the result, for each column."""
    last = builder.sub(ow, column)
    masks = []
    for tap in range(SIDE):
        first = builder.sub(builder.sub(left, i64(tap)), column)
        past = builder.add(first, w)
        past = builder.select(builder.icmp_signed("<", past, last), past, last)
        masks.append(vector.lanes_between(first, past))
    return masks


def _place(builder, row, column, tap, left, size):
    pixel = builder.sub(builder.add(column, i64(tap)), left)
    return at(builder, builder.inttoptr(row, POINTER), builder.mul(pixel, i64(size)))


def _emit_sums(builder, vector, rows, args):
    """Emit one tile of forward."""
    table, w0, w_step, b, y, y_pitch, column, left, w, ow, relu = args
    size = vector.itemsize
    masks = _masks(builder, vector, column, left, w, ow)
    taps = [vector.broadcast(at(builder, w0, builder.mul(w_step, i64(tap)))) for tap in range(SIDE * SIDE)]
    total = [vector.broadcast(b)] * rows
    for line in range(rows + SIDE - 1):
        source = builder.load(builder.gep(table, [i64(line)]))
        for tap in range(SIDE):
            value = vector.load_masked(_place(builder, source, column, tap, left, size), masks[tap])
            for row in range(rows):
                if 0 <= line - row < SIDE:
                    total[row] = vector.fma(value, taps[(line - row) * SIDE + tap], total[row])
    inside = vector.lanes_between(i64(0), builder.sub(ow, column))
    rectifies = builder.icmp_signed("!=", relu, i64(0))
    for row in range(rows):
        result = builder.select(rectifies, vector.relu(total[row]), total[row])
        to = at(builder, y, builder.add(builder.mul(y_pitch, i64(row)), builder.mul(column, i64(size))))
        vector.store_masked(result, to, inside)


@intrinsic
def _tile(typingctx, height, table, w0, w_step, b, y, y_pitch, column, left, w, ow, relu, like):
    """Overwrite a vector of columns of some rows of a plane; `table`: addresses of the rows of source.

    `height`: place in HEIGHTS. Every argument but `like` is an int64.
    """

    def codegen(context, builder, signature, args):
        vector = Vector(builder, signature.args[-1])
        height, table, w0, w_step, b, y, *rest = args[:-1]
        table = builder.inttoptr(table, I64.as_pointer())
        w0, b, y = (builder.inttoptr(address, POINTER) for address in (w0, b, y))
        values = (table, w0, w_step, b, y, *rest)
        for place, _ in cases(builder, height, range(len(HEIGHTS))):
            _emit_sums(builder, vector, HEIGHTS[place], values)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 12, like), codegen


def _emit_products(builder, vector, args):
    """Emit the products of all rows of dy with the rows of x under them."""
    table, rows, dy, dy_pitch, sums, column, left, w, ow = args
    size = vector.itemsize
    masks = _masks(builder, vector, column, left, w, ow)
    inside = vector.lanes_between(i64(0), builder.sub(ow, column))
    places = [at(builder, sums, place * vector.bytes) for place in range(SIDE * SIDE + 1)]
    starts = [vector.load(place) for place in places]
    first = at(builder, dy, builder.mul(column, i64(size)))
    before, loop, done = builder.block, builder.append_basic_block("rows"), builder.append_basic_block("summed")
    builder.branch(loop)

    builder.position_at_end(loop)
    row = builder.phi(I64)
    row.add_incoming(i64(0), before)
    held = [builder.phi(vector.type) for _ in starts]
    for phi, start in zip(held, starts, strict=True):
        phi.add_incoming(start, before)
    gradient = vector.load_masked(at(builder, first, builder.mul(row, dy_pitch)), inside)
    new = []
    for line in range(SIDE):
        source = builder.load(builder.gep(table, [builder.add(row, i64(line))]))
        for tap in range(SIDE):
            value = vector.load_masked(_place(builder, source, column, tap, left, size), masks[tap])
            new.append(vector.fma(value, gradient, held[line * SIDE + tap]))
    new.append(builder.fadd(held[-1], gradient))
    following = builder.add(row, i64(1))
    for phi, value in ((row, following), *zip(held, new, strict=True)):
        phi.add_incoming(value, loop)
    builder.cbranch(builder.icmp_signed("<", following, rows), loop, done)

    builder.position_at_end(done)
    for place, value in zip(places, new, strict=True):
        vector.store(value, place)


@intrinsic
def _add_products(typingctx, table, rows, dy, dy_pitch, sums, column, left, w, ow, like):
    """Add a vector of columns of a plane to its sums: of each tap, then of dy.  Arguments as of `_tile`."""

    def codegen(context, builder, signature, args):
        vector = Vector(builder, signature.args[-1])
        table, rows, dy, dy_pitch, sums, *rest = args[:-1]
        table = builder.inttoptr(table, I64.as_pointer())
        dy, sums = (builder.inttoptr(address, POINTER) for address in (dy, sums))
        _emit_products(builder, vector, (table, rows, dy, dy_pitch, sums, *rest))
        return context.get_dummy_value()

    return types.void(*[types.intp] * 9, like), codegen


@inlined
def _rows_of(plane, g, table, zeros, size):
    """Fill the table with the addresses of the rows of a plane under each row of the result."""
    for i in range(g.oh + SIDE - 1):
        row = i - g.top
        inside = row >= 0 and row < g.h
        store_i64(table + 8 * i, plane + row * g.w * size if inside else zeros)


@worker
def depthwise_planes(like, arguments, thread, threads):
    """Overwrite `target` (n, c, oh, ow) with the sums of taps of `source` (n, c, h, w).

    Arguments: source, w (c, taps), b (c,) or 0, target, geometry, and scratch of `threads` times the geometry's. A
    thread takes some planes.
    """
    source, w, b, target, geometry, scratch = carray(arguments, 6)
    g = _geometry(geometry)
    element = carray(like, 1)
    size = element.itemsize
    lanes = VECTOR_BYTES // size
    zeros = scratch + thread * g.scratch
    table = zeros + (g.w * size + 63) // 64 * 64
    zero_bytes(zeros, g.w * size)
    step = -size if g.flipped else size
    first, past = share(thread, threads, g.n * g.c)
    for plane in range(first, past):
        _rows_of(source + plane * g.h * g.w * size, g, table, zeros, size)
        channel = plane % g.c
        taps = w + channel * SIDE * SIDE * size
        if g.flipped:
            taps += (SIDE * SIDE - 1) * size
        bias = b + channel * size if b else zeros
        row, height = 0, 0
        while row < g.oh:
            while HEIGHTS[height] > g.oh - row:
                height += 1
            to = target + (plane * g.oh + row) * g.ow * size
            for column in range(0, g.ow, lanes):
                _tile(
                    height, table + 8 * row, taps, step, bias, to, g.ow * size, column, g.left, g.w, g.ow,
                    g.relu, element,
                )  # fmt: skip
            row += HEIGHTS[height]


@worker
def depthwise_planes_weights(like, arguments, thread, threads):
    """Overwrite dw (c, taps) and, where the geometry says so, db (c,): sums over the planes of a channel.

    Arguments: x (n, c, h, w), dy (n, c, oh, ow), dw, db, geometry, and scratch of `threads` times the geometry's. A
    thread takes some channels.
    """
    x, dy, dw, db, geometry, scratch = carray(arguments, 6)
    g = _geometry(geometry)
    element = carray(like, 1)
    size = element.itemsize
    lanes = VECTOR_BYTES // size
    area = SIDE * SIDE
    # Sums of one plane, then of all: the rounding error of a large batch stays near that of its planes.
    totals = scratch + thread * g.scratch
    sums = totals + (area + 1) * VECTOR_BYTES
    zeros = sums + (area + 1) * VECTOR_BYTES
    table = zeros + (g.w * size + 63) // 64 * 64
    zero_bytes(zeros, g.w * size)
    first, past = share(thread, threads, g.c)
    for channel in range(first, past):
        zero_bytes(totals, (area + 1) * VECTOR_BYTES)
        for image in range(g.n):
            zero_bytes(sums, (area + 1) * VECTOR_BYTES)
            plane = image * g.c + channel
            _rows_of(x + plane * g.h * g.w * size, g, table, zeros, size)
            for column in range(0, g.ow, lanes):
                _add_products(
                    table, g.oh, dy + plane * g.oh * g.ow * size, g.ow * size, sums, column, g.left, g.w,
                    g.ow, element,
                )  # fmt: skip
            for place in range(0, (area + 1) * VECTOR_BYTES, VECTOR_BYTES):
                add_vector(totals + place, sums + place, element)
        for tap in range(area + 1):
            total = element.dtype.type(0)
            for lane in range(lanes):
                total += load(totals + tap * VECTOR_BYTES + lane * size, element)
            if tap < area:
                store(dw + (channel * area + tap) * size, total, element)
            elif g.bias:
                store(db + channel * size, total, element)
