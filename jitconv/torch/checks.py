"""Checks of tensors and of PyTorch's arguments; shapes and options are checked by `jitconv` itself."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .. import shapes, validate
from ..shapes import Activation, Pair
from .arrays import DTYPES


def refusal(x: Any, *others: Tensor | None) -> str | None:
    """Return why an operator does not take these tensors, None if it does."""
    for one in (x, *others):
        if one is None:
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


def images(x: Tensor, name: str = "input") -> None:
    """Refuse what is neither a batch of images nor one image."""
    if x.dim() not in (3, 4):
        raise ValueError(f"`{name}` must have the axes (N, C, H, W) or (C, H, W), got the shape {tuple(x.shape)}")


def pair(value: Any, name: str, minimum: int = 1) -> list[int]:
    """Return an int, a pair, or a sequence of one int, as a list of two."""
    if isinstance(value, (tuple, list)) and len(value) == 1:
        value = value[0]
    return list(validate.pair(value, name, minimum))


def conv_padding(value: Any, weight: Tensor, stride: list[int], dilation: list[int]) -> list[int]:
    """Return any form of padding as [top, bottom, left, right]."""
    if isinstance(value, str):
        kernel: Pair = int(weight.shape[2]), int(weight.shape[3])
        sides: shapes.Padding = validate.padding(value, kernel, (stride[0], stride[1]), (dilation[0], dilation[1]))
        return [*sides[0], *sides[1]]
    vertical, horizontal = pair(value, "padding", 0)
    return [vertical, vertical, horizontal, horizontal]


def activation(x: Tensor) -> Activation:
    """Return the sizes of images."""
    return Activation(*x.shape)


def _bias(bias: Tensor | None, outputs: int) -> None:
    if bias is not None and tuple(bias.shape) != (outputs,):
        raise ValueError(f"`bias` must have shape ({outputs},), one for each output channel, got {tuple(bias.shape)}")


def conv_weights(x: Tensor, weight: Tensor, bias: Tensor | None, groups: Any) -> None:
    """Refuse weights and a bias of a convolution that do not fit to the images."""
    f, _ = validate.conv_weights_shape(tuple(weight.shape), "weight", x.shape[1], groups, "input")
    _bias(bias, f)


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
    _bias(bias, shape[1] * groups)


def fits(x: Tensor, weight: Tensor, padding: list[int], dilation: list[int]) -> None:
    """Refuse a kernel that spans more than the padded images."""
    spans = [shapes.extent(k, d) for k, d in zip(weight.shape[2:], dilation, strict=True)]
    padded = x.shape[2] + padding[0] + padding[1], x.shape[3] + padding[2] + padding[3]
    if spans[0] > padded[0] or spans[1] > padded[1]:
        raise ValueError(
            f"`weight` spans {spans[0]}x{spans[1]} pixels (dilation {dilation}), "
            f"more than the padded `input`, {padded[0]}x{padded[1]}"
        )


def pool_padding(padding: list[int], kernel: list[int]) -> list[int]:
    """Return the padding of a pooling, on each side at most half the kernel."""
    if padding[0] > kernel[0] // 2 or padding[1] > kernel[1] // 2:
        raise ValueError(f"`padding` must be at most half of `kernel_size` {tuple(kernel)}, got {tuple(padding)}")
    return padding


def pool_fits(
    x: Tensor, kernel: list[int], stride: list[int], padding: list[int], dilation: list[int], ceil_mode: bool
) -> None:
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
        raise TypeError(f"`divisor_override` must be an integer or None, got {value!r}")
    if value == 0:
        raise ValueError("`divisor_override` must not be zero")


def single_pixel(output_size: Any) -> None:
    """Refuse an adaptive pooling to anything but one pixel."""
    if not is_single_pixel(output_size):
        raise ValueError(f"`output_size` must be 1 or (1, 1), the only one that is served, got {output_size!r}")


def is_single_pixel(output_size: Any) -> bool:
    """Return whether an adaptive pooling is to one pixel."""
    return output_size == 1 or output_size in ((1, 1), [1, 1], (1,), [1])


def module(value: Any) -> None:
    """Refuse what is no module of PyTorch."""
    if not isinstance(value, torch.nn.Module):
        raise TypeError(f"`model` must be a torch.nn.Module, got {type(value).__name__}")
