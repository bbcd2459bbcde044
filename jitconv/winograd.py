"""Winograd passes: what they are, how they are cut, and the numbers that their kernels read.

`plan.py` compares their cost with direct's.
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
    SUMS_BYTES,
    UNIT,
    UNITS,
    PassPlan,
    strips,
)
from .kernels import winograd, winograd_weights
from .kernels.simd import VECTOR_BYTES
from .kernels.tile import SPARE_BYTES, TILE_ROWS
from .packing import Packing
from .problem import ConvProblem, cut_panels
from .records import Int64, Scratch, Tables, record
from .shapes import Activation, Pair

Array = NDArray[Any]

# Pixels of an output tile, by the name of the algorithm.
TILES = {"winograd": 4, "winograd_2x2": 2}
# Cycles of a transform of one tile and one vector of channels: input, output, gradient; measured on AVX-512.
INPUT_CYCLES = {2: 60.0, 4: 190.0}
OUTPUT_CYCLES = {2: 50.0, 4: 170.0}
# Bytes of transformed inputs and products of a strip.
BLOCK_BYTES = 1024 * 1024
# Bytes of sums of a unit of backward-weights.
UNIT_SUMS_BYTES = 320 * 1024


def applies(p: ConvProblem) -> bool:
    """Whether Winograd computes this convolution: 3x3, stride 1, not dilated, one group."""
    return p.kernel == (3, 3) and p.stride == (1, 1) and p.dilation == (1, 1) and p.groups == 1


def _odd_lines(size: int) -> int:
    """Round up to an odd number of cache lines: powers of two apart, the points of a tile would share cache sets."""
    return (-(-size // 64) | 1) * 64


def _vectors(channels: int, itemsize: int) -> int:
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
        return _vectors(self.source.c, self.itemsize) * VECTOR_BYTES

    def source_bytes(self, images: int, rows: int) -> int:
        """Return the bytes of a strip's source pixels."""
        return images * (rows * self.m + 2) * (self.tile_cols * self.m + 2) * self.pixel_pitch

    def part_vectors(self, parts: int) -> int:
        """Return the most vectors of a range of panels."""
        return -(-self.panels[0] // parts) * self.panels[1]

    def input_pitch(self, tiles: int) -> int:
        """Return the bytes from point to point of the transformed inputs."""
        return _odd_lines(tiles * self.pixel_pitch)

    def product_pitch(self, tiles: int, parts: int) -> int:
        """Return the bytes from point to point of the products."""
        return _odd_lines(tiles * self.part_vectors(parts) * VECTOR_BYTES)

    def target_bytes(self, images: int, rows: int, parts: int) -> int:
        """Return the bytes of a strip's target pixels in scratch."""
        if self.target_in_place:
            return 0
        return images * rows * self.m * self.target.w * self.part_vectors(parts) * VECTOR_BYTES


def plan_pass(each: WinogradPass, name: str, n_threads: int) -> tuple[float, PassPlan]:
    """Return the cost in cycles and the plan of forward or backward-data."""
    panels, vectors, _ = each.panels
    mr = TILE_ROWS[vectors - 1]
    weights = each.points * panels * each.depth * vectors * VECTOR_BYTES

    def cost(cut: tuple[int, int, int]) -> float:
        images, rows, parts = cut
        tiles = images * rows * each.tile_cols
        own = each.part_vectors(parts)
        height = -(-tiles // mr) * mr
        fma = each.points * height * each.depth * own
        calls = each.points * (height // mr) * (own / vectors) * CALL
        change = tiles * _vectors(each.source.c, each.itemsize) * INPUT_CYCLES[each.m]
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
    part_bytes = each.part_vectors(plan.parts) * VECTOR_BYTES
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
        return _vectors(block_c, self.problem.itemsize) * VECTOR_BYTES

    def x_bytes(self, images: int, rows: int, block_c: int) -> int:
        """Return the bytes of a strip of x."""
        return images * (rows * self.m + 2) * (self.tile_cols * self.m + 2) * self.x_pixel(block_c)

    def dy_bytes(self, images: int, rows: int) -> int:
        """Return the bytes of a strip of dy."""
        return images * rows * self.m * self.tile_cols * self.m * self.dy_pixel

    def transformed_bytes(self, images: int, rows: int, block_c: int) -> int:
        """Return the bytes of a strip's transformed tiles."""
        tiles = images * rows * self.tile_cols
        return self.points * (_odd_lines(tiles * self.x_pixel(block_c)) + _odd_lines(tiles * self.dy_pixel))

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
        change = tiles * (_vectors(block_c, p.itemsize) * INPUT_CYCLES[each.m] + vectors * OUTPUT_CYCLES[each.m])
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
    input_pitch, gradient_pitch = _odd_lines(tiles * x_pixel), _odd_lines(tiles * dy_pixel)
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
