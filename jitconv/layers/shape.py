"""Layers without parameters that keep every element: ReLU and Flatten."""

from __future__ import annotations

import math

import numpy as np

from .. import validate
from ..pointwise import relu, relu_backward
from .base import Array, Layer


class ReLU(Layer):
    """x where it is not below zero, and zero elsewhere; NaN stays NaN.

    Parameters
    ----------
    inplace : bool
        As in PyTorch; the result is fresh in either case.
    """

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        validate.boolean(inplace, "inplace")

    def forward(self, x: Array) -> Array:
        """Return the rectified x, of any shape."""
        y = relu(x)
        self._saved = y
        return y

    def backward(self, dy: Array) -> Array | None:
        """Return dx."""
        y = self._restore()
        return relu_backward(dy, y) if self.needs_input_gradient else None


class Flatten(Layer):
    """Every axis but the first as one, in the order in which the elements lie.

    In the layout NHWC this is another order than in NCHW, and so is that of the next layer's weights.

    Parameters
    ----------
    start_dim, end_dim : int
        1 and -1; what PyTorch has besides is refused.
    """

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        super().__init__()
        validate.choice(start_dim, "start_dim", (1,))
        validate.choice(end_dim, "end_dim", (-1,))

    def forward(self, x: Array) -> Array:
        """Return x, (N, ...), as (N, features)."""
        rows = validate.batch(x, "x")
        self._saved = rows.shape, rows.dtype
        return np.asarray(rows).reshape(len(rows), math.prod(rows.shape[1:]))

    def backward(self, dy: Array) -> Array | None:
        """Return dx."""
        shape, dtype = self._restore()
        validate.array(dy, "dy", (shape[0], math.prod(shape[1:])), dtype, "as the output")
        return np.asarray(dy).reshape(shape) if self.needs_input_gradient else None
