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
from numba import carray

from .depthwise_tiles import PIXELS, WIDTHS, add_taps
from .jit import inlined, step, worker
from .simd import VECTOR_BYTES, load, load_i64, record_at, store, transpose_block
from .windows import share

FIELDS = (
    # source (n, h, w, c), target (n, oh, ow, c), and the taps of a kernel
    "n", "c", "h", "w", "oh", "ow", "area",
    # 1: cut below zero; 1: the source is read from far, so that the next row is asked for ahead
    "relu", "far",
    # NHWC: into how many blocks the vectors of channels are cut; a unit is a row of one image and one block
    "blocks",
    # of the tables, of which the rows begin at 0; and the first tile of `kinds` for a vector that is not whole
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
# weights. A segment: place in `depthwise_tiles.kinds`; bytes from the row to x, to y and to its first tap; columns of
# taps, and the bytes from one to the next in x and in the weights.
ROW_COLUMNS, SEGMENT_COLUMNS = 3, 7


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
        add_taps(
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
