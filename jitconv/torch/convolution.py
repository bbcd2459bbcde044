"""Convolution as operators of PyTorch: ``torch.ops.jitconv.conv2d``, ``conv_transpose2d`` and ``conv2d_weight``.

Each is the gradient of the others, so that they can be differentiated as often as one likes. `channels_last` is the
memory format of the result and, inside, of all activations; None takes it from the input and the weights, by PyTorch's
rule: channels_last if either of them is. Padding is [top, bottom, left, right].
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .. import conv, fused, pointwise, shapes, workspace
from ..kept import KeptWeights
from .arrays import Array, array, empty, is_channels_last, layout_name, tensor, weights_array, weights_tensor
from .operator import Operator
from .pooling import max_pool2d_backward
from .team import torch_threads

Ints = Sequence[int]


def activation_format(x: Tensor, weight: Tensor, channels_last: bool | None = None) -> bool:
    """Return whether a convolution runs in channels_last."""
    return is_channels_last(x) or is_channels_last(weight) if channels_last is None else channels_last


def sides(padding: Ints) -> shapes.Padding:
    """Return padding as ((top, bottom), (left, right))."""
    return (padding[0], padding[1]), (padding[2], padding[3])


def conv2d_shape(x: Tensor, weight: Tensor, stride: Ints, padding: Ints, dilation: Ints) -> list[Any]:
    """Return the shape of a result, (N, F, OH, OW)."""
    axes = zip(x.shape[2:], weight.shape[2:], stride, sides(padding), dilation, strict=True)
    return [x.shape[0], weight.shape[0], *(shapes.conv_output_size(*axis) for axis in axes)]


def _options(stride: Ints, padding: Ints, dilation: Ints, groups: int, channels_last: bool) -> dict[str, Any]:
    """Return the options as `jitconv` takes them."""
    return {
        "stride": (stride[0], stride[1]),
        "padding": sides(padding),
        "dilation": (dilation[0], dilation[1]),
        "groups": groups,
        "layout": layout_name(channels_last),
    }


def optional(bias: Tensor | None) -> Array | None:
    """Return a bias as an array, if there is one."""
    return None if bias is None else array(bias)


class Conv:
    """The options of a convolution of images (H, W) by weights of one kernel, and the three passes."""

    def __init__(
        self, images: Ints, kernel: Ints, stride: Ints, padding: Ints, dilation: Ints, groups: int, channels_last: bool
    ) -> None:
        self.images, self.kernel = list(images), list(kernel)
        self.stride, self.padding, self.dilation = list(stride), list(padding), list(dilation)
        self.groups, self.channels_last = groups, channels_last

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """Return the convolution."""
        window = self.stride, self.padding, self.dilation, self.groups
        y: Tensor = conv2d(x, weight, bias, *window, self.channels_last)
        return y

    def backward_data(self, dy: Tensor, weight: Tensor) -> Tensor:
        """Return the gradient of the images."""
        # What the last windows leave over at the bottom and the right.
        axes = zip(self.images, self.kernel, self.stride, sides(self.padding), self.dilation, strict=True)
        rest = [(h + sum(ends) - shapes.extent(k, d)) % s for h, k, s, ends, d in axes]
        window = self.stride, self.padding, rest, self.dilation, self.groups
        dx: Tensor = conv_transpose2d(dy, weight, None, *window, self.channels_last)
        return dx

    def backward_weights(self, x: Tensor, dy: Tensor, bias: bool = False) -> tuple[Tensor, Tensor]:
        """Return the gradients of the weights and, if asked for, of the bias (else it is empty)."""
        window = self.kernel, self.stride, self.padding, self.dilation, self.groups
        made: tuple[Tensor, Tensor] = conv2d_weight(x, dy, *window, bias, self.channels_last)
        return made

    def gradients(
        self,
        dy: Tensor,
        x: Tensor,
        weight: Tensor,
        needs: Sequence[bool],
        saved: tuple[Tensor | None, Tensor | None] = (None, None),
    ) -> tuple[Tensor | None, ...]:
        """Return the gradients of images, weights and bias, None where they are not needed.

        `saved` is the result with ReLU, and the argmax of 2x2 pooling behind it, if dy is the gradient of that.
        """
        dx = dw = db = None
        if needs[1] and not torch.is_grad_enabled():
            window = self.stride, self.padding, self.dilation, self.groups, self.channels_last
            dx, dw, db = conv2d_backward(dy, *saved, x, weight, *window, needs[0], needs[2])
            return dx if needs[0] else None, dw, db if needs[2] else None
        dy = self._undone(dy, *saved)
        if needs[0]:
            dx = self.backward_data(dy, weight)
        if needs[1]:
            dw, db = self.backward_weights(x, dy, needs[2])
        elif needs[2]:
            db = dy.sum((0, 2, 3))
        return dx, dw, db if needs[2] else None

    def _undone(self, dy: Tensor, y: Tensor | None, argmax: Tensor | None) -> Tensor:
        """Return the gradient of the convolution itself, in steps that have gradients."""
        if y is not None:
            dy = torch.where(y <= 0, 0, dy)
        if argmax is not None:
            n, f = dy.shape[:2]
            axes = zip(self.images, self.kernel, self.stride, sides(self.padding), self.dilation, strict=True)
            shape = [n, f, *(shapes.conv_output_size(*axis) for axis in axes)]
            dy = max_pool2d_backward(dy, argmax, shape, [2, 2], [2, 2], [0, 0], [1, 1], False, self.channels_last)
        return dy


def _keep(ctx: Any, made: Conv, x: Tensor, weight: Tensor) -> None:
    """Keep what the gradients of images and weights need."""
    ctx.conv = made
    needs = ctx.needs_input_grad
    ctx.save_for_backward(x if needs[1] else None, weight if needs[0] or needs[1] else None)


def run_conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Ints,
    padding: Ints,
    dilation: Ints,
    groups: int,
    channels_last: bool | None = None,
    *,
    relu: bool = False,
    kept: KeptWeights | None = None,
) -> Tensor:
    """Return the convolution, by kernels alone: nothing is recorded for a gradient."""
    last = activation_format(x, weight, channels_last)
    options = _options(stride, padding, dilation, groups, last)
    activation = "relu" if relu else None
    with torch_threads():
        y = conv.conv2d(
            array(x, last), weights_array(weight), optional(bias), activation=activation, kept=kept, **options
        )
    return tensor(y, last)


def _fake_conv2d(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: Ints, padding: Ints, dilation: Ints, groups: int,
    channels_last: bool | None = None,
) -> Tensor:  # fmt: skip
    last = activation_format(x, weight, channels_last)
    return empty(x, conv2d_shape(x, weight, stride, padding, dilation), last)


def _prepare_conv2d(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, weight, _, stride, padding, dilation, groups, channels_last = inputs
    last = activation_format(x, weight, channels_last)
    _keep(ctx, Conv(x.shape[2:], weight.shape[2:], stride, padding, dilation, groups, last), x, weight)


def _conv2d_gradients(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
    gradients = ctx.conv.gradients(dy, *ctx.saved_tensors, ctx.needs_input_grad)
    return *gradients, None, None, None, None, None


conv2d = Operator(
    "conv2d(Tensor x, Tensor weight, Tensor? bias, int[] stride, int[] padding, int[] dilation, int groups, "
    "bool? channels_last=None) -> Tensor",
    run_conv2d,
    fake=_fake_conv2d,
    prepare=_prepare_conv2d,
    gradients=_conv2d_gradients,
)


def _run_backward(
    dy: Tensor, y: Tensor | None, argmax: Tensor | None, x: Tensor, weight: Tensor, stride: Ints, padding: Ints,
    dilation: Ints, groups: int, channels_last: bool, needs_dx: bool, bias: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    images, gradient = array(x, channels_last), array(dy, channels_last)
    saved = None
    if y is not None:
        saved = array(y, channels_last), None if argmax is None else array(argmax, channels_last)
    window = (stride[0], stride[1]), sides(padding), (dilation[0], dilation[1])
    options = fused.Options(*window, groups, "auto")
    takes_tail = channels_last and fused.serves(options, x.shape[1], weight.shape[0], x.element_size())
    with torch_threads():
        if saved is not None and not takes_tail:
            gradient, saved = pointwise.relu_backward(gradient, saved[0]), None
        weights = weights_array(weight)
        dw, db = workspace.result(weights.shape, weights.dtype), np.empty(len(weights) if bias else 0, weights.dtype)
        dx = fused.conv2d_backward(
            gradient, images, weights, dw, db if bias else None, options, layout_name(channels_last), saved=saved,
            needs_dx=needs_dx,
        )  # fmt: skip
        made = weights_tensor(dw, is_channels_last(weight))
    return tensor(np.empty((0, 0, 0, 0), dw.dtype) if dx is None else dx, channels_last), made, tensor(db)


def _fake_backward(
    dy: Tensor, y: Tensor | None, argmax: Tensor | None, x: Tensor, weight: Tensor, stride: Ints, padding: Ints,
    dilation: Ints, groups: int, channels_last: bool, needs_dx: bool, bias: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    dx = empty(x, x.shape if needs_dx else (0, 0, 0, 0), channels_last)
    return dx, empty(weight, weight.shape, is_channels_last(weight)), weight.new_empty(weight.shape[0] if bias else 0)


def _prepare_backward(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    pass


def _no_gradient(ctx: Any, *_: Any) -> Any:
    raise RuntimeError("jitconv::conv2d_backward has no gradient: differentiate jitconv::conv2d with create_graph=True")


# All gradients at once; that of x is empty if it is not needed, and so is that of the bias. With y, the result with
# ReLU, and perhaps argmax, of 2x2 pooling behind it, dy is the gradient of that.
conv2d_backward = Operator(
    "conv2d_backward(Tensor dy, Tensor? y, Tensor? argmax, Tensor x, Tensor weight, int[] stride, int[] padding, "
    "int[] dilation, int groups, bool channels_last, bool needs_dx, bool bias) -> (Tensor, Tensor, Tensor)",
    _run_backward,
    fake=_fake_backward,
    prepare=_prepare_backward,
    gradients=_no_gradient,
)


def _keep_factors(ctx: Any, first: Tensor, second: Tensor) -> None:
    """Keep what the first two gradients need, each of them the other factor."""
    ctx.save_for_backward(first if ctx.needs_input_grad[1] else None, second if ctx.needs_input_grad[0] else None)


def _run_conv_transpose2d(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: Ints, padding: Ints, output_padding: Ints, dilation: Ints,
    groups: int, channels_last: bool | None = None,
) -> Tensor:  # fmt: skip
    last = activation_format(x, weight, channels_last)
    options = _options(stride, padding, dilation, groups, last)
    extra = output_padding[0], output_padding[1]
    with torch_threads():
        y = conv.conv_transpose2d(
            array(x, last), weights_array(weight), optional(bias), output_padding=extra, **options
        )
    return tensor(y, last)


def _fake_conv_transpose2d(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: Ints, padding: Ints, output_padding: Ints, dilation: Ints,
    groups: int, channels_last: bool | None = None,
) -> Tensor:  # fmt: skip
    axes = zip(x.shape[2:], weight.shape[2:], stride, sides(padding), output_padding, dilation, strict=True)
    size = [shapes.conv_transpose_output_size(*axis) for axis in axes]
    return empty(x, (x.shape[0], weight.shape[1] * groups, *size), activation_format(x, weight, channels_last))


def _prepare_conv_transpose2d(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    """Note the convolution whose backward-data this is: output padding is taken off the padding at the far sides."""
    x, weight, _, stride, padding, output_padding, dilation, groups, channels_last = inputs
    top, bottom, left, right = padding
    ctx.cut = [max(0, output_padding[0] - bottom), max(0, output_padding[1] - right)]
    ends = bottom - output_padding[0] + ctx.cut[0], right - output_padding[1] + ctx.cut[1]
    size = [length - cut for length, cut in zip(output.shape[2:], ctx.cut, strict=True)]
    last = activation_format(x, weight, channels_last)
    ctx.conv = Conv(size, weight.shape[2:], stride, (top, ends[0], left, ends[1]), dilation, groups, last)
    _keep_factors(ctx, x, weight)


def _conv_transpose2d_gradients(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
    (x, weight), needs = ctx.saved_tensors, ctx.needs_input_grad
    db = dy.sum((0, 2, 3)) if needs[2] else None
    if any(ctx.cut):  # rows and columns that no tap reaches
        dy = dy[:, :, : dy.shape[2] - ctx.cut[0], : dy.shape[3] - ctx.cut[1]]
    dx = ctx.conv.forward(dy, weight) if needs[0] else None
    dw = ctx.conv.backward_weights(dy, x)[0] if needs[1] else None
    return dx, dw, db, None, None, None, None, None, None


conv_transpose2d = Operator(
    "conv_transpose2d(Tensor x, Tensor weight, Tensor? bias, int[] stride, int[] padding, int[] output_padding, "
    "int[] dilation, int groups, bool? channels_last=None) -> Tensor",
    _run_conv_transpose2d,
    fake=_fake_conv_transpose2d,
    prepare=_prepare_conv_transpose2d,
    gradients=_conv_transpose2d_gradients,
)


def _run_weight(
    x: Tensor, dy: Tensor, kernel: Ints, stride: Ints, padding: Ints, dilation: Ints, groups: int, bias: bool,
    channels_last: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    options = _options(stride, padding, dilation, groups, channels_last)
    images, gradient = array(x, channels_last), array(dy, channels_last)
    # Only the shape of the weights is read.
    weights = np.empty((dy.shape[1], x.shape[1] // groups, *kernel), images.dtype)
    with torch_threads():
        gradients = conv.conv2d_backward(gradient, images, weights, needs=(False, True, bias), **options)
    dw, db = gradients.dw, gradients.db
    assert dw is not None
    return tensor(dw), tensor(np.empty(0, images.dtype) if db is None else db)


def _fake_weight(
    x: Tensor, dy: Tensor, kernel: Ints, stride: Ints, padding: Ints, dilation: Ints, groups: int, bias: bool,
    channels_last: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    dw = empty(x, (dy.shape[1], x.shape[1] // groups, *kernel), False)
    return dw, dw.new_empty(dy.shape[1] if bias else 0)


def _prepare_weight(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, dy, kernel, stride, padding, dilation, groups, ctx.bias, channels_last = inputs
    ctx.conv = Conv(x.shape[2:], kernel, stride, padding, dilation, groups, channels_last)
    _keep_factors(ctx, x, dy)


def _weight_gradients(ctx: Any, ddw: Tensor, ddb: Tensor) -> tuple[Tensor | None, ...]:
    """Return the gradients of dw, which is linear in x and in dy, and of db, the sum of dy."""
    (x, dy), needs = ctx.saved_tensors, ctx.needs_input_grad
    dx = ctx.conv.backward_data(dy, ddw) if needs[0] else None
    ddy = ctx.conv.forward(x, ddw, ddb if ctx.bias else None) if needs[1] else None
    return dx, ddy, None, None, None, None, None, None, None


conv2d_weight = Operator(
    "conv2d_weight(Tensor x, Tensor dy, int[] kernel, int[] stride, int[] padding, int[] dilation, int groups, "
    "bool bias, bool channels_last) -> (Tensor, Tensor)",
    _run_weight,
    fake=_fake_weight,
    prepare=_prepare_weight,
    gradients=_weight_gradients,
)
