"""Max, average and global pooling, forward and backward.

Shapes below are those of layout "NCHW". With layout "NHWC" every activation and gradient has the channels
last. If `x` has no batch axis, no other array has one.
"""

from __future__ import annotations

import numpy as np

from . import limits, validate, workspace
from .cost import threads_for
from .kernels import average_pooling, global_pooling, max_pooling, max_pooling_backward
from .kernels.jit import Bound
from .kernels.simd import ALIGNMENT, VECTOR_BYTES
from .kernels.windows import RUN_FIELDS, by_planes, image_counts, pixel_counts
from .pooling import PaddingSizes, Pooling, Size, offset_dtype
from .records import aligned
from .shapes import Activation
from .signatures import Seen, signature
from .validate import Array


def _single_pixel(image: Activation) -> Activation:
    return Activation(image.n, image.c, 1, 1)


def _streams(a: Array) -> bool:
    """Whether a result is stored past the caches; every row of a plane, or every pixel, must begin aligned."""
    return workspace.streams(a.nbytes, a.shape[-1] * a.itemsize) and a.ctypes.data % ALIGNMENT == 0


# Small max poolings without and with argmax: the shape of the result, and the call that fills it.
_seen: Seen[tuple[tuple[int, ...], Bound]] = Seen()
_seen_argmax: Seen[tuple[tuple[int, ...], Bound]] = Seen()


def max_pool2d(
    x: Array,
    kernel: Size,
    *,
    stride: Size | None = None,
    padding: PaddingSizes = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    layout: str = "NCHW",
) -> Array:
    """Return the largest pixel of each window.

    The padding is minus infinity and never wins. NaN wins over every number. A window without any pixel,
    which takes a dilation above 1 and an image smaller than the window, gives minus infinity.

    Parameters
    ----------
    x : ndarray of float32 or float64, shape (N, C, H, W) or (C, H, W)
        The images; H and W at least 1.
    kernel : int or (int, int)
        Height and width of the window.
    stride : int or (int, int), optional
        Pixels from one window to the next; the size of the window if not given.
    padding : int, (int, int) or ((top, bottom), (left, right))
        Rows and columns of padding, on each side at most half the kernel.
    dilation : int or (int, int)
        Pixels from one tap of the window to the next.
    ceil_mode : bool
        Keep a last window that is only partly inside the padded image, unless it starts in the padding below
        or right of the image.
    layout : {"NCHW", "NHWC"}
        The order of the axes of `x` and of the result.

    Returns
    -------
    ndarray of x.dtype, shape (N, C, OH, OW) or (C, OH, OW)
        Where OH = floor((H + top + bottom - dilation * (KH - 1) - 1) / stride + 1), or its ceiling; so OW.

    Raises
    ------
    TypeError
        If `x` is not a float32 or float64 array, or a size is not an integer.
    ValueError
        If a shape, a size or a word does not fit; the message names the argument and the rule.

    Notes
    -----
    The sizes follow https://pytorch.org/docs/stable/generated/torch.nn.MaxPool2d.html, the divisor of `avg_pool2d`
    https://pytorch.org/docs/stable/generated/torch.nn.AvgPool2d.html; asymmetric padding is added to both.
    """
    key = signature((x,), (kernel, stride, padding, dilation, layout)) if ceil_mode is False else None
    seen = _seen.get(key)
    if seen is not None:
        shape, alone = seen
        y = np.empty(shape, x.dtype)
        alone.run(x, y)
        return y
    layout = validate.layout(layout)
    batch = validate.activation(x, "x", layout)
    pooling = Pooling.of(batch.sizes, "x", kernel, stride, padding, dilation, ceil_mode)
    y = workspace.result(pooling.output.shape(layout), batch.array.dtype)
    planes = by_planes(batch.sizes, layout)
    worker = max_pooling.max_pool_nchw if planes else max_pooling.max_pool_nhwc
    counts = (_streams(y), *image_counts(batch.sizes, layout))
    if pooling.small:
        alone = worker.bind(y.dtype, 1, 2, *counts, *pooling.window)
        alone.run(batch.array, y)
        _seen.add(key, (batch.back(y).shape, alone))
    else:
        worker(y.dtype, pooling.threads, batch.array, y, *counts, *pooling.window)
    return batch.back(y)


