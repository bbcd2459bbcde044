"""Backward-weights by Winograd: dg = G^T [ sum over tiles of (B^T x B) * (A dy A^T) ] G, the adjoint of forward.

The sum is a product [channels x tiles] by [tiles x lanes] for each point. As in `weights.py` a unit is one block of
x's channels and one panel of dy's, whose sums stay in cache while the strips of a chunk go by, and the number of
chunks follows from the shapes alone.
"""

from __future__ import annotations

import numpy as np
from numba import carray

from .jit import inlined, step, worker
from .layout import gather_rows
from .simd import VECTOR_BYTES, add_rows, add_vector, load, record_at, store, zero_bytes
from .tile import ADD, sweep
from .transforms import KERNEL, OUTPUT, make_transform
from .winograd import transform_inputs

FIELDS = (
    # the arrays; `*_first`: 1 for (n, channels, h, w); pixels of a tile along an axis; points
    "n", "c", "h", "w", "oh", "ow", "f", "x_first", "dy_first", "m", "points",
    # a strip: `images` whole ones, or `rows` rows of tiles, `row_strips` to an image; chunks of strips
    "images", "rows", "row_strips", "tile_rows", "tile_cols", "chunks",
    # blocks of input channels, channels in one and in the last
    "blocks", "block_c", "last_c",
    "origin_h", "origin_w", "x_cols",
    # bytes: of x and dy in scratch; of their transforms, from point to point
    "x_image", "x_row", "x_pixel", "dy_image", "dy_row", "dy_pixel", "input_pitch", "gradient_pitch",
    # panels of F, vectors in each and in the last, lanes of a panel
    "panels", "vectors", "last_vectors", "lanes",
    # indices into `tables`: rows of A and C
    "a_table", "c_table",
    "dy_at", "inputs_at", "gradients_at", "zeros_at", "table_at", "spare_at", "scratch",
    # bytes of one chunk's sums, of one unit's, of a point of it, of db's
    "sums_bytes", "unit_bytes", "point_bytes", "bias_bytes", "bias",
)  # fmt: skip
GEOMETRY = np.dtype([(name, np.int64) for name in FIELDS])
_geometry = record_at(GEOMETRY)

# The adjoints of the output's and of the kernel's transform.
_gradient_2, _gradient_4 = make_transform(OUTPUT[2].T), make_transform(OUTPUT[4].T)
_kernel_2, _kernel_4 = make_transform(KERNEL[2].T), make_transform(KERNEL[4].T)


@step
def _transform_gradients(panel, tile, vectors, row_pitch, pixel_pitch, m, target, point_pitch, like):
    """Transform the m x m gradients of one tile to one row of each point."""
    points = m + 2
    for v in range(vectors):
        source, to = panel + tile + v * VECTOR_BYTES, target + v * VECTOR_BYTES
        if m == 4:
            _gradient_4(source, row_pitch, pixel_pitch, to, points * point_pitch, point_pitch, like)
        else:
            _gradient_2(source, row_pitch, pixel_pitch, to, points * point_pitch, point_pitch, like)


@inlined
def _strip(x, dy, g, tables, sums, biases, scratch, index, start, block, panel, like):
    """Add one strip to the sums of a unit."""
    size = like.itemsize
    image = index // g.row_strips * g.images
    images = min(g.images, g.n - image)
    first = index % g.row_strips * g.rows
    rows = min(g.rows, g.tile_rows - first)
    tiles = images * rows * g.tile_cols
    last_panel = panel == g.panels - 1
    block_c = g.last_c if block == g.blocks - 1 else g.block_c
    vectors, count = (g.last_vectors, g.f - panel * g.lanes) if last_panel else (g.vectors, g.lanes)
    gradient = scratch + g.dy_at
    if count < vectors * VECTOR_BYTES // size:
        zero_bytes(gradient, images * g.dy_image)
    for i in range(images):
        gather_rows(
            x + (image + i) * g.c * g.h * g.w * size, g.x_first != 0, g.h, g.w, g.c, block * g.block_c, block_c,
            first * g.m + g.origin_h, rows * g.m + 2, g.origin_w, g.x_cols,
            scratch + i * g.x_image, g.x_row, g.x_pixel, scratch + g.table_at, like,
        )  # fmt: skip
        gather_rows(
            dy + (image + i) * g.f * g.oh * g.ow * size, g.dy_first != 0, g.oh, g.ow, g.f, panel * g.lanes, count,
            first * g.m, rows * g.m, 0, g.tile_cols * g.m,
            gradient + i * g.dy_image, g.dy_row, g.dy_pixel, scratch + g.table_at, like,
        )  # fmt: skip
        if g.bias and block == 0:
            for v in range(vectors):
                place = v * VECTOR_BYTES
                pixels = rows * g.m * g.tile_cols * g.m
                add_rows(gradient + i * g.dy_image + place, g.dy_pixel, pixels, biases + place, like)
    inputs, gradients = scratch + g.inputs_at, scratch + g.gradients_at
    channel_vectors = (block_c * size + VECTOR_BYTES - 1) // VECTOR_BYTES
    for tile in range(tiles):
        col, row, i = tile % g.tile_cols, tile // g.tile_cols % rows, tile // g.tile_cols // rows
        corner = i * g.x_image + row * g.m * g.x_row + col * g.m * g.x_pixel
        transform_inputs(
            scratch, corner, channel_vectors, g.x_row, g.x_pixel, g.m, inputs + tile * g.x_pixel, g.input_pitch, like
        )
        corner = i * g.dy_image + row * g.m * g.dy_row + col * g.m * g.dy_pixel
        _transform_gradients(
            gradient, corner, vectors, g.dy_row, g.dy_pixel, g.m, gradients + tile * g.dy_pixel, g.gradient_pitch, like
        )
    for point in range(g.points):
        # The first entry of the tables is 0: it serves as the offset of the only tap.
        sweep(
            vectors, block_c, 1, tables + 8 * g.a_table, tiles, inputs + point * g.input_pitch,
            tables + 8 * g.a_table, g.x_pixel, gradients + point * g.gradient_pitch, tables + 8 * g.a_table,
            g.dy_pixel, sums + point * g.point_bytes, tables + 8 * g.c_table, scratch + g.zeros_at,
            0 if start else ADD, scratch + g.spare_at, like,
        )  # fmt: skip


