"""Dense layers: products of matrices that all lie as the caller has them, so nothing is packed or transposed.

Forward is a product along rows of both: the tile of `planes_weights.py` multiplies vectors of features and adds their
lanes at the end. Both gradients are sums of rows: on the tile of `tile.py`, with features as lanes, where

    dx = dy w       rows of A are those of dy, k runs along them
    dw = dy^T x     rows of A are columns of dy, k runs along the batch

100 rows of 4320 features to 100: packing the weights would take a fifth of the time, transposing dw as much.
"""

from __future__ import annotations

import numpy as np
from numba import carray

from .jit import inlined, worker
from .planes_weights import SHAPES, dot_tile
from .simd import VECTOR_BYTES, add_rows, copy_bytes, load, record_at, store, store_i64, transpose_block, zero_bytes
from .tile import ADD, MAX_VECTORS, SOME_LANES, SPARE_BYTES, sweep
from .windows import share

# The tile of forward, rows of x by rows of w; rows of each in a unit, whose sums stay in L2; and vectors of features
# that are multiplied before the next rows, so that those of w stay in L1.
DOTS = 1
UNIT_X, UNIT_W = 10 * SHAPES[DOTS][0], 8 * SHAPES[DOTS][1]
CHUNK = 64
# Rows of B in one call of the tile of the gradients: 128 KB with four vectors in each, which stay in L2.
BLOCK = 512

