"""Stand-in for the layers of cnn-from-scratch (Victor Zhou), the CNN that has one 3x3 convolution.

Copies such as Skylark_CNN have the same three classes. One image at a time, with its channels last; `backprop` changes
the weights. Results are float64 whatever comes in, as there; `preserve_dtype=True` keeps float32.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from .. import validate
from ..conv import conv2d, conv2d_backward
from ..pool import max_pool2d
from .arrays import Array, as_array, floats, learning_rate, with_axes, with_shape
from .naming import argument_names
from .ties import checked, max_pool2d_backward

__all__ = ["Conv3x3", "MaxPool2", "Softmax"]


def _drawn(shape: tuple[int, ...], divisor: int, preserve_dtype: bool, name: str) -> Array:
    """Return normal numbers of the original's generator, so that the same seed gives the same network."""
    validate.array_fits(shape, name)
    numbers = np.random.randn(*shape) / divisor  # noqa: NPY002
    return numbers.astype(np.float32) if validate.boolean(preserve_dtype, "preserve_dtype") else numbers


class Conv3x3:
    """Convolution with 3x3 filters, without padding and without bias.

    Parameters
    ----------
    num_filters : int
    channels : int, optional
        Take images (H, W, channels), and have filters (num_filters, 3, 3, channels). The original takes (H, W) only.
    needs_input_gradient : bool
        Let `backprop` return the gradient of the image. By default it returns None, as the original.
    preserve_dtype : bool
        Begin with float32 filters, and keep float32.

    Attributes
    ----------
    filters : (num_filters, 3, 3) array
        Drawn from NumPy's global generator, as in the original. Read at each call: they may change in place or be
        replaced.
    last_input : array
        What `forward` was given.
    """

    def __init__(
        self,
        num_filters: int,
        *,
        channels: int | None = None,
        needs_input_gradient: bool = False,
        preserve_dtype: bool = False,
    ) -> None:
        self.num_filters = validate.integer(num_filters, "num_filters", 1)
        self.needs_input_gradient = validate.boolean(needs_input_gradient, "needs_input_gradient")
        self.preserve_dtype = preserve_dtype
        depth = () if channels is None else (validate.integer(channels, "channels", 1),)
        self.filters = _drawn((num_filters, 3, 3, *depth), 9, preserve_dtype, "num_filters")
        self.last_input: Any = None

    def iterate_regions(self, image: Array) -> Iterator[tuple[Array, int, int]]:
        """Yield each 3x3 region of an image, a view, with its row and column. The passes do not use it."""
        for i in range(image.shape[0] - 2):
            for j in range(image.shape[1] - 2):
                yield image[i : i + 3, j : j + 3], i, j

    def _arrays(self, **gradients: Any) -> tuple[Array, ...]:
        """Return the image (H, W, C) and the weights (F, C, 3, 3), views where they can be, and the gradients."""
        image = validate.after_forward(self.last_input, "Conv3x3")
        x, filters, *others = floats(self.preserve_dtype, input=image, filters=self.filters, **gradients)
        if filters.ndim == 4:
            return with_axes(x, "input", "H, W, C"), filters.transpose(0, 3, 1, 2), *others
        with_axes(filters, "filters", "F, 3, 3")
        return with_axes(x, "input", "H, W")[:, :, np.newaxis], filters[:, np.newaxis], *others

    @argument_names(x="input", w="filters", kernel="filters")
    def forward(self, input: Array) -> Array:
        """Return the convolution of an image.

        Parameters
        ----------
        input : (H, W) array, or (H, W, channels) if `channels` was given

        Returns
        -------
        (H - 2, W - 2, num_filters) array

        Raises
        ------
        TypeError, ValueError
            If the image does not fit; the message names the argument.
        """
        self.last_input = as_array(input, "input")
        x, w = self._arrays()
        return conv2d(x, w, layout="NHWC")

    @argument_names(x="input", w="filters", dy="d_L_d_out")
    def backprop(self, d_L_d_out: Array, learn_rate: float) -> Array | None:
        """Change the filters in place by `learn_rate` times their gradient.

        Parameters
        ----------
        d_L_d_out : (H - 2, W - 2, num_filters) array
            The gradient of the result of the last `forward`.
        learn_rate : float

        Returns
        -------
        None, or with `needs_input_gradient` the gradient of the image, in its shape

        Raises
        ------
        TypeError, ValueError
            If `d_L_d_out` does not fit.
        """
        rate = learning_rate(learn_rate, "learn_rate")
        x, w, dy = self._arrays(d_L_d_out=d_L_d_out)
        gradients: Any = conv2d_backward(dy, x, w, layout="NHWC", needs=(self.needs_input_gradient, True, False))
        dw = gradients.dw[:, 0] if self.filters.ndim == 3 else gradients.dw.transpose(0, 2, 3, 1)
        self.filters -= rate * dw
        return gradients.dx.reshape(np.shape(self.last_input)) if self.needs_input_gradient else None


