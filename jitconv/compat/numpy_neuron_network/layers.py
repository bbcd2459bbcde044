"""The functions of numpy_neuron_network's `layers`: of equal pixels of a window the first gets the gradient."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ... import validate
from ...pool import global_avg_pool2d, global_avg_pool2d_backward, global_max_pool2d, global_max_pool2d_backward
from ..arrays import Array, as_array, floats, with_axes
from . import convolution
from . import pooling as windows

Pair = tuple[int, int]


def fc_forward(z: Array, W: Array, b: Array) -> Array:
    """Return z @ W + b, in the dtype that NumPy gives it.

    Parameters
    ----------
    z : (N, in) array
    W : (in, out) array
    b : (out,) array

    Returns
    -------
    (N, out) array
    """
    z, W, b = as_array(z, "z"), as_array(W, "W"), as_array(b, "b")
    if with_axes(z, "z", "N, in").shape[1] != len(with_axes(W, "W", "in, out")):
        raise ValueError(f"`W` has {len(W)} inputs, but `z` has {z.shape[1]}")
    if b.size != 1 and b.shape not in ((W.shape[1],), (1, W.shape[1])):
        raise ValueError(f"`b` must have shape ({W.shape[1]},), one for each output, got {b.shape}")
    return np.asarray(np.dot(z, W) + b)


def fc_backward(next_dz: Array, W: Array, z: Array) -> tuple[Array, Array, Array]:
    """Return the gradients of `fc_forward`: dW / N, db / N, dz.

    Parameters
    ----------
    next_dz : (N, out) array
    W, z
        As they were given to `fc_forward`.
    """
    next_dz, W, z = as_array(next_dz, "next_dz"), as_array(W, "W"), as_array(z, "z")
    n = len(with_axes(z, "z", "N, in"))
    if next_dz.shape != (n, with_axes(W, "W", "in, out").shape[1]):
        raise ValueError(f"`next_dz` must have the shape of the output, {(n, W.shape[1])}, got {next_dz.shape}")
    return np.dot(z.T, next_dz) / n, np.sum(next_dz, axis=0) / n, np.dot(next_dz, W.T)


def conv_forward(
    z: Array,
    K: Array,
    b: Array,
    padding: Pair = (0, 0),
    strides: Pair = (1, 1),
    *,
    strict: bool = False,
    preserve_dtype: bool = False,
) -> Array:
    """Convolve feature maps.

    Parameters
    ----------
    z : (N, C, H, W) array
    K : (C, D, k1, k2) array
        C channels in, D out.
    b : (D,) array
    padding, strides : (int, int)
        Down and across.
    strict : bool
        Refuse strides that do not divide the padded image less the kernel, as the original does.
    preserve_dtype : bool
        Compute in float32 if all arrays are. By default the result is float64, whatever they are.

    Returns
    -------
    (N, D, OH, OW) array
        OH = (H + 2 * padding - k1) // stride + 1; so OW.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit; the message names it.
    AssertionError
        Strict only, see there.
    """
    strict = validate.boolean(strict, "strict")
    return convolution.forward(z, K, b, padding, strides, preserve_dtype, divides=strict)[0]


def conv_backward(
    next_dz: Array,
    K: Array,
    z: Array,
    padding: Pair = (0, 0),
    strides: Pair = (1, 1),
    *,
    strict: bool = False,
    preserve_dtype: bool = False,
) -> tuple[Array, Array, Array]:
    """Return the gradients of `conv_forward`: dK / N, db / N, dz.

    Parameters
    ----------
    next_dz : (N, D, OH, OW) array
        The gradient of the result.
    K, z, padding, strides, preserve_dtype
        As they were given to `conv_forward`.
    strict : bool
        Leave the padding out of dK, as the original does: it has k1 - 2 * padding[0] by k2 - 2 * padding[1] taps, one
        for a 3x3 kernel with padding 1, which an update of K then adds to all nine.

    Returns
    -------
    dK : (C, D, k1, k2) array
        Divided by N, as db.
    db : (D,) array
    dz : (N, C, H, W) array

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit; the message names it.
    """
    run = convolution.backward_as_written if validate.boolean(strict, "strict") else convolution.backward
    return run(next_dz, K, z, padding, strides, preserve_dtype)


def max_pooling_forward(
    z: Array,
    pooling: Pair,
    strides: Pair = (2, 2),
    padding: Pair = (0, 0),
    *,
    strict: bool = False,
    preserve_dtype: bool = False,
) -> Array:
    """Return the largest pixel of each window.

    Parameters
    ----------
    z : (N, C, H, W) array
    pooling : (int, int)
        Height and width of the window.
    strides, padding : (int, int)
        Down and across; the padding at most half the window, strict: any.
    strict : bool
        Pad with zeros, which win over negative pixels, as the original does. By default the padding never wins.
    preserve_dtype : bool
        Keep float32. By default the result is float64.

    Returns
    -------
    (N, C, OH, OW) array

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit; the message names it.
    """
    return windows.max_forward(z, pooling, strides, padding, strict, preserve_dtype)


def max_pooling_backward(
    next_dz: Array,
    z: Array,
    pooling: Pair,
    strides: Pair = (2, 2),
    padding: Pair = (0, 0),
    *,
    ties: str = "first",
    strict: bool = False,
) -> Array:
    """Return the gradient of `max_pooling_forward` for z.

    Parameters
    ----------
    next_dz : (N, C, OH, OW) array
    z, pooling, strides, padding, strict
        As they were given to `max_pooling_forward`.
    ties : {"first", "all", "split"}
        Of equal pixels of a window, give the gradient to the first, to each, or an equal part to each.

    Returns
    -------
    (N, C, H, W) array
        float32 if z is, else float64.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit; the message names it.
    """
    return windows.max_backward(next_dz, z, pooling, strides, padding, ties, strict)


def avg_pooling_forward(
    z: Array,
    pooling: Pair,
    strides: Pair = (2, 2),
    padding: Pair = (0, 0),
    *,
    strict: bool = False,
    preserve_dtype: bool = False,
) -> Array:
    """Return the average of each window; zeros of the padding count.

    Parameters
    ----------
    z, pooling, strides, padding, preserve_dtype
        As in `max_pooling_forward`.
    strict : bool
        Round the result to float32, as the original does.

    Returns
    -------
    (N, C, OH, OW) array

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit; the message names it.
    """
    return windows.avg_forward(z, pooling, strides, padding, strict, preserve_dtype)


def avg_pooling_backward(
    next_dz: Array, z: Array, pooling: Pair, strides: Pair = (2, 2), padding: Pair = (0, 0)
) -> Array:
    """Return the gradient of `avg_pooling_forward` for z.

    Parameters
    ----------
    next_dz : (N, C, OH, OW) array
    z, pooling, strides, padding
        As they were given to `avg_pooling_forward`.

    Returns
    -------
    (N, C, H, W) array
        float32 if z is, else float64.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit; the message names it.
    """
    return windows.avg_backward(next_dz, z, pooling, strides, padding)


def _channel_values(z: Any) -> Array:
    (z,) = floats(True, z=z)
    return with_axes(z, "z", "N, C, H, W")


def _channel_gradients(next_dz: Any, z: Any) -> tuple[Array, Array]:
    """Return z, and `next_dz` (N, C) as (N, C, 1, 1), in z's dtype."""
    z = _channel_values(z)
    next_dz = as_array(next_dz, "next_dz").astype(z.dtype, copy=False)
    if next_dz.shape != z.shape[:2]:
        raise ValueError(f"`next_dz` must have shape {z.shape[:2]}, one for each channel of `z`, got {next_dz.shape}")
    return z, next_dz[:, :, np.newaxis, np.newaxis]


