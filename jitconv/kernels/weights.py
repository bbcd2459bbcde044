"""Backward-weights, direct and by im2col: products of x's channels with dy's pixels, summed over strips.

The rows of the tile are the (tap, channel) of a block of x's channels, its lanes a panel of dy's channels, and k runs
along output columns; output rows are the tile's taps. A unit is one block and some panels, so that their sums stay in
L2 while the strips of a chunk go by. Chunks of pixels have sums of their own; their number depends on the shapes
alone, and so does the order of summation.
"""

from __future__ import annotations

import numpy as np
from numba import carray

from .jit import inlined, step, worker
from .layout import gather_planes, gather_rows
from .simd import (
    VECTOR_BYTES,
    add_rows,
    add_vector,
    copy_bytes,
    load,
    load_i64,
    record_at,
    store,
    transpose_block,
    zero_bytes,
)
from .tail import PLAIN, gather_gradient
from .tile import ADD, sweep

FIELDS = (
    # the arrays; `*_first`: 1 for (n, channels, h, w); how dy is read; `area`: KH * KW
    "n", "c", "h", "w", "oh", "ow", "f", "x_first", "dy_first", "read_as", "groups", "group_c", "group_f", "area",
    # 1 where the tile reads the caller's array itself; 1 where x stays in planes, which are as good as A
    "x_in_place", "dy_in_place", "planes",
    # a strip: `images` whole ones, or `rows` output rows, `row_strips` to an image; chunks of strips
    "images", "rows", "row_strips", "chunks",
    # blocks of input channels for each group, channels in one and in the last
    "blocks", "block_c", "last_c",
    # input pixel of the first tap of output pixel 0; input rows of one output row; columns of a strip
    "stride_h", "origin_h", "origin_w", "span", "x_cols",
    # bytes: of x, from channel to channel, between the inputs of two output columns, between two k of A and of B
    "image_pitch", "row_pitch", "pixel_pitch", "channel_pitch", "column_step", "a_step", "b_step",
    # 1: the pixels of a strip are one run; 1: im2col
    "flat", "unfold",
    # panels of F for each group, ranges of them that units take, vectors in each and in the last, lanes of a panel
    "panels", "parts", "vectors", "last_vectors", "lanes",
    # indices into `tables`: the tile's rows in a block and in the last, output rows of A and of B, rows of C, im2col's
    # rows; taps, their number and what is contiguous of them in a block and in the last, in elements
    "a_table", "last_a_table", "line_table", "b_table", "c_table", "wide_table",
    "tap_table", "taps", "run", "last_run",
    # byte offsets in a thread's scratch, and its size; bytes of one chunk's sums, of one unit's, of db's
    "unfolded_at", "dy_at", "zeros_at", "table_at", "spare_at", "scratch", "sums_bytes", "unit_bytes", "bias_bytes",
    "bias",
)  # fmt: skip
GEOMETRY = np.dtype([(name, np.int64) for name in FIELDS])
_geometry = record_at(GEOMETRY)


@inlined
def _gather_x(x, g, image, images, first, rows, channel, count, strip, table, like):
    for i in range(images):
        here = x + (image + i) * g.c * g.h * g.w * like.itemsize
        if g.planes:
            gather_planes(
                here, g.h, g.w, channel, count, first * g.stride_h + g.origin_h, (rows - 1) * g.stride_h + g.span,
                g.origin_w, g.x_cols, strip + i * g.image_pitch, g.row_pitch, g.channel_pitch, like,
            )  # fmt: skip
            continue
        gather_rows(
            here, g.x_first != 0, g.h, g.w, g.c, channel, count,
            first * g.stride_h + g.origin_h, (rows - 1) * g.stride_h + g.span, g.origin_w, g.x_cols,
            strip + i * g.image_pitch, g.row_pitch, g.pixel_pitch, table, like,
        )  # fmt: skip


@inlined
def _gather_dy(dy, g, image, images, first, rows, channel, count, panel, table, like):
    """Fill a panel [pixel][lane] with `count` channels of dy; the lanes past them are zero."""
    if count < g.lanes:
        zero_bytes(panel, images * rows * g.ow * g.b_step)
    for i in range(images):
        to, row = panel + i * rows * g.ow * g.b_step, g.ow * g.b_step
        if g.read_as == PLAIN:
            gather_rows(
                dy + (image + i) * g.f * g.oh * g.ow * like.itemsize, g.dy_first != 0, g.oh, g.ow, g.f, channel, count,
                first, rows, 0, g.ow, to, row, g.b_step, table, like,
            )  # fmt: skip
        else:
            gather_gradient(
                dy, g.read_as, image + i, g.oh, g.ow, g.f, channel, count, first, rows, 0, g.ow, to, row, g.b_step, like
            )


