"""Backward-weights of a few input channels in NCHW, without transposing: the lanes are pixels, as in `planes.py`.

A weight's gradient is the product, pixel by pixel, of a plane of dy and of a plane of x moved by the tap. Both are
read as vectors, and a tile of planes of dy by taps keeps its sums, a vector each, in registers; their lanes are added
once, at the end. In `weights.py` the lanes are output channels, and dy is transposed for them: with as few products as
a first layer has, that is what takes the time.

x is copied once for each column of the kernel, with its padding, to rows of dy's width: so a strip of dy is one run of
pixels, and under each tap x is one too. A strip is some rows of an image. Chunks of strips have sums of their own,
which are added in order at the end.
"""

from __future__ import annotations

import numpy as np
from numba import carray, types
from numba.extending import intrinsic

from .jit import inlined, worker
from .layout import copy_row
from .simd import (
    I64,
    POINTER,
    REGISTERS,
    VECTOR_BYTES,
    Vector,
    add_rows,
    add_vector,
    at,
    cases,
    emit_prefetch,
    i64,
    load,
    record_at,
    store,
    transpose_block,
    zero_bytes,
)
from .windows import share

FIELDS = (
    # x (n, c, h, w), dy (n, f, oh, ow)
    "n", "c", "h", "w", "oh", "ow", "f",
    # a strip: `rows` rows of dy, `row_strips` to an image; chunks of strips
    "rows", "row_strips", "chunks",
    # the kernel's columns and the step between them; input pixel of the first tap of pixel 0; rows under one row of dy
    "columns", "dilation_w", "origin_h", "origin_w", "span",
    # bytes of a copy of a plane of x; offset of each tap in the copies
    "plane_pitch",
    # which of SHAPES; planes of dy and taps, each rounded up to whole tiles, and taps as they are; of the tables of
    # their offsets, in which the last one stands for those past it
    "shape", "rounded_f", "rounded_taps", "taps", "plane_table", "tap_table",
    "bias", "sums_bytes", "scratch",
)  # fmt: skip
GEOMETRY = np.dtype([(name, np.int64) for name in FIELDS])
_geometry = record_at(GEOMETRY)

# Tiles, planes of dy x taps: sums, planes of dy and one of x are 31 registers at the most (13 of 16).
SHAPES = ((3, 9), (5, 5)) if REGISTERS == 32 else ((3, 3), (2, 5))


def _emit(builder, vector, shape, end, args):
    """Emit one tile at the builder's position and leave for the block `end`."""
    rows, taps = shape
    whole, rest, dy, planes, x, tap_table, sums, sums_pitch, ahead = args
    places = [[at(builder, sums, builder.add(builder.mul(sums_pitch, i64(m)), i64(t * vector.bytes)))
               for t in range(taps)] for m in range(rows)]  # fmt: skip
    starts = [[vector.load(place) for place in row] for row in places]
    a = [at(builder, dy, builder.load(builder.gep(planes, [i64(m)]))) for m in range(rows)]
    b = [at(builder, x, builder.load(builder.gep(tap_table, [i64(t)]))) for t in range(taps)]
    names = ("vectors", "rest", "masked", "store")
    block = {name: builder.append_basic_block(f"{name}{rows}x{taps}") for name in names}
    before = builder.block

    def products(read, held):
        left = [read(pointer) for pointer in a]
        new = [list(row) for row in held]
        for t in range(taps):
            right = read(b[t])
            for m in range(rows):
                new[m][t] = vector.fma(left[m], right, held[m][t])
        return new

    def phis(values, source):
        made = [[builder.phi(vector.type) for _ in row] for row in values]
        feed(made, values, source)
        return made

    def feed(made, values, source):
        for phi_row, value_row in zip(made, values, strict=True):
            for phi, value in zip(phi_row, value_row, strict=True):
                phi.add_incoming(value, source)

    end_place = builder.mul(whole, i64(vector.bytes))
    builder.cbranch(builder.icmp_signed(">", whole, i64(0)), block["vectors"], block["rest"])
    builder.position_at_end(block["vectors"])
    place = builder.phi(I64)
    place.add_incoming(i64(0), before)
    held = phis(starts, before)
    for pointer in a:
        emit_prefetch(builder, at(builder, at(builder, pointer, ahead), place))
    new = products(lambda pointer: vector.load(at(builder, pointer, place)), held)
    place_next = builder.add(place, i64(vector.bytes))
    place.add_incoming(place_next, block["vectors"])
    feed(held, new, block["vectors"])
    builder.cbranch(builder.icmp_signed("<", place_next, end_place), block["vectors"], block["rest"])

    builder.position_at_end(block["rest"])
    so_far = phis(starts, before)
    feed(so_far, new, block["vectors"])
    builder.cbranch(builder.icmp_signed(">", rest, i64(0)), block["masked"], block["store"])
    builder.position_at_end(block["masked"])
    mask = vector.lanes_between(i64(0), rest)
    last = products(lambda pointer: vector.load_masked(at(builder, pointer, end_place), mask), so_far)
    builder.branch(block["store"])

    builder.position_at_end(block["store"])
    total = phis(so_far, block["rest"])
    feed(total, last, block["masked"])
    for place_row, total_row in zip(places, total, strict=True):
        for pointer, value in zip(place_row, total_row, strict=True):
            vector.store(value, pointer)
    builder.branch(end)


