"""Winograd convolution F(m x m, 3 x 3), stride 1: forward and backward-data as one worker, backward-weights as another.

A tile of m x m outputs reads (m + 2) x (m + 2) inputs. With the matrices of `transforms.py`,

    forward            Y = A^T [ sum over channels of (G g G^T) * (B^T x B) ] A
    backward-data      the same, of dy, with the kernel flipped and its channels swapped
    backward-weights   dg = G^T [ sum over tiles of (B^T x B) * (A dy A^T) ] G, the adjoint

and the sums are products of matrices, one for each of the (m + 2)^2 points, on the one tile of `tile.py`. F(4x4, 3x3)
does a quarter of direct's multiplications (Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", 2015).

A strip is some rows of Winograd tiles of one image or some whole images, gathered to NHWC with its padding. Its
transformed points, products and pixels stay in scratch.
"""

from __future__ import annotations

import numpy as np
from numba import carray

from .jit import inlined, step, worker
from .layout import gather_rows, scatter_rows
from .simd import VECTOR_BYTES, copy_vector, record_at
from .tile import sweep
from .transforms import INPUT, KERNEL, OUTPUT, make_finish, make_transform

FIELDS = (
    # the arrays; `source_first`, `target_first`: 1 for (n, channels, h, w); pixels of a tile along an axis; points
    "n", "c", "h", "w", "oh", "ow", "f", "source_first", "target_first", "target_in_place", "m", "points",
    # a strip: `images` whole ones, or `rows` rows of tiles, `row_strips` to an image; ranges of panels
    "images", "rows", "row_strips", "tile_rows", "tile_cols", "parts",
    # input pixel of the first tile; columns of a strip of inputs
    "origin_h", "origin_w", "source_cols",
    # bytes: of inputs in scratch; of transformed inputs, from point to point (a tile's are a pixel's); of products,
    # from point to point and tile to tile; of output pixels
    "image_pitch", "row_pitch", "pixel_pitch", "input_pitch", "product_pitch", "product_tile", "target_pitch",
    # panels of F, vectors in each and in the last, lanes of a panel, bytes of one point's panel
    "panels", "vectors", "last_vectors", "lanes", "panel_bytes",
    "relu",
    # offsets in bytes: of tile rows of A, rows of C
    "a_table", "c_table",
    "inputs_at", "products_at", "target_at", "patch_at", "table_at", "spare_at", "scratch",
)  # fmt: skip
GEOMETRY = np.dtype([(name, np.int64) for name in FIELDS])
_geometry = record_at(GEOMETRY)

_input_2, _input_4 = make_transform(INPUT[2]), make_transform(INPUT[4])
_kernel_2, _kernel_4 = make_transform(KERNEL[2]), make_transform(KERNEL[4])
_output_2, _output_4 = make_finish(OUTPUT[2]), make_finish(OUTPUT[4])


@step
def transform_inputs(strip, tile, vectors, row_pitch, pixel_pitch, m, target, point_pitch, like):
    """Transform the inputs of one tile, `vectors` vectors of channels, to one row of each point."""
    points = m + 2
    for v in range(vectors):
        source, to = strip + tile + v * VECTOR_BYTES, target + v * VECTOR_BYTES
        if m == 4:
            _input_4(source, row_pitch, pixel_pitch, to, points * point_pitch, point_pitch, like)
        else:
            _input_2(source, row_pitch, pixel_pitch, to, points * point_pitch, point_pitch, like)


@step
def _finish_tile(source, point_pitch, m, rows, cols, target, row_pitch, pixel_pitch, bias, relu, patch, vectors, like):
    """Transform one tile of products to its `rows` x `cols` pixels that lie inside the image."""
    points = m + 2
    whole = rows == m and cols == m
    for v in range(vectors):
        place = v * VECTOR_BYTES
        to, row, pixel = target + place, row_pitch, pixel_pitch
        if not whole:
            to, row, pixel = patch, m * VECTOR_BYTES, VECTOR_BYTES
        if m == 4:
            _output_4(source + place, points * point_pitch, point_pitch, to, row, pixel, bias + place, relu, like)
        else:
            _output_2(source + place, points * point_pitch, point_pitch, to, row, pixel, bias + place, relu, like)
        if not whole:
            for i in range(rows):
                for j in range(cols):
                    inside = target + place + i * row_pitch + j * pixel_pitch
                    copy_vector(inside, patch + (i * m + j) * VECTOR_BYTES, like)


