"""The modules of numpy_neuron_network that convolve and pool; they compute as `layers_v2` does."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ... import validate
from ..arrays import Array, learning_rate
from ..ties import checked
from . import layers, layers_v2
from .layers import Pair


class BaseModule:
    """What each module has.

    Parameters
    ----------
    name : str
        Begins the names of its arrays: "conv1" has "conv1_weight" and "conv1_bias".

    Attributes
    ----------
    weights, gradients : dict of arrays
        Under the same names. Weights are read at each call: change them in place or replace them.
    in_features : array or None
        What `forward` was given.
    """

    def __init__(self, name: str = "") -> None:
        self.name = name
        self.weights: dict[str, Array] = {}
        self.gradients: dict[str, Array] = {}
        self.in_features: Any = None

    def forward(self, x: Array) -> Array | None:
        """Return the output."""

    def backward(self, in_gradient: Array) -> Array | None:
        """Return the gradient of the input from that of the output, and keep those of the weights."""

    def update_gradient(self, lr: float) -> None:
        """Change the weights in place by `lr` times their gradients."""

    def load_weights(self, weights: dict[str, Array]) -> None:
        """Replace the weights by those of the same names."""
        missing = [key for key in self.weights if not isinstance(weights, Mapping) or key not in weights]
        if missing:
            raise ValueError(f"`weights` must be a dict with {', '.join(map(repr, missing))}")
        for key in self.weights:
            self.weights[key] = weights[key]


class Conv2D(BaseModule):
    """Two-dimensional convolution.

    Parameters
    ----------
    in_filters, out_filters : int
        Channels in and out.
    kernel, padding, stride : (int, int)
        Down and across.
    name : str
    strict : bool
        Compute as the original's `layers_v2` does, see `layers.conv_backward` and `layers_v2.conv_forward`.
    preserve_dtype : bool
        Begin with float32 weights, and keep float32. By default all is float64.

    Attributes
    ----------
    weight : (in_filters, out_filters, k1, k2) array
        Drawn from NumPy's global generator, as in the original: `np.random.seed` decides them.
    bias : (out_filters,) array
    """

    def __init__(
        self,
        in_filters: int,
        out_filters: int,
        kernel: Pair = (3, 3),
        padding: Pair = (1, 1),
        stride: Pair = (1, 1),
        name: str = "",
        *,
        strict: bool = False,
        preserve_dtype: bool = False,
    ) -> None:
        super().__init__(name)
        self.in_filters = validate.integer(in_filters, "in_filters", 1)
        self.out_filters = validate.integer(out_filters, "out_filters", 1)
        self.kernel = validate.pair(kernel, "kernel")
        self.padding = validate.pair(padding, "padding", 0)
        self.stride = validate.pair(stride, "stride")
        self.strict = validate.boolean(strict, "strict")
        self.preserve_dtype = validate.boolean(preserve_dtype, "preserve_dtype")
        validate.array_fits((in_filters, out_filters, *self.kernel), "in_filters")
        dtype = np.float32 if preserve_dtype else np.float64
        scale = math.sqrt(2 / ((in_filters + out_filters) * self.kernel[0] * self.kernel[1]))
        # The original's generator, so that the same seed gives the same network.
        weight = np.random.randn(in_filters, out_filters, *self.kernel) * scale  # noqa: NPY002
        self.weights = {f"{name}_weight": weight.astype(dtype), f"{name}_bias": np.zeros(out_filters, dtype)}
        self.gradients = {key: np.zeros_like(value) for key, value in self.weights.items()}

    @property
    def weight(self) -> Array:
        """The array of `weights` whose name ends in "_weight"."""
        return self.weights[f"{self.name}_weight"]

    @property
    def bias(self) -> Array:
        """The array of `weights` whose name ends in "_bias"."""
        return self.weights[f"{self.name}_bias"]

    def set_gradient(self, name: str, gradient: Array) -> None:
        """Replace the gradient of "weight" or "bias"."""
        self.gradients[f"{self.name}_{name}"] = gradient

    def forward(self, x: Array) -> Array:
        """Return the convolution of x (N, in_filters, H, W)."""
        self.in_features = x
        return layers_v2.conv_forward(
            x, self.weight, self.bias, self.padding, self.stride,
            strict=self.strict, preserve_dtype=self.preserve_dtype,
        )  # fmt: skip

    def backward(self, in_gradient: Array) -> Array:
        """Return dx, and keep the gradients of weight and bias, divided by N."""
        weight, bias, dx = layers_v2.conv_backward(
            in_gradient, self.weight, validate.after_forward(self.in_features, "Conv2D"), self.padding, self.stride,
            strict=self.strict, preserve_dtype=self.preserve_dtype,
        )  # fmt: skip
        self.set_gradient("weight", weight)
        self.set_gradient("bias", bias)
        return dx

    def update_gradient(self, lr: float) -> None:
        """Change weight and bias in place by `lr` times their gradients."""
        rate = learning_rate(lr, "lr")
        for key, value in self.weights.items():
            value -= rate * self.gradients[key]


class MaxPooling2D(BaseModule):
    """Max pooling.

    Parameters
    ----------
    kernel, stride, padding : (int, int)
        Of the window, down and across.
    name : str
    ties, strict, preserve_dtype
        As in `layers_v2.max_pooling_backward` and `layers.max_pooling_forward`.
    """

    def __init__(
        self,
        kernel: Pair = (2, 2),
        stride: Pair = (2, 2),
        padding: Pair = (0, 0),
        name: str = "",
        *,
        ties: str = "all",
        strict: bool = False,
        preserve_dtype: bool = False,
    ) -> None:
        super().__init__(name)
        self.kernel = validate.pair(kernel, "kernel")
        self.stride = validate.pair(stride, "stride")
        self.padding = validate.pair(padding, "padding", 0)
        self.ties, self.strict = checked(ties), validate.boolean(strict, "strict")
        self.preserve_dtype = validate.boolean(preserve_dtype, "preserve_dtype")

    def forward(self, x: Array) -> Array:
        """Return the largest pixels of x (N, C, H, W)."""
        self.in_features = x
        return layers_v2.max_pooling_forward(
            x, self.kernel, self.stride, self.padding, strict=self.strict, preserve_dtype=self.preserve_dtype
        )

    def backward(self, in_gradient: Array) -> Array:
        """Return dx."""
        return layers_v2.max_pooling_backward(
            in_gradient, validate.after_forward(self.in_features, "MaxPooling2D"),
            self.kernel, self.stride, self.padding, ties=self.ties, strict=self.strict,
        )  # fmt: skip


class GlobalAvgPooling2D(BaseModule):
    """The average of each channel.

    Parameters
    ----------
    name : str
    """

    def forward(self, x: Array) -> Array:
        """Return the averages (N, C) of x (N, C, H, W)."""
        self.in_features = x
        return layers.global_avg_pooling_forward(x)

    def backward(self, in_gradient: Array) -> Array:
        """Return dx (N, C, H, W) from (N, C)."""
        saved = validate.after_forward(self.in_features, "GlobalAvgPooling2D")
        return layers.global_avg_pooling_backward(in_gradient, saved)
