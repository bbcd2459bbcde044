"""Packing weights into the panels that the tile reads, and unpacking their gradient.

A packed buffer is one row of zeros, the bias row of each panel, then the panels. A panel holds, for each tap and
each k, one row of `lanes` output channels; lanes past the last channel are zero.
"""

from __future__ import annotations

import numpy as np
from numba import carray

from .jit import step, worker
from .layout import transpose_rows
from .simd import copy_bytes, record_at, zero_bytes

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
def _panel(w, b, has_bias, g, offsets, packed, index, like):
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
    if has_bias:
        copy_bytes(row, b + (group * outputs + first) * size, count * size)
    if not g.swapped:
        pitch = g.group_c * g.area * size
        transpose_rows(source + first * pitch, pitch, count, g.group_c * g.area, target, offsets, end, like)
        return
    for f in range(g.group_f):
        begin = source + (f * g.group_c + first) * g.area * size
        to = target + f * g.lanes * size
        if g.area == 1:
            copy_bytes(to, begin, count * size)
        else:
            transpose_rows(begin, g.area * size, count, g.area, to, offsets, end, like)


@worker
def pack(like, arguments, thread, threads):
    """Overwrite `packed` with w (F, C/groups, KH, KW) and b (F,).

    Arguments: w, b, whether there is a bias, the record `PACKING`, the table of offsets, packed.
    """
    w, b, has_bias, packing, offsets, packed = carray(arguments, 6)
    g = _packing(packing)
    panels = g.groups * g.panels
    if thread == 0:
        zero_bytes(packed, g.lanes * carray(like, 1).itemsize)
    for index in range(thread * panels // threads, (thread + 1) * panels // threads):
        _panel(w, b, has_bias, g, offsets, packed, index, carray(like, 1))
