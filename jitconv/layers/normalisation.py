"""Layers that behave differently in training: BatchNorm2d and Dropout."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import DTypeLike

from .. import validate
from ..pointwise import batch_norm, batch_norm_backward, dropout
from .base import Array, ImageLayer, Layer, Seed


class BatchNorm2d(ImageLayer):
    """Batch normalisation of each channel; arguments and semantics are those of ``torch.nn.BatchNorm2d``.

    Parameters
    ----------
    num_features : int
        The channels of x.
    eps : float
        Added to the variance.
    momentum : float or None
        The share by which the running statistics move towards the batch's. None: their plain mean so far.
    affine : bool
        Scale and shift the result by the parameters weight and bias.
    track_running_stats : bool
        Keep running statistics, and use them after `eval`. False: the batch's are always used.
    sync : bool
        In data-parallel training: normalise with the moments of the whole batch, as one process would, in place of
        those of this process's part. It takes two sums over all processes forward, and one backward.
    layout : {"NCHW", "NHWC"}
        The axes of x and y.
    dtype : float32 or float64
        Of the parameters, and so of x.

    Attributes
    ----------
    buffers : dict
        running_mean, running_var (unbiased) and num_batches_tracked, which are saved with the parameters.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit.
    """

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        *,
        sync: bool = False,
        layout: str = "NCHW",
        dtype: DTypeLike = np.float32,
    ) -> None:
        super().__init__(layout)
        features = validate.integer(num_features, "num_features", 1)
        kind = validate.float_dtype(dtype)
        self._eps = validate.real(eps, "eps", 0.0)
        self._momentum = None if momentum is None else validate.real(momentum, "momentum", 0.0, 1.0)
        self.sync = validate.boolean(sync, "sync")
        self._unit = np.ones(features, kind), np.zeros(features, kind)
        if validate.boolean(affine, "affine"):
            self._add_parameter("weight", np.ones(features, kind))
            self._add_parameter("bias", np.zeros(features, kind))
        if validate.boolean(track_running_stats, "track_running_stats"):
            self._buffers["running_mean"] = np.zeros(features, kind)
            self._buffers["running_var"] = np.ones(features, kind)
            self._buffers["num_batches_tracked"] = np.zeros((), np.int64)

    def _scale_and_shift(self) -> tuple[Array, Array]:
        weight, bias = self._unit
        return self._parameters.get("weight", weight), self._parameters.get("bias", bias)

    def _share(self) -> float:
        """Return by how much the running statistics move towards the next batch's."""
        if self._momentum is not None:
            return self._momentum
        return 1.0 / (1 + int(self._buffers["num_batches_tracked"]))

    def forward_in(self, layout: str, x: Array) -> Array:
        """Return the normalised x."""
        return self.forward_with(layout, x, None)

    def forward_with(self, layout: str, x: Array, activation: str | None) -> Array:
        """As `forward_in`, with this activation in the same pass."""
        weight, bias = self._scale_and_shift()
        tracked = "num_batches_tracked" in self._buffers
        mean, var = self._buffers.get("running_mean"), self._buffers.get("running_var")
        training = self.training
        if self.part is not None and not self.sync and not len(x):
            # Of the last batch of an epoch there may be no image for every process.
            training, (var, mean) = False, self._unit
        y, mean, inverse_std = batch_norm(
            x,
            weight,
            bias,
            mean,
            var,
            training=training,
            momentum=self._share() if tracked and training else 0.0,
            eps=self._eps,
            layout=layout,
            activation=activation,
            add_up=self._add_up,
        )
        if tracked and training:
            self._buffers["num_batches_tracked"] += 1
        self._saved = x, mean, inverse_std, self.training or not tracked, layout, y if activation else None
        return y

    @property
    def _add_up(self) -> Callable[[Array], None] | None:
        return self.part.add_up if self.sync and self.part is not None else None

    def backward(self, dy: Array) -> Array | None:
        """Fill the gradients of weight and bias, and return dx."""
        x, mean, inverse_std, of_batch, layout, y = self._restore()
        weight, _ = self._scale_and_shift()
        dx, dw, db = batch_norm_backward(
            dy,
            x,
            weight,
            mean,
            inverse_std,
            training=of_batch,
            layout=layout,
            needs_dx=self.needs_input_gradient,
            y=y,
            add_up=self._add_up,
        )
        if "weight" in self._parameters:
            self._store_gradient("weight", dw)
            self._store_gradient("bias", db)
        return dx


class Dropout(Layer):
    """In training, zero each element with probability p and divide the others by 1 - p.

    In data-parallel training the elements are those that one process would drop from the whole batch.

    Srivastava et al., "Dropout: a simple way to prevent neural networks from overfitting" (2014), scaled in
    training as ``torch.nn.Dropout``. After `eval` the layer returns x.

    Parameters
    ----------
    p : float from 0 to 1
    inplace : bool
        As in PyTorch; the result is fresh in either case.
    seed : int, numpy.random.Generator or None
        The elements that are dropped follow from it and from how many batches have been seen. None: different
        in each process.

    Attributes
    ----------
    buffers : dict
        key and batches, which are saved with the parameters: a resumed training drops the same elements.

    Raises
    ------
    TypeError, ValueError
        If p is not a number from 0 to 1.
    """

    def __init__(self, p: float = 0.5, inplace: bool = False, *, seed: Seed = None) -> None:
        super().__init__()
        validate.boolean(inplace, "inplace")
        self._p = validate.real(p, "p", 0.0, 1.0)
        self._buffers["key"] = np.array(validate.generator(seed, "seed").integers(2**62), np.int64)
        self._buffers["batches"] = np.zeros((), np.int64)

    def forward(self, x: Array) -> Array:
        """Return x with elements dropped, or, after `eval`, x."""
        floats = validate.unaliased(x, "x")
        if not self.training:
            self._saved = None, 0, floats.shape, floats.dtype
            return x
        batches = self._buffers["batches"]
        key = int(self._buffers["key"]) << 64 | int(batches)
        first = 0 if self.part is None else self.part.first * math.prod(np.shape(x)[1:])
        y = dropout(x, self._p, key, first=first)
        batches += 1
        self._saved = key, first, y.shape, y.dtype
        return y

    def backward(self, dy: Array) -> Array | None:
        """Return dx."""
        key, first, shape, dtype = self._restore()
        validate.array(dy, "dy", shape, dtype, "as the output")
        if not self.needs_input_gradient:
            return None
        return dy if key is None else dropout(dy, self._p, key, first=first, name="dy")
