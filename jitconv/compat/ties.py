"""Max pooling whose backward pass says which of several equal pixels of a window gets the gradient."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import pool, validate, workspace
from ..kernels.max_pooling_ties import max_pool_backward_ties, max_pool_shares
from ..kernels.windows import by_planes, image_counts
from ..pooling import PaddingSizes, Pooling, Size
from .arrays import Array

TIES = ("first", "all", "split")


def checked(ties: Any) -> str:
    """Return which of several equal pixels of a window get the gradient: "first", "all" or "split".

    Raises
    ------
    ValueError
        If it is none of these words.
    """
    return str(validate.choice(ties, "ties", TIES))


def max_pool2d_forward(
    x: Array,
    kernel: Size,
    *,
    stride: Size | None = None,
    padding: PaddingSizes = 0,
    layout: str = "NCHW",
    ties: str = "first",
) -> tuple[Array, Array | None]:
    """Return `jitconv.max_pool2d` of x, and the argmax if `max_pool2d_backward` with these `ties` has a use for it.

    Parameters
    ----------
    x, kernel, stride, padding, layout
        As in `jitconv.max_pool2d`.
    ties : {"first", "all", "split"}
        As in `max_pool2d_backward`.
    """
    if checked(ties) == "first":
        return pool.max_pool2d_with_argmax(x, kernel, stride=stride, padding=padding, layout=layout)
    return pool.max_pool2d(x, kernel, stride=stride, padding=padding, layout=layout), None


def max_pool2d_backward(
    dy: Array,
    x: Array,
    kernel: Size,
    *,
    stride: Size | None = None,
    padding: PaddingSizes = 0,
    layout: str = "NCHW",
    ties: str = "first",
    argmax: Array | None = None,
) -> Array:
    """Return the gradient of a max pooling for its input.

    Parameters
    ----------
    dy : ndarray of x's dtype
        The gradient of the result, in its shape.
    x, kernel, stride, padding, layout
        As they were given to the forward call.
    ties : {"first", "all", "split"}
        Of equal pixels of a window, give the gradient to the first, to each of them, or an equal part to each.
    argmax : ndarray, optional
        From the forward call; for "first", which else computes it again.

    Returns
    -------
    ndarray of dy.dtype, in the shape of x
        If a window's largest is NaN, its first NaN gets the gradient with "first", and no pixel with the others: NaN
        equals nothing.
    """
    if checked(ties) == "first":
        if argmax is None:
            argmax = pool.max_pool2d_with_argmax(x, kernel, stride=stride, padding=padding, layout=layout)[1]
        return pool.max_pool2d_backward(dy, argmax, x.shape, kernel, stride=stride, padding=padding, layout=layout)
    layout = validate.layout(layout)
    batch = validate.activation(x, "x", layout)
    pooling = Pooling.of(batch.sizes, "x", kernel, stride, padding)
    dy = validate.like_output(dy, "dy", layout, batch.array.dtype, pooling.output, batch.single)
    y = pool.max_pool2d(batch.array, kernel, stride=stride, padding=padding, layout=layout)
    counts = image_counts(batch.sizes, layout)
    sizes = (*counts, 1) if by_planes(batch.sizes, layout) else counts
    if ties == "split":
        shares = np.empty_like(dy)
        max_pool_shares(dy.dtype, pooling.threads, dy, y, batch.array, shares, *sizes, *pooling.window)
        dy = shares
    dx = workspace.result(batch.array.shape, dy.dtype)
    max_pool_backward_ties(dy.dtype, pooling.threads, dy, y, batch.array, dx, *sizes, *pooling.window)
    return batch.back(dx)
