"""The functions of numpy_neuron_network's `layers_v2`: all equal pixels of a window get the gradient."""

from __future__ import annotations

import numpy as np

from ... import validate
from ..arrays import Array
from . import convolution, layers
from .layers import conv_backward, global_avg_pooling_backward, max_pooling_forward

__all__ = [
    "conv_backward",
    "conv_forward",
    "global_avg_pooling_backward",
    "max_pooling_backward",
    "max_pooling_forward",
]

Pair = tuple[int, int]


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
    z, K, b, padding, strides, preserve_dtype
        As in `layers.conv_forward`.
    strict : bool
        Where a stride is above 1, leave out the last windows, as the original does: of the windows at stride 1 it keeps
        their number divided by the stride, rounded down. With strict=True gradients have other shapes then too.

    Returns
    -------
    (N, D, OH, OW) array

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit; the message names it.
    """
    y, counts = convolution.forward(z, K, b, padding, strides, preserve_dtype)
    if not validate.boolean(strict, "strict"):
        return y
    rows, columns = (count // step for count, step in zip(counts, validate.pair(strides, "strides"), strict=True))
    return np.ascontiguousarray(y[:, :, :rows, :columns])


def max_pooling_backward(
    next_dz: Array,
    z: Array,
    pooling: Pair,
    strides: Pair = (2, 2),
    padding: Pair = (0, 0),
    *,
    ties: str = "all",
    strict: bool = False,
) -> Array:
    """Return the gradient of `max_pooling_forward` for z: `layers.max_pooling_backward` with ties="all".

    The original fails where the strides are neither the window nor 1.
    """
    return layers.max_pooling_backward(next_dz, z, pooling, strides, padding, ties=ties, strict=strict)