@step
def _unfold(strip, g, lines, run, tables, target, size):
    """Copy the taps of each output pixel one after another; output rows lie at the offsets of the line table."""
    for line in range(lines):
        for column in range(g.ow):
            source = strip + load_i64(tables + 8 * (g.line_table + line)) + column * g.column_step
            to = target
            for t in range(g.taps):
                copy_bytes(to, source + load_i64(tables + 8 * (g.tap_table + t)), run * size)
                to += run * size
            target += g.a_step


@inlined
def _strip(x, dy, g, tables, sums, bias_sums, scratch, index, start, group, block, begin, end, like):
    """Add one strip to the sums of a unit: one block, the panels from `begin` to `end`."""
    size = like.itemsize
    image = index // g.row_strips * g.images
    images = min(g.images, g.n - image)
    first = index % g.row_strips * g.rows
    rows = min(g.rows, g.oh - first)
    pixels = images * rows * g.ow
    last_block = block == g.blocks - 1
    block_c, run = (g.last_c, g.last_run) if last_block else (g.block_c, g.run)
    channel = group * g.group_c + block * g.block_c
    if g.x_in_place:
        corner = (first * g.stride_h + g.origin_h) * g.row_pitch + g.origin_w * g.pixel_pitch
        a = x + image * g.image_pitch + corner + channel * g.channel_pitch
    else:
        a = scratch
        _gather_x(x, g, image, images, first, rows, channel, block_c, a, scratch + g.table_at, like)
    n_lines, k = images * rows, g.ow
    lines, a_rows = tables + 8 * g.line_table, tables + 8 * (g.last_a_table if last_block else g.a_table)
    if g.flat or g.unfold:
        n_lines, k = 1, pixels
    if g.unfold:
        _unfold(a, g, images * rows, run, tables, scratch + g.unfolded_at, size)
        a, a_rows = scratch + g.unfolded_at, tables + 8 * g.wide_table
        lines = a_rows  # its first entry: offset 0
    for panel in range(begin, end):
        last_panel = panel == g.panels - 1
        vectors, count = (g.last_vectors, g.group_f - panel * g.lanes) if last_panel else (g.vectors, g.lanes)
        channel = group * g.group_f + panel * g.lanes
        if g.dy_in_place:
            b = dy + ((image * g.oh + first) * g.ow * g.f + channel) * size
            if count < vectors * VECTOR_BYTES // size and image + images == g.n and first + rows == g.oh:
                copy_bytes(scratch + g.dy_at, b, pixels * g.b_step)
                b = scratch + g.dy_at
        else:
            b = scratch + g.dy_at
            _gather_dy(dy, g, image, images, first, rows, channel, count, b, scratch + g.table_at, like)
        if g.bias and block == 0:
            to = bias_sums + (group * g.panels + panel) * g.lanes * size
            for j in range(vectors):
                if start:
                    zero_bytes(to + j * VECTOR_BYTES, VECTOR_BYTES)
                add_rows(b + j * VECTOR_BYTES, g.b_step, pixels, to + j * VECTOR_BYTES, like)
        # The dy of the next strip is fetched while this one is multiplied, unless it is copied to scratch.
        ahead, ahead_step = scratch, 0
        if g.dy_in_place:
            ahead, ahead_step = b + pixels * g.b_step, g.b_step
        c = sums + ((group * g.blocks + block) * g.panels + panel) * g.unit_bytes
        sweep(
            vectors, g.area * block_c, n_lines, lines, k, a, a_rows, g.a_step, b, tables + 8 * g.b_table, g.b_step,
            c, tables + 8 * g.c_table, scratch + g.zeros_at, 0 if start else ADD, ahead, ahead_step,
            scratch + g.spare_at, like,
        )  # fmt: skip


