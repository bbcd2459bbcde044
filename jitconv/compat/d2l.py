"""Stand-in for the functions of the convolution chapters of "Dive into Deep Learning" (d2l).

Images are (H, W), with channels (C, H, W). They take NumPy arrays and, where PyTorch is installed, its tensors, through
which gradients flow. Results are float32 whatever comes in (tensors: PyTorch's default dtype), as in the book, whose
functions fill an array of zeros; `preserve_dtype=True` keeps float64. Products and sums of float64 and of integers are
float64 until then.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from .. import validate
from ..conv import conv2d, conv_transpose2d
from ..pool import avg_pool2d, max_pool2d
from .arrays import as_array, with_axes
from .naming import argument_names

__all__ = [
    "comp_conv2d",
    "corr2d",
    "corr2d_multi_in",
    "corr2d_multi_in_out",
    "corr2d_multi_in_out_1x1",
    "pool2d",
    "trans_conv",
]

_FLOAT32, _FLOAT64 = np.dtype(np.float32), np.dtype(np.float64)
_named = argument_names(x="X", w="K", kernel="K")


class _ArrayOperations:
    """What the functions need, on NumPy arrays; `d2l_torch.TensorOperations` has the same on tensors."""

    @staticmethod
    def inputs(**values: Any) -> tuple[Any, ...]:
        """Return arrays in the dtype in which they are computed."""
        arrays = [as_array(value, name) for name, value in values.items()]
        dtype = _FLOAT32 if all(a.dtype == _FLOAT32 for a in arrays) else _FLOAT64
        return tuple(a.astype(dtype, copy=False) for a in arrays)

    @staticmethod
    def result(y: Any, preserve_dtype: bool, *given: Any) -> Any:
        """Return a result in the dtype in which it is handed back."""
        keeps = preserve_dtype and any(np.asarray(value).dtype == _FLOAT64 for value in given)
        return y if keeps else y.astype(_FLOAT32, copy=False)

    @staticmethod
    def correlate(x: Any, w: Any) -> Any:
        """Return the correlation of x (C, H, W) with w (F, C, KH, KW)."""
        return conv2d(x, w)

    @staticmethod
    def spread(x: Any, w: Any) -> Any:
        """Return the transposed convolution of x (C, H, W) with w (C, F, KH, KW)."""
        return conv_transpose2d(x, w)

    @staticmethod
    def pool(x: Any, size: tuple[int, int], mode: str) -> Any:
        """Return the largest or the average pixel of each window of x (C, H, W), at stride 1."""
        return max_pool2d(x, size, stride=1) if mode == "max" else avg_pool2d(x, size, stride=1)

    @staticmethod
    def matmul(a: Any, b: Any) -> Any:
        """Return the matrix product."""
        return np.matmul(a, b)

    @staticmethod
    def zeros_like(y: Any) -> Any:
        """Return zeros."""
        return np.zeros_like(y)


def _operations(*values: Any) -> Any:
    """Return the operations for these arrays: those on tensors if one of them is a tensor."""
    torch = sys.modules.get("torch")
    if torch is None or not any(isinstance(value, torch.Tensor) for value in values):
        return _ArrayOperations
    from .d2l_torch import TensorOperations

    return TensorOperations


@_named
def corr2d(X: Any, K: Any, *, preserve_dtype: bool = False) -> Any:
    """Return the cross-correlation of an image with a kernel.

    Parameters
    ----------
    X : (H, W) array
    K : (h, w) array
    preserve_dtype : bool
        Return float64 if an array is float64. By default the result is float32.

    Returns
    -------
    (H - h + 1, W - w + 1) array

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit; the message names it.
    """
    on, keep = _operations(X, K), validate.boolean(preserve_dtype, "preserve_dtype")
    x, w = on.inputs(X=X, K=K)
    y = on.correlate(with_axes(x, "X", "H, W")[None], with_axes(w, "K", "h, w")[None, None])
    return on.result(y[0], keep, X, K)


def _fewest_channels(x: Any, w: Any, strict: bool, axis: int = 0) -> tuple[Any, Any]:
    """Return both, strict: with the channels that both have."""
    if validate.boolean(strict, "strict"):
        count = min(x.shape[0], w.shape[axis])
        return x[:count], (w[:count] if axis == 0 else w[:, :count])
    if x.shape[0] != w.shape[axis]:
        raise ValueError(f"`K` has {w.shape[axis]} input channels, but `X` has {x.shape[0]}")
    return x, w


@_named
def corr2d_multi_in(X: Any, K: Any, *, strict: bool = False, preserve_dtype: bool = False) -> Any:
    """Return the sum of the cross-correlations of channels with their kernels.

    Parameters
    ----------
    X : (C, H, W) array
    K : (C, h, w) array
    strict : bool
        If `X` and `K` have different numbers of channels, leave out those that one of them has not, as the original
        does. By default that is a ValueError.
    preserve_dtype : bool
        As in `corr2d`.

    Returns
    -------
    (H - h + 1, W - w + 1) array

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit; the message names it.
    """
    on, keep = _operations(X, K), validate.boolean(preserve_dtype, "preserve_dtype")
    x, w = on.inputs(X=X, K=K)
    x, w = _fewest_channels(with_axes(x, "X", "C, H, W"), with_axes(w, "K", "C, h, w"), strict)
    return on.result(on.correlate(x, w[None])[0], keep, X, K)


@_named
def corr2d_multi_in_out(X: Any, K: Any, *, strict: bool = False, preserve_dtype: bool = False) -> Any:
    """Return `corr2d_multi_in` of X with each of several kernels.

    Parameters
    ----------
    X : (C, H, W) array
    K : (D, C, h, w) array
    strict, preserve_dtype
        As in `corr2d_multi_in`.

    Returns
    -------
    (D, H - h + 1, W - w + 1) array

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit; the message names it.
    """
    on, keep = _operations(X, K), validate.boolean(preserve_dtype, "preserve_dtype")
    x, w = on.inputs(X=X, K=K)
    x, w = _fewest_channels(with_axes(x, "X", "C, H, W"), with_axes(w, "K", "D, C, h, w"), strict, axis=1)
    return on.result(on.correlate(x, w), keep, X, K)


@_named
def corr2d_multi_in_out_1x1(X: Any, K: Any) -> Any:
    """Return the 1x1 convolution of X as a matrix product.

    Parameters
    ----------
    X : (C, H, W) array
    K : (D, C, 1, 1) array, or any other of D * C elements with D first

    Returns
    -------
    (D, H, W) array
        float64 if an array is, as the original's matrix product, else float32.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit; the message names it.
    """
    on = _operations(X, K)
    x, w = on.inputs(X=X, K=K)
    c, height, width = with_axes(x, "X", "C, H, W").shape
    if w.ndim < 1 or w.shape[0] * c != np.prod(w.shape):
        raise ValueError(f"`K` must have shape (D, {c}, 1, 1), as `X` has {c} channels, got {tuple(w.shape)}")
    y = on.matmul(w.reshape(w.shape[0], c), x.reshape(c, height * width))
    return on.result(y.reshape(w.shape[0], height, width), True, X, K)


@argument_names(x="X", kernel="pool_size")
def pool2d(
    X: Any, pool_size: tuple[int, int], mode: str = "max", *, strict: bool = False, preserve_dtype: bool = False
) -> Any:
    """Return the largest or the average pixel of each window of an image, at stride 1.

    Parameters
    ----------
    X : (H, W) array
    pool_size : (int, int)
        Height and width of the window.
    mode : {"max", "avg"}
    strict : bool
        Return zeros for any other `mode`, as the original does. By default that is a ValueError.
    preserve_dtype : bool
        As in `corr2d`.

    Returns
    -------
    (H - pool_size[0] + 1, W - pool_size[1] + 1) array

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit; the message names it.
    """
    on, keep = _operations(X), validate.boolean(preserve_dtype, "preserve_dtype")
    known = isinstance(mode, str) and mode in ("max", "avg")
    if not validate.boolean(strict, "strict"):
        validate.choice(mode, "mode", ("max", "avg"))
    (x,) = on.inputs(X=X)
    y = on.pool(with_axes(x, "X", "H, W")[None], validate.pair(pool_size, "pool_size"), mode if known else "max")[0]
    return on.result(y if known else on.zeros_like(y), keep, X)


@_named
def trans_conv(X: Any, K: Any, *, preserve_dtype: bool = False) -> Any:
    """Return the transposed convolution of an image: each pixel spread over a window.

    Parameters
    ----------
    X : (H, W) array
    K : (h, w) array
    preserve_dtype : bool
        As in `corr2d`.

    Returns
    -------
    (H + h - 1, W + w - 1) array

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit; the message names it.
    """
    on, keep = _operations(X, K), validate.boolean(preserve_dtype, "preserve_dtype")
    x, w = on.inputs(X=X, K=K)
    y = on.spread(with_axes(x, "X", "H, W")[None], with_axes(w, "K", "h, w")[None, None])
    return on.result(y[0], keep, X, K)


def comp_conv2d(conv2d: Any, X: Any) -> Any:
    """Return a convolution layer's output for one image, without the axes of batch and channels.

    Parameters
    ----------
    conv2d : callable
        Takes (1, 1, H, W): a `jitconv.layers.Conv2d`, whose dtype X is given, or a layer of PyTorch for a tensor.
    X : (H, W) array

    Returns
    -------
    (OH, OW) array

    Raises
    ------
    TypeError, ValueError
        If X has other axes, or the layer returns more than one channel.
    """
    if not callable(conv2d):
        raise TypeError(f"`conv2d` must be a layer or a function, got {validate.shown(conv2d)}")
    x = X
    if _operations(X) is _ArrayOperations:
        dtype = getattr(getattr(conv2d, "weight", None), "dtype", None)
        x = as_array(X, "X")
        x = x.astype(dtype, copy=False) if isinstance(dtype, np.dtype) else x
    y = conv2d(with_axes(x, "X", "H, W").reshape((1, 1, *x.shape)))
    if not hasattr(y, "shape"):
        raise TypeError(f"`conv2d` must return an array, got {type(y).__name__}")
    if tuple(y.shape[:2]) != (1, 1):
        raise ValueError(f"`conv2d` must return one image with one channel, got shape {tuple(y.shape)}")
    return y.reshape(y.shape[2:])
