"""Convolution and pooling as loops in Python, a window at a time: for tiny shapes, and the others' reference."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np

from .problems import Array, Call, Conv, Pool, as_tuple, cropped, padded


def _outputs(shape: tuple[int, ...], kernel: int, stride: int) -> Iterator[tuple[int, int, int, int, slice, slice]]:
    """Yield the indices of each output, and its window's rows and columns."""
    for n, c, i, j in np.ndindex(*shape):
        yield n, c, i, j, slice(i * stride, i * stride + kernel), slice(j * stride, j * stride + kernel)


def conv_forward(layer: Conv, x: Array, w: Array, b: Array) -> Array:
    """Return y."""
    x, y = padded(x, layer.padding), np.empty(layer.outputs, x.dtype)
    for n, f, i, j, rows, columns in _outputs(y.shape, layer.kernel, layer.stride):
        y[n, f, i, j] = np.sum(x[n, :, rows, columns] * w[f]) + b[f]
    return y


def conv_backward_data(layer: Conv, dy: Array, w: Array, shape: tuple[int, ...]) -> Array:
    """Return dx of that shape."""
    dx = padded(np.zeros(shape, dy.dtype), layer.padding)
    for n, f, i, j, rows, columns in _outputs(dy.shape, layer.kernel, layer.stride):
        dx[n, :, rows, columns] += w[f] * dy[n, f, i, j]
    return cropped(dx, layer.padding)


def conv_backward_weights(layer: Conv, dy: Array, x: Array, shape: tuple[int, ...]) -> tuple[Array, Array]:
    """Return dw of that shape, and db."""
    x, dw = padded(x, layer.padding), np.zeros(shape, dy.dtype)
    for n, f, i, j, rows, columns in _outputs(dy.shape, layer.kernel, layer.stride):
        dw[f] += x[n, :, rows, columns] * dy[n, f, i, j]
    return dw, dy.sum((0, 2, 3))


def max_forward(layer: Pool, x: Array) -> Array:
    """Return y."""
    kernel, stride, padding = layer.window
    x, y = padded(x, padding, -np.inf), np.empty(layer.outputs, x.dtype)
    for n, c, i, j, rows, columns in _outputs(y.shape, kernel, stride):
        y[n, c, i, j] = np.max(x[n, c, rows, columns])
    return y


def max_backward(layer: Pool, dy: Array, x: Array) -> Array:
    """Return dx: dy goes to the first of the largest pixels of its window."""
    kernel, stride, padding = layer.window
    x = padded(x, padding, -np.inf)
    dx = np.zeros_like(x)
    for n, c, i, j, rows, columns in _outputs(dy.shape, kernel, stride):
        p, q = np.unravel_index(np.argmax(x[n, c, rows, columns]), (kernel, kernel))
        dx[n, c, i * stride + p, j * stride + q] += dy[n, c, i, j]
    return cropped(dx, padding)


def average_forward(layer: Pool, x: Array) -> Array:
    """Return y; padding counts."""
    kernel, stride, padding = layer.window
    x, y = padded(x, padding), np.empty(layer.outputs, x.dtype)
    for n, c, i, j, rows, columns in _outputs(y.shape, kernel, stride):
        y[n, c, i, j] = np.mean(x[n, c, rows, columns])
    return y


def average_backward(layer: Pool, dy: Array, shape: tuple[int, ...]) -> Array:
    """Return dx of that shape."""
    kernel, stride, padding = layer.window
    dx = padded(np.zeros(shape, dy.dtype), padding)
    for n, c, i, j, rows, columns in _outputs(dy.shape, kernel, stride):
        dx[n, c, rows, columns] += dy[n, c, i, j] / (kernel * kernel)
    return cropped(dx, padding)


def convolution(layer: Conv, arrays: dict[str, Array]) -> dict[str, Call]:
    """Return a call of each pass."""
    x, w, b, dy = (arrays[name] for name in ("x", "w", "b", "dy"))
    return {
        "forward": Call(partial(conv_forward, layer, x, w, b), as_tuple),
        "backward_data": Call(partial(conv_backward_data, layer, dy, w, x.shape), as_tuple),
        "backward_weights": Call(partial(conv_backward_weights, layer, dy, x, w.shape), as_tuple),
    }


def pooling(layer: Pool, arrays: dict[str, Array]) -> dict[str, Call]:
    """Return a call of each direction."""
    x, dy = arrays["x"], arrays["dy"]
    return {
        "max_forward": Call(partial(max_forward, layer, x), as_tuple),
        "max_backward": Call(partial(max_backward, layer, dy, x), as_tuple),
        "average_forward": Call(partial(average_forward, layer, x), as_tuple),
        "average_backward": Call(partial(average_backward, layer, dy, x.shape), as_tuple),
    }
