"""Stand-in for DeZero's `functions_conv` ("Deep Learning from Scratch 3", Saito, 2020).

The functions take and return arrays. If DeZero is installed and one of their arguments is its Variable, they return
Variables and gradients flow, of any order. `install` puts them in place of DeZero's own, for its layers and models.
The classes `Conv2d`, `Deconv2d`, `Conv2DGradW`, `Pooling`, `Pooling2DGrad`, `Pooling2DWithIndexes`, `AveragePooling`,
`Im2col` and `Col2im` are subclasses of DeZero's Function, and need it.

float32 and float64 are computed as they come, as in DeZero; if an array is float64 the result is. All other types are
computed, and returned, in float64.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

import numpy as np

from .. import columns, validate
from ..conv import conv2d as _conv2d
from ..conv import conv_transpose2d as _conv_transpose2d
from ..pool import avg_pool2d as _avg_pool2d
from ..pool import max_pool2d as _max_pool2d
from ..shapes import Pair, conv_output_size
from .arrays import Array, floats, with_axes
from .naming import argument_names

FUNCTIONS = ("average_pooling", "col2im", "conv2d", "deconv2d", "im2col", "pooling")
CLASSES = (
    "AveragePooling",
    "Col2im",
    "Conv2DGradW",
    "Conv2d",
    "Deconv2d",
    "Im2col",
    "Pooling",
    "Pooling2DGrad",
    "Pooling2DWithIndexes",
)
__all__ = ["average_pooling", "col2im", "conv2d", "deconv2d", "im2col", "install", "pooling", "uninstall"]

Size = int | Pair
_named = argument_names(w="W", padding="pad", x_shape="input_shape", kernel="kernel_size")


def _functions() -> Any:
    """Return the module of Function classes, which needs DeZero."""
    try:
        return importlib.import_module(".dezero_functions", __package__)
    except ModuleNotFoundError as error:
        if error.name != "dezero":
            raise
        raise ImportError("DeZero is not installed: pip install dezero") from None
    except AttributeError as error:  # its transforms use np.int, which NumPy 1.24 removed
        raise ImportError(f"DeZero cannot be imported ({error}): set `numpy.int = int` before") from error


def __getattr__(name: str) -> Any:
    if name in CLASSES:
        return getattr(_functions(), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _on_variables(*values: Any) -> bool:
    """Whether one of these is a Variable of DeZero."""
    core = sys.modules.get("dezero")
    return core is not None and any(isinstance(value, core.Variable) for value in values)


def _arrays(x: Any, W: Any, b: Any) -> tuple[Array, Array, Array | None]:
    """Return images, weights and the bias, if there is one, in one dtype."""
    if b is None:
        return *floats(True, x=x, W=W), None
    x, W, b = floats(True, x=x, W=W, b=b)
    return x, W, b


def pooled_on(x: Array, pad: Size, strict: bool) -> tuple[Array, Size]:
    """Return the images that a pooling sees, and its padding: strict pads with zeros first."""
    if not validate.boolean(strict, "strict"):
        return x, pad
    ph, pw = validate.pair(pad, "pad", 0)
    n, c, h, w = with_axes(x, "x", "N, C, H, W").shape
    validate.array_fits((n, c, h + 2 * ph, w + 2 * pw), "pad")
    return np.pad(x, ((0, 0), (0, 0), (ph, ph), (pw, pw))), 0


@_named
def im2col(x: Any, kernel_size: Size, stride: Size = 1, pad: Size = 0, to_matrix: bool = True) -> Any:
    """Return the windows of images.

    Parameters
    ----------
    x : (N, C, H, W) array or Variable
    kernel_size, stride, pad : int or (int, int)
        Down and across.
    to_matrix : bool

    Returns
    -------
    (N * OH * OW, C * KH * KW) array, not `to_matrix`: (N, C, KH, KW, OH, OW)

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit; the message names it.
    """
    if _on_variables(x):
        return _functions().Im2col(kernel_size, stride, pad, to_matrix)(x)
    (x,) = floats(True, x=x)
    n, c, h, w = with_axes(x, "x", "N, C, H, W").shape
    rows = columns.im2col(x, kernel_size, stride=stride, padding=pad)
    if validate.boolean(to_matrix, "to_matrix"):
        return rows
    kernel, steps, pads = _pairs(kernel_size, stride, pad)
    windows = rows.reshape(n, *_windows((h, w), kernel, steps, pads), c, *kernel)
    return np.ascontiguousarray(windows.transpose(0, 3, 4, 5, 1, 2))


def _pairs(kernel_size: Size, stride: Size, pad: Size) -> tuple[Pair, Pair, Pair]:
    kernel, steps = validate.pair(kernel_size, "kernel_size"), validate.pair(stride, "stride")
    return kernel, steps, validate.pair(pad, "pad", 0)


def _windows(size: Pair, kernel: Pair, stride: Pair, pad: Pair) -> Pair:
    """Return how many windows there are, down and across."""
    axes = zip(size, kernel, stride, pad, strict=True)
    rows, across = (conv_output_size(length, k, s, (p, p), 1) for length, k, s, p in axes)
    return rows, across


@_named
def col2im(
    x: Any,
    input_shape: tuple[int, int, int, int],
    kernel_size: Size,
    stride: Size = 1,
    pad: Size = 0,
    to_matrix: bool = True,
) -> Any:
    """Add windows to the images they came from: the gradient of `im2col`.

    Parameters
    ----------
    x : array or Variable
        As `im2col` returned it.
    input_shape : (N, C, H, W)
        Of the images.
    kernel_size, stride, pad, to_matrix
        As in `im2col`.

    Returns
    -------
    (N, C, H, W) array

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit; the message names it.
    """
    if _on_variables(x):
        return _functions().Col2im(input_shape, kernel_size, stride, pad, to_matrix)(x)
    (x,) = floats(True, x=x)
    sizes = validate.shape4(input_shape, "input_shape", "NCHW", batched=True)[0]
    if validate.boolean(to_matrix, "to_matrix"):
        x = with_axes(x, "x", "N*OH*OW, C*KH*KW")
    else:
        rows = with_axes(x, "x", "N, C, KH, KW, OH, OW").transpose(0, 4, 5, 1, 2, 3)
        kernel, steps, pads = _pairs(kernel_size, stride, pad)
        windows = _windows((sizes.h, sizes.w), kernel, steps, pads)
        if rows.shape != (sizes.n, *windows, sizes.c, *kernel):
            wanted = (sizes.n, sizes.c, *kernel, *windows)
            raise ValueError(f"`x` must have shape {wanted} (N, C, KH, KW, OH, OW), got {x.shape}")
        x = rows.reshape(sizes.n * windows[0] * windows[1], -1)
    return argument_names(columns="x")(columns.col2im)(x, tuple(sizes), kernel_size, stride=stride, padding=pad)


@_named
def conv2d(x: Any, W: Any, b: Any = None, stride: Size = 1, pad: Size = 0) -> Any:
    """Convolve images.

    Parameters
    ----------
    x : (N, C, H, W) array or Variable
    W : (OC, C, KH, KW) array or Variable
    b : (OC,) array or Variable, optional
    stride, pad : int or (int, int)
        Down and across.

    Returns
    -------
    (N, OC, OH, OW) array

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit; the message names it.
    """
    if _on_variables(x, W, b):
        return _functions().Conv2d(stride, pad)(x, W, b)
    x, W, b = _arrays(x, W, b)
    return _conv2d(with_axes(x, "x", "N, C, H, W"), W, b, stride=stride, padding=pad)


@_named
def deconv2d(x: Any, W: Any, b: Any = None, stride: Size = 1, pad: Size = 0, outsize: Size | None = None) -> Any:
    """Return the transposed convolution of images.

    Parameters
    ----------
    x : (N, C, H, W) array or Variable
    W : (C, OC, KH, KW) array or Variable
    b : (OC,) array or Variable, optional
    stride, pad : int or (int, int)
        Down and across.
    outsize : int or (int, int), optional
        Height and width of the result: those of the formula, or up to stride - 1 more.

    Returns
    -------
    (N, OC, OH, OW) array
        OH = stride * (H - 1) + KH - 2 * pad, unless `outsize` is given; so OW.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit; the message names it.
    """
    if _on_variables(x, W, b):
        return _functions().Deconv2d(stride, pad, outsize)(x, W, b)
    x, W, b = _arrays(x, W, b)
    with_axes(x, "x", "N, C, H, W"), with_axes(W, "W", "C, OC, KH, KW")
    kernel, steps, pads = _pairs(W.shape[2:], stride, pad)
    extra = (0, 0)
    if outsize is not None:
        axes = zip(validate.pair(outsize, "outsize"), x.shape[2:], kernel, steps, pads, strict=True)
        extra = tuple(size - s * (length - 1) - k + 2 * p for size, length, k, s, p in axes)
        if not all(0 <= e < s for e, s in zip(extra, steps, strict=True)):
            raise ValueError(
                f"`outsize` must be what a convolution with this stride and pad makes `x` of, got {outsize!r} "
                f"for images of {x.shape[2]}x{x.shape[3]}"
            )
    return _conv_transpose2d(x, W, b, stride=steps, padding=pads, output_padding=extra)


@_named
def pooling(x: Any, kernel_size: Size, stride: Size = 1, pad: Size = 0, *, strict: bool = False) -> Any:
    """Return the largest pixel of each window.

    Parameters
    ----------
    x : (N, C, H, W) array or Variable
    kernel_size, stride, pad : int or (int, int)
        Down and across; the padding at most half the window, strict: any.
    strict : bool
        Pad with zeros, which win over negative pixels, as the original does. By default the padding never wins.

    Returns
    -------
    (N, C, OH, OW) array

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit; the message names it.
    """
    if _on_variables(x):
        return _functions().Pooling(kernel_size, stride, pad, strict=strict)(x)
    (x,) = floats(True, x=x)
    x, pad = pooled_on(with_axes(x, "x", "N, C, H, W"), pad, strict)
    return _max_pool2d(x, kernel_size, stride=stride, padding=pad)


@_named
def average_pooling(x: Any, kernel_size: Size, stride: Size = 1, pad: Size = 0) -> Any:
    """Return the average of each window; zeros of the padding count.

    Parameters
    ----------
    x : (N, C, H, W) array or Variable
    kernel_size, stride, pad : int or (int, int)
        Down and across; the padding at most half the window.

    Returns
    -------
    (N, C, OH, OW) array

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit; the message names it.
    """
    if _on_variables(x):
        return _functions().AveragePooling(kernel_size, stride, pad)(x)
    (x,) = floats(True, x=x)
    return _avg_pool2d(with_axes(x, "x", "N, C, H, W"), kernel_size, stride=stride, padding=pad)


_replaced: dict[tuple[str, str], Any] = {}


def install() -> None:
    """Put these functions in place of those in `dezero.functions` and `dezero.functions_conv`, for layers and models.

    They return Variables there whatever they are given, as the original's.

    Raises
    ------
    ImportError
        If DeZero is not installed, or cannot be imported.
    """
    functions = _functions()
    for module in ("dezero.functions", "dezero.functions_conv"):
        for name in FUNCTIONS:
            place = importlib.import_module(module)
            _replaced.setdefault((module, name), getattr(place, name))
            setattr(place, name, getattr(functions, name))


def uninstall() -> None:
    """Put DeZero's own functions back."""
    for (module, name), original in _replaced.items():
        setattr(importlib.import_module(module), name, original)
    _replaced.clear()