@worker
def correlate_weights(like, arguments, thread, threads):
    """Overwrite `sums`: for each chunk, [group][block][panel][tap, channel][lane] of dw, then panels of db.

    Arguments: x, dy, geometry, tables, sums, and scratch of `threads` times the geometry's scratch bytes.
    """
    x, dy, geometry, tables, sums, scratch = carray(arguments, 6)
    g = _geometry(geometry)
    element = carray(like, 1)
    strips = (g.n + g.images - 1) // g.images * g.row_strips
    own = scratch + thread * g.scratch
    zero_bytes(own + g.zeros_at, g.lanes * element.itemsize)
    in_chunk = g.groups * g.blocks * g.parts
    units = g.chunks * in_chunk
    for unit in range(thread * units // threads, (thread + 1) * units // threads):
        chunk, place = unit // in_chunk, unit % in_chunk
        part, block, group = place % g.parts, place // g.parts % g.blocks, place // g.parts // g.blocks
        base = sums + chunk * g.sums_bytes
        begin, end = chunk * strips // g.chunks, (chunk + 1) * strips // g.chunks
        for index in range(begin, end):
            _strip(
                x, dy, g, tables, base, base + g.sums_bytes - g.bias_bytes, own, index, index == begin, group, block,
                part * g.panels // g.parts, (part + 1) * g.panels // g.parts, element,
            )  # fmt: skip


@step
def _add_chunks(sums, g, rows, first, like):
    """Add the chunks' rows of lanes, in order, to those of the first chunk; `first`: of which row, in bytes."""
    for chunk in range(1, g.chunks):
        for place in range(first, first + rows * g.lanes * like.itemsize, VECTOR_BYTES):
            add_vector(sums + place, sums + place + chunk * g.sums_bytes, like)


@step
def _put_rows(source, tap_pitch, row_pitch, begin, end, area, lanes, to, row, square, like):
    """Copy the sums of channels `begin` to `end`, [tap][channel][lane], to rows [channel][tap] of dw, one a lane."""
    size = like.itemsize
    side = VECTOR_BYTES // size
    for first in range(begin, end, side):
        first = max(min(first, end - side), begin)
        if lanes < side or end - first < side:
            for lane in range(lanes):
                for c in range(first, end):
                    for tap in range(area):
                        value = load(source + tap * tap_pitch + c * row_pitch + lane * size, like)
                        store(to + lane * row + (c * area + tap) * size, value, like)
            continue
        if area == 1:
            transpose_block(source + first * row_pitch, row_pitch, to + first * size, row, like)
            continue
        for tap in range(area):
            begin_tap = square + tap * side * VECTOR_BYTES
            transpose_block(source + tap * tap_pitch + first * row_pitch, row_pitch, begin_tap, VECTOR_BYTES, like)
        for lane in range(side):
            place = to + lane * row + first * area * size
            for c in range(side):
                for tap in range(area):
                    value = load(square + (tap * side + lane) * VECTOR_BYTES + c * size, like)
                    store(place, value, like)
                    place += size


@worker
def reduce_weights(like, arguments, thread, threads):
    """Overwrite dw (F, C/groups, KH, KW) and, where the geometry says so, db (F,) from the chunks' sums.

    Arguments: geometry, sums, which are changed, dw, db, and scratch of `threads` squares of vectors for each tap. A
    thread owns a share of the input channels of each block.
    """
    geometry, sums, dw, db, scratch = carray(arguments, 5)
    g = _geometry(geometry)
    element = carray(like, 1)
    size = element.itemsize
    side = VECTOR_BYTES // size
    square = scratch + thread * g.area * side * VECTOR_BYTES
    row = g.group_c * g.area * size
    row_pitch = g.lanes * size
    for place in range(g.groups * g.blocks * g.panels):
        panel, block, group = place % g.panels, place // g.panels % g.blocks, place // g.panels // g.blocks
        channel = group * g.group_f + panel * g.lanes
        count = min(g.lanes, g.group_f - panel * g.lanes)
        block_c = g.last_c if block == g.blocks - 1 else g.block_c
        begin, end = thread * block_c // threads, (thread + 1) * block_c // threads
        source = sums + place * g.unit_bytes
        for tap in range(g.area):
            _add_chunks(source, g, end - begin, (tap * block_c + begin) * row_pitch, element)
        to = dw + channel * row + block * g.block_c * g.area * size
        for first in range(0, count, side):
            _put_rows(
                source + first * size, block_c * row_pitch, row_pitch, begin, end, g.area, min(side, count - first),
                to + first * row, row, square, element,
            )  # fmt: skip
        if g.bias and block == 0 and place % threads == thread:
            biases = sums + g.sums_bytes - g.bias_bytes
            first = (group * g.panels + panel) * row_pitch
            _add_chunks(biases, g, 1, first, element)
            for lane in range(count):
                store(db + (channel + lane) * size, load(biases + first + lane * size, element), element)