def max_pool2d_with_argmax(
    x: Array,
    kernel: Size,
    *,
    stride: Size | None = None,
    padding: PaddingSizes = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    layout: str = "NCHW",
) -> tuple[Array, Array]:
    """Return the largest pixel of each window, and which pixel of the window it is.

    Parameters and errors are those of `max_pool2d`.

    Returns
    -------
    y : ndarray of x.dtype, shape (N, C, OH, OW) or (C, OH, OW)
        As from `max_pool2d`.
    argmax : ndarray of y's shape
        The offset kh * KW + kw of the pixel in its window, in the smallest unsigned integer dtype that holds
        KH * KW - 1: uint8 for windows of up to 256 pixels. Of equal pixels it is the first; of several NaN
        the first too, where PyTorch takes the last. A window without any pixel has argmax 0.
    """
    key = signature((x,), (kernel, stride, padding, dilation, layout)) if ceil_mode is False else None
    seen = _seen_argmax.get(key)
    if seen is not None:
        shape, alone = seen
        y, argmax = np.empty(shape, x.dtype), np.empty(shape, np.uint8)
        alone.run(x, y, argmax)
        return y, argmax
    layout = validate.layout(layout)
    batch = validate.activation(x, "x", layout)
    pooling = Pooling.of(batch.sizes, "x", kernel, stride, padding, dilation, ceil_mode)
    y = workspace.result(pooling.output.shape(layout), batch.array.dtype)
    argmax = workspace.result(y.shape, pooling.kernel_dtype)
    planes = by_planes(batch.sizes, layout)
    worker = max_pooling.ARGMAX_POOL[argmax.dtype.itemsize, planes]
    counts = (_streams(y), *image_counts(batch.sizes, layout))
    if pooling.small and argmax.dtype == np.uint8:
        alone = worker.bind(y.dtype, 1, 3, *counts, *pooling.window)
        alone.run(batch.array, y, argmax)
        _seen_argmax.add(key, (batch.back(y).shape, alone))
    else:
        worker(y.dtype, pooling.threads, batch.array, y, argmax, *counts, *pooling.window)
    return batch.back(y), batch.back(argmax.astype(pooling.argmax_dtype, copy=False))


def max_pool2d_backward(
    dy: Array,
    argmax: Array,
    x_shape: tuple[int, ...],
    kernel: Size,
    *,
    stride: Size | None = None,
    padding: PaddingSizes = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    layout: str = "NCHW",
) -> Array:
    """Return the gradient of `max_pool2d`: each `dy` goes to the pixel that its window took.

    A pixel that several windows took gets the sum. The `dy` of a window without any pixel goes nowhere.

    Parameters
    ----------
    dy : ndarray of float32 or float64, shape (N, C, OH, OW) or (C, OH, OW)
        The gradient of the result.
    argmax : ndarray of dy's shape
        As `max_pool2d_with_argmax` returned it.
    x_shape : tuple of int
        The shape of the input, (N, C, H, W) or (C, H, W), in `layout`.
    kernel, stride, padding, dilation, ceil_mode, layout : as in the forward call

    Returns
    -------
    ndarray of dy.dtype, shape x_shape

    Raises
    ------
    TypeError, ValueError
        As `max_pool2d`; also if `argmax` has another shape or dtype than in the forward call, or one of its
        entries points to no pixel of its window.
    """
    layout = validate.layout(layout)
    image, single = validate.shape4(x_shape, "x_shape", layout)
    pooling = Pooling.of(image, "x_shape", kernel, stride, padding, dilation, ceil_mode)
    dy = validate.like_output(dy, "dy", layout, None, pooling.output, single)
    argmax = validate.argmax(argmax, "argmax", layout, pooling.argmax_dtype, pooling.output, single)
    validate.fits_in_memory(image.shape(layout), dy.dtype, "dx")
    dx = workspace.result(image.shape(layout), dy.dtype)
    parts, planes, bad = pooling.threads, by_planes(image, layout), np.zeros(pooling.threads, np.int64)
    counts = image_counts(image, layout)
    if pooling.windows_over_a_pixel > max_pooling_backward.COMPARED_WINDOWS or pooling.argmax_dtype != np.uint8:
        wide, channels = argmax.astype(np.uint64), () if len(counts) == 2 else (1,)
        max_pooling_backward.max_pool_backward_scattered(
            dy.dtype, parts, dy, wide, dx, bad, *counts, *channels, *pooling.window
        )
    else:
        run = max_pooling_backward.max_pool_backward_nchw if planes else max_pooling_backward.max_pool_backward_nhwc
        scratch = workspace.scratch(8 * parts * (image.h if planes else image.w) * RUN_FIELDS, "strips")
        run(dy.dtype, parts, dy, argmax, dx, bad, scratch, _streams(dx), *counts, *pooling.window)
    validate.argmax_entries(int(bad.sum()), "argmax", "max_pool2d_with_argmax")
    return dx[0] if single else dx


