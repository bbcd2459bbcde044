"""Winograd forward and backward-data: what they are, how they are cut, and the numbers that their kernels read.

`plan.py` compares their cost with direct's; `winograd_weights.py` is the third pass.
"""

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
    GATHER_BYTES,
    STAGE,
    STREAM_BYTES,
    UNIT,
    PassPlan,
    array_cycles,
    filled,
    packed_cycles,
    scratch_cycles,
    strips,
)
from .kept import KEPT_FROM, KeptWeights
from .kernels import transforms, winograd
from .kernels.layout import GATHER_TABLE_BYTES
from .kernels.simd import VECTOR_BYTES
from .kernels.tail import PLAIN, POOLED
from .kernels.tile import SPARE_BYTES, TILE_ROWS
from .kernels.transforms import Form
from .problem import ConvProblem, cut_panels
from .records import Int64, Scratch, Tables, record
from .shapes import Activation, Pair

Array = NDArray[Any]

ALGORITHMS = ("winograd", "winograd_2x2")
# The form of an algorithm for a kernel size and a stride.
_FORMS = {
    ("winograd", 3, 1): transforms.F4_3,
    ("winograd", 5, 1): transforms.F4_5,
    ("winograd", 3, 2): transforms.STRIDE_2,
    ("winograd_2x2", 3, 1): transforms.F2_3,
}


# Channels of a group below which there is nothing to gain: products of so few are all overhead.
MIN_GROUP = 8


def form_of(p: ConvProblem, name: str) -> Form | None:
    """Return the form of a Winograd algorithm for this convolution, None if it has none."""
    (kh, kw), (sh, sw) = p.kernel, p.stride
    if p.dilation != (1, 1) or kh != kw or sh != sw:
        return None
    if p.groups > 1 and min(p.c, p.f) // p.groups < MIN_GROUP:
        return None
    return _FORMS.get((name, kh, sh))


def transform_cycles(form: Form) -> tuple[float, float]:
    """Return the cycles of the transforms of one tile and one vector of channels: of inputs, of products.

    F(4x4, 3x3) takes 142 for its 36 inputs and 106 for its 36 products and 16 pixels with both in L1, half as much
    again with the points in L2.
    """
    return 6.0 * form.points**2, 4.0 * form.points**2 + 2.0 * form.outputs**2


