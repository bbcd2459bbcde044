"""Depthwise convolution and that of narrow groups, forward and backward-data: the lanes of a vector are channels.

A group is one channel (depthwise) or a power of two of them, at most a vector. A tap of a wider group is as many
products as the group has channels: the group's first channel in all of its lanes times the weights from there, then
the second. A tile is some neighbouring pixels of one output row and one vector of channels: the sums stay in registers
while the taps go by. Border pixels are tiles of one pixel with the taps that lie inside the image, so that padding is
neither copied nor multiplied. The sum of a pixel starts from the bias and takes the taps in the order in which they lie
in the image; where a row of them has more weights than registers hold, for some of the group's channels and then for
the others. Its place in the row decides the order, not who computes it.

What lies where is settled beforehand: a table of the target's rows says which source rows and taps reach each, a table
of segments says the same of runs of pixels within a row, and which tile computes them.
"""

from __future__ import annotations

import numpy as np
from numba import carray, types
from numba.extending import intrinsic

from .jit import inlined, step, worker
from .simd import (
    POINTER,
    REGISTERS,
    VECTOR_BYTES,
    Vector,
    at,
    cases,
    emit_prefetch,
    i64,
    load,
    load_i64,
    record_at,
    store,
    transpose_block,
)
from .windows import share

FIELDS = (
    # source (n, h, w, c), target (n, oh, ow, c), and the taps of a kernel
    "n", "c", "h", "w", "oh", "ow", "area",
    # 1: cut below zero; 1: the source is read from far, so that the next row is asked for ahead
    "relu", "far",
    # NHWC: into how many blocks the vectors of channels are cut; a unit is a row of one image and one block
    "blocks",
    # of the tables, of which the rows begin at 0; and the first tile of `_kinds` for a vector that is not whole
    "segments", "segments_at", "masked",
    # bytes: from a row of taps to the next in the source and the weights, between pixels under one tap, and in y
    "row_step", "w_row", "x_pitch", "y_pitch",
    # NCHW: target rows of a strip, and where in scratch its pixels lie
    "rows", "x_at", "y_at",
    # vertical strides, in rows
    "in_stride", "out_stride",
    # 1: the weights of a group are (target's channel, source's) in w; 0: the other way round
    "swapped",
    # bytes of a thread's scratch
    "scratch",
)  # fmt: skip
GEOMETRY = np.dtype([(name, np.int64) for name in FIELDS])
_geometry = record_at(GEOMETRY)

# Columns of the tables. A row: bytes from the image to the first source row, rows of taps, bytes to the first in the
# weights. A segment: place in `_kinds`; bytes from the row to x, to y and to its first tap; columns of taps, and the
# bytes from one to the next in x and in the weights.
ROW_COLUMNS, SEGMENT_COLUMNS = 3, 7

# Channels of a group.
WIDTHS = (1, 2, 4, 8, 16)
# Pixels of a tile: sums, a row of weights and a pixel fit in the registers.
PIXELS = (12, 6, 5, 2, 1) if REGISTERS == 32 else (8, 4, 2, 1)
# (columns of the kernel, stride) for which a tile loads each pixel once and uses it for several sums; (0, 0) takes any,
# and loads a pixel for each product.
TILES = ((0, 0), (3, 1), (3, 2), (5, 1), (5, 2))
# Weights that a tile holds in registers, of some of the group's channels under a row of taps; in so many parts at most.
HELD, MOST_PARTS = REGISTERS * 3 // 8, 2
# From this width on, the products of one pixel are a long chain: these vectors (or rows) are computed side by side.
LONG_CHAIN, SIDE_BY_SIDE = 8, 4


def tiles(width: int) -> tuple[tuple[int, int], ...]:
    """Return those of TILES that exist for groups of a width."""
    return tuple(tile for tile in TILES if tile[0] * width <= MOST_PARTS * HELD)


def masked_from(width: int) -> int:
    """Return the place of the first tile for a vector of which only some lanes exist."""
    return len(tiles(width)) * len(PIXELS)


def _kinds(width):
    """Return every tile: (columns, stride, pixels, whether only some lanes exist), those of `tiles` first."""
    whole = [(*tile, pixels, False) for tile in tiles(width) for pixels in PIXELS]
    return whole + [(0, 0, pixels, True) for pixels in PIXELS]


