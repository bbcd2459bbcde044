"""Packing weights into the panels that the tile reads, and unpacking their gradient.

A packed buffer is one row of zeros, the bias row of each panel, then the panels. A panel holds, for each tap and
each k, one row of `lanes` output channels; lanes past the last channel are zero.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from .jit import kernel, step
from .layout import transpose_rows
from .simd import copy_bytes, zero_bytes

FIELDS = (
    # 1 when the lanes are w's second axis (backward-data), 0 when they are its first (forward)
    "swapped",
    # the weights (groups * group_f, group_c, area): channels of one group, and KH * KW
    "groups", "group_f", "group_c", "area",
    # panels for each group, lanes of one, its bytes
    "panels", "lanes", "panel_bytes",
)  # fmt: skip
PACKING = np.dtype([(name, np.int64) for name in FIELDS])


@step
def _panel(w, b, g, offsets, packed, index):
    """Pack one panel and its bias.  `offsets`: bytes in the panel of each (k, tap) or, swapped, of each tap."""
    size = w.itemsize
    group, panel = index // g.panels, index % g.panels
    first = panel * g.lanes
    biases = packed.ctypes.data + g.lanes * size
    target = biases + g.groups * g.panels * g.lanes * size + index * g.panel_bytes
    source = w.ctypes.data + group * g.group_f * g.group_c * g.area * size
    outputs = g.group_c if g.swapped else g.group_f
    count = min(g.lanes, outputs - first)
    if count < g.lanes:
        zero_bytes(target, g.panel_bytes)
    row = biases + index * g.lanes * size
    zero_bytes(row, g.lanes * size)
    if b.size:
        copy_bytes(row, b.ctypes.data + (group * outputs + first) * size, count * size)
    if not g.swapped:
        pitch = g.group_c * g.area * size
        transpose_rows(source + first * pitch, pitch, count, g.group_c * g.area, target, offsets.ctypes.data, w)
        return
    for f in range(g.group_f):
        begin = source + (f * g.group_c + first) * g.area * size
        to = target + f * g.lanes * size
        if g.area == 1:
            copy_bytes(to, begin, count * size)
        else:
            transpose_rows(begin, g.area * size, count, g.area, to, offsets.ctypes.data, w)


@step
def _share(w, b, packing, offsets, packed, thread, threads):
    g = packing[0]
    panels = g.groups * g.panels
    if thread == 0:
        zero_bytes(packed.ctypes.data, g.lanes * w.itemsize)
    for index in range(thread * panels // threads, (thread + 1) * panels // threads):
        _panel(w, b, g, offsets, packed, index)


@kernel(parallel=True)
def pack(w, b, packing, offsets, packed, threads):
    """Overwrite `packed` with w (F, C/groups, KH, KW) and b (F,), which is empty for no bias."""
    for thread in prange(threads):
        _share(w, b, packing, offsets, packed, np.int64(thread), threads)
