"""Backward-data of few input channels over planes, direct: what it costs, how it is cut, and what its kernel reads."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from . import workspace
from .cost import CALL, LINE, STAGE, UNIT, PassPlan, array_cycles
from .kept import KeptWeights
from .kernels import planes_data
from .kernels.simd import ALIGNMENT, VECTOR_BYTES
from .kernels.tail import PLAIN
from .kernels.tile import LOW_ROWS, MAX_VECTORS, SPARE_BYTES, TILE_ROWS
from .problem import ConvProblem
from .records import Int64, Scratch, Tables, record

Array = NDArray[Any]

# Bytes of a strip's products, which are read once while they are in L2.
PRODUCTS_BYTES = 256 * 1024
# Cycles of adding a vector of products, or one product where dx's pixels lie apart, and of a row of them.
ADD, ROW = 4.0, 8.0
# Cycles of a row's broadcast.
BROADCAST = 0.5


@dataclasses.dataclass(frozen=True)
class PlanesData:
    """The gradient of the input of a convolution in NCHW: products of every pixel and tap, then their sums."""

    problem: ConvProblem

    @classmethod
    def of(cls, p: ConvProblem) -> PlanesData | None:
        """Return the pass, None if it does not suit: groups, another layout, or images of less than a vector."""
        made = cls(p)
        fits = p.layout == "NCHW" and p.groups == 1 and p.tail == PLAIN
        return made if fits and p.output.h * p.output.w >= made.lanes else None

    @property
    def lanes(self) -> int:
        """Lanes of one vector."""
        return VECTOR_BYTES // self.problem.itemsize

    @property
    def taps(self) -> int:
        """Rows of products: taps of all channels."""
        return self.problem.c * self.problem.kernel[0] * self.problem.kernel[1]

    @functools.cached_property
    def strips(self) -> int:
        """Strips of rows of an image, as few as fit into L2, of a vector of pixels or more each."""
        oh, ow = self.problem.output_size
        most = max(1, oh // -(-self.lanes // ow))
        row = self.taps * ow * self.problem.itemsize
        return min(most, -(-oh // max(1, PRODUCTS_BYTES // row)))

    @property
    def pixels(self) -> tuple[int, int]:
        """The pixels of the smallest and of the largest strip."""
        oh, ow = self.problem.output_size
        return oh // self.strips * ow, -(-oh // self.strips) * ow

    def run_cycles(self, vectors: int) -> float:
        """Return the cycles of a run of so many vectors."""
        whole, rest = divmod(self.taps, TILE_ROWS[vectors - 1])
        low = LOW_ROWS[vectors - 1]
        rows = self.taps - rest + (0 if rest == 0 else low if rest <= low else TILE_ROWS[vectors - 1])
        # Beside few vectors a row's broadcast counts: 25 taps of 30 planes of 24x24 take 0.9 ms more with 1 than 4.
        return rows * (vectors + BROADCAST) * (self.problem.f + 2) + (whole + (rest > 0)) * (CALL + LINE)

    @functools.cached_property
    def vectors(self) -> int:
        """Vectors of a run: those that take least."""
        smallest, largest = self.pixels
        fitting = range(1, min(MAX_VECTORS, smallest // self.lanes) + 1)
        return min(fitting, key=lambda vectors: -(-largest // (vectors * self.lanes)) * self.run_cycles(vectors))

    def scratch(self) -> tuple[dict[str, int], int]:
        """Return where the regions of a thread's scratch begin, and the bytes of a row of products."""
        # An odd number of lines, so that the rows do not share cache sets.
        pitch = -(-self.pixels[1] * self.problem.itemsize // ALIGNMENT) // 2 * 2 * ALIGNMENT + ALIGNMENT
        scratch = Scratch()
        places = {"zeros_at": scratch.add(MAX_VECTORS * VECTOR_BYTES), "spare_at": scratch.add(SPARE_BYTES)}
        places["products_at"] = scratch.add(self.taps * pitch)
        return places | {"scratch": scratch.size}, pitch


def plan_planes_data(each: PlanesData, n_threads: int) -> tuple[float, PassPlan]:
    """Return the cost in cycles and the plan."""
    p, (oh, ow) = each.problem, each.problem.output_size
    used = max(1, min(n_threads, p.n))
    runs = each.strips * -(-each.pixels[1] // (each.vectors * each.lanes))
    added = each.taps * oh * ((-(-ow // each.lanes) if p.stride[1] == 1 else ow) * ADD + ROW)
    moved = array_cycles(p.n * p.f * oh * ow * p.itemsize, p.n * p.c * p.h * p.w * p.itemsize)
    cycles = -(-p.n // used) * (runs * each.run_cycles(each.vectors) + added + UNIT) + moved / n_threads + STAGE
    plan = PassPlan(
        algorithm="direct",
        tile=f"{TILE_ROWS[each.vectors - 1]}x{each.vectors * each.lanes}",
        images=1,
        rows=-(-oh // each.strips),
        borders=False,
        units=p.n,
        parts=1,
        block_channels=p.f,
        chunks=1,
        threads=used,
        workspace=used * each.scratch()[0]["scratch"],
        reason="lanes are pixels, products of all taps are added",
        planes=True,
        spread=True,
    )
    return cycles, plan


class PlanesDataCall(NamedTuple):
    """Backward-data of few channels, ready to run."""

    geometry: NDArray[Any]
    tables: Int64
    scratch: int  # bytes, all threads
    threads: int

    @classmethod
    def of(cls, each: PlanesData, plan: PassPlan) -> PlanesDataCall:
        """Return the call of a plan."""
        p, size = each.problem, each.problem.itemsize
        places, pitch = each.scratch()
        tables = Tables(0)
        rows = np.arange(each.taps)
        zero_at, a_table, c_table = tables.add([0]), tables.add(rows * size), tables.add(rows * pitch)
        geometry = record(
            planes_data.GEOMETRY,
            {
                "n": p.n, "c": p.c, "h": p.h, "w": p.w, "f": p.f, "oh": p.output_size[0], "ow": p.output_size[1],
                "kh": p.kernel[0], "kw": p.kernel[1], "stride_h": p.stride[0], "stride_w": p.stride[1],
                "top": p.padding[0][0], "left": p.padding[1][0],
                "dilation_h": p.dilation[0], "dilation_w": p.dilation[1],
                "strips": each.strips, "vectors": each.vectors, "pitch": pitch,
                "zero_at": zero_at, "a_table": a_table, "c_table": c_table, **places,
            },
        )  # fmt: skip
        return cls(geometry, tables.array(), plan.workspace, plan.threads)

    def run(self, source: Array, w: Array, b: Array | None, target: Array, kept: KeptWeights | None = None) -> None:
        """Overwrite `target`, the gradient of the input, from `source`, that of the output."""
        own = workspace.scratch(self.scratch, "strips")
        bias = 0 if b is None else b
        planes_data.planes_data(w.dtype, self.threads, source, w, bias, target, self.geometry, self.tables, own)
