"""Batch normalisation of images as CS231n's assignments define it, in NumPy: for `conv_bn_relu_forward`."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ... import validate
from ..arrays import Array, as_array, floats, with_shape

AXES = (0, 2, 3)


class Saved(NamedTuple):
    """What backward needs; `deviation` is that of the batch in training, and that of the running average else."""

    normalised: Array
    scale: Array
    deviation: Array
    training: bool


def _by_channel(a: Array) -> Array:
    return a[:, np.newaxis, np.newaxis]


def _running(bn_param: dict[str, Any], key: str, channels: int, dtype: np.dtype[Any]) -> Array:
    """Return a running average, zeros if there is none yet."""
    name = f"bn_param[{key!r}]"
    return with_shape(as_array(bn_param.get(key, np.zeros(channels, dtype)), name), name, (channels,))


def forward(x: Array, gamma: Any, beta: Any, bn_param: Any) -> tuple[Array, Saved]:
    """Return x (N, C, H, W) normalised by channel, and what backward needs; training updates the running averages."""
    channels = x.shape[1]
    scale, shift = floats(True, gamma=gamma, beta=beta)
    with_shape(scale, "gamma", (channels,))
    with_shape(shift, "beta", (channels,))
    if not isinstance(bn_param, dict):
        raise ValueError(f"`bn_param` must be a dictionary, got {validate.shown(bn_param)}")
    training = validate.choice(bn_param.get("mode"), "bn_param['mode']", ("train", "test")) == "train"
    eps, momentum = (
        validate.real(bn_param.get(key, default), f"bn_param[{key!r}]", 0.0)
        for key, default in (("eps", 1e-5), ("momentum", 0.9))
    )
    mean, var = (_running(bn_param, key, channels, x.dtype) for key in ("running_mean", "running_var"))
    if training:
        batch_mean, batch_var = x.mean(axis=AXES), x.var(axis=AXES)
        bn_param["running_mean"] = momentum * mean + (1 - momentum) * batch_mean
        bn_param["running_var"] = momentum * var + (1 - momentum) * batch_var
        mean, var = batch_mean, batch_var
    deviation = np.sqrt(var + eps)
    normalised = (x - _by_channel(mean)) / _by_channel(deviation)
    return normalised * _by_channel(scale) + _by_channel(shift), Saved(normalised, scale, deviation, training)


def backward(dout: Array, saved: Saved) -> tuple[Array, Array, Array]:
    """Return the gradients of x, gamma and beta."""
    dgamma, dbeta = (dout * saved.normalised).sum(axis=AXES), dout.sum(axis=AXES)
    if saved.training:
        count = dout.size // dout.shape[1]
        dout = dout - (_by_channel(dbeta) + saved.normalised * _by_channel(dgamma)) / count
    return dout * _by_channel(saved.scale / saved.deviation), dgamma, dbeta
