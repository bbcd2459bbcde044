"""Convolution with what follows it, ReLU and 2x2 max pooling, as operators of PyTorch: ``torch.ops.jitconv``.

In channels_last the result of the convolution itself is never in memory, and neither is a masked or unpooled gradient.
A gradient that is to be differentiated again is taken in steps, each of which has a gradient.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .. import fused
from ..kept import KeptWeights
from .arrays import array, empty, layout_name, tensor
from .convolution import Conv, activation_format, conv2d_shape, optional, run_conv2d, sides
from .operator import Operator
from .pooling import max_pool2d_backward
from .team import torch_threads

Ints = Sequence[int]


def _options(stride: Ints, padding: Ints, dilation: Ints, groups: int) -> fused.Options:
    return fused.Options((stride[0], stride[1]), sides(padding), (dilation[0], dilation[1]), groups, "auto")


def takes_pooling(x: Tensor, weight: Tensor, groups: int) -> bool:
    """Return whether 2x2 max pooling may go with a convolution: in channels_last, and not for narrow groups."""
    options = _options((1, 1), (0, 0, 0, 0), (1, 1), groups)
    return activation_format(x, weight) and fused.serves(options, x.shape[1], weight.shape[0], x.element_size())


def _run_relu(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: Ints, padding: Ints, dilation: Ints, groups: int
) -> Tensor:
    return run_conv2d(x, weight, bias, stride, padding, dilation, groups, relu=True)


def _fake_relu(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: Ints, padding: Ints, dilation: Ints, groups: int
) -> Tensor:
    return empty(x, conv2d_shape(x, weight, stride, padding, dilation), activation_format(x, weight))


def run_relu_pool(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Ints,
    padding: Ints,
    dilation: Ints,
    groups: int,
    kept: KeptWeights | None = None,
) -> tuple[Tensor, Tensor]:
    """Return the largest of each 2x2 pixels of ReLU of a convolution, and which it is, by kernels alone."""
    options = _options(stride, padding, dilation, groups)
    with torch_threads():
        y, argmax = fused.conv2d_pooled(array(x, True), array(weight), optional(bias), options, kept)
    return tensor(y, True), tensor(argmax, True)


def _fake_relu_pool(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: Ints, padding: Ints, dilation: Ints, groups: int
) -> tuple[Tensor, Tensor]:
    n, f, h, w = conv2d_shape(x, weight, stride, padding, dilation)
    shape = n, f, h // 2, w // 2
    return empty(x, shape, True), empty(x, shape, True, torch.uint8)


def _prepare(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    x, weight, _, stride, padding, dilation, groups = inputs
    y, argmax = output if isinstance(output, tuple) else (output, None)
    last = argmax is not None or activation_format(x, weight)
    ctx.window = stride, padding, dilation, groups
    ctx.conv = Conv(x.shape[2:], weight.shape[2:], stride, padding, dilation, groups, last)
    ctx.shape = conv2d_shape(x, weight, stride, padding, dilation)
    ctx.masks = argmax is not None or takes_pooling(x, weight, groups)
    ctx.save_for_backward(x, weight, y, argmax)
    ctx.set_materialize_grads(False)


def _gradients(ctx: Any, dy: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
    x, weight, y, argmax = ctx.saved_tensors
    needs = ctx.needs_input_grad
    dx = dw = db = None
    if dy is None:
        pass
    elif ctx.masks and needs[1] and not torch.is_grad_enabled():
        dx, dw, db = conv2d_relu_backward(dy, y, argmax, x, weight, *ctx.window, needs[0], needs[2])
    else:
        dy = torch.where(y <= 0, 0, dy)
        if argmax is not None:
            square = [2, 2], [2, 2], [0, 0], [1, 1], False, True
            dy = max_pool2d_backward(dy, argmax, ctx.shape, *square)
        dx, dw, db = ctx.conv.gradients(dy, x, weight, needs)
    return dx if needs[0] else None, dw, db if needs[2] else None, None, None, None, None


conv2d_relu = Operator(
    "conv2d_relu(Tensor x, Tensor weight, Tensor? bias, int[] stride, int[] padding, int[] dilation, int groups) "
    "-> Tensor",
    _run_relu,
    fake=_fake_relu,
    prepare=_prepare,
    gradients=_gradients,
)
conv2d_relu_pool = Operator(
    "conv2d_relu_pool(Tensor x, Tensor weight, Tensor? bias, int[] stride, int[] padding, int[] dilation, int groups) "
    "-> (Tensor, Tensor)",
    run_relu_pool,
    fake=_fake_relu_pool,
    prepare=_prepare,
    gradients=_gradients,
)


def _run_backward(
    dy: Tensor, y: Tensor, argmax: Tensor | None, x: Tensor, weight: Tensor, stride: Ints, padding: Ints,
    dilation: Ints, groups: int, needs_dx: bool, bias: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    images, weights = array(x, True), array(weight)
    dw, db = np.empty_like(weights), np.empty(len(weights) if bias else 0, weights.dtype)
    saved = array(y, True), None if argmax is None else array(argmax, True)
    with torch_threads():
        dx = fused.conv2d_backward(
            array(dy, True), images, weights, dw, db if bias else None, _options(stride, padding, dilation, groups),
            layout_name(True), saved=saved, needs_dx=needs_dx,
        )  # fmt: skip
    return tensor(np.empty((0, 0, 0, 0), dw.dtype) if dx is None else dx, True), tensor(dw), tensor(db)


def _fake_backward(
    dy: Tensor, y: Tensor, argmax: Tensor | None, x: Tensor, weight: Tensor, stride: Ints, padding: Ints,
    dilation: Ints, groups: int, needs_dx: bool, bias: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    dx = empty(x, x.shape if needs_dx else (0, 0, 0, 0), True)
    return dx, empty(weight, weight.shape, False), weight.new_empty(weight.shape[0] if bias else 0)


def _prepare_backward(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    pass


def _refuse(ctx: Any, *_: Any) -> Any:
    raise RuntimeError("jitconv::conv2d_relu_backward has no gradient; `conv2d_relu` takes another way to one")


# The gradients of either in channels_last, for x (empty if it is not needed), weights and bias.
conv2d_relu_backward = Operator(
    "conv2d_relu_backward(Tensor dy, Tensor y, Tensor? argmax, Tensor x, Tensor weight, int[] stride, int[] padding, "
    "int[] dilation, int groups, bool needs_dx, bool bias) -> (Tensor, Tensor, Tensor)",
    _run_backward,
    fake=_fake_backward,
    prepare=_prepare_backward,
    gradients=_refuse,
)
