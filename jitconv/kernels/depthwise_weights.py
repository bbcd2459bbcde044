"""Depthwise convolution and narrow groups, gradients of weights and bias: sums of x under a tap times dy.

The lanes of a vector are channels of dy, as in `depthwise.py`; a tap has a sum for each channel of x's group. A tile
adds a run of pixels of one row of dy, times the taps of one kernel row, to sums in scratch; it holds them in registers
along the run and goes over the kernel's rows, and over the vectors of channels or the rows of dy. The bias is one more
tap, under which x is 1. Border pixels are runs of their own with the taps that lie inside the image. Chunks of rows
have sums of their own, which are added in order at the end.
"""

from __future__ import annotations

import numpy as np
from numba import carray, types
from numba.extending import intrinsic

from .depthwise import alike, gather_strip, source_rows
from .depthwise_tiles import WIDTHS
from .jit import inlined, step, worker
from .simd import (
    POINTER,
    REGISTERS,
    VECTOR_BYTES,
    Vector,
    add_vector,
    at,
    cases,
    emit_prefetch,
    i64,
    load,
    load_i64,
    record_at,
    store,
    zero_bytes,
)
from .windows import share

FIELDS = (
    # x (n, h, w, c), dy (n, oh, ow, c), and the taps of a kernel
    "n", "c", "h", "w", "oh", "ow", "area",
    # a unit is a chunk of the rows of all images and a block of the vectors of channels
    "chunks", "blocks",
    # channels of a group
    "width",
    # of the tables, of which the rows begin at 0; and the first tile of `_kinds` for a vector that is not whole
    "segments", "segments_at", "masked",
    # bytes: from a row of taps to the next in x and in the sums, and between pixels under one tap
    "row_step", "w_row", "x_pitch",
    # whether to add up the bias, and to ask for the next row ahead
    "bias", "far",
    # bytes of the sums of one chunk, and of the vectors of ones at the start of a thread's scratch
    "sums_bytes", "ones_bytes",
    # bytes of a pixel in memory or, for NCHW, in scratch, where the strips of so many rows lie
    "pixel", "stride", "rows", "x_at", "dy_at", "scratch",
)  # fmt: skip
GEOMETRY = np.dtype([(name, np.int64) for name in FIELDS])
_geometry = record_at(GEOMETRY)

# Columns of the tables. A row: bytes from the image to the first row of x, rows of taps, bytes to the first in the
# sums. A segment: place in `_kinds`; bytes from the row to x, to dy and to the first tap; pixels.
ROW_COLUMNS, SEGMENT_COLUMNS = 3, 5

# (columns of taps, stride, pixels at once, sets of sums): more than one set, or the sums would wait for one another.
TILES = ((1, 1, 8, 4), (2, 1, 4, 2), (3, 1, 4, 2), (3, 2, 4, 2), (5, 1, 4, 1), (5, 2, 4, 1))
# Sums of one set that a tile holds in registers, and in two sets or more.
HELD, HELD_SETS = REGISTERS * 3 // 4, REGISTERS // 2


