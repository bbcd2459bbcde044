"""Layers with weights: convolution, transposed convolution and dense."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from .. import dense, fused, validate
from ..conv import conv2d, conv2d_backward, conv_transpose2d, conv_transpose2d_backward
from ..kept import KeptWeights
from ..kernels.tail import PLAIN, POOLED
from ..plan import ALGORITHMS
from ..pointwise import relu_backward
from ..problem import ConvProblem
from .base import Array, ImageLayer, Layer, Seed, he_normal


class _Weighted(Layer):
    """A layer with a weight and perhaps a bias."""

    def __init__(
        self,
        shape: tuple[int, ...],
        outputs: int,
        bias: bool,
        fan_in: float,
        dtype: DTypeLike,
        seed: Seed,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        kind = validate.float_dtype(dtype)
        validate.fits_in_memory(shape, np.dtype(np.float64), "weight")
        self._add_parameter("weight", he_normal(shape, fan_in, kind, seed))
        if validate.boolean(bias, "bias"):
            self._add_parameter("bias", np.zeros(outputs, kind))

    @property
    def weight(self) -> Array:
        """The array ``parameters["weight"]``."""
        return self._parameters["weight"]

    @property
    def bias(self) -> Array | None:
        """The array ``parameters["bias"]``, or None."""
        return self._parameters.get("bias")

    @property
    def _needs(self) -> tuple[bool, bool, bool]:
        return self.needs_input_gradient, True, self.bias is not None


class Conv2d(_Weighted, ImageLayer):
    """Two-dimensional convolution, with ReLU in the same pass if asked for.

    After `eval` the packed weights are kept from call to call (`jitconv.KeptWeights`); a change of the weight, in place
    or not, is noticed.

    Parameters
    ----------
    in_channels, out_channels : int
    kernel_size : int or pair
    stride, padding, dilation, groups
        As in `jitconv.conv2d`.
    bias : bool
        Add a bias, which starts at zero.
    padding_mode : "zeros"
        What PyTorch has besides is refused.
    layout : {"NCHW", "NHWC"}
        The axes of x and y.
    activation : None or "relu"
        Applied to the output while it is stored. `backward` undoes it.
    algorithm : str
        As in `jitconv.conv2d`.
    dtype : float32 or float64
        Of the parameters, and so of x.
    seed : int, numpy.random.Generator or None
        Of the weights: He initialisation (normal, fan-in). None: different in each process.

    Attributes
    ----------
    weight : (out_channels, in_channels / groups, KH, KW) array
    bias : (out_channels,) array or None

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: Any = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        *,
        layout: str = "NCHW",
        activation: str | None = None,
        algorithm: str = "auto",
        dtype: DTypeLike = np.float32,
        seed: Seed = None,
    ) -> None:
        validate.choice(padding_mode, "padding_mode", ("zeros",))
        channels = validate.integer(in_channels, "in_channels", 1)
        outputs = validate.integer(out_channels, "out_channels", 1)
        kernel = validate.pair(kernel_size, "kernel_size")
        strides, dilations = validate.pair(stride, "stride"), validate.pair(dilation, "dilation")
        groups = validate.integer(groups, "groups", 1)
        validate.divides(groups, channels, "in_channels")
        validate.divides(groups, outputs, "out_channels")
        shape = (outputs, channels // groups, *kernel)
        super().__init__(shape, outputs, bias, float(math.prod(shape[1:])), dtype, seed, layout=layout)
        self.activation: str | None = validate.choice(activation, "activation", (None, "relu"))
        self._kept = KeptWeights()
        self.options = fused.Options(
            strides,
            validate.padding(padding, kernel, strides, dilations),
            dilations,
            groups,
            validate.choice(algorithm, "algorithm", ALGORITHMS),
        )

    def forward_in(self, layout: str, x: Array) -> Array:
        """Return the convolution of x, (N, C, H, W) or (N, H, W, C) by `layout`."""
        return self.forward_with(layout, x, self.activation)

    def forward_with(self, layout: str, x: Array, activation: str | None) -> Array:
        """As `forward_in`, with this activation in place of the layer's own."""
        kept = None if self.training else self._kept
        options = self.options._asdict()
        y = conv2d(x, self.weight, self.bias, activation=activation, kept=kept, layout=layout, **options)
        self._saved = x, y if activation else None, None, layout
        return y

    @property
    def takes_pooling(self) -> bool:
        """Whether `forward_pooled` serves this layer."""
        outputs, channels = self.weight.shape[:2]
        return fused.serves(self.options, channels * self.options.groups, outputs, self.weight.itemsize)

    def forward_pooled(self, x: Array) -> Array:
        """Return the largest of each 2x2 pixels of ReLU of the convolution of x (N, H, W, C); `backward` follows."""
        kept = None if self.training else self._kept
        y, argmax = fused.conv2d_pooled(x, self.weight, self.bias, self.options, kept)
        self._saved = x, y, argmax, "NHWC"
        return y

    def problem(self) -> ConvProblem:
        """Return the problem of the last `forward`, for those who ask for its plans."""
        x, _, argmax, layout = self._restore()
        shape = x.shape if x.ndim == 4 else (1, *x.shape)
        how = PLAIN if argmax is None else POOLED
        return fused.problem_of(shape, self.weight.shape, self.weight.dtype.name, self.options, layout, how)

    def backward(self, dy: Array) -> Array | None:
        """Fill the gradients of weight and bias, and return dx."""
        x, y, argmax, layout = self._restore()
        takes_tail = y is not None and layout == "NHWC" and self.takes_pooling and fused.plain(x, y)
        if y is not None and not takes_tail:
            dy = relu_backward(dy, y)
        if not fused.plain(x, self.weight):
            options = self.options._asdict()
            gradients = conv2d_backward(dy, x, self.weight, needs=self._needs, layout=layout, **options)
            self._store_gradient("weight", gradients.dw)
            self._store_gradient("bias", gradients.db)
            return gradients.dx
        return fused.conv2d_backward(
            dy, x, self.weight, self._gradients["weight"], self._gradients.get("bias"), self.options, layout,
            saved=(y, argmax) if takes_tail else None, needs_dx=self.needs_input_gradient,
        )  # fmt: skip

    def train(self, mode: bool = True) -> Layer:
        """Behave as in training, or, with False, as in use. Return the layer."""
        if validate.boolean(mode, "mode"):
            self._kept = KeptWeights()  # gives the memory back
        return super().train(mode)


class ConvTranspose2d(_Weighted, ImageLayer):
    """Two-dimensional transposed convolution.

    Parameters
    ----------
    in_channels, out_channels : int
    kernel_size : int or pair
    stride, padding, output_padding, groups, dilation
        As in `jitconv.conv_transpose2d`.
    bias : bool
        Add a bias, which starts at zero.
    padding_mode, layout, dtype, seed
        As in `Conv2d`. The fan-in is in_channels / groups * KH * KW / (stride[0] * stride[1]): the products
        that make an output pixel, on average.

    Attributes
    ----------
    weight : (in_channels, out_channels / groups, KH, KW) array
    bias : (out_channels,) array or None

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: Any = 0,
        output_padding: int | tuple[int, int] = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: int | tuple[int, int] = 1,
        padding_mode: str = "zeros",
        *,
        layout: str = "NCHW",
        dtype: DTypeLike = np.float32,
        seed: Seed = None,
    ) -> None:
        validate.choice(padding_mode, "padding_mode", ("zeros",))
        channels = validate.integer(in_channels, "in_channels", 1)
        outputs = validate.integer(out_channels, "out_channels", 1)
        kernel = validate.pair(kernel_size, "kernel_size")
        strides, dilations = validate.pair(stride, "stride"), validate.pair(dilation, "dilation")
        groups = validate.integer(groups, "groups", 1)
        validate.divides(groups, channels, "in_channels")
        validate.divides(groups, outputs, "out_channels")
        fan_in = channels // groups * kernel[0] * kernel[1] / (strides[0] * strides[1])
        shape = (channels, outputs // groups, *kernel)
        super().__init__(shape, outputs, bias, fan_in, dtype, seed, layout=layout)
        self._options: dict[str, Any] = {
            "stride": strides,
            "padding": validate.padding(padding, kernel, strides, dilations, words=False),
            "output_padding": validate.pair(output_padding, "output_padding", 0),
            "dilation": dilations,
            "groups": groups,
        }

    def forward_in(self, layout: str, x: Array) -> Array:
        """Return the transposed convolution of x, (N, C, H, W) or (N, H, W, C) by `layout`."""
        y = conv_transpose2d(x, self.weight, self.bias, layout=layout, **self._options)
        self._saved = x, layout
        return y

    def backward(self, dy: Array) -> Array | None:
        """Fill the gradients of weight and bias, and return dx."""
        x, layout = self._restore()
        gradients = conv_transpose2d_backward(dy, x, self.weight, needs=self._needs, layout=layout, **self._options)
        self._store_gradient("weight", gradients.dw)
        self._store_gradient("bias", gradients.db)
        return gradients.dx


class Dense(_Weighted):
    """A dense (fully connected, linear) layer, with ReLU in the same pass if asked for.

    It runs on the library's own kernels, not on BLAS: its results are the same bits for any number of threads, and BLAS
    threads, which spin for a while after a product, would slow the next layer.

    Parameters
    ----------
    in_features, out_features : int
    bias : bool
        Add a bias, which starts at zero.
    activation, dtype, seed
        As in `Conv2d`.

    Attributes
    ----------
    weight : (out_features, in_features) array
    bias : (out_features,) array or None

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        activation: str | None = None,
        dtype: DTypeLike = np.float32,
        seed: Seed = None,
    ) -> None:
        features = validate.integer(in_features, "in_features", 1)
        outputs = validate.integer(out_features, "out_features", 1)
        super().__init__((outputs, features), outputs, bias, float(features), dtype, seed)
        self.activation: str | None = validate.choice(activation, "activation", (None, "relu"))

    def forward(self, x: Array) -> Array:
        """Return x @ weight.T + bias.  x (N, in_features)."""
        weight = self.weight
        rows = validate.array(x, "x", (None, weight.shape[1]), weight.dtype, "as (N, in_features)")
        y = dense.forward(rows, weight, self.bias, self.activation == "relu")
        self._saved = rows, y
        return y

    def backward(self, dy: Array) -> Array | None:
        """Fill the gradients of weight and bias, and return dx."""
        x, y = self._restore()
        dy = relu_backward(dy, y) if self.activation else validate.array(dy, "dy", y.shape, y.dtype, "as the output")
        gradients = self._gradients["weight"], self._gradients.get("bias")
        return dense.backward(dy, x, self.weight, *gradients, self.needs_input_gradient)
