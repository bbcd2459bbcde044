"""Pooling in windows as operators of PyTorch, ``torch.ops.jitconv``: maxima and averages, forward and backward.

Windows are [height, width], padding is [vertical, horizontal]. The memory format of a result is that of the images.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .. import pool, shapes
from ..pooling import offset_dtype
from .arrays import argmax_tensor, array, array_shape, empty, is_channels_last, layout_name, tensor
from .operator import Operator
from .team import torch_threads

Ints = Sequence[int]


def _window(kernel: Ints, stride: Ints, padding: Ints, ceil_mode: bool, channels_last: bool) -> dict[str, Any]:
    """Return the options as `jitconv` takes them."""
    return {
        "kernel": (kernel[0], kernel[1]),
        "stride": (stride[0], stride[1]),
        "padding": (padding[0], padding[1]),
        "ceil_mode": ceil_mode,
        "layout": layout_name(channels_last),
    }


def output_size(
    size: Sequence[Any], kernel: Ints, stride: Ints, padding: Ints, dilation: Ints, ceil_mode: bool
) -> list[Any]:
    """Return the rows and columns of a result."""
    axes = zip(size, kernel, stride, padding, dilation, strict=True)
    return [shapes.pool_output_size(length, k, s, (p, p), d, ceil_mode) for length, k, s, p, d in axes]


def run_max_pool2d(x: Tensor, kernel: Ints, stride: Ints, padding: Ints, dilation: Ints, ceil_mode: bool) -> Tensor:
    """Return the largest pixel of each window, by kernels alone."""
    last = is_channels_last(x)
    window = _window(kernel, stride, padding, ceil_mode, last)
    with torch_threads():
        y = pool.max_pool2d(array(x, last), dilation=(dilation[0], dilation[1]), **window)
    return tensor(y, last)


def _run_max(
    x: Tensor, kernel: Ints, stride: Ints, padding: Ints, dilation: Ints, ceil_mode: bool
) -> tuple[Tensor, Tensor]:
    last = is_channels_last(x)
    window = _window(kernel, stride, padding, ceil_mode, last)
    with torch_threads():
        y, argmax = pool.max_pool2d_with_argmax(array(x, last), dilation=(dilation[0], dilation[1]), **window)
    return tensor(y, last), argmax_tensor(argmax, last)


def _fake_max(
    x: Tensor, kernel: Ints, stride: Ints, padding: Ints, dilation: Ints, ceil_mode: bool
) -> tuple[Tensor, Tensor]:
    shape = *x.shape[:2], *output_size(x.shape[2:], kernel, stride, padding, dilation, ceil_mode)
    offsets = torch.uint8 if offset_dtype(kernel[0] * kernel[1]) == np.uint8 else torch.int64
    last = is_channels_last(x)
    return empty(x, shape, last), empty(x, shape, last, offsets)


def _prepare_max(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, *ctx.window = inputs
    ctx.shape, ctx.channels_last = list(x.shape), is_channels_last(x)
    ctx.save_for_backward(output[1])
    ctx.set_materialize_grads(False)


def _max_gradients(ctx: Any, dy: Tensor | None, _: Any) -> tuple[Tensor | None, ...]:
    dx = None
    if dy is not None:
        dx = max_pool2d_backward(dy, *ctx.saved_tensors, ctx.shape, *ctx.window, ctx.channels_last)
    return dx, None, None, None, None, None


# The largest pixel of each window and its offset in the window: bytes, for windows of more than 256 pixels int64.
max_pool2d = Operator(
    "max_pool2d(Tensor x, int[] kernel, int[] stride, int[] padding, int[] dilation, bool ceil_mode) "
    "-> (Tensor, Tensor)",
    _run_max,
    fake=_fake_max,
    prepare=_prepare_max,
    gradients=_max_gradients,
)


def _run_max_backward(
    dy: Tensor, argmax: Tensor, shape: Ints, kernel: Ints, stride: Ints, padding: Ints, dilation: Ints,
    ceil_mode: bool, channels_last: bool,
) -> Tensor:  # fmt: skip
    window = _window(kernel, stride, padding, ceil_mode, channels_last)
    offsets = array(argmax, channels_last).astype(offset_dtype(kernel[0] * kernel[1]), copy=False)
    sizes, spread = array_shape(shape, channels_last), (dilation[0], dilation[1])
    with torch_threads():
        dx = pool.max_pool2d_backward(array(dy, channels_last), offsets, sizes, dilation=spread, **window)
    return tensor(dx, channels_last)


def _fake_max_backward(
    dy: Tensor, argmax: Tensor, shape: Ints, kernel: Ints, stride: Ints, padding: Ints, dilation: Ints,
    ceil_mode: bool, channels_last: bool,
) -> Tensor:  # fmt: skip
    return empty(dy, shape, channels_last)


def flat_indices(argmax: Tensor, size: Ints, kernel: Ints, stride: Ints, padding: Ints, dilation: Ints) -> Tensor:
    """Return PyTorch's indices, h * W + w in int64, from the offsets in the windows.

    A window without any pixel, which may lie outside the image, gets an index inside it.
    """
    offsets = argmax.to(torch.int64)
    rows, columns = (torch.arange(count, dtype=torch.int64) for count in argmax.shape[2:])
    taps = torch.div(offsets, kernel[1], rounding_mode="floor"), offsets % kernel[1]
    h = (rows * stride[0] - padding[0])[:, None] + taps[0] * dilation[0]
    w = columns * stride[1] - padding[1] + taps[1] * dilation[1]
    return h.clamp(0, size[0] - 1) * size[1] + w.clamp(0, size[1] - 1)


def _prepare_max_backward(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, argmax, ctx.shape, *ctx.window, _, _ = inputs
    ctx.save_for_backward(argmax)


def _max_backward_gradients(ctx: Any, ddx: Tensor) -> tuple[Tensor | None, ...]:
    (argmax,) = ctx.saved_tensors
    indices = flat_indices(argmax, ctx.shape[2:], *ctx.window).flatten(2)
    ddy = ddx.flatten(2).gather(2, indices).view(argmax.shape)
    return ddy, None, None, None, None, None, None, None, None


max_pool2d_backward = Operator(
    "max_pool2d_backward(Tensor dy, Tensor argmax, SymInt[] shape, int[] kernel, int[] stride, int[] padding, "
    "int[] dilation, bool ceil_mode, bool channels_last) -> Tensor",
    _run_max_backward,
    fake=_fake_max_backward,
    prepare=_prepare_max_backward,
    gradients=_max_backward_gradients,
)


def _run_average(
    x: Tensor, kernel: Ints, stride: Ints, padding: Ints, ceil_mode: bool, count_include_pad: bool
) -> Tensor:
    last = is_channels_last(x)
    window = _window(kernel, stride, padding, ceil_mode, last)
    with torch_threads():
        y = pool.avg_pool2d(array(x, last), count_include_pad=count_include_pad, **window)
    return tensor(y, last)


def _fake_average(
    x: Tensor, kernel: Ints, stride: Ints, padding: Ints, ceil_mode: bool, count_include_pad: bool
) -> Tensor:
    size = output_size(x.shape[2:], kernel, stride, padding, (1, 1), ceil_mode)
    return empty(x, (*x.shape[:2], *size), is_channels_last(x))


def _prepare_average(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, *ctx.window = inputs
    ctx.shape, ctx.channels_last = list(x.shape), is_channels_last(x)


def _average_gradients(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
    dx = avg_pool2d_backward(dy, ctx.shape, *ctx.window, ctx.channels_last)
    return dx, None, None, None, None, None


avg_pool2d = Operator(
    "avg_pool2d(Tensor x, int[] kernel, int[] stride, int[] padding, bool ceil_mode, bool count_include_pad) -> Tensor",
    _run_average,
    fake=_fake_average,
    prepare=_prepare_average,
    gradients=_average_gradients,
)


def _run_average_backward(
    dy: Tensor, shape: Ints, kernel: Ints, stride: Ints, padding: Ints, ceil_mode: bool, count_include_pad: bool,
    channels_last: bool,
) -> Tensor:  # fmt: skip
    window = _window(kernel, stride, padding, ceil_mode, channels_last)
    sizes = array_shape(shape, channels_last)
    with torch_threads():
        dx = pool.avg_pool2d_backward(array(dy, channels_last), sizes, count_include_pad=count_include_pad, **window)
    return tensor(dx, channels_last)


def _fake_average_backward(
    dy: Tensor, shape: Ints, kernel: Ints, stride: Ints, padding: Ints, ceil_mode: bool, count_include_pad: bool,
    channels_last: bool,
) -> Tensor:  # fmt: skip
    return empty(dy, shape, channels_last)


def _prepare_average_backward(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, _, *ctx.window, _ = inputs


def _average_backward_gradients(ctx: Any, ddx: Tensor) -> tuple[Tensor | None, ...]:
    return avg_pool2d(ddx, *ctx.window), None, None, None, None, None, None, None


avg_pool2d_backward = Operator(
    "avg_pool2d_backward(Tensor dy, SymInt[] shape, int[] kernel, int[] stride, int[] padding, bool ceil_mode, "
    "bool count_include_pad, bool channels_last) -> Tensor",
    _run_average_backward,
    fake=_fake_average_backward,
    prepare=_prepare_average_backward,
    gradients=_average_backward_gradients,
)


def window_counts(x: Tensor, kernel: Ints, stride: Ints, padding: Ints, ceil_mode: bool) -> Tensor:
    """Return how many pixels of the padded image lie in each window: (1, 1) or, in ceil mode, (OH, OW)."""
    if not ceil_mode:
        return torch.full((1, 1), kernel[0] * kernel[1], dtype=x.dtype)
    counts = []
    sizes = output_size(x.shape[2:], kernel, stride, padding, (1, 1), True)
    for length, windows, k, s, p in zip(x.shape[2:], sizes, kernel, stride, padding, strict=True):
        begins = torch.arange(windows, dtype=x.dtype) * s - p
        counts.append((begins + k).clamp(max=length + p) - begins)
    return counts[0][:, None] * counts[1]
