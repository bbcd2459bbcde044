"""Forward and backward-data of stride 1 in NCHW, without transposing: the lanes are pixels, the rows output channels.

What is a row of C and a lane in `correlate.py` change places: A is a packed weight, one for each output channel, B a
run of pixels of a plane, and C a run of pixels of an output plane in the caller's array. So nothing is scattered, and
what is gathered are rows, with their padding, into planes in scratch. A single tap without padding reads the caller's
planes: a panel whose rows lie a page apart costs the tile nothing (97% of peak with 256 of them), a copy of it in
short runs does. It is for first layers and 1x1, whose transposed writes cost as much as their products.

A strip is some rows of an image; for a single tap a row is any part of it.
"""

from __future__ import annotations

import numpy as np
from numba import carray

from .jit import inlined, worker
from .layout import gather_planes
from .simd import VECTOR_BYTES, fence, record_at
from .tile import RELU, SOME_LANES, START_BY_ROW, STREAM, sweep

FIELDS = (
    # the arrays
    "n", "c", "h", "w", "oh", "ow", "f",
    # a strip: `rows` output rows, `row_strips` to an image; ranges of output channels that are units of their own
    "rows", "row_strips", "parts",
    # input pixel of the first tap of pixel 0; input rows of one output row; columns of a strip
    "origin_h", "origin_w", "span", "cols",
    # bytes of a strip's row and plane; 1 where the tile reads the caller's array itself
    "row_pitch", "plane_pitch", "in_place",
    # vectors of a run of pixels; taps, k and bytes from one k to the next, of A and of B
    "vectors", "taps", "k", "a_step", "b_step",
    # offsets in bytes: of taps in A and B, of output channels in A and C
    "a_taps", "b_taps", "a_table", "c_table",
    # bytes before the panels of packed weights: the zeros; and the biases
    "biases_at", "panels_at",
    # 1: past the caches, where target is aligned
    "relu", "stream", "spare_at", "scratch",
)  # fmt: skip
GEOMETRY = np.dtype([(name, np.int64) for name in FIELDS])
_geometry = record_at(GEOMETRY)


@inlined
def _strip(source, packed, target, g, tables, scratch, stream, unit, like):
    """Compute one unit: a strip for one range of output channels."""
    size = like.itemsize
    strips = g.n * g.row_strips
    part, image, first = unit // strips, unit % strips // g.row_strips, unit % g.row_strips * g.rows
    rows = min(g.rows, g.oh - first)
    begin, end = part * g.f // g.parts, (part + 1) * g.f // g.parts
    here = source + image * g.c * g.h * g.w * size
    strip = here + first * g.row_pitch
    if not g.in_place:
        strip = scratch
        gather_planes(
            here, g.h, g.w, 0, g.c, first + g.origin_h, rows - 1 + g.span, g.origin_w, g.cols, strip, g.row_pitch,
            g.plane_pitch, like,
        )  # fmt: skip
    mode = START_BY_ROW | (RELU if g.relu else 0)
    lanes = VECTOR_BYTES // size
    for row in range(rows):
        to = target + (image * g.f * g.oh * g.ow + (first + row) * g.ow) * size
        col = 0
        while col < g.ow:
            vectors = min(g.vectors, (g.ow - col + lanes - 1) // lanes)
            start, some = col, 0
            if col + vectors * lanes > g.ow:
                if g.in_place:
                    # The last run ends with the row, over pixels of the one before: past the row nothing may be read.
                    start = g.ow - vectors * lanes
                else:
                    some = (g.ow - col) % lanes
            # The next run is fetched while this one is multiplied, unless it lies in scratch.
            ahead, ahead_step = strip + row * g.row_pitch + (start + vectors * lanes) * size, g.plane_pitch
            if not g.in_place:
                ahead, ahead_step = scratch, 0
            past = stream and some == 0 and (to + start * size) % VECTOR_BYTES == 0
            sweep(
                vectors, end - begin, g.taps, tables + 8 * g.a_taps, g.k, packed + g.panels_at,
                tables + 8 * (g.a_table + begin), g.a_step, strip + row * g.row_pitch + start * size,
                tables + 8 * g.b_taps, g.b_step, to + start * size, tables + 8 * (g.c_table + begin),
                packed + g.biases_at + begin * size, mode | some << SOME_LANES | (STREAM if past else 0), ahead,
                ahead_step, scratch + g.spare_at, like,
            )  # fmt: skip
            col += vectors * lanes


@worker
def planes(like, arguments, thread, threads):
    """Overwrite `target` (n, f, oh, ow) with the sums of taps of `source` (n, c, h, w).

    Arguments: source, packed (made by `pack`), target, geometry, tables, and scratch of `threads` times the geometry's
    scratch bytes.
    """
    source, packed, target, geometry, tables, scratch = carray(arguments, 6)
    g = _geometry(geometry)
    stream = g.stream != 0
    units = g.n * g.row_strips * g.parts
    own = scratch + thread * g.scratch
    for unit in range(thread * units // threads, (thread + 1) * units // threads):
        _strip(source, packed, target, g, tables, own, stream, unit, carray(like, 1))
    if stream:
        fence()