@inlined
def _strip(source, packed, transformed, target, g, tables, scratch, unit, like):
    """Compute one unit: a strip of tiles for one range of panels."""
    size = like.itemsize
    strips = (g.n + g.images - 1) // g.images * g.row_strips
    part, strip_index = unit // strips, unit % strips
    image = strip_index // g.row_strips * g.images
    images = min(g.images, g.n - image)
    first = strip_index % g.row_strips * g.rows
    rows = min(g.rows, g.tile_rows - first)
    tiles = images * rows * g.tile_cols
    for i in range(images):
        gather_rows(
            source + (image + i) * g.c * g.h * g.w * size, g.source_first != 0, g.h, g.w, g.c, 0, g.c,
            first * g.m + g.origin_h, rows * g.m + 2, g.origin_w, g.source_cols,
            scratch + i * g.image_pitch, g.row_pitch, g.pixel_pitch, scratch + g.table_at, like,
        )  # fmt: skip
    inputs, products = scratch + g.inputs_at, scratch + g.products_at
    for tile in range(tiles):
        col, row, i = tile % g.tile_cols, tile // g.tile_cols % rows, tile // g.tile_cols // rows
        corner = i * g.image_pitch + row * g.m * g.row_pitch + col * g.m * g.pixel_pitch
        transform_inputs(
            scratch, corner, (g.c * size + VECTOR_BYTES - 1) // VECTOR_BYTES, g.row_pitch, g.pixel_pitch, g.m,
            inputs + tile * g.pixel_pitch, g.input_pitch, like,
        )  # fmt: skip
    zeros = packed
    biases = packed + g.lanes * size
    begin, end = part * g.panels // g.parts, (part + 1) * g.panels // g.parts
    a_rows, c_rows = tables + 8 * g.a_table, tables + 8 * g.c_table
    for point in range(g.points):
        for panel in range(begin, end):
            vectors = g.last_vectors if panel == g.panels - 1 else g.vectors
            # The first entry of the tables is 0: it serves as the offset of the only tap.
            sweep(
                vectors, tiles, 1, a_rows, g.c, inputs + point * g.input_pitch, a_rows, size,
                transformed + (point * g.panels + panel) * g.panel_bytes, a_rows, g.lanes * size,
                products + point * g.product_pitch + (panel - begin) * g.lanes * size, c_rows, zeros, 0,
                scratch + g.spare_at, like,
            )  # fmt: skip
    image_bytes = g.f * g.oh * g.ow * size
    first_row = first * g.m
    lines = min(rows * g.m, g.oh - first_row)
    channel = begin * g.lanes
    channels = min(end * g.lanes, g.f) - channel
    corner = target + image * image_bytes + first_row * g.ow * (size if g.target_first else g.f * size)
    base, base_image = scratch + g.target_at, lines * g.ow * g.target_pitch
    if g.target_in_place:
        base, base_image = corner + channel * size, image_bytes
    for tile in range(tiles):
        col, row, i = tile % g.tile_cols, tile // g.tile_cols % rows, tile // g.tile_cols // rows
        _finish_tile(
            products + tile * g.product_tile, g.product_pitch, g.m, min(g.m, lines - row * g.m),
            min(g.m, g.ow - col * g.m), base + i * base_image + (row * g.m * g.ow + col * g.m) * g.target_pitch,
            g.ow * g.target_pitch, g.target_pitch, biases + begin * g.lanes * size, g.relu, scratch + g.patch_at,
            (channels * size + VECTOR_BYTES - 1) // VECTOR_BYTES, like,
        )  # fmt: skip
    if not g.target_in_place:
        for i in range(images):
            scatter_rows(
                base + i * base_image, g.target_pitch, channels, g.target_first != 0, g.oh * g.ow * size, g.f,
                channel, corner + i * image_bytes, lines * g.ow, like,
            )  # fmt: skip


@worker
def winograd(like, arguments, thread, threads):
    """Overwrite `target` (n, f, oh, ow) or (n, oh, ow, f) with the convolution of `source`.

    Arguments: source, packed (made by `pack`: its zeros and biases), the transformed weights, target, geometry,
    tables, and scratch of `threads` times the geometry's scratch bytes.
    """
    source, packed, transformed, target, geometry, tables, scratch = carray(arguments, 7)
    g = _geometry(geometry)
    units = (g.n + g.images - 1) // g.images * g.row_strips * g.parts
    own = scratch + thread * g.scratch
    for unit in range(thread * units // threads, (thread + 1) * units // threads):
        _strip(source, packed, transformed, target, g, tables, own, unit, carray(like, 1))


@worker
def transform_weights(like, arguments, thread, threads):
    """Overwrite `transformed`, [point][panel][c][lane], with G g G^T of the panels that `pack` made.

    Arguments: packed, transformed, panels, lanes, channels c, m.
    """
    packed, transformed, panels, lanes, depth, m = carray(arguments, 6)
    element = carray(like, 1)
    size = element.itemsize
    row = lanes * size
    points = m + 2
    first = packed + (1 + panels) * row
    vectors = row // VECTOR_BYTES
    total = panels * depth
    for index in range(thread * total // threads, (thread + 1) * total // threads):
        panel, k = index // depth, index % depth
        for v in range(vectors):
            source = first + panel * 9 * depth * row + k * row + v * VECTOR_BYTES
            target = transformed + panel * depth * row + k * row + v * VECTOR_BYTES
            point = panels * depth * row
            if m == 4:
                _kernel_4(source, 3 * depth * row, depth * row, target, points * point, point, element)
            else:
                _kernel_2(source, 3 * depth * row, depth * row, target, points * point, point, element)
