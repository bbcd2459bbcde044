"""Winograd forward and backward-data: what they are, how they are cut, and the numbers that their kernels read.

`plan.py` compares their cost with direct's; `winograd_weights.py` is the third pass.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from . import workspace
from .cost import (
    CALL,
    FAR_BYTES,
    GATHER_BYTES,
    NEAR_BYTES,
    UNIT,
    PassPlan,
    strips,
)
from .kernels import winograd
from .kernels.simd import VECTOR_BYTES
from .kernels.tile import SPARE_BYTES, TILE_ROWS
from .packing import Packing
from .problem import ConvProblem, cut_panels
from .records import Int64, Scratch, Tables, record
from .shapes import Activation, Pair

Array = NDArray[Any]

# Pixels of an output tile, by the name of the algorithm.
TILES = {"winograd": 4, "winograd_2x2": 2}
# Cycles of a transform of one tile and one vector of channels: estimates from the number of operations.
INPUT_CYCLES = {2: 60.0, 4: 190.0}
OUTPUT_CYCLES = {2: 50.0, 4: 170.0}
# Bytes of transformed inputs and products of a strip.
BLOCK_BYTES = 1024 * 1024


def applies(p: ConvProblem) -> bool:
    """Whether Winograd computes this convolution: 3x3, stride 1, not dilated, one group."""
    return p.kernel == (3, 3) and p.stride == (1, 1) and p.dilation == (1, 1) and p.groups == 1


def odd_lines(size: int) -> int:
    """Round up to an odd number of cache lines: powers of two apart, the points of a tile would share cache sets."""
    return (-(-size // 64) | 1) * 64


def vectors_of(channels: int, itemsize: int) -> int:
    """Return the vectors that hold so many channels."""
    return -(-channels * itemsize // VECTOR_BYTES)


@dataclasses.dataclass(frozen=True)
class WinogradPass:
    """Forward, or backward-data as the forward of dy with the kernel flipped.  `m`: pixels of an output tile."""

    source: Activation
    target: Activation
    origin: Pair
    order: tuple[int, ...]
    layout: str
    itemsize: int
    m: int

    @classmethod
    def forward(cls, p: ConvProblem, m: int) -> WinogradPass:
        """Return the forward pass."""
        source = Activation(p.n, p.c, p.h, p.w)
        origin = -p.padding[0][0], -p.padding[1][0]
        return cls(source, p.output, origin, tuple(range(9)), p.layout, p.itemsize, m)

    @classmethod
    def backward_data(cls, p: ConvProblem, m: int) -> WinogradPass:
        """Return the gradient of the input."""
        target = Activation(p.n, p.c, p.h, p.w)
        origin = p.padding[0][0] - 2, p.padding[1][0] - 2
        return cls(p.output, target, origin, tuple(range(8, -1, -1)), p.layout, p.itemsize, m)

    @property
    def lanes(self) -> int:
        """Lanes of one vector."""
        return VECTOR_BYTES // self.itemsize

    @property
    def points(self) -> int:
        """Points of a transformed tile."""
        return (self.m + 2) ** 2

    @property
    def depth(self) -> int:
        """Channels of the source."""
        return self.source.c

    @functools.cached_property
    def panels(self) -> tuple[int, int, int]:
        """(panels, vectors in each, vectors in the last)."""
        return cut_panels(self.target.c, self.lanes)

    @property
    def panel_bytes(self) -> int:
        """Bytes of one panel of weights before the transform."""
        return 9 * self.depth * self.panels[1] * VECTOR_BYTES

    @property
    def tile_rows(self) -> int:
        """Rows of tiles in an image."""
        return -(-self.target.h // self.m)

    @property
    def tile_cols(self) -> int:
        """Columns of tiles in an image."""
        return -(-self.target.w // self.m)

    @property
    def target_in_place(self) -> bool:
        """Whether whole pixels can be written to the caller's array."""
        return self.layout == "NHWC" and self.target.c % self.lanes == 0

    @property
    def pixel_pitch(self) -> int:
        """Bytes of a source pixel in scratch."""
        return vectors_of(self.source.c, self.itemsize) * VECTOR_BYTES

    def source_bytes(self, images: int, rows: int) -> int:
        """Return the bytes of a strip's source pixels."""
        return images * (rows * self.m + 2) * (self.tile_cols * self.m + 2) * self.pixel_pitch

    def partvectors_of(self, parts: int) -> int:
        """Return the most vectors of a range of panels."""
        return -(-self.panels[0] // parts) * self.panels[1]

    def input_pitch(self, tiles: int) -> int:
        """Return the bytes from point to point of the transformed inputs."""
        return odd_lines(tiles * self.pixel_pitch)

    def product_pitch(self, tiles: int, parts: int) -> int:
        """Return the bytes from point to point of the products."""
        return odd_lines(tiles * self.partvectors_of(parts) * VECTOR_BYTES)

    def target_bytes(self, images: int, rows: int, parts: int) -> int:
        """Return the bytes of a strip's target pixels in scratch."""
        if self.target_in_place:
            return 0
        return images * rows * self.m * self.target.w * self.partvectors_of(parts) * VECTOR_BYTES


def plan_pass(each: WinogradPass, name: str, n_threads: int) -> tuple[float, PassPlan]:
    """Return the cost in cycles and the plan of forward or backward-data."""
    panels, vectors, _ = each.panels
    mr = TILE_ROWS[vectors - 1]
    weights = each.points * panels * each.depth * vectors * VECTOR_BYTES

    def cost(cut: tuple[int, int, int]) -> float:
        images, rows, parts = cut
        tiles = images * rows * each.tile_cols
        own = each.partvectors_of(parts)
        height = -(-tiles // mr) * mr
        fma = each.points * height * each.depth * own
        calls = each.points * (height // mr) * (own / vectors) * CALL
        change = tiles * vectors_of(each.source.c, each.itemsize) * INPUT_CYCLES[each.m]
        change += tiles * own * OUTPUT_CYCLES[each.m]
        moved = each.source_bytes(images, rows) + each.target_bytes(images, rows, parts)
        block = each.points * (each.input_pitch(tiles) + each.product_pitch(tiles, parts))
        far = 2 * max(0, block - BLOCK_BYTES) / FAR_BYTES + weights / parts / NEAR_BYTES
        units = -(-each.source.n // images) * -(-each.tile_rows // rows) * parts
        return -(-units // n_threads) * (fma + calls + change + moved / GATHER_BYTES + far + UNIT)

    ranges = sorted({min(panels, part) for part in (1, 2, n_threads)})
    cuts = [(images, rows, parts) for images, rows in strips(each.source.n, each.tile_rows) for parts in ranges]
    images, rows, parts = best = min(cuts, key=cost)
    units = -(-each.source.n // images) * -(-each.tile_rows // rows) * parts
    used = min(n_threads, units)
    tiles = images * rows * each.tile_cols
    scratch = each.source_bytes(images, rows) + each.target_bytes(images, rows, parts)
    scratch += each.points * (each.input_pitch(tiles) + each.product_pitch(tiles, parts))
    plan = PassPlan(
        algorithm=name,
        tile=f"{mr}x{vectors * each.lanes}",
        images=images,
        rows=rows,
        borders=False,
        units=units,
        parts=parts,
        block_channels=each.depth,
        chunks=1,
        threads=used,
        workspace=used * scratch,
        reason=f"{each.points / each.m**2:.2g} products a pixel and channel in place of 9",
    )
    return cost(best), plan


class WinogradCall(NamedTuple):
    """Forward or backward-data, ready to run."""

    packing: Packing
    panels: int
    lanes: int
    depth: int
    m: int
    transformed: int  # bytes
    geometry: NDArray[Any]
    tables: Int64
    scratch: int  # bytes, all threads
    threads: int

    @classmethod
    def of(cls, each: WinogradPass, p: ConvProblem, swapped: bool, plan: PassPlan, relu: bool) -> WinogradCall:
        """Return the call of a plan."""
        panels, vectors, _ = each.panels
        geometry, tables, scratch = _geometry(each, plan, relu)
        transformed = each.points * panels * each.depth * vectors * VECTOR_BYTES
        return cls(
            Packing.of(each, p, swapped), panels, vectors * each.lanes, each.depth, each.m, transformed, geometry,
            tables, plan.threads * scratch, plan.threads,
        )  # fmt: skip

    def run(self, source: Array, w: Array, b: Array | None, target: Array) -> None:
        """Overwrite `target`."""
        packed = self.packing.run(w, b, self.threads)
        transformed = workspace.scratch(self.transformed, "transformed")
        winograd.transform_weights(
            w.dtype, self.threads, packed, transformed, self.panels, self.lanes, self.depth, self.m
        )
        strips = workspace.scratch(self.scratch, "strips")
        winograd.winograd(
            w.dtype, self.threads, source, packed, transformed, target, self.geometry, self.tables, strips
        )


def _geometry(each: WinogradPass, plan: PassPlan, relu: bool) -> tuple[NDArray[Any], Int64, int]:
    """Return the record, the tables and a thread's bytes of scratch of forward or backward-data."""
    size = each.itemsize
    panels, vectors, last = each.panels
    tiles = plan.images * plan.rows * each.tile_cols
    part_bytes = each.partvectors_of(plan.parts) * VECTOR_BYTES
    cols = each.tile_cols * each.m + 2
    pixel_pitch = each.pixel_pitch
    panel_bytes = each.depth * vectors * VECTOR_BYTES
    tables = Tables(0)
    a_table = tables.add(np.arange(tiles) * pixel_pitch)
    c_table = tables.add(np.arange(tiles) * part_bytes)
    scratch = Scratch()
    scratch.add(each.source_bytes(plan.images, plan.rows))
    inputs_at = scratch.add(each.points * each.input_pitch(tiles))
    products_at = scratch.add(each.points * each.product_pitch(tiles, plan.parts))
    target_at = scratch.add(each.target_bytes(plan.images, plan.rows, plan.parts))
    patch_at = scratch.add(each.m**2 * VECTOR_BYTES)
    table_at = scratch.add(VECTOR_BYTES // size * 8)
    spare_at = scratch.add(SPARE_BYTES)
    geometry = record(
        winograd.GEOMETRY,
        {
            "n": each.source.n, "c": each.source.c, "h": each.source.h, "w": each.source.w,
            "oh": each.target.h, "ow": each.target.w, "f": each.target.c,
            "source_first": int(each.layout == "NCHW" and each.source.c > 1),
            "target_first": int(each.layout == "NCHW" and each.target.c > 1),
            "target_in_place": int(each.target_in_place), "m": each.m, "points": each.points,
            "images": plan.images, "rows": plan.rows, "row_strips": -(-each.tile_rows // plan.rows),
            "tile_rows": each.tile_rows, "tile_cols": each.tile_cols, "parts": plan.parts,
            "origin_h": each.origin[0], "origin_w": each.origin[1], "source_cols": cols,
            "image_pitch": (plan.rows * each.m + 2) * cols * pixel_pitch, "row_pitch": cols * pixel_pitch,
            "pixel_pitch": pixel_pitch, "input_pitch": each.input_pitch(tiles),
            "product_pitch": each.product_pitch(tiles, plan.parts), "product_tile": part_bytes,
            "target_pitch": each.target.c * size if each.target_in_place else part_bytes,
            "panels": panels, "vectors": vectors, "last_vectors": last, "lanes": vectors * each.lanes,
            "panel_bytes": panel_bytes, "relu": int(relu), "a_table": a_table, "c_table": c_table,
            "inputs_at": inputs_at, "products_at": products_at, "target_at": target_at, "patch_at": patch_at,
            "table_at": table_at, "spare_at": spare_at, "scratch": scratch.size,
        },
    )  # fmt: skip
    return geometry, tables.array(), scratch.size
