"""Forward and backward-data, direct and by im2col: sums of taps over strips of an image.

Target pixel out_stride * i + phase is the sum over the phase's taps of source pixel in_stride * i + tap times the
tap's weights. Forward has one phase, out_stride 1 and the convolution's stride as in_stride. Backward-data, the
transposed convolution, has in_stride 1 and one dense phase for each residue of the stride.

A strip is some rows of one image or some whole images. Its source pixels lie in NHWC with their padding, in scratch
or, where nothing has to be moved, in the caller's array. For im2col the taps of each target pixel are then unfolded
to one row, and the tile sees a single tap. The scratch of a strip is meant to stay in L2.
"""

from __future__ import annotations

import numpy as np
from numba import carray

from .jit import inlined, step, worker
from .layout import gather_rows, scatter_rows
from .pack import pack_panels
from .simd import VECTOR_BYTES, copy_bytes, fence, load, load_i64, record_at, store
from .tail import ARGMAX, PLAIN, Y, gather_gradient, pool_rows
from .tile import ADD, RELU, SOME_LANES, STREAM, sweep

FIELDS = (
    # the arrays; `source_first`, `target_first`: 1 for (n, channels, h, w)
    "n", "c", "h", "w", "oh", "ow", "f", "source_first", "target_first", "groups", "group_c", "group_f",
    # 1 where the tile reads or writes the caller's array itself
    "source_in_place", "target_in_place",
    # a strip: `images` whole ones, or `rows` rows of each phase, `row_strips` to an image; `max_rows`: of a phase
    "images", "rows", "row_strips", "max_rows",
    # ranges of panels that are units of their own
    "parts",
    "in_stride_h", "out_stride_h", "phases",
    # source pixel of the first tap of target pixel 0; source rows of one target row; columns of a strip
    "origin_h", "origin_w", "source_span", "source_cols",
    # of source pixels and of a panel's target pixels, in bytes
    "image_pitch", "row_pitch", "pixel_pitch", "target_pitch",
    # panels of F for each group, vectors in each and in the last, lanes of a panel
    "panels", "vectors", "last_vectors", "lanes",
    # the most elements of k in one call of the tile: a part of a tap, or some whole taps
    "k_block",
    # bytes of a panel of packed weights, and of all
    "panel_bytes", "packed_bytes",
    # 1: past the caches, where target is aligned; 1: im2col; how source is read; 1: of the result the largest of each
    # square
    "relu", "stream", "unfold", "read_as", "pooled",
    # 1: the argument w is packed weights
    "kept",
    # byte offsets in a thread's scratch, and its size
    "unfolded_at", "target_at", "table_at", "spare_at", "scratch",
)  # fmt: skip
GEOMETRY = np.dtype([(name, np.int64) for name in FIELDS])
_geometry = record_at(GEOMETRY)

# Columns of the phase table, with which `tables` begins. The entries `*_TABLE` are indices into `tables`.
# P_K: elements of a tap, which are contiguous in A; P_UNFOLDED: bytes into the unfolded rows.
P_ROWS, P_COLS, P_TAPS, P_K, P_UNFOLDED, P_TAP_TABLE, P_B_TABLE, P_A_TABLE, P_C_TABLE, P_WIDE_TABLE = range(10)
PHASE_COLUMNS = 10


@inlined
def _gather(source, g, image, images, first, rows, group, strip, table, like):
    """Fill `strip` with a group's source pixels, padding included, of phase rows `first`... of `images` images."""
    image_bytes = g.c * g.h * g.w * like.itemsize
    top, height = first * g.in_stride_h + g.origin_h, (rows - 1) * g.in_stride_h + g.source_span
    for i in range(images):
        if g.read_as == PLAIN:
            gather_rows(
                source + (image + i) * image_bytes, g.source_first != 0, g.h, g.w, g.c, group * g.group_c, g.group_c,
                top, height, g.origin_w, g.source_cols, strip + i * g.image_pitch, g.row_pitch, g.pixel_pitch, table,
                like,
            )  # fmt: skip
        else:
            gather_gradient(
                source, g.read_as, image + i, g.h, g.w, g.c, group * g.group_c, g.group_c, top, height, g.origin_w,
                g.source_cols, strip + i * g.image_pitch, g.row_pitch, g.pixel_pitch, like,
            )  # fmt: skip


