"""im2col and col2im: the windows of a batch as the rows of a matrix, and back."""

from __future__ import annotations

import numpy as np

from . import shapes, threads, validate
from .kernels import columns as kernels
from .kernels.windows import Window
from .shapes import Activation
from .validate import Array

Size = int | tuple[int, int]
PaddingSizes = int | str | tuple[int, int] | tuple[tuple[int, int], tuple[int, int]]


def _window(
    image: Activation, name: str, kernel: Size, stride: Size, padding: PaddingSizes, dilation: Size
) -> tuple[Window, tuple[int, int]]:
    """Check the arguments, and return the window and the shape of the matrix of columns."""
    kernel, stride = validate.pair(kernel, "kernel"), validate.pair(stride, "stride")
    dilation = validate.pair(dilation, "dilation")
    sides = validate.padding(padding, kernel, stride, dilation)
    validate.image_with_pixels(image, name)
    sizes = (
        shapes.conv_output_size(*axis) for axis in zip((image.h, image.w), kernel, stride, sides, dilation, strict=True)
    )
    output = Activation(image.n, image.c, *sizes)
    validate.output_sizes_positive(output, image, kernel, sides, dilation)
    shape = (image.n * output.h * output.w, image.c * kernel[0] * kernel[1])
    return Window.of((image.h, image.w), (output.h, output.w), kernel, stride, sides, dilation), shape


def _pixel_offsets(window: Window, channels: int) -> Array:
    """Return how far each pixel of a window lies from the first in an image, in the order c, kh, kw."""
    return np.add.outer(np.arange(channels, dtype=np.int64) * (window.h * window.w), window.tap_offsets())


def im2col(x: Array, kernel: Size, *, stride: Size = 1, padding: PaddingSizes = 0, dilation: Size = 1) -> Array:
    """Return the window of every output pixel of a convolution as a row of a matrix.

    With it a convolution is a matrix product: `im2col(x, (KH, KW)) @ w.reshape(F, -1).T` has the output
    pixels as rows and the output channels as columns. The matrix is about KH * KW / stride**2 times as large
    as `x`.

    Parameters
    ----------
    x : ndarray of float32 or float64, shape (N, C, H, W) or (C, H, W)
        The images.
    kernel : int or (int, int)
        Height and width of the window.
    stride : int or (int, int)
        Pixels from one window to the next.
    padding : int, (int, int), ((top, bottom), (left, right)), "same" or "valid"
        Rows and columns of zeros around the image.
    dilation : int or (int, int)
        Pixels from one tap of the window to the next.

    Returns
    -------
    ndarray of x.dtype, shape (N * OH * OW, C * KH * KW)
        Rows in the order n, oh, ow; columns in the order c, kh, kw. OH and OW are those of a convolution.

    Raises
    ------
    TypeError
        If `x` is not a float32 or float64 array, or a size is not an integer.
    ValueError
        If a shape or a size does not fit; the message names the argument and the rule.

    Notes
    -----
    The layout of the matrix is that of "Deep Learning from Scratch" (Saito, 2016), section 7.4.
    """
    batch = validate.activation(x, "x", "NCHW")
    window, shape = _window(batch.sizes, "x", kernel, stride, padding, dilation)
    validate.fits_in_memory(shape, batch.array.dtype, "columns")
    columns = np.empty(shape, batch.array.dtype)
    if not columns.size:
        return columns
    counts = batch.sizes.n, batch.sizes.c
    offsets = _pixel_offsets(window, batch.sizes.c)
    kernels.im2col(columns.dtype, threads.get_num_threads(), batch.array, columns, offsets, *counts, *window)
    return columns


def col2im(
    columns: Array,
    x_shape: tuple[int, ...],
    kernel: Size,
    *,
    stride: Size = 1,
    padding: PaddingSizes = 0,
    dilation: Size = 1,
) -> Array:
    """Add the rows of a matrix of windows to the images they came from.

    A pixel that lies in several windows gets the sum, in the order of the rows; one that lies in none is
    zero. So this is the gradient of `im2col`, not its inverse.

    Parameters
    ----------
    columns : ndarray of float32 or float64, shape (N * OH * OW, C * KH * KW)
        The windows, laid out as by `im2col`.
    x_shape : tuple of int
        The shape of the images, (N, C, H, W) or (C, H, W).
    kernel, stride, padding, dilation
        As in `im2col`. What falls into the padding is dropped.

    Returns
    -------
    ndarray of columns.dtype, shape x_shape

    Raises
    ------
    TypeError
        If `columns` is not a float32 or float64 array, or a size is not an integer.
    ValueError
        If a shape or a size does not fit; the message names the argument and the rule.
    """
    image, single = validate.shape4(x_shape, "x_shape", "NCHW")
    window, shape = _window(image, "x_shape", kernel, stride, padding, dilation)
    columns = validate.array(columns, "columns", shape, None, "(N*OH*OW, C*KH*KW)")
    validate.fits_in_memory(image.shape("NCHW"), columns.dtype, "x")
    x = np.empty(image.shape("NCHW"), columns.dtype)
    if not x.size:
        return x[0] if single else x
    offsets = _pixel_offsets(window, image.c)
    kernels.col2im(x.dtype, threads.get_num_threads(), columns, x, offsets, image.n, image.c, *window)
    return x[0] if single else x
