"""Sliding windows: their sizes, and the arithmetic on them that kernels share."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from .jit import inlined, step

Pair = tuple[int, int]  # (vertical, horizontal)


class Window(NamedTuple):
    """The sizes of a sliding window and of what it slides over, all ints: one compiled type serves.

    The window of output (oh, ow) starts at row `oh * stride_h - top` and column `ow * stride_w - left` of the
    image. Its tap (k, l) lies `k * dilation_h` rows and `l * dilation_w` columns further and has the number
    `k * kw + l`. A tap outside the image lies in the padding.
    """

    h: int
    w: int
    oh: int
    ow: int
    kh: int
    kw: int
    stride_h: int
    stride_w: int
    top: int
    left: int
    dilation_h: int
    dilation_w: int
    padded_h: int  # the row past the padding below the image
    padded_w: int
    include_pad: int  # 1 where an average counts the padding

    @classmethod
    def of(
        cls,
        image: Pair,
        output: Pair,
        kernel: Pair,
        stride: Pair,
        padding: tuple[Pair, Pair],
        dilation: Pair,
        include_pad: bool = True,
    ) -> Window:
        """Return the window over an image of (H, W) that gives an output of (OH, OW)."""
        (top, bottom), (left, right) = padding
        padded = image[0] + bottom, image[1] + right
        return cls(*image, *output, *kernel, *stride, top, left, *dilation, *padded, int(include_pad))

    def tap_offsets(self) -> NDArray[np.int64]:
        """Return how far each tap lies from the first in a plane of the image, (KH, KW)."""
        rows, columns = np.arange(self.kh, dtype=np.int64), np.arange(self.kw, dtype=np.int64)
        return np.add.outer(rows * (self.dilation_h * self.w), columns * self.dilation_w)


class Sizes(Protocol):
    """The sizes of a batch of images."""

    @property
    def n(self) -> int: ...
    @property
    def c(self) -> int: ...
    @property
    def h(self) -> int: ...
    @property
    def w(self) -> int: ...


def by_planes(sizes: Sizes, layout: str) -> bool:
    """Tell whether a channel is a plane in memory: in NHWC too if there is one, and columns run faster."""
    return layout == "NCHW" or sizes.c == 1


def image_counts(sizes: Sizes, layout: str) -> tuple[int, ...]:
    """Return what comes before the window in a kernel's arguments: P by planes, else N and C."""
    return (sizes.n * sizes.c,) if by_planes(sizes, layout) else (sizes.n, sizes.c)


def pixel_counts(sizes: Sizes, layout: str) -> tuple[int, ...]:
    """Return the last arguments of a global pooling's kernel: P and L by planes, else N, L and C."""
    pixels = sizes.h * sizes.w
    return (sizes.n * sizes.c, pixels) if by_planes(sizes, layout) else (sizes.n, pixels, sizes.c)


FIELDS = len(Window._fields)


@inlined
def window_of(a):
    """Return the `Window` whose fields are the first elements of an array."""
    return Window(a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7], a[8], a[9], a[10], a[11], a[12], a[13], a[14])


@inlined
def share(part, parts, total):
    """Return the half-open range of `total` units that one of `parts` equal parts owns."""
    return total * part // parts, total * (part + 1) // parts


@inlined
def taps_inside(start, size, kernel, dilation):
    """Return the half-open range of taps inside an axis of `size`, for a window that starts at `start`."""
    first, past = max(-start, 0), size - start
    if dilation != 1:
        first = (first + dilation - 1) // dilation
        past = (past + dilation - 1) // dilation
    return first, min(kernel, past)


