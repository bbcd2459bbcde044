"""`fast_layers.py` of CS231n's assignments: convolution and max pooling with their caches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ... import shapes, validate
from ...conv import conv2d, conv2d_backward
from .. import ties as pooling
from ..arrays import Array, AsItWas, as_array, floats, of_forward, with_axes, with_shape
from .im2col_cython import col2im_cython, im2col_cython

__all__ = [
    "conv_backward_fast",
    "conv_backward_im2col",
    "conv_backward_strides",
    "conv_forward_fast",
    "conv_forward_im2col",
    "conv_forward_strides",
    "max_pool_backward_fast",
    "max_pool_backward_im2col",
    "max_pool_backward_reshape",
    "max_pool_forward_fast",
    "max_pool_forward_im2col",
    "max_pool_forward_reshape",
]

Param = Mapping[str, Any]
ConvCache = tuple[Any, Any, Any, Param, AsItWas]
PoolCache = tuple[Array, Array | None, Param, str]
_CONV_CACHE = object, object, object, object, AsItWas


def _option(param: Any, name: str, key: str, minimum: int) -> int:
    if not isinstance(param, Mapping) or key not in param:
        raise ValueError(f"`{name}` must be a dictionary with the key {key!r}, got {validate.shown(param)}")
    return validate.integer(param[key], f"{name}[{key!r}]", minimum)


def _conv_options(conv_param: Any) -> dict[str, Any]:
    return {
        "stride": _option(conv_param, "conv_param", "stride", 1),
        "padding": _option(conv_param, "conv_param", "pad", 0),
    }


def _divides(image: tuple[int, ...], window: tuple[int, ...], stride: int, pad: int) -> None:
    """Assert what older copies of the originals assert: that the windows fill the padded image."""
    for size, k, name in zip(image, window, ("height", "width"), strict=True):
        if (size + 2 * pad - k) % stride:
            raise AssertionError(f"{name}: windows of {k} at a stride of {stride} do not fill {size} + 2 * {pad}")


def _arrays(x: Any, w: Any, b: Any) -> tuple[Array, Array, Array]:
    x, w, b = floats(True, x=x, w=w, b=b)
    if with_axes(w, "w", "F, C, HH, WW").shape[1] != with_axes(x, "x", "N, C, H, W").shape[1]:
        raise ValueError(f"`w` has {w.shape[1]} input channels, but `x` has {x.shape[1]}")
    return x, w, b


def _misread(x: Array, pad: int) -> Array:
    """Return the padded x as `conv_forward_strides` reads it where it lies in Fortran order: as if it did not."""
    padded = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    return padded.ravel(order="K").reshape(padded.shape)


def conv_forward_fast(x: Any, w: Any, b: Any, conv_param: Param, *, strict: bool = False) -> tuple[Array, ConvCache]:
    """Return a convolution, and what `conv_backward_fast` needs.

    Parameters
    ----------
    x : array_like, (N, C, H, W)
    w : array_like, (F, C, HH, WW)
    b : array_like, (F,)
    conv_param : dict
        "stride" and "pad", integers for both axes.
    strict : bool
        Raise the AssertionError of older copies where the windows do not fill the padded image, and misread an x in
        Fortran order as the original does.

    Returns
    -------
    out : ndarray, (N, F, OH, OW)
        Windows that the image has no whole stride for are left out.
    cache : tuple
        (x, w, b, conv_param), not copies, and what notices that x was changed before the backward pass.

    Raises
    ------
    TypeError, ValueError
        As `jitconv.conv2d`.
    """
    a, weights, bias = _arrays(x, w, b)
    options = _conv_options(conv_param)
    kept = AsItWas(a, x, "x")
    cache = x, w, b, conv_param, kept
    if validate.boolean(strict, "strict"):
        _divides(a.shape[2:], weights.shape[2:], options["stride"], options["padding"])
        if a.flags.fnc:
            return conv2d(_misread(a, options["padding"]), weights, bias, stride=options["stride"]), cache
    return conv2d(kept.array, weights, bias, **options), cache


def conv_backward_fast(dout: Any, cache: ConvCache, *, strict: bool = False) -> tuple[Array, Array, Array]:
    """Return the gradients of `conv_forward_fast`.

    Parameters
    ----------
    dout : array_like, (N, F, OH, OW)
    cache : tuple
        From the forward call.
    strict : bool
        As in the forward call.

    Returns
    -------
    dx, dw, db : ndarray
        In the shapes of x, w and b.

    Raises
    ------
    TypeError, ValueError
        As `jitconv.conv2d_backward`.
    RuntimeError
        If x has been changed since the forward call.
    """
    x, w, _, conv_param, kept = of_forward(cache, *_CONV_CACHE)
    dy, a, weights = floats(True, dout=dout, x=kept.unchanged(), w=w)
    options = _conv_options(conv_param)
    with_shape(dy, "dout", _output_shape(a.shape, len(weights), weights.shape[2:], **options))
    if validate.boolean(strict, "strict") and np.asarray(x).flags.fnc:
        misread = _misread(np.asfortranarray(a), options["padding"])
        _, dw, db = conv2d_backward(dy, misread, weights, stride=options["stride"], needs=(False, True, True))
        dx = conv2d_backward(dy, a, weights, **options, needs=(True, False, False)).dx
    else:
        dx, dw, db = conv2d_backward(dy, a, weights, **options)
    assert dx is not None
    assert dw is not None
    assert db is not None
    return dx, dw, db


def _output_shape(
    image: tuple[int, ...], f: int, window: tuple[int, ...], stride: int, padding: int
) -> tuple[int, ...]:
    sizes = zip(image[2:], window, strict=True)
    return image[0], f, *(shapes.conv_output_size(size, k, stride, (padding, padding), 1) for size, k in sizes)


conv_forward_strides, conv_backward_strides = conv_forward_fast, conv_backward_fast


def conv_forward_im2col(x: Any, w: Any, b: Any, conv_param: Param, *, strict: bool = False) -> tuple[Array, ConvCache]:
    """Return what `conv_forward_fast` returns.

    Parameters
    ----------
    x, w, b, conv_param
        As there.
    strict : bool
        Raise an AssertionError where the windows do not fill the padded image, and compute by `im2col_cython` with its
        fault in windows that are not square.

    Raises
    ------
    TypeError, ValueError
        As `conv_forward_fast`; with `strict` as `im2col_cython`.
    """
    if not validate.boolean(strict, "strict"):
        return conv_forward_fast(x, w, b, conv_param)
    a, weights, bias = _arrays(x, w, b)
    options = _conv_options(conv_param)
    _divides(a.shape[2:], weights.shape[2:], options["stride"], options["padding"])
    n, f, oh, ow = _output_shape(a.shape, len(weights), weights.shape[2:], **options)
    kh, kw = weights.shape[2:]
    cols = im2col_cython(a, kh, kw, options["padding"], options["stride"], strict=True)
    out = weights.reshape(f, -1) @ cols + bias.reshape(-1, 1)
    cache = x, w, b, conv_param, AsItWas(a, x, "x")
    return np.ascontiguousarray(out.reshape(f, oh, ow, n).transpose(3, 0, 1, 2)), cache


def conv_backward_im2col(dout: Any, cache: ConvCache, *, strict: bool = False) -> tuple[Array, Array, Array]:
    """Return the gradients of `conv_forward_im2col`, as `conv_backward_fast` does.

    Parameters
    ----------
    dout, cache
        As there.
    strict : bool
        As in the forward call.
    """
    if not validate.boolean(strict, "strict"):
        return conv_backward_fast(dout, cache)
    _, w, _, conv_param, kept = of_forward(cache, *_CONV_CACHE)
    dy, a, weights = floats(True, dout=dout, x=kept.unchanged(), w=w)
    options = _conv_options(conv_param)
    with_shape(dy, "dout", _output_shape(a.shape, len(weights), weights.shape[2:], **options))
    (n, c, h, width), (kh, kw) = a.shape, weights.shape[2:]
    pad, stride = options["padding"], options["stride"]
    rows = dy.transpose(1, 2, 3, 0).reshape(len(weights), -1)
    dw = (rows @ im2col_cython(a, kh, kw, pad, stride, strict=True).T).reshape(weights.shape)
    dcols = weights.reshape(len(weights), -1).T @ rows
    dx = col2im_cython(dcols, n, c, h, width, kh, kw, pad, stride, strict=True)
    return dx, dw, dy.sum(axis=(0, 2, 3))


def _pool_options(pool_param: Any) -> dict[str, Any]:
    sizes = (_option(pool_param, "pool_param", key, 1) for key in ("pool_height", "pool_width", "stride"))
    height, width, stride = sizes
    return {"kernel": (height, width), "stride": stride}


def _tiles(image: tuple[int, ...], kernel: tuple[int, int], stride: int) -> bool:
    """Whether the windows are squares that tile the image: where the original pools by reshaping."""
    return kernel[0] == kernel[1] == stride and image[0] % stride == 0 and image[1] % stride == 0


def _pooled(x: Any, pool_param: Param, ties: str) -> tuple[Array, PoolCache]:
    (a,) = floats(True, x=x)
    out, argmax = pooling.max_pool2d_forward(with_axes(a, "x", "N, C, H, W"), **_pool_options(pool_param), ties=ties)
    return out, (a, argmax, pool_param, ties)


def _unpooled(dout: Any, cache: PoolCache) -> Array:
    x, argmax, pool_param, ties = of_forward(cache, np.ndarray, object, object, str)
    options = _pool_options(pool_param)
    dy, x = floats(True, dout=dout, x=x)
    with_shape(dy, "dout", (*x.shape[:2], *_output_shape(x.shape, 0, options["kernel"], options["stride"], 0)[2:]))
    return pooling.max_pool2d_backward(dy, x, **options, ties=ties, argmax=argmax)


def max_pool_forward_fast(
    x: Any, pool_param: Param, *, ties: str | None = None, strict: bool = False
) -> tuple[Array, tuple[str, PoolCache]]:
    """Return a max pooling, and what `max_pool_backward_fast` needs.

    Parameters
    ----------
    x : array_like, (N, C, H, W)
    pool_param : dict
        "pool_height", "pool_width" and "stride", integers.
    ties : {"first", "all", "split"}, optional
        Which of several largest pixels of a window get the gradient. By default as in the original: "split" where
        square windows tile the image (its reshape path), else "first" (its im2col path).
    strict : bool
        Raise the original's AssertionError where the windows do not fill the image.

    Returns
    -------
    out : ndarray, (N, C, OH, OW)
    cache : tuple
        "reshape" or "im2col", the path of the original, and what the backward pass needs: x itself, not a copy.

    Raises
    ------
    TypeError, ValueError
        As `jitconv.max_pool2d`.
    """
    x = as_array(x, "x")
    image, options = x.shape, _pool_options(pool_param)
    tiled = len(image) == 4 and _tiles(image[2:], **options)
    if validate.boolean(strict, "strict") and len(image) == 4:
        _divides(image[2:], options["kernel"], options["stride"], 0)
    out, cache = _pooled(x, pool_param, pooling.checked(ties) if ties is not None else "split" if tiled else "first")
    return out, ("reshape" if tiled else "im2col", cache)


def max_pool_backward_fast(dout: Any, cache: tuple[str, PoolCache]) -> Array:
    """Return the gradient of `max_pool_forward_fast` for x, (N, C, H, W).

    Parameters
    ----------
    dout : array_like, (N, C, OH, OW)
    cache : tuple
        From the forward call.

    Raises
    ------
    TypeError, ValueError
        As `jitconv.max_pool2d_backward`.
    """
    method, saved = of_forward(cache, object, object)
    validate.choice(method, "cache[0]", ("reshape", "im2col"))
    return _unpooled(dout, saved)


def max_pool_forward_reshape(x: Any, pool_param: Param) -> tuple[Array, PoolCache]:
    """Return a max pooling whose gradient is split among the largest pixels, and what its backward pass needs.

    As `max_pool_forward_fast`, but a ValueError if the windows are not squares that tile the image.
    """
    x, options = with_axes(as_array(x, "x"), "x", "N, C, H, W"), _pool_options(pool_param)
    if not _tiles(x.shape[2:], **options):
        raise ValueError(f"`pool_param` must be squares that tile the image of `x`, {x.shape}, got {pool_param!r}")
    return _pooled(x, pool_param, "split")


def max_pool_forward_im2col(x: Any, pool_param: Param, *, strict: bool = False) -> tuple[Array, PoolCache]:
    """Return a max pooling whose gradient goes to the first largest pixel, and what its backward pass needs.

    Parameters and errors are those of `max_pool_forward_fast`.
    """
    x = as_array(x, "x")
    image, options = x.shape, _pool_options(pool_param)
    if validate.boolean(strict, "strict") and len(image) == 4:
        _divides(image[2:], options["kernel"], options["stride"], 0)
    return _pooled(x, pool_param, "first")


def max_pool_backward_reshape(dout: Any, cache: PoolCache) -> Array:
    """Return the gradient of `max_pool_forward_reshape`, as `max_pool_backward_fast` does."""
    return _unpooled(dout, cache)


def max_pool_backward_im2col(dout: Any, cache: PoolCache) -> Array:
    """Return the gradient of `max_pool_forward_im2col`, as `max_pool_backward_fast` does."""
    return _unpooled(dout, cache)