class MaxPool2:
    """Max pooling of 2x2 pixels; an odd last row or column is left out.

    Parameters
    ----------
    ties : {"first", "all", "split"}
        Of equal pixels of a square, give the gradient to the first, to each, as the original, or an equal part to each.
    preserve_dtype : bool
        Keep float32.

    Attributes
    ----------
    last_input : array
        What `forward` was given.
    """

    def __init__(self, *, ties: str = "all", preserve_dtype: bool = False) -> None:
        self.ties = checked(ties)
        self.preserve_dtype = validate.boolean(preserve_dtype, "preserve_dtype")
        self.last_input: Any = None

    def iterate_regions(self, image: Array) -> Iterator[tuple[Array, int, int]]:
        """Yield each 2x2 region of an image, a view, with its row and column. The passes do not use it."""
        for i in range(image.shape[0] // 2):
            for j in range(image.shape[1] // 2):
                yield image[2 * i : 2 * i + 2, 2 * j : 2 * j + 2], i, j

    @argument_names(x="input")
    def forward(self, input: Array) -> Array:
        """Return the largest pixels of an image.

        Parameters
        ----------
        input : (H, W, F) array

        Returns
        -------
        (H // 2, W // 2, F) array

        Raises
        ------
        TypeError, ValueError
            If the image does not fit; the message names the argument.
        """
        self.last_input = as_array(input, "input")
        (x,) = floats(self.preserve_dtype, input=self.last_input)
        return max_pool2d(with_axes(x, "input", "H, W, F"), 2, layout="NHWC")

    @argument_names(x="input", dy="d_L_d_out")
    def backprop(self, d_L_d_out: Array) -> Array:
        """Return the gradient of the image, (H, W, F), from that of the result of the last `forward`.

        Raises
        ------
        TypeError, ValueError
            If `d_L_d_out` does not fit.
        """
        image = validate.after_forward(self.last_input, "MaxPool2")
        x, dy = floats(self.preserve_dtype, input=image, d_L_d_out=d_L_d_out)
        return max_pool2d_backward(dy, x, 2, layout="NHWC", ties=self.ties)


class Softmax:
    """A dense layer and softmax over its outputs.

    Parameters
    ----------
    input_len, nodes : int
    strict : bool
        As the original: no shift before exp, so that totals above 709 give NaN (above 88 in float32), and `backprop`
        takes the first gradient that is not zero for the only one, and returns None if there is none.
    preserve_dtype : bool
        Begin with float32 weights, and keep float32.

    Attributes
    ----------
    weights : (input_len, nodes) array
        Drawn from NumPy's global generator, as in the original. Read at each call: they may change in place or be
        replaced.
    biases : (nodes,) array
    last_input, last_input_shape, last_totals
        What `forward` was given, flat, its shape, and what it gave to exp.
    """

    def __init__(self, input_len: int, nodes: int, *, strict: bool = False, preserve_dtype: bool = False) -> None:
        sizes = validate.integer(input_len, "input_len", 1), validate.integer(nodes, "nodes", 1)
        self.strict = validate.boolean(strict, "strict")
        self.preserve_dtype = preserve_dtype
        self.weights = _drawn(sizes, input_len, preserve_dtype, "input_len")
        self.biases = np.zeros(nodes, self.weights.dtype)
        self.last_input: Any = None
        self.last_input_shape: tuple[int, ...] = ()
        self.last_totals: Any = None

    def _probabilities(self) -> Array:
        totals = self.last_totals if self.strict else self.last_totals - np.max(self.last_totals)
        powers = np.exp(totals)
        return np.asarray(powers / np.sum(powers))

    def forward(self, input: Array) -> Array:
        """Return the probability of each node.

        Parameters
        ----------
        input : array of input_len elements, in any shape

        Returns
        -------
        (nodes,) array

        Raises
        ------
        TypeError, ValueError
            If the input does not fit; the message names the argument.
        """
        x, weights, biases = floats(self.preserve_dtype, input=input, weights=self.weights, biases=self.biases)
        if x.size != len(weights):
            raise ValueError(f"`input` must have {len(weights)} elements, one for each row of `weights`, got {x.shape}")
        self.last_input_shape = x.shape
        self.last_input = x.flatten()
        self.last_totals = np.dot(self.last_input, weights) + biases
        return self._probabilities()

    def backprop(self, d_L_d_out: Array, learn_rate: float) -> Array | None:
        """Change weights and biases in place by `learn_rate` times their gradients.

        Parameters
        ----------
        d_L_d_out : (nodes,) array
            The gradient of the result of the last `forward`.
        learn_rate : float

        Returns
        -------
        array in the shape of the input
            Its gradient; strict: None if no element of `d_L_d_out` differs from zero.

        Raises
        ------
        TypeError, ValueError
            If `d_L_d_out` does not fit.
        """
        x = validate.after_forward(self.last_input, "Softmax")
        rate = learning_rate(learn_rate, "learn_rate")
        dy, weights = floats(self.preserve_dtype, d_L_d_out=d_L_d_out, weights=self.weights)
        with_shape(dy, "d_L_d_out", self.last_totals.shape)
        if self.strict:
            nonzero = np.flatnonzero(dy)
            if not len(nonzero):
                return None
            dy = np.where(np.arange(len(dy)) == nonzero[0], dy, 0)
        probabilities = self._probabilities()
        d_totals = probabilities * (dy - np.dot(probabilities, dy))
        d_input: Array = np.dot(weights, d_totals).reshape(self.last_input_shape)
        self.weights -= rate * np.outer(x, d_totals)
        self.biases -= rate * d_totals
        return d_input
