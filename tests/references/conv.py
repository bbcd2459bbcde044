"""Convolution written plainly in float64 with sliding windows and einsum; it shares no code with jitconv."""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view


def pair(value):
    return tuple(value) if isinstance(value, (tuple, list)) else (value, value)


def sides_of(padding, kernel, dilation):
    """Return ((top, bottom), (left, right)) for any form of `padding`."""
    if padding == "valid":
        padding = 0
    if padding == "same":
        total = [(k - 1) * d for k, d in zip(kernel, dilation, strict=True)]
        return tuple((t // 2, t - t // 2) for t in total)
    vertical, horizontal = pair(padding)
    return pair(vertical), pair(horizontal)


def _channels_first(a, layout):
    a = np.asarray(a, np.float64)
    if a.ndim == 3:
        a = a[np.newaxis]
    return a.transpose(0, 3, 1, 2) if layout == "NHWC" else a


def _as_given(a, layout, single):
    a = a.transpose(0, 2, 3, 1) if layout == "NHWC" else a
    return np.ascontiguousarray(a[0] if single else a)


def _windows(padded, kernel, stride, dilation):
    """Return (N, C, OH, OW, KH, KW): for every output pixel the pixels under its kernel."""
    spans = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    views = sliding_window_view(padded, spans, axis=(2, 3))
    return views[:, :, :: stride[0], :: stride[1], :: dilation[0], :: dilation[1]]


def _split(a, axis, groups):
    """Split one axis into (groups, rest)."""
    return a.reshape(*a.shape[:axis], groups, a.shape[axis] // groups, *a.shape[axis + 1 :])


def _einsum(spec, *operands):
    with np.errstate(invalid="ignore"):  # tests pass NaN and inf on purpose
        return np.einsum(spec, *operands, optimize=True)


def _spread(dy, w, stride, dilation, groups, size):
    """Add every pixel of `dy`, times the weights, to its window in an image of `size`: _windows' adjoint."""
    n, _, oh, ow = dy.shape
    c, kh, kw = w.shape[1:]
    image = np.zeros((n, groups * c, *size))
    terms = _einsum("ngfyx,gfcij->ngcijyx", _split(dy, 1, groups), _split(w, 0, groups))
    terms = terms.reshape(n, groups * c, kh, kw, oh, ow)
    for i in range(kh):
        for j in range(kw):
            top, left = i * dilation[0], j * dilation[1]
            rows = slice(top, top + (oh - 1) * stride[0] + 1, stride[0])
            columns = slice(left, left + (ow - 1) * stride[1] + 1, stride[1])
            image[:, :, rows, columns] += terms[:, :, i, j]
    return image


def _correlate(padded, w, stride, dilation, groups):
    windows = _split(_windows(padded, w.shape[2:], stride, dilation), 1, groups)
    y = _einsum("ngcyxij,gfcij->ngfyx", windows, _split(w, 0, groups))
    return y.reshape(y.shape[0], w.shape[0], *y.shape[3:])


def _weights_gradient(padded, dy, kernel, stride, dilation, groups):
    oh, ow = dy.shape[2:]
    windows = _split(_windows(padded, kernel, stride, dilation)[:, :, :oh, :ow], 1, groups)
    dw = _einsum("ngcyxij,ngfyx->gfcij", windows, _split(dy, 1, groups))
    return dw.reshape(-1, *dw.shape[2:])


def conv2d(x, w, b=None, *, stride=1, padding=0, dilation=1, groups=1, layout="NCHW", activation=None):
    """x (N, C, H, W) or by `layout`, w (F, C/groups, KH, KW) -> y (N, F, OH, OW)."""
    single, x, w = np.ndim(x) == 3, _channels_first(x, layout), np.asarray(w, np.float64)
    stride, dilation = pair(stride), pair(dilation)
    padded = np.pad(x, ((0, 0), (0, 0), *sides_of(padding, w.shape[2:], dilation)))
    y = _correlate(padded, w, stride, dilation, groups)
    if b is not None:
        y += np.asarray(b, np.float64)[:, np.newaxis, np.newaxis]
    if activation == "relu":
        y = np.where(y < 0, 0.0, y)
    return _as_given(y, layout, single)


def conv2d_backward(dy, x, w, *, stride=1, padding=0, dilation=1, groups=1, layout="NCHW"):
    """Return dx, dw, db of `conv2d`, each in the shape of its array."""
    single, w = np.ndim(x) == 3, np.asarray(w, np.float64)
    x, dy = _channels_first(x, layout), _channels_first(dy, layout)
    stride, dilation = pair(stride), pair(dilation)
    (top, bottom), (left, right) = sides_of(padding, w.shape[2:], dilation)
    padded = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)))
    spread = _spread(dy, w, stride, dilation, groups, padded.shape[2:])
    dx = spread[:, :, top : top + x.shape[2], left : left + x.shape[3]]
    dw = _weights_gradient(padded, dy, w.shape[2:], stride, dilation, groups)
    return _as_given(dx, layout, single), dw, dy.sum(axis=(0, 2, 3))


def _transposed_sizes(x, w, stride, padding, output_padding, dilation):
    """Return the padding, the output's size, and the size before the padding is cut off."""
    kernel = w.shape[2:]
    sides = sides_of(padding, kernel, dilation)
    full = [
        (size - 1) * s + (k - 1) * d + 1 + extra
        for size, k, s, d, extra in zip(x.shape[2:], kernel, stride, dilation, output_padding, strict=True)
    ]
    return sides, [length - sum(cut) for length, cut in zip(full, sides, strict=True)], full


def conv_transpose2d(x, w, b=None, *, stride=1, padding=0, output_padding=0, dilation=1, groups=1, layout="NCHW"):
    """x (N, C, H, W) or by `layout`, w (C, F/groups, KH, KW) -> y (N, F, OH, OW)."""
    single, x, w = np.ndim(x) == 3, _channels_first(x, layout), np.asarray(w, np.float64)
    stride, dilation = pair(stride), pair(dilation)
    sides, size, full = _transposed_sizes(x, w, stride, padding, pair(output_padding), dilation)
    spread = _spread(x, w, stride, dilation, groups, full)
    y = spread[:, :, sides[0][0] : sides[0][0] + size[0], sides[1][0] : sides[1][0] + size[1]]
    if b is not None:
        y = y + np.asarray(b, np.float64)[:, np.newaxis, np.newaxis]
    return _as_given(y, layout, single)


def conv_transpose2d_backward(dy, x, w, *, stride=1, padding=0, output_padding=0, dilation=1, groups=1, layout="NCHW"):
    """Return dx, dw, db of `conv_transpose2d`, each in the shape of its array."""
    single, w = np.ndim(x) == 3, np.asarray(w, np.float64)
    x, dy = _channels_first(x, layout), _channels_first(dy, layout)
    stride, dilation = pair(stride), pair(dilation)
    sides, _, _ = _transposed_sizes(x, w, stride, padding, pair(output_padding), dilation)
    padded = np.pad(dy, ((0, 0), (0, 0), *sides))
    h, width = x.shape[2:]
    dx = _correlate(padded, w, stride, dilation, groups)[:, :, :h, :width]
    dw = _weights_gradient(padded, x, w.shape[2:], stride, dilation, groups)
    return _as_given(dx, layout, single), dw, dy.sum(axis=(0, 2, 3))
