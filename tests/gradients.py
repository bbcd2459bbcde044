"""Numerical gradients, the reference for every backward pass."""

from __future__ import annotations

import numpy as np


def numerical_gradient(function, array, step=1e-6):
    """Return the gradient of a scalar function of `array`, (f(a + h) - f(a - h)) / 2h element by element."""
    gradient = np.empty_like(array)
    for index in np.ndindex(array.shape):
        middle = array[index]
        array[index] = middle + step
        above = function()
        array[index] = middle - step
        below = function()
        array[index] = middle
        gradient[index] = (above - below) / (2 * step)
    return gradient
