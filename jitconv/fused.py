"""Convolution in one pass with what follows it, ReLU and 2x2 max pooling: what layers call.

Activations lie in NHWC, in C order. What each function computes is what `conv2d`, `relu` and `max_pool2d` and their
gradients compute one after another.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from . import geometry, plan, shapes, validate, workspace
from .conv import ConvGradients
from .kept import KeptWeights
from .kernels import tail
from .kernels.tail import MASKED, POOLED
from .problem import ConvProblem
from .shapes import Activation, Pair
from .threads import get_num_threads

Array = NDArray[Any]


class Options(NamedTuple):
    """The options of `conv2d`, checked."""

    stride: Pair
    padding: shapes.Padding
    dilation: Pair
    groups: int
    algorithm: str


def serves(options: Options, in_channels: int, out_channels: int) -> bool:
    """Return whether a convolution takes ReLU and pooling along: depthwise convolution reads its arrays in place."""
    return not options.groups == in_channels == out_channels


@functools.lru_cache(maxsize=512)
def _problem(x: tuple[int, ...], w: tuple[int, ...], dtype: str, options: Options, how: int) -> ConvProblem:
    """Return the problem of arrays of these shapes, which are checked here."""
    if len(x) != 4:
        raise ValueError(f"`x` must have the axes NHWC, got {len(x)} dimensions {x}")
    image = Activation.of(x, "NHWC")
    f, kernel = validate.conv_weights_shape(w, "w", image.c, options.groups, "x")
    axes = zip((image.h, image.w), kernel, options.stride, options.padding, options.dilation, strict=True)
    h, width = (shapes.conv_output_size(length, k, s, p, d) for length, k, s, p, d in axes)
    validate.output_sizes_positive(Activation(image.n, f, h, width), image, kernel, options.padding, options.dilation)
    return ConvProblem(
        *image, f, kernel, options.stride, options.padding, options.dilation, options.groups, (h, width), "NHWC", dtype,
        how,
    )  # fmt: skip


def _table(dtype: np.dtype[Any], *entries: Any) -> Array:
    """Return the table of `kernels/tail.py`, in the guise of the array for which it stands: no new compilation."""
    made = np.zeros(tail.FIELDS, np.int64)
    made[: len(entries)] = [entry.ctypes.data if isinstance(entry, np.ndarray) else entry for entry in entries]
    return made.view(dtype).reshape(1, 1, 1, -1)


def conv2d_pooled(
    x: Array, w: Array, b: Array | None, options: Options, kept: KeptWeights | None = None
) -> tuple[Array, Array]:
    """Return the largest of each 2x2 pixels of ReLU of the convolution, and which it is, as `max_pool2d_with_argmax`.

    Parameters
    ----------
    x : (N, H, W, C) array
    w : (F, C / groups, KH, KW) array
    b : (F,) array or None
    """
    p = _problem(x.shape, w.shape, w.dtype.name, options, POOLED)
    shape = p.n, p.output.h // 2, p.output.w // 2, p.f
    y, argmax = workspace.result(shape, w.dtype), workspace.result(shape, np.dtype(np.uint8))
    if y.size:
        algorithm = plan.resolve(p, options.algorithm, kept is not None)
        call = geometry.forward_call(p, algorithm, get_num_threads(), True)
        call.run(x, w, b, _table(w.dtype, 0, y, argmax), kept)
    return y, argmax


def conv2d_backward(
    dy: Array,
    x: Array,
    w: Array,
    y: Array,
    argmax: Array | None,
    options: Options,
    needs: tuple[bool, bool, bool],
) -> ConvGradients:
    """Return the gradients of a convolution with ReLU or, where there is `argmax`, ReLU and pooling.

    Parameters
    ----------
    dy, y : arrays of one shape
        The gradient of the result, and the result.
    x, w : the arguments of the forward pass
    argmax : uint8 array or None
        As `conv2d_pooled` returned it.
    needs : (bool, bool, bool)
        Which of dx, dw and db to compute; db takes dw along.
    """
    p = _problem(x.shape, w.shape, w.dtype.name, options, MASKED if argmax is None else POOLED)
    dy = validate.array(dy, "dy", y.shape, w.dtype, "as the output")
    table = _table(w.dtype, dy, y, 0 if argmax is None else argmax, *y.shape[1:3])
    algorithm, threads = plan.resolve(p, options.algorithm), get_num_threads()
    dx = dw = db = None
    if needs[0]:
        dx = workspace.result(x.shape, w.dtype)
        if dx.size:
            geometry.backward_data_call(p, algorithm, threads).run(table, w, None, dx)
    if needs[1]:
        dw, db = workspace.result(w.shape, w.dtype), np.empty(p.f if needs[2] else 0, w.dtype)
        if p.n:
            geometry.backward_weights_call(p, algorithm, threads, needs[2]).run(x, table, dw, db)
        else:
            dw[...], db[...] = 0, 0
    return ConvGradients(dx, dw, db if needs[2] else None)
