"""Convolution and transposed convolution, both ways: validate, plan, call the kernels."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from . import geometry, limits, plan, shapes, validate, workspace
from .kept import KeptWeights
from .kernels.bias import bias_gradient
from .plan import ConvPlan
from .problem import ConvProblem
from .shapes import Activation, Pair
from .signatures import Seen, signature
from .threads import get_num_threads

Array = NDArray[Any]


class ConvGradients(NamedTuple):
    """The gradients of a convolution; None where it was not needed."""

    dx: Array | None
    dw: Array | None
    db: Array | None


class _Window(NamedTuple):
    """The options of a convolution in one form."""

    kernel: Pair
    stride: Pair
    padding: shapes.Padding
    dilation: Pair

    @classmethod
    def of(cls, kernel: Pair, stride: Any, padding: Any, dilation: Any, *, words: bool = True) -> _Window:
        stride, dilation = validate.pair(stride, "stride"), validate.pair(dilation, "dilation")
        return cls(kernel, stride, validate.padding(padding, kernel, stride, dilation, words=words), dilation)

    def output_size(self, h: int, w: int) -> Pair:
        return (
            shapes.conv_output_size(h, self.kernel[0], self.stride[0], self.padding[0], self.dilation[0]),
            shapes.conv_output_size(w, self.kernel[1], self.stride[1], self.padding[1], self.dilation[1]),
        )


def _problem(image: Activation, f: int, window: _Window, groups: int, layout: str, dtype: np.dtype[Any]) -> ConvProblem:
    output = Activation(image.n, f, *window.output_size(image.h, image.w))
    validate.output_sizes_positive(output, image, window.kernel, window.padding, window.dilation)
    validate.convolution_fits(output.shape(layout), image, window.padding, dtype)
    return ConvProblem(
        *image, f, window.kernel, window.stride, window.padding, window.dilation, int(groups), (output.h, output.w),
        layout, dtype.name,
    )  # fmt: skip


class _Ready:
    """A `conv2d` whose arguments have been checked; it runs for all arrays of its signature."""

    def __init__(self, problem: ConvProblem, algorithm: str, relu: bool, single: bool) -> None:
        self._forward = problem, algorithm, relu
        self._single = single
        self._shape = problem.output.shape(problem.layout)
        self._dtype = np.dtype(problem.dtype)
        settled = plan.settled_forward(problem, algorithm) if 0 not in self._shape else None
        self._settled = None if settled is None else geometry.forward_call(problem, settled, 1, relu)

    def fill(self, x: Array, w: Array, b: Array | None, y: Array, kept: KeptWeights | None) -> None:
        """Overwrite y; x and y have the batch axis."""
        if self._settled is not None:
            self._settled.run(x, w, b, y, kept)
        elif y.size:
            p, algorithm, relu = self._forward
            resolved = plan.resolve(p, algorithm, kept is not None)
            geometry.forward_call(p, resolved, get_num_threads(), relu).run(x, w, b, y, kept)

    def run(self, x: Array, w: Array, b: Array | None, kept: KeptWeights | None) -> Array:
        """Return the result for arrays that a kernel takes as they are."""
        y = workspace.result(self._shape, self._dtype)
        self.fill(x[np.newaxis] if self._single else x, w, b, y, kept)
        return y[0] if self._single else y


_seen: Seen[_Ready] = Seen()


def conv2d(
    x: Array,
    w: Array,
    b: Array | None = None,
    *,
    stride: int | Pair = 1,
    padding: Any = 0,
    dilation: int | Pair = 1,
    groups: int = 1,
    layout: str = "NCHW",
    algorithm: str = "auto",
    activation: str | None = None,
    out: Array | None = None,
    kept: KeptWeights | None = None,
) -> Array:
    """Convolve a batch of images with a set of kernels (cross-correlation, as in every CNN library).

    ``y[n, f, i, j] = b[f] + sum over c, p, q of x[n, c, i * stride + p * dilation - padding, ...] * w[f, c, p, q]``,
    with zeros outside the image. Semantics are those of ``torch.nn.functional.conv2d``. Padding takes part as
    zeros: an infinite or NaN weight that falls on padding may or may not give NaN.

    Parameters
    ----------
    x : ndarray, float32 or float64
        (N, C, H, W) or (N, H, W, C) as `layout` says, or one image without N. Any strides; never modified.
    w : ndarray of x's dtype
        (F, C / groups, KH, KW) in every layout.
    b : ndarray of x's dtype, optional
        (F,).
    stride, dilation : int or (int, int)
        Vertical and horizontal, at least 1.
    padding : int, (int, int), ((top, bottom), (left, right)), "same" or "valid"
        Rows and columns of zeros around the image. "same" keeps the size and needs stride 1.
    groups : int
        Divides C and F; output channels of a group see that group's input channels only.
    layout : {"NCHW", "NHWC"}
        Of `x` and of the result.
    algorithm : {"auto", "direct", "im2col", "winograd", "winograd_2x2"}
        What computes it; see `plan_conv2d`. Results agree within rounding, which is larger for "winograd" (3x3 kernels
        of stride 1 or 2 and 5x5 of stride 1; "winograd_2x2": 3x3 of stride 1): "auto" may choose it, see
        `without_winograd`.
    activation : {None, "relu"}
        Applied to the result as it is stored; NaN stays NaN.
    out : ndarray, optional
        Where to put the result: its shape and dtype, any strides, no memory shared with an input.
    kept : KeptWeights, optional
        Packs the weights once for all calls with this object, until shapes or values change. For inference: `Conv2d`
        does it after `eval`. "auto" counts on it, and may choose Winograd where it would not otherwise.

    Returns
    -------
    ndarray
        (N, F, OH, OW) or (N, OH, OW, F), without N if `x` has none; `out` if given.

    Raises
    ------
    TypeError
        If an array is no NumPy array of float32 or float64, or the dtypes differ.
    ValueError
        If shapes do not fit, an option is out of range, or the kernel is larger than the padded image.
    """
    options = stride, padding, dilation, groups, layout, algorithm, activation
    key = signature((x, w, b), options) if out is None else None
    ready = _seen.get(key)
    if kept is not None:
        validate.instance(kept, "kept", KeptWeights)
    if ready is not None:
        return ready.run(x, w, b, kept)
    layout = validate.layout(layout)
    validate.choice(algorithm, "algorithm", plan.ALGORITHMS)
    validate.choice(activation, "activation", (None, "relu"))
    batch = validate.activation(x, "x", layout)
    weights = validate.conv_weights(w, batch.sizes.c, groups, batch.array.dtype)
    f = weights.shape[0]
    bias = None if b is None else validate.array(b, "b", (f,), batch.array.dtype, "(one for each output channel)")
    window = _Window.of(weights.shape[2:], stride, padding, dilation)
    p = _problem(batch.sizes, f, window, groups, layout, batch.array.dtype)
    shape = p.output.shape(layout)
    y = None
    if out is not None:
        given = validate.output(out, "out", shape[1:] if batch.single else shape, batch.array.dtype, (x, w, b))
        if given.flags.c_contiguous and given.flags.aligned:
            y = given.reshape(shape)
    if y is None:
        y = workspace.result(shape, batch.array.dtype)
    ready = _Ready(p, algorithm, activation == "relu", batch.single)
    ready.fill(batch.array, weights, bias, y, kept)
    if out is None:
        _seen.add(key, ready)
        return batch.back(y)
    if not np.may_share_memory(out, y):
        out[...] = batch.back(y)
    return out


def _data_gradient(p: ConvProblem, dy: Array, w: Array, b: Array | None, algorithm: str) -> Array:
    """Return the gradient of the input of `p`, or the transposed convolution with its bias."""
    shape = Activation(p.n, p.c, p.h, p.w).shape(p.layout)
    limits.phases(p.stride, (p.h, p.w))
    dx = workspace.result(shape, dy.dtype)
    if dx.size:
        geometry.backward_data_call(p, plan.resolve(p, algorithm), get_num_threads()).run(dy, w, b, dx)
    return dx


def _weight_gradient(p: ConvProblem, x: Array, dy: Array, algorithm: str, bias: bool) -> tuple[Array, Array | None]:
    """Return the gradient of the weights of `p` and, if asked, of its bias."""
    dw = workspace.result((p.f, p.c // p.groups, *p.kernel), x.dtype)
    db = np.empty(p.f if bias else 0, x.dtype)
    if p.n == 0:
        dw[...], db[...] = 0, 0
    elif dw.size:
        geometry.backward_weights_call(p, plan.resolve(p, algorithm), get_num_threads(), bias).run(x, dy, dw, db)
    return dw, db if bias else None


def _bias_gradient(dy: Array, sizes: Activation, layout: str) -> Array:
    """Return the sum of dy over images and pixels."""
    db = np.zeros(sizes.c, dy.dtype)
    if dy.size:
        first = layout == "NCHW"
        images, pixels = (sizes.n, sizes.h * sizes.w) if first else (1, sizes.n * sizes.h * sizes.w)
        bias_gradient(dy.dtype, get_num_threads(), dy, first, images, sizes.c, pixels, db)
    return db


def conv2d_backward(
    dy: Array,
    x: Array,
    w: Array,
    *,
    stride: int | Pair = 1,
    padding: Any = 0,
    dilation: int | Pair = 1,
    groups: int = 1,
    layout: str = "NCHW",
    algorithm: str = "auto",
    needs: tuple[bool, bool, bool] = (True, True, True),
) -> ConvGradients:
    """Return the gradients of `conv2d` for its input, weights and bias.

    Parameters
    ----------
    dy : ndarray of x's dtype
        The gradient of the output, in its shape. A fused activation is not undone here.
    x, w, stride, padding, dilation, groups, layout, algorithm
        As they were given to `conv2d`.
    needs : (bool, bool, bool)
        Which of dx, dw and db to compute.

    Returns
    -------
    ConvGradients
        dx in the shape of x, dw (F, C / groups, KH, KW), db (F,); None where not needed. For an empty batch dw
        and db are zero.

    Raises
    ------
    TypeError, ValueError
        As `conv2d`, and if `dy` has not the shape of the output.
    """
    layout = validate.layout(layout)
    validate.choice(algorithm, "algorithm", plan.ALGORITHMS)
    need_dx, need_dw, need_db = validate.needs(needs)
    batch = validate.activation(x, "x", layout)
    weights = validate.conv_weights(w, batch.sizes.c, groups, batch.array.dtype)
    window = _Window.of(weights.shape[2:], stride, padding, dilation)
    p = _problem(batch.sizes, weights.shape[0], window, groups, layout, batch.array.dtype)
    gradient = validate.like_output(dy, "dy", layout, batch.array.dtype, p.output, batch.single)
    dx = dw = db = None
    if need_dx:
        dx = batch.back(_data_gradient(p, gradient, weights, None, algorithm))
    if need_dw:
        dw, db = _weight_gradient(p, batch.array, gradient, algorithm, need_db)
    elif need_db:
        db = _bias_gradient(gradient, p.output, layout)
    return ConvGradients(dx, dw, db)


def _transposed(
    sizes: Activation,
    weights: Array,
    groups: int,
    window: _Window,
    output_padding: Any,
    layout: str,
    dtype: np.dtype[Any],
) -> ConvProblem:
    """Return the convolution whose backward-data is this transposed convolution."""
    extra = validate.output_padding(output_padding, window.stride, window.dilation)
    axes = zip((sizes.h, sizes.w), window.kernel, window.stride, window.padding, extra, window.dilation, strict=True)
    h, w = (shapes.conv_transpose_output_size(length, k, s, p, e, d) for length, k, s, p, e, d in axes)
    validate.transposed_sizes_positive((h, w), sizes, window.padding)
    image = Activation(sizes.n, weights.shape[1] * int(groups), h, w)
    validate.convolution_fits(image.shape(layout), image, window.padding, dtype)
    return ConvProblem(
        *image, sizes.c, window.kernel, window.stride, window.padding, window.dilation, int(groups), (sizes.h, sizes.w),
        layout, dtype.name,
    )  # fmt: skip


def conv_transpose2d(
    x: Array,
    w: Array,
    b: Array | None = None,
    *,
    stride: int | Pair = 1,
    padding: Any = 0,
    output_padding: int | Pair = 0,
    dilation: int | Pair = 1,
    groups: int = 1,
    layout: str = "NCHW",
) -> Array:
    """Spread each pixel over a window: the gradient of `conv2d` for its input, as an operation of its own.

    Semantics are those of ``torch.nn.functional.conv_transpose2d``. Pixels that no tap reaches hold the bias.

    Parameters
    ----------
    x : ndarray, float32 or float64
        (N, C, H, W) or (N, H, W, C) as `layout` says, or one image without N.
    w : ndarray of x's dtype
        (C, F / groups, KH, KW) in every layout.
    b : ndarray of x's dtype, optional
        (F,).
    stride, dilation : int or (int, int)
        Vertical and horizontal, at least 1.
    padding : int, (int, int) or ((top, bottom), (left, right))
        Rows and columns cut off the result.
    output_padding : int or (int, int)
        Rows and columns added at the bottom and right; less than the stride or the dilation.
    groups : int
        Divides C and F.
    layout : {"NCHW", "NHWC"}
        Of `x` and of the result.

    Returns
    -------
    ndarray
        (N, F, OH, OW) or (N, OH, OW, F), OH = (H - 1) * stride - top - bottom + dilation * (KH - 1) +
        output_padding + 1.

    Raises
    ------
    TypeError, ValueError
        As `conv2d`, and if nothing is left of the result.
    """
    layout = validate.layout(layout)
    batch = validate.activation(x, "x", layout)
    weights = validate.conv_transpose_weights(w, batch.sizes.c, groups, batch.array.dtype)
    f = weights.shape[1] * groups
    bias = None if b is None else validate.array(b, "b", (f,), batch.array.dtype, "(one for each output channel)")
    window = _Window.of(weights.shape[2:], stride, padding, dilation, words=False)
    p = _transposed(batch.sizes, weights, groups, window, output_padding, layout, batch.array.dtype)
    return batch.back(_data_gradient(p, batch.array, weights, bias, "auto"))


def conv_transpose2d_backward(
    dy: Array,
    x: Array,
    w: Array,
    *,
    stride: int | Pair = 1,
    padding: Any = 0,
    output_padding: int | Pair = 0,
    dilation: int | Pair = 1,
    groups: int = 1,
    layout: str = "NCHW",
    needs: tuple[bool, bool, bool] = (True, True, True),
) -> ConvGradients:
    """Return the gradients of `conv_transpose2d` for its input, weights and bias.

    Parameters
    ----------
    dy : ndarray of x's dtype
        The gradient of the output, in its shape.
    x, w, stride, padding, output_padding, dilation, groups, layout
        As they were given to `conv_transpose2d`.
    needs : (bool, bool, bool)
        Which of dx, dw and db to compute.

    Returns
    -------
    ConvGradients
        dx in the shape of x, dw (C, F / groups, KH, KW), db (F,); None where not needed.

    Raises
    ------
    TypeError, ValueError
        As `conv_transpose2d`, and if `dy` has not the shape of the output.
    """
    layout = validate.layout(layout)
    need_dx, need_dw, need_db = validate.needs(needs)
    batch = validate.activation(x, "x", layout)
    weights = validate.conv_transpose_weights(w, batch.sizes.c, groups, batch.array.dtype)
    window = _Window.of(weights.shape[2:], stride, padding, dilation, words=False)
    p = _transposed(batch.sizes, weights, groups, window, output_padding, layout, batch.array.dtype)
    sizes = Activation(p.n, p.c, p.h, p.w)
    gradient = validate.like_output(dy, "dy", layout, batch.array.dtype, sizes, batch.single)
    dx = dw = db = None
    if need_dx:
        y = workspace.result(p.output.shape(layout), gradient.dtype)
        if y.size:
            call = geometry.forward_call(p, plan.resolve(p, "auto"), get_num_threads(), False)
            call.run(gradient, weights, None, y)
        dx = batch.back(y)
    if need_dw:
        dw, _ = _weight_gradient(p, gradient, batch.array, "auto", False)
    if need_db:
        db = _bias_gradient(gradient, sizes, layout)
    return ConvGradients(dx, dw, db)


def plan_conv2d(
    x_shape: tuple[int, ...],
    w_shape: tuple[int, ...],
    dtype: Any = np.float32,
    *,
    stride: int | Pair = 1,
    padding: Any = 0,
    dilation: int | Pair = 1,
    groups: int = 1,
    layout: str = "NCHW",
    algorithm: str = "auto",
) -> ConvPlan:
    """Return what `conv2d` and `conv2d_backward` would run for these shapes, and why; ``print`` it to read it.

    Parameters
    ----------
    x_shape : tuple of int
        The shape of `x`, in `layout`, with or without the batch axis.
    w_shape : tuple of int
        (F, C / groups, KH, KW).
    dtype : float32 or float64
        Of all arrays.
    stride, padding, dilation, groups, layout, algorithm
        As in `conv2d`.

    Returns
    -------
    ConvPlan
        Frozen: `problem`, and a `PassPlan` for `forward`, `backward_data` and `backward_weights`, each with its
        algorithm, tile, strips, units, threads, bytes of workspace and reason.

    Raises
    ------
    TypeError, ValueError
        As `conv2d`.
    """
    layout = validate.layout(layout)
    validate.choice(algorithm, "algorithm", plan.ALGORITHMS)
    image, _ = validate.shape4(x_shape, "x_shape", layout)
    kind = validate.float_dtype(dtype, "dtype")
    f, kernel = validate.conv_weights_shape(w_shape, "w_shape", image.c, groups, "x_shape")
    p = _problem(image, f, _Window.of(kernel, stride, padding, dilation), groups, layout, kind)
    limits.phases(p.stride, (p.h, p.w))
    return ConvPlan.of(p, plan.resolve(p, algorithm), get_num_threads())
