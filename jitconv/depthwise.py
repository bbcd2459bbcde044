"""Depthwise convolution and that of narrow groups: how it is cut, and the numbers its kernels read."""

from __future__ import annotations

import bisect
import functools
import itertools
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from . import workspace
from .cost import UNITS, PassPlan
from .kept import KeptWeights
from .kernels import depthwise, depthwise_weights
from .kernels.depthwise_tiles import PIXELS, WIDTHS, masked_from, whole_tiles
from .kernels.simd import VECTOR_BYTES
from .kernels.tail import PLAIN
from .problem import ConvProblem, Line, backward_lines, forward_lines
from .records import Int64, Scratch, Tables, record
from .shapes import Activation, Pair

Array = NDArray[Any]

# Bytes of the source rows under one target row, of one block of channels: most of a first-level cache.
ROWS_BYTES = 24 * 1024
# Bytes of a source that is read from beyond the second-level cache: asking for the next row ahead takes 8 images of
# 144 channels of 56x56 pixels from 3.1 to 2.0 ms on one thread; with less data it costs 5%.
FAR_BYTES = 6 * 1024 * 1024
# Bytes of a strip that is transposed in scratch.
STRIP_BYTES = 192 * 1024
# Bytes of sums of all chunks that one thread adds up in less time than a launch takes.
ALONE_BYTES = 128 * 1024
# Shorter runs of vectors than this are not worth a block: what reads ahead follows whole rows better.
SHORT_RUN = 8


def narrow(groups: int, in_channels: int, out_channels: int, itemsize: int) -> bool:
    """Whether groups have the same few channels in and out: a vector of channels holds whole groups."""
    width = in_channels // groups
    few = width in WIDTHS and width * itemsize <= VECTOR_BYTES
    return few and in_channels == out_channels and (groups > 1 or width == 1)


def runs(p: ConvProblem, algorithm: str) -> bool:
    """Whether these kernels are what direct means for a problem.

    They read and write their arrays in place, and so take nothing else along.
    """
    return algorithm == "direct" and narrow(p.groups, p.c, p.f, p.itemsize) and p.tail == PLAIN


