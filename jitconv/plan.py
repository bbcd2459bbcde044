"""What runs for a convolution, and why: shapes in, a frozen plan out.  Pure Python, nothing is computed.

A pass is cut into strips (rows of one image, or whole images) whose scratch stays in a core's L2, and the strips
into units that the threads share evenly. `PassPlan` names the choice; `geometry.py` turns it into the numbers that a
kernel reads.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterator
from typing import Any

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
# Bytes of sums that the chunks of backward-weights may take together, and the most chunks.
SUMS_BYTES = 4 * 1024 * 1024
MAX_CHUNKS = 16
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
    """The target pixels of one residue of the stride: `rows` x `cols` from `offset`, and the taps that reach them.

    A tap is (row, column) of the source pixel of target pixel 0, and its index in the kernel.
    """

    offset: Pair
    rows: int
    cols: int
    taps: tuple[tuple[int, int, int], ...]


@dataclasses.dataclass(frozen=True)
class PassPlan:
    """What one pass does.  `images` or `rows`: of a strip; `workspace`: bytes, all threads together."""

    algorithm: str
    tile: str
    panels: int
    vectors: int
    images: int
    rows: int
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


def forward_phases(p: ConvProblem) -> tuple[Phase, ...]:
    """Return the one phase of the forward pass."""
    (top, _), (left, _) = p.padding
    taps = tuple(
        (i * p.dilation[0] - top, j * p.dilation[1] - left, i * p.kernel[1] + j)
        for i in range(p.kernel[0])
        for j in range(p.kernel[1])
    )
    return (Phase((0, 0), p.output.h, p.output.w, taps),)


def backward_phases(p: ConvProblem) -> tuple[Phase, ...]:
    """Return the stride's phases of backward-data: x's row i gets dy's row (i + top - tap * dilation) / stride."""

    def axis(length: int, kernel: int, stride: int, before: int, dilation: int) -> Iterator[Any]:
        for offset in range(min(stride, length)):
            reached = [
                ((offset + before - tap * dilation) // stride, tap)
                for tap in range(kernel)
                if (offset + before - tap * dilation) % stride == 0
            ]
            yield offset, -((offset - length) // stride), sorted(reached)

    vertical = axis(p.h, p.kernel[0], p.stride[0], p.padding[0][0], p.dilation[0])
    horizontal = list(axis(p.w, p.kernel[1], p.stride[1], p.padding[1][0], p.dilation[1]))
    return tuple(
        Phase(
            (row_offset, col_offset),
            rows,
            cols,
            tuple((row, col, i * p.kernel[1] + j) for row, i in row_taps for col, j in col_taps),
        )
        for row_offset, rows, row_taps in vertical
        for col_offset, cols, col_taps in horizontal
    )


@dataclasses.dataclass(frozen=True)
class Correlation:
    """Forward or backward-data as one thing: sums of taps from a source image to a target image."""

    source: Activation
    target: Activation
    groups: int
    layout: str
    itemsize: int
    in_stride: Pair
    out_stride: Pair
    phases: tuple[Phase, ...]

    @classmethod
    def forward(cls, p: ConvProblem) -> Correlation:
        """Return the forward pass."""
        source = Activation(p.n, p.c, p.h, p.w)
        return cls(source, p.output, p.groups, p.layout, p.itemsize, p.stride, (1, 1), forward_phases(p))

    @classmethod
    def backward_data(cls, p: ConvProblem) -> Correlation:
        """Return the gradient of the input, which is also the transposed convolution."""
        target = Activation(p.n, p.c, p.h, p.w)
        return cls(p.output, target, p.groups, p.layout, p.itemsize, (1, 1), p.stride, backward_phases(p))

    @property
    def lanes(self) -> int:
        """Lanes of one vector."""
        return VECTOR_BYTES // self.itemsize

    @functools.cached_property
    def rows(self) -> int:
        """The rows of the tallest phase."""
        return max(phase.rows for phase in self.phases)

    @functools.cached_property
    def bounds(self) -> tuple[int, int, int, int]:
        """The least and largest row and column of all taps."""
        taps = [tap for phase in self.phases for tap in phase.taps]
        rows, cols = [tap[0] for tap in taps], [tap[1] for tap in taps]
        return min(rows), max(rows), min(cols), max(cols)

    @functools.cached_property
    def cols(self) -> int:
        """Source columns of a strip, padding included."""
        _, _, low, high = self.bounds
        return (max(phase.cols for phase in self.phases) - 1) * self.in_stride[1] + high - low + 1

    @property
    def span(self) -> int:
        """Source rows that one target row reads."""
        return self.bounds[1] - self.bounds[0] + 1

    @functools.cached_property
    def source_in_place(self) -> bool:
        """Whether the tile can read the caller's array: pixels are rows of channels and no tap leaves the image."""
        top, bottom, left, _ = self.bounds
        inside = top >= 0 and (self.rows - 1) * self.in_stride[0] + bottom < self.source.h
        inside = inside and left >= 0 and left + self.cols <= self.source.w
        return inside and (self.layout == "NHWC" or self.source.c == 1)

    @property
    def target_in_place(self) -> bool:
        """Whether the tile can write the caller's array: pixels are rows of whole vectors."""
        return self.layout == "NHWC" and (self.target.c // self.groups) % self.lanes == 0

    @functools.cached_property
    def merged(self) -> bool:
        """Whether the taps of a kernel row lie side by side, and so make one longer run of k."""
        return self.groups == 1 and all(
            right[1] - left[1] in (0, 1) or right[0] != left[0]
            for phase in self.phases
            for left, right in zip(phase.taps, phase.taps[1:], strict=False)
        )

    @functools.cached_property
    def most_taps(self) -> int:
        """The taps of the phase that has most."""
        return max(len(phase.taps) for phase in self.phases)

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
        k = self.source.c // self.groups * self.itemsize
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
    k = each.source.c // each.groups
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


def _plan_correlation(each: Correlation, algorithm: str, n_threads: int) -> PassPlan:
    unfold = algorithm == "im2col"
    panels, vectors, _ = each.panels
    parts_to_try = sorted({min(panels * each.groups, part) for part in (1, 2, n_threads)})
    best: tuple[float, int, int, int] | None = None
    for images, rows in _strips(each.source.n, each.rows):
        smallest = (images, rows) == (1, 1)
        if unfold and not smallest and each.unfolded_bytes(images, rows) > STRIP_BYTES:
            continue
        if images > 1 and each.source_bytes(images, rows) + each.target_bytes(images, rows) > STRIP_BYTES:
            continue
        for parts in parts_to_try:
            cost = _correlation_cost(each, unfold, images, rows, parts, n_threads)
            if best is None or cost < best[0]:
                best = cost, images, rows, parts
    assert best is not None  # strips of one row are always considered
    _, images, rows, parts = best
    units = -(-each.source.n // images) * -(-each.rows // rows) * parts
    used = min(n_threads, units)
    scratch = each.source_bytes(images, rows) * (not each.source_in_place) + each.target_bytes(images, rows)
    scratch += each.unfolded_bytes(images, rows) if unfold else 0
    reason = "asked for" if algorithm != "auto" else "the tile reads each pixel where it lies"
    tile = f"{TILE_ROWS[vectors - 1]}x{vectors * each.lanes}"
    name = "im2col" if unfold else "direct"
    return PassPlan(name, tile, panels, vectors, images, rows, units, parts, 1, used, used * scratch, reason)


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
    def tile_rows(self) -> int:
        """Rows of one group: taps times channels."""
        p = self.problem
        return p.c // p.groups * p.kernel[0] * p.kernel[1]

    @property
    def bias_bytes(self) -> int:
        """Bytes of the sums of db, lanes of every panel."""
        return self.problem.groups * self.panels[0] * self.panels[1] * VECTOR_BYTES

    @property
    def sums_bytes(self) -> int:
        """Bytes of one chunk's sums of dw and db."""
        return (self.tile_rows + 1) * self.bias_bytes

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

    def x_bytes(self, images: int, rows: int) -> int:
        """Return the bytes of a strip of x."""
        p = self.problem
        return images * ((rows - 1) * p.stride[0] + self.span) * self.cols * p.c * p.itemsize

    def dy_bytes(self, images: int, rows: int) -> int:
        """Return the bytes of one panel of a strip of dy."""
        return images * rows * self.problem.output.w * self.panels[1] * VECTOR_BYTES

    def unfolded_bytes(self, images: int, rows: int) -> int:
        """Return the bytes of a strip's unfolded rows, one group."""
        return images * rows * self.problem.output.w * self.tile_rows * self.problem.itemsize


def _plan_weights(each: WeightGradient, algorithm: str, n_threads: int) -> PassPlan:
    p = each.problem
    out = p.output
    unfold = algorithm == "im2col"
    panels, vectors, last = each.panels
    mr = TILE_ROWS[vectors - 1]
    tiles = -(-each.tile_rows // mr)
    # Strips and chunks fix the order of summation, so they follow from the shapes alone; only `parts`, ranges of
    # rows that are units of their own, follows the threads.
    best: tuple[float, int, int] | None = None
    for images, rows in _strips(p.n, out.h):
        smallest = (images, rows) == (1, 1)
        if unfold and not smallest and each.unfolded_bytes(images, rows) > STRIP_BYTES:
            continue
        pixels = images * rows * out.w
        all_vectors = ((panels - 1) * vectors + last) * p.groups
        fma = float(tiles * mr * pixels * all_vectors)
        moved = each.x_bytes(images, rows) * (not each.x_in_place) + 2 * each.sums_bytes
        moved += 0 if each.dy_in_place else each.dy_bytes(images, rows) * panels * p.groups
        moved += each.unfolded_bytes(images, rows) * p.groups if unfold else 0
        resident = each.x_bytes(images, rows) + each.dy_bytes(images, rows)
        resident += each.unfolded_bytes(images, rows) if unfold else 0
        if resident > STRIP_BYTES:
            fma *= 1.0 + 0.3 * min(resident / STRIP_BYTES - 1.0, 1.0)
        lines = 1 if unfold else images * rows
        calls = tiles * panels * p.groups * (CALL + LINE * lines)
        strips = -(-p.n // images) * -(-out.h // rows)
        cost = strips * (fma + calls + moved / GATHER_BYTES + UNIT)
        if best is None or cost < best[0]:
            best = cost, images, rows
    assert best is not None  # strips of one row are always considered
    _, images, rows = best
    strips = -(-p.n // images) * -(-out.h // rows)
    # A power of two of chunks, so that they share evenly over the usual numbers of threads.
    most = max(1, min(strips, MAX_CHUNKS, SUMS_BYTES // max(each.sums_bytes, 1)))
    chunks = 1 << (most.bit_length() - 1)
    parts = min(n_threads // math.gcd(chunks, n_threads), tiles)
    units = chunks * parts
    used = min(n_threads, units)
    scratch = each.x_bytes(images, rows) * (not each.x_in_place) + each.dy_bytes(images, rows) * (not each.dy_in_place)
    scratch += each.unfolded_bytes(images, rows) if unfold else 0
    workspace = used * scratch + chunks * each.sums_bytes
    reason = "asked for" if algorithm != "auto" else "the tile reads each pixel where it lies"
    tile = f"{mr}x{vectors * each.lanes}"
    name = "im2col" if unfold else "direct"
    return PassPlan(name, tile, panels, vectors, images, rows, units, parts, chunks, used, workspace, reason)


@functools.lru_cache(maxsize=1024)
def plan_forward(problem: ConvProblem, algorithm: str, n_threads: int) -> PassPlan:
    """Return the plan of the forward pass."""
    return _plan_correlation(Correlation.forward(problem), algorithm, n_threads)


@functools.lru_cache(maxsize=1024)
def plan_backward_data(problem: ConvProblem, algorithm: str, n_threads: int) -> PassPlan:
    """Return the plan of the gradient of the input."""
    return _plan_correlation(Correlation.backward_data(problem), algorithm, n_threads)


@functools.lru_cache(maxsize=1024)
def plan_backward_weights(problem: ConvProblem, algorithm: str, n_threads: int) -> PassPlan:
    """Return the plan of the gradient of the weights."""
    return _plan_weights(WeightGradient(problem), algorithm, n_threads)
