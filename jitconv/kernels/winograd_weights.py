"""Backward-weights by Winograd: dg = G^T [ sum over tiles of (B^T x B) * (A dy A^T) ] G, the adjoint of forward.

The sum is a product [channels x tiles] by [tiles x lanes] for each point. Where the sums of all channels fit in L2
the unit is a chunk of strips with sums of its own. Otherwise the strips are done in rounds: all threads transform
the tiles of a round, once, then share its products, a block of x's channels and a panel of dy's at a time.
The sums of a channel run over the tiles in order, chunk by chunk or round by round, which follow from the shapes.
"""

from __future__ import annotations

import numpy as np
from numba import carray

from .jit import inlined, step, worker
from .layout import gather_rows
from .simd import VECTOR_BYTES, add_rows, add_vector, load, record_at, store, transpose_block, zero_bytes
from .tail import PLAIN, gather_gradient
from .tile import ADD, sweep
from .transforms import FORWARD_FORMS, SUM_POINT, make_transform
from .winograd import transform_gradients, transform_inputs

FIELDS = (
    # the arrays; `*_first`: 1 for (n, channels, h, w); how dy is read
    "n", "c", "h", "w", "oh", "ow", "f", "x_first", "dy_first", "read_as",
    "groups", "group_c", "group_f",
    # the form, its sizes along an axis, taps along both, and points along both
    "form", "outputs", "step", "extent", "line", "taps", "area", "points",
    # a strip: `images` whole ones, or `rows` rows of tiles, `row_strips` to an image; chunks of strips
    "images", "rows", "row_strips", "tile_rows", "tile_cols", "chunks",
    # blocks of a group's input channels, channels in one
    "blocks", "block_c",
    "origin_h", "origin_w", "x_cols",
    # bytes: of x and dy in scratch; of their transforms, from point to point, from vector of channels to the
    # next, from panel to panel
    "x_row", "x_pixel", "dy_row", "dy_pixel", "input_pitch", "input_vector", "gradient_pitch", "gradient_panel",
    # panels of a group of F, vectors in each and in the last, lanes of a panel
    "panels", "vectors", "last_vectors", "lanes",
    # indices into `tables`: rows of A and C
    "a_table", "c_table",
    # offsets in a thread's scratch, and its size; bytes of transforms, and where those of dy begin
    "strip_at", "taps_at", "zeros_at", "table_at", "spare_at", "scratch", "transformed", "gradients_at",
    # bytes of one chunk's sums, of one unit's, of a point of it, of db's; 1 where a unit's sums are a thread's
    "sums_bytes", "unit_bytes", "point_bytes", "bias_bytes", "bias", "own_sums",
)  # fmt: skip
GEOMETRY = np.dtype([(name, np.int64) for name in FIELDS])
_geometry = record_at(GEOMETRY)

# What a launch does: chunks from their tiles to their sums; the transforms of a round, or its products and, after the
# last, dw; dw from the sums of the chunks.
CHUNKS, TRANSFORM, MULTIPLY, FINISH = range(4)

# G^T of the sums of kernels.
_transform_sums = make_transform([form.kernel.T for form in FORWARD_FORMS])


@step
def _tiles_of_x(x, g, image, first, rows, target, first_tile, scratch, like):
    """Transform the tiles of one image of x in rows `first`... of tiles."""
    strip = scratch + g.strip_at
    gather_rows(
        x + image * g.c * g.h * g.w * like.itemsize, g.x_first != 0, g.h, g.w, g.c, 0, g.c,
        first * g.step + g.origin_h, rows * g.step + g.extent - g.step, g.origin_w, g.x_cols, strip, g.x_row, g.x_pixel,
        scratch + g.table_at, like,
    )  # fmt: skip
    for tile in range(rows * g.tile_cols):
        corner = strip + tile // g.tile_cols * g.step * g.x_row + tile % g.tile_cols * g.step * g.x_pixel
        to = target + (first_tile + tile) * VECTOR_BYTES
        for place in range(0, g.x_pixel, VECTOR_BYTES):
            transform_inputs(
                g.form, corner + place, g.x_row, g.x_pixel, to, g.line * g.input_pitch, g.input_pitch, like
            )
            to += g.input_vector


