"""Winograd convolution: forward and backward-data as one worker, backward-weights in `winograd_weights.py`.

A tile of outputs reads a tile of inputs that overlaps the next. With the matrices of `transforms.py`,

    forward            Y = A^T [ sum over channels of (G g G^T) * (B^T x B) ] A
    backward-data      the same, of dy, with the kernel flipped and its channels swapped
    backward-weights   dg = G^T [ sum over tiles of (B^T x B) * (A dy A^T) ] G, the adjoint

and the sums are products of matrices, one for each point of a transformed tile, on the one tile of `tile.py`.
F(4x4, 3x3) does a quarter of direct's multiplications, F(4x4, 5x5) a sixth, stride 2 little more than half.

A strip is some rows of tiles of one image or some whole images. Its images are gathered to NHWC with their padding,
one by one; its transformed inputs and products stay in scratch. Reading NHWC in place costs more than it saves: a tile
is many short pieces, which no prefetcher follows (64 channels of 32x32 pixels: 4.8 ms in place, 1.9 ms gathered).
"""

from __future__ import annotations

import numpy as np
from numba import carray

from .jit import inlined, step, worker
from .layout import gather_rows, scatter_rows, transpose_rows
from .simd import VECTOR_BYTES, copy_bytes, copy_vector, fence, load_i64, record_at, zero_bytes
from .tail import ARGMAX, PLAIN, Y, gather_gradient, pool_rows
from .tile import sweep
from .transforms import FORMS, FORWARD_FORMS, make_finish, make_streamed, make_transform

FIELDS = (
    # the arrays; `source_first`, `target_first`: 1 for (n, channels, h, w)
    "n", "c", "h", "w", "oh", "ow", "f", "source_first", "target_first", "target_in_place",
    # channels of one group
    "groups", "group_c", "group_f",
    # the form, its sizes along an axis, and its points along both
    "form", "outputs", "step", "extent", "line", "points",
    # a strip: `images` whole ones, or `rows` rows of tiles, `row_strips` to an image; ranges of panels
    "images", "rows", "row_strips", "tile_rows", "tile_cols", "parts",
    # input pixel of the first tile; columns of a strip
    "origin_h", "origin_w", "strip_cols",
    # bytes: of source pixels in scratch; of transformed inputs, from point to point and tile to tile; of
    # products, likewise; of output pixels
    "row_pitch", "pixel_pitch", "input_pitch", "input_tile", "product_pitch", "product_tile",
    "target_pitch",
    # panels of a group of F, vectors in each and in the last, lanes of a panel; bytes of weights, from panel to
    # panel and point to point
    "panels", "vectors", "last_vectors", "lanes", "panel_bytes", "weight_pitch",
    # 1: past the caches, where target is aligned; how source is read; 1: of the result the largest of each square
    "relu", "stream", "read_as", "pooled",
    # offsets in bytes: of tile rows of A, rows of C
    "a_table", "c_table",
    "inputs_at", "products_at", "target_at", "patch_at", "table_at", "spare_at", "scratch",
)  # fmt: skip
GEOMETRY = np.dtype([(name, np.int64) for name in FIELDS])
_geometry = record_at(GEOMETRY)

# B^T of a tile of inputs, A of a tile of dy, G of kernels, and A^T of a tile of products.
transform_inputs = make_transform([form.input for form in FORMS])
transform_gradients = make_transform([form.output.T for form in FORWARD_FORMS])
_transform_kernels = make_streamed([form.kernel for form in FORMS])
_transform_outputs = make_finish([form.output for form in FORMS])


@step
def _finish_tile(g, source, rows, cols, target, row_pitch, bias, stream, patch, count, like):
    """Transform one tile of products to its `rows` x `cols` pixels that lie inside the image; `count` channels."""
    whole = rows == g.outputs and cols == g.outputs
    for place in range(0, count * like.itemsize, VECTOR_BYTES):
        to, row, pixel = target + place, row_pitch, g.target_pitch
        if not whole:
            to, row, pixel = patch, g.outputs * VECTOR_BYTES, VECTOR_BYTES
        _transform_outputs(
            g.form, source + place, g.line * g.product_pitch, g.product_pitch, to, row, pixel, bias + place, g.relu,
            stream and whole, like,
        )  # fmt: skip
        if not whole:
            for i in range(rows):
                for j in range(cols):
                    inside = target + place + i * row_pitch + j * g.target_pitch
                    copy_vector(inside, patch + (i * g.outputs + j) * VECTOR_BYTES, like)


