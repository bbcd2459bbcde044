"""Conv and ConvTranspose."""

from __future__ import annotations

import numpy as np

from .. import shapes
from ..conv import conv2d, conv_transpose2d
from ..kept import KeptWeights
from ..shapes import Pair
from .node import Array, Node
from .operator import Run
from .windows import Window


def _window(node: Node) -> Window:
    """Return the window, and refuse weights whose shape is known and does not fit to it."""
    window, weights = Window.of(node), node.values[1].shape
    if weights is not None and len(weights) != 4:
        node.refuse(f"`{node.inputs[1]}` has {len(weights)} axes, and only the weights of 2-D images, 4, are served")
    if weights is not None and None not in weights:
        window.kernel_of(weights)
    return window


def conv(node: Node) -> Run:
    """Return a convolution; weights that are constants are packed once."""
    window, groups = _window(node), node.attribute("group", 1)
    kept = None if node.constant(1) is None else KeptWeights()

    def run(x: Array, w: Array, b: Array | None = None) -> Array:
        return conv2d(
            x, w, b, stride=window.stride, padding=window.padding(x.shape[2:], window.kernel_of(w.shape)),
            dilation=window.dilation, groups=groups, activation=node.activation, kept=kept,
        )  # fmt: skip

    return run


def conv_transpose(node: Node) -> Run:
    """Return a transposed convolution.

    Along each axis the full result is cut at the near end, and cut at the far end or lengthened, by pixels that hold
    the bias, until it has the size that `pads` and `output_padding`, or `output_shape`, ask for.
    """
    window, groups = _window(node), node.attribute("group", 1)
    extra = node.pair("output_padding", 0)
    wanted = None if node.attribute("output_shape") is None else node.pair("output_shape")

    def cuts(axis: int, size: int, kernel: int) -> Pair:
        full = shapes.conv_transpose_output_size(size, kernel, window.stride[axis], (0, 0), 0, window.dilation[axis])
        longest = full + extra[axis]
        if wanted is None and not window.same:
            near, far = window.pads[axis]
            return near, far - extra[axis]
        length = size * window.stride[axis] if wanted is None else wanted[axis]
        near, _ = window.halves(max(0, longest - length))
        return near, full - near - length

    def run(x: Array, w: Array, b: Array | None = None) -> Array:
        kernel = window.kernel_of(w.shape)
        (top, bottom), (left, right) = (cuts(axis, x.shape[2 + axis], kernel[axis]) for axis in range(2))
        y = conv_transpose2d(
            x, w, b, stride=window.stride, padding=((top, max(bottom, 0)), (left, max(right, 0))),
            dilation=window.dilation, groups=groups,
        )  # fmt: skip
        return _lengthened(y, b, max(-bottom, 0), max(-right, 0))

    return run


def _lengthened(y: Array, b: Array | None, rows: int, columns: int) -> Array:
    """Return y with more rows and columns at the far ends, which hold the bias."""
    if not rows and not columns:
        return y
    n, f, h, w = y.shape
    longer = np.empty((n, f, h + rows, w + columns), y.dtype)
    longer[...] = 0 if b is None else b[:, np.newaxis, np.newaxis]
    longer[:, :, :h, :w] = y
    return longer