@step
def _tiles_of_dy(dy, g, image, first, rows, target, first_tile, scratch, like):
    """Transform the tiles of one image of dy in rows `first`... of tiles."""
    strip = scratch + g.strip_at
    size = like.itemsize
    if g.read_as == PLAIN:
        gather_rows(
            dy + image * g.f * g.oh * g.ow * size, g.dy_first != 0, g.oh, g.ow, g.f, 0, g.f, first * g.outputs,
            rows * g.outputs, 0, g.tile_cols * g.outputs, strip, g.dy_row, g.dy_pixel, scratch + g.table_at, like,
        )  # fmt: skip
    else:
        gather_gradient(
            dy, g.read_as, image, g.oh, g.ow, g.f, 0, g.f, first * g.outputs, rows * g.outputs, 0,
            g.tile_cols * g.outputs, strip, g.dy_row, g.dy_pixel, like,
        )  # fmt: skip
    for tile in range(rows * g.tile_cols):
        corner = strip + tile // g.tile_cols * g.outputs * g.dy_row + tile % g.tile_cols * g.outputs * g.dy_pixel
        for index in range(g.groups * g.panels):
            to = target + index * g.gradient_panel + (first_tile + tile) * g.lanes * size
            first_channel = index % g.panels * g.lanes
            begin = (index // g.panels * g.group_f + first_channel) * size
            for place in range(0, min(g.lanes, g.group_f - first_channel) * size, VECTOR_BYTES):
                transform_gradients(
                    g.form, corner + begin + place, g.dy_row, g.dy_pixel, to + place, g.line * g.gradient_pitch,
                    g.gradient_pitch, like,
                )  # fmt: skip


@step
def _first_tile(g, strip):
    """Return the number of a strip's first tile, counted over all images."""
    return min(
        (strip // g.row_strips * g.images * g.tile_rows + strip % g.row_strips * g.rows) * g.tile_cols,
        g.n * g.tile_rows * g.tile_cols,
    )


@step
def _transform(x, dy, g, transformed, scratch, strip, first_tile, like):
    """Transform the tiles of a strip; `first_tile` is the number of the first in `transformed`."""
    image = strip // g.row_strips * g.images
    first = strip % g.row_strips * g.rows
    rows = min(g.rows, g.tile_rows - first)
    number = _first_tile(g, strip) - first_tile
    for i in range(image, min(image + g.images, g.n)):
        _tiles_of_x(x, g, i, first, rows, transformed, number, scratch, like)
        _tiles_of_dy(dy, g, i, first, rows, transformed + g.gradients_at, number, scratch, like)
        number += rows * g.tile_cols


@inlined
def _multiply(g, tables, transformed, sums, biases, place, tiles, start, scratch, like):
    """Add the products of `tiles` tiles to the sums of one block and one panel."""
    size = like.itemsize
    panel, block, group = place % g.panels, place // g.panels % g.blocks, place // g.panels // g.blocks
    vectors = g.last_vectors if panel == g.panels - 1 else g.vectors
    index = group * g.panels + panel
    gradients = transformed + g.gradients_at + index * g.gradient_panel
    row = g.lanes * size
    # The first entry of the tables is 0: it serves as the offset of the only tap.
    zero = tables + 8 * g.a_table
    for point in range(g.points):
        sweep(
            vectors, min(g.block_c, g.group_c - block * g.block_c), 1, zero, tiles,
            transformed + point * g.input_pitch, zero + 8 * (group * g.group_c + block * g.block_c), VECTOR_BYTES,
            gradients + point * g.gradient_pitch, zero, row,
            sums + point * g.point_bytes, tables + 8 * g.c_table, scratch + g.zeros_at, 0 if start else ADD,
            scratch, 0, scratch + g.spare_at, like,
        )  # fmt: skip
    if g.bias and block == 0:
        if start:
            zero_bytes(biases + index * row, row)
        source = gradients + (SUM_POINT * g.line + SUM_POINT) * g.gradient_pitch
        for v in range(vectors):
            add_rows(source + v * VECTOR_BYTES, row, tiles, biases + index * row + v * VECTOR_BYTES, like)


@step
def _finish(g, sums, biases, place, begin, end, dw, db, scratch, like):
    """Store dw of channels `begin` to `end` of one block and one panel, and db with the first of them."""
    size = like.itemsize
    lanes = VECTOR_BYTES // size
    panel, block, group = place % g.panels, place // g.panels % g.blocks, place // g.panels // g.blocks
    taps = scratch + g.taps_at
    row = g.group_c * g.area * size
    for lane0 in range(0, min(g.lanes, g.group_f - panel * g.lanes), lanes):
        first = group * g.group_f + panel * g.lanes + lane0
        count = min(lanes, g.group_f - panel * g.lanes - lane0)
        for c in range(begin, end, lanes):
            channels = min(lanes, end - c)
            for k in range(channels):
                _transform_sums(
                    g.form, sums + ((c + k) * g.lanes + lane0) * size, g.line * g.point_bytes,
                    g.point_bytes, taps + k * g.area * VECTOR_BYTES, g.taps * VECTOR_BYTES, VECTOR_BYTES, like,
                )  # fmt: skip
            to = dw + first * row + (block * g.block_c + c) * g.area * size
            columns = channels * g.area
            if count < lanes or columns < lanes:
                for lane in range(count):
                    for column in range(columns):
                        value = load(taps + column * VECTOR_BYTES + lane * size, like)
                        store(to + lane * row + column * size, value, like)
                continue
            for column in range(0, columns, lanes):
                column = min(column, columns - lanes)
                transpose_block(taps + column * VECTOR_BYTES, VECTOR_BYTES, to + column * size, row, like)
        if g.bias and block == 0 and begin == 0:
            held = biases + ((group * g.panels + panel) * g.lanes + lane0) * size
            for lane in range(count):
                store(db + (first + lane) * size, load(held + lane * size, like), like)


@step
def _add_chunks(g, sums, like):
    """Add the sums of the later chunks, in order, to one vector of the first."""
    for chunk in range(1, g.chunks):
        add_vector(sums, sums + chunk * g.sums_bytes, like)


@worker
def winograd_weights(like, arguments, thread, threads):
    """Overwrite `sums` or dw (F, C, KH, KW) and, where the geometry says so, db (F,), as `stage` says.

    Arguments: x, dy, for which there may be the table of `tail.py`, dw, db, geometry, tables, sums, scratch of the
    geometry's transformed bytes (CHUNKS: for each thread), scratch of `threads` times its scratch bytes, the stage, and
    the first and the end of a round's strips.
    The sums are, for each chunk, units [group][block][panel][point][channel][lane], then panels of db.
    """
    x, dy, dw, db, geometry, tables, sums, transformed, scratch, stage, begin, end = carray(arguments, 12)
    g = _geometry(geometry)
    element = carray(like, 1)
    size = element.itemsize
    own = scratch + thread * g.scratch
    strips = (g.n + g.images - 1) // g.images * g.row_strips
    places = g.groups * g.blocks * g.panels
    zero_bytes(own + g.zeros_at, g.lanes * size)
    biases = sums + g.sums_bytes - g.bias_bytes
    if stage == FINISH:
        lanes = VECTOR_BYTES // size
        groups = (g.block_c + lanes - 1) // lanes
        for unit in range(thread * places * groups // threads, (thread + 1) * places * groups // threads):
            place, c = unit // groups, unit % groups * lanes
            panel, block, group = place % g.panels, place // g.panels % g.blocks, place // g.panels // g.blocks
            last = min(c + lanes, g.block_c, g.group_c - block * g.block_c)
            if last <= c:
                continue
            row = g.lanes * size
            base = sums + place * g.unit_bytes
            for point in range(g.points):
                for at in range(point * g.point_bytes + c * row, point * g.point_bytes + last * row, VECTOR_BYTES):
                    _add_chunks(g, base + at, element)
            if g.bias and block == 0 and c == 0:
                index = group * g.panels + panel
                for at in range(index * row, (index + 1) * row, VECTOR_BYTES):
                    _add_chunks(g, biases + at, element)
            _finish(g, base, biases, place, c, last, dw, db, own, element)
        return
    # One loop for all stages, so that the tile is compiled once.
    units = end - begin
    if stage == CHUNKS:
        units = g.chunks
        transformed += thread * g.transformed
    elif stage == MULTIPLY:
        units = places
    for unit in range(thread * units // threads, (thread + 1) * units // threads):
        first_strip, last_strip, base, first_place, last_place = begin + unit, begin + unit + 1, sums, 0, places
        if stage == CHUNKS:
            first_strip, last_strip = unit * strips // g.chunks, (unit + 1) * strips // g.chunks
            base = sums + unit * g.sums_bytes
        elif stage == MULTIPLY:
            first_strip, last_strip, first_place, last_place = begin, begin + 1, unit, unit + 1
        for strip in range(first_strip, last_strip):
            if stage != MULTIPLY:
                first_tile = _first_tile(g, strip if stage == CHUNKS else begin)
                _transform(x, dy, g, transformed, own, strip, first_tile, element)
            if stage == TRANSFORM:
                continue
            tiles = _first_tile(g, end if stage == MULTIPLY else strip + 1) - _first_tile(g, strip)
            start = strip == (0 if stage == MULTIPLY else first_strip)
            for place in range(first_place, last_place):
                unit_sums = base + place * g.unit_bytes
                if g.own_sums:
                    unit_sums = sums + thread * g.unit_bytes
                unit_biases = base + g.sums_bytes - g.bias_bytes
                _multiply(g, tables, transformed, unit_sums, unit_biases, place, tiles, start, own, element)
                if stage == MULTIPLY and end == strips:
                    block_c = min(g.block_c, g.group_c - place // g.panels % g.blocks * g.block_c)
                    _finish(g, unit_sums, unit_biases, place, 0, block_c, dw, db, own, element)
