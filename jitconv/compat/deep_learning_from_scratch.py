"""Convolution and pooling of "Deep Learning from Scratch" (Saito, 2016): its `common/layers.py` and `common/util.py`.

The project is https://github.com/oreilly-japan/deep-learning-from-scratch. Results are float64 whatever comes in, as
there; `preserve_dtype=True` keeps float32.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import columns, shapes, validate
from ..conv import conv2d, conv2d_backward
from . import ties as pooling
from .arrays import Array, AsItWas, WhenAsked, converted, floats, with_axes, with_shape
from .naming import argument_names

__all__ = ["Convolution", "OlderPooling", "Pooling", "col2im", "im2col"]

_WINDOW = "filter_h` x `filter_w"
Strict = bool | str
ASSIGNS = "assigns"


def _checked(strict: Any) -> Strict:
    if isinstance(strict, str):
        return str(validate.choice(strict, "strict", (ASSIGNS,)))
    return validate.boolean(strict, "strict")


@argument_names(x="input_data", kernel=_WINDOW, padding="pad")
def im2col(
    input_data: Any, filter_h: int, filter_w: int, stride: int = 1, pad: int = 0, *, preserve_dtype: bool = False
) -> Array:
    """Return the window of every output pixel of a convolution as a row of a matrix.

    Parameters
    ----------
    input_data : array_like, (N, C, H, W)
    filter_h, filter_w : int
        Height and width of the window.
    stride, pad : int
        Pixels from one window to the next, and zeros on every side.
    preserve_dtype : bool
        Keep float32.

    Returns
    -------
    ndarray, (N * OH * OW, C * filter_h * filter_w)
        float64; rows in the order n, oh, ow, columns in the order c, kh, kw.

    Raises
    ------
    TypeError, ValueError
        As `jitconv.im2col`.
    """
    (x,) = floats(preserve_dtype, input_data=input_data)
    window, stride, pad = _options(filter_h, filter_w, stride, pad)
    return columns.im2col(with_axes(x, "input_data", "N, C, H, W"), window, stride=stride, padding=pad)


@argument_names(x="input_shape", x_shape="input_shape", columns="col", kernel=_WINDOW, padding="pad")
def col2im(
    col: Any,
    input_shape: tuple[int, int, int, int],
    filter_h: int,
    filter_w: int,
    stride: int = 1,
    pad: int = 0,
    *,
    preserve_dtype: bool = False,
    strict: Strict = False,
) -> Array:
    """Add the rows of a matrix of windows to the images that they came from.

    Parameters
    ----------
    col : array_like of N * OH * OW * C * filter_h * filter_w elements
        In the order of `im2col`'s result, in any shape.
    input_shape : (int, int, int, int)
        (N, C, H, W) of the images.
    filter_h, filter_w, stride, pad
        As in `im2col`.
    preserve_dtype : bool
        Keep float32.
    strict : bool or "assigns"
        Both True and "assigns": the last window over a pixel, by its taps, replaces the others instead of being added,
        as in faulty copies of the book's function.

    Returns
    -------
    ndarray of float64, (N, C, H, W)

    Raises
    ------
    TypeError, ValueError
        As `jitconv.col2im`.
    """
    (a,) = floats(preserve_dtype, col=col)
    window, stride, pad = _options(filter_h, filter_w, stride, pad)
    shape = validate.shape4(input_shape, "input_shape", "NCHW", batched=True)[0]
    oh, ow = _outputs(shape[2:], window, stride, pad)
    rows, length = shape.n * max(oh, 0) * max(ow, 0), shape.c * window[0] * window[1]
    if a.size != rows * length:
        raise ValueError(f"`col` must have {rows} * {length} elements (N*OH*OW, C*FH*FW), got shape {a.shape}")
    if _checked(strict):
        return _assigning(a, shape, window, stride, pad)
    return columns.col2im(a.reshape(rows, length), tuple(shape), window, stride=stride, padding=pad)


def _outputs(image: tuple[int, ...], window: tuple[int, ...], stride: int, pad: int) -> list[int]:
    return [shapes.conv_output_size(size, k, stride, (pad, pad), 1) for size, k in zip(image, window, strict=True)]


def _assigning(col: Array, shape: tuple[int, ...], window: tuple[int, ...], stride: int, pad: int) -> Array:
    """Return the images that a `col2im` makes which assigns: the last tap over a pixel wins."""
    n, c, h, w = shape
    oh, ow = _outputs((h, w), window, stride, pad)
    taps = col.reshape(n, oh, ow, c, *window).transpose(0, 3, 4, 5, 1, 2)
    image = np.zeros((n, c, h + 2 * pad + stride - 1, w + 2 * pad + stride - 1), col.dtype)
    for k, tap in np.ndindex(*window):
        image[:, :, k : k + stride * oh : stride, tap : tap + stride * ow : stride] = taps[:, :, k, tap]
    return image[:, :, pad : pad + h, pad : pad + w].copy()


def _options(filter_h: Any, filter_w: Any, stride: Any, pad: Any) -> tuple[tuple[int, int], int, int]:
    window = validate.integer(filter_h, "filter_h", 1), validate.integer(filter_w, "filter_w", 1)
    return window, validate.integer(stride, "stride", 1), validate.integer(pad, "pad", 0)


class Convolution:
    """A convolution with its parameters and gradients.

    Parameters
    ----------
    W : array_like, (FN, C, FH, FW)
        The weights. They are read at each call: change them in place, or replace the attribute.
    b : array_like, (FN,)
        The bias, or what broadcasts to it.
    stride, pad : int
        Pixels from one window to the next, and zeros on every side.
    preserve_dtype : bool
        Compute in float32 if x, W and b have it; else everything is float64.
    strict : bool or "assigns"
        "assigns": `backward` returns the dx of copies whose `col2im` assigns. The book's own layer has no fault that
        True would bring back.

    Attributes
    ----------
    W, b, stride, pad
        As given.
    x : array_like
        The input of the last `forward`, not a copy: it must not be changed before `backward`.
    col : ndarray, (N * OH * OW, C * FH * FW)
        `im2col` of it, computed when asked.
    col_W : ndarray, (C * FH * FW, FN)
        The weights of the last `forward`, a view of them.
    dW, db : ndarray, (FN, C, FH, FW) and (FN,)
        The gradients, after `backward`. All of these are None until there is something.
    """

    def __init__(
        self,
        W: Any,
        b: Any,
        stride: int = 1,
        pad: int = 0,
        *,
        preserve_dtype: bool = False,
        strict: Strict = False,
    ) -> None:
        self.W = W
        self.b = b
        self.stride = stride
        self.pad = pad
        self.x: Any = None
        self.dW: Array | None = None
        self.db: Array | None = None
        self._preserve_dtype = validate.boolean(preserve_dtype, "preserve_dtype")
        self._strict = _checked(strict)
        self._saved: tuple[AsItWas, Any, dict[str, Any], tuple[int, ...]] | None = None

    @WhenAsked
    def col(self) -> Array | None:
        """The windows of x, in the order of `im2col`; None before `forward`."""
        if self._saved is None:
            return None
        x, weights, options, _ = self._saved
        return columns.im2col(x.unchanged(), np.shape(weights)[2:], **options)

    @WhenAsked
    def col_W(self) -> Array | None:
        """The weights of the last `forward` as a matrix, (C * FH * FW, FN); None before it."""
        if self._saved is None:
            return None
        w = np.asarray(self._saved[1])
        return w.reshape(len(w), -1).T

    @argument_names(w="W", kernel="W", padding="pad")
    def forward(self, x: Any) -> Array:
        """Return the convolution of x, (N, FN, OH, OW), for x (N, C, H, W).

        Raises
        ------
        TypeError, ValueError
            As `jitconv.conv2d`.
        """
        a, w, b = floats(self._preserve_dtype, x=x, W=self.W, b=self.b)
        with_axes(a, "x", "N, C, H, W")
        f, c = with_axes(w, "W", "FN, C, FH, FW").shape[:2]
        if c != a.shape[1]:
            raise ValueError(f"`W` has {c} input channels, but `x` has {a.shape[1]}")
        options: dict[str, Any] = {
            "stride": validate.integer(self.stride, "stride", 1),
            "padding": validate.integer(self.pad, "pad", 0),
        }
        kept = AsItWas(a, x, "x")
        y = conv2d(kept.array, w, _bias(b, f), **options)
        self.x = x
        self._saved = kept, self.W, options, y.shape
        return y

    def backward(self, dout: Any) -> Array:
        """Return dx, (N, C, H, W), and set `dW` and `db`, for dout (N, FN, OH, OW).

        Raises
        ------
        TypeError, ValueError
            As `jitconv.conv2d_backward`.
        RuntimeError
            If there was no `forward`, or x has been changed since.
        """
        kept, weights, options, shape = validate.after_forward(self._saved, "Convolution")
        x = kept.unchanged()
        dy, w = converted(x.dtype, dout=dout, W=weights)
        with_shape(dy, "dout", shape)
        assigns = self._strict == ASSIGNS
        dx, self.dW, self.db = conv2d_backward(dy, x, w, needs=(not assigns, True, True), **options)
        if not assigns:
            assert dx is not None
            return dx
        taps = dy.transpose(0, 2, 3, 1).reshape(-1, len(w)) @ w.reshape(len(w), -1)
        return _assigning(taps, x.shape, w.shape[2:], options["stride"], options["padding"])


def _bias(b: Array, f: int) -> Array:
    """Return a bias of one element for each output channel, from what NumPy would add to a row of them."""
    if b.shape == (f,):
        return b
    if b.size not in (1, f) or b.ndim > 2 or (b.ndim == 2 and len(b) != 1):
        raise ValueError(f"`b` must have shape ({f},) (one for each output channel), got {b.shape}")
    return np.broadcast_to(b.reshape(-1), (f,))


class Pooling:
    """The largest pixel of each window.

    Parameters
    ----------
    pool_h, pool_w : int
        Height and width of the window.
    stride : int
        Pixels from one window to the next. 2 as in the book's present copy; `OlderPooling` has the older default, 1.
    pad : int
        Rows and columns of padding on every side, which never win; at most half the window.
    ties : {"first", "all", "split"}
        Which of several largest pixels of a window get the gradient: the first, as in the book, each of them, or each
        an equal part. With strict="assigns" only the first can.
    preserve_dtype : bool
        Keep float32.
    strict : bool or "assigns"
        True: the padding is zero, and wins over negative pixels, and the size of the result takes no account of it: a
        ValueError wherever that size differs from the number of windows. "assigns": so, and `backward` returns the
        dx of copies whose `col2im` assigns.

    Attributes
    ----------
    pool_h, pool_w, stride, pad
        As given.
    x : array_like
        The input of the last `forward`, not a copy.
    arg_max : ndarray of int64, (N * OH * OW * C,)
        Which pixel of each window was the first largest, in the order n, oh, ow, c; computed when asked.
    """

    def __init__(
        self,
        pool_h: int,
        pool_w: int,
        stride: int = 2,
        pad: int = 0,
        *,
        ties: str = "first",
        preserve_dtype: bool = False,
        strict: Strict = False,
    ) -> None:
        self.pool_h = pool_h
        self.pool_w = pool_w
        self.stride = stride
        self.pad = pad
        self.x: Any = None
        self._ties = pooling.checked(ties)
        self._preserve_dtype = validate.boolean(preserve_dtype, "preserve_dtype")
        self._strict = _checked(strict)
        if self._strict == ASSIGNS and self._ties != "first":
            raise ValueError(f"`ties` must be 'first' with `strict`='assigns', got {ties!r}")
        self._saved: tuple[Array, dict[str, Any], Array | None, tuple[int, ...], int] | None = None

    @WhenAsked
    def arg_max(self) -> Array | None:
        """Which pixel of each window was the first largest, in the order n, oh, ow, c; None before `forward`."""
        if self._saved is None:
            return None
        x, options, argmax, _, _ = self._saved
        if argmax is None:
            argmax = pooling.max_pool2d_forward(x, **options)[1]
        assert argmax is not None
        return argmax.transpose(0, 2, 3, 1).reshape(-1).astype(np.int64)

    @argument_names(kernel="pool_h` x `pool_w", padding="pad")
    def forward(self, x: Any) -> Array:
        """Return the pooled x, (N, C, OH, OW), for x (N, C, H, W).

        Raises
        ------
        TypeError, ValueError
            As `jitconv.max_pool2d`.
        """
        (a,) = floats(self._preserve_dtype, x=x)
        with_axes(a, "x", "N, C, H, W")
        window = validate.integer(self.pool_h, "pool_h", 1), validate.integer(self.pool_w, "pool_w", 1)
        stride, pad = validate.integer(self.stride, "stride", 1), validate.integer(self.pad, "pad", 0)
        cut = 0
        if self._strict and pad:
            _same_size_without(pad, a.shape[2:], window, stride)
            validate.array_fits((*a.shape[:2], *(size + 2 * pad for size in a.shape[2:])), "pad")
            a, pad, cut = np.pad(a, ((0, 0), (0, 0), (pad, pad), (pad, pad))), 0, pad
        if pad > min(window) // 2:
            raise ValueError(f"`pad` must be at most half the window, {window[0]}x{window[1]}, got {pad}")
        options: dict[str, Any] = {"kernel": window, "stride": stride, "padding": pad}
        y, argmax = pooling.max_pool2d_forward(a, **options, ties=self._ties)
        self.x = x
        self._saved = a, options, argmax, y.shape, cut
        return y

    def backward(self, dout: Any) -> Array:
        """Return dx, (N, C, H, W), for dout (N, C, OH, OW).

        Raises
        ------
        TypeError, ValueError
            As `jitconv.max_pool2d_backward`.
        RuntimeError
            If there was no `forward`.
        """
        x, options, argmax, shape, cut = validate.after_forward(self._saved, "Pooling")
        (dy,) = converted(x.dtype, dout=dout)
        with_shape(dy, "dout", shape)
        if self._strict == ASSIGNS:
            dx = self._assigned(dy)
        else:
            dx = pooling.max_pool2d_backward(dy, x, **options, ties=self._ties, argmax=argmax)
        return dx[:, :, cut:-cut, cut:-cut].copy() if cut else dx

    def _assigned(self, dy: Array) -> Array:
        """Return dx as a `col2im` that assigns makes it: most windows over a pixel bring zeros."""
        x, options, _, _, _ = validate.after_forward(self._saved, "Pooling")
        taps = np.zeros((dy.size, options["kernel"][0] * options["kernel"][1]), dy.dtype)
        taps[np.arange(dy.size), self.arg_max] = dy.transpose(0, 2, 3, 1).reshape(-1)
        return _assigning(taps, x.shape, options["kernel"], options["stride"], options["padding"])


class OlderPooling(Pooling):
    """`Pooling` with the default of older copies, a stride of 1: ``import OlderPooling as Pooling``."""

    def __init__(self, pool_h: int, pool_w: int, stride: int = 1, pad: int = 0, **options: Any) -> None:
        super().__init__(pool_h, pool_w, stride, pad, **options)


def _same_size_without(pad: int, image: tuple[int, ...], window: tuple[int, int], stride: int) -> None:
    """Refuse what the book's layer cannot reshape: it makes windows with the padding, and counts them without."""
    made, counted = _outputs(image, window, stride, pad), _outputs(image, window, stride, 0)
    if made != counted:
        raise ValueError(
            f"`pad`={pad} makes {made[0]}x{made[1]} windows, but with `strict` the size of the result takes no account "
            f"of it: {counted[0]}x{counted[1]}"
        )