@inlined
def full_windows(size, outputs, kernel, stride, before, dilation):
    """Return the half-open range of the windows along an axis that have all their taps in the image."""
    first = min(outputs, (before + stride - 1) // stride)
    room = size + before - (kernel - 1) * dilation - 1
    past = room // stride + 1 if room >= 0 else 0
    return first, max(first, min(outputs, past))


@inlined
def full_columns(g):
    """Return the half-open range of output columns whose windows have all their columns in the image."""
    return full_windows(g.w, g.ow, g.kw, g.stride_w, g.left, g.dilation_w)


@inlined
def full_rows(g):
    """Return the half-open range of output rows whose windows have all their rows in the image."""
    return full_windows(g.h, g.oh, g.kh, g.stride_h, g.top, g.dilation_h)


@inlined
def outputs_touching(first_row, past_row, g):
    """Return the half-open range of output rows whose windows overlap the rows [first_row, past_row)."""
    reach = first_row + g.top - (g.kh - 1) * g.dilation_h - 1  # windows from here up end above
    first = 0 if reach < 0 else reach // g.stride_h + 1
    past = (past_row + g.top + g.stride_h - 1) // g.stride_h
    return first, min(g.oh, past)


@inlined
def divisor(start, size, kernel, padded_end, include_pad):
    """Return how many pixels a window counts along one axis; PyTorch's rule stops at the padded image."""
    if include_pad != 0:
        return min(start + kernel, padded_end) - start
    return min(start + kernel, size) - max(start, 0)


@inlined
def counted_columns(g):
    """Return the column before which and the one from which on a window's columns are counted; see `divisor`."""
    return (g.padded_w, -g.left) if g.include_pad != 0 else (g.w, 0)


@step
def steps_over(stride, dilation):
    """Return the steps from one window over a pixel to the next: of the tap, downwards, and of the window."""
    a, b = stride, dilation
    while b != 0:
        a, b = b, a % b
    return stride // a, dilation // a


@inlined
def windows_over(position, outputs, kernel, stride, dilation):
    """Return the first window over a position of a padded axis, how many there are, and the tap of the first there."""
    first, count, highest = 0, 0, 0
    for tap in range(kernel - 1, -1, -1):
        start = position - tap * dilation
        if start >= 0 and start % stride == 0 and start // stride < outputs:
            if count == 0:
                first, highest = start // stride, tap
            count += 1
    return first, count, highest


RUN_FIELDS = 5


@step
def runs_over(size, outputs, kernel, stride, before, dilation, runs):
    """List the runs of positions, a stride apart, whose windows differ by one from one to the next; return how many.

    A row of `runs` (size, RUN_FIELDS): the first position, how many, and what `windows_over` says of the first.
    """
    count = 0
    for residue in range(min(stride, size)):
        held = -1
        for position in range(residue, size, stride):
            first, windows, tap = windows_over(position + before, outputs, kernel, stride, dilation)
            if held >= 0 and windows == runs[held, 3] and (tap == runs[held, 4] or windows == 0):
                runs[held, 1] += 1
                continue
            held, count = count, count + 1
            runs[held, 0], runs[held, 1], runs[held, 2], runs[held, 3], runs[held, 4] = position, 1, first, windows, tap
    return count


@inlined
def run_between(run, stride, first, past):
    """Return how many positions of a run lie before `first`, and how many in [first, past)."""
    skipped = min(run[1], max(0, first - run[0] + stride - 1) // stride)
    return skipped, max(0, min(run[1], (max(0, past - run[0]) + stride - 1) // stride) - skipped)


@inlined
def taps_of_residue(residue, g):
    """Return the windows over the columns residue, residue + stride, ... wherever they end: the first over the first
    column, how many there are, and the tap of the first there.
    """
    position = residue + g.left
    for tap in range(g.kw - 1, -1, -1):
        start = position - tap * g.dilation_w
        if start % g.stride_w == 0:
            return start // g.stride_w, tap // steps_over(g.stride_w, g.dilation_w)[0] + 1, tap
    return 0, 0, 0


@inlined
def classes_of_columns(g):
    """Return, at a horizontal stride of 2, which window the tap 0 brings over the first column that it reaches, which
    one the tap 1, and whether the first of these columns is odd.
    """
    return (g.left + 1) // 2, g.left // 2, g.left % 2
