"""Activations from one layout to the other."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import validate, workspace
from .cost import threads_for
from .kernels.relayout import transpose_images

Array = NDArray[Any]


def relayout(x: Array, target: str) -> Array:
    """Return x with its axes in the layout `target`; x itself, in another shape, where the elements lie alike.

    Parameters
    ----------
    x : (N, C, H, W) array for the target "NHWC", (N, H, W, C) array for "NCHW"
    target : {"NCHW", "NHWC"}
    """
    given, x = x, validate.array(x, "x", (None,) * 4, None)
    if target == "NHWC":
        (n, channels, h, w), shape = x.shape, (x.shape[0], x.shape[2], x.shape[3], x.shape[1])
        rows, columns = channels, h * w
    else:
        (n, h, w, channels), shape = x.shape, (x.shape[0], x.shape[3], x.shape[1], x.shape[2])
        rows, columns = h * w, channels
    if rows <= 1 or columns <= 1 or not n:
        return np.asarray(given).reshape(shape)
    y = workspace.result(shape, x.dtype)
    transpose_images(x.dtype, threads_for(x.size), x, y, n, rows, columns)
    return y