def avg_pool2d(
    x: Array,
    kernel: Size,
    *,
    stride: Size | None = None,
    padding: PaddingSizes = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    layout: str = "NCHW",
) -> Array:
    """Return the average of each window.

    Parameters
    ----------
    x : ndarray of float32 or float64, shape (N, C, H, W) or (C, H, W)
        The images; H and W at least 1.
    kernel, stride, padding, ceil_mode, layout
        As in `max_pool2d`; the padding is zero.
    count_include_pad : bool
        Divide by all pixels of the window that lie in the padded image (True), or only by those in the image
        itself. What `ceil_mode` lets hang over the padded image is never counted.

    Returns
    -------
    ndarray of x.dtype, shape (N, C, OH, OW) or (C, OH, OW)
        OH and OW as in `max_pool2d`. Sums are kept in x.dtype, tap after tap.

    Raises
    ------
    TypeError, ValueError
        As `max_pool2d`.
    """
    layout = validate.layout(layout)
    batch = validate.activation(x, "x", layout)
    pooling = Pooling.of(batch.sizes, "x", kernel, stride, padding, 1, ceil_mode, count_include_pad)
    y = workspace.result(pooling.output.shape(layout), batch.array.dtype)
    run = average_pooling.avg_pool_nchw if by_planes(batch.sizes, layout) else average_pooling.avg_pool_nhwc
    counts = image_counts(batch.sizes, layout)
    run(y.dtype, pooling.threads, batch.array, y, _streams(y), *counts, *pooling.window)
    return batch.back(y)


def avg_pool2d_backward(
    dy: Array,
    x_shape: tuple[int, ...],
    kernel: Size,
    *,
    stride: Size | None = None,
    padding: PaddingSizes = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    layout: str = "NCHW",
) -> Array:
    """Return the gradient of `avg_pool2d`: each `dy` is spread evenly over its window.

    Parameters
    ----------
    dy : ndarray of float32 or float64, shape (N, C, OH, OW) or (C, OH, OW)
        The gradient of the result.
    x_shape : tuple of int
        The shape of the input, (N, C, H, W) or (C, H, W), in `layout`.
    kernel, stride, padding, ceil_mode, count_include_pad, layout : as in the forward call

    Returns
    -------
    ndarray of dy.dtype, shape x_shape

    Raises
    ------
    TypeError, ValueError
        As `max_pool2d`; `dy` must have the shape that the forward call returned.
    """
    layout = validate.layout(layout)
    image, single = validate.shape4(x_shape, "x_shape", layout)
    pooling = Pooling.of(image, "x_shape", kernel, stride, padding, 1, ceil_mode, count_include_pad)
    dy = validate.like_output(dy, "dy", layout, None, pooling.output, single)
    validate.fits_in_memory(image.shape(layout), dy.dtype, "dx")
    dx = workspace.result(image.shape(layout), dy.dtype)
    parts, size = pooling.threads, average_pooling.scratch_bytes(pooling.window, dy.itemsize)
    scratch = workspace.scratch(parts * size, "strips")
    planes, counts = by_planes(image, layout), image_counts(image, layout)
    run = average_pooling.avg_pool_backward_nchw if planes else average_pooling.avg_pool_backward_nhwc
    run(dy.dtype, parts, dy, dx, scratch, size, _streams(dx), *counts, *pooling.window)
    return dx[0] if single else dx


def _channel_rows(threads: int, channels: int) -> tuple[Array, int]:
    """Return scratch of two rows of 8 bytes a channel for each thread, and the bytes of a row: whole vectors."""
    row = aligned(8 * channels + 2 * VECTOR_BYTES)
    return workspace.scratch(2 * threads * row, "strips"), row


def global_avg_pool2d(x: Array, *, layout: str = "NCHW") -> Array:
    """Return the average of each channel of each image.

    The sum is kept in float64 and by blocks: for float32 the result is exact but for its last rounding.

    Parameters
    ----------
    x : ndarray of float32 or float64, shape (N, C, H, W) or (C, H, W)
        The images. An image without pixels averages to NaN, as in PyTorch.
    layout : {"NCHW", "NHWC"}
        The order of the axes of `x` and of the result.

    Returns
    -------
    ndarray of x.dtype, shape (N, C, 1, 1) or (C, 1, 1)

    Raises
    ------
    TypeError, ValueError
        As `max_pool2d`, but for images without pixels.
    """
    layout = validate.layout(layout)
    batch = validate.activation(x, "x", layout)
    y = np.empty(_single_pixel(batch.sizes).shape(layout), batch.array.dtype)
    parts = threads_for(batch.array.size)
    counts = pixel_counts(batch.sizes, layout)
    if by_planes(batch.sizes, layout):
        global_pooling.global_avg_nchw(y.dtype, parts, batch.array, y, *counts)
    else:
        scratch, row = _channel_rows(parts, batch.sizes.c)
        global_pooling.global_avg_nhwc(y.dtype, parts, batch.array, y, scratch, row, *counts)
    return batch.back(y)


