"""`im2col_cython` of CS231n's assignments, and the same of its `im2col.py`: windows as the columns of a matrix."""

from __future__ import annotations

from typing import Any

import numpy as np

from ... import shapes, validate
from ..arrays import Array, floats, with_axes, with_shape
from ..naming import argument_names

__all__ = ["col2im_6d_cython", "col2im_cython", "col2im_indices", "im2col_cython", "im2col_indices"]


def _window(height: Any, width: Any, padding: Any, stride: Any) -> tuple[int, int, int, int]:
    return (
        validate.integer(height, "field_height", 1),
        validate.integer(width, "field_width", 1),
        validate.integer(padding, "padding", 0),
        validate.integer(stride, "stride", 1),
    )


def _image(*sizes: Any) -> tuple[int, ...]:
    """Return the sizes N, C, H and W."""
    return tuple(validate.integer(size, name, 0) for size, name in zip(sizes, "NCHW", strict=True))


def _outputs(h: int, w: int, kh: int, kw: int, padding: int, stride: int) -> tuple[int, int]:
    """Return the rows and columns of windows."""
    oh, ow = (shapes.conv_output_size(size, k, stride, (padding, padding), 1) for size, k in ((h, kh), (w, kw)))
    if oh < 1 or ow < 1:
        raise ValueError(f"`field_height` x `field_width`, {kh}x{kw}, must fit into the padded image of {h}x{w}")
    return oh, ow


def _rows(kh: int, kw: int, c: int, strict: bool) -> Array:
    """Return the row of `im2col_cython`'s matrix that each channel and tap has, (C, KH, KW)."""
    if not validate.boolean(strict, "strict"):
        return np.arange(c * kh * kw).reshape(c, kh, kw)
    rows = np.add.outer(np.arange(c) * (kh * kw), np.add.outer(np.arange(kh) * kh, np.arange(kw)))
    if rows.max(initial=0) >= c * kh * kw:
        raise ValueError(
            f"`field_height` {kh} is above `field_width` {kw}: the original reads and writes outside of its memory"
        )
    return rows


def im2col_cython(
    x: Any, field_height: int, field_width: int, padding: int, stride: int, *, strict: bool = False
) -> Array:
    """Return the windows of a batch as the columns of a matrix.

    Parameters
    ----------
    x : array_like, (N, C, H, W)
    field_height, field_width, padding, stride : int
    strict : bool
        Number the taps of windows that are not square as the original does: some fall into the same row, the later over
        the earlier, and other rows stay zero.

    Returns
    -------
    ndarray, (C * field_height * field_width, OH * OW * N)
        Rows in the order c, kh, kw; columns in the order oh, ow, n.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit; with `strict` also where the original leaves its memory.
    """
    (a,) = floats(True, x=x)
    n, c, h, w = with_axes(a, "x", "N, C, H, W").shape
    kh, kw, pad, step = _window(field_height, field_width, padding, stride)
    oh, ow = _outputs(h, w, kh, kw, pad, step)
    rows = _rows(kh, kw, c, strict)
    validate.array_fits((c, h + 2 * pad, w + 2 * pad, n), "padding")
    validate.fits_in_memory((c * kh * kw, oh * ow * n), a.dtype, "cols")
    # With the images last, a row of windows is one run of memory.
    images = np.zeros((c, h + 2 * pad, w + 2 * pad, n), a.dtype)
    images[:, pad : pad + h, pad : pad + w] = a.transpose(1, 2, 3, 0)
    cols = (np.zeros if strict else np.empty)((c * kh * kw, oh, ow, n), a.dtype)
    for channel, k, tap in np.ndindex(c, kh, kw):
        cols[rows[channel, k, tap]] = images[channel, k : k + step * oh : step, tap : tap + step * ow : step]
    return cols.reshape(c * kh * kw, oh * ow * n)


def col2im_cython(
    cols: Any,
    N: int,
    C: int,
    H: int,
    W: int,
    field_height: int,
    field_width: int,
    padding: int,
    stride: int,
    *,
    strict: bool = False,
) -> Array:
    """Add the columns of a matrix of windows to the images that they came from.

    Parameters
    ----------
    cols : array_like, (C * field_height * field_width, OH * OW * N)
        As from `im2col_cython`.
    N, C, H, W : int
        The shape of the images.
    field_height, field_width, padding, stride, strict
        As in `im2col_cython`.

    Returns
    -------
    ndarray, (N, C, H, W)

    Raises
    ------
    TypeError, ValueError
        As `im2col_cython`.
    """
    (a,) = floats(True, cols=cols)
    kh, kw, pad, step = _window(field_height, field_width, padding, stride)
    n, c, h, w = _image(N, C, H, W)
    oh, ow = _outputs(h, w, kh, kw, pad, step)
    rows = _rows(kh, kw, c, strict)
    taps = with_shape(a, "cols", (c * kh * kw, oh * ow * n)).reshape(-1, oh, ow, n)
    validate.array_fits((c, h + 2 * pad, w + 2 * pad, n), "padding")
    images = np.zeros((c, h + 2 * pad, w + 2 * pad, n), a.dtype)
    for channel, k, tap in np.ndindex(c, kh, kw):
        images[channel, k : k + step * oh : step, tap : tap + step * ow : step] += taps[rows[channel, k, tap]]
    return np.ascontiguousarray(images[:, pad : pad + h, pad : pad + w].transpose(3, 0, 1, 2))


def im2col_indices(x: Any, field_height: int, field_width: int, padding: int = 1, stride: int = 1) -> Array:
    """Return `im2col_cython` of x: the original's NumPy version, of the same order and without its fault."""
    return im2col_cython(x, field_height, field_width, padding, stride)


def col2im_indices(
    cols: Any,
    x_shape: tuple[int, int, int, int],
    field_height: int = 3,
    field_width: int = 3,
    padding: int = 1,
    stride: int = 1,
) -> Array:
    """Return `col2im_cython` of `cols`: the original's NumPy version, of the same order and without its fault."""
    n, c, h, w = validate.shape4(x_shape, "x_shape", "NCHW", batched=True)[0]
    return col2im_cython(cols, n, c, h, w, field_height, field_width, padding, stride)


@argument_names(field_height="HH", field_width="WW", padding="pad")
def col2im_6d_cython(cols: Any, N: int, C: int, H: int, W: int, HH: int, WW: int, pad: int, stride: int) -> Array:
    """Add windows to the images that they came from.

    Parameters
    ----------
    cols : array_like, (C, HH, WW, N, OH, OW)
    N, C, H, W : int
        The shape of the images.
    HH, WW, pad, stride : int
        The window.

    Returns
    -------
    ndarray, (N, C, H, W)

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit.
    """
    (a,) = floats(True, cols=cols)
    kh, kw, padding, step = _window(HH, WW, pad, stride)
    n, c, h, w = _image(N, C, H, W)
    oh, ow = _outputs(h, w, kh, kw, padding, step)
    with_shape(a, "cols", (c, kh, kw, n, oh, ow))
    rows = a.transpose(0, 1, 2, 4, 5, 3).reshape(c * kh * kw, oh * ow * n)
    return col2im_cython(rows, n, c, h, w, kh, kw, padding, step)
