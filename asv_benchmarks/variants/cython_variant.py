"""The two Cython variants of the package in cython_variant/: they get arrays with padding and without results."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import numpy as np
from jitconv_cython import loops, naive

from .problems import Array, Call, Conv, Pool, as_tuple, cropped, padded


def _convolution(
    module: ModuleType, threads: tuple[int, ...], layer: Conv, arrays: dict[str, Array]
) -> dict[str, Call]:
    x, w, b, dy = (arrays[name] for name in ("x", "w", "b", "dy"))

    def forward() -> Array:
        y = np.empty(layer.outputs, x.dtype)
        module.conv_forward(padded(x, layer.padding), w, b, layer.stride, y, *threads)
        return y

    def backward_data() -> Array:
        n, c, h, width = x.shape
        dx = np.zeros((n, c, h + 2 * layer.padding, width + 2 * layer.padding), x.dtype)
        module.conv_backward_data(dy, w, layer.stride, dx, *threads)
        return cropped(dx, layer.padding)

    def backward_weights() -> tuple[Array, Array]:
        dw, db = np.zeros_like(w), np.empty_like(b)
        module.conv_backward_weights(dy, padded(x, layer.padding), layer.stride, dw, db, *threads)
        return dw, db

    return {
        "forward": Call(forward, as_tuple),
        "backward_data": Call(backward_data, as_tuple),
        "backward_weights": Call(backward_weights, as_tuple),
    }


def _pooling(module: ModuleType, threads: tuple[int, ...], layer: Pool, arrays: dict[str, Array]) -> dict[str, Call]:
    x, dy = arrays["x"], arrays["dy"]
    kernel, stride, padding = layer.window
    n, c, h, width = x.shape

    def max_forward() -> tuple[Array, Array]:
        y, argmax = np.empty(layer.outputs, x.dtype), np.empty(layer.outputs, np.int32)
        module.max_forward(padded(x, padding, -np.inf), kernel, stride, y, argmax, *threads)
        return y, argmax

    def average_forward() -> Array:
        y = np.empty(layer.outputs, x.dtype)
        module.average_forward(padded(x, padding), kernel, stride, y, *threads)
        return y

    def backward(spread: Callable[..., None], *given: Array) -> Callable[[], Array]:
        def call() -> Array:
            dx = np.zeros((n, c, h + 2 * padding, width + 2 * padding), x.dtype)
            spread(*given, kernel, stride, dx, *threads)
            return cropped(dx, padding)

        return call

    argmax = max_forward()[1]
    return {
        "max_forward": Call(max_forward, lambda result: result[:1]),
        "max_backward": Call(backward(module.max_backward, dy, argmax), as_tuple),
        "average_forward": Call(average_forward, as_tuple),
        "average_backward": Call(backward(module.average_backward, dy), as_tuple),
    }


def convolution(layer: Conv, arrays: dict[str, Array], typed: bool, threads: int) -> dict[str, Call]:
    """Return a call of each pass: typed loops on so many threads, or the naive variant on one."""
    return _convolution(loops if typed else naive, (threads,) if typed else (), layer, arrays)


def pooling(layer: Pool, arrays: dict[str, Array], typed: bool, threads: int) -> dict[str, Call]:
    """Return a call of each direction."""
    return _pooling(loops if typed else naive, (threads,) if typed else (), layer, arrays)
