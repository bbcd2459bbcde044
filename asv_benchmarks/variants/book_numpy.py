"""Convolution and pooling as books on deep learning do it in NumPy: im2col, dot and col2im."""

from __future__ import annotations

from functools import partial

import numpy as np

from .problems import Array, Call, Conv, Pool, as_tuple, cropped, padded


def im2col(x: Array, kernel: int, stride: int, padding: int, value: float = 0.0) -> Array:
    """Return the windows of x (N, C, H, W) as rows (N * OH * OW, C * KH * KW)."""
    x = padded(x, padding, value)
    n, c, h, w = x.shape
    oh, ow = (h - kernel) // stride + 1, (w - kernel) // stride + 1
    columns = np.empty((n, c, kernel, kernel, oh, ow), x.dtype)
    for p in range(kernel):
        for q in range(kernel):
            columns[:, :, p, q] = x[:, :, p : p + stride * oh : stride, q : q + stride * ow : stride]
    return columns.transpose(0, 4, 5, 1, 2, 3).reshape(n * oh * ow, c * kernel * kernel)


def col2im(rows: Array, shape: tuple[int, ...], kernel: int, stride: int, padding: int) -> Array:
    """Return the sum of rows (N * OH * OW, C * KH * KW) at the pixels of x (N, C, H, W) that they come from."""
    n, c, h, w = shape
    oh, ow = ((size + 2 * padding - kernel) // stride + 1 for size in (h, w))
    columns = rows.reshape(n, oh, ow, c, kernel, kernel).transpose(0, 3, 4, 5, 1, 2)
    x = np.zeros((n, c, h + 2 * padding, w + 2 * padding), rows.dtype)
    for p in range(kernel):
        for q in range(kernel):
            x[:, :, p : p + stride * oh : stride, q : q + stride * ow : stride] += columns[:, :, p, q]
    return cropped(x, padding)


def conv_forward(x: Array, w: Array, b: Array, stride: int, padding: int) -> Array:
    """Return y (N, F, OH, OW)."""
    kernel = w.shape[2]
    oh, ow = ((size + 2 * padding - kernel) // stride + 1 for size in x.shape[2:])
    rows = np.dot(im2col(x, kernel, stride, padding), w.reshape(len(w), -1).T) + b
    return rows.reshape(len(x), oh, ow, -1).transpose(0, 3, 1, 2)


def conv_backward_data(dy: Array, w: Array, shape: tuple[int, ...], stride: int, padding: int) -> Array:
    """Return dx of that shape."""
    rows = dy.transpose(0, 2, 3, 1).reshape(-1, len(w))
    return col2im(np.dot(rows, w.reshape(len(w), -1)), shape, w.shape[2], stride, padding)


def conv_backward_weights(
    dy: Array, x: Array, shape: tuple[int, ...], stride: int, padding: int
) -> tuple[Array, Array]:
    """Return dw of that shape, and db."""
    rows = dy.transpose(0, 2, 3, 1).reshape(-1, shape[0])
    return np.dot(rows.T, im2col(x, shape[2], stride, padding)).reshape(shape), rows.sum(0)


def _pool_rows(x: Array, kernel: int, stride: int, padding: int, value: float) -> Array:
    """Return the windows of x as rows (N * OH * OW * C, KH * KW)."""
    return im2col(x, kernel, stride, padding, value).reshape(-1, kernel * kernel)


def _image(values: Array, x: Array, kernel: int, stride: int, padding: int) -> Array:
    """Return values (N * OH * OW * C,) as (N, C, OH, OW)."""
    n, c, h, w = x.shape
    oh, ow = ((size + 2 * padding - kernel) // stride + 1 for size in (h, w))
    return values.reshape(n, oh, ow, c).transpose(0, 3, 1, 2)


def max_forward(x: Array, kernel: int, stride: int, padding: int) -> tuple[Array, Array]:
    """Return y (N, C, OH, OW), and where in its window each comes from (N * OH * OW * C,)."""
    rows = _pool_rows(x, kernel, stride, padding, -np.inf)
    return _image(rows.max(1), x, kernel, stride, padding), rows.argmax(1)


def max_backward(dy: Array, argmax: Array, shape: tuple[int, ...], kernel: int, stride: int, padding: int) -> Array:
    """Return dx of that shape."""
    flat = dy.transpose(0, 2, 3, 1).ravel()
    rows = np.zeros((flat.size, kernel * kernel), dy.dtype)
    rows[np.arange(flat.size), argmax] = flat
    return col2im(rows, shape, kernel, stride, padding)


def average_forward(x: Array, kernel: int, stride: int, padding: int) -> Array:
    """Return y (N, C, OH, OW); padding counts."""
    return _image(_pool_rows(x, kernel, stride, padding, 0.0).mean(1), x, kernel, stride, padding)


def average_backward(dy: Array, shape: tuple[int, ...], kernel: int, stride: int, padding: int) -> Array:
    """Return dx of that shape."""
    flat = dy.transpose(0, 2, 3, 1).reshape(-1, 1) / np.asarray(kernel * kernel, dy.dtype)
    return col2im(np.repeat(flat, kernel * kernel, 1), shape, kernel, stride, padding)


def global_max_forward(x: Array) -> tuple[Array, Array]:
    """Return y (N, C, 1, 1), and which pixel each comes from (N, C)."""
    rows = x.reshape(*x.shape[:2], -1)
    return rows.max(2)[:, :, None, None], rows.argmax(2)


def global_max_backward(dy: Array, argmax: Array, shape: tuple[int, ...]) -> Array:
    """Return dx of that shape."""
    rows = np.zeros((shape[0] * shape[1], shape[2] * shape[3]), dy.dtype)
    rows[np.arange(len(rows)), argmax.ravel()] = dy.ravel()
    return rows.reshape(shape)


def global_average_backward(dy: Array, shape: tuple[int, ...]) -> Array:
    """Return dx of that shape."""
    return np.broadcast_to(dy / np.asarray(shape[2] * shape[3], dy.dtype), shape).copy()


def convolution(layer: Conv, arrays: dict[str, Array]) -> dict[str, Call]:
    """Return a call of each pass."""
    x, w, b, dy = (arrays[name] for name in ("x", "w", "b", "dy"))
    step = layer.stride, layer.padding
    return {
        "forward": Call(partial(conv_forward, x, w, b, *step), as_tuple),
        "backward_data": Call(partial(conv_backward_data, dy, w, x.shape, *step), as_tuple),
        "backward_weights": Call(partial(conv_backward_weights, dy, x, w.shape, *step), as_tuple),
    }


def pooling(layer: Pool, arrays: dict[str, Array]) -> dict[str, Call]:
    """Return a call of each direction."""
    x, dy = arrays["x"], arrays["dy"]

    def first(result: tuple[Array, Array]) -> tuple[Array, ...]:
        return result[:1]

    if not layer.kernel:
        return {
            "max_forward": Call(partial(global_max_forward, x), first),
            "max_backward": Call(partial(global_max_backward, dy, global_max_forward(x)[1], x.shape), as_tuple),
            "average_forward": Call(partial(np.mean, x, (2, 3), keepdims=True), as_tuple),
            "average_backward": Call(partial(global_average_backward, dy, x.shape), as_tuple),
        }
    window = layer.kernel, layer.stride, layer.padding
    argmax = max_forward(x, *window)[1]
    return {
        "max_forward": Call(partial(max_forward, x, *window), first),
        "max_backward": Call(partial(max_backward, dy, argmax, x.shape, *window), as_tuple),
        "average_forward": Call(partial(average_forward, x, *window), as_tuple),
        "average_backward": Call(partial(average_backward, dy, x.shape, *window), as_tuple),
    }
