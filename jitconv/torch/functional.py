"""`torch.nn.functional`'s convolution and pooling, computed by jitconv: the same arguments and rules.

Tensors are of float32 or float64 on the CPU, (N, C, H, W) or one image (C, H, W); others raise a TypeError. Their
memory is used where it lies: contiguous tensors run in NCHW, channels_last ones in NHWC, and the result has the memory
format that PyTorch would give it. Inside transforms of `torch.func` and forward-mode gradients PyTorch computes.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

from .. import validate
from ..shapes import Pair
from . import checks, convolution, fusion, global_pooling, pooling
from .arrays import as_format, empty, is_channels_last
from .convolution import activation_format
from .direct import goes_direct, in_transform
from .folding import InUse

IntOrPair = int | tuple[int, int]
Function = TypeVar("Function", bound=Callable[..., Any])


def _or_pytorch(function: Function) -> Function:
    """Leave calls inside transforms of `torch.func` and forward-mode gradients to PyTorch's function of that name."""
    original = getattr(torch.nn.functional, function.__name__)

    @functools.wraps(function)
    def call(*arguments: Any, **options: Any) -> Any:
        return (original if in_transform() else function)(*arguments, **options)

    return cast(Function, call)


def _batched(x: Tensor) -> tuple[Tensor, bool]:
    """Return images with the batch axis, and whether it was missing."""
    checks.images(x.shape)
    return (x, False) if x.dim() == 4 else (x.unsqueeze(0), True)


@_or_pytorch
def conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: IntOrPair = 1,
    padding: str | IntOrPair = 0,
    dilation: IntOrPair = 1,
    groups: int = 1,
) -> Tensor:
    """Convolve images, as `torch.nn.functional.conv2d`.

    Parameters
    ----------
    input : (N, C, H, W) or (C, H, W) tensor
    weight : (F, C / groups, KH, KW) tensor
    bias : (F,) tensor, optional
    stride, dilation : int or pair
    padding : int, pair, "valid" or "same" (stride 1)
    groups : int

    Returns
    -------
    (N, F, OH, OW) or (F, OH, OW) tensor
        channels_last if the input or the weight is.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit.
    """
    checks.tensors(input=input, weight=weight, bias=bias)
    return run_conv2d(input, weight, bias, stride, padding, dilation, groups)


def run_conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: int,
    *,
    use: Callable[[], InUse] | None = None,
    relu: bool = False,
    pools: bool = False,
) -> Tensor:
    """As `conv2d` for tensors that are served, with ReLU and 2x2 max pooling behind it if asked for.

    `use` is for modules that are not trained.
    """
    options = checks.conv_options_of(input, weight, bias, stride, padding, dilation, groups)
    x, single = (input.unsqueeze(0), True) if input.dim() == 3 else (input, False)
    y: Tensor
    if (use is not None or relu) and goes_direct(input, weight, bias):
        last = activation_format(x, weight)
        weights, shift, kept = (weight, bias, None) if use is None else use()
        if pools:
            y, _ = fusion.run_relu_pool(x, weights, shift, *options, kept)
        else:
            y = convolution.run_conv2d(x, weights, shift, *options, last, relu=relu, kept=kept)
    elif pools:
        y, _ = fusion.conv2d_relu_pool(x, weight, bias, *options)
    elif relu:
        y = fusion.conv2d_relu(x, weight, bias, *options)
    else:
        y = convolution.conv2d(x, weight, bias, *options, None)
    return y.squeeze(0) if single else y


@_or_pytorch
def conv_transpose2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: IntOrPair = 1,
    padding: IntOrPair = 0,
    output_padding: IntOrPair = 0,
    groups: int = 1,
    dilation: IntOrPair = 1,
) -> Tensor:
    """Spread each pixel over a window, as `torch.nn.functional.conv_transpose2d`.

    Parameters
    ----------
    input : (N, C, H, W) or (C, H, W) tensor
    weight : (C, F / groups, KH, KW) tensor
    bias : (F,) tensor, optional
    stride, padding, output_padding, dilation : int or pair
    groups : int

    Returns
    -------
    (N, F, OH, OW) or (F, OH, OW) tensor
        channels_last if the input or the weight is.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit.
    """
    checks.tensors(input=input, weight=weight, bias=bias)
    x, single = _batched(input)
    checks.conv_transpose_weights(x, weight, bias, groups)
    strides, dilations = checks.pair(stride, "stride"), checks.pair(dilation, "dilation")
    vertical, horizontal = checks.pair(padding, "padding", 0)
    extra = validate.output_padding(checks.pair(output_padding, "output_padding", 0), strides, dilations)
    options = strides, (vertical, vertical, horizontal, horizontal), extra, dilations, groups
    y: Tensor = convolution.conv_transpose2d(x, weight, bias, *options, None)
    return y.squeeze(0) if single else y


def _images(x: Tensor) -> tuple[Tensor, bool]:
    """Return images for a pooling; PyTorch knows one image without its batch axis as contiguous only."""
    checks.tensors(input=x)
    batch, single = _batched(x)
    return (as_format(batch, False), True) if single else (batch, False)


