"""Direct convolution of planes, forward and backward-data: what it is, how it is cut, and what its kernel reads."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from . import workspace
from .cost import CALL, GATHER_BYTES, LINE, STAGE, UNIT, PassPlan, array_cycles, heights, packed_cycles
from .kept import KEPT_FROM, KeptWeights
from .kernels import planes
from .kernels.simd import VECTOR_BYTES
from .kernels.tile import LOW_ROWS, MAX_VECTORS, SPARE_BYTES, TILE_ROWS
from .packing import Packing
from .problem import ConvProblem, Correlation
from .records import Int64, Scratch, Tables, aligned, record
from .shapes import Pair

Array = NDArray[Any]

# Bytes of a strip's planes: with the weights of some output channels they stay in L2.
STRIP_BYTES = 256 * 1024


@dataclasses.dataclass(frozen=True)
class Planes:
    """A pass of stride 1 in NCHW as sums over planes.  For 1x1 without padding an image is cut into rows at will."""

    correlation: Correlation
    source_size: Pair
    target_size: Pair

    @classmethod
    def of(cls, each: Correlation) -> Planes | None:
        """Return the pass, None if it does not suit: other strides, groups, or rows shorter than a vector."""
        one = len(each.phases) == 1 and each.in_stride == (1, 1) and each.out_stride == (1, 1)
        if each.layout != "NCHW" or each.groups != 1 or not one or each.split:
            return None
        source, target = (each.source.h, each.source.w), (each.target.h, each.target.w)
        enough = source[0] * source[1] >= each.lanes
        if source == target and len(each.order) == 1 and each.origin == (0, 0) and enough:
            source = target = _rows_of(source, each)
        made = cls(each, source, target)
        return made if target[1] >= each.lanes // (1 if made.in_place else 2) else None

    @property
    def cols(self) -> int:
        """Columns of a strip."""
        return self.target_size[1] + self.correlation.cols - self.correlation.target.w

    @property
    def row_pitch(self) -> int:
        """Bytes of a strip's row."""
        row = self.cols * self.correlation.itemsize
        # The last run may read whole vectors past the row.
        return row if self.in_place else aligned(row + VECTOR_BYTES)

    def plane_pitch(self, rows: int) -> int:
        """Return the bytes of a strip's plane: an odd number of lines, so that planes do not share cache sets."""
        if self.in_place:
            return self.source_size[0] * self.row_pitch
        return (rows + self.correlation.span - 1) * self.row_pitch // 64 // 2 * 128 + 64

    def runs(self, vectors: int) -> tuple[Pair, ...]:
        """Return the runs of a row, of so many vectors at the most: (vectors, how many of them)."""
        row = -(-self.target_size[1] // self.correlation.lanes)
        whole, rest = divmod(row, vectors)
        return (vectors, whole), *(((rest, 1),) if rest else ())

    def row_cycles(self, vectors: int, outputs: int) -> float:
        """Return the cycles of a row of so many output channels, in runs of so many vectors."""
        it = self.correlation
        taps = len(it.order)
        calls = CALL + LINE * (taps * it.depth // self.columns if self.columns > 1 else taps)
        cycles = 0.0
        for run, count in self.runs(vectors):
            whole, rest = divmod(outputs, TILE_ROWS[run - 1])
            last = 0 if rest == 0 else LOW_ROWS[run - 1] if rest <= LOW_ROWS[run - 1] else TILE_ROWS[run - 1]
            rows = whole * TILE_ROWS[run - 1] + last
            cycles += count * (rows * run * (taps * it.depth + 2) + (whole + (rest > 0)) * calls)
        return cycles

    @functools.cached_property
    def vectors(self) -> int:
        """Vectors of a run of pixels: those that take least, fewer where a run must not leave its row."""
        most = MAX_VECTORS
        if self.in_place:
            most = min(most, self.target_size[1] // self.correlation.lanes)
        return min(range(most, 0, -1), key=lambda vectors: self.row_cycles(vectors, self.correlation.target.c))

    @property
    def in_place(self) -> bool:
        """Whether the tile reads the caller's planes: one tap, no padding."""
        return len(self.correlation.order) == 1 and self.source_size == self.target_size

    @functools.cached_property
    def columns(self) -> int:
        """The columns of the kernel if k runs over them, 1 if it runs over the channels, which are more."""
        (phase,) = self.correlation.phases
        columns = len(phase.taps) // len({row for row, _, _ in phase.taps})
        return columns if self.correlation.merged and self.correlation.depth < columns else 1


def _divisors(numbers: Pair) -> set[int]:
    """Return what divides the product of two numbers."""
    found = {1}
    for number in numbers:
        factor = 2
        while number > 1:
            if factor * factor > number:
                factor = number
            if number % factor:
                factor += 1
                continue
            number //= factor
            found |= {factor * one for one in found}
    return found


def _rows_of(image: Pair, each: Correlation) -> Pair:
    """Return rows and columns of an image's pixels that waste least of the runs, then the most rows to share."""
    pixels, run = math.prod(image), MAX_VECTORS * each.lanes
    cuts = [(rows, pixels // rows) for rows in _divisors(image) if rows <= max(1, pixels // run)]
    return min(cuts, key=lambda cut: (-(-cut[1] // each.lanes) * cut[0], -cut[0]))


def plan_planes(each: Planes, n_threads: int) -> tuple[float, PassPlan]:
    """Return the cost in cycles and the plan."""
    it = each.correlation
    f, height = it.target.c, each.target_size[0]

    def cost(cut: Pair) -> float:
        rows, parts = cut
        work = each.row_cycles(each.vectors, -(-f // parts))
        moved = 0 if each.in_place else it.depth * each.plane_pitch(rows) / GATHER_BYTES
        units = it.source.n * -(-height // rows) * parts
        shared = packed_cycles(it.panels[0] * it.panel_bytes)
        shared += array_cycles(*(math.prod(a) * it.itemsize for a in (it.source, it.target)))
        return -(-units // n_threads) * (rows * work + moved + UNIT) + shared / n_threads + STAGE

    strips = {*heights(height)}
    if not each.in_place:
        strips = {rows for rows in strips if it.depth * each.plane_pitch(rows) <= STRIP_BYTES} or {1}
    rows, parts = best = min(((h, p) for h in sorted(strips) for p in {1, min(2, f), min(n_threads, f)}), key=cost)
    units = it.source.n * -(-height // rows) * parts
    used = min(n_threads, units)
    plan = PassPlan(
        algorithm="direct",
        tile=f"{TILE_ROWS[each.vectors - 1]}x{each.vectors * it.lanes}",
        images=1,
        rows=rows,
        borders=False,
        units=units,
        parts=parts,
        block_channels=it.depth,
        chunks=1,
        threads=used,
        workspace=0 if each.in_place else used * it.depth * each.plane_pitch(rows),
        reason="lanes are pixels, planes are written in place",
        packed=it.panels[0] * it.panel_bytes,
        planes=True,
    )
    return cost(best), plan


class PlanesCall(NamedTuple):
    """Forward or backward-data over planes, ready to run."""

    packing: Packing
    geometry: NDArray[Any]
    tables: Int64
    scratch: int  # bytes, all threads
    threads: int

    def run(self, source: Array, w: Array, b: Array | None, target: Array, kept: KeptWeights | None = None) -> None:
        """Overwrite `target`."""
        if kept is not None and w.nbytes >= KEPT_FROM:
            packed = kept.packed(self, self.packing, w, b, self.threads)
        else:
            packed = self.packing.run(w, b, self.threads)
        strips = workspace.scratch(self.scratch, "strips")
        planes.planes(w.dtype, self.threads, source, packed, target, self.geometry, self.tables, strips)


def planes_call(each: Planes, p: ConvProblem, swapped: bool, plan: PassPlan, relu: bool) -> PlanesCall:
    """Return the call of a plan."""
    it, size = each.correlation, each.correlation.itemsize
    (phase,) = it.phases
    panels, vectors, _ = it.panels
    row = vectors * VECTOR_BYTES
    lanes = vectors * it.lanes
    plane_pitch = each.plane_pitch(plan.rows)
    top, left = it.origin
    b_of = {tap: (tap[0] - top) * each.row_pitch + (tap[1] - left) * size for tap in phase.taps}
    channel = np.arange(it.target.c)
    by_column = each.columns > 1
    if by_column:
        first = [tap for i, tap in enumerate(phase.taps) if i == 0 or phase.taps[i - 1][0] != tap[0]]
        a_taps = [place * it.depth * row + c * row for c in range(it.depth) for _, _, place in first]
        b_taps = [c * plane_pitch + b_of[tap] for c in range(it.depth) for tap in first]
    else:
        a_taps = [place * it.depth * row for _, _, place in phase.taps]
        b_taps = [b_of[tap] for tap in phase.taps]
    tables = Tables(0)
    a_table = tables.add(channel // lanes * it.panel_bytes + channel % lanes * size)
    c_table = tables.add(channel * each.target_size[0] * each.target_size[1] * size)
    a_taps_at, b_taps_at = tables.add(a_taps), tables.add(b_taps)
    scratch = Scratch()
    scratch.add(0 if each.in_place else it.depth * plane_pitch)
    spare_at = scratch.add(SPARE_BYTES)
    plane = each.target_size[0] * each.target_size[1] * size
    stream = workspace.streams(it.target.n * it.target.c * plane, plane)
    geometry = record(
        planes.GEOMETRY,
        {
            "n": it.source.n, "c": it.source.c, "h": each.source_size[0], "w": each.source_size[1],
            "oh": each.target_size[0], "ow": each.target_size[1], "f": it.target.c,
            "rows": plan.rows, "row_strips": -(-each.target_size[0] // plan.rows), "parts": plan.parts,
            "origin_h": top, "origin_w": left, "span": it.span, "cols": each.cols,
            "row_pitch": each.row_pitch, "plane_pitch": plane_pitch, "in_place": int(each.in_place),
            "vectors": each.vectors,
            "taps": len(a_taps), "k": each.columns if by_column else it.depth,
            "a_step": it.depth * row if by_column else row, "b_step": size if by_column else plane_pitch,
            "a_taps": a_taps_at, "b_taps": b_taps_at, "a_table": a_table, "c_table": c_table,
            "biases_at": row, "panels_at": (1 + panels) * row, "relu": int(relu), "stream": int(stream),
            "spare_at": spare_at, "scratch": scratch.size,
        },
    )  # fmt: skip
    packing = Packing.of(it, p, swapped)
    return PlanesCall(packing, geometry, tables.array(), plan.threads * scratch.size, plan.threads)
