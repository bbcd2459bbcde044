"""ReLU, dropout and batch normalisation: check, allocate, call kernels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from . import validate, workspace
from .cost import threads_for
from .kernels import batchnorm as batchnorm_kernels
from .kernels import pointwise as kernels

Array = NDArray[Any]

# Elements of one block of rows in batch normalisation: 32 KB in float32, which stay in the first-level cache
# between the block's mean and its scatter.
BLOCK_ELEMENTS = 8192


# Cycles of one thread for an element of float32 that comes from L3 and goes there.
RELU_CYCLES, DROPOUT_CYCLES, NORM_CYCLES = 1.0, 2.0, 2.0


def relu(x: Array) -> Array:
    """Return x where it is not below zero, and zero elsewhere; NaN stays NaN.

    Parameters
    ----------
    x : array of float32 or float64, any shape
    """
    x = validate.floats(x, "x")
    y = workspace.result(x.shape, x.dtype)
    kernels.relu_forward(x.dtype, threads_for(x.size * RELU_CYCLES), x, y, x.size)
    return y


def relu_backward(dy: Array, y: Array) -> Array:
    """Return the gradient of `relu` with respect to x, from its output y.

    The gradient passes where y is above zero, and where it is NaN, as in PyTorch.
    """
    y = validate.floats(y, "y")
    dy = validate.array(dy, "dy", y.shape, y.dtype, "as the output")
    dx = workspace.result(y.shape, y.dtype)
    kernels.relu_backward(y.dtype, threads_for(y.size * RELU_CYCLES), dy, y, dx, y.size)
    return dx


def dropout(x: Array, p: float, key: int, *, first: int = 0, name: str = "x") -> Array:
    """Return x with each element zeroed with probability p, and the others divided by 1 - p.

    Parameters
    ----------
    x : array of float32 or float64, any shape
    p : float from 0 to 1
    key : int
        Chooses the elements. The gradient is the same function of dy with the same p and key.
    first : int
        The number of the first element, where x is a part of a larger array: as in the whole, the same are dropped.
    name : str
        What an error calls the array.
    """
    x = validate.floats(x, name)
    p = validate.real(p, "p", 0.0, 1.0)
    low, high = map(int, np.random.SeedSequence(key).generate_state(2))
    scale = np.array([1.0 / (1.0 - p) if p < 1.0 else 0.0], x.dtype)
    y = workspace.result(x.shape, x.dtype)
    parts = threads_for(x.size * DROPOUT_CYCLES)
    kernels.dropout_apply(x.dtype, parts, x, y, scale, x.size, low, high, round(p * 2**32), first)
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


class _Cut(NamedTuple):
    """How an activation is cut for sums over its channels: into planes, or into blocks of rows."""

    planes: bool
    values: int  # of a channel
    blocks: int
    block: int  # values of a channel in each; the last may have fewer
    sizes: tuple[int, ...]  # as the kernels take them
    threads: int

    @classmethod
    def of(cls, shape: tuple[int, ...], channels: int, layout: str) -> _Cut:
        n, _, h, w = validate.channels(shape, channels, layout)
        count = n * h * w
        parts = threads_for(count * channels * NORM_CYCLES)
        if layout == "NCHW" and h * w > 1:
            return cls(True, count, n, h * w, (n, channels, h * w), parts)
        rows = max(1, BLOCK_ELEMENTS // channels)
        return cls(False, count, -(-count // rows), rows, (count, channels), parts)

    def partial_sums(self, channels: int, dtype: np.dtype[Any]) -> tuple[Array, tuple[Any, ...]]:
        """Return room for two sums of each block, and what the kernels take after it."""
        partial = np.empty((self.blocks, 2, channels), dtype)
        if self.planes:
            return partial, (np.empty((self.threads, 2, batchnorm_kernels.LANES), dtype), *self.sizes)
        return partial, (self.blocks, self.block, *self.sizes)


class _Moments(NamedTuple):
    """Of each channel, in float64."""

    values: int
    mean: Array
    scatter: Array  # the sum of the squares about the mean


def _moments(x: Array, cut: _Cut, channels: int) -> _Moments:
    """Return the moments of x.

    The blocks' moments are put together by the formula of Chan, Golub and LeVeque, "Updating formulae and a
    pairwise algorithm for computing sample variances" (1979), which does not cancel.
    """
    if not cut.values:
        return _Moments(0, np.zeros(channels), np.zeros(channels))
    partial, rest = cut.partial_sums(channels, x.dtype)
    run = batchnorm_kernels.moments_nchw if cut.planes else batchnorm_kernels.moments_nhwc
    run(x.dtype, cut.threads, x, partial, *rest)
    means, scatters = partial[:, 0].astype(np.float64), partial[:, 1].astype(np.float64)
    weights = np.full((cut.blocks, 1), cut.block, np.float64)
    weights[-1] = cut.values - cut.block * (cut.blocks - 1)
    mean = (weights * means).sum(axis=0) / cut.values
    scatter = scatters.sum(axis=0) + (weights * (means - mean) ** 2).sum(axis=0)
    return _Moments(cut.values, mean, scatter)


def _moments_of_all(moments: _Moments, add_up: Callable[[Array], None]) -> _Moments:
    """Return the moments of all parts of a batch from those of one, by the same formula.

    Two sums one after the other: one sum, of squares about zero, would cancel.
    """
    sums = np.append(moments.mean * moments.values, moments.values)
    add_up(sums)
    values = int(sums[-1])
    mean = sums[:-1] / max(values, 1)
    scatter = moments.scatter + moments.values * (moments.mean - mean) ** 2
    add_up(scatter)
    return _Moments(values, mean, scatter)


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
    activation: str | None = None,
    add_up: Callable[[Array], None] | None = None,
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
    activation : None or "relu"
        Applied to y as it is stored; NaN stays NaN. `batch_norm_backward` then takes y.
    add_up : function, optional
        x is a part of the batch whose moments are taken: the function overwrites an array of float64 with its sum over
        all parts. All call it alike, also those that have no image.

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
    relu = validate.choice(activation, "activation", (None, "relu")) == "relu"
    cut = _Cut.of(x.shape, channels, layout)
    moved: list[tuple[Array, Array]] = []
    with np.errstate(all="ignore"):  # what is too large, or no number, shows in the results
        if training or running_mean is None or running_var is None:
            moments = _moments(x, cut, channels)
            count, mean, scatter = moments if add_up is None else _moments_of_all(moments, add_up)
            validate.enough_to_normalise(count)
            var = scatter / count
            if running_mean is not None and running_var is not None:
                moved.append((running_mean, running_mean + momentum * (mean - running_mean)))
                moved.append((running_var, running_var + momentum * (var * (count / (count - 1)) - running_var)))
        else:
            mean, var = running_mean.astype(np.float64), running_var.astype(np.float64)
        inverse_std = (1.0 / np.sqrt(var + eps)).astype(x.dtype)
        centre, scale = mean.astype(x.dtype), weight * inverse_std
    y = workspace.result(x.shape, x.dtype)
    _normalise(x, centre, scale, bias, y, cut, relu)
    with np.errstate(all="ignore"):
        for running, value in moved:  # when nothing can fail any more
            running[...] = value
    return BatchNorm(y, centre, inverse_std)


def _normalise(x: Array, mean: Array, scale: Array, shift: Array, y: Array, cut: _Cut, relu: bool) -> None:
    run = batchnorm_kernels.normalise_nchw if cut.planes else batchnorm_kernels.normalise_nhwc
    run(x.dtype, cut.threads, x, mean, scale, shift, y, *cut.sizes, relu)


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
    y: Array | None = None,
    add_up: Callable[[Array], None] | None = None,
) -> BatchNormGradients:
    """Return the gradients of `batch_norm`.

    Parameters
    ----------
    dy : array of the shape of x
    x, weight : the arguments of `batch_norm`
    mean, inverse_std : its results
    training : bool
        Whether the moments came from the batch, and so depend on x.
    y : array, optional
        The output, if it went through ``activation="relu"``: the gradient passes as in `relu_backward`.
    add_up : function, optional
        As in `batch_norm`. dx is the gradient through the moments of all parts; dw and db are this part's.
    """
    layout = validate.layout(layout)
    x = validate.array(x, "x", (None,) * 4, None, f"with the axes {layout}")
    dy = validate.array(dy, "dy", x.shape, x.dtype, "as the output")
    weight, mean, inverse_std = (
        validate.array(a, name, (np.size(weight),), x.dtype)
        for a, name in ((weight, "weight"), (mean, "mean"), (inverse_std, "inverse_std"))
    )
    channels = weight.size
    cut = _Cut.of(x.shape, channels, layout)
    if y is not None:
        y = validate.array(y, "y", x.shape, x.dtype, "as the output")
        if not training:
            dy, y = relu_backward(dy, y), None
    relu, saved = y is not None, dy if y is None else y  # without ReLU the kernels read no output
    partial, rest = cut.partial_sums(channels, x.dtype)
    sums = batchnorm_kernels.gradient_sums_nchw if cut.planes else batchnorm_kernels.gradient_sums_nhwc
    sums(x.dtype, cut.threads, dy, x, saved, mean, partial, *rest, relu)
    with np.errstate(all="ignore"):
        db, product = partial.sum(axis=0, dtype=np.float64)
        dw = product * inverse_std
        count, total, slant = cut.values, db, dw
        if needs_dx and training and add_up is not None:
            count, total, slant = _gradients_of_all(count, db, dw, add_up)
        level, slope = total / max(count, 1), slant * inverse_std / max(count, 1)
        scale, level, slope, dw, db = (a.astype(x.dtype) for a in (weight * inverse_std, level, slope, dw, db))
    dx = None
    if needs_dx:
        dx = workspace.result(x.shape, x.dtype)
        if training and count:
            run = batchnorm_kernels.normalise_backward_nchw if cut.planes else batchnorm_kernels.normalise_backward_nhwc
            run(x.dtype, cut.threads, dy, x, saved, mean, scale, level, slope, dx, *cut.sizes, relu)
        else:
            zero = np.zeros_like(mean)
            _normalise(dy, zero, scale, zero, dx, cut, False)
    return BatchNormGradients(dx, dw, db)


def _gradients_of_all(count: int, db: Array, dw: Array, add_up: Callable[[Array], None]) -> tuple[int, Array, Array]:
    """Return the values of a channel, db and dw of all parts of a batch from those of one."""
    sums = np.concatenate([db, dw, [count]])
    add_up(sums)
    return int(sums[-1]), sums[: db.size], sums[db.size : -1]
