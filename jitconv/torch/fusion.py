"""Convolution with what follows it, ReLU and 2x2 max pooling, as operators of PyTorch: ``torch.ops.jitconv``.

In channels_last the result of the convolution itself is never in memory, and neither is a masked or unpooled gradient.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .. import fused
from ..kept import KeptWeights
from .arrays import array, empty, tensor, weights_array
from .convolution import Conv, activation_format, conv2d_shape, optional, run_conv2d, sides
from .operator import Operator
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
        y, argmax = fused.conv2d_pooled(array(x, True), weights_array(weight), optional(bias), options, kept)
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
    ctx.conv = Conv(x.shape[2:], weight.shape[2:], stride, padding, dilation, groups, last)
    ctx.save_for_backward(x, weight, y, argmax)
    ctx.set_materialize_grads(False)


def _gradients(ctx: Any, dy: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
    gradients: tuple[Tensor | None, ...] = None, None, None
    if dy is not None:
        x, weight, *saved = ctx.saved_tensors
        gradients = ctx.conv.gradients(dy, x, weight, ctx.needs_input_grad, saved)
    return *gradients, None, None, None, None


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