@inlined
def _inputs(source, g, image, images, first, rows, scratch, like):
    """Transform the inputs of a strip."""
    size = like.itemsize
    tiles = rows * g.tile_cols
    top, height = first * g.step + g.origin_h, rows * g.step + g.extent - g.step
    for i in range(images):
        if g.read_as == PLAIN:
            gather_rows(
                source + (image + i) * g.c * g.h * g.w * size, g.source_first != 0, g.h, g.w, g.c, 0, g.c, top, height,
                g.origin_w, g.strip_cols, scratch, g.row_pitch, g.pixel_pitch, scratch + g.table_at, like,
            )  # fmt: skip
        else:
            gather_gradient(
                source, g.read_as, image + i, g.h, g.w, g.c, 0, g.c, top, height, g.origin_w, g.strip_cols, scratch,
                g.row_pitch, g.pixel_pitch, like,
            )  # fmt: skip
        for tile in range(tiles):
            corner = tile // g.tile_cols * g.step * g.row_pitch + tile % g.tile_cols * g.step * g.pixel_pitch
            to = scratch + g.inputs_at + (i * tiles + tile) * g.input_tile
            for place in range(0, g.pixel_pitch, VECTOR_BYTES):
                transform_inputs(
                    g.form, scratch + corner + place, g.row_pitch, g.pixel_pitch, to + place, g.line * g.input_pitch,
                    g.input_pitch, like,
                )  # fmt: skip


