"""A convolution's passes as sums of taps: what is read, what is written, and which taps reach which pixel.

Forward and backward-data are one thing, a `Correlation`; backward-weights is a `WeightGradient`. Both know their
sizes in bytes; `plan.py` decides how they are cut, `geometry.py` turns that into the numbers that a kernel reads.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from typing import NamedTuple

from . import shapes
from .kernels.simd import ALIGNMENT, VECTOR_BYTES
from .kernels.tail import PLAIN, POOLED
from .kernels.tile import MAX_VECTORS
from .shapes import Activation, Padding, Pair

# Bytes of packed weights in one call of the tile. 150 KB stream from L2 at 97% of peak, smaller blocks add stores.
BLOCK_BYTES = 192 * 1024


@dataclasses.dataclass(frozen=True)
class ConvProblem:
    """A convolution's sizes and options, checked and in one form.  Bytes follow from `dtype`.

    `tail`: what follows in the same pass, one of those of `kernels/tail.py`. POOLED: the result is that of ReLU and
    2x2 max pooling, and dy its gradient; MASKED: dy is that of ReLU.
    """

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
    tail: int = PLAIN

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


def cut_panels(channels: int, lanes: int) -> tuple[int, int, int]:
    """Return how output channels are cut: (panels, vectors in each, vectors in the last)."""
    vectors = -(-channels // lanes)
    panels = -(-vectors // MAX_VECTORS)
    each = -(-vectors // panels)
    return panels, each, vectors - (panels - 1) * each


class Line(NamedTuple):
    """Phases along one axis: so many target pixels from `offset`, and the (source pixel, tap) that reach the first."""

    offset: int
    pixels: int
    taps: tuple[Pair, ...]


def forward_lines(length: int, kernel: int, before: int, dilation: int) -> list[Line]:
    """One line: pixel i of y gets x's pixel i * stride + tap * dilation - before."""
    return [Line(0, length, tuple((tap * dilation - before, tap) for tap in range(kernel)))]


