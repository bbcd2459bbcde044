"""Pooling of whole images as operators of PyTorch, ``torch.ops.jitconv``: the average and the largest pixel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .. import pool
from ..pooling import offset_dtype
from .arrays import array, array_shape, empty, is_channels_last, layout_name, tensor
from .operator import Operator
from .team import torch_threads

Ints = Sequence[int]


def _run_average(x: Tensor) -> Tensor:
    last = is_channels_last(x)
    with torch_threads():
        return tensor(pool.global_avg_pool2d(array(x, last), layout=layout_name(last)), last)


def _fake_average(x: Tensor) -> Tensor:
    return empty(x, (*x.shape[:2], 1, 1), is_channels_last(x))


def _prepare_average(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    (x,) = inputs
    ctx.shape, ctx.channels_last = list(x.shape), is_channels_last(x)


def _average_gradients(ctx: Any, dy: Tensor) -> Any:
    return global_avg_pool2d_backward(dy, ctx.shape, ctx.channels_last)


global_avg_pool2d = Operator(
    "global_avg_pool2d(Tensor x) -> Tensor",
    _run_average,
    fake=_fake_average,
    prepare=_prepare_average,
    gradients=_average_gradients,
)


def _run_average_backward(dy: Tensor, shape: Ints, channels_last: bool) -> Tensor:
    sizes = array_shape(shape, channels_last)
    with torch_threads():
        dx = pool.global_avg_pool2d_backward(array(dy, channels_last), sizes, layout=layout_name(channels_last))
    return tensor(dx, channels_last)


def _fake_average_backward(dy: Tensor, shape: Ints, channels_last: bool) -> Tensor:
    return empty(dy, shape, channels_last)


def _prepare_average_backward(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    pass


def _average_backward_gradients(ctx: Any, ddx: Tensor) -> tuple[Any, None, None]:
    return global_avg_pool2d(ddx), None, None


global_avg_pool2d_backward = Operator(
    "global_avg_pool2d_backward(Tensor dy, SymInt[] shape, bool channels_last) -> Tensor",
    _run_average_backward,
    fake=_fake_average_backward,
    prepare=_prepare_average_backward,
    gradients=_average_backward_gradients,
)


def _run_max(x: Tensor) -> tuple[Tensor, Tensor]:
    last = is_channels_last(x)
    with torch_threads():
        y, argmax = pool.global_max_pool2d(array(x, last), layout=layout_name(last))
    return tensor(y, last), tensor(argmax.astype(np.int64), last)


def _fake_max(x: Tensor) -> tuple[Tensor, Tensor]:
    shape, last = (*x.shape[:2], 1, 1), is_channels_last(x)
    return empty(x, shape, last), empty(x, shape, last, torch.int64)


def _prepare_max(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    (x,) = inputs
    ctx.shape, ctx.channels_last = list(x.shape), is_channels_last(x)
    ctx.save_for_backward(output[1])
    ctx.set_materialize_grads(False)


def _max_gradients(ctx: Any, dy: Tensor | None, _: Any) -> Any:
    if dy is None:
        return None
    return global_max_pool2d_backward(dy, *ctx.saved_tensors, ctx.shape, ctx.channels_last)


# The largest pixel of each channel of each image, (N, C, 1, 1), and its index h * W + w in int64.
global_max_pool2d = Operator(
    "global_max_pool2d(Tensor x) -> (Tensor, Tensor)",
    _run_max,
    fake=_fake_max,
    prepare=_prepare_max,
    gradients=_max_gradients,
)


def _run_max_backward(dy: Tensor, indices: Tensor, shape: Ints, channels_last: bool) -> Tensor:
    sizes, layout = array_shape(shape, channels_last), layout_name(channels_last)
    argmax = array(indices, channels_last).astype(offset_dtype(shape[2] * shape[3]), copy=False)
    with torch_threads():
        dx = pool.global_max_pool2d_backward(array(dy, channels_last), argmax, sizes, layout=layout)
    return tensor(dx, channels_last)


def _fake_max_backward(dy: Tensor, indices: Tensor, shape: Ints, channels_last: bool) -> Tensor:
    return empty(dy, shape, channels_last)


def _prepare_max_backward(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(inputs[1])


def _max_backward_gradients(ctx: Any, ddx: Tensor) -> tuple[Tensor, None, None, None]:
    (indices,) = ctx.saved_tensors
    return ddx.flatten(2).gather(2, indices.flatten(2)).view(indices.shape), None, None, None


global_max_pool2d_backward = Operator(
    "global_max_pool2d_backward(Tensor dy, Tensor indices, SymInt[] shape, bool channels_last) -> Tensor",
    _run_max_backward,
    fake=_fake_max_backward,
    prepare=_prepare_max_backward,
    gradients=_max_backward_gradients,
)