@step
def _unfold(strip, rows, a_rows, n_taps, taps, tap_bytes, target):
    """Copy the taps of each row one after another; `a_rows` and `taps` are tables of offsets."""
    for m in range(rows):
        for t in range(n_taps):
            copy_bytes(target, strip + load_i64(a_rows + 8 * m) + load_i64(taps + 8 * t), tap_bytes)
            target += tap_bytes


@step
def _fill(start, rows, c, c_rows, channels, relu, like):
    """Store the bias in target pixels that no tap reaches."""
    for channel in range(channels):
        value = load(start + channel * like.itemsize, like)
        if relu and value < 0:
            value = like.dtype.type(0)
        for m in range(rows):
            store(c + load_i64(c_rows + 8 * m) + channel * like.itemsize, value, like)


@inlined
def _multiply(
    g, vectors, rows, n_taps, taps, b_taps, k, a, a_rows, panel, c, c_rows, bias, zeros, some_lanes, stream, spare,
    like,
):  # fmt: skip
    """Multiply `rows` rows by one panel, in blocks of k for which the panel's rows stay in cache."""
    b_step = g.lanes * like.itemsize
    k_block = min(g.k_block, k)
    tap_block = g.k_block // k_block if k_block == k else 1
    for tap in range(0, n_taps, tap_block):
        count = min(tap_block, n_taps - tap)
        for first in range(0, k, k_block):
            mode, start = ADD, zeros
            if tap == 0 and first == 0:
                mode, start = 0, bias
            if g.relu and tap + count == n_taps and first + k_block >= k:
                mode |= RELU
            if g.target_in_place:
                mode |= some_lanes << SOME_LANES
                if stream and some_lanes == 0:
                    mode |= STREAM
            sweep(
                vectors, rows, count, taps + 8 * tap, min(k_block, k - first), a + first * like.itemsize, a_rows,
                like.itemsize, panel + first * b_step, b_taps + 8 * tap, b_step, c, c_rows, start, mode, a, 0,
                spare, like,
            )  # fmt: skip


@inlined
def _table(tables, entry, column):
    """Return the address of the table whose index stands in a column of a phase's entry."""
    return tables + 8 * load_i64(entry + 8 * column)


