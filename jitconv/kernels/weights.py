"""Backward-weights, direct and by im2col: products of x's channels with dy's pixels, summed over strips.

The rows of the tile are all (tap, channel) of x, its lanes the channels of dy, and k runs along output columns;
output rows are the tile's taps. Work is split twice: `chunks` of pixels with sums of their own, whose number
depends on the shapes alone and so fixes the order of summation, and `parts` of the tile's rows.
"""

from __future__ import annotations

import numpy as np
from numba import carray

from .jit import inlined, step, worker
from .layout import gather_rows
from .simd import VECTOR_BYTES, add_rows, copy_bytes, load, load_i64, record_at, store, zero_bytes
from .tile import ADD, TILE_ROWS, sweep

FIELDS = (
    # the arrays; `*_first`: 1 for (n, channels, h, w); `area`: KH * KW
    "n", "c", "h", "w", "oh", "ow", "f", "x_first", "dy_first", "groups", "group_c", "group_f", "area",
    # 1 where the tile reads the caller's array itself
    "x_in_place", "dy_in_place",
    # a strip: `images` whole ones, or `rows` output rows, `row_strips` to an image
    "images", "rows", "row_strips", "chunks", "parts",
    # input pixel of the first tap of output pixel 0; input rows of one output row; columns of a strip
    "stride_h", "origin_h", "origin_w", "span", "x_cols",
    # bytes: of x, between the inputs of two output columns, between two k of A and of B
    "image_pitch", "row_pitch", "pixel_pitch", "column_step", "a_step", "b_step",
    # 1: the pixels of a strip are one run; 1: im2col
    "flat", "unfold",
    # panels of F for each group, vectors in each and in the last, lanes of a panel; rows of one group
    "panels", "vectors", "last_vectors", "lanes", "tile_rows",
    # indices into `tables`: the tile's rows, output rows of A and B, rows of C; im2col's rows; taps, their number and elements
    "a_table", "line_table", "b_table", "c_table", "wide_table", "tap_table", "taps", "k",
    # byte offsets in a thread's scratch, and its size; bytes of one chunk's sums, and of those of db in them
    "unfolded_at", "dy_at", "zeros_at", "table_at", "spare_at", "scratch", "sums_bytes", "bias_bytes",
    "bias",
)  # fmt: skip
GEOMETRY = np.dtype([(name, np.int64) for name in FIELDS])
_geometry = record_at(GEOMETRY)


@inlined
def _gather_x(x, g, image, images, first, rows, strip, table, like):
    for i in range(images):
        gather_rows(
            x + (image + i) * g.c * g.h * g.w * like.itemsize, g.x_first != 0, g.h, g.w, g.c, 0, g.c,
            first * g.stride_h + g.origin_h, (rows - 1) * g.stride_h + g.span, g.origin_w, g.x_cols,
            strip + i * g.image_pitch, g.row_pitch, g.pixel_pitch, table, like,
        )  # fmt: skip


@inlined
def _gather_dy(dy, g, image, images, first, rows, channel, count, panel, table, like):
    """Fill a panel [pixel][lane] with `count` channels of dy; the lanes past them are zero."""
    if count < g.lanes:
        zero_bytes(panel, images * rows * g.ow * g.b_step)
    for i in range(images):
        gather_rows(
            dy + (image + i) * g.f * g.oh * g.ow * like.itemsize, g.dy_first != 0, g.oh, g.ow, g.f, channel,
            count, first, rows, 0, g.ow, panel + i * rows * g.ow * g.b_step, g.ow * g.b_step, g.b_step, table, like,
        )  # fmt: skip


@step
def _unfold(strip, g, lines, tables, target, size):
    """Copy the taps of each output pixel one after another; output rows lie at the offsets of the line table."""
    for line in range(lines):
        for column in range(g.ow):
            source = strip + load_i64(tables + 8 * (g.line_table + line)) + column * g.column_step
            for t in range(g.taps):
                copy_bytes(target, source + load_i64(tables + 8 * (g.tap_table + t)), g.k * size)
                target += g.k * size