def odd_lines(size: int) -> int:
    """Round up to an odd number of cache lines: powers of two apart, the points of a tile would share cache sets."""
    return (-(-size // 64) | 1) * 64


def vectors_of(channels: int, itemsize: int) -> int:
    """Return the vectors that hold so many channels."""
    return -(-channels * itemsize // VECTOR_BYTES)


@dataclasses.dataclass(frozen=True)
class WinogradPass:
    """Forward, or backward-data as the forward of dy with the kernel flipped."""

    source: Activation
    target: Activation
    origin: Pair  # input pixel of the first tile
    swapped: bool
    groups: int
    layout: str
    itemsize: int
    form: Form
    read_as: int = PLAIN  # how the source is read
    pooled: bool = False  # only the largest of each 2x2 targets is stored

    @classmethod
    def forward(cls, p: ConvProblem, form: Form) -> WinogradPass:
        """Return the forward pass."""
        source = Activation(p.n, p.c, p.h, p.w)
        origin = -p.padding[0][0], -p.padding[1][0]
        pooled = p.tail == POOLED
        return cls(source, p.output, origin, False, p.groups, p.layout, p.itemsize, form, pooled=pooled)

    @classmethod
    def backward_data(cls, p: ConvProblem, form: Form) -> WinogradPass | None:
        """Return the gradient of the input; None at stride 2 where one axis has an odd padding, the other not."""
        target = Activation(p.n, p.c, p.h, p.w)
        top, left = p.padding[0][0], p.padding[1][0]
        if p.stride == (1, 1):
            origin = top - p.kernel[0] + 1, left - p.kernel[1] + 1
        elif top % 2 != left % 2:
            return None
        else:
            # Pixel 0 of dx is number `top` with its padding; it gets dy's pixel top // 2 and, if even, that before.
            odd = top % 2
            form = transforms.STRIDE_2_DATA_ODD if odd else transforms.STRIDE_2_DATA_EVEN
            origin = top // 2 - 1 + odd, left // 2 - 1 + odd
        return cls(p.output, target, origin, True, p.groups, p.layout, p.itemsize, form, p.tail)

    @property
    def lanes(self) -> int:
        """Lanes of one vector."""
        return VECTOR_BYTES // self.itemsize

    @property
    def points(self) -> int:
        """Points of a transformed tile."""
        return self.form.points**2

    @property
    def depth(self) -> int:
        """Channels of a group of the source."""
        return self.source.c // self.groups

    @property
    def width(self) -> int:
        """Channels of a group of the target."""
        return self.target.c // self.groups

    @functools.cached_property
    def panels(self) -> tuple[int, int, int]:
        """(panels, vectors in each, vectors in the last)."""
        return cut_panels(self.width, self.lanes)

    @property
    def weight_pitch(self) -> int:
        """Bytes from point to point of the transformed weights."""
        panels, vectors, _ = self.panels
        return odd_lines(panels * self.depth * vectors * VECTOR_BYTES)

    @property
    def tile_rows(self) -> int:
        """Rows of tiles in an image."""
        return -(-self.target.h // self.form.outputs)

    @property
    def tile_cols(self) -> int:
        """Columns of tiles in an image."""
        return -(-self.target.w // self.form.outputs)

    @property
    def target_in_place(self) -> bool:
        """Whether whole pixels can be written to the caller's array."""
        return self.layout == "NHWC" and self.width % self.lanes == 0 and not self.pooled

    @property
    def pixel_bytes(self) -> int:
        """Bytes of a source pixel in whole vectors."""
        return vectors_of(self.source.c, self.itemsize) * VECTOR_BYTES

    @property
    def strip_cols(self) -> int:
        """Columns of a strip."""
        return self.tile_cols * self.form.step + self.form.extent - self.form.step

    def source_bytes(self, rows: int) -> int:
        """Return the bytes of an image's pixels in a strip."""
        height = rows * self.form.step + self.form.extent - self.form.step
        return height * self.strip_cols * self.pixel_bytes

    def most_vectors(self, parts: int) -> int:
        """Return the most vectors of a range of panels."""
        return -(-self.panels[0] * self.groups // parts) * self.panels[1]

    def input_pitch(self, tiles: int) -> int:
        """Return the bytes from point to point of the transformed inputs."""
        return odd_lines(tiles * odd_lines(self.pixel_bytes))

    def product_pitch(self, tiles: int, parts: int) -> int:
        """Return the bytes from point to point of the products."""
        return odd_lines(tiles * self.most_vectors(parts) * VECTOR_BYTES)

    def target_bytes(self, rows: int, parts: int) -> int:
        """Return the bytes of an image's target pixels of a strip in scratch."""
        if self.target_in_place:
            return 0
        return rows * self.form.outputs * self.target.w * self.most_vectors(parts) * VECTOR_BYTES


def plan_pass(each: WinogradPass, name: str, n_threads: int) -> tuple[float, PassPlan]:
    """Return the cost in cycles and the plan of forward or backward-data."""
    panels, vectors, _ = each.panels
    mr = TILE_ROWS[vectors - 1]
    weights = each.groups * each.points * panels * each.depth * vectors * VECTOR_BYTES
    inputs, outputs = transform_cycles(each.form)

    def cost(cut: tuple[int, int, int]) -> float:
        images, rows, parts = cut
        tiles = images * rows * each.tile_cols
        own = each.most_vectors(parts)
        height = -(-tiles // mr) * mr
        fma = each.points * height * each.depth * own
        calls = each.points * (height // mr) * (own / vectors) * (3 * CALL + 2 * mr * vectors)
        change = tiles * (vectors_of(each.source.c, each.itemsize) * inputs + own * outputs)
        moved = images * (each.source_bytes(rows) + each.target_bytes(rows, parts))
        block = each.points * (each.input_pitch(tiles) + each.product_pitch(tiles, parts))
        far = scratch_cycles(block) + weights / parts / STREAM_BYTES
        units = -(-each.source.n // images) * -(-each.tile_rows // rows) * parts
        work = fma + calls + change + moved / GATHER_BYTES + far + UNIT
        work *= filled(each.source.n, each.tile_rows, (images, rows))
        shared = packed_cycles(weights)
        shared += array_cycles(*(math.prod(a) * each.itemsize for a in (each.source, each.target)))
        return -(-units // n_threads) * work + shared / n_threads + STAGE

    ranges = sorted({min(panels * each.groups, part) for part in (1, 2, n_threads)})
    cuts = [(images, rows, parts) for images, rows in strips(each.source.n, each.tile_rows) for parts in ranges]
    images, rows, parts = best = min(cuts, key=cost)
    units = -(-each.source.n // images) * -(-each.tile_rows // rows) * parts
    used = min(n_threads, units)
    tiles = images * rows * each.tile_cols
    scratch = each.source_bytes(rows) + each.target_bytes(rows, parts)
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
        reason=f"{each.points / each.form.outputs**2:.2g} products a pixel and channel",
        packed=weights,
    )
    return cost(best), plan


class Transforming(NamedTuple):
    """What the kernel `transform_weights` needs beside the arrays."""

    record: NDArray[Any]
    offsets: Int64
    bytes: int
    scratch: int  # bytes of a thread

    @classmethod
    def of(cls, each: WinogradPass, p: ConvProblem) -> Transforming:
        """Return the transformation of a pass's weights."""
        panels, vectors, _ = each.panels
        taps = each.form.taps
        area = taps * taps
        row = vectors * VECTOR_BYTES
        order = np.arange(area)[:: -1 if each.swapped else 1]
        scratch = vectors * each.lanes * area * VECTOR_BYTES
        size = (1 + each.groups * panels) * row + each.groups * each.points * each.weight_pitch
        values = {
            "groups": p.groups, "f": p.f // p.groups, "c": p.c // p.groups, "taps": taps, "area": area,
            "swapped": int(each.swapped), "form": each.form.number,
            "line": each.form.points, "points": each.points, "panels": panels,
            "vectors": vectors, "lanes": vectors * each.lanes, "point_pitch": each.weight_pitch,
            "stream": int(workspace.streams(size)), "scratch": scratch,
        }  # fmt: skip
        offsets = np.add.outer(np.arange(each.lanes) * area, order).ravel() * VECTOR_BYTES
        return cls(record(winograd.WEIGHTS, values), offsets, size, scratch)

    def run(self, w: Array, b: Array | None, threads: int) -> Array:
        """Transform w (F, C, KH, KW) and b into scratch, and return it."""
        transformed = workspace.scratch(self.bytes, "weights")
        self.into(transformed, w, b, threads)
        return transformed

    def into(self, transformed: Array, w: Array, b: Array | None, threads: int) -> None:
        """Transform w and b into the caller's memory."""
        rows = workspace.scratch(threads * self.scratch, "strips")
        winograd.transform_weights(
            w.dtype, threads, w, 0 if b is None else b, b is not None, self.record, self.offsets, transformed, rows
        )


class WinogradCall(NamedTuple):
    """Forward or backward-data, ready to run."""

    transforming: Transforming
    geometry: NDArray[Any]
    tables: Int64
    scratch: int  # bytes, all threads
    threads: int

    @classmethod
    def of(cls, each: WinogradPass, p: ConvProblem, plan: PassPlan, relu: bool) -> WinogradCall:
        """Return the call of a plan."""
        geometry, tables, scratch = _geometry(each, plan, relu)
        return cls(Transforming.of(each, p), geometry, tables, plan.threads * scratch, plan.threads)

    def run(self, source: Array, w: Array, b: Array | None, target: Array, kept: KeptWeights | None = None) -> None:
        """Overwrite `target`."""
        if kept is not None and w.nbytes >= KEPT_FROM:
            transformed = kept.packed(self, self.transforming, w, b, self.threads)
        else:
            transformed = self.transforming.run(w, b, self.threads)
        strips = workspace.scratch(self.scratch, "strips")
        winograd.winograd(w.dtype, self.threads, source, transformed, target, self.geometry, self.tables, strips)


def _geometry(each: WinogradPass, plan: PassPlan, relu: bool) -> tuple[NDArray[Any], Int64, int]:
    """Return the record, the tables and a thread's bytes of scratch of forward or backward-data."""
    size, form = each.itemsize, each.form
    panels, vectors, last = each.panels
    tiles = plan.images * plan.rows * each.tile_cols
    product_tile = each.most_vectors(plan.parts) * VECTOR_BYTES
    input_tile = odd_lines(each.pixel_bytes)
    tables = Tables(0)
    a_table = tables.add(np.arange(tiles) * input_tile)
    c_table = tables.add(np.arange(tiles) * product_tile)
    scratch = Scratch()
    scratch.add(each.source_bytes(plan.rows))
    inputs_at = scratch.add(each.points * each.input_pitch(tiles))
    products_at = scratch.add(each.points * each.product_pitch(tiles, plan.parts))
    target_at = scratch.add(each.target_bytes(plan.rows, plan.parts))
    patch_at = scratch.add(form.outputs**2 * VECTOR_BYTES)
    table_at = scratch.add(GATHER_TABLE_BYTES)
    spare_at = scratch.add(SPARE_BYTES)
    geometry = record(
        winograd.GEOMETRY,
        {
            "n": each.source.n, "c": each.source.c, "h": each.source.h, "w": each.source.w,
            "oh": each.target.h, "ow": each.target.w, "f": each.target.c,
            "source_first": int(each.layout == "NCHW" and each.source.c > 1),
            "target_first": int(each.layout == "NCHW" and each.target.c > 1),
            "target_in_place": int(each.target_in_place),
            "groups": each.groups, "group_c": each.depth, "group_f": each.width,
            "form": form.number, "outputs": form.outputs, "step": form.step, "extent": form.extent,
            "line": form.points, "points": each.points,
            "images": plan.images, "rows": plan.rows, "row_strips": -(-each.tile_rows // plan.rows),
            "tile_rows": each.tile_rows, "tile_cols": each.tile_cols, "parts": plan.parts,
            "origin_h": each.origin[0], "origin_w": each.origin[1], "strip_cols": each.strip_cols,
            "row_pitch": each.strip_cols * each.pixel_bytes, "pixel_pitch": each.pixel_bytes,
            "input_pitch": each.input_pitch(tiles), "input_tile": input_tile,
            "product_pitch": each.product_pitch(tiles, plan.parts), "product_tile": product_tile,
            "target_pitch": each.target.c * size if each.target_in_place else product_tile,
            "panels": panels, "vectors": vectors, "last_vectors": last, "lanes": vectors * each.lanes,
            "panel_bytes": each.depth * vectors * VECTOR_BYTES, "weight_pitch": each.weight_pitch, "relu": int(relu),
            "stream": int(workspace.streams(math.prod(each.target) * size) and not each.pooled),
            "read_as": each.read_as, "pooled": int(each.pooled),
            "a_table": a_table, "c_table": c_table, "inputs_at": inputs_at, "products_at": products_at,
            "target_at": target_at, "patch_at": patch_at, "table_at": table_at, "spare_at": spare_at,
            "scratch": scratch.size,
        },
    )  # fmt: skip
    return geometry, tables.array(), scratch.size
