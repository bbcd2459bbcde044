"""Packing weights into the panels that the tile reads, and unpacking their gradient.

A packed buffer is one row of zeros, the bias row of each panel, then the panels. A panel holds, for each tap and
each k, one row of `lanes` output channels; lanes past the last channel are zero.
"""

from __future__ import annotations

import numpy as np
from numba import carray

from .jit import step, worker
from .layout import transpose_rows
from .simd import VECTOR_BYTES, copy_bytes, record_at, zero_bytes

FIELDS = (
    # 1 when the lanes are w's second axis (backward-data), 0 when they are its first (forward)
    "swapped",
    # the weights (groups * group_f, group_c, area): channels of one group, and KH * KW
    "groups", "group_f", "group_c", "area",
    # panels for each group, lanes of one, its bytes
    "panels", "lanes", "panel_bytes",
)  # fmt: skip
PACKING = np.dtype([(name, np.int64) for name in FIELDS])
_packing = record_at(PACKING)


@step
def _panel(w, b, g, offsets, packed, index, like):
    """Pack one panel and its bias.  `offsets`: bytes in the panel of each (k, tap) or, swapped, of each tap."""
    size = like.itemsize
    group, panel = index // g.panels, index % g.panels
    first = panel * g.lanes
    biases = packed + g.lanes * size
    target = biases + g.groups * g.panels * g.lanes * size + index * g.panel_bytes
    source = w + group * g.group_f * g.group_c * g.area * size
    end = w + g.groups * g.group_f * g.group_c * g.area * size
    outputs = g.group_c if g.swapped else g.group_f
    count = min(g.lanes, outputs - first)
    if count < g.lanes:
        zero_bytes(target, g.panel_bytes)
    row = biases + index * g.lanes * size
    zero_bytes(row, g.lanes * size)
    copy_bytes(row, b + (group * outputs + first) * size, count * size)
    if not g.swapped:
        pitch, columns = g.group_c * g.area * size, g.group_c * g.area
        source += first * pitch
        vector = VECTOR_BYTES // size
        whole = count
        if count > vector and count % vector and columns >= vector:
            # What is left over, a vector that overlaps the one before: element by element 120 channels take 3 us more.
            whole = count // vector * vector
            left = count - vector
            transpose_rows(source + left * pitch, pitch, vector, columns, target + left * size, offsets, end, like)
        transpose_rows(source, pitch, whole, columns, target, offsets, end, like)
        return
    for f in range(g.group_f):
        begin = source + (f * g.group_c + first) * g.area * size
        to = target + f * g.lanes * size
        if g.area == 1:
            copy_bytes(to, begin, count * size)
        else:
            transpose_rows(begin, g.area * size, count, g.area, to, offsets, end, like)


@step
def pack_panels(w, b, packing, offsets, packed, thread, threads, like):
    """Do a thread's share of `pack`; `like` is an array of the dtype."""
    g = _packing(packing)
    panels = g.groups * g.panels
    if thread == 0:
        zero_bytes(packed, g.lanes * like.itemsize)
    for index in range(thread * panels // threads, (thread + 1) * panels // threads):
        _panel(w, b, g, offsets, packed, index, like)


@worker
def pack(like, arguments, thread, threads):
    """Overwrite `packed` with w (F, C/groups, KH, KW) and b (F,).

    Arguments: w, b, packed, the record `PACKING`, the table of offsets.
    """
    w, b, packed, packing, offsets = carray(arguments, 5)
    pack_panels(w, b, packing, offsets, packed, thread, threads, carray(like, 1))