def global_avg_pool2d_backward(dy: Array, x_shape: tuple[int, ...], *, layout: str = "NCHW") -> Array:
    """Return the gradient of `global_avg_pool2d`: each `dy` is spread evenly over its image.

    Parameters
    ----------
    dy : ndarray of float32 or float64, shape (N, C, 1, 1) or (C, 1, 1)
        The gradient of the result.
    x_shape : tuple of int
    layout : {"NCHW", "NHWC"}
        The shape of the input, (N, C, H, W) or (C, H, W), and its order of axes.

    Returns
    -------
    ndarray of dy.dtype, shape x_shape

    Raises
    ------
    TypeError, ValueError
        As `global_avg_pool2d`; `dy` must have the shape that the forward call returned.
    """
    layout = validate.layout(layout)
    image, single = validate.shape4(x_shape, "x_shape", layout)
    dy = validate.like_output(dy, "dy", layout, None, _single_pixel(image), single)
    validate.fits_in_memory(image.shape(layout), dy.dtype, "dx")
    dx = workspace.result(image.shape(layout), dy.dtype)
    planes = by_planes(image, layout)
    run = global_pooling.global_avg_backward_nchw if planes else global_pooling.global_avg_backward_nhwc
    run(dy.dtype, threads_for(dx.size), dy, dx, *pixel_counts(image, layout))
    return dx[0] if single else dx


def global_max_pool2d(x: Array, *, layout: str = "NCHW") -> tuple[Array, Array]:
    """Return the largest pixel of each channel of each image, and which pixel it is.

    Parameters
    ----------
    x : ndarray of float32 or float64, shape (N, C, H, W) or (C, H, W)
        The images; H and W at least 1. NaN wins over every number.
    layout : {"NCHW", "NHWC"}
        The order of the axes of `x` and of the result.

    Returns
    -------
    y : ndarray of x.dtype, shape (N, C, 1, 1) or (C, 1, 1)
    argmax : ndarray of y's shape
        The offset h * W + w of the pixel in its image, in the smallest unsigned integer dtype that holds
        H * W - 1. Of equal pixels it is the first; of several NaN the first too, where PyTorch takes the last.

    Raises
    ------
    TypeError, ValueError
        As `max_pool2d`.
    """
    layout = validate.layout(layout)
    batch = validate.activation(x, "x", layout)
    sizes = batch.sizes
    validate.image_with_pixels(sizes, "x")
    limits.whole_image(sizes, "x", by_planes(sizes, layout), batch.array.dtype)
    y = np.empty(_single_pixel(sizes).shape(layout), batch.array.dtype)
    argmax = np.empty(y.shape, np.uint64)
    parts, counts = threads_for(batch.array.size), pixel_counts(sizes, layout)
    if by_planes(sizes, layout):
        global_pooling.global_max_nchw(y.dtype, parts, batch.array, y, argmax, *counts)
    else:
        scratch, row = _channel_rows(parts, sizes.c)
        global_pooling.global_max_nhwc(y.dtype, parts, batch.array, y, argmax, scratch, row, *counts)
    return batch.back(y), batch.back(argmax.astype(offset_dtype(sizes.h * sizes.w)))


def global_max_pool2d_backward(dy: Array, argmax: Array, x_shape: tuple[int, ...], *, layout: str = "NCHW") -> Array:
    """Return the gradient of `global_max_pool2d`: each `dy` goes to the pixel that was the largest.

    Parameters
    ----------
    dy : ndarray of float32 or float64, shape (N, C, 1, 1) or (C, 1, 1)
        The gradient of the result.
    argmax : ndarray of dy's shape
        As `global_max_pool2d` returned it.
    x_shape : tuple of int
    layout : {"NCHW", "NHWC"}
        The shape of the input, (N, C, H, W) or (C, H, W), and its order of axes.

    Returns
    -------
    ndarray of dy.dtype, shape x_shape

    Raises
    ------
    TypeError, ValueError
        As `max_pool2d_backward`.
    """
    layout = validate.layout(layout)
    image, single = validate.shape4(x_shape, "x_shape", layout)
    validate.image_with_pixels(image, "x_shape")
    dy = validate.like_output(dy, "dy", layout, None, _single_pixel(image), single)
    dtype = offset_dtype(image.h * image.w)
    argmax = validate.argmax(argmax, "argmax", layout, dtype, _single_pixel(image), single)
    validate.fits_in_memory(image.shape(layout), dy.dtype, "dx")
    dx = workspace.result(image.shape(layout), dy.dtype)
    parts, planes = threads_for(dx.size), by_planes(image, layout)
    bad = np.zeros(parts, np.int64)
    run = global_pooling.global_max_backward_nchw if planes else global_pooling.global_max_backward_nhwc
    run(dy.dtype, parts, dy, argmax.astype(np.uint64), dx, bad, *pixel_counts(image, layout))
    validate.argmax_entries(int(bad.sum()), "argmax", "global_max_pool2d")
    return dx[0] if single else dx
