"""Plans as the numbers that kernels read: a record of sizes and pitches, and tables of offsets in bytes."""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from . import depthwise, workspace
from .cost import PassPlan
from .depthwise import DepthwiseWeightsCall, Sums, SumsCall
from .depthwise_planes import DepthwisePlanesCall, DepthwisePlanesWeightsCall
from .kept import KEPT_FROM, KeptWeights
from .kernels import correlate, weights
from .kernels.jit import Bound
from .kernels.layout import GATHER_TABLE_BYTES
from .kernels.simd import VECTOR_BYTES
from .kernels.tile import SPARE_BYTES
from .packing import Packing
from .plan import plan_backward_data, plan_backward_weights, plan_forward
from .planes import Planes, PlanesCall, planes_call
from .planes_data import PlanesData, PlanesDataCall
from .planes_weights import PlanesWeights, PlanesWeightsCall
from .problem import BLOCK_BYTES, ConvProblem, Correlation, Phase, WeightGradient
from .records import Int64, Scratch, Tables, aligned, record
from .winograd import WinogradCall, WinogradPass, form_of
from .winograd_weights import WinogradWeights, WinogradWeightsCall

Array = NDArray[Any]


class CorrelateCall(NamedTuple):
    """Forward or backward-data, direct or by im2col, ready to run."""

    packing: Packing
    correlate: Bound
    correlate_kept: Bound  # takes packed weights in place of w
    scratch: int  # bytes: the packed weights, and those of all threads
    threads: int

    def run(self, source: Array, w: Array, b: Array | None, target: Array, kept: KeptWeights | None = None) -> None:
        """Overwrite `target`."""
        scratch = workspace.scratch(self.scratch, "correlate")
        bias = self.packing.no_bias if b is None else b
        if kept is not None and w.nbytes >= KEPT_FROM:
            packed = kept.packed(self, self.packing, w, b, self.threads)
            self.correlate_kept.run(source, packed, bias, target, scratch)
            return
        if self.threads > 1:
            self.packing.into(scratch, w, bias, self.threads)
        self.correlate.run(source, w, bias, target, scratch)


class WeightsCall(NamedTuple):
    """Backward-weights, direct or by im2col, ready to run."""

    geometry: NDArray[Any]
    tables: Int64
    sums: int  # bytes
    scratch: int  # bytes, all threads
    squares: int  # bytes, all threads
    threads: int

    def run(self, x: Array, dy: Array, dw: Array, db: Array) -> None:
        """Overwrite `dw` and, if the call was made with a bias, `db`."""
        sums, strips = workspace.scratch(self.sums, "sums"), workspace.scratch(self.scratch, "strips")
        weights.correlate_weights(x.dtype, self.threads, x, dy, self.geometry, self.tables, sums, strips)
        squares = workspace.scratch(self.squares, "squares")
        weights.reduce_weights(x.dtype, self.threads, self.geometry, sums, dw, db, squares)


def _taps(each: Correlation, phase: Phase) -> list[tuple[int, int, int]]:
    """Return a phase's taps as (row, column, place in the panel), those of a kernel row merged to their first."""
    if not each.merged:
        return list(phase.taps)
    return [tap for index, tap in enumerate(phase.taps) if index == 0 or phase.taps[index - 1][0] != tap[0]]


def _pixel_offsets(images: int, rows: int, cols: int, image_pitch: int, row_pitch: int, pixel_pitch: int) -> Int64:
    """Return the offset of each (image, row, column), in that order."""
    image, row, col = np.ogrid[:images, :rows, :cols]
    return np.asarray(image * image_pitch + row * row_pitch + col * pixel_pitch, np.int64).ravel()


def _streams(each: Correlation) -> bool:
    """Return whether a pass stores its result past the caches."""
    if each.pooled:
        return False
    row = each.target.c // each.groups * each.itemsize if each.target_in_place else 0
    return workspace.streams(math.prod(each.target) * each.itemsize, row)