@inlined
def _outputs(target, g, image, images, first, rows, biases, begin, end, scratch, stream, like):
    """Transform the products of a strip, panels `begin` to `end`, to its pixels."""
    size = like.itemsize
    image_bytes = g.f * g.oh * g.ow * size
    lines = min(rows * g.outputs, g.oh - first * g.outputs)
    corner = target + image * image_bytes + first * g.outputs * g.ow * (size if g.target_first else g.f * size)
    tiles = rows * g.tile_cols
    row_bytes = g.lanes * size
    for i in range(images):
        for tile in range(tiles):
            row, col = tile // g.tile_cols * g.outputs, tile % g.tile_cols * g.outputs
            source = scratch + g.products_at + (i * tiles + tile) * g.product_tile
            for index in range(begin, end):
                lane0 = index % g.panels * g.lanes
                base = scratch + g.target_at + (index - begin) * row_bytes
                if g.target_in_place:
                    base = corner + i * image_bytes + (index // g.panels * g.group_f + lane0) * size
                _finish_tile(
                    g, source + (index - begin) * row_bytes, min(g.outputs, lines - row), min(g.outputs, g.ow - col),
                    base + (row * g.ow + col) * g.target_pitch, g.ow * g.target_pitch, biases + index * row_bytes,
                    stream and g.target_in_place, scratch + g.patch_at, min(g.lanes, g.group_f - lane0), like,
                )  # fmt: skip
        if g.target_in_place:
            continue
        for index in range(begin, end):
            lane0 = index % g.panels * g.lanes
            if g.pooled:
                channel = index // g.panels * g.group_f + lane0
                place = ((image + i) * (g.oh // 2) + first * g.outputs // 2) * (g.ow // 2) * g.f + channel
                pool_rows(
                    scratch + g.target_at + (index - begin) * row_bytes, g.ow * g.target_pitch, g.target_pitch, lines,
                    g.ow, load_i64(target + 8 * Y) + place * size, load_i64(target + 8 * ARGMAX) + place, g.f,
                    min(g.lanes, g.group_f - lane0), like,
                )  # fmt: skip
                continue
            scatter_rows(
                scratch + g.target_at + (index - begin) * row_bytes, g.target_pitch, min(g.lanes, g.group_f - lane0),
                g.target_first != 0, g.oh * g.ow * size, g.f, index // g.panels * g.group_f + lane0,
                corner + i * image_bytes, lines * g.ow, stream, like,
            )  # fmt: skip


@inlined
def _strip(source, transformed, target, g, tables, scratch, stream, unit, like):
    """Compute one unit: a strip of tiles for one range of panels, those of all groups one after another."""
    size = like.itemsize
    strips = (g.n + g.images - 1) // g.images * g.row_strips
    part, strip_index = unit // strips, unit % strips
    image = strip_index // g.row_strips * g.images
    images = min(g.images, g.n - image)
    first = strip_index % g.row_strips * g.rows
    rows = min(g.rows, g.tile_rows - first)
    _inputs(source, g, image, images, first, rows, scratch, like)
    zeros = transformed
    total = g.groups * g.panels
    biases = zeros + g.lanes * size
    weights = biases + total * g.lanes * size
    begin, end = part * total // g.parts, (part + 1) * total // g.parts
    a_rows, c_rows = tables + 8 * g.a_table, tables + 8 * g.c_table
    for point in range(g.points):
        for index in range(begin, end):
            group, panel = index // g.panels, index % g.panels
            vectors = g.last_vectors if panel == g.panels - 1 else g.vectors
            # The first entry of the tables is 0: it serves as the offset of the only tap.
            sweep(
                vectors, images * rows * g.tile_cols, 1, a_rows, g.group_c,
                scratch + g.inputs_at + point * g.input_pitch + group * g.group_c * size, a_rows, size,
                weights + (group * g.points + point) * g.weight_pitch + panel * g.panel_bytes, a_rows, g.lanes * size,
                scratch + g.products_at + point * g.product_pitch + (index - begin) * g.lanes * size, c_rows, zeros, 0,
                zeros, 0, scratch + g.spare_at, like,
            )  # fmt: skip
    _outputs(target, g, image, images, first, rows, biases, begin, end, scratch, stream, like)


@worker
def winograd(like, arguments, thread, threads):
    """Overwrite `target` (n, f, oh, ow) or (n, oh, ow, f) with the convolution of `source`.

    Arguments: source, transformed (made by `transform_weights`), target, geometry, tables, and scratch of `threads`
    times the geometry's scratch bytes. For source and target there may be the tables of `tail.py`.
    """
    source, transformed, target, geometry, tables, scratch = carray(arguments, 6)
    g = _geometry(geometry)
    stream = g.stream != 0 and target % VECTOR_BYTES == 0
    units = (g.n + g.images - 1) // g.images * g.row_strips * g.parts
    own = scratch + thread * g.scratch
    for unit in range(thread * units // threads, (thread + 1) * units // threads):
        _strip(source, transformed, target, g, tables, own, stream, unit, carray(like, 1))
    if stream:
        fence()


WEIGHT_FIELDS = (
    # w (groups * f, c, area); 1 when the lanes are w's second axis (backward-data)
    "groups", "f", "c", "taps", "area", "swapped", "form", "line", "points",
    # panels of a group's lanes, vectors in each, lanes of a panel; bytes from point to point
    "panels", "vectors", "lanes", "point_pitch",
    # 1: past the caches
    "stream",
    # bytes of a thread's scratch
    "scratch",
)  # fmt: skip
WEIGHTS = np.dtype([(name, np.int64) for name in WEIGHT_FIELDS])
_weights = record_at(WEIGHTS)


@step
def _kernels(w, g, end, target, offsets, scratch, panel, index, like):
    """Transform one panel of one f (swapped), or of as many channels as a vector has lanes; w is that of a group."""
    size = like.itemsize
    side = VECTOR_BYTES // size
    row = g.lanes * size
    outputs = g.c if g.swapped else g.f
    ks = 1 if g.swapped else min(side, g.c - index)
    columns = ks * g.area
    square = columns * VECTOR_BYTES
    for v in range(g.vectors):
        lane = panel * g.lanes + v * side
        count = min(side, outputs - lane)
        if g.swapped:
            begin, pitch = w + (index * g.c + lane) * g.area * size, g.area * size
        else:
            begin, pitch = w + (lane * g.c + index) * g.area * size, g.c * g.area * size
        if count < side:
            zero_bytes(scratch + v * square, square)
        if count > 0:
            transpose_rows(begin, pitch, count, columns, scratch + v * square, offsets, end, like)
    # The vectors of a row one after the other: whole rows of each point are written at a time.
    for k in range(ks):
        for v in range(g.vectors):
            _transform_kernels(
                g.form, scratch + v * square + k * g.area * VECTOR_BYTES, g.taps * VECTOR_BYTES, VECTOR_BYTES,
                target + (index + k) * row + v * VECTOR_BYTES, g.line * g.point_pitch, g.point_pitch, g.stream, like,
            )  # fmt: skip


@worker
def transform_weights(like, arguments, thread, threads):
    """Overwrite `transformed`: zeros [lane], the bias [group][panel][lane], G g G^T [group][point][panel][k][lane].

    Arguments: w, b, whether there is a bias, the record `WEIGHTS`, the table of offsets of taps in scratch,
    transformed, and scratch of `threads` times the record's scratch bytes.
    """
    w, b, has_bias, record, offsets, transformed, scratch = carray(arguments, 7)
    g = _weights(record)
    element = carray(like, 1)
    size = element.itemsize
    row = g.lanes * size
    outputs = g.c if g.swapped else g.f
    depth = g.f if g.swapped else g.c
    heads = (1 + g.groups * g.panels) * row
    if thread == 0:
        zero_bytes(transformed, heads)
        if has_bias:
            for group in range(g.groups):
                copy_bytes(transformed + (1 + group * g.panels) * row, b + group * outputs * size, outputs * size)
    # A unit of forward is a vector of channels.
    stride = 1 if g.swapped else VECTOR_BYTES // size
    steps = (depth + stride - 1) // stride
    units = g.groups * g.panels * steps
    one = g.f * g.c * g.area * size
    for unit in range(thread * units // threads, (thread + 1) * units // threads):
        group, panel = unit // steps // g.panels, unit // steps % g.panels
        target = transformed + heads + group * g.points * g.point_pitch + panel * depth * row
        own = scratch + thread * g.scratch
        _kernels(w + group * one, g, w + g.groups * one, target, offsets, own, panel, unit % steps * stride, element)
    if g.stream:
        fence()
