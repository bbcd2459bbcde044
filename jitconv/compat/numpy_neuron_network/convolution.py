"""Convolution in the conventions of numpy_neuron_network, right and as written, for `layers` and `layers_v2`."""

from __future__ import annotations

from typing import Any

import numpy as np

from ... import validate
from ...conv import conv2d, conv2d_backward, conv_transpose2d
from ..arrays import Array, floats, with_axes
from ..naming import argument_names

Gradients = tuple[Array, Array, Array]

_named = argument_names(x="z", w="K", stride="strides", kernel="K", dy="next_dz")


@_named
def forward(
    z: Array, K: Array, b: Array, padding: Any, strides: Any, preserve_dtype: bool, **rules: bool
) -> tuple[Array, tuple[int, int]]:
    """Return the convolution (N, D, OH, OW), and how many windows stride 1 would have, down and across.

    With `divides=True` the stride must fit into the padded image, as `layers` asserts.
    """
    z, K, b = floats(preserve_dtype, z=z, K=K, b=b)
    w = with_axes(K, "K", "C, D, k1, k2").swapaxes(0, 1)
    with_axes(z, "z", "N, C, H, W")
    pads, steps = validate.pair(padding, "padding", 0), validate.pair(strides, "strides")
    windows = [size + 2 * pad - k + 1 for size, pad, k in zip(z.shape[2:], pads, K.shape[2:], strict=True)]
    if rules.get("divides") and any((count - 1) % step for count, step in zip(windows, steps, strict=True)):
        raise AssertionError(f"`strides` {steps} do not divide {windows[0] - 1} and {windows[1] - 1} pixels")
    return conv2d(z, w, b, stride=steps, padding=pads), (windows[0], windows[1])


@_named
def backward(next_dz: Array, K: Array, z: Array, padding: Any, strides: Any, preserve_dtype: bool) -> Gradients:
    """Return dK / N, db / N and dz."""
    next_dz, K, z = floats(preserve_dtype, next_dz=next_dz, K=K, z=z)
    w = with_axes(K, "K", "C, D, k1, k2").swapaxes(0, 1)
    n = len(with_axes(z, "z", "N, C, H, W"))
    pads = validate.pair(padding, "padding", 0)
    gradients: Any = conv2d_backward(next_dz, z, w, stride=strides, padding=pads)
    return np.divide(gradients.dw.swapaxes(0, 1), n, order="C"), gradients.db / n, gradients.dx


@_named
def backward_as_written(
    next_dz: Array, K: Array, z: Array, padding: Any, strides: Any, preserve_dtype: bool
) -> Gradients:
    """Return what the original's formulas give: the padding is left out of dK, and shapes follow from `next_dz`.

    dK is the correlation of z without its padding with `next_dz`, whose pixels lie a stride apart. It has as many taps
    as there is room for, which are those of K only without padding and where the stride fits.
    """
    next_dz, K, z = floats(preserve_dtype, next_dz=next_dz, K=K, z=z)
    with_axes(K, "K", "C, D, k1, k2"), with_axes(z, "z", "N, C, H, W"), with_axes(next_dz, "next_dz", "N, D, OH, OW")
    pads, steps = validate.pair(padding, "padding", 0), validate.pair(strides, "strides")
    sizes = zip(z.shape[2:], next_dz.shape[2:], steps, strict=True)
    taps = [size - step * (count - 1) for size, count, step in sizes]
    if min(taps) < 1:
        raise ValueError(f"`next_dz` spans more pixels than `z` has, which is {z.shape}: strict=True leaves no dK")
    n, c, d = len(z), K.shape[0], K.shape[1]
    room = np.zeros((d, c, *taps), z.dtype)
    gradients: Any = conv2d_backward(next_dz, z, room, stride=steps, needs=(False, True, True))
    dz = conv_transpose2d(next_dz, K.swapaxes(0, 1), stride=steps, padding=pads)
    return np.divide(gradients.dw.swapaxes(0, 1), n, order="C"), gradients.db / n, dz
