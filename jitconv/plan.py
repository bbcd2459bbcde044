"""What runs for a convolution, and why: shapes in, a frozen plan out.  Pure Python, nothing is computed.

A pass is cut into strips (rows of one image, or whole images) whose scratch stays in a core's L2, and the strips
into units that the threads share evenly. `PassPlan` names the choice; `geometry.py` turns it into the numbers that a
kernel reads.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from . import shapes
from .kernels.simd import VECTOR_BYTES
from .kernels.tile import MAX_VECTORS, TILE_ROWS
from .shapes import Activation, Padding, Pair

ALGORITHMS = ("auto", "direct", "im2col")

# Bytes of scratch that a strip may fill: half of a 1 MB L2, the smallest of current servers; a panel streams beside.
STRIP_BYTES = 640 * 1024
# Bytes of packed weights in one call of the tile. 150 KB stream from L2 at 97% of peak, smaller blocks add stores.
BLOCK_BYTES = 192 * 1024
# Backward-weights: bytes of sums that stay in L2 while the pixels go by, bytes that the chunks may take together, and
# how many units there should be to share.
UNIT_SUMS_BYTES = 160 * 1024
SUMS_BYTES = 8 * 1024 * 1024
UNITS = 16
# The cost model, in cycles: one vector FMA is 1.
GATHER_BYTES = 12.0  # bytes moved to or from scratch in a cycle
FAR_BYTES = 8.0  # bytes read in a cycle from beyond L2
CALL = 40.0  # one call of the tile
LINE = 10.0  # one more tap in it
UNIT = 2000.0  # one unit


@dataclasses.dataclass(frozen=True)
class ConvProblem:
    """A convolution's sizes and options, checked and in one form.  Bytes follow from `dtype`."""

    n: int
    c: int
    h: int
    w: int
    f: int
    kernel: Pair
    stride: Pair
    padding: Padding
    dilation: Pair
    groups: int
    output_size: Pair
    layout: str
    dtype: str

    @property
    def itemsize(self) -> int:
        """Bytes of one element."""
        return 4 if self.dtype == "float32" else 8

    @property
    def output(self) -> Activation:
        """The sizes of the output."""
        return Activation(self.n, self.f, *self.output_size)

    @property
    def flops(self) -> int:
        """Floating-point operations of one pass: a product and a sum are two."""
        out = self.output
        return 2 * out.n * out.c * out.h * out.w * self.c // self.groups * self.kernel[0] * self.kernel[1]


@dataclasses.dataclass(frozen=True)
class Phase:
    """Target pixels that the same taps reach: `rows` x `cols` of them, a stride apart, from `offset`.

    A tap is (row, column) of the source pixel of the phase's first target pixel, and its place among the packed taps.
    """

    offset: Pair
    rows: int
    cols: int
    taps: tuple[tuple[int, int, int], ...]


@dataclasses.dataclass(frozen=True)
class PassPlan:
    """What one pass does.

    Attributes
    ----------
    algorithm : str
        "direct" or "im2col".
    tile : str
        Rows x lanes of the register tile.
    images, rows : int
        A strip: so many whole images, or so many rows (of each residue of the stride) of one.
    borders : bool
        Whether pixels near the border are computed apart, with the taps that lie inside only.
    units, parts, chunks, threads : int
        Units of work that the threads share; ranges of output channels that are units of their own or, in
        backward-weights, input channels in a block; sums of pixels that are added at the end; threads with work.
    workspace : int
        Bytes of scratch, all threads together, packed weights not counted.
    reason : str
        What decided.
    """

    algorithm: str
    tile: str
    images: int
    rows: int
    borders: bool
    units: int
    parts: int
    chunks: int
    threads: int
    workspace: int
    reason: str

    def __str__(self) -> str:
        strip = f"{self.images} image{'s' * (self.images > 1)}" if self.images > 1 else f"{self.rows} rows"
        return (
            f"{self.algorithm}, tile {self.tile}, strips of {strip}, {self.units} units on {self.threads} threads, "
            f"{self.workspace / 1024:.0f} KiB of scratch; {self.reason}"
        )


