"""Tensors as NumPy arrays and back, without a copy; memory formats; what is served."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..relayout import relayout

Array = NDArray[Any]

DTYPES = (torch.float32, torch.float64)


def is_channels_last(x: Tensor) -> bool:
    """Return whether PyTorch takes a tensor for channels_last: whether its strides say so.

    This is `Tensor.suggest_memory_format` of PyTorch's C++. A tensor that could be either, one image of 1x1 pixels or
    images of one channel, is contiguous unless its strides are exactly those of channels_last.
    """
    if x.dim() != 4:
        return False
    sizes, strides = x.shape, x.stride()
    if strides[1] == 0:
        return False
    least = 0
    for axis in (1, 3, 2, 0):
        if sizes[axis] == 0 or strides[axis] < least or (axis == 0 and least == strides[1]):
            return False
        least = strides[axis] * max(1, sizes[axis])
    return True


def array(x: Tensor, channels_last: bool = False) -> Array:
    """Return a tensor as an array, (N, C, H, W) or, if asked for, (N, H, W, C); a copy only if it lies otherwise."""
    x = x.detach().resolve_neg()
    if channels_last:
        x = x.permute(0, 2, 3, 1)
    made: Array = x.contiguous().numpy()
    return made


def weights_array(weight: Tensor) -> Array:
    """Return weights in C order; those in channels_last are copied, on the threads of `torch_threads`."""
    return relayout(array(weight, True), "NCHW") if is_channels_last(weight) else array(weight)


def weights_tensor(a: Array, channels_last: bool) -> Tensor:
    """Return the gradient of weights in the memory format of the weights, as PyTorch keeps it: else it is copied."""
    return tensor(relayout(a, "NHWC"), True) if channels_last else tensor(a)


def tensor(a: Array, channels_last: bool = False) -> Tensor:
    """Return an array, (N, C, H, W) or (N, H, W, C), as the tensor (N, C, H, W) on the same memory."""
    return torch.from_numpy(a.transpose(0, 3, 1, 2) if channels_last else a)


def empty(like: Tensor, shape: Sequence[Any], channels_last: bool, dtype: Any = None) -> Tensor:
    """Return a tensor without values, as `tensor` would make it."""
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    return torch.empty(shape, dtype=dtype or like.dtype, device=like.device, memory_format=memory_format)


def layout_name(channels_last: bool) -> str:
    """Return what `jitconv` calls a memory format."""
    return "NHWC" if channels_last else "NCHW"


def as_format(x: Tensor, channels_last: bool) -> Tensor:
    """Return a tensor that has a memory format in all its strides."""
    return x.contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)


def argmax_tensor(a: Array, channels_last: bool) -> Tensor:
    """Return an argmax as a tensor: bytes stay bytes, wider offsets become int64."""
    return tensor(a if a.dtype == np.uint8 else a.astype(np.int64), channels_last)


def array_shape(shape: Sequence[int], channels_last: bool) -> tuple[int, ...]:
    """Return the shape of the array that stands for a tensor of this shape."""
    n, c, h, w = shape
    return (n, h, w, c) if channels_last else (n, c, h, w)