@worker
def winograd_weights(like, arguments, thread, threads):
    """Overwrite `sums`: for each chunk, units [block][panel][point][channel][lane], then panels of db.

    Arguments: x, dy, geometry, tables, sums, and scratch of `threads` times the geometry's scratch bytes.
    """
    x, dy, geometry, tables, sums, scratch = carray(arguments, 6)
    g = _geometry(geometry)
    element = carray(like, 1)
    size = element.itemsize
    strips = (g.n + g.images - 1) // g.images * g.row_strips
    own = scratch + thread * g.scratch
    zero_bytes(own + g.zeros_at, g.lanes * size)
    in_chunk = g.blocks * g.panels
    units = g.chunks * in_chunk
    for unit in range(thread * units // threads, (thread + 1) * units // threads):
        chunk, place = unit // in_chunk, unit % in_chunk
        panel, block = place % g.panels, place // g.panels
        base = sums + chunk * g.sums_bytes
        biases = base + g.sums_bytes - g.bias_bytes + panel * g.lanes * size
        if g.bias and block == 0:
            zero_bytes(biases, g.lanes * size)
        begin, end = chunk * strips // g.chunks, (chunk + 1) * strips // g.chunks
        for index in range(begin, end):
            _strip(
                x, dy, g, tables, base + place * g.unit_bytes, biases, own, index, index == begin, block, panel,
                element,
            )  # fmt: skip


@worker
def finish_weights(like, arguments, thread, threads):
    """Overwrite dw (F, C, 3, 3) and, where the geometry says so, db (F,) from the chunks' sums, which are changed.

    Arguments: geometry, sums, dw, db, and scratch of `threads` times nine vectors. A thread owns a share of the input
    channels of each block.
    """
    geometry, sums, dw, db, scratch = carray(arguments, 5)
    g = _geometry(geometry)
    element = carray(like, 1)
    size = element.itemsize
    taps = scratch + thread * 9 * VECTOR_BYTES
    lanes = VECTOR_BYTES // size
    for place in range(g.blocks * g.panels):
        panel, block = place % g.panels, place // g.panels
        block_c = g.last_c if block == g.blocks - 1 else g.block_c
        count = min(g.lanes, g.f - panel * g.lanes)
        for first in range(0, count, lanes):
            for c in range(thread * block_c // threads, (thread + 1) * block_c // threads):
                line = sums + place * g.unit_bytes + (c * g.lanes + first) * size
                for chunk in range(1, g.chunks):
                    for point in range(g.points):
                        to = line + point * g.point_bytes
                        add_vector(to, to + chunk * g.sums_bytes, element)
                row = (g.m + 2) * g.point_bytes
                if g.m == 4:
                    _kernel_4(line, row, g.point_bytes, taps, 3 * VECTOR_BYTES, VECTOR_BYTES, element)
                else:
                    _kernel_2(line, row, g.point_bytes, taps, 3 * VECTOR_BYTES, VECTOR_BYTES, element)
                to = dw + ((panel * g.lanes + first) * g.c + block * g.block_c + c) * 9 * size
                for lane in range(min(lanes, count - first)):
                    for tap in range(9):
                        value = load(taps + tap * VECTOR_BYTES + lane * size, element)
                        store(to + lane * g.c * 9 * size + tap * size, value, element)
        if g.bias and block == 0 and place % threads == thread:
            biases = sums + g.sums_bytes - g.bias_bytes + panel * g.lanes * size
            for first in range(0, count, lanes):
                for chunk in range(1, g.chunks):
                    add_vector(biases + first * size, biases + chunk * g.sums_bytes + first * size, element)
                for lane in range(first, min(first + lanes, count)):
                    store(db + (panel * g.lanes + lane) * size, load(biases + lane * size, element), element)