@dataclasses.dataclass(frozen=True)
class ConvPlan:
    """What `conv2d` and `conv2d_backward` do for one problem, pass by pass."""

    problem: ConvProblem
    forward: PassPlan
    backward_data: PassPlan
    backward_weights: PassPlan

    @property
    def algorithm(self) -> str:
        """The algorithm of the forward pass."""
        return self.forward.algorithm

    def __str__(self) -> str:
        p = self.problem
        lines = [
            f"conv2d {p.layout} {p.dtype}: ({p.n}, {p.c}, {p.h}, {p.w}) * ({p.f}, {p.c // p.groups}, "
            f"{p.kernel[0]}, {p.kernel[1]}), {p.flops / 1e9:.2f} GFLOP a pass"
        ]
        lines += [f"  {name:17s} {getattr(self, name)}" for name in ("forward", "backward_data", "backward_weights")]
        return "\n".join(lines)


class _Line(NamedTuple):
    """Phases along one axis: `count` target pixels from `offset`, and the (source pixel, tap) that reach the first."""

    offset: int
    count: int
    taps: tuple[Pair, ...]


def _forward_lines(length: int, kernel: int, before: int, dilation: int) -> list[_Line]:
    return [_Line(0, length, tuple((tap * dilation - before, tap) for tap in range(kernel)))]