FORWARD_FIELDS = ("rows", "features", "outputs", "relu")
FORWARD = np.dtype([(name, np.int64) for name in FORWARD_FIELDS])
_forward = record_at(FORWARD)
# A row of sums is read in squares, a thread's scratch is a square with its sums, the rows of sums, and two tables.
_LANES = VECTOR_BYTES // 4
PITCH = (UNIT_W + _LANES) * VECTOR_BYTES
FORWARD_SCRATCH = (_LANES + 1) * VECTOR_BYTES + UNIT_X * PITCH + -(-8 * (UNIT_X + UNIT_W) // 64) * 64


@inlined
def _multiply_unit(x, w, g, first_x, count_x, first_w, count_w, x_table, w_table, sums, like):
    """Overwrite sums [row of x][row of w][lane] with the products of some rows."""
    size = like.itemsize
    lanes = VECTOR_BYTES // size
    tile_x, tile_w = SHAPES[DOTS]
    row = g.features * size
    for i in range((count_x + tile_x - 1) // tile_x * tile_x):
        store_i64(x_table + 8 * i, min(first_x + i, g.rows - 1) * row)
    for i in range((count_w + tile_w - 1) // tile_w * tile_w):
        store_i64(w_table + 8 * i, min(first_w + i, g.outputs - 1) * row)
    zero_bytes(sums, (count_x + tile_x - 1) // tile_x * tile_x * PITCH)
    for begin in range(0, g.features, CHUNK * lanes):
        count = min(CHUNK * lanes, g.features - begin)
        for i in range(0, count_x, tile_x):
            for j in range(0, count_w, tile_w):
                dot_tile(
                    DOTS, count // lanes, count % lanes, x + begin * size, x_table + 8 * i, w + begin * size,
                    w_table + 8 * j, sums + i * PITCH + j * VECTOR_BYTES, PITCH, 0, like,
                )  # fmt: skip


@worker
def dense_forward(like, arguments, thread, threads):
    """Overwrite y (rows, outputs) with x (rows, features) times the transpose of w (outputs, features), plus b.

    Arguments: x, w, b or 0, y, the record, and scratch of `threads` times FORWARD_SCRATCH.
    """
    x, w, b, y, record, scratch = carray(arguments, 6)
    g = _forward(record)
    element = carray(like, 1)
    size = element.itemsize
    zero = element.dtype.type(0)
    lanes = VECTOR_BYTES // size
    own = scratch + thread * FORWARD_SCRATCH
    square, totals, sums = own, own + lanes * VECTOR_BYTES, own + (lanes + 1) * VECTOR_BYTES
    x_table = sums + UNIT_X * PITCH
    blocks = (g.outputs + UNIT_W - 1) // UNIT_W
    units = (g.rows + UNIT_X - 1) // UNIT_X * blocks
    first, past = share(thread, threads, units)
    for unit in range(first, past):
        first_x, first_w = unit // blocks * UNIT_X, unit % blocks * UNIT_W
        count_x, count_w = min(UNIT_X, g.rows - first_x), min(UNIT_W, g.outputs - first_w)
        _multiply_unit(x, w, g, first_x, count_x, first_w, count_w, x_table, x_table + 8 * UNIT_X, sums, element)
        for i in range(count_x):
            for j in range(0, count_w, lanes):
                transpose_block(sums + i * PITCH + j * VECTOR_BYTES, VECTOR_BYTES, square, VECTOR_BYTES, element)
                zero_bytes(totals, VECTOR_BYTES)
                add_rows(square, VECTOR_BYTES, lanes, totals, element)
                for lane in range(min(lanes, count_w - j)):
                    output = first_w + j + lane
                    value = load(totals + lane * size, element)
                    if b:
                        value += load(b + output * size, element)
                    if g.relu and value < zero:
                        value = zero
                    store(y + ((first_x + i) * g.outputs + output) * size, value, element)


GRADIENT_FIELDS = (
    # C (rows, columns) is the sum over k of A[row, k] * B[k]; bytes between rows of A, and between two k
    "rows", "columns", "k", "a_row", "a_step",
    # ranges of rows that are units of their own
    "parts", "scratch",
)  # fmt: skip
GRADIENT = np.dtype([(name, np.int64) for name in GRADIENT_FIELDS])
_gradient = record_at(GRADIENT)


@inlined
def _columns(a, b, c, g, tables, begin, end, column, vectors, some, zeros, spare, like):
    """Compute rows `begin` to `end` of some vectors of columns."""
    size = like.itemsize
    pitch = g.columns * size if some == 0 else VECTOR_BYTES
    for first in range(0, g.k, BLOCK):
        mode = (ADD if first else 0) | some << SOME_LANES
        here = b + first * pitch + column * size
        # The next columns are fetched meanwhile: rows are too far apart for the CPU to do it by itself.
        sweep(
            vectors, end - begin, 1, tables, min(BLOCK, g.k - first), a + first * g.a_step, tables + 8 * begin,
            g.a_step, here, tables, pitch, c + column * size, tables + 8 * (g.rows + begin), zeros, mode,
            here + vectors * VECTOR_BYTES, pitch, spare, like,
        )  # fmt: skip


@worker
def dense_gradient(like, arguments, thread, threads):
    """Overwrite C (rows, columns) with a sum of rows of B (k, columns), as the record says.

    Arguments: A, B, C, the record, tables of the offsets of the rows of A, then of C, and scratch of `threads` times
    the record's. A unit is some columns of some rows; what is left of the columns goes with the last of them, and
    overlaps it where it is no whole vector.
    """
    a, b, c, record, tables, scratch = carray(arguments, 6)
    g = _gradient(record)
    element = carray(like, 1)
    size = element.itemsize
    lanes = VECTOR_BYTES // size
    own = scratch + thread * g.scratch
    zeros, spare, padded = own, own + MAX_VECTORS * VECTOR_BYTES, own + MAX_VECTORS * VECTOR_BYTES + SPARE_BYTES
    zero_bytes(zeros, MAX_VECTORS * VECTOR_BYTES)
    width = MAX_VECTORS * lanes
    runs = max(1, g.columns // width)
    first, past = share(thread, threads, runs * g.parts)
    if g.columns < lanes and first < past:
        for row in range(g.k):
            copy_bytes(padded + row * VECTOR_BYTES, b + row * g.columns * size, g.columns * size)
    for unit in range(first, past):
        run, part = unit // g.parts, unit % g.parts
        begin, end = share(part, g.parts, g.rows)
        if g.columns < lanes:
            _columns(a, padded, c, g, tables, begin, end, 0, 1, g.columns, zeros, spare, element)
            continue
        column = run * width
        stop = g.columns if run == runs - 1 else column + width
        while column < stop:
            vectors = min(MAX_VECTORS, (stop - column) // lanes)
            if vectors == 0:
                vectors, column = 1, stop - lanes
            _columns(a, b, c, g, tables, begin, end, column, vectors, 0, zeros, spare, element)
            column += vectors * lanes