def _pool_window(kernel: Any, stride: Any, padding: Any) -> tuple[Pair, Pair, Pair]:
    size = checks.pair(kernel, "kernel_size")
    without = stride is None or (isinstance(stride, (tuple, list)) and not stride)
    step = size if without else checks.pair(stride, "stride")
    return size, step, checks.pool_padding(checks.pair(padding, "padding", 0), size)


@_or_pytorch
def max_pool2d(
    input: Tensor,
    kernel_size: IntOrPair,
    stride: IntOrPair | None = None,
    padding: IntOrPair = 0,
    dilation: IntOrPair = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """Return the largest pixel of each window, as `torch.nn.functional.max_pool2d`.

    Parameters
    ----------
    input : (N, C, H, W) or (C, H, W) tensor
    kernel_size, stride, padding, dilation : int or pair
        The stride is the kernel's size if not given.
    ceil_mode : bool
    return_indices : bool
        Return the indices as well, h * W + w in int64: of equal pixels the first, of several NaN the first too,
        where PyTorch takes the last. Without them one byte a window is kept for backward.

    Returns
    -------
    tensor, or (tensor, tensor of int64)
        In the memory format of the input.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit.
    """
    x, single = _images(input)
    kernel, step, sides = _pool_window(kernel_size, stride, padding)
    dilations = checks.pair(dilation, "dilation")
    options = kernel, step, sides, dilations, validate.boolean(ceil_mode, "ceil_mode")
    checks.pool_fits(x, *options)
    if goes_direct(input) and not return_indices:
        y = pooling.run_max_pool2d(x, *options)
        return y.squeeze(0) if single else y
    y, argmax = pooling.max_pool2d(x, *options)
    y = y.squeeze(0) if single else y
    if not return_indices:
        return y
    found = pooling.flat_indices(argmax, x.shape[2:], kernel, step, sides, dilations)
    indices = empty(found, found.shape, is_channels_last(x)).copy_(found)  # 1x1 pixels could be in either format
    return y, indices.squeeze(0) if single else indices


@_or_pytorch
def avg_pool2d(
    input: Tensor,
    kernel_size: IntOrPair,
    stride: IntOrPair | None = None,
    padding: IntOrPair = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """Return the average of each window, as `torch.nn.functional.avg_pool2d`.

    Parameters
    ----------
    input : (N, C, H, W) or (C, H, W) tensor
    kernel_size, stride, padding : int or pair
        The stride is the kernel's size if not given.
    ceil_mode, count_include_pad : bool
    divisor_override : int, optional
        Divides the sum of a window in place of the number of its pixels.

    Returns
    -------
    tensor
        In the memory format of the input.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit.
    """
    x, single = _images(input)
    kernel, step, sides = _pool_window(kernel_size, stride, padding)
    window = kernel, step, sides, validate.boolean(ceil_mode, "ceil_mode")
    checks.pool_fits(x, kernel, step, sides, (1, 1), ceil_mode)
    counted = validate.boolean(count_include_pad, "count_include_pad") or divisor_override is not None
    if divisor_override is not None:
        checks.divisor(divisor_override)
    y: Tensor = pooling.avg_pool2d(x, *window, counted)
    if divisor_override is not None:
        y = y * pooling.window_counts(x, *window).div_(divisor_override)
    return y.squeeze(0) if single else y


@_or_pytorch
def adaptive_avg_pool2d(input: Tensor, output_size: Any) -> Tensor:
    """Return the average of each image, as `torch.nn.functional.adaptive_avg_pool2d` with an output of 1x1.

    Parameters
    ----------
    input : (N, C, H, W) or (C, H, W) tensor
    output_size : 1 or (1, 1)

    Returns
    -------
    (N, C, 1, 1) or (C, 1, 1) tensor

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit; other sizes than 1x1 are not served.
    """
    checks.single_pixel(output_size)
    x, single = _images(input)
    y: Tensor = global_pooling.global_avg_pool2d(x)
    return y.squeeze(0) if single else y


@_or_pytorch
def adaptive_max_pool2d(input: Tensor, output_size: Any, return_indices: bool = False) -> Any:
    """Return the largest pixel of each image, as `torch.nn.functional.adaptive_max_pool2d` with an output of 1x1.

    Parameters
    ----------
    input : (N, C, H, W) or (C, H, W) tensor
    output_size : 1 or (1, 1)
    return_indices : bool
        Return its index h * W + w in int64 as well; ties as in `max_pool2d`.

    Returns
    -------
    (N, C, 1, 1) or (C, 1, 1) tensor, or two

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit; other sizes than 1x1 are not served.
    """
    checks.single_pixel(output_size)
    x, single = _images(input)
    validate.image_with_pixels(checks.activation(x), "input")
    y, indices = global_pooling.global_max_pool2d(x)
    if single:
        y, indices = y.squeeze(0), indices.squeeze(0)
    return (y, indices) if return_indices else y


def global_max_pool2d(input: Tensor, return_indices: bool = False) -> Any:
    """Return the largest pixel of each channel of each image: `adaptive_max_pool2d` with an output of 1x1."""
    return adaptive_max_pool2d(input, 1, return_indices)


__all__ = [
    "adaptive_avg_pool2d",
    "adaptive_max_pool2d",
    "avg_pool2d",
    "conv2d",
    "conv_transpose2d",
    "global_max_pool2d",
    "max_pool2d",
]
