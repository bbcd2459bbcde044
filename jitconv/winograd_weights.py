"""Winograd backward-weights: what it is, how it is cut, and the numbers that its kernels read."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from . import workspace
from .cost import CALL, FAR_BYTES, GATHER_BYTES, SUMS_BYTES, UNIT, UNITS, PassPlan, strips
from .kernels import winograd_weights
from .kernels.simd import VECTOR_BYTES
from .kernels.tile import SPARE_BYTES, TILE_ROWS
from .problem import ConvProblem, cut_panels
from .records import Int64, Scratch, Tables, record
from .shapes import Pair
from .winograd import BLOCK_BYTES, INPUT_CYCLES, OUTPUT_CYCLES, odd_lines, vectors_of

Array = NDArray[Any]

# Bytes of sums of a unit.
UNIT_SUMS_BYTES = 320 * 1024


@dataclasses.dataclass(frozen=True)
class WinogradWeights:
    """Backward-weights: transformed tiles of x against transformed tiles of dy."""

    problem: ConvProblem
    m: int

    @property
    def lanes(self) -> int:
        """Lanes of one vector."""
        return VECTOR_BYTES // self.problem.itemsize

    @property
    def points(self) -> int:
        """Points of a transformed tile."""
        return (self.m + 2) ** 2

    @functools.cached_property
    def panels(self) -> tuple[int, int, int]:
        """(panels, vectors in each, vectors in the last)."""
        return cut_panels(self.problem.f, self.lanes)

    @property
    def tile_rows(self) -> int:
        """Rows of tiles in an image."""
        return -(-self.problem.output.h // self.m)

    @property
    def tile_cols(self) -> int:
        """Columns of tiles in an image."""
        return -(-self.problem.output.w // self.m)

    @property
    def dy_pixel(self) -> int:
        """Bytes of a pixel of dy in scratch: one panel."""
        return self.panels[1] * VECTOR_BYTES

    def x_pixel(self, block_c: int) -> int:
        """Return the bytes of a pixel of x in scratch: one block."""
        return vectors_of(block_c, self.problem.itemsize) * VECTOR_BYTES

    def x_bytes(self, images: int, rows: int, block_c: int) -> int:
        """Return the bytes of a strip of x."""
        return images * (rows * self.m + 2) * (self.tile_cols * self.m + 2) * self.x_pixel(block_c)

    def dy_bytes(self, images: int, rows: int) -> int:
        """Return the bytes of a strip of dy."""
        return images * rows * self.m * self.tile_cols * self.m * self.dy_pixel

    def transformed_bytes(self, images: int, rows: int, block_c: int) -> int:
        """Return the bytes of a strip's transformed tiles."""
        tiles = images * rows * self.tile_cols
        return self.points * (odd_lines(tiles * self.x_pixel(block_c)) + odd_lines(tiles * self.dy_pixel))

    def unit_bytes(self, block_c: int) -> int:
        """Return the bytes of the sums of one block and one panel."""
        return self.points * block_c * self.dy_pixel

    @property
    def bias_bytes(self) -> int:
        """Bytes of the sums of db."""
        return self.panels[0] * self.dy_pixel

    def sums_bytes(self, block_c: int) -> int:
        """Return the bytes of one chunk's sums."""
        return -(-self.problem.c // block_c) * self.panels[0] * self.unit_bytes(block_c) + self.bias_bytes


def plan_weights(each: WinogradWeights, name: str, n_threads: int) -> tuple[float, PassPlan]:
    """Return the cost in cycles, all units one after another, and the plan of backward-weights."""
    # Strips, chunks and blocks fix the order of summation: they follow from the shapes alone, never the threads.
    p = each.problem
    panels, vectors, _ = each.panels
    mr = TILE_ROWS[vectors - 1]
    fit = max(1, UNIT_SUMS_BYTES // each.unit_bytes(1))
    block_c = -(-p.c // -(-p.c // fit))

    def cost(cut: Pair) -> float:
        images, rows = cut
        tiles = images * rows * each.tile_cols
        height = -(-block_c // mr) * mr
        fma = each.points * height * tiles * vectors
        calls = each.points * (height // mr) * (CALL + 2 * mr * vectors)
        change = tiles * (vectors_of(block_c, p.itemsize) * INPUT_CYCLES[each.m] + vectors * OUTPUT_CYCLES[each.m])
        moved = each.x_bytes(images, rows, block_c) + each.dy_bytes(images, rows)
        far = 2 * max(0, each.transformed_bytes(images, rows, block_c) - BLOCK_BYTES // 2) / FAR_BYTES
        count = -(-p.n // images) * -(-each.tile_rows // rows)
        return count * (fma + calls + change + moved / GATHER_BYTES + far + UNIT)

    images, rows = best = min(strips(p.n, each.tile_rows), key=cost)
    count = -(-p.n // images) * -(-each.tile_rows // rows)
    units = -(-p.c // block_c) * panels
    total = cost(best) * units
    most = max(1, min(count, -(-UNITS // units), SUMS_BYTES // each.sums_bytes(block_c)))
    chunks = 1 << (most.bit_length() - 1)
    if chunks * units < UNITS:
        smaller = min(-(-UNITS // (chunks * units)), max(1, block_c // (2 * mr)))
        block_c = -(-block_c // smaller)
        units = -(-p.c // block_c) * panels
    used = min(n_threads, chunks * units)
    scratch = each.x_bytes(images, rows, block_c) + each.dy_bytes(images, rows)
    scratch += each.transformed_bytes(images, rows, block_c)
    plan = PassPlan(
        algorithm=name,
        tile=f"{mr}x{vectors * each.lanes}",
        images=images,
        rows=rows,
        borders=False,
        units=chunks * units,
        parts=1,
        block_channels=block_c,
        chunks=chunks,
        threads=used,
        workspace=used * scratch + chunks * each.sums_bytes(block_c),
        reason=f"{each.points / each.m**2:.2g} products a pixel and channel in place of 9",
    )
    return total / used, plan


class WinogradWeightsCall(NamedTuple):
    """Backward-weights, ready to run."""

    geometry: NDArray[Any]
    tables: Int64
    sums: int  # bytes
    scratch: int  # bytes, all threads
    threads: int

    @classmethod
    def of(cls, each: WinogradWeights, plan: PassPlan, bias: bool) -> WinogradWeightsCall:
        """Return the call of a plan."""
        geometry, tables, scratch = _weights_geometry(each, plan, bias)
        sums = plan.chunks * each.sums_bytes(plan.block_channels)
        return cls(geometry, tables, sums, plan.threads * scratch, plan.threads)

    def run(self, x: Array, dy: Array, dw: Array, db: Array) -> None:
        """Overwrite `dw` and, if the call was made with a bias, `db`."""
        sums, strips = workspace.scratch(self.sums, "sums"), workspace.scratch(self.scratch, "strips")
        winograd_weights.winograd_weights(x.dtype, self.threads, x, dy, self.geometry, self.tables, sums, strips)
        winograd_weights.finish_weights(x.dtype, self.threads, self.geometry, sums, dw, db, strips)


def _weights_geometry(each: WinogradWeights, plan: PassPlan, bias: bool) -> tuple[NDArray[Any], Int64, int]:
    """Return the record, the tables and a thread's bytes of scratch of backward-weights."""
    p = each.problem
    out = p.output
    panels, vectors, last = each.panels
    block_c = plan.block_channels
    blocks = -(-p.c // block_c)
    tiles = plan.images * plan.rows * each.tile_cols
    x_pixel, dy_pixel = each.x_pixel(block_c), each.dy_pixel
    cols = each.tile_cols * each.m
    input_pitch, gradient_pitch = odd_lines(tiles * x_pixel), odd_lines(tiles * dy_pixel)
    tables = Tables(0)
    a_table = tables.add(np.arange(block_c) * p.itemsize)
    c_table = tables.add(np.arange(block_c) * dy_pixel)
    scratch = Scratch()
    scratch.add(each.x_bytes(plan.images, plan.rows, block_c))
    dy_at = scratch.add(each.dy_bytes(plan.images, plan.rows))
    inputs_at = scratch.add(each.points * input_pitch)
    gradients_at = scratch.add(each.points * gradient_pitch)
    zeros_at = scratch.add(dy_pixel)
    table_at = scratch.add(VECTOR_BYTES // p.itemsize * 8)
    spare_at = scratch.add(SPARE_BYTES)
    geometry = record(
        winograd_weights.GEOMETRY,
        {
            "n": p.n, "c": p.c, "h": p.h, "w": p.w, "oh": out.h, "ow": out.w, "f": p.f,
            "x_first": int(p.layout == "NCHW" and p.c > 1), "dy_first": int(p.layout == "NCHW" and p.f > 1),
            "m": each.m, "points": each.points,
            "images": plan.images, "rows": plan.rows, "row_strips": -(-each.tile_rows // plan.rows),
            "tile_rows": each.tile_rows, "tile_cols": each.tile_cols, "chunks": plan.chunks,
            "blocks": blocks, "block_c": block_c, "last_c": p.c - (blocks - 1) * block_c,
            "origin_h": -p.padding[0][0], "origin_w": -p.padding[1][0], "x_cols": cols + 2,
            "x_image": (plan.rows * each.m + 2) * (cols + 2) * x_pixel, "x_row": (cols + 2) * x_pixel,
            "x_pixel": x_pixel,
            "dy_image": plan.rows * each.m * cols * dy_pixel, "dy_row": cols * dy_pixel, "dy_pixel": dy_pixel,
            "input_pitch": input_pitch, "gradient_pitch": gradient_pitch,
            "panels": panels, "vectors": vectors, "last_vectors": last, "lanes": vectors * each.lanes,
            "a_table": a_table, "c_table": c_table,
            "dy_at": dy_at, "inputs_at": inputs_at, "gradients_at": gradients_at, "zeros_at": zeros_at,
            "table_at": table_at, "spare_at": spare_at, "scratch": scratch.size,
            "sums_bytes": each.sums_bytes(block_c), "unit_bytes": each.unit_bytes(block_c),
            "point_bytes": block_c * dy_pixel, "bias_bytes": each.bias_bytes, "bias": int(bias),
        },
    )  # fmt: skip
    return geometry, tables.array(), scratch.size