@inlined
def _strip(source, packed, target, g, tables, scratch, stream, unit, like):
    """Compute one unit: a strip of target pixels for one range of panels."""
    size = like.itemsize
    strips = (g.n + g.images - 1) // g.images * g.row_strips
    part, strip_index = unit // strips, unit % strips
    image = strip_index // g.row_strips * g.images
    images = min(g.images, g.n - image)
    first = strip_index % g.row_strips * g.rows
    rows = min(g.rows, g.max_rows - first)

    if g.source_in_place:
        corner = (first * g.in_stride_h + g.origin_h) * g.row_pitch + g.origin_w * g.pixel_pitch
        strip = source + image * g.image_pitch + corner
    else:
        strip = scratch

    first_target = first * g.out_stride_h
    target_rows = min(rows * g.out_stride_h, g.oh - first_target)
    image_bytes = g.f * g.oh * g.ow * size
    corner = target + image * image_bytes + first_target * g.ow * (size if g.target_first else g.f * size)
    panel_count = g.groups * g.panels
    biases = packed + g.lanes * size
    weights = biases + panel_count * g.lanes * size
    held = -1
    for index in range(part * panel_count // g.parts, (part + 1) * panel_count // g.parts):
        group, panel = index // g.panels, index % g.panels
        last = panel == g.panels - 1
        vectors = g.last_vectors if last else g.vectors
        channels = g.group_f - panel * g.lanes if last else g.lanes
        channel = group * g.group_f + panel * g.lanes
        bias = biases + index * g.lanes * size
        a = strip
        if g.source_in_place:
            a += group * g.group_c * size
        elif held != group:
            _gather(source, g, image, images, first, rows, group, strip, scratch + g.table_at, like)
        c = corner + channel * size if g.target_in_place else scratch + g.target_at
        for phase in range(g.phases):
            entry = tables + 8 * phase * PHASE_COLUMNS
            pixels = images * min(rows, load_i64(entry + 8 * P_ROWS) - first) * load_i64(entry + 8 * P_COLS)
            if pixels <= 0:
                continue
            taps, b_taps = _table(tables, entry, P_TAP_TABLE), _table(tables, entry, P_B_TABLE)
            a_rows, c_rows = _table(tables, entry, P_A_TABLE), _table(tables, entry, P_C_TABLE)
            n_taps, k = load_i64(entry + 8 * P_TAPS), load_i64(entry + 8 * P_K)
            if n_taps == 0:
                _fill(bias, pixels, c, c_rows, channels, g.relu != 0, like)
                continue
            here = a
            if g.unfold:
                here = scratch + g.unfolded_at + load_i64(entry + 8 * P_UNFOLDED)
                if held != group:
                    _unfold(a, pixels, a_rows, n_taps, taps, k * size, here)
                a_rows = _table(tables, entry, P_WIDE_TABLE)
                taps = a_rows  # its first entry: offset 0
                n_taps, k = 1, n_taps * k
            _multiply(
                g, vectors, pixels, n_taps, taps, b_taps, k, here, a_rows, weights + index * g.panel_bytes, c, c_rows,
                bias, packed, channels % (VECTOR_BYTES // size), stream, scratch + g.spare_at, like,
            )  # fmt: skip
        held = group
        if not g.target_in_place:
            for i in range(images):
                if g.pooled:
                    place = ((image + i) * (g.oh // 2) + first // 2) * (g.ow // 2) * g.f + channel
                    pool_rows(
                        c + i * target_rows * g.ow * g.target_pitch, g.ow * g.target_pitch, g.target_pitch,
                        target_rows, g.ow, load_i64(target + 8 * Y) + place * size,
                        load_i64(target + 8 * ARGMAX) + place, g.f, channels, like,
                    )  # fmt: skip
                    continue
                scatter_rows(
                    c + i * target_rows * g.ow * g.target_pitch, g.target_pitch, channels, g.target_first != 0,
                    g.oh * g.ow * size, g.f, channel, corner + i * image_bytes, target_rows * g.ow, stream, like,
                )  # fmt: skip


@worker
def correlate(like, arguments, thread, threads):
    """Overwrite `target` (n, f, oh, ow) or (n, oh, ow, f) with the sums of taps of `source`.

    Arguments: source, w, b, target, scratch, the record and the table of `pack`, geometry, tables. Scratch holds the
    packed weights and then, for each thread, the geometry's scratch bytes. One thread packs the weights itself;
    several find them packed. For source and target there may be the tables of `tail.py`.
    """
    source, w, b, target, scratch, packing, offsets, geometry, tables = carray(arguments, 9)
    g = _geometry(geometry)
    packed = w if g.kept else scratch
    if threads == 1 and not g.kept:
        pack_panels(w, b, packing, offsets, scratch, 0, 1, carray(like, 1))
    stream = g.stream != 0 and target % VECTOR_BYTES == 0
    units = (g.n + g.images - 1) // g.images * g.row_strips * g.parts
    own = scratch + g.packed_bytes + thread * g.scratch
    for unit in range(thread * units // threads, (thread + 1) * units // threads):
        _strip(source, packed, target, g, tables, own, stream, unit, carray(like, 1))
    if stream:
        fence()