def backward_lines(length: int, kernel: int, stride: int, before: int, dilation: int) -> list[Line]:
    """One line for each residue of the stride: pixel i of x gets dy's pixel (i + before - tap * dilation) / stride."""
    lines = []
    for offset in range(min(stride, length)):
        shifts = [(offset + before - tap * dilation, tap) for tap in range(kernel)]
        taps = sorted((shift // stride, tap) for shift, tap in shifts if shift % stride == 0)
        lines.append(Line(offset, -((offset - length) // stride), tuple(taps)))
    return lines


def _split(line: Line, size: int, in_stride: int, out_stride: int) -> list[Line]:
    """Cut a line where a tap enters or leaves the source, so that each piece has only taps inside it."""
    # Tap t is inside for the pixels i with 0 <= i * in_stride + t < size.
    cuts = {0, line.pixels}
    for source, _ in line.taps:
        cuts |= {i for i in (-(source // in_stride), -((source - size) // in_stride)) if 0 < i < line.pixels}
    pieces: list[Line] = []
    for begin, end in itertools.pairwise(sorted(cuts)):
        at = begin * in_stride
        inside = tuple((source + at, tap) for source, tap in line.taps if 0 <= source + at < size)
        if pieces and [tap for _, tap in inside] == [tap for _, tap in pieces[-1].taps]:
            pieces[-1] = pieces[-1]._replace(pixels=pieces[-1].pixels + end - begin)
        else:
            pieces.append(Line(line.offset + begin * out_stride, end - begin, inside))
    return pieces


@dataclasses.dataclass(frozen=True)
class Correlation:
    """Forward or backward-data as one thing: sums of taps from a source image to a target image.

    `order` is the place of each tap of the kernel in the packed weights. `split`: the phases were cut at the
    borders, so that no tap leaves the source and nothing is multiplied by padding; strips are whole images then.
    `read_as`: how the source is read; `pooled`: only the largest of each 2x2 targets is stored (`kernels/tail.py`).
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
    read_as: int
    pooled: bool

    @classmethod
    def forward(cls, p: ConvProblem, split: bool) -> Correlation:
        """Return the forward pass."""
        lines = (
            forward_lines(p.output.h, p.kernel[0], p.padding[0][0], p.dilation[0]),
            forward_lines(p.output.w, p.kernel[1], p.padding[1][0], p.dilation[1]),
        )
        made = cls._of(p, Activation(p.n, p.c, p.h, p.w), p.output, p.stride, (1, 1), lines, split)
        return dataclasses.replace(made, pooled=p.tail == POOLED)

    @classmethod
    def backward_data(cls, p: ConvProblem, split: bool) -> Correlation:
        """Return the gradient of the input, which is also the transposed convolution."""
        lines = (
            backward_lines(p.h, p.kernel[0], p.stride[0], p.padding[0][0], p.dilation[0]),
            backward_lines(p.w, p.kernel[1], p.stride[1], p.padding[1][0], p.dilation[1]),
        )
        made = cls._of(p, p.output, Activation(p.n, p.c, p.h, p.w), (1, 1), p.stride, lines, split)
        return dataclasses.replace(made, read_as=p.tail)

    @classmethod
    def _of(
        cls,
        p: ConvProblem,
        source: Activation,
        target: Activation,
        in_stride: Pair,
        out_stride: Pair,
        lines: tuple[list[Line], list[Line]],
        split: bool,
    ) -> Correlation:
        phases, order, start = [], {}, 0
        for row in lines[0]:
            for col in lines[1]:
                place = {
                    (i, j): n for n, (i, j) in enumerate(((i, j) for _, i in row.taps for _, j in col.taps), start)
                }
                order.update({i * p.kernel[1] + j: n for (i, j), n in place.items()})
                start += len(place)
                rows = _split(row, source.h, in_stride[0], out_stride[0]) if split else [row]
                cols = _split(col, source.w, in_stride[1], out_stride[1]) if split else [col]
                for r in rows:
                    for c in cols:
                        taps = tuple((h, w, place[i, j]) for h, i in r.taps for w, j in c.taps)
                        phases.append(Phase((r.offset, c.offset), r.pixels, c.pixels, taps))
        # Taps that reach no pixel are packed behind the others.
        unreached = (tap for tap in range(p.kernel[0] * p.kernel[1]) if tap not in order)
        order.update([(tap, place) for place, tap in enumerate(unreached, start)])
        sequence = tuple(order[tap] for tap in range(len(order)))
        return cls(
            source,
            target,
            p.groups,
            p.layout,
            p.itemsize,
            in_stride,
            out_stride,
            tuple(phases),
            sequence,
            split,
            PLAIN,
            False,
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
        taps = [tap for phase in self.phases for tap in phase.taps] or [(0, 0, 0)]
        return min(tap[0] for tap in taps), min(tap[1] for tap in taps)

    @functools.cached_property
    def span(self) -> int:
        """Source rows that a strip reads beyond those of its rows but one."""
        if not self.split:
            return max((row for phase in self.phases for row, _, _ in phase.taps), default=0) - self.origin[0] + 1
        step = self.in_stride[0]
        last = max((row + (phase.rows - 1) * step for phase in self.phases for row, _, _ in phase.taps), default=0)
        return last - self.origin[0] + 1 - (self.rows - 1) * step

    @functools.cached_property
    def cols(self) -> int:
        """Source columns of a strip, padding included."""
        step = self.in_stride[1]
        last = max((col + (phase.cols - 1) * step for phase in self.phases for _, col, _ in phase.taps), default=0)
        return last - self.origin[1] + 1

    @functools.cached_property
    def source_in_place(self) -> bool:
        """Whether the tile can read the caller's array: pixels are rows of channels and no tap leaves the image."""
        if self.read_as != PLAIN:
            return False
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
        """Whether the tile can write the caller's array: pixels are rows of channels, written once."""
        return self.layout == "NHWC" and not self.blocked and not self.pooled

    @functools.cached_property
    def merged(self) -> bool:
        """Whether the taps of a kernel row lie side by side, and so make one longer run of k."""
        return (self.groups == 1 or not self.source_in_place) and all(
            right[1] - left[1] == 1 or right[0] != left[0]
            for phase in self.phases
            for left, right in zip(phase.taps, phase.taps[1:], strict=False)
        )

    @functools.cached_property
    def panels(self) -> tuple[int, int, int]:
        """(panels for each group, vectors in each, vectors in the last)."""
        return cut_panels(self.target.c // self.groups, self.lanes)

    def strip_rows(self, rows: int) -> int:
        """Return the source rows that `rows` target rows of each phase read."""
        return (rows - 1) * self.in_stride[0] + self.span

    def pixels(self, rows: int) -> int:
        """Return the target pixels of `rows` rows of each phase, all phases."""
        return sum(min(rows, phase.rows) * phase.cols for phase in self.phases)

    def source_bytes(self, images: int, rows: int) -> int:
        """Return the bytes of a strip's source pixels, one group."""
        return images * self.strip_rows(rows) * self.cols * self.depth * self.itemsize

    def unfolded_bytes(self, images: int, rows: int) -> int:
        """Return the bytes of a strip's unfolded rows, one group."""
        k = self.depth * self.itemsize
        return images * sum(min(rows, phase.rows) * phase.cols * len(phase.taps) * k for phase in self.phases)

    def target_bytes(self, images: int, rows: int) -> int:
        """Return the bytes of one panel's target pixels in scratch; the rows of all phases lie together."""
        lines = min(rows * self.out_stride[0], self.target.h)
        return 0 if self.target_in_place else images * lines * self.target.w * self.panels[1] * VECTOR_BYTES


@dataclasses.dataclass(frozen=True)
class WeightGradient:
    """Backward-weights: x's pixels under each tap against dy's pixels.

    `unfold`: by im2col. Otherwise x of (n, c, h, w) stays in planes: a tile takes an element of a few channels at a
    time, and runs along pixels, which lie side by side in a plane.
    """

    problem: ConvProblem
    unfold: bool

    @property
    def planes(self) -> bool:
        """Whether x stays in planes."""
        return self.problem.layout == "NCHW" and self.problem.c > 1 and not self.unfold

    @property
    def lanes(self) -> int:
        """Lanes of one vector."""
        return VECTOR_BYTES // self.problem.itemsize

    @functools.cached_property
    def panels(self) -> tuple[int, int, int]:
        """(panels for each group, vectors in each, vectors in the last)."""
        return cut_panels(self.problem.f // self.problem.groups, self.lanes)

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
        """Whether the tile reads the caller's x.

        Not where pixels are far apart: it takes a few channels of each, which for 256 channels of 56x56 pixels runs at
        72 GFLOP/s on one thread in place and at 83 from a copy, made in order.
        """
        p = self.problem
        small = p.c * p.itemsize <= 256 or self.planes
        return p.padding == ((0, 0), (0, 0)) and small and (p.layout == "NHWC" or p.c == 1 or self.planes)

    @property
    def dy_in_place(self) -> bool:
        """Whether the tile reads the caller's dy: few enough channels for the cache.

        The last vector of a pixel may reach into the next pixel, into lanes that nobody looks at; the strip that ends
        the array is copied where that would reach past it.
        """
        p = self.problem
        return p.layout == "NHWC" and p.groups == 1 and self.panels[0] == 1 and p.tail == PLAIN

    def x_bytes(self, images: int, rows: int, block_c: int) -> int:
        """Return the bytes of a strip of one block of x's channels."""
        return images * ((rows - 1) * self.problem.stride[0] + self.span) * self.x_row(block_c)

    def x_row(self, block_c: int) -> int:
        """Return the bytes of a row of a strip of x, one block."""
        row = self.cols * self.problem.itemsize
        return block_c * (-(-row // ALIGNMENT) * ALIGNMENT if self.planes else row)

    def dy_bytes(self, images: int, rows: int) -> int:
        """Return the bytes of one panel of a strip of dy."""
        return images * rows * self.problem.output.w * self.panels[1] * VECTOR_BYTES

    def unfolded_bytes(self, images: int, rows: int, block_c: int) -> int:
        """Return the bytes of a strip's unfolded rows, one block."""
        return images * rows * self.problem.output.w * self.area * block_c * self.problem.itemsize