def _backward_lines(length: int, kernel: int, stride: int, before: int, dilation: int) -> list[_Line]:
    """One line for each residue of the stride: pixel i of x gets dy's pixel (i + before - tap * dilation) / stride."""
    lines = []
    for offset in range(min(stride, length)):
        shifts = [(offset + before - tap * dilation, tap) for tap in range(kernel)]
        taps = sorted((shift // stride, tap) for shift, tap in shifts if shift % stride == 0)
        lines.append(_Line(offset, -((offset - length) // stride), tuple(taps)))
    return lines


def _split(line: _Line, size: int, in_stride: int, out_stride: int) -> list[_Line]:
    """Cut a line where a tap enters or leaves the source, so that each piece has only taps inside it."""
    pieces: list[_Line] = []
    last: tuple[Pair, ...] | None = None
    for i in range(line.count):
        inside = tuple(tap for tap in line.taps if 0 <= i * in_stride + tap[0] < size)
        if pieces and last is not None and [tap for _, tap in inside] == [tap for _, tap in last]:
            pieces[-1] = pieces[-1]._replace(count=pieces[-1].count + 1)
        else:
            moved = tuple((source + i * in_stride, tap) for source, tap in inside)
            pieces.append(_Line(line.offset + i * out_stride, 1, moved))
        last = inside
    return pieces


@dataclasses.dataclass(frozen=True)
class Correlation:
    """Forward or backward-data as one thing: sums of taps from a source image to a target image.

    `order` is the place of each tap of the kernel in the packed weights. `split`: the phases were cut at the
    borders, so that no tap leaves the source and nothing is multiplied by padding; strips are whole images then.
    """

    source: Activation
    target: Activation
    groups: int
    layout: str
    itemsize: int
    in_stride: Pair
    out_stride: Pair
    phases: tuple[Phase, ...]
    order: tuple[int, ...]
    split: bool

    @classmethod
    def forward(cls, p: ConvProblem, split: bool) -> Correlation:
        """Return the forward pass."""
        lines = (
            _forward_lines(p.output.h, p.kernel[0], p.padding[0][0], p.dilation[0]),
            _forward_lines(p.output.w, p.kernel[1], p.padding[1][0], p.dilation[1]),
        )
        return cls._of(p, Activation(p.n, p.c, p.h, p.w), p.output, p.stride, (1, 1), lines, split)

    @classmethod
    def backward_data(cls, p: ConvProblem, split: bool) -> Correlation:
        """Return the gradient of the input, which is also the transposed convolution."""
        lines = (
            _backward_lines(p.h, p.kernel[0], p.stride[0], p.padding[0][0], p.dilation[0]),
            _backward_lines(p.w, p.kernel[1], p.stride[1], p.padding[1][0], p.dilation[1]),
        )
        return cls._of(p, p.output, Activation(p.n, p.c, p.h, p.w), (1, 1), p.stride, lines, split)

    @classmethod
    def _of(
        cls,
        p: ConvProblem,
        source: Activation,
        target: Activation,
        in_stride: Pair,
        out_stride: Pair,
        lines: tuple[list[_Line], list[_Line]],
        split: bool,
    ) -> Correlation:
        phases, order, start = [], {}, 0
        for row in lines[0]:
            for col in lines[1]:
                place = {(i, j): n for n, (i, j) in enumerate(((i, j) for _, i in row.taps for _, j in col.taps), start)}
                order.update({i * p.kernel[1] + j: n for (i, j), n in place.items()})
                start += len(place)
                rows = _split(row, source.h, in_stride[0], out_stride[0]) if split else [row]
                cols = _split(col, source.w, in_stride[1], out_stride[1]) if split else [col]
                for r in rows:
                    for c in cols:
                        taps = tuple((h, w, place[i, j]) for h, i in r.taps for w, j in c.taps)
                        phases.append(Phase((r.offset, c.offset), r.count, c.count, taps))
        sequence = tuple(order[tap] for tap in range(len(order)))
        return cls(
            source, target, p.groups, p.layout, p.itemsize, in_stride, out_stride, tuple(phases), sequence, split
        )

    @property
    def lanes(self) -> int:
        """Lanes of one vector."""
        return VECTOR_BYTES // self.itemsize

    @property
    def rows(self) -> int:
        """Rows of a phase that covers the target."""
        return -(-self.target.h // self.out_stride[0])

    @functools.cached_property
    def origin(self) -> Pair:
        """The first source row and column that a tap reads."""
        taps = [tap for phase in self.phases for tap in phase.taps]
        return min(tap[0] for tap in taps), min(tap[1] for tap in taps)

    @functools.cached_property
    def span(self) -> int:
        """Source rows that a strip reads beyond those of its rows but one."""
        if not self.split:
            return max(row for phase in self.phases for row, _, _ in phase.taps) - self.origin[0] + 1
        step = self.in_stride[0]
        last = max(row + (phase.rows - 1) * step for phase in self.phases for row, _, _ in phase.taps)
        return last - self.origin[0] + 1 - (self.rows - 1) * step

    @functools.cached_property
    def cols(self) -> int:
        """Source columns of a strip, padding included."""
        last = max(col + (phase.cols - 1) * self.in_stride[1] for phase in self.phases for _, col, _ in phase.taps)
        return last - self.origin[1] + 1

    @functools.cached_property
    def source_in_place(self) -> bool:
        """Whether the tile can read the caller's array: pixels are rows of channels and no tap leaves the image."""
        top, left = self.origin
        inside = top >= 0 and top + self.strip_rows(self.rows) <= self.source.h
        inside = inside and left >= 0 and left + self.cols <= self.source.w
        return inside and (self.layout == "NHWC" or self.source.c == 1)

    @property
    def depth(self) -> int:
        """Channels of the source in one group: k of one tap."""
        return self.source.c // self.groups

    @property
    def panel_bytes(self) -> int:
        """Bytes of one panel of packed weights."""
        return len(self.order) * self.depth * self.panels[1] * VECTOR_BYTES

    @property
    def blocked(self) -> bool:
        """Whether a panel is too large for one call of the tile, so that k runs in blocks."""
        return self.panel_bytes > BLOCK_BYTES * 4 // 3

    @property
    def target_in_place(self) -> bool:
        """Whether the tile can write the caller's array: pixels are rows of whole vectors, written once."""
        whole = (self.target.c // self.groups) % self.lanes == 0
        return self.layout == "NHWC" and whole and not self.blocked

    @functools.cached_property
    def merged(self) -> bool:
        """Whether the taps of a kernel row lie side by side, and so make one longer run of k."""
        return self.groups == 1 and all(
            right[1] - left[1] == 1 or right[0] != left[0]
            for phase in self.phases
            for left, right in zip(phase.taps, phase.taps[1:], strict=False)
        )

    @functools.cached_property
    def panels(self) -> tuple[int, int, int]:
        """(panels for each group, vectors in each, vectors in the last)."""
        vectors = -(-self.target.c // self.groups // self.lanes)
        panels = -(-vectors // MAX_VECTORS)
        each = -(-vectors // panels)
        return panels, each, vectors - (panels - 1) * each

    def strip_rows(self, rows: int) -> int:
        """Return the source rows that `rows` target rows of each phase read."""
        return (rows - 1) * self.in_stride[0] + self.span

    def pixels(self, rows: int) -> int:
        """Return the target pixels of `rows` rows of each phase, all phases."""
        return sum(min(rows, phase.rows) * phase.cols for phase in self.phases)

    def source_bytes(self, images: int, rows: int) -> int:
        """Return the bytes of a strip's source pixels."""
        return images * self.strip_rows(rows) * self.cols * self.source.c * self.itemsize

    def unfolded_bytes(self, images: int, rows: int) -> int:
        """Return the bytes of a strip's unfolded rows, one group."""
        k = self.depth * self.itemsize
        return images * sum(min(rows, phase.rows) * phase.cols * len(phase.taps) * k for phase in self.phases)

    def target_bytes(self, images: int, rows: int) -> int:
        """Return the bytes of one panel's target pixels in scratch; the rows of all phases lie together."""
        lines = min(rows * self.out_stride[0], self.target.h)
        return 0 if self.target_in_place else images * lines * self.target.w * self.panels[1] * VECTOR_BYTES


def _strips(images: int, rows: int) -> Iterator[Pair]:
    """Yield the (images, rows) of strips to consider: whole images, then ever fewer rows of one."""
    count = 1
    while count < 2 * images:
        yield min(count, images), rows
        count *= 2
    for pieces in range(2, rows + 1):
        if -(-rows // pieces) != -(-rows // (pieces - 1)):
            yield 1, -(-rows // pieces)


def _correlation_cost(each: Correlation, unfold: bool, images: int, rows: int, parts: int, n_threads: int) -> float:
    """Return the cycles of the thread that has most to do."""
    panels, vectors, last = each.panels
    total_panels = panels * each.groups
    row_strips = -(-each.rows // rows)
    units = -(-each.source.n // images) * row_strips * parts
    mr = TILE_ROWS[vectors - 1]
    k = each.depth
    fma, tiles = 0.0, 0
    for phase in each.phases:
        count = -(-images * min(rows, phase.rows) * phase.cols // mr)
        fma += count * mr * len(phase.taps) * k * ((panels - 1) * vectors + last) * each.groups
        tiles += count * total_panels
    fma, calls = fma / parts, tiles / parts * CALL
    weights = sum(len(phase.taps) for phase in each.phases) * k * total_panels * vectors * VECTOR_BYTES / parts
    source = each.source_bytes(images, rows)
    unfolded = each.unfolded_bytes(images, rows) if unfold else 0
    moved = (0 if each.source_in_place else source) + unfolded * (1 if len(each.phases) == 1 else panels)
    if not each.target_in_place:
        moved += each.target_bytes(images, rows) * total_panels / parts
    resident = source + unfolded + each.target_bytes(images, rows)
    far = weights / FAR_BYTES if weights > STRIP_BYTES else 0.0
    if resident > STRIP_BYTES:
        fma *= 1.0 + 0.3 * min(resident / STRIP_BYTES - 1.0, 1.0)
    return -(-units // n_threads) * (fma + calls + moved / GATHER_BYTES + far + UNIT)


# More phases than this are not worth the look: their pieces are small.
MOST_PHASES = 100


def _plan_correlation(make: Callable[[bool], Correlation], algorithm: str, n_threads: int) -> PassPlan:
    unfold = algorithm == "im2col"
    best: tuple[float, Correlation, int, int, int] | None = None
    for split in (False,) if unfold else (False, True):
        each = make(split)
        if split and len(each.phases) > MOST_PHASES:
            continue
        panels, _, _ = each.panels
        parts_to_try = sorted({min(panels * each.groups, part) for part in (1, 2, n_threads)})
        for images, rows in _strips(each.source.n, each.rows):
            smallest = (images, rows) == (1, 1)
            if split and rows < each.rows:
                continue
            if unfold and not smallest and each.unfolded_bytes(images, rows) > STRIP_BYTES:
                continue
            if images > 1 and each.source_bytes(images, rows) + each.target_bytes(images, rows) > STRIP_BYTES:
                continue
            for parts in parts_to_try:
                cost = _correlation_cost(each, unfold, images, rows, parts, n_threads)
                if best is None or cost < best[0]:
                    best = cost, each, images, rows, parts
    assert best is not None  # strips of one row are always considered
    _, each, images, rows, parts = best
    panels, vectors, _ = each.panels
    units = -(-each.source.n // images) * -(-each.rows // rows) * parts
    used = min(n_threads, units)
    scratch = each.source_bytes(images, rows) * (not each.source_in_place) + each.target_bytes(images, rows)
    scratch += each.unfolded_bytes(images, rows) if unfold else 0
    return PassPlan(
        algorithm="im2col" if unfold else "direct",
        tile=f"{TILE_ROWS[vectors - 1]}x{vectors * each.lanes}",
        images=images,
        rows=rows,
        borders=each.split,
        units=units,
        parts=parts,
        chunks=1,
        threads=used,
        workspace=used * scratch,
        reason=_reason(algorithm, each.source_in_place, each.split),
    )


def _reason(algorithm: str, in_place: bool, split: bool) -> str:
    """Say in words what decided."""
    words = ["im2col was asked for"] if algorithm == "im2col" else []
    words.append("input read in place" if in_place else "input copied a strip at a time")
    if split:
        words.append("borders apart, so that padding costs nothing")
    return ", ".join(words)


@dataclasses.dataclass(frozen=True)
class WeightGradient:
    """Backward-weights: x's pixels under each tap against dy's pixels."""

    problem: ConvProblem

    @property
    def lanes(self) -> int:
        """Lanes of one vector."""
        return VECTOR_BYTES // self.problem.itemsize

    @functools.cached_property
    def panels(self) -> tuple[int, int, int]:
        """(panels for each group, vectors in each, vectors in the last)."""
        vectors = -(-self.problem.f // self.problem.groups // self.lanes)
        panels = -(-vectors // MAX_VECTORS)
        each = -(-vectors // panels)
        return panels, each, vectors - (panels - 1) * each

    @property
    def area(self) -> int:
        """Taps of the kernel."""
        return self.problem.kernel[0] * self.problem.kernel[1]

    @property
    def group_c(self) -> int:
        """Input channels of one group."""
        return self.problem.c // self.problem.groups

    @property
    def bias_bytes(self) -> int:
        """Bytes of the sums of db, lanes of every panel."""
        return self.problem.groups * self.panels[0] * self.panels[1] * VECTOR_BYTES

    def unit_bytes(self, block_c: int) -> int:
        """Return the bytes of the sums of one block of channels and one panel."""
        return self.area * block_c * self.panels[1] * VECTOR_BYTES

    def sums_bytes(self, block_c: int) -> int:
        """Return the bytes of one chunk's sums of dw and db."""
        blocks = -(-self.group_c // block_c)
        return self.problem.groups * blocks * self.panels[0] * self.unit_bytes(block_c) + self.bias_bytes

    @property
    def span(self) -> int:
        """Input rows that one output row reads."""
        return shapes.extent(self.problem.kernel[0], self.problem.dilation[0])

    @property
    def cols(self) -> int:
        """Input columns of a strip, padding included."""
        p = self.problem
        return (p.output.w - 1) * p.stride[1] + shapes.extent(p.kernel[1], p.dilation[1])

    @property
    def x_in_place(self) -> bool:
        """Whether the tile can read the caller's x."""
        p = self.problem
        return p.padding == ((0, 0), (0, 0)) and (p.layout == "NHWC" or p.c == 1)

    @property
    def dy_in_place(self) -> bool:
        """Whether the tile can read the caller's dy: pixels are rows of whole vectors, few enough for the cache."""
        p = self.problem
        return p.layout == "NHWC" and p.f // p.groups % self.lanes == 0 and p.groups == 1 and self.panels[0] == 1

    def x_bytes(self, images: int, rows: int, block_c: int) -> int:
        """Return the bytes of a strip of one block of x's channels."""
        p = self.problem
        return images * ((rows - 1) * p.stride[0] + self.span) * self.cols * block_c * p.itemsize

    def dy_bytes(self, images: int, rows: int) -> int:
        """Return the bytes of one panel of a strip of dy."""
        return images * rows * self.problem.output.w * self.panels[1] * VECTOR_BYTES

    def unfolded_bytes(self, images: int, rows: int, block_c: int) -> int:
        """Return the bytes of a strip's unfolded rows, one block."""
        return images * rows * self.problem.output.w * self.area * block_c * self.problem.itemsize


def _plan_weights(each: WeightGradient, algorithm: str, n_threads: int) -> PassPlan:
    # Strips, chunks and blocks fix the order of summation: they follow from the shapes alone, never the threads.
    p = each.problem
    out = p.output
    unfold = algorithm == "im2col"
    panels, vectors, last = each.panels
    mr = TILE_ROWS[vectors - 1]
    blocks = -(-each.group_c * each.area * vectors * VECTOR_BYTES // UNIT_SUMS_BYTES)
    block_c = -(-each.group_c // min(blocks, each.group_c))
    best: tuple[float, int, int] | None = None
    for images, rows in _strips(p.n, out.h):
        smallest = (images, rows) == (1, 1)
        unfolded = each.unfolded_bytes(images, rows, block_c) if unfold else 0
        if unfolded > STRIP_BYTES and not smallest:
            continue
        tiles = -(-each.area * block_c // mr)
        fma = float(tiles * mr * images * rows * out.w * vectors)
        moved = each.x_bytes(images, rows, block_c) * (not each.x_in_place) + unfolded
        moved += each.dy_bytes(images, rows) * (not each.dy_in_place)
        resident = each.x_bytes(images, rows, block_c) + each.dy_bytes(images, rows) + unfolded
        if resident > STRIP_BYTES:
            fma *= 1.0 + 0.3 * min(resident / STRIP_BYTES - 1.0, 1.0)
        calls = tiles * (CALL + LINE * (1 if unfold else images * rows) + 2 * mr * vectors)
        strips = -(-p.n // images) * -(-out.h // rows)
        cost = strips * (fma + calls + moved / GATHER_BYTES + UNIT)
        if best is None or cost < best[0]:
            best = cost, images, rows
    assert best is not None  # strips of one row are always considered
    _, images, rows = best
    strips = -(-p.n // images) * -(-out.h // rows)
    units = p.groups * -(-each.group_c // block_c) * panels
    # A power of two of chunks, so that they share evenly over the usual numbers of threads.
    most = max(1, min(strips, -(-UNITS // units), SUMS_BYTES // each.sums_bytes(block_c)))
    chunks = 1 << (most.bit_length() - 1)
    if chunks * units < UNITS:
        smaller = min(-(-UNITS // (chunks * units)), max(1, block_c * each.area // (4 * mr)), block_c)
        block_c = -(-block_c // smaller)
        units = p.groups * -(-each.group_c // block_c) * panels
    used = min(n_threads, chunks * units)
    scratch = each.x_bytes(images, rows, block_c) * (not each.x_in_place)
    scratch += each.dy_bytes(images, rows) * (not each.dy_in_place)
    scratch += each.unfolded_bytes(images, rows, block_c) if unfold else 0
    return PassPlan(
        algorithm="im2col" if unfold else "direct",
        tile=f"{mr}x{vectors * each.lanes}",
        images=images,
        rows=rows,
        borders=False,
        units=chunks * units,
        parts=block_c,
        chunks=chunks,
        threads=used,
        workspace=used * scratch + chunks * each.sums_bytes(block_c),
        reason=_reason(algorithm, each.x_in_place, False),
    )


@functools.lru_cache(maxsize=1024)
def plan_forward(problem: ConvProblem, algorithm: str, n_threads: int) -> PassPlan:
    """Return the plan of the forward pass."""
    return _plan_correlation(functools.partial(Correlation.forward, problem), algorithm, n_threads)


@functools.lru_cache(maxsize=1024)
def plan_backward_data(problem: ConvProblem, algorithm: str, n_threads: int) -> PassPlan:
    """Return the plan of the gradient of the input."""
    return _plan_correlation(functools.partial(Correlation.backward_data, problem), algorithm, n_threads)


@functools.lru_cache(maxsize=1024)
def plan_backward_weights(problem: ConvProblem, algorithm: str, n_threads: int) -> PassPlan:
    """Return the plan of the gradient of the weights."""
    return _plan_weights(WeightGradient(problem), algorithm, n_threads)