def _correlate_call(each: Correlation, p: ConvProblem, swapped: bool, plan: PassPlan, relu: bool) -> CorrelateCall:
    size = each.itemsize
    source, target = each.source, each.target
    panels, vectors, last = each.panels
    unfold = plan.algorithm == "im2col"
    row_bytes = vectors * VECTOR_BYTES
    # A strip holds one group at a time: with all of 32 groups of 32 channels side by side, a pixel is a page, and those
    # under a tile push each other out of a first-level cache (8 images of 7x7 pixels: 82 GFLOP/s on one thread).
    pixel_pitch = (source.c if each.source_in_place else each.depth) * size
    if each.source_in_place:
        row_pitch, image_pitch = source.w * pixel_pitch, source.h * source.w * pixel_pitch
    else:
        row_pitch, image_pitch = each.cols * pixel_pitch, each.strip_rows(plan.rows) * each.cols * pixel_pitch
    target_pixel = target.c * size if each.target_in_place else row_bytes
    target_lines = (
        target.h if each.target_in_place or plan.images > 1 else min(plan.rows * each.out_stride[0], target.h)
    )
    top, left = each.origin
    depth = each.depth

    tables = Tables(len(each.phases) * correlate.PHASE_COLUMNS)
    phase_rows = np.zeros((len(each.phases), correlate.PHASE_COLUMNS), np.int64)
    unfolded = 0
    for entry, phase in zip(phase_rows, each.phases, strict=True):
        rows = min(plan.rows, phase.rows)
        taps = _taps(each, phase)
        k = depth * (len(phase.taps) // len(taps) if taps else 1)
        pixels = plan.images * rows * phase.cols
        wide = k * len(taps) * size
        corner = (phase.offset[0] * target.w + phase.offset[1]) * target_pixel
        entry[correlate.P_ROWS], entry[correlate.P_COLS] = phase.rows, phase.cols
        entry[correlate.P_TAPS], entry[correlate.P_K] = len(taps), k
        entry[correlate.P_UNFOLDED] = unfolded
        entry[correlate.P_TAP_TABLE] = tables.add(
            [(row - top) * row_pitch + (col - left) * pixel_pitch for row, col, _ in taps]
        )
        entry[correlate.P_B_TABLE] = tables.add([place * depth * row_bytes for _, _, place in taps])
        entry[correlate.P_A_TABLE] = tables.add(
            _pixel_offsets(
                plan.images, rows, phase.cols, image_pitch, each.in_stride[0] * row_pitch,
                each.in_stride[1] * pixel_pitch,
            )
        )  # fmt: skip
        entry[correlate.P_C_TABLE] = tables.add(
            corner
            + _pixel_offsets(
                plan.images, rows, phase.cols, target_lines * target.w * target_pixel,
                each.out_stride[0] * target.w * target_pixel, each.out_stride[1] * target_pixel,
            )
        )  # fmt: skip
        if unfold:
            entry[correlate.P_WIDE_TABLE] = tables.add(np.arange(max(pixels, 1)) * wide)
            unfolded += aligned(pixels * wide)

    scratch = Scratch()
    scratch.add(0 if each.source_in_place else plan.images * image_pitch)
    unfolded_at = scratch.add(unfolded)
    target_at = scratch.add(each.target_bytes(plan.images, plan.rows))
    table_at = scratch.add(GATHER_TABLE_BYTES)
    spare_at = scratch.add(SPARE_BYTES)
    packing = Packing.of(each, p, swapped)
    packed_bytes = aligned(packing.bytes)
    geometry = record(
        correlate.GEOMETRY,
        {
            "n": source.n, "c": source.c, "h": source.h, "w": source.w,
            "oh": target.h, "ow": target.w, "f": target.c,
            # One channel, or one pixel, is the same in both layouts, and copied faster as NHWC.
            "source_first": int(each.layout == "NCHW" and source.c > 1),
            "target_first": int(each.layout == "NCHW" and target.c > 1),
            "groups": each.groups, "group_c": depth, "group_f": target.c // each.groups,
            "source_in_place": int(each.source_in_place), "target_in_place": int(each.target_in_place),
            "images": plan.images, "rows": plan.rows, "row_strips": -(-each.rows // plan.rows),
            "max_rows": each.rows, "parts": plan.parts,
            "in_stride_h": each.in_stride[0], "out_stride_h": each.out_stride[0], "phases": len(each.phases),
            "origin_h": top, "origin_w": left, "source_span": each.span, "source_cols": each.cols,
            "image_pitch": image_pitch, "row_pitch": row_pitch, "pixel_pitch": pixel_pitch,
            "target_pitch": row_bytes,
            "panels": panels, "vectors": vectors, "last_vectors": last, "lanes": vectors * each.lanes,
            "k_block": max(1, BLOCK_BYTES // row_bytes) if each.blocked else each.panel_bytes,
            "panel_bytes": each.panel_bytes, "packed_bytes": packed_bytes, "relu": int(relu),
            "stream": int(_streams(each)), "kept": 0, "read_as": each.read_as, "pooled": int(each.pooled),
            "unfold": int(unfold),
            "unfolded_at": unfolded_at, "target_at": target_at, "table_at": table_at, "spare_at": spare_at,
            "scratch": scratch.size,
        },
    )  # fmt: skip
    phase_table = tables.array()
    phase_table[: phase_rows.size] = phase_rows.ravel()
    total = packed_bytes + plan.threads * scratch.size
    constants = packing.record, packing.offsets, geometry, phase_table
    bound = correlate.correlate.bind(packing.no_bias.dtype, plan.threads, 5, *constants)
    kept = geometry.copy()
    kept["kept"] = 1
    constants = packing.record, packing.offsets, kept, phase_table
    bound_kept = correlate.correlate.bind(packing.no_bias.dtype, plan.threads, 5, *constants)
    return CorrelateCall(packing, bound, bound_kept, total, plan.threads)


def _weights_call(p: ConvProblem, plan: PassPlan, bias: bool) -> WeightsCall:
    each = WeightGradient(p, plan.algorithm == "im2col")
    size = p.itemsize
    out = p.output
    panels, vectors, last = each.panels
    unfold = each.unfold
    block_c = plan.block_channels
    blocks = -(-each.group_c // block_c)
    last_c = each.group_c - (blocks - 1) * block_c
    strip_rows = (plan.rows - 1) * p.stride[0] + each.span
    channel_pitch = size
    if each.planes:
        pixel_pitch = size
        row_pitch = p.w * size if each.x_in_place else each.x_row(1)
        channel_pitch = row_pitch * (p.h if each.x_in_place else strip_rows)
        image_pitch = channel_pitch * (p.c if each.x_in_place else block_c)
    elif each.x_in_place:
        pixel_pitch = p.c * size
        row_pitch, image_pitch = p.w * pixel_pitch, p.h * p.w * pixel_pitch
    else:
        pixel_pitch = block_c * size
        row_pitch, image_pitch = each.cols * pixel_pitch, strip_rows * each.cols * pixel_pitch
    column_step = p.stride[1] * pixel_pitch
    line_step = p.stride[0] * row_pitch
    b_step = p.f * size if each.dy_in_place else vectors * VECTOR_BYTES
    whole_rows = line_step == out.w * column_step
    flat = whole_rows and (plan.images == 1 or image_pitch == plan.rows * line_step)
    # The taps of a kernel row are one run where a block holds all channels of a pixel.
    merged = pixel_pitch == block_c * size and blocks == 1 and (p.dilation[1] == 1 or p.kernel[1] == 1)
    taps = [
        i * p.dilation[0] * row_pitch + j * p.dilation[1] * pixel_pitch
        for i in range(p.kernel[0])
        for j in range(p.kernel[1])
    ]
    wide = each.area * block_c * size

    tables = Tables(0)
    a_table = tables.add(np.add.outer(taps, np.arange(block_c) * channel_pitch))
    last_a_table = tables.add(np.add.outer(taps, np.arange(last_c) * channel_pitch))
    line_table = tables.add(_pixel_offsets(plan.images, plan.rows, 1, image_pitch, line_step, 0))
    b_table = tables.add(np.arange(plan.images * plan.rows) * out.w * b_step)
    c_table = tables.add(np.arange(each.area * block_c) * vectors * VECTOR_BYTES)
    wide_table = tables.add(np.arange(each.area * block_c) * size)
    tap_table = tables.add(taps[:: p.kernel[1]] if merged else taps)

    pixels = plan.images * plan.rows * out.w
    scratch = Scratch()
    scratch.add(0 if each.x_in_place else plan.images * image_pitch)
    unfolded_at = scratch.add(pixels * wide if unfold else 0)
    whole = each.dy_in_place and p.f % each.lanes == 0
    dy_at = scratch.add(0 if whole else each.dy_bytes(plan.images, plan.rows))
    zeros_at = scratch.add(vectors * VECTOR_BYTES)
    table_at = scratch.add(GATHER_TABLE_BYTES)
    spare_at = scratch.add(SPARE_BYTES)
    runs = p.kernel[1] if merged else 1
    geometry = record(
        weights.GEOMETRY,
        {
            "n": p.n, "c": p.c, "h": p.h, "w": p.w, "oh": out.h, "ow": out.w, "f": p.f,
            "x_first": int(p.layout == "NCHW" and p.c > 1), "dy_first": int(p.layout == "NCHW" and p.f > 1),
            "read_as": p.tail, "groups": p.groups, "group_c": each.group_c, "group_f": p.f // p.groups,
            "area": each.area,
            "x_in_place": int(each.x_in_place), "dy_in_place": int(each.dy_in_place), "planes": int(each.planes),
            "images": plan.images, "rows": plan.rows, "row_strips": -(-out.h // plan.rows),
            "chunks": plan.chunks, "blocks": blocks, "block_c": block_c, "last_c": last_c,
            "stride_h": p.stride[0], "origin_h": -p.padding[0][0], "origin_w": -p.padding[1][0],
            "span": each.span, "x_cols": each.cols,
            "image_pitch": image_pitch, "row_pitch": row_pitch, "pixel_pitch": pixel_pitch,
            "channel_pitch": channel_pitch, "column_step": column_step,
            "a_step": wide if unfold else column_step, "b_step": b_step,
            "flat": int(flat), "unfold": int(unfold),
            "panels": panels, "parts": plan.parts, "vectors": vectors, "last_vectors": last,
            "lanes": vectors * each.lanes,
            "a_table": a_table, "last_a_table": last_a_table, "line_table": line_table, "b_table": b_table,
            "c_table": c_table, "wide_table": wide_table,
            "tap_table": tap_table, "taps": len(taps) // runs, "run": block_c * runs, "last_run": last_c * runs,
            "unfolded_at": unfolded_at, "dy_at": dy_at, "zeros_at": zeros_at, "table_at": table_at,
            "spare_at": spare_at, "scratch": scratch.size,
            "sums_bytes": each.sums_bytes(block_c), "unit_bytes": each.unit_bytes(block_c),
            "bias_bytes": each.bias_bytes, "bias": int(bias),
        },
    )  # fmt: skip
    sums = plan.chunks * each.sums_bytes(block_c)
    squares = plan.threads * each.area * each.lanes * VECTOR_BYTES
    return WeightsCall(geometry, tables.array(), sums, plan.threads * scratch.size, squares, plan.threads)


PassCall = CorrelateCall | PlanesCall | PlanesDataCall | SumsCall | DepthwisePlanesCall | WinogradCall
WeightsPassCall = (
    WeightsCall | DepthwiseWeightsCall | DepthwisePlanesWeightsCall | PlanesWeightsCall | WinogradWeightsCall
)


@functools.lru_cache(maxsize=256)
def forward_call(p: ConvProblem, algorithm: str, n_threads: int, relu: bool) -> PassCall:
    """Return the forward pass, ready to run; `algorithm` has been through `plan.resolve`."""
    plan = plan_forward(p, algorithm, n_threads)
    if form := form_of(p, plan.algorithm):
        return WinogradCall.of(WinogradPass.forward(p, form), p, plan, relu)
    if depthwise.runs(p, plan.algorithm):
        if plan.planes:
            return DepthwisePlanesCall.of(p, plan, False, relu)
        return SumsCall.of(Sums.forward(p), plan, relu)
    each = Correlation.forward(p, plan.borders)
    alike = Planes.of(each) if plan.planes else None
    return planes_call(alike, p, False, plan, relu) if alike else _correlate_call(each, p, False, plan, relu)


@functools.lru_cache(maxsize=256)
def backward_data_call(p: ConvProblem, algorithm: str, n_threads: int) -> PassCall:
    """Return backward-data, ready to run."""
    plan = plan_backward_data(p, algorithm, n_threads)
    form = form_of(p, plan.algorithm)
    tiles = WinogradPass.backward_data(p, form) if form else None
    if tiles:
        return WinogradCall.of(tiles, p, plan, False)
    if depthwise.runs(p, plan.algorithm):
        if plan.planes:
            return DepthwisePlanesCall.of(p, plan, True, False)
        return SumsCall.of(Sums.backward_data(p), plan, False)
    spread = PlanesData.of(p) if plan.spread else None
    if spread:
        return PlanesDataCall.of(spread, plan)
    each = Correlation.backward_data(p, plan.borders)
    alike = Planes.of(each) if plan.planes else None
    return planes_call(alike, p, True, plan, False) if alike else _correlate_call(each, p, True, plan, False)


@functools.lru_cache(maxsize=256)
def backward_weights_call(p: ConvProblem, algorithm: str, n_threads: int, bias: bool) -> WeightsPassCall:
    """Return backward-weights, ready to run."""
    plan = plan_backward_weights(p, algorithm, n_threads)
    if form := form_of(p, plan.algorithm):
        return WinogradWeightsCall.of(WinogradWeights(p, form), plan, bias)
    if depthwise.runs(p, plan.algorithm):
        if plan.planes:
            return DepthwisePlanesWeightsCall.of(p, plan, bias)
        return DepthwiseWeightsCall.of(p, plan, bias)
    alike = PlanesWeights.of(p) if plan.planes else None
    if alike:
        return PlanesWeightsCall.of(alike, plan, bias)
    return _weights_call(p, plan, bias)
