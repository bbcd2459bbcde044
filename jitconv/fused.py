"""Convolution in one pass with what follows it, ReLU and 2x2 max pooling: what layers call.

What each function computes is what `conv2d`, `relu` and `max_pool2d` and their gradients compute one after another.
Arrays that a layer has made itself are not checked again.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from . import depthwise, geometry, limits, plan, shapes, validate, workspace
from .kept import KeptWeights
from .kernels import tail
from .kernels.tail import MASKED, PLAIN, POOLED
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


def serves(options: Options, in_channels: int, out_channels: int, itemsize: int) -> bool:
    """Return whether a convolution gains by taking ReLU and pooling along: narrow groups are faster without."""
    return not depthwise.narrow(options.groups, in_channels, out_channels, itemsize)


@functools.lru_cache(maxsize=512)
def problem_of(
    x: tuple[int, ...], w: tuple[int, ...], dtype: str, options: Options, layout: str, how: int
) -> ConvProblem:
    """Return the problem of arrays of these shapes, which are checked here."""
    if len(x) != 4:
        raise ValueError(f"`x` must have the axes {layout}, got {len(x)} dimensions {x}")
    image = Activation.of(x, layout)
    f, kernel = validate.conv_weights_shape(w, "w", image.c, options.groups, "x")
    axes = zip((image.h, image.w), kernel, options.stride, options.padding, options.dilation, strict=True)
    h, width = (shapes.conv_output_size(length, k, s, p, d) for length, k, s, p, d in axes)
    output = Activation(image.n, f, h, width)
    validate.output_sizes_positive(output, image, kernel, options.padding, options.dilation)
    validate.convolution_fits(output.shape(layout), image, options.padding, np.dtype(dtype))
    return ConvProblem(
        *image, f, kernel, options.stride, options.padding, options.dilation, options.groups, (h, width), layout, dtype,
        how,
    )  # fmt: skip


def plain(*arrays: Array) -> bool:
    """Return whether kernels take all these arrays as they are: images in batches, in C order."""
    return all(a.ndim == 4 and a.flags.carray for a in arrays)


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
    x = validate.array(x, "x", (None,) * 4, w.dtype)
    p = problem_of(x.shape, w.shape, w.dtype.name, options, "NHWC", POOLED)
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
    dw: Array,
    db: Array | None,
    options: Options,
    layout: str,
    *,
    saved: tuple[Array, Array | None] | None = None,
    needs_dx: bool = True,
) -> Array | None:
    """Overwrite the gradients of weights and bias, and return that of x, if it is needed.

    Parameters
    ----------
    dy : array
        The gradient of the result.
    x, w : the arguments of the forward pass, in C order
    dw, db : arrays of the shapes of w and the bias, in C order
    saved : (y, argmax), optional
        The result with ReLU or, with argmax, that of `conv2d_pooled`: dy is its gradient. Only in NHWC.
    """
    dtype = w.dtype
    how = PLAIN if saved is None else MASKED if saved[1] is None else POOLED
    p = problem_of(x.shape, w.shape, dtype.name, options, layout, how)
    if needs_dx:
        limits.phases(p.stride, (p.h, p.w))
    shape = p.output.shape(layout) if saved is None else saved[0].shape
    source = dy = validate.array(dy, "dy", shape, dtype, "as the output")
    if saved is not None:
        y, argmax = saved
        source = _table(dtype, dy, y, 0 if argmax is None else argmax, *y.shape[1:3])
    algorithm, threads = plan.resolve(p, options.algorithm), get_num_threads()
    if p.n == 0:
        dw[...] = 0
        if db is not None:
            db[...] = 0
    else:
        bias = np.empty(0, dtype) if db is None else db
        geometry.backward_weights_call(p, algorithm, threads, db is not None).run(x, source, dw, bias)
    if not needs_dx:
        return None
    dx = workspace.result(x.shape, dtype)
    if dx.size:
        geometry.backward_data_call(p, algorithm, threads).run(source, w, None, dx)
    return dx
