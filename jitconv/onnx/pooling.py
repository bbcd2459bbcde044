"""MaxPool, AveragePool and the global ones."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import pool, shapes, validate
from ..conv import conv2d
from ..shapes import Activation, Padding, Pair
from .node import Array, Node
from .operator import Run
from .windows import Window


class _Pooling:
    """The window of a pooling, and what follows from the size of its images."""

    def __init__(self, node: Node) -> None:
        self._window = Window.of(node)
        self.kernel = node.pair("kernel_shape")
        self.stride, self.dilation = self._window.stride, self._window.dilation
        # VALID means no padding. ONNX's text has a formula that rounds down even then, its inference of shapes has not.
        self.ceil_mode = node.attribute("ceil_mode", 0) == 1

    def padding(self, x: Array) -> Padding:
        h, w = x.shape[2:]
        return self._window.padding((h, w), self.kernel)

    def is_ours(self, padding: Padding) -> bool:
        """Return whether jitconv's poolings take this padding: at most half the kernel on each side."""
        return all(max(ends) <= k // 2 for ends, k in zip(padding, self.kernel, strict=True))

    def output_size(self, x: Array, padding: Padding) -> Pair:
        image = Activation(*x.shape)
        axes = zip((image.h, image.w), self.kernel, self.stride, padding, self.dilation, strict=True)
        h, w = (shapes.pool_output_size(*axis, self.ceil_mode) for axis in axes)
        validate.output_sizes_positive(Activation(image.n, image.c, h, w), image, self.kernel, padding, self.dilation)
        return h, w

    def taps(self, axis: int, windows: int, padding: Padding) -> Array:
        """Return the row, or the column, of each tap of each window: (windows, kernel), outside the image as well."""
        begins = np.arange(windows) * self.stride[axis] - padding[axis][0]
        return begins[:, np.newaxis] + np.arange(self.kernel[axis]) * self.dilation[axis]


def max_pool(node: Node) -> Run:
    """Return a max pooling; its second output is computed if it has a name."""
    pooling = _Pooling(node)
    by_columns = node.attribute("storage_order", 0) == 1
    with_indices = len(node.outputs) > 1 and node.outputs[1] != ""
    options: dict[str, Any] = {"stride": pooling.stride, "dilation": pooling.dilation, "ceil_mode": pooling.ceil_mode}

    def run(x: Array) -> Array | tuple[Array, Array]:
        padding = pooling.padding(x)
        h, w = pooling.output_size(x, padding)
        image, sides = x, padding
        if not pooling.is_ours(padding):
            image, sides = np.pad(x, ((0, 0), (0, 0), *padding), constant_values=-np.inf), ((0, 0), (0, 0))
        if not with_indices:
            return pool.max_pool2d(image, pooling.kernel, padding=sides, **options)[:, :, :h, :w]
        y, argmax = pool.max_pool2d_with_argmax(image, pooling.kernel, padding=sides, **options)
        pixels = _pixels(pooling, argmax[:, :, :h, :w], x.shape, padding, by_columns)
        planes = np.arange(x.shape[0] * x.shape[1]).reshape(*x.shape[:2], 1, 1)
        return y[:, :, :h, :w], np.where(pixels < 0, -1, planes * (x.shape[2] * x.shape[3]) + pixels)

    return run


def _pixels(pooling: _Pooling, argmax: Array, shape: tuple[int, ...], padding: Padding, by_columns: bool) -> Array:
    """Return the indices of pixels in their image from their offsets in their windows.

    Padding that the pooling took for pixels wins over pixels that are all minus infinity: then it is the first pixel,
    as everywhere. A window without any pixel has -1.
    """
    found, valid, first, some = [], [], [], []
    for axis, offsets in enumerate(np.divmod(argmax.astype(np.int64), pooling.kernel[1])):
        windows = argmax.shape[2 + axis]
        along = np.arange(windows).reshape((-1, 1) if axis == 0 else (1, -1))
        taps = pooling.taps(axis, windows, padding)
        inside = (taps >= 0) & (taps < shape[2 + axis])
        found.append(taps[along, offsets])
        valid.append(inside[along, offsets])
        first.append(taps[along, inside.argmax(axis=1)[along]])
        some.append(inside.max(axis=1)[along])
    h, w = (np.where(valid[0] & valid[1], mine, instead) for mine, instead in zip(found, first, strict=True))
    return np.where(some[0] & some[1], h + w * shape[2] if by_columns else h * shape[3] + w, -1)


def average_pool(node: Node) -> Run:
    """Return an average pooling."""
    pooling = _Pooling(node)
    include_padding = node.attribute("count_include_pad", 0) == 1

    def run(x: Array) -> Array:
        padding = pooling.padding(x)
        if pooling.dilation != (1, 1) or not pooling.is_ours(padding):
            return _averages(pooling, x, padding, include_padding)
        return pool.avg_pool2d(
            x, pooling.kernel, stride=pooling.stride, padding=padding, ceil_mode=pooling.ceil_mode,
            count_include_pad=include_padding,
        )  # fmt: skip

    return run


def _averages(pooling: _Pooling, x: Array, padding: Padding, include_padding: bool) -> Array:
    """Return the averages as sums, by a convolution of each channel with ones, over the numbers of pixels."""
    channels = x.shape[1]
    sides, counts = [], []
    for axis, windows in enumerate(pooling.output_size(x, padding)):
        size, (near, far) = x.shape[2 + axis], padding[axis]
        taps = pooling.taps(axis, windows, padding)
        sides.append((near, max(0, int(taps[-1, -1]) + 1 - size)))
        begin, end = (-near, size + far) if include_padding else (0, size)
        counts.append(((taps >= begin) & (taps < end)).sum(axis=1))
    ones = np.ones((channels, 1, *pooling.kernel), x.dtype)
    sums = conv2d(x, ones, stride=pooling.stride, padding=tuple(sides), dilation=pooling.dilation, groups=channels)
    return sums / np.outer(*counts).astype(x.dtype)


def global_average_pool(node: Node) -> Run:
    """Return the average of each channel."""
    return pool.global_avg_pool2d


def global_max_pool(node: Node) -> Run:
    """Return the largest pixel of each channel."""

    def run(x: Array) -> Array:
        return pool.global_max_pool2d(x)[0]

    return run