def _emit(builder, vector, width, kind, end, args):
    """Emit one tile at the builder's position, for vector after vector, and leave for the block `end`."""
    if kind[2] == 1 and width >= LONG_CHAIN and not kind[3]:
        count, *others = args
        together = builder.and_(count, i64(-SIDE_BY_SIDE))
        alone, after = builder.append_basic_block("alone"), builder.append_basic_block("after")
        some = builder.append_basic_block("together")
        builder.cbranch(builder.icmp_signed(">", together, i64(0)), some, after)
        builder.position_at_end(some)
        _emit_side_by_side(builder, vector, width, kind, SIDE_BY_SIDE, after, [together, *others])
        builder.position_at_end(after)
        builder.cbranch(builder.icmp_signed("<", together, count), alone, end)
        builder.position_at_end(alone)
        rest = [builder.sub(count, together), *others]
        for pointer, by in ((4, 5), (9, 10), (14, 15)):
            rest[pointer] = at(builder, rest[pointer], builder.mul(together, rest[by]))
        _emit_side_by_side(builder, vector, width, kind, 1, end, rest)
    else:
        _emit_side_by_side(builder, vector, width, kind, 1, end, args)


def _emit_side_by_side(builder, vector, width, kind, side, end, args):
    """Emit one tile, for `side` vectors at a time."""
    columns, stride, pixels, masked = kind
    count, lanes, n_rows, n_cols, x0, x_step, row_step, col_step, x_pitch, w0, w_step, w_first, w_row, w_col, *rest = (
        args
    )
    y0, y_step, y_pitch, relu, far = rest
    if masked:
        mask = vector.lanes_between(i64(0), lanes)

    def phi(value, block):
        made = builder.phi(value.type)
        made.add_incoming(value, block)
        return made

    def read(pointer, channels):
        """Return, for each of these channels of a group, that channel of the pixel in all lanes of its group."""
        if width == vector.lanes:
            return [vector.broadcast(at(builder, pointer, j * vector.itemsize)) for j in channels]
        value = vector.load_masked(pointer, mask) if masked else vector.load(pointer)
        return [vector.spread(value, width, j) for j in channels]

    def weights_at(pointer, channels):
        return [vector.load(at(builder, pointer, j * vector.bytes)) for j in channels]

    def add(total, values, weights):
        for value, weight in zip(values, weights, strict=True):
            total = vector.fma(value, weight, total)
        return total

    before = builder.block
    names = ("vector", "row", "tap", "row_end", "done", "relu", "store")
    block = {name: builder.append_basic_block(f"{name}{columns}_{stride}_{pixels}_{masked}") for name in names}
    # Sums: those of the pixels of one vector, then those of the next.
    places = [(one, pixel) for one in range(side) for pixel in range(pixels)]

    def further(pointer, step, one):
        return at(builder, pointer, builder.mul(step, i64(one))) if one else pointer

    builder.branch(block["vector"])
    builder.position_at_end(block["vector"])
    entry = block["vector"]
    done, x, y, start = phi(i64(0), before), phi(x0, before), phi(y0, before), phi(w0, before)
    first = [vector.load(further(start, w_step, one)) for one in range(side)]
    w = at(builder, start, w_first)
    if columns:
        ahead, entry = builder.append_basic_block("ahead"), builder.append_basic_block("here")
        builder.cbranch(builder.icmp_signed("!=", far, i64(0)), ahead, entry)
        builder.position_at_end(ahead)
        next_row = at(builder, x, builder.mul(n_rows, row_step))
        for line in range(stride):
            below = at(builder, next_row, builder.mul(row_step, i64(line)))
            for pixel in range(pixels * stride):
                emit_prefetch(builder, at(builder, below, builder.mul(col_step, i64(pixel))), 3)
        builder.branch(entry)
        builder.position_at_end(entry)
    nothing = builder.or_(builder.icmp_signed("<=", n_rows, i64(0)), builder.icmp_signed("<=", n_cols, i64(0)))
    builder.cbranch(nothing, block["done"], block["row"])

    builder.position_at_end(block["row"])
    i, x_row, w_at = phi(i64(0), entry), phi(x, entry), phi(w, entry)
    at_row = [phi(first[one], entry) for one, _ in places]
    if columns:
        new = list(at_row)
        part = max(1, min(width, HELD // columns))
        for channel in range(0, width, part):
            channels = range(channel, min(width, channel + part))
            weights = [weights_at(at(builder, w_at, builder.mul(w_col, i64(j))), channels) for j in range(columns)]
            for q in range((pixels - 1) * stride + columns):
                values = read(at(builder, x_row, builder.mul(col_step, i64(q))), channels)
                for j in range(columns):
                    pixel, rest = divmod(q - j, stride)
                    if rest == 0 and 0 <= pixel < pixels:
                        new[pixel] = add(new[pixel], values, weights[j])
        builder.branch(block["row_end"])
        builder.position_at_end(block["tap"])
        builder.unreachable()
    else:
        builder.branch(block["tap"])
        builder.position_at_end(block["tap"])
        j, x_tap, w_tap = (phi(value, block["row"]) for value in (i64(0), x_row, w_at))
        sums = [phi(value, block["row"]) for value in at_row]
        new = []
        for (one, pixel), total in zip(places, sums, strict=True):
            if pixel == 0:
                weights = weights_at(further(w_tap, w_step, one), range(width))
            values = read(at(builder, further(x_tap, x_step, one), builder.mul(x_pitch, i64(pixel))), range(width))
            new.append(add(total, values, weights))
        j_next = builder.add(j, i64(1))
        pairs = [(j, j_next), (x_tap, at(builder, x_tap, col_step)), (w_tap, at(builder, w_tap, w_col))]
        for name, value in (*pairs, *zip(sums, new, strict=True)):
            name.add_incoming(value, block["tap"])
        builder.cbranch(builder.icmp_signed("<", j_next, n_cols), block["tap"], block["row_end"])

    builder.position_at_end(block["row_end"])
    i_next = builder.add(i, i64(1))
    pairs = [(i, i_next), (x_row, at(builder, x_row, row_step)), (w_at, at(builder, w_at, w_row))]
    for name, value in (*pairs, *zip(at_row, new, strict=True)):
        name.add_incoming(value, block["row_end"])
    builder.cbranch(builder.icmp_signed("<", i_next, n_rows), block["row"], block["done"])

    builder.position_at_end(block["done"])
    total = [phi(first[one], entry) for one, _ in places]
    for name, value in zip(total, new, strict=True):
        name.add_incoming(value, block["row_end"])
    builder.cbranch(builder.icmp_signed("!=", relu, i64(0)), block["relu"], block["store"])
    builder.position_at_end(block["relu"])
    rectified = [vector.relu(value) for value in total]
    builder.branch(block["store"])
    builder.position_at_end(block["store"])
    final = [phi(value, block["done"]) for value in total]
    for value, other in zip(final, rectified, strict=True):
        value.add_incoming(other, block["relu"])
    for (one, pixel), value in zip(places, final, strict=True):
        to = at(builder, further(y, y_step, one), builder.mul(y_pitch, i64(pixel)))
        if masked:
            vector.store_masked(value, to, mask)
        else:
            vector.store(value, to)
    following = builder.add(done, i64(side))
    steps = [(x, x_step), (y, y_step), (start, w_step)]
    for name, value in ((done, following), *((name, further(name, by, side)) for name, by in steps)):
        name.add_incoming(value, block["store"])
    builder.cbranch(builder.icmp_signed("<", following, count), block["vector"], end)


@intrinsic(prefer_literal=True)
def _tiles(
    typingctx, width, kind, count, lanes, rows, cols, x, x_step, row_step, col_step, x_pitch, w, w_step, w_first,
    w_row, w_col, y, y_step, y_pitch, relu, far, like,
):  # fmt: skip
    """Overwrite the pixels of `count` tiles, the first at y: bias and rows x cols taps.

    The next tile lies at x_step, y_step, w_step: the next vector of channels, or the next row. `w`: the bias, with the
    first tap at `w_first`. `lanes`: how many of a masked vector exist. Every argument but `like` is an int64; steps are
    in bytes. `width`: channels of a group, a literal.
    """

    def codegen(context, builder, signature, args):
        vector = Vector(builder, signature.args[-1])
        kind, *values = args[1:-1]
        for pointer in (4, 9, 14):
            values[pointer] = builder.inttoptr(values[pointer], POINTER)
        kinds = _kinds(width.literal_value) if width.literal_value <= vector.lanes else ()
        for place, end in cases(builder, kind, range(len(kinds))):
            _emit(builder, vector, width.literal_value, kinds[place], end, values)
        return context.get_dummy_value()

    return types.void(width, *[types.intp] * 20, like), codegen


@step
def _pack(w, b, g, width, first, vectors, packed, like):
    """Copy bias and weights of some vectors to [vector][1 + tap * channel][lane], zeros behind the last lane.

    A lane is a channel of the target, a tap has a weight for each channel of the source's group.
    """
    size = like.itemsize
    lanes = VECTOR_BYTES // size
    zero = like.dtype.type(0)
    for vector in range(vectors):
        to = packed + vector * (1 + g.area * width) * VECTOR_BYTES
        for lane in range(lanes):
            channel = (first + vector) * lanes + lane
            here = channel < g.c
            store(to + lane * size, load(b + channel * size, like) if here and b else zero, like)
            # The weight of the first channel of the group, and from one channel to the next.
            kernel, by = channel * width, 1
            if g.swapped:
                kernel, by = (channel - channel % width) * width + channel % width, width
            for tap in range(g.area):
                for j in range(width):
                    value = load(w + ((kernel + j * by) * g.area + tap) * size, like) if here else zero
                    store(to + (1 + tap * width + j) * VECTOR_BYTES + lane * size, value, like)


@inlined
def _rows(width, source, weights, target, g, row, segments, count, lanes, x_step, w_step, y_step, like):
    """Compute `count` rows, or one row and `count` vectors of channels; `lanes`: of one more that is not whole.

    `source`, `target`: the first vector in the image's and in the row's first pixel; `row`: its entry in the table.
    """
    x_row, n_rows, w_row = source + load_i64(row), load_i64(row + 8), load_i64(row + 16)
    for index in range(2 * g.segments):
        segment = segments + 8 * SEGMENT_COLUMNS * (index // 2)
        kind, skipped, tiles = load_i64(segment), 0, count
        if index % 2:
            kind, skipped, tiles = kind % len(PIXELS) + g.masked, count, min(lanes, 1)
        if tiles == 0:
            continue
        _tiles(
            width, kind, tiles, lanes, n_rows, load_i64(segment + 32),
            x_row + load_i64(segment + 8) + skipped * x_step, x_step, g.row_step, load_i64(segment + 40), g.x_pitch,
            weights + skipped * w_step, w_step,
            w_row + load_i64(segment + 24), g.w_row, load_i64(segment + 48),
            target + load_i64(segment + 16) + skipped * y_step, y_step, g.y_pitch, g.relu, g.far, like,
        )  # fmt: skip


@inlined
def _nhwc(width, like, arguments, thread, threads):
    """Overwrite `target` (n, oh, ow, c) with the sums of taps of `source` (n, h, w, c).

    Arguments: source, w (c, width, taps), b (c,) or 0, target, geometry, the tables, and scratch.
    """
    source, w, b, target, geometry, tables, scratch = carray(arguments, 7)
    g = _geometry(geometry)
    element = carray(like, 1)
    size = element.itemsize
    lanes = VECTOR_BYTES // size
    vectors = (g.c + lanes - 1) // lanes
    packed = scratch + thread * g.scratch
    in_block = g.n * g.oh
    held = -1
    first, past = share(thread, threads, g.blocks * in_block)
    for unit in range(first, past):
        block, line = unit // in_block, unit % in_block
        begin, end = share(block, g.blocks, vectors)
        if block != held:
            _pack(w, b, g, width, begin, end - begin, packed, element)
            held = block
        whole = min(end, g.c // lanes) - begin
        image, row = line // g.oh, line % g.oh
        _rows(
            width, source + image * g.h * g.w * g.c * size + begin * VECTOR_BYTES, packed,
            target + line * g.ow * g.c * size + begin * VECTOR_BYTES, g, tables + 8 * ROW_COLUMNS * row,
            tables + 8 * g.segments_at, whole, 0 if begin + whole == end else g.c % lanes, VECTOR_BYTES,
            (1 + g.area * width) * VECTOR_BYTES, VECTOR_BYTES, element,
        )  # fmt: skip


@step
def alike(row, every, rows):
    """Return how many of `rows` rows, every so many entries of the table from `row` on, have the same taps inside."""
    count, by = 1, 8 * ROW_COLUMNS * every
    while count < rows:
        other = row + count * by
        if load_i64(other + 8) != load_i64(row + 8) or load_i64(other + 16) != load_i64(row + 16):
            break
        count += 1
    return count


@inlined
def source_rows(row, rows, row_step, width):
    """Return the first source row and how many rows are read for `rows` entries of the table of rows.

    The table is that of pixels of one vector, `width` in a row.
    """
    line = width * VECTOR_BYTES
    top, bottom = 1 << 62, 0
    for i in range(rows):
        entry = row + 8 * ROW_COLUMNS * i
        taps = load_i64(entry + 8)
        if taps > 0:
            top = min(top, load_i64(entry) // line)
            bottom = max(bottom, (load_i64(entry) + (taps - 1) * row_step) // line + 1)
    if bottom == 0:
        return 0, 0
    return top, bottom - top


@step
def gather_strip(planes, plane, channels, pixels, strip, like):
    """Copy a run of pixels of `channels` planes, `plane` bytes apart, to pixels of one vector."""
    size = like.itemsize
    lanes = VECTOR_BYTES // size
    if channels < lanes or pixels < lanes:
        for channel in range(channels):
            for pixel in range(pixels):
                value = load(planes + channel * plane + pixel * size, like)
                store(strip + pixel * VECTOR_BYTES + channel * size, value, like)
        return
    for pixel in range(0, pixels, lanes):
        pixel = min(pixel, pixels - lanes)
        transpose_block(planes + pixel * size, plane, strip + pixel * VECTOR_BYTES, VECTOR_BYTES, like)


@step
def _scatter_strip(strip, planes, plane, channels, pixels, like):
    """Copy pixels of one vector to a run of pixels of `channels` planes, `plane` bytes apart."""
    size = like.itemsize
    lanes = VECTOR_BYTES // size
    if channels < lanes or pixels < lanes:
        for channel in range(channels):
            for pixel in range(pixels):
                value = load(strip + pixel * VECTOR_BYTES + channel * size, like)
                store(planes + channel * plane + pixel * size, value, like)
        return
    for pixel in range(0, pixels, lanes):
        pixel = min(pixel, pixels - lanes)
        transpose_block(strip + pixel * VECTOR_BYTES, VECTOR_BYTES, planes + pixel * size, plane, like)


@inlined
def _nchw(width, like, arguments, thread, threads):
    """As `_nhwc` for (n, c, h, w) and (n, c, oh, ow), for vectors of channels that are transposed in scratch.

    A unit is some rows of one image and one vector of channels.
    """
    source, w, b, target, geometry, tables, scratch = carray(arguments, 7)
    g = _geometry(geometry)
    element = carray(like, 1)
    size = element.itemsize
    lanes = VECTOR_BYTES // size
    own = scratch + thread * g.scratch
    strips = (g.oh + g.rows - 1) // g.rows
    held = -1
    first, past = share(thread, threads, g.blocks * g.n * strips)
    for unit in range(first, past):
        vector, image, row = unit // (g.n * strips), unit // strips % g.n, unit % strips * g.rows
        if vector != held:
            _pack(w, b, g, width, vector, 1, own, element)
            held = vector
        channel, rows = vector * lanes, min(g.rows, g.oh - row)
        channels = min(lanes, g.c - channel)
        at_row = tables + 8 * ROW_COLUMNS * row
        top, height = source_rows(at_row, rows, g.row_step, g.w)
        gather_strip(
            source + ((image * g.c + channel) * g.h + top) * g.w * size, g.h * g.w * size, channels, height * g.w,
            own + g.x_at, element,
        )  # fmt: skip
        for residue in range(min(g.out_stride, rows)):
            i = residue
            while i < rows:
                entry = at_row + 8 * ROW_COLUMNS * i
                count = alike(entry, g.out_stride, (rows - i + g.out_stride - 1) // g.out_stride)
                _rows(
                    width, own + g.x_at - top * g.w * VECTOR_BYTES, own, own + g.y_at + i * g.ow * VECTOR_BYTES, g,
                    entry, tables + 8 * g.segments_at, count, 0, g.in_stride * g.w * VECTOR_BYTES, 0,
                    g.out_stride * g.ow * VECTOR_BYTES, element,
                )  # fmt: skip
                i += count * g.out_stride
        _scatter_strip(
            own + g.y_at, target + ((image * g.c + channel) * g.oh + row) * g.ow * size, g.oh * g.ow * size, channels,
            rows * g.ow, element,
        )  # fmt: skip


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