def global_max_pooling_forward(z: Array) -> Array:
    """Return the largest pixel of each channel: (N, C) from (N, C, H, W), float32 if z is, else float64."""
    y, _ = global_max_pool2d(_channel_values(z))
    return y[:, :, 0, 0]


def global_max_pooling_backward(next_dz: Array, z: Array) -> Array:
    """Return the gradient of `global_max_pooling_forward`: each (N, C) goes to the first of the largest pixels."""
    z, dy = _channel_gradients(next_dz, z)
    _, argmax = global_max_pool2d(z)
    return global_max_pool2d_backward(dy, argmax, z.shape)


def global_avg_pooling_forward(z: Array) -> Array:
    """Return the average of each channel: (N, C) from (N, C, H, W), float32 if z is, else float64."""
    return global_avg_pool2d(_channel_values(z))[:, :, 0, 0]


def global_avg_pooling_backward(next_dz: Array, z: Array) -> Array:
    """Return the gradient of `global_avg_pooling_forward`: each (N, C) is spread evenly over its channel."""
    z, dy = _channel_gradients(next_dz, z)
    return global_avg_pool2d_backward(dy, z.shape)


def flatten_forward(z: Array) -> Array:
    """Return z (N, d1, d2, ...) as (N, d1 * d2 * ...); a view where NumPy can."""
    z = as_array(z, "z")
    if z.ndim < 1:
        raise ValueError(f"`z` must have an axis of images, got shape {z.shape}")
    return z.reshape(len(z), math.prod(z.shape[1:]))


def flatten_backward(next_dz: Array, z: Array) -> Array:
    """Return `next_dz` in the shape of z; a view where NumPy can."""
    next_dz, z = as_array(next_dz, "next_dz"), as_array(z, "z")
    if next_dz.size != z.size:
        raise ValueError(f"`next_dz` must have as many elements as `z`, which is {z.shape}, got {next_dz.shape}")
    return next_dz.reshape(z.shape)