def tiles(width: int) -> tuple[tuple[int, int, int, int], ...]:
    """Return the tiles for whole vectors of groups of a width, as TILES; the first is always there."""
    fit = []
    for columns, stride, pixels, sets in TILES:
        sums = columns * width
        if columns == 1 or sums <= HELD:
            fewer = max(1, min(sets, HELD_SETS // sums))
            fit.append((columns, stride, min(pixels, 4 * fewer) if sums <= HELD_SETS else 2, fewer))
    return tuple(fit)


def masked_from(width: int) -> int:
    """Return the place of the first tile for a vector of which only some lanes exist."""
    return 1 + len(tiles(width))


def _kinds(width):
    """Return every tile: (channels of a group, columns, stride, pixels, sets, whether only some lanes exist).

    The bias comes first: its sums are those of single channels, x being 1.
    """
    whole = [(1, *TILES[0]), *((width, *tile) for tile in tiles(width))]
    return [(*tile, False) for tile in whole] + [(*tile[:3], 2, 1 + (tile[0] == 1), True) for tile in whole]


def _emit(builder, vector, kind, end, args):
    """Emit one tile at the builder's position, for vector after vector, and leave for the block `end`."""
    width, columns, stride, pixels, sets, masked = kind
    vectors, lanes, n_rows, count, x0, x_step, row_step, col_step, x_pitch, dy0, dy_step, dy_pitch, sums0, *rest = args
    step, w_row, far = rest
    if masked:
        mask = vector.lanes_between(i64(0), lanes)

    def read(pointer):
        return vector.load_masked(pointer, mask) if masked else vector.load(pointer)

    def read_channels(pointer):
        """Return, for each channel of a group, that channel of the pixel in all lanes of its group."""
        if width == vector.lanes:
            return [vector.broadcast(at(builder, pointer, j * vector.itemsize)) for j in range(width)]
        value = read(pointer)
        return [vector.spread(value, width, j) for j in range(width)]

    def add(sums, values, gradient):
        return [vector.fma(value, gradient, total) for total, value in zip(sums, values, strict=True)]

    def phi(value, block):
        made = builder.phi(value.type)
        made.add_incoming(value, block)
        return made

    before = builder.block
    names = ("vector", "row", "many", "rest", "one", "row_end", "vector_end")
    block = {name: builder.append_basic_block(f"{name}{columns}_{stride}_{masked}") for name in names}
    # Sums: those of the channels of a group under the first tap, then under the next.
    at_tap = [slice(j * width, (j + 1) * width) for j in range(columns)]
    whole = builder.mul(builder.sdiv(count, i64(pixels)), i64(pixels))
    builder.branch(block["vector"])

    builder.position_at_end(block["vector"])
    v, x, dy, sums = (phi(value, before) for value in (i64(0), x0, dy0, sums0))
    builder.branch(block["row"])

    builder.position_at_end(block["row"])
    i, x_row, at_row = (phi(value, block["vector"]) for value in (i64(0), x, sums))
    places = [at(builder, at_row, j * vector.bytes) for j in range(columns * width)]
    builder.cbranch(builder.icmp_signed(">", whole, i64(0)), block["many"], block["rest"])

    builder.position_at_end(block["many"])
    done, x_at, dy_at = (phi(value, block["row"]) for value in (i64(0), x_row, dy))
    held = [[phi(vector.zero, block["row"]) for _ in range(columns * width)] for _ in range(sets)]
    new = [list(one) for one in held]
    gradients = [read(at(builder, dy_at, builder.mul(dy_pitch, i64(pixel)))) for pixel in range(pixels)]
    if columns == 1:
        for pixel in range(pixels):
            values = read_channels(at(builder, x_at, builder.mul(x_pitch, i64(pixel))))
            new[pixel % sets] = add(new[pixel % sets], values, gradients[pixel])
    else:
        for q in range((pixels - 1) * stride + columns):
            values = read_channels(at(builder, x_at, builder.mul(col_step, i64(q))))
            for j in range(columns):
                pixel, rest = divmod(q - j, stride)
                if rest == 0 and 0 <= pixel < pixels:
                    own = new[pixel % sets]
                    own[at_tap[j]] = add(own[at_tap[j]], values, gradients[pixel])
    done_next = builder.add(done, i64(pixels))
    x_next = at(builder, x_at, builder.mul(x_pitch, i64(pixels)))
    dy_next = at(builder, dy_at, builder.mul(dy_pitch, i64(pixels)))
    pairs = [(done, done_next), (x_at, x_next), (dy_at, dy_next)]
    for one, other in zip(held, new, strict=True):
        pairs += zip(one, other, strict=True)
    for name, value in pairs:
        name.add_incoming(value, block["many"])
    totals = list(new[0])
    for other in new[1:]:
        totals = [builder.fadd(a, b) for a, b in zip(totals, other, strict=True)]
    builder.cbranch(builder.icmp_signed("<", done_next, whole), block["many"], block["rest"])

    builder.position_at_end(block["rest"])
    done_rest, x_rest, dy_rest = (phi(value, block["row"]) for value in (i64(0), x_row, dy))
    start = [phi(vector.zero, block["row"]) for _ in range(columns * width)]
    for name, value in zip([done_rest, x_rest, dy_rest, *start], [done_next, x_next, dy_next, *totals], strict=True):
        name.add_incoming(value, block["many"])
    builder.cbranch(builder.icmp_signed("<", done_rest, count), block["one"], block["row_end"])

    builder.position_at_end(block["one"])
    done_one, x_one, dy_one = (phi(value, block["rest"]) for value in (done_rest, x_rest, dy_rest))
    single = [phi(value, block["rest"]) for value in start]
    gradient = read(dy_one)
    added = []
    for j in range(columns):
        added += add(single[at_tap[j]], read_channels(at(builder, x_one, builder.mul(col_step, i64(j)))), gradient)
    following = builder.add(done_one, i64(1))
    pairs = [(done_one, following), (x_one, at(builder, x_one, x_pitch)), (dy_one, at(builder, dy_one, dy_pitch))]
    for name, value in (*pairs, *zip(single, added, strict=True)):
        name.add_incoming(value, block["one"])
    builder.cbranch(builder.icmp_signed("<", following, count), block["one"], block["row_end"])

    builder.position_at_end(block["row_end"])
    final = [phi(value, block["rest"]) for value in start]
    for name, value in zip(final, added, strict=True):
        name.add_incoming(value, block["one"])
    for place, value in zip(places, final, strict=True):
        vector.store(builder.fadd(vector.load(place), value), place)
    i_next = builder.add(i, i64(1))
    for name, value in ((i, i_next), (x_row, at(builder, x_row, row_step)), (at_row, at(builder, at_row, w_row))):
        name.add_incoming(value, block["row_end"])
    builder.cbranch(builder.icmp_signed("<", i_next, n_rows), block["row"], block["vector_end"])

    builder.position_at_end(block["vector_end"])
    v_next = builder.add(v, i64(1))
    if columns > 1:
        _ask_ahead(builder, vector, block, count, x_row, row_step, x_pitch, col_step, stride, far)
    steps = ((v, v_next), *((name, at(builder, name, by)) for name, by in ((x, x_step), (dy, dy_step))))
    for name, value in (*steps, (sums, at(builder, sums, step))):
        name.add_incoming(value, builder.block)
    builder.cbranch(builder.icmp_signed("<", v_next, vectors), block["vector"], end)


def _ask_ahead(builder, vector, block, count, x_row, row_step, x_pitch, col_step, stride, far):
    """Prefetch the rows of x that the next row of dy needs; `far` is 0 or 1."""
    loop, after = builder.append_basic_block("ahead"), builder.append_basic_block("asked")
    entry, below = builder.block, at(builder, x_row, row_step)
    builder.cbranch(builder.icmp_signed("!=", far, i64(0)), loop, after)
    builder.position_at_end(loop)
    pixel, pointer = builder.phi(count.type), builder.phi(x_row.type)
    pixel.add_incoming(i64(0), entry)
    pointer.add_incoming(below, entry)
    for line in range(stride):
        for column in range(stride):
            place = at(builder, pointer, builder.mul(row_step, i64(line)))
            emit_prefetch(builder, at(builder, place, builder.mul(col_step, i64(column))), 3)
    following = builder.add(pixel, i64(1))
    pixel.add_incoming(following, loop)
    pointer.add_incoming(at(builder, pointer, x_pitch), loop)
    builder.cbranch(builder.icmp_signed("<", following, count), loop, after)
    builder.position_at_end(after)


@intrinsic(prefer_literal=True)
def _tiles(
    typingctx, width, kind, count, lanes, rows, pixels, x, x_step, row_step, col_step, x_pitch, dy, dy_step, dy_pitch,
    sums, sums_step, w_row, far, like,
):  # fmt: skip
    """Add `pixels` pixels of a row of dy, for `rows` rows of taps, to the sums: `count` times.

    The next time is x_step, dy_step, sums_step further: the next vector of channels, or the next row of dy. `lanes`:
    how many of a masked vector exist. Every argument but `like` is an int64; steps are in bytes. `width`: channels of
    a group, a literal.
    """

    def codegen(context, builder, signature, args):
        vector = Vector(builder, signature.args[-1])
        kind, *values = args[1:-1]
        for pointer in (4, 9, 12):
            values[pointer] = builder.inttoptr(values[pointer], POINTER)
        kinds = _kinds(width.literal_value) if width.literal_value <= vector.lanes else ()
        for place, end in cases(builder, kind, range(len(kinds))):
            _emit(builder, vector, kinds[place], end, values)
        return context.get_dummy_value()

    return types.void(width, *[types.intp] * 17, like), codegen


@inlined
def _rows(width, x, dy, sums, ones, g, row, segments, count, lanes, x_step, dy_step, step, like):
    """Add `count` rows of dy, or one row and `count` vectors of channels; `lanes`: of one more that is not whole.

    `x`, `dy`: the first vector in the image's and in the row's first pixel; `row`: its entry in the table.
    """
    # The runs of pixels, then the bias as a run of the whole row.
    for index in range(2 * (g.segments + g.bias)):
        segment = segments + 8 * SEGMENT_COLUMNS * (index // 2)
        kind, pixels, n_rows = 0, g.ow, 1
        x_first, x_by, x_pitch, dy_first, to = ones, min(x_step, step), 0, dy, sums
        if index // 2 < g.segments:
            kind, pixels, n_rows = load_i64(segment), load_i64(segment + 32), load_i64(row + 8)
            x_first, x_by, x_pitch = x + load_i64(row) + load_i64(segment + 8), x_step, g.x_pitch
            dy_first, to = dy + load_i64(segment + 16), sums + load_i64(row + 16) + load_i64(segment + 24)
        skipped, tiles = 0, count
        if index % 2:
            kind, skipped, tiles = kind + g.masked, count, min(lanes, 1)
        if tiles > 0 and n_rows > 0:
            _tiles(
                width, kind, tiles, lanes, n_rows, pixels, x_first + skipped * x_by, x_by, g.row_step, g.pixel, x_pitch,
                dy_first + skipped * dy_step, dy_step, g.pixel, to + skipped * step, step, g.w_row, g.far, like,
            )  # fmt: skip


@inlined
def _nhwc(width, like, arguments, thread, threads):
    """Overwrite `sums`, [chunk][vector][1 + tap * channel][lane]: of the bias, then of each tap and group's channel.

    Arguments: x, dy, geometry, the tables, sums, and scratch of `threads` times the geometry's.
    """
    x, dy, geometry, tables, sums, scratch = carray(arguments, 6)
    g = _geometry(geometry)
    element = carray(like, 1)
    size = element.itemsize
    lanes = VECTOR_BYTES // size
    vectors = (g.c + lanes - 1) // lanes
    pixel = g.pixel
    ones = scratch + thread * g.scratch
    for i in range(g.ones_bytes // size):
        store(ones + i * size, element.dtype.type(1), element)
    step = (1 + g.area * width) * VECTOR_BYTES
    first, past = share(thread, threads, g.chunks * g.blocks)
    for unit in range(first, past):
        chunk, block = unit // g.blocks, unit % g.blocks
        begin, end = share(block, g.blocks, vectors)
        whole = min(end, g.c // lanes) - begin
        own = sums + chunk * g.sums_bytes + begin * step
        zero_bytes(own, (end - begin) * step)
        top, bottom = share(chunk, g.chunks, g.n * g.oh)
        for line in range(top, bottom):
            image, row = line // g.oh, line % g.oh
            _rows(
                width, x + image * g.h * g.w * pixel + begin * VECTOR_BYTES,
                dy + line * g.ow * pixel + begin * VECTOR_BYTES, own, ones, g, tables + 8 * ROW_COLUMNS * row,
                tables + 8 * g.segments_at, whole, 0 if begin + whole == end else g.c % lanes, VECTOR_BYTES,
                VECTOR_BYTES, step, element,
            )  # fmt: skip


@inlined
def _nchw(width, like, arguments, thread, threads):
    """As `_nhwc` for x (n, c, h, w) and dy (n, c, oh, ow): strips are transposed in scratch."""
    x, dy, geometry, tables, sums, scratch = carray(arguments, 6)
    g = _geometry(geometry)
    element = carray(like, 1)
    size = element.itemsize
    lanes = VECTOR_BYTES // size
    own = scratch + thread * g.scratch
    for i in range(lanes):
        store(own + i * size, element.dtype.type(1), element)
    step = (1 + g.area * width) * VECTOR_BYTES
    first, past = share(thread, threads, g.chunks * g.blocks)
    for unit in range(first, past):
        chunk, vector = unit // g.blocks, unit % g.blocks
        channels = min(lanes, g.c - vector * lanes)
        into = sums + chunk * g.sums_bytes + vector * step
        zero_bytes(into, step)
        line, bottom = share(chunk, g.chunks, g.n * g.oh)
        while line < bottom:
            image, row = line // g.oh, line % g.oh
            rows = min(g.rows, g.oh - row, bottom - line)
            at_row = tables + 8 * ROW_COLUMNS * row
            top, height = source_rows(at_row, rows, g.row_step, g.w)
            gather_strip(
                x + ((image * g.c + vector * lanes) * g.h + top) * g.w * size, g.h * g.w * size, channels,
                height * g.w, own + g.x_at, element,
            )  # fmt: skip
            gather_strip(
                dy + ((image * g.c + vector * lanes) * g.oh + row) * g.ow * size, g.oh * g.ow * size, channels,
                rows * g.ow, own + g.dy_at, element,
            )  # fmt: skip
            i = 0
            while i < rows:
                entry = at_row + 8 * ROW_COLUMNS * i
                count = alike(entry, 1, rows - i)
                _rows(
                    width, own + g.x_at - top * g.w * VECTOR_BYTES, own + g.dy_at + i * g.ow * VECTOR_BYTES, into, own,
                    g, entry, tables + 8 * g.segments_at, count, 0, g.stride * g.w * VECTOR_BYTES,
                    g.ow * VECTOR_BYTES, 0, element,
                )  # fmt: skip
                i += count
            line += rows


def _workers(width):
    """Return the workers for groups of a width, in NHWC and in NCHW."""

    def nhwc(like, arguments, thread, threads):
        _nhwc(width, like, arguments, thread, threads)

    def nchw(like, arguments, thread, threads):
        _nchw(width, like, arguments, thread, threads)

    nhwc.__name__, nchw.__name__ = f"groups_of_{width}_nhwc", f"groups_of_{width}_nchw"
    return worker(nhwc), worker(nchw)


# By the channels of a group: the workers in NHWC and in NCHW.
GROUPS = {width: _workers(width) for width in WIDTHS}


@step
def _put(sums, g, c, dw, db, like):
    """Store the sums of one channel, the first lane at `sums`."""
    size = like.itemsize
    if g.bias:
        store(db + c * size, load(sums, like), like)
    for tap in range(g.area):
        for j in range(g.width):
            value = load(sums + (1 + tap * g.width + j) * VECTOR_BYTES, like)
            store(dw + ((c * g.width + j) * g.area + tap) * size, value, like)


@worker
def reduce_depthwise(like, arguments, thread, threads):
    """Overwrite dw (c, width, taps) and, where the geometry says so, db (c,) from the chunks' sums.

    Arguments: geometry, sums, which are changed, dw, db. A thread owns a share of the vectors.
    """
    geometry, sums, dw, db = carray(arguments, 4)
    g = _geometry(geometry)
    element = carray(like, 1)
    size = element.itemsize
    lanes = VECTOR_BYTES // size
    first, past = share(thread, threads, (g.c + lanes - 1) // lanes)
    for vector in range(first, past):
        slots = 1 + g.area * g.width
        own = sums + vector * slots * VECTOR_BYTES
        for chunk in range(1, g.chunks):
            for tap in range(slots):
                add_vector(own + tap * VECTOR_BYTES, own + tap * VECTOR_BYTES + chunk * g.sums_bytes, element)
        for lane in range(min(lanes, g.c - vector * lanes)):
            _put(own + lane * size, g, vector * lanes + lane, dw, db, element)
