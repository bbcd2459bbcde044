"""ReLU, dropout and batch normalisation: check, allocate, call a kernel."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from . import threads, validate
from .kernels import batchnorm as batchnorm_kernels
from .kernels import pointwise as kernels

Array = NDArray[Any]

# Elements below which one thread finishes before a second would have started (a launch costs 1-2 us).
SMALL = 1 << 14
# Elements of one block of rows in batch normalisation: 32 KB in float32, which stay in the first-level cache
# between the block's mean and its scatter.
BLOCK_ELEMENTS = 8192


def parts(size: int) -> int:
    """Return over how many parts to split `size` elements."""
    return 1 if size < SMALL else threads.get_num_threads()


def relu(x: Array) -> Array:
    """Return x where it is not below zero, and zero elsewhere; NaN stays NaN.

    Parameters
    ----------
    x : array of float32 or float64, any shape
    """
    x = validate.floats(x, "x")
    y = np.empty_like(x)
    kernels.relu_forward(x.reshape(-1), y.reshape(-1), parts(x.size))
    return y


def relu_backward(dy: Array, y: Array) -> Array:
    """Return the gradient of `relu` with respect to x, from its output y.

    The gradient passes where y is above zero, and where it is NaN, as in PyTorch.
    """
    y = validate.floats(y, "y")
    dy = validate.array(dy, "dy", y.shape, y.dtype, "as the output")
    dx = np.empty_like(y)
    kernels.relu_backward(dy.reshape(-1), y.reshape(-1), dx.reshape(-1), parts(y.size))
    return dx


def dropout(x: Array, p: float, key: int, *, name: str = "x") -> Array:
    """Return x with each element zeroed with probability p, and the others divided by 1 - p.

    Parameters
    ----------
    x : array of float32 or float64, any shape
    p : float from 0 to 1
    key : int
        Chooses the elements. The gradient is the same function of dy with the same p and key.
    name : str
        What an error calls the array.
    """
    x = validate.floats(x, name)
    p = validate.real(p, "p", 0.0, 1.0)
    low, high = np.random.SeedSequence(key).generate_state(2).astype(np.uint64)
    scale = x.dtype.type(1.0 / (1.0 - p) if p < 1.0 else 0.0)
    y = np.empty_like(x)
    kernels.dropout_apply(x.reshape(-1), low, high, np.uint64(round(p * 2**32)), scale, y.reshape(-1), parts(x.size))
    return y


class BatchNorm(NamedTuple):
    """An output of `batch_norm` and what its backward pass needs."""

    y: Array
    mean: Array
    inverse_std: Array


class BatchNormGradients(NamedTuple):
    """The gradients of `batch_norm`; dw and db are those of the scale and the shift."""

    dx: Array | None
    dw: Array
    db: Array


def _geometry(shape: tuple[int, ...], channels: int, layout: str) -> tuple[int, int, int, int]:
    """Return (count, inner, rows, blocks): values a channel, and the blocks that sums are taken over."""
    sizes = validate.channels(shape, channels, layout)
    count = sizes.n * sizes.h * sizes.w
    inner = sizes.h * sizes.w if layout == "NCHW" else 1
    rows = max(1, BLOCK_ELEMENTS // channels)
    return count, inner, rows, sizes.n if inner > 1 else -(-count // rows)


def _moments(x: Array, count: int, inner: int, rows: int, blocks: int, channels: int) -> tuple[Array, Array]:
    """Return the mean and the biased variance of each channel, in float64.

    The blocks' moments are put together by the formula of Chan, Golub and LeVeque, "Updating formulae and a
    pairwise algorithm for computing sample variances" (1979), which does not cancel.
    """
    n_threads = parts(x.size)
    lanes = np.empty((n_threads, batchnorm_kernels.LANES), x.dtype)
    partial = np.empty((blocks, 2, channels), x.dtype)
    batchnorm_kernels.moments(x.reshape(-1), inner, rows, lanes, partial, n_threads)
    means, scatters = partial[:, 0].astype(np.float64), partial[:, 1].astype(np.float64)
    weights = np.full((blocks, 1), inner if inner > 1 else rows, np.float64)
    if inner == 1:
        weights[-1] = count - rows * (blocks - 1)
    mean = (weights * means).sum(axis=0) / count
    scatter = scatters.sum(axis=0) + (weights * (means - mean) ** 2).sum(axis=0)
    return mean, scatter / count


def batch_norm(
    x: Array,
    weight: Array,
    bias: Array,
    running_mean: Array | None,
    running_var: Array | None,
    *,
    training: bool,
    momentum: float = 0.1,
    eps: float = 1e-5,
    layout: str = "NCHW",
) -> BatchNorm:
    """Normalise each channel to mean 0 and variance 1, then scale and shift it.

    The semantics are those of ``torch.nn.functional.batch_norm``: y = (x - mean) / sqrt(var + eps) * weight +
    bias, with the biased variance of the batch in training; the running variance follows the unbiased one.

    Parameters
    ----------
    x : (N, C, H, W) or (N, H, W, C) array, by `layout`
    weight, bias : (C,) arrays
    running_mean, running_var : (C,) arrays or None
        With `training` they move towards the batch's by the share `momentum`, in place; without it they are
        what x is normalised with. None: the batch's own are used.
    training : bool
        Use the moments of the batch.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit, or if moments of fewer than two values for each channel are asked for.
    """
    layout = validate.layout(layout)
    x = validate.array(x, "x", (None,) * 4, None, f"with the axes {layout}")
    weight = validate.array(weight, "weight", (None,), x.dtype)
    channels = weight.size
    bias = validate.array(bias, "bias", (channels,), x.dtype)
    count, inner, rows, blocks = _geometry(x.shape, channels, layout)
    if training or running_mean is None or running_var is None:
        validate.enough_to_normalise(count)
        mean, var = _moments(x, count, inner, rows, blocks, channels)
        if running_mean is not None and running_var is not None:
            running_mean += momentum * (mean - running_mean)
            running_var += momentum * (var * (count / (count - 1)) - running_var)
    else:
        mean, var = running_mean.astype(np.float64), running_var.astype(np.float64)
    inverse_std = (1.0 / np.sqrt(var + eps)).astype(x.dtype)
    centre = mean.astype(x.dtype)
    y = np.empty_like(x)
    scale = weight * inverse_std
    batchnorm_kernels.normalise(x.reshape(-1), centre, scale, bias, inner, y.reshape(-1), parts(x.size))
    return BatchNorm(y, centre, inverse_std)


def batch_norm_backward(
    dy: Array,
    x: Array,
    weight: Array,
    mean: Array,
    inverse_std: Array,
    *,
    training: bool,
    layout: str = "NCHW",
    needs_dx: bool = True,
) -> BatchNormGradients:
    """Return the gradients of `batch_norm`.

    Parameters
    ----------
    dy : array of the shape of x
    x, weight : the arguments of `batch_norm`
    mean, inverse_std : its results
    training : bool
        Whether the moments came from the batch, and so depend on x.
    """
    layout = validate.layout(layout)
    x = validate.array(x, "x", (None,) * 4, None, f"with the axes {layout}")
    dy = validate.array(dy, "dy", x.shape, x.dtype, "as the output")
    weight, mean, inverse_std = (
        validate.array(a, name, (np.size(weight),), x.dtype)
        for a, name in ((weight, "weight"), (mean, "mean"), (inverse_std, "inverse_std"))
    )
    channels = weight.size
    count, inner, rows, blocks = _geometry(x.shape, channels, layout)
    n_threads = parts(x.size)
    lanes = np.empty((n_threads, batchnorm_kernels.LANES), x.dtype)
    partial = np.empty((blocks, 2, channels), x.dtype)
    flat, dy_flat = x.reshape(-1), dy.reshape(-1)
    batchnorm_kernels.gradient_sums(dy_flat, flat, mean, inner, rows, lanes, partial, n_threads)
    db, product = partial.sum(axis=0, dtype=np.float64)
    dw = product * inverse_std
    dx = None
    if needs_dx:
        dx = np.empty_like(x)
        scale, zero = weight * inverse_std, np.zeros_like(mean)
        if training and count:
            level, slope = (db / count).astype(x.dtype), (dw * inverse_std / count).astype(x.dtype)
            batchnorm_kernels.normalise_backward(
                dy_flat, flat, mean, scale, level, slope, inner, dx.reshape(-1), n_threads
            )
        else:
            batchnorm_kernels.normalise(dy_flat, zero, scale, zero, inner, dx.reshape(-1), n_threads)
    return BatchNormGradients(dx, dw.astype(x.dtype), db.astype(x.dtype))