@inlined
def _strip(x, dy, g, tables, sums, bias_sums, scratch, index, start, part, like):
    """Add one strip to the sums of its chunk: the rows of the tile that belong to `part`."""
    size = like.itemsize
    image = index // g.row_strips * g.images
    images = min(g.images, g.n - image)
    first = index % g.row_strips * g.rows
    rows = min(g.rows, g.oh - first)
    pixels = images * rows * g.ow
    if g.x_in_place:
        corner = (first * g.stride_h + g.origin_h) * g.row_pitch + g.origin_w * g.pixel_pitch
        strip = x + image * g.image_pitch + corner
    else:
        strip = scratch
        _gather_x(x, g, image, images, first, rows, strip, scratch + g.table_at, like)
    lines, a_rows = tables + 8 * g.line_table, tables + 8 * (g.wide_table if g.unfold else g.a_table)
    n_lines, k, b_lines = images * rows, g.ow, tables + 8 * g.b_table
    if g.flat or g.unfold:
        n_lines, k = 1, pixels
    tiles = (g.tile_rows + TILE_ROWS[g.vectors - 1] - 1) // TILE_ROWS[g.vectors - 1]
    begin = part * tiles // g.parts * TILE_ROWS[g.vectors - 1]
    end = min((part + 1) * tiles // g.parts * TILE_ROWS[g.vectors - 1], g.tile_rows)
    for group in range(g.groups):
        a = strip + group * g.group_c * size
        if g.unfold:
            _unfold(a, g, images * rows, tables, scratch + g.unfolded_at, size)
            a = scratch + g.unfolded_at
            lines = a_rows  # its first entry: offset 0
        for panel in range(g.panels):
            last = panel == g.panels - 1
            count = g.group_f - panel * g.lanes if last else g.lanes
            channel = group * g.group_f + panel * g.lanes
            vectors = g.last_vectors if last else g.vectors
            if g.dy_in_place:
                b = dy + ((image * g.oh + first) * g.ow * g.f + channel) * size
            else:
                b = scratch + g.dy_at
                _gather_dy(dy, g, image, images, first, rows, channel, count, b, scratch + g.table_at, like)
            at_panel = group * g.panels + panel
            if g.bias and part == 0:
                for j in range(vectors):
                    add_rows(
                        b + j * VECTOR_BYTES, g.b_step, pixels,
                        bias_sums + at_panel * g.lanes * size + j * VECTOR_BYTES, like,
                    )  # fmt: skip
            sweep(
                vectors, end - begin, n_lines, lines, k, a, a_rows + 8 * begin, g.a_step, b, b_lines, g.b_step,
                sums + at_panel * g.tile_rows * g.lanes * size, tables + 8 * (g.c_table + begin),
                scratch + g.zeros_at, 0 if start else ADD, scratch + g.spare_at, like,
            )  # fmt: skip


@worker
def correlate_weights(like, arguments, thread, threads):
    """Overwrite `sums`: for each chunk, panels [group][panel][tap, channel][lane] of dw, then those of db.

    Arguments: x, dy, geometry, tables, sums, and scratch of `threads` times the geometry's scratch bytes.
    """
    x, dy, geometry, tables, sums, scratch = carray(arguments, 6)
    g = _geometry(geometry)
    element = carray(like, 1)
    strips = (g.n + g.images - 1) // g.images * g.row_strips
    units = g.chunks * g.parts
    own = scratch + thread * g.scratch
    zero_bytes(own + g.zeros_at, g.lanes * element.itemsize)
    for unit in range(thread * units // threads, (thread + 1) * units // threads):
        chunk, part = unit // g.parts, unit % g.parts
        base = sums + chunk * g.sums_bytes
        biases = base + g.sums_bytes - g.bias_bytes
        if part == 0:
            zero_bytes(biases, g.bias_bytes)
        begin, end = chunk * strips // g.chunks, (chunk + 1) * strips // g.chunks
        for index in range(begin, end):
            _strip(x, dy, g, tables, base, biases, own, index, index == begin, part, element)


@step
def _add_chunks(source, g, like):
    """Return the sum over the chunks, in order, of the element at an address in the first chunk's sums."""
    total = load(source, like)
    for chunk in range(1, g.chunks):
        total += load(source + chunk * g.sums_bytes, like)
    return total


@worker
def reduce_weights(like, arguments, thread, threads):
    """Overwrite dw (F, C/groups, KH, KW) and, where the geometry says so, db (F,) from the chunks' sums.

    Arguments: geometry, sums, dw, db. A thread owns a share of the input channels.
    """
    geometry, sums, dw, db = carray(arguments, 4)
    g = _geometry(geometry)
    element = carray(like, 1)
    size = element.itemsize
    biases = sums + g.sums_bytes - g.bias_bytes
    row = g.group_c * g.area * size
    for index in range(g.groups * g.panels):
        group, panel = index // g.panels, index % g.panels
        channel = group * g.group_f + panel * g.lanes
        count = min(g.lanes, g.group_f - panel * g.lanes)
        source = sums + index * g.tile_rows * g.lanes * size
        # Sixteen lanes at a time: rows of dw often lie a multiple of 2 KB apart, where more would share cache sets.
        for first in range(0, count, 16):
            for c in range(thread * g.group_c // threads, (thread + 1) * g.group_c // threads):
                for tap in range(g.area):
                    line = source + (tap * g.group_c + c) * g.lanes * size
                    place = dw + channel * row + (c * g.area + tap) * size
                    for lane in range(first, min(first + 16, count)):
                        store(place + lane * row, _add_chunks(line + lane * size, g, element), element)
        if g.bias and index % threads == thread:
            for lane in range(count):
                total = _add_chunks(biases + (index * g.lanes + lane) * size, g, element)
                store(db + (channel + lane) * size, total, element)
