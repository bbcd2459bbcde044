"""`layer_utils.py` of CS231n's assignments, as far as it stands on convolution: layers in one call each."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..arrays import Array, floats, of_forward, with_shape
from . import spatial_batchnorm
from .fast_layers import (
    ConvCache,
    Param,
    conv_backward_fast,
    conv_forward_fast,
    max_pool_backward_fast,
    max_pool_forward_fast,
)

__all__ = [
    "conv_bn_relu_backward",
    "conv_bn_relu_forward",
    "conv_relu_backward",
    "conv_relu_forward",
    "conv_relu_pool_backward",
    "conv_relu_pool_forward",
]

ReluCache = Array


def _relu_forward(a: Array) -> tuple[Array, ReluCache]:
    """Return max(a, 0), in place, and where a is above 0."""
    return np.maximum(a, 0, out=a), a > 0


def _relu_backward(dout: Any, cache: ReluCache) -> Array:
    (dy,) = floats(True, dout=dout)
    return with_shape(dy, "dout", cache.shape) * cache


def conv_relu_forward(x: Any, w: Any, b: Any, conv_param: Param) -> tuple[Array, tuple[ConvCache, ReluCache]]:
    """Return a convolution with ReLU, and what `conv_relu_backward` needs.

    Parameters and errors are those of `conv_forward_fast`.
    """
    a, conv_cache = conv_forward_fast(x, w, b, conv_param)
    out, relu_cache = _relu_forward(a)
    return out, (conv_cache, relu_cache)


def conv_relu_backward(dout: Any, cache: tuple[ConvCache, ReluCache]) -> tuple[Array, Array, Array]:
    """Return dx, dw and db of `conv_relu_forward`, for dout (N, F, OH, OW) and its cache."""
    conv_cache, relu_cache = of_forward(cache, tuple, np.ndarray)
    return conv_backward_fast(_relu_backward(dout, relu_cache), conv_cache)


def conv_bn_relu_forward(
    x: Any, w: Any, b: Any, gamma: Any, beta: Any, conv_param: Param, bn_param: dict[str, Any]
) -> tuple[Array, tuple[ConvCache, Any, ReluCache]]:
    """Return a convolution with batch normalisation and ReLU, and what `conv_bn_relu_backward` needs.

    Parameters
    ----------
    x, w, b, conv_param
        As in `conv_forward_fast`.
    gamma, beta : array_like, (F,)
        Scale and shift of each channel.
    bn_param : dict
        "mode", "train" or "test"; "eps" (1e-5) and "momentum" (0.9) of the running averages; "running_mean" and
        "running_var", which a training step replaces.

    Raises
    ------
    TypeError, ValueError
        As `conv_forward_fast`, and if gamma, beta or bn_param do not fit.
    """
    a, conv_cache = conv_forward_fast(x, w, b, conv_param)
    normalised, bn_cache = spatial_batchnorm.forward(a, gamma, beta, bn_param)
    out, relu_cache = _relu_forward(normalised)
    return out, (conv_cache, bn_cache, relu_cache)


def conv_bn_relu_backward(
    dout: Any, cache: tuple[ConvCache, Any, ReluCache]
) -> tuple[Array, Array, Array, Array, Array]:
    """Return dx, dw, db, dgamma and dbeta of `conv_bn_relu_forward`, for dout (N, F, OH, OW) and its cache."""
    conv_cache, bn_cache, relu_cache = of_forward(cache, tuple, spatial_batchnorm.Saved, np.ndarray)
    da, dgamma, dbeta = spatial_batchnorm.backward(_relu_backward(dout, relu_cache), bn_cache)
    return *conv_backward_fast(da, conv_cache), dgamma, dbeta


def conv_relu_pool_forward(
    x: Any, w: Any, b: Any, conv_param: Param, pool_param: Param
) -> tuple[Array, tuple[ConvCache, ReluCache, Any]]:
    """Return a convolution with ReLU and max pooling, and what `conv_relu_pool_backward` needs.

    Parameters and errors are those of `conv_forward_fast` and `max_pool_forward_fast`.
    """
    a, conv_cache = conv_forward_fast(x, w, b, conv_param)
    s, relu_cache = _relu_forward(a)
    out, pool_cache = max_pool_forward_fast(s, pool_param)
    return out, (conv_cache, relu_cache, pool_cache)


def conv_relu_pool_backward(dout: Any, cache: tuple[ConvCache, ReluCache, Any]) -> tuple[Array, Array, Array]:
    """Return dx, dw and db of `conv_relu_pool_forward`, for dout (N, F, OH, OW) and its cache."""
    conv_cache, relu_cache, pool_cache = of_forward(cache, tuple, np.ndarray, tuple)
    return conv_backward_fast(_relu_backward(max_pool_backward_fast(dout, pool_cache), relu_cache), conv_cache)
