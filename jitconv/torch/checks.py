"""Checks of tensors and of PyTorch's arguments; shapes and options are checked by `jitconv` itself."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.compiler import is_compiling

from .. import shapes, validate
from ..shapes import Activation, Pair
from ..signatures import Seen, signature
from .arrays import DTYPES


def refusal(x: Any, *others: Tensor | None) -> str | None:
    """Return why an operator does not take these tensors, None if it does."""
    for one in (x, *others):
        if one is None or (one.dtype is x.dtype in DTYPES and one.is_cpu and one.layout is torch.strided):
            continue
        if one.device.type != "cpu":
            return f"it is on {one.device}, and only the CPU is served"
        if one.dtype not in DTYPES:
            return f"it has dtype {one.dtype}, and only float32 and float64 are computed"
        if one.layout != torch.strided:
            return f"it is {one.layout}, and only strided tensors are served"
        if one.dtype != x.dtype:
            return f"it has dtype {one.dtype}, but the input has {x.dtype}"
    return None


def tensors(**named: Any) -> None:
    """Refuse what is no tensor of float32 or float64 on the CPU, or tensors of two dtypes; None is let through."""
    first = next(iter(named.values()))
    for name, one in named.items():
        if one is None:
            continue
        if not isinstance(one, Tensor):
            raise TypeError(f"`{name}` must be a torch.Tensor, got {type(one).__name__}")
        problem = refusal(one) or refusal(first, one)
        if problem:
            raise TypeError(f"`{name}` is not served: {problem}")


def images(shape: tuple[int, ...]) -> None:
    """Refuse what is neither a batch of images nor one image."""
    if len(shape) not in (3, 4):
        raise ValueError(f"`input` must have the axes (N, C, H, W) or (C, H, W), got the shape {tuple(shape)}")


def pair(value: Any, name: str, minimum: int = 1) -> Pair:
    """Return an int, a pair, or a sequence of one int, as a pair."""
    if isinstance(value, (tuple, list)) and len(value) == 1:
        value = value[0]
    return validate.pair(value, name, minimum)


def activation(x: Tensor) -> Activation:
    """Return the sizes of images."""
    return Activation(*x.shape)


def _bias(shape: tuple[int, ...] | None, outputs: int) -> None:
    if shape is not None and shape != (outputs,):
        raise ValueError(f"`bias` must have shape ({outputs},), one for each output channel, got {shape}")


def shape_of(x: Tensor | None) -> tuple[int, ...] | None:
    """Return a shape as a plain tuple."""
    return None if x is None else tuple(x.shape)


class ConvOptions(NamedTuple):
    """The options of a convolution as an operator takes them; padding is (top, bottom, left, right)."""

    stride: Pair
    padding: tuple[int, int, int, int]
    dilation: Pair
    groups: int


def conv_options(
    x: tuple[int, ...], weight: tuple[int, ...], bias: tuple[int, ...] | None, stride: Any, padding: Any, dilation: Any,
    groups: Any,
) -> ConvOptions:  # fmt: skip
    """Return the options for tensors of these shapes, or refuse shapes and options that do not fit."""
    images(x)
    image = Activation(1, *x) if len(x) == 3 else Activation(*x)
    f, kernel = validate.conv_weights_shape(weight, "weight", image.c, groups, "input")
    _bias(bias, f)
    strides, dilations = pair(stride, "stride"), pair(dilation, "dilation")
    ends = padding if isinstance(padding, str) else pair(padding, "padding", 0)
    sides = validate.padding(ends, kernel, strides, dilations)
    spans = [shapes.extent(k, d) for k, d in zip(kernel, dilations, strict=True)]
    padded = image.h + sum(sides[0]), image.w + sum(sides[1])
    if spans[0] > padded[0] or spans[1] > padded[1]:
        raise ValueError(
            f"`weight` spans {spans[0]}x{spans[1]} pixels (dilation {dilations}), "
            f"more than the padded `input`, {padded[0]}x{padded[1]}"
        )
    return ConvOptions(strides, (*sides[0], *sides[1]), dilations, int(groups))


_seen: Seen[ConvOptions] = Seen()


def conv_options_of(x: Tensor, weight: Tensor, bias: Tensor | None, *options: Any) -> ConvOptions:
    """As `conv_options`, which takes 20 us, from memory where it can."""
    key = None if is_compiling() else signature((), options)  # tells 1 from 1.0 and True, which are equal
    if key is not None:
        key = key, x.shape, weight.shape, None if bias is None else bias.shape
    found = _seen.get(key)
    if found is None:
        found = conv_options(tuple(x.shape), tuple(weight.shape), shape_of(bias), *options)
        _seen.add(key, found)
    return found


def conv_transpose_weights(x: Tensor, weight: Tensor, bias: Tensor | None, groups: Any) -> None:
    """Refuse weights and a bias of a transposed convolution that do not fit to the images."""
    shape, channels = tuple(weight.shape), x.shape[1]
    groups = validate.integer(groups, "groups", 1)
    if len(shape) != 4:
        raise ValueError(f"`weight` must have the axes (C, F/groups, KH, KW), got {shape}")
    if shape[0] != channels:
        raise ValueError(f"`weight` has {shape[0]} input channels, but `input` has {channels}")
    if channels % groups:
        raise ValueError(f"`groups` must divide the channels of `input`, got {groups} for {channels}")
    if min(shape) < 1:
        raise ValueError(f"`weight` must have at least one channel and one tap, got shape {shape}")
    validate.image_with_pixels(activation(x), "input")
    _bias(shape_of(bias), shape[1] * groups)


def pool_padding(padding: Pair, kernel: Pair) -> Pair:
    """Return the padding of a pooling, on each side at most half the kernel."""
    if padding[0] > kernel[0] // 2 or padding[1] > kernel[1] // 2:
        raise ValueError(f"`padding` must be at most half of `kernel_size` {kernel}, got {padding}")
    return padding


def pool_fits(x: Tensor, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair, ceil_mode: bool) -> None:
    """Refuse images without pixels, and a window that leaves nothing of them."""
    image = activation(x)
    validate.image_with_pixels(image, "input")
    axes = zip((image.h, image.w), kernel, stride, padding, dilation, strict=True)
    size = [shapes.pool_output_size(h, k, s, (p, p), d, ceil_mode) for h, k, s, p, d in axes]
    if min(size) < 1:
        spans = [shapes.extent(k, d) for k, d in zip(kernel, dilation, strict=True)]
        raise ValueError(
            f"`kernel_size` spans {spans[0]}x{spans[1]} pixels (dilation {dilation}), more than the `input` of "
            f"{image.h}x{image.w} with `padding` {padding}"
        )


def divisor(value: Any) -> None:
    """Refuse a divisor that is no integer, or zero."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"`divisor_override` must be an integer or None, got {validate.shown(value)}")
    if value == 0:
        raise ValueError("`divisor_override` must not be zero")


def single_pixel(output_size: Any) -> None:
    """Refuse an adaptive pooling to anything but one pixel."""
    if not is_single_pixel(output_size):
        got = validate.shown(output_size)
        raise ValueError(f"`output_size` must be 1 or (1, 1), the only one that is served, got {got}")


def is_single_pixel(output_size: Any) -> bool:
    """Return whether an adaptive pooling is to one pixel."""
    sizes = output_size if isinstance(output_size, (tuple, list)) else (output_size,)
    return len(sizes) in (1, 2) and all(type(size) is int and size == 1 for size in sizes)


def module(value: Any) -> None:
    """Refuse what is no module of PyTorch."""
    if not isinstance(value, torch.nn.Module):
        raise TypeError(f"`model` must be a torch.nn.Module, got {type(value).__name__}")