class Sums(NamedTuple):
    """Forward or backward-data as sums of taps from a source image to a target image."""

    problem: ConvProblem
    source: Activation
    target: Activation
    in_stride: Pair
    out_stride: Pair
    rows: tuple[Line, ...]
    cols: tuple[Line, ...]
    swapped: bool  # whether the weights of a group are (source's channel, target's)

    @classmethod
    def forward(cls, p: ConvProblem) -> Sums:
        """Return the forward pass."""
        rows = forward_lines(p.output.h, p.kernel[0], p.padding[0][0], p.dilation[0])
        cols = forward_lines(p.output.w, p.kernel[1], p.padding[1][0], p.dilation[1])
        return cls(p, Activation(p.n, p.c, p.h, p.w), p.output, p.stride, (1, 1), tuple(rows), tuple(cols), False)

    @classmethod
    def backward_data(cls, p: ConvProblem) -> Sums:
        """Return the gradient of the input, which is also the transposed convolution."""
        rows = backward_lines(p.h, p.kernel[0], p.stride[0], p.padding[0][0], p.dilation[0])
        cols = backward_lines(p.w, p.kernel[1], p.stride[1], p.padding[1][0], p.dilation[1])
        return cls(p, p.output, Activation(p.n, p.c, p.h, p.w), (1, 1), p.stride, tuple(rows), tuple(cols), True)

    @property
    def width(self) -> int:
        """Channels of a group."""
        return self.problem.c // self.problem.groups

    @property
    def tap_bytes(self) -> int:
        """Bytes of a tap's weights, or of their sums, for a vector of channels."""
        return self.width * VECTOR_BYTES

    @property
    def packed_vector(self) -> int:
        """Bytes of the bias and the weights, or of their sums, for a vector of channels."""
        return VECTOR_BYTES + self.problem.kernel[0] * self.problem.kernel[1] * self.tap_bytes

    @property
    def vectors(self) -> int:
        """Vectors of channels."""
        return -(-self.problem.c * self.problem.itemsize // VECTOR_BYTES)

    @property
    def transposed(self) -> bool:
        """Whether strips are transposed in scratch, one vector of channels at a time."""
        return self.problem.layout == "NCHW"

    @property
    def pixel(self) -> int:
        """Bytes of a pixel, in memory or in scratch."""
        return VECTOR_BYTES if self.transposed else self.problem.c * self.problem.itemsize

    def strip_bytes(self, rows: int) -> Pair:
        """Return the bytes of the source and of the target pixels of a strip of so many target rows."""
        sources = [source for line in self.rows for source, _ in line.taps] or [0]
        # A strip begins and ends at any residue, so that it may have one more of one than of another.
        steps = -(-(rows - 1) // self.out_stride[0]) * self.in_stride[0]
        high = min(self.source.h, steps + max(sources) - min(sources) + 1)
        return high * self.source.w * VECTOR_BYTES, rows * self.target.w * VECTOR_BYTES

    @property
    def strip_rows(self) -> int:
        """Target rows of a strip: it fits in a part of the second-level cache, and there are enough to share."""
        units = self.vectors * self.target.n
        most = -(-self.target.h // max(1, -(-UNITS // max(units, 1))))
        rows = 1 + bisect.bisect_right(range(2, most + 1), STRIP_BYTES, key=lambda rows: sum(self.strip_bytes(rows)))
        return -(-self.target.h // -(-self.target.h // rows))

    @property
    def blocks(self) -> int:
        """Blocks of channels: the source rows of one target row of a block stay in a first-level cache."""
        if self.transposed:
            return self.vectors
        taps = max(1, *(len(line.taps) for line in self.rows))
        fit = ROWS_BYTES // (taps * self.source.w * VECTOR_BYTES)
        return 1 if fit < SHORT_RUN else -(-self.vectors // fit)

    @property
    def far(self) -> bool:
        """Whether the source lies beyond the second-level cache."""
        return (
            not self.transposed
            and self.source.n * self.source.h * self.source.w * self.problem.c * self.problem.itemsize > FAR_BYTES
        )


def _taps(line: Line) -> tuple[int, int, int, int]:
    """Return a line's (first source pixel, step to the next tap's, first tap, step to the next)."""
    if not line.taps:
        return 0, 1, 0, 1
    (source, tap), (next_source, next_tap) = line.taps[0], line.taps[min(1, len(line.taps) - 1)]
    return source, next_source - source, tap, next_tap - tap


def _inside(line: Line, pixel: int, in_stride: int, size: int) -> range:
    """Return which of a line's taps lie inside the source for one pixel."""
    sources = [pixel * in_stride + source for source, _ in line.taps]
    return range(sum(source < 0 for source in sources), sum(source < size for source in sources))


def _row_table(each: Sums) -> list[list[int]]:
    """Return, for each target row, the first source row, the rows of taps inside and the first in the kernel."""
    table = []
    for row in range(each.target.h):
        index, residue = divmod(row, each.out_stride[0])
        line = each.rows[residue]
        source, step, tap, tap_step = _taps(line)
        inside = _inside(line, index, each.in_stride[0], each.source.h)
        first = index * each.in_stride[0] + source + inside.start * step
        table.append([first, len(inside), tap + inside.start * tap_step])
    return table


def _tiles(pixels: int) -> list[tuple[int, int]]:
    """Cut a run of pixels into tiles: (place in PIXELS, first pixel). The last may compute some a second time."""
    cut, done = [], 0
    while done < pixels:
        left = pixels - done
        place = next(place for place, count in enumerate(PIXELS) if count <= left)
        if place and PIXELS[place] < left and PIXELS[place - 1] <= min(pixels, left + left // 2):
            place -= 1
        done = min(done, pixels - PIXELS[place])
        cut.append((place, done))
        done += PIXELS[place]
    return cut


def _segments(each: Sums) -> list[list[int]]:
    """Return the table of segments, in bytes."""
    pixel, tiles = each.pixel, whole_tiles(each.width)
    stride, table = each.in_stride[1], []
    for offset, line in enumerate(each.cols):
        source, step, tap, tap_step = _taps(line)
        shape = (len(line.taps), stride) if step == 1 else (0, 0)
        tile = tiles.index(shape) if shape in tiles else 0
        inside_of = functools.partial(_inside, line, in_stride=stride, size=each.source.w)
        runs = itertools.groupby(range(line.pixels), inside_of)
        for inside, run in runs:
            first, *others = run
            whole = len(inside) == len(line.taps)
            for place, index in _tiles(1 + len(others)):
                table.append(
                    [
                        (tile if whole else 0) * len(PIXELS) + place,
                        ((first + index) * stride + source + inside.start * step) * pixel,
                        ((first + index) * each.out_stride[1] + offset) * pixel,
                        VECTOR_BYTES + (tap + inside.start * tap_step) * each.tap_bytes,
                        len(inside),
                        step * pixel,
                        tap_step * each.tap_bytes,
                    ]
                )
    return table


def plan_sums(each: Sums, n_threads: int) -> tuple[float, PassPlan]:
    """Return the cost in cycles and the plan of forward or backward-data."""
    rows = each.strip_rows if each.transposed else 1
    units = each.blocks * each.target.n * -(-each.target.h // rows)
    used = max(1, min(n_threads, units))
    lanes = VECTOR_BYTES // each.problem.itemsize
    plan = PassPlan(
        algorithm="direct",
        tile=f"{PIXELS[0]}x{lanes}",
        images=1,
        rows=rows,
        borders=True,
        units=units,
        parts=each.blocks,
        block_channels=1,
        chunks=1,
        threads=used,
        workspace=used * _Places.of(each, _packed_bytes(each)).size,
        reason=_reason(each),
    )
    return each.problem.flops / (2 * lanes * used), plan


def _reason(each: Sums) -> str:
    words = "strips of a vector of channels transposed" if each.transposed else "input read in place"
    name = "depthwise" if each.width == 1 else f"groups of {each.width} channels"
    return f"{name}: lanes are channels, {words}"


class _Places(NamedTuple):
    """Where things lie in a thread's scratch."""

    source: int
    target: int
    size: int

    @classmethod
    def of(cls, each: Sums, before: int) -> _Places:
        scratch = Scratch()
        scratch.add(before)
        source, target = each.strip_bytes(each.strip_rows) if each.transposed else (0, 0)
        return cls(scratch.add(source), scratch.add(target), scratch.size)


def _packed_bytes(each: Sums) -> int:
    return -(-each.vectors // each.blocks) * each.packed_vector


class SumsCall(NamedTuple):
    """Forward or backward-data, ready to run."""

    geometry: NDArray[Any]
    tables: Int64
    scratch: int  # bytes, all threads
    threads: int
    transposed: bool
    width: int

    @classmethod
    def of(cls, each: Sums, plan: PassPlan, relu: bool) -> SumsCall:
        """Return the call of a plan."""
        p, source, target = each.problem, each.source, each.target
        pixel, w_row = each.pixel, p.kernel[1] * each.tap_bytes
        segments, places = _segments(each), _Places.of(each, _packed_bytes(each))
        tables = Tables(0)
        tables.add(np.array(_row_table(each)) * (source.w * pixel, 1, w_row))
        _, step, _, tap_step = next((_taps(line) for line in each.rows if len(line.taps) > 1), (0, 1, 0, 1))
        geometry = record(
            depthwise.GEOMETRY,
            {
                "n": source.n, "c": source.c, "h": source.h, "w": source.w, "oh": target.h, "ow": target.w,
                "area": p.kernel[0] * p.kernel[1], "relu": int(relu), "blocks": each.blocks, "far": int(each.far),
                "segments": len(segments), "segments_at": tables.add(segments),
                "masked": masked_from(each.width), "swapped": int(each.swapped),
                "row_step": step * source.w * pixel, "w_row": tap_step * w_row,
                "x_pitch": each.in_stride[1] * pixel, "y_pitch": each.out_stride[1] * pixel,
                "rows": each.strip_rows, "x_at": places.source, "y_at": places.target,
                "in_stride": each.in_stride[0], "out_stride": each.out_stride[0], "scratch": places.size,
            },
        )  # fmt: skip
        return cls(geometry, tables.array(), plan.threads * places.size, plan.threads, each.transposed, each.width)

    def run(self, source: Array, w: Array, b: Array | None, target: Array, kept: KeptWeights | None = None) -> None:
        """Overwrite `target`."""
        own = workspace.scratch(self.scratch, "strips")
        kernel = depthwise.GROUPS[self.width][self.transposed]
        kernel(w.dtype, self.threads, source, w, 0 if b is None else b, target, self.geometry, self.tables, own)


def _weight_segments(each: Sums) -> list[list[int]]:
    """Return the table of segments of backward-weights, in bytes."""
    (line,), stride = each.cols, each.in_stride[1]
    pixel = each.pixel
    source, step, _, _ = _taps(line)
    inside = [_inside(line, i, stride, each.source.w) for i in range(line.pixels)]
    whole = [len(taps) == len(line.taps) for taps in inside]
    first, past = (whole.index(True), whole.index(True) + sum(whole)) if any(whole) else (0, 0)
    shape = (len(line.taps), stride) if step == 1 else (0, 0)
    kinds = depthwise_weights.tiles(each.width)
    found = [kind for kind, (columns, by, *_) in enumerate(kinds) if (columns, by) == shape]
    runs = [(found[0], range(first, past), 0)] if found and first < past else []
    # What is left: single pixels take taps side by side, longer runs one tap at a time.
    left = [i for i in range(line.pixels) if not (runs and first <= i < past)]
    side_by_side = [kind for kind, (_, by, *_) in enumerate(kinds) if by == 1 and (step == 1 or kind == 0)]
    if runs:
        for i in left:
            tap = inside[i].start
            while tap < inside[i].stop:
                kind = max(kind for kind in side_by_side if kinds[kind][0] <= inside[i].stop - tap)
                runs.append((kind, range(i, i + 1), tap))
                tap += kinds[kind][0]
    else:
        for tap in range(len(line.taps)):
            reached = [i for i in left if tap in inside[i]]
            for _, run in itertools.groupby(enumerate(reached), lambda pair: pair[1] - pair[0]):
                pixels = [i for _, i in run]
                runs.append((0, range(pixels[0], pixels[-1] + 1), tap))
    return [
        [
            1 + kind,
            (run.start * stride + source + tap * step) * pixel,
            run.start * pixel,
            VECTOR_BYTES + tap * each.tap_bytes,
            len(run),
        ]
        for kind, run, tap in runs
    ]


def _weight_cut(each: Sums) -> Pair:
    """Return the chunks of rows and the blocks of vectors of backward-weights, which follow from the shapes alone."""
    blocks = each.vectors if each.transposed else max(1, each.vectors // SHORT_RUN)
    most = max(1, min(each.target.n * each.target.h, -(-UNITS // blocks)))
    return 1 << (most.bit_length() - 1), blocks


def _ones_bytes(each: Sums) -> int:
    return (1 if each.transposed else each.vectors) * VECTOR_BYTES


def plan_weights(p: ConvProblem, n_threads: int) -> tuple[float, PassPlan]:
    """Return the cost in cycles and the plan of backward-weights."""
    each = Sums.forward(p)
    chunks, blocks = _weight_cut(each)
    used = max(1, min(n_threads, chunks * blocks))
    lanes = VECTOR_BYTES // p.itemsize
    plan = PassPlan(
        algorithm="direct",
        tile=f"{p.kernel[1]}x{lanes}",
        images=1,
        rows=each.strip_rows if each.transposed else 1,
        borders=True,
        units=chunks * blocks,
        parts=blocks,
        block_channels=-(-each.vectors // blocks) * lanes,
        chunks=chunks,
        threads=used,
        workspace=chunks * each.vectors * each.packed_vector + used * _Places.of(each, _ones_bytes(each)).size,
        reason=_reason(each),
    )
    return p.flops / (2 * lanes * used), plan


class DepthwiseWeightsCall(NamedTuple):
    """Backward-weights, ready to run."""

    geometry: NDArray[Any]
    tables: Int64
    sums: int  # bytes
    scratch: int  # bytes, all threads
    threads: int
    transposed: bool
    width: int

    @classmethod
    def of(cls, p: ConvProblem, plan: PassPlan, bias: bool) -> DepthwiseWeightsCall:
        """Return the call of a plan."""
        each = Sums.forward(p)
        out, pixel, w_row = p.output, each.pixel, p.kernel[1] * each.tap_bytes
        sums = each.vectors * each.packed_vector
        places = _Places.of(each, _ones_bytes(each))
        segments = _weight_segments(each)
        tables = Tables(0)
        tables.add(np.array(_row_table(each)) * (p.w * pixel, 1, w_row))
        geometry = record(
            depthwise_weights.GEOMETRY,
            {
                "n": p.n, "c": p.c, "h": p.h, "w": p.w, "oh": out.h, "ow": out.w, "area": p.kernel[0] * p.kernel[1],
                "chunks": plan.chunks, "blocks": plan.parts, "width": each.width,
                "segments": len(segments), "segments_at": tables.add(segments),
                "masked": depthwise_weights.masked_from(each.width),
                "row_step": p.dilation[0] * p.w * pixel, "w_row": w_row, "x_pitch": p.stride[1] * pixel,
                "bias": int(bias), "far": int(each.far), "sums_bytes": sums, "ones_bytes": _ones_bytes(each),
                "pixel": pixel, "stride": p.stride[0], "rows": each.strip_rows,
                "x_at": places.source, "dy_at": places.target, "scratch": places.size,
            },
        )  # fmt: skip
        scratch = plan.threads * places.size
        return cls(geometry, tables.array(), plan.chunks * sums, scratch, plan.threads, each.transposed, each.width)

    def run(self, x: Array, dy: Array, dw: Array, db: Array) -> None:
        """Overwrite `dw` and, if the call was made with a bias, `db`."""
        sums, ones = workspace.scratch(self.sums, "sums"), workspace.scratch(self.scratch, "strips")
        kernel = depthwise_weights.GROUPS[self.width][self.transposed]
        kernel(x.dtype, self.threads, x, dy, self.geometry, self.tables, sums, ones)
        alone = self.sums <= ALONE_BYTES
        depthwise_weights.reduce_depthwise(x.dtype, 1 if alone else self.threads, self.geometry, sums, dw, db)
