"""Pooling and im2col in plain float64 NumPy: every window is gathered from an image padded by hand.

Arrays are (N, C, H, W). Written from the definitions and sharing nothing with the library: sizes come from placing
window after window, divisors from counting pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np


def pair(value):
    """Return an int or a pair as a pair."""
    return tuple(value) if isinstance(value, (tuple, list)) else (value, value)


def sides_of(padding):
    """Return any form of padding as ((top, bottom), (left, right))."""
    vertical, horizontal = pair(padding)
    return pair(vertical), pair(horizontal)


def starts_of(size, kernel, stride, before, after, dilation, ceil_mode):
    """Place windows along one axis, one after the other, and return where each starts in the image."""
    starts, end = [], size + after
    while True:
        start = len(starts) * stride - before
        overhang = start + (kernel - 1) * dilation + 1 - end
        if overhang > 0 and not (ceil_mode and overhang < stride and start < size):
            return starts
        starts.append(start)


@dataclass
class Windows:
    """Where the pixels of every window lie. `rows` (OH, KH) and `columns` (OW, KW) count from the image's corner."""

    shape: tuple
    rows: np.ndarray
    columns: np.ndarray
    sides: tuple

    @classmethod
    def of(cls, shape, kernel, *, stride=None, padding=0, dilation=1, ceil_mode=False):
        kernel, dilation, sides = pair(kernel), pair(dilation), sides_of(padding)
        stride = kernel if stride is None else pair(stride)
        axes = []
        for axis in range(2):
            size, (before, after) = shape[2 + axis], sides[axis]
            starts = starts_of(size, kernel[axis], stride[axis], before, after, dilation[axis], ceil_mode)
            taps = np.arange(kernel[axis]) * dilation[axis]
            axes.append(np.array(starts, int).reshape(-1, 1) + taps)
        return cls(tuple(shape), *axes, sides)

    def _margins(self):
        """Return how far the windows reach out of the image, on all sides and then some."""
        h, w = self.shape[2:]
        rows, columns = self.rows, self.columns
        return (
            (max(0, -rows.min(initial=0)), max(0, rows.max(initial=0) + 1 - h)),
            (max(0, -columns.min(initial=0)), max(0, columns.max(initial=0) + 1 - w)),
        )

    def gather(self, image, fill):
        """Return the windows of an image as (..., OH, OW, KH, KW); `fill` lies outside of it."""
        margins = self._margins()
        padded = np.pad(image, [(0, 0)] * (image.ndim - 2) + list(margins), constant_values=fill)
        rows, columns = self.rows + margins[0][0], self.columns + margins[1][0]
        return padded[..., rows[:, None, :, None], columns[None, :, None, :]]

    def scatter(self, windows):
        """Add windows (N, C, OH, OW, KH, KW) to an image of zeros, and drop what falls outside."""
        margins = self._margins()
        n, c, h, w = self.shape
        padded = np.zeros((n, c, h + sum(margins[0]), w + sum(margins[1])))
        rows, columns = self.rows + margins[0][0], self.columns + margins[1][0]
        np.add.at(padded, (..., rows[:, None, :, None], columns[None, :, None, :]), windows)
        return padded[:, :, margins[0][0] :, margins[1][0] :][:, :, :h, :w]

    def real(self):
        """Return which taps of each window are pixels of the image, (OH, OW, KH, KW)."""
        return self.gather(np.ones(self.shape[2:], bool), False)

    def padded(self):
        """Return which taps of each window are in the image or its padding, (OH, OW, KH, KW)."""
        (top, bottom), (left, right) = self.sides
        rows = (self.rows >= -top) & (self.rows < self.shape[2] + bottom)
        columns = (self.columns >= -left) & (self.columns < self.shape[3] + right)
        return rows[:, None, :, None] & columns[None, :, None, :]


def flat(windows):
    """Merge the last two axes of windows."""
    return windows.reshape(*windows.shape[:-2], windows.shape[-2] * windows.shape[-1])


def max_pool2d(x, kernel, **options):
    """Return the maximum of each window and the offset of the first pixel that has it."""
    windows = Windows.of(x.shape, kernel, **options)
    values, real = flat(windows.gather(x.astype(np.float64), -np.inf)), flat(windows.real())
    y = values.max(-1, initial=-np.inf)
    hits = real & ((values == y[..., None]) | (np.isnan(values) & np.isnan(y)[..., None]))
    return y, hits.argmax(-1)


def max_pool2d_backward(dy, argmax, x_shape, kernel, **options):
    """Return the gradient, given an argmax that points into the image."""
    windows = Windows.of(x_shape, kernel, **options)
    kh, kw = pair(kernel)
    at = np.arange(kh * kw).reshape(kh, kw) == argmax[..., None, None]
    return windows.scatter(np.where(at & windows.real(), dy[..., None, None].astype(np.float64), 0))


def divisors(windows, count_include_pad):
    """Return how many pixels each window of an average counts, (OH, OW)."""
    return (windows.padded() if count_include_pad else windows.real()).sum((-2, -1))


def avg_pool2d(x, kernel, *, count_include_pad=True, **options):
    """Return the average of each window."""
    windows = Windows.of(x.shape, kernel, **options)
    return windows.gather(x.astype(np.float64), 0).sum((-2, -1)) / divisors(windows, count_include_pad)


def avg_pool2d_backward(dy, x_shape, kernel, *, count_include_pad=True, **options):
    """Return the gradient of the average."""
    windows = Windows.of(x_shape, kernel, **options)
    even = dy.astype(np.float64) / divisors(windows, count_include_pad)
    return windows.scatter(np.broadcast_to(even[..., None, None], (*even.shape, *pair(kernel))))


def im2col(x, kernel, **options):
    """Return every window as a row: rows n, oh, ow; columns c, kh, kw."""
    windows = Windows.of(x.shape, kernel, **{"stride": 1, **options})
    values = windows.gather(x.astype(np.float64), 0).transpose(0, 2, 3, 1, 4, 5)
    return values.reshape(math.prod(values.shape[:3]), math.prod(values.shape[3:]))


def col2im(columns, x_shape, kernel, **options):
    """Add every row to its window."""
    windows = Windows.of(x_shape, kernel, **{"stride": 1, **options})
    n, c = x_shape[:2]
    values = columns.astype(np.float64).reshape(n, len(windows.rows), len(windows.columns), c, *pair(kernel))
    return windows.scatter(values.transpose(0, 3, 1, 2, 4, 5))
