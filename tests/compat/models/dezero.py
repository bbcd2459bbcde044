"""What DeZero's `functions_conv` computes: taps gathered, one matrix product. It shares no code with jitconv."""

from __future__ import annotations

import numpy as np


def pair(value):
    return tuple(value) if isinstance(value, (tuple, list)) else (value, value)


def counts(size, kernel, stride, pad):
    return tuple((n + 2 * p - k) // s + 1 for n, k, s, p in zip(size, kernel, stride, pad, strict=True))


def places(kernel, stride, outputs):
    """Yield each tap of a window, and the pixels that it sees in all windows."""
    for k in np.ndindex(*kernel):
        yield k, (..., *(slice(i, i + s * n, s) for i, s, n in zip(k, stride, outputs, strict=True)))


def im2col(x, kernel_size, stride=1, pad=0, to_matrix=True):
    kernel, stride, pad = pair(kernel_size), pair(stride), pair(pad)
    n, c, h, w = x.shape
    outputs = counts((h, w), kernel, stride, pad)
    padded = np.pad(x, ((0, 0), (0, 0), (pad[0], pad[0] + stride[0] - 1), (pad[1], pad[1] + stride[1] - 1)))
    col = np.zeros((n, c, *kernel, *outputs), x.dtype)
    for (i, j), place in places(kernel, stride, outputs):
        col[:, :, i, j] = padded[place]
    return col.transpose(0, 4, 5, 1, 2, 3).reshape(n * outputs[0] * outputs[1], -1) if to_matrix else col


def col2im(col, input_shape, kernel_size, stride=1, pad=0, to_matrix=True):
    kernel, stride, pad = pair(kernel_size), pair(stride), pair(pad)
    n, c, h, w = input_shape
    outputs = counts((h, w), kernel, stride, pad)
    if to_matrix:
        col = col.reshape(n, *outputs, c, *kernel).transpose(0, 3, 4, 5, 1, 2)
    image = np.zeros((n, c, h + 2 * pad[0] + stride[0] - 1, w + 2 * pad[1] + stride[1] - 1), col.dtype)
    for (i, j), place in places(kernel, stride, outputs):
        image[place] += col[:, :, i, j]
    return image[:, :, pad[0] : pad[0] + h, pad[1] : pad[1] + w]


def conv2d(x, W, b=None, stride=1, pad=0):
    y = np.moveaxis(np.tensordot(im2col(x, W.shape[2:], stride, pad, False), W, ((1, 2, 3), (1, 2, 3))), 3, 1)
    return y if b is None else y + b[:, np.newaxis, np.newaxis]


def conv2d_weights(x, gy, kernel_size, stride=1, pad=0):
    return np.tensordot(gy, im2col(x, kernel_size, stride, pad, False), ((0, 2, 3), (0, 4, 5)))


def deconv2d(x, W, b=None, stride=1, pad=0, outsize=None):
    (sh, sw), (ph, pw), (kh, kw) = pair(stride), pair(pad), W.shape[2:]
    formula = sh * (x.shape[2] - 1) + kh - 2 * ph, sw * (x.shape[3] - 1) + kw - 2 * pw
    shape = (len(x), W.shape[1], *(formula if outsize is None else pair(outsize)))
    col = np.moveaxis(np.tensordot(W, x, (0, 1)), 3, 0)
    y = col2im(col, shape, (kh, kw), stride, pad, False)
    return y if b is None else y + b[:, np.newaxis, np.newaxis]


def pooling(x, kernel_size, stride=1, pad=0):
    return im2col(x, kernel_size, stride, pad, False).max(axis=(2, 3))


def pooling_backward(gy, x, kernel_size, stride=1, pad=0):
    col = im2col(x, kernel_size, stride, pad, False)
    n, c, kh, kw, oh, ow = col.shape
    first = col.reshape(n, c, kh * kw, oh, ow).argmax(axis=2)
    taken = np.arange(kh * kw).reshape(-1, 1, 1) == first[:, :, np.newaxis]
    return col2im((taken * gy[:, :, np.newaxis]).reshape(col.shape), x.shape, kernel_size, stride, pad, False)


def average_pooling(x, kernel_size, stride=1, pad=0):
    return im2col(x, kernel_size, stride, pad, False).mean(axis=(2, 3))


def average_pooling_backward(gy, x, kernel_size, stride=1, pad=0):
    """As the original, which takes the height of the window for its width."""
    kw, kh = pair(kernel_size)
    col = np.broadcast_to(gy[:, :, np.newaxis, np.newaxis] / (kh * kw), (*gy.shape[:2], kh, kw, *gy.shape[2:]))
    if (kh, kw) != pair(kernel_size):
        raise IndexError("the original reads beyond the window's rows or columns")
    return col2im(col, x.shape, kernel_size, stride, pad, False)
