"""Winograd backward-weights: what it is, how it is cut, and the numbers that its kernel reads."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from . import workspace
from .cost import (
    CALL,
    FAR_BYTES,
    GATHER_BYTES,
    NEAR_BYTES,
    STAGE,
    SUMS_BYTES,
    UNIT,
    UNITS,
    PassPlan,
    array_cycles,
    filled,
    strips,
)
from .kernels import winograd_weights
from .kernels.layout import GATHER_TABLE_BYTES
from .kernels.simd import VECTOR_BYTES
from .kernels.tile import SPARE_BYTES, TILE_ROWS
from .kernels.transforms import Form
from .problem import ConvProblem, cut_panels
from .records import Int64, Scratch, Tables, record
from .shapes import Pair
from .winograd import odd_lines, transform_cycles, vectors_of

Array = NDArray[Any]

# Bytes of sums of a unit: it stays in L2 while tiles go by.
UNIT_SUMS_BYTES = 320 * 1024
# Bytes of transformed tiles of a strip of a chunk, beside those sums, and of a round, which stays in L3.
STRIP_BYTES = 512 * 1024
ROUND_BYTES = 8 * 1024 * 1024


@dataclasses.dataclass(frozen=True)
class WinogradWeights:
    """Backward-weights: transformed tiles of x against transformed tiles of dy."""

    problem: ConvProblem
    form: Form

    @property
    def lanes(self) -> int:
        """Lanes of one vector."""
        return VECTOR_BYTES // self.problem.itemsize

    @property
    def points(self) -> int:
        """Points of a transformed tile."""
        return self.form.points**2

    @functools.cached_property
    def panels(self) -> tuple[int, int, int]:
        """(panels, vectors in each, vectors in the last)."""
        return cut_panels(self.problem.f // self.problem.groups, self.lanes)

    @property
    def tile_rows(self) -> int:
        """Rows of tiles in an image."""
        return -(-self.problem.output.h // self.form.outputs)

    @property
    def tile_cols(self) -> int:
        """Columns of tiles in an image."""
        return -(-self.problem.output.w // self.form.outputs)

    @property
    def vectors(self) -> Pair:
        """Vectors of channels of x, and of dy in whole panels."""
        panels, vectors, _ = self.panels
        return vectors_of(self.problem.c, self.problem.itemsize), self.problem.groups * panels * vectors

    @property
    def group_c(self) -> int:
        """Channels of a group of x."""
        return self.problem.c // self.problem.groups

    @property
    def x_first(self) -> bool:
        """Whether x is gathered from planes."""
        return self.problem.layout == "NCHW" and self.problem.c > 1

    @property
    def dy_first(self) -> bool:
        """Whether dy is gathered from planes."""
        return self.problem.layout == "NCHW" and self.problem.f > 1

    @property
    def x_cols(self) -> int:
        """Columns of a strip of x."""
        return self.tile_cols * self.form.step + self.form.extent - self.form.step

    def strip_bytes(self, rows: int) -> int:
        """Return the bytes of an image's pixels in a strip: of x or of dy, one after the other."""
        x_rows = rows * self.form.step + self.form.extent - self.form.step
        x = x_rows * self.x_cols * self.vectors[0] * VECTOR_BYTES
        dy = rows * self.form.outputs**2 * self.tile_cols * vectors_of(self.problem.f, self.problem.itemsize)
        # A group's last vector may reach past the last pixel.
        return max(x, dy * VECTOR_BYTES) + VECTOR_BYTES

    def pitches(self, tiles: int) -> Pair:
        """Return the bytes from point to point of so many transformed tiles: of x, of dy."""
        x, panel = self.runs(tiles)
        return odd_lines(self.vectors[0] * x), odd_lines(self.problem.groups * self.panels[0] * panel)

    def runs(self, tiles: int) -> Pair:
        """Return the bytes from vector to vector of so many transformed tiles of x, and from panel to panel of dy."""
        return odd_lines(tiles * VECTOR_BYTES), odd_lines(tiles * self.panels[1] * VECTOR_BYTES)

    def transformed_bytes(self, tiles: int) -> int:
        """Return the bytes of so many transformed tiles."""
        return self.points * sum(self.pitches(tiles))

    def unit_bytes(self, block_c: int) -> int:
        """Return the bytes of the sums of one block and one panel."""
        return self.points * block_c * self.panels[1] * VECTOR_BYTES

    @property
    def bias_bytes(self) -> int:
        """Bytes of the sums of db."""
        return self.vectors[1] * VECTOR_BYTES

    def sums_bytes(self, block_c: int) -> int:
        """Return the bytes of the sums of all units, once."""
        places = self.problem.groups * -(-self.group_c // block_c) * self.panels[0]
        return places * self.unit_bytes(block_c) + self.bias_bytes

    @property
    def in_rounds(self) -> bool:
        """Whether tiles are transformed in rounds that all units share, not by each chunk for itself."""
        return self.sums_bytes(self.group_c) > UNIT_SUMS_BYTES

    def strip_tiles(self, images: int, rows: int) -> int:
        """Return the tiles of a strip."""
        return images * rows * self.tile_cols


def _count(each: WinogradWeights, images: int, rows: int) -> int:
    """Return the number of strips."""
    return -(-each.problem.n // images) * -(-each.tile_rows // rows)


def _round_strips(each: WinogradWeights, images: int, rows: int) -> int:
    """Return the strips of a round: as even as rounds of no more than ROUND_BYTES can be."""
    count = _count(each, images, rows)
    tiles = each.strip_tiles(images, rows)
    most = max(1, ROUND_BYTES // each.transformed_bytes(tiles))
    return -(-count // -(-count // most))


def _block(each: WinogradWeights) -> int:
    """Return the input channels of a unit."""
    p = each.problem
    if not each.in_rounds:
        return each.group_c
    block = max(each.lanes, UNIT_SUMS_BYTES // each.unit_bytes(1) // each.lanes * each.lanes)
    # Enough units for the usual numbers of threads.
    while block > each.lanes and p.groups * -(-each.group_c // block) * each.panels[0] < UNITS:
        block -= each.lanes
    return min(block, each.group_c)


def plan_weights(each: WinogradWeights, name: str, n_threads: int) -> tuple[float, PassPlan]:
    """Return the cost in cycles and the plan of backward-weights."""
    # Strips, chunks and rounds fix the order of summation: they follow from the shapes alone, never the threads.
    p = each.problem
    panels, vectors, _ = each.panels
    mr = TILE_ROWS[vectors - 1]
    block_c = _block(each)
    blocks = -(-each.group_c // block_c)
    inputs, _ = transform_cycles(each.form)
    height = -(-block_c // mr) * mr * blocks

    def cost(cut: Pair) -> float:
        images, rows = cut
        tiles, count = each.strip_tiles(images, rows), _count(each, images, rows)
        fma = each.points * height * tiles * each.vectors[1]
        change = tiles * sum(each.vectors) * inputs
        moved = images * each.strip_bytes(rows) * 2 / GATHER_BYTES
        turns, room = count, STRIP_BYTES
        if each.in_rounds:
            turns, room = -(-count // _round_strips(each, images, rows)), 2 * ROUND_BYTES
            moved += each.transformed_bytes(tiles) * 2 / NEAR_BYTES
        far = 2 * max(0, each.transformed_bytes(tiles) - room) / FAR_BYTES
        calls = p.groups * each.points * (height // mr) * panels * (3 * CALL + 2 * mr * vectors)
        part = filled(p.n, each.tile_rows, cut)
        return count * part * (fma + change + moved + far + UNIT) + turns * calls

    # A round shares strips over the threads: small ones.
    most = max(1, each.strip_tiles(1, each.tile_rows) * p.n // 64)
    cuts = list(strips(p.n, each.tile_rows))
    if each.in_rounds:
        cuts = [cut for cut in cuts if each.strip_tiles(*cut) <= max(most, each.tile_cols)]
    images, rows = best = min(cuts, key=cost)
    count = _count(each, images, rows)
    chunks = 1
    if not each.in_rounds:
        most = max(1, min(count, UNITS, SUMS_BYTES // each.sums_bytes(block_c)))
        chunks = 1 << (most.bit_length() - 1)
    units = p.groups * blocks * panels if each.in_rounds else chunks
    used = min(n_threads, units)
    finish = each.group_c * each.vectors[1] * 4.0 * each.points
    tiles = each.strip_tiles(images, rows)
    if each.in_rounds:
        tiles *= _round_strips(each, images, rows)
    turns = 1 if each.in_rounds else used
    plan = PassPlan(
        algorithm=name,
        tile=f"{mr}x{vectors * each.lanes}",
        images=images,
        rows=rows,
        borders=False,
        units=units,
        parts=1,
        block_channels=block_c,
        chunks=chunks,
        threads=used,
        workspace=turns * each.transformed_bytes(tiles) + chunks * each.sums_bytes(block_c),
        reason=f"{each.points / each.form.outputs**2:.2g} products a pixel and channel",
    )
    shared = finish + array_cycles((math.prod(p.output) + p.n * p.c * p.h * p.w) * p.itemsize, 0)
    return (cost(best) + shared) / used + STAGE, plan


class WinogradWeightsCall(NamedTuple):
    """Backward-weights by Winograd, ready to run."""

    geometry: NDArray[Any]
    tables: Int64
    sums: int  # bytes
    transformed: int  # bytes
    scratch: int  # bytes, all threads
    strips: int
    round_strips: int  # of a round; 0: the plan is by chunks
    threads: int

    @classmethod
    def of(cls, each: WinogradWeights, plan: PassPlan, bias: bool) -> WinogradWeightsCall:
        """Return the call of a plan."""
        count = _count(each, plan.images, plan.rows)
        round_strips = _round_strips(each, plan.images, plan.rows) if each.in_rounds else 0
        geometry, tables = _geometry(each, plan, bias, max(1, round_strips), round_strips == count)
        transformed, scratch, sums = (int(geometry[name][0]) for name in ("transformed", "scratch", "sums_bytes"))
        turns = 1 if each.in_rounds else plan.threads
        return cls(
            geometry, tables, plan.chunks * sums, turns * transformed, plan.threads * scratch, count, round_strips,
            plan.threads,
        )  # fmt: skip

    def run(self, x: Array, dy: Array, dw: Array, db: Array) -> None:
        """Overwrite `dw` and, if the call was made with a bias, `db`."""
        sums, strips = workspace.scratch(self.sums, "sums"), workspace.scratch(self.scratch, "strips")
        transformed = workspace.scratch(self.transformed, "transformed")

        def launch(stage: int, begin: int, end: int) -> None:
            winograd_weights.winograd_weights(
                x.dtype, self.threads, x, dy, dw, db, self.geometry, self.tables, sums, transformed, strips, stage,
                begin, end,
            )  # fmt: skip

        if not self.round_strips:
            launch(winograd_weights.CHUNKS, 0, self.strips)
            launch(winograd_weights.FINISH, 0, self.strips)
            return
        for begin in range(0, self.strips, self.round_strips):
            end = min(begin + self.round_strips, self.strips)
            launch(winograd_weights.TRANSFORM, begin, end)
            launch(winograd_weights.MULTIPLY, begin, end)


def _geometry(
    each: WinogradWeights, plan: PassPlan, bias: bool, strips_at_once: int, own_sums: bool
) -> tuple[NDArray[Any], Int64]:
    """Return the record and the tables of backward-weights."""
    p, form = each.problem, each.form
    out, size = p.output, p.itemsize
    panels, vectors, last = each.panels
    block_c = plan.block_channels
    row = vectors * VECTOR_BYTES
    tiles = strips_at_once * each.strip_tiles(plan.images, plan.rows)
    input_pitch, gradient_pitch = each.pitches(tiles)
    input_vector, gradient_panel = each.runs(tiles)
    x_pixel = each.vectors[0] * VECTOR_BYTES
    dy_pixel = vectors_of(p.f, size) * VECTOR_BYTES
    tables = Tables(0)
    channel = np.arange(p.c)
    a_table = tables.add(channel // each.lanes * input_vector + channel % each.lanes * size)
    c_table = tables.add(np.arange(block_c) * row)
    scratch = Scratch()
    strip_at = scratch.add(each.strip_bytes(plan.rows))
    taps_at = scratch.add(each.lanes * form.taps**2 * VECTOR_BYTES)
    zeros_at = scratch.add(row)
    table_at = scratch.add(GATHER_TABLE_BYTES)
    spare_at = scratch.add(SPARE_BYTES)
    sums = each.sums_bytes(block_c)
    if own_sums:
        sums = plan.threads * each.unit_bytes(block_c) + each.bias_bytes
    geometry = record(
        winograd_weights.GEOMETRY,
        {
            "n": p.n, "c": p.c, "h": p.h, "w": p.w, "oh": out.h, "ow": out.w, "f": p.f,
            "x_first": int(each.x_first), "dy_first": int(each.dy_first),
            "read_as": p.tail,
            "groups": p.groups, "group_c": each.group_c, "group_f": p.f // p.groups,
            "form": form.number, "outputs": form.outputs, "step": form.step, "extent": form.extent,
            "line": form.points, "taps": form.taps, "area": form.taps**2, "points": each.points,
            "images": plan.images, "rows": plan.rows, "row_strips": -(-each.tile_rows // plan.rows),
            "tile_rows": each.tile_rows, "tile_cols": each.tile_cols, "chunks": plan.chunks,
            "blocks": -(-each.group_c // block_c), "block_c": block_c,
            "origin_h": -p.padding[0][0], "origin_w": -p.padding[1][0], "x_cols": each.x_cols,
            "x_row": x_pixel * each.x_cols, "x_pixel": x_pixel,
            "dy_row": dy_pixel * each.tile_cols * form.outputs, "dy_pixel": dy_pixel,
            "input_pitch": input_pitch, "input_vector": input_vector,
            "gradient_pitch": gradient_pitch, "gradient_panel": gradient_panel,
            "panels": panels, "vectors": vectors, "last_vectors": last, "lanes": vectors * each.lanes,
            "a_table": a_table, "c_table": c_table,
            "strip_at": strip_at, "taps_at": taps_at, "zeros_at": zeros_at,
            "table_at": table_at, "spare_at": spare_at, "scratch": scratch.size,
            "transformed": each.transformed_bytes(tiles), "gradients_at": each.points * input_pitch,
            "sums_bytes": sums, "unit_bytes": each.unit_bytes(block_c), "point_bytes": block_c * row,
            "bias_bytes": each.bias_bytes, "bias": int(bias), "own_sums": int(own_sums),
        },
    )  # fmt: skip
    return geometry, tables.array()
