"""How weights are packed for a pass: see `kernels/pack.py`."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from . import workspace
from .kernels import pack
from .kernels.jit import Bound
from .kernels.simd import VECTOR_BYTES
from .problem import ConvProblem
from .records import record

Array = NDArray[Any]


class Packed(Protocol):
    """A pass as far as its weights go."""

    @property
    def panels(self) -> tuple[int, int, int]:
        """(panels for each group, vectors in each, vectors in the last)."""

    @property
    def order(self) -> tuple[int, ...]:
        """The place of each tap of the kernel among the packed taps."""

    @property
    def depth(self) -> int:
        """Channels of the source in one group: k of one tap."""

    @property
    def panel_bytes(self) -> int:
        """Bytes of one panel."""


# Bytes of packed weights below which one thread packs them: 200 KB take it 12 us, and waking another costs 10.
SHARED_BYTES = 256 * 1024


class Packing(NamedTuple):
    """What the kernel `pack` needs beside the arrays."""

    record: NDArray[Any]
    offsets: NDArray[np.int64]
    bytes: int
    no_bias: Array
    alone: Bound

    @classmethod
    def of(cls, each: Packed, p: ConvProblem, swapped: bool) -> Packing:
        """Return the packing of a pass; `swapped`: the lanes are input channels, as in backward-data."""
        panels, vectors, _ = each.panels
        row_bytes = vectors * VECTOR_BYTES
        starts = np.array(each.order, np.int64) * each.depth
        rows = starts if swapped else np.add.outer(np.arange(each.depth), starts)
        values = {
            "swapped": int(swapped),
            "groups": p.groups,
            "group_f": p.f // p.groups,
            "group_c": p.c // p.groups,
            "area": p.kernel[0] * p.kernel[1],
            "panels": panels,
            "lanes": row_bytes // p.itemsize,
            "panel_bytes": each.panel_bytes,
        }
        total = panels * p.groups
        size = (1 + total) * row_bytes + total * each.panel_bytes
        no_bias = np.zeros(p.c if swapped else p.f, p.dtype)
        constants = record(pack.PACKING, values), rows.ravel() * row_bytes
        return cls(*constants, size, no_bias, pack.pack.bind(no_bias.dtype, 1, 3, *constants))

    def run(self, w: Array, b: Array | None, threads: int) -> Array:
        """Pack w (F, C/groups, KH, KW) and b into scratch, and return it."""
        packed = workspace.scratch(self.bytes, "weights")
        self.into(packed, w, b, threads)
        return packed

    def into(self, packed: Array, w: Array, b: Array | None, threads: int) -> None:
        """Pack w and b into the caller's memory."""
        bias = self.no_bias if b is None else b
        if threads == 1 or self.bytes < SHARED_BYTES:
            self.alone.run(w, bias, packed)
        else:
            pack.pack(w.dtype, threads, w, bias, packed, self.record, self.offsets)