@intrinsic
def dot_tile(typingctx, shape, whole, rest, dy, planes, x, taps, sums, sums_pitch, ahead, like):
    """Add the products of some planes of dy and x under some taps to their sums.

    `whole` vectors, then `rest` lanes; `planes`, `taps`: tables of offsets; `ahead`: how far on lie the planes
    that will be needed next. Every argument but `like` is an int64.
    """

    def codegen(context, builder, signature, args):
        vector = Vector(builder, signature.args[-1])
        shape, whole, rest, dy, planes, x, taps, sums, sums_pitch, ahead, _ = args
        dy, x, sums = (builder.inttoptr(address, POINTER) for address in (dy, x, sums))
        planes, taps = (builder.inttoptr(table, I64.as_pointer()) for table in (planes, taps))
        values = whole, rest, dy, planes, x, taps, sums, sums_pitch, ahead
        for place, end in cases(builder, shape, range(len(SHAPES))):
            _emit(builder, vector, SHAPES[place], end, values)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 10, like), codegen


@inlined
def _add_bias(dy, whole, rest, total, like):
    """Add a run of dy, whole vectors and some lanes, to a vector."""
    size = like.itemsize
    add_rows(dy, VECTOR_BYTES, whole, total, like)
    for lane in range(rest):
        place = total + lane * size
        store(place, load(place, like) + load(dy + whole * VECTOR_BYTES + lane * size, like), like)


@inlined
def _copy_plane(plane, g, first, rows, left, to, like):
    """Copy rows of a plane of x, of dy's width from a column on that may lie outside it, where the copy holds zeros."""
    size = like.itemsize
    zero = like.dtype.type(0)
    begin, end = max(left, 0), min(left + g.ow, g.w)
    for row in range(first, first + rows):
        if row < 0 or row >= g.h or end <= begin:
            zero_bytes(to, g.ow * size)
        else:
            for i in range(begin - left):
                store(to + i * size, zero, like)
            for i in range(end - left, g.ow):
                store(to + i * size, zero, like)
            copy_row(to + (begin - left) * size, plane + (row * g.w + begin) * size, end - begin, like)
        to += g.ow * size


@worker
def planes_weights(like, arguments, thread, threads):
    """Overwrite `sums`, [chunk][plane of dy][taps, then the bias][lane].

    Arguments: x, dy, geometry, tables, sums, and scratch of `threads` times the geometry's.
    """
    x, dy, geometry, tables, sums, scratch = carray(arguments, 6)
    g = _geometry(geometry)
    element = carray(like, 1)
    size = element.itemsize
    lanes = VECTOR_BYTES // size
    tile_planes, tile_taps = SHAPES[g.shape]
    own = scratch + thread * g.scratch
    row_pitch = g.ow * size
    sums_pitch = (g.rounded_taps + 1) * VECTOR_BYTES
    strips = g.n * g.row_strips
    first_chunk, past_chunk = share(thread, threads, g.chunks)
    for chunk in range(first_chunk, past_chunk):
        into = sums + chunk * g.sums_bytes
        zero_bytes(into, g.sums_bytes)
        begin, end = share(chunk, g.chunks, strips)
        for strip in range(begin, end):
            image, first = strip // g.row_strips, strip % g.row_strips * g.rows
            rows = min(g.rows, g.oh - first)
            for copy in range(g.c * g.columns):
                plane, column = copy // g.columns, copy % g.columns
                _copy_plane(
                    x + (image * g.c + plane) * g.h * g.w * size, g, first + g.origin_h, rows - 1 + g.span,
                    g.origin_w + column * g.dilation_w, own + copy * g.plane_pitch, element,
                )  # fmt: skip
            whole, rest = rows * g.ow // lanes, rows * g.ow % lanes
            dy_pitch = g.oh * g.ow * size
            planes = dy + image * g.f * dy_pitch + first * row_pitch
            for f in range(0, g.rounded_f, tile_planes):
                for tap in range(0, g.rounded_taps, tile_taps):
                    dot_tile(
                        g.shape, whole, rest, planes, tables + 8 * (g.plane_table + f), own,
                        tables + 8 * (g.tap_table + tap), into + f * sums_pitch + tap * VECTOR_BYTES, sums_pitch,
                        tile_planes * dy_pitch, element,
                    )  # fmt: skip
            if g.bias:
                for f in range(g.f):
                    total = into + f * sums_pitch + g.rounded_taps * VECTOR_BYTES
                    _add_bias(planes + f * dy_pitch, whole, rest, total, element)


@worker
def reduce_planes(like, arguments, thread, threads):
    """Overwrite dw (f, taps) and, where the geometry says so, db (f,) with the sums of chunks and lanes.

    Arguments: geometry, sums, which are changed, dw, db, and scratch of `threads` squares of vectors and a vector.
    """
    geometry, sums, dw, db, scratch = carray(arguments, 5)
    g = _geometry(geometry)
    element = carray(like, 1)
    size = element.itemsize
    lanes = VECTOR_BYTES // size
    square = scratch + thread * (lanes + 1) * VECTOR_BYTES
    totals = square + lanes * VECTOR_BYTES
    row = g.rounded_taps + 1
    begin, end = share(thread, threads, g.sums_bytes // VECTOR_BYTES // lanes)
    for group in range(begin, end):
        first = group * lanes
        for index in range(first, first + lanes):
            for chunk in range(1, g.chunks):
                add_vector(sums + index * VECTOR_BYTES, sums + chunk * g.sums_bytes + index * VECTOR_BYTES, element)
        transpose_block(sums + first * VECTOR_BYTES, VECTOR_BYTES, square, VECTOR_BYTES, element)
        zero_bytes(totals, VECTOR_BYTES)
        add_rows(square, VECTOR_BYTES, lanes, totals, element)
        for lane in range(lanes):
            f, tap = (first + lane) // row, (first + lane) % row
            value = load(totals + lane * size, element)
            if f < g.f and tap < g.taps:
                store(dw + (f * g.taps + tap) * size, value, element)
            elif f < g.f and tap == g.rounded_taps and g.bias:
                store(db + f * size, value, element)
