"""Pooling in windows in the conventions of numpy_neuron_network, for `layers` and `layers_v2`."""

from __future__ import annotations

from typing import Any

import numpy as np

from ... import validate
from ...pool import avg_pool2d, avg_pool2d_backward, max_pool2d
from ..arrays import Array, as_array, converted, floats, with_axes
from ..naming import argument_names
from ..ties import max_pool2d_backward

_named = argument_names(x="z", x_shape="z", kernel="pooling", stride="strides", dy="next_dz")
_FLOAT32 = np.dtype(np.float32)


def _like(z: Any, next_dz: Any) -> tuple[Array, Array]:
    """Return both in the dtype of the gradient, which is that of z: float32, or float64 for all others."""
    given = as_array(z, "z")
    dtype = _FLOAT32 if given.dtype == _FLOAT32 else np.dtype(np.float64)
    z, next_dz = converted(dtype, z=given, next_dz=next_dz)
    return with_axes(z, "z", "N, C, H, W"), with_axes(next_dz, "next_dz", "N, C, OH, OW")


def _zeros_around(z: Array, padding: Any) -> tuple[Array, tuple[slice, slice]]:
    """Return z with its padding of zeros, and where z lies in it."""
    pads = validate.pair(padding, "padding", 0)
    padded = (size + 2 * pad for size, pad in zip(z.shape[2:], pads, strict=True))
    validate.array_fits((*z.shape[:2], *padded), "padding")
    rows, columns = (slice(pad, pad + size) for pad, size in zip(pads, z.shape[2:], strict=True))
    return np.pad(z, ((0, 0), (0, 0), *((pad, pad) for pad in pads))), (rows, columns)


@_named
def max_forward(z: Array, pooling: Any, strides: Any, padding: Any, strict: bool, preserve_dtype: bool) -> Array:
    """Return the largest pixel of each window; strict: of the window in an image padded with zeros."""
    (z,) = floats(preserve_dtype, z=z)
    with_axes(z, "z", "N, C, H, W")
    if validate.boolean(strict, "strict"):
        z, padding = _zeros_around(z, padding)[0], 0
    return max_pool2d(z, pooling, stride=strides, padding=validate.pair(padding, "padding", 0))


@_named
def max_backward(next_dz: Array, z: Array, pooling: Any, strides: Any, padding: Any, ties: str, strict: bool) -> Array:
    """Return the gradient of `max_forward` for z; strict: what the zeros of the padding win is lost."""
    z, next_dz = _like(z, next_dz)
    inside: tuple[Any, ...] = ()
    if validate.boolean(strict, "strict"):
        z, inside = _zeros_around(z, padding)
        padding = 0
    padding = validate.pair(padding, "padding", 0)
    dz = max_pool2d_backward(next_dz, z, pooling, stride=strides, padding=padding, ties=ties)
    return np.ascontiguousarray(dz[(..., *inside)]) if inside else dz


@_named
def avg_forward(z: Array, pooling: Any, strides: Any, padding: Any, strict: bool, preserve_dtype: bool) -> Array:
    """Return the average of each window, zeros of the padding counted; strict: rounded to float32."""
    (z,) = floats(preserve_dtype, z=z)
    with_axes(z, "z", "N, C, H, W")
    y = avg_pool2d(z, pooling, stride=strides, padding=validate.pair(padding, "padding", 0))
    return y.astype(_FLOAT32) if validate.boolean(strict, "strict") else y


@_named
def avg_backward(next_dz: Array, z: Array, pooling: Any, strides: Any, padding: Any) -> Array:
    """Return the gradient of `avg_forward` for z."""
    z, next_dz = _like(z, next_dz)
    return avg_pool2d_backward(next_dz, z.shape, pooling, stride=strides, padding=validate.pair(padding, "padding", 0))
