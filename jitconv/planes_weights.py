"""Backward-weights over planes: when it serves, how it is cut, and what its kernel reads."""

from __future__ import annotations

import bisect
import dataclasses
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from . import shapes, workspace
from .cost import CALL, GATHER_BYTES, UNIT, UNITS, PassPlan, array_cycles
from .kernels import planes_weights
from .kernels.planes_weights import SHAPES
from .kernels.simd import VECTOR_BYTES
from .problem import ConvProblem
from .records import Int64, Scratch, Tables, aligned, record

Array = NDArray[Any]

# Bytes of a strip's copies of x, which lie in L2: long runs are worth more than copies that fit in L1 (3 channels of
# 224x224 pixels: 59 GFLOP/s on one thread with 24 KB, 80 with 48 KB, 85 with 192 KB).
STRIP_BYTES = 128 * 1024
# Bytes of the sums of all chunks.
SUMS_BYTES = 1024 * 1024


@dataclasses.dataclass(frozen=True)
class PlanesWeights:
    """Backward-weights of stride 1 in NCHW as products of planes of x and of dy."""

    problem: ConvProblem

    @classmethod
    def of(cls, p: ConvProblem) -> PlanesWeights | None:
        """Return the pass, None if it does not suit: other strides or groups, or rows shorter than a vector."""
        fits = p.stride == (1, 1) and p.groups == 1 and p.layout == "NCHW"
        return cls(p) if fits and p.output.w * p.itemsize >= VECTOR_BYTES else None

    @property
    def taps(self) -> int:
        """Taps of the kernel, of all input channels."""
        return self.problem.c * self.problem.kernel[0] * self.problem.kernel[1]

    @property
    def shape(self) -> int:
        """Which of SHAPES computes least."""
        return min(range(len(SHAPES)), key=lambda shape: self.rounded(shape)[0] * self.rounded(shape)[1])

    def rounded(self, shape: int) -> tuple[int, int]:
        """Return planes of dy and taps, rounded up to whole tiles of a shape."""
        planes, taps = SHAPES[shape]
        return -(-self.problem.f // planes) * planes, -(-self.taps // taps) * taps

    @property
    def span(self) -> int:
        """Input rows under one row of dy."""
        return shapes.extent(self.problem.kernel[0], self.problem.dilation[0])

    def plane_pitch(self, rows: int) -> int:
        """Return the bytes of a strip's copy of a plane: an odd number of lines, so that copies share no cache sets."""
        row = self.problem.output.w * self.problem.itemsize
        return aligned((rows + self.span - 1) * row) // 128 * 128 + 64

    def copies(self, rows: int) -> int:
        """Return the bytes of a strip's copies of x."""
        return self.problem.c * self.problem.kernel[1] * self.plane_pitch(rows)

    @property
    def rows(self) -> int:
        """Rows of a strip."""
        height = self.problem.output.h
        most = 1 + bisect.bisect_right(range(2, height + 1), STRIP_BYTES, key=self.copies)
        return -(-height // -(-height // most))

    @property
    def sums(self) -> int:
        """Vectors of the sums of one chunk, a whole number of squares."""
        lanes = VECTOR_BYTES // self.problem.itemsize
        planes, taps = self.rounded(self.shape)
        return -(-planes * (taps + 1) // lanes) * lanes

    @property
    def chunks(self) -> int:
        """Chunks of strips, a power of two: they follow from the shapes alone."""
        strips = self.problem.n * -(-self.problem.output.h // self.rows)
        most = max(1, min(strips, UNITS, SUMS_BYTES // (self.sums * VECTOR_BYTES)))
        return 1 << (most.bit_length() - 1)


def plan_planes_weights(each: PlanesWeights, n_threads: int) -> tuple[float, PassPlan]:
    """Return the cost in cycles and the plan."""
    p = each.problem
    lanes = VECTOR_BYTES // p.itemsize
    (planes, taps), (tile_planes, tile_taps) = each.rounded(each.shape), SHAPES[each.shape]
    tiles = planes // tile_planes * taps // tile_taps
    strips = p.n * -(-p.output.h // each.rows)
    pixels = each.rows * p.output.w
    # A tap that is no whole number of vectors away is read across two lines.
    products = tiles * -(-pixels // lanes) * max(tile_planes * tile_taps, tile_planes + 2 * tile_taps)
    strip = products + p.f * pixels / lanes + tiles * (CALL + 2 * tile_planes * tile_taps)
    strip += each.copies(each.rows) / GATHER_BYTES + UNIT
    used = min(n_threads, each.chunks)
    shared = each.chunks * each.sums * VECTOR_BYTES / GATHER_BYTES
    shared += array_cycles(p.n * p.itemsize * (p.c * p.h * p.w + p.f * p.output.h * p.output.w), 0)
    plan = PassPlan(
        algorithm="direct",
        tile=f"{tile_planes}x{tile_taps}x{lanes}",
        images=1,
        rows=each.rows,
        borders=False,
        units=each.chunks,
        parts=1,
        block_channels=p.c,
        chunks=each.chunks,
        threads=used,
        workspace=each.chunks * each.sums * VECTOR_BYTES + used * each.copies(each.rows),
        reason="lanes are pixels, dy is read in place",
        planes=True,
    )
    return (strips * strip + shared) / used, plan


class PlanesWeightsCall(NamedTuple):
    """Backward-weights over planes, ready to run."""

    geometry: NDArray[Any]
    tables: Int64
    sums: int  # bytes
    scratch: int  # bytes, all threads
    threads: int

    @classmethod
    def of(cls, each: PlanesWeights, plan: PassPlan, bias: bool) -> PlanesWeightsCall:
        """Return the call of a plan."""
        p, size = each.problem, each.problem.itemsize
        planes, taps = each.rounded(each.shape)
        pitch, row = each.plane_pitch(plan.rows), p.output.w * size
        rows, columns = np.arange(p.kernel[0]) * p.dilation[0] * row, np.arange(p.kernel[1]) * pitch
        channels = np.arange(p.c) * p.kernel[1] * pitch
        tap_offsets = np.add.outer(np.add.outer(channels, rows), columns).ravel()
        tables = Tables(0)
        plane_table = tables.add(np.minimum(np.arange(planes), p.f - 1) * p.output.h * row)
        tap_table = tables.add(tap_offsets[np.minimum(np.arange(taps), each.taps - 1)])
        lanes = VECTOR_BYTES // size
        scratch = Scratch()
        scratch.add(max(each.copies(plan.rows), (lanes + 1) * VECTOR_BYTES))
        geometry = record(
            planes_weights.GEOMETRY,
            {
                "n": p.n, "c": p.c, "h": p.h, "w": p.w, "oh": p.output.h, "ow": p.output.w, "f": p.f,
                "rows": plan.rows, "row_strips": -(-p.output.h // plan.rows), "chunks": plan.chunks,
                "columns": p.kernel[1], "dilation_w": p.dilation[1],
                "origin_h": -p.padding[0][0], "origin_w": -p.padding[1][0], "span": each.span,
                "plane_pitch": pitch, "shape": each.shape, "rounded_f": planes, "rounded_taps": taps,
                "taps": each.taps, "plane_table": plane_table, "tap_table": tap_table,
                "bias": int(bias), "sums_bytes": each.sums * VECTOR_BYTES, "scratch": scratch.size,
            },
        )  # fmt: skip
        sums = plan.chunks * each.sums * VECTOR_BYTES
        return cls(geometry, tables.array(), sums, plan.threads * scratch.size, plan.threads)

    def run(self, x: Array, dy: Array, dw: Array, db: Array) -> None:
        """Overwrite `dw` and, if the call was made with a bias, `db`."""
        sums, own = workspace.scratch(self.sums, "sums"), workspace.scratch(self.scratch, "strips")
        planes_weights.planes_weights(x.dtype, self.threads, x, dy, self.geometry, self.tables, sums, own)
        planes_weights.reduce_planes(x.dtype, self.threads, self.geometry, sums, dw, db, own)
