"""What the book's convolution and pooling compute, and how: windows as rows, one matrix product. Plain NumPy."""

from __future__ import annotations

import numpy as np


def _outputs(size, window, stride, pad):
    return (size + 2 * pad - window) // stride + 1


def _under(tap, stride, outputs):
    return slice(tap, tap + stride * outputs, stride)


def im2col(input_data, filter_h, filter_w, stride=1, pad=0):
    n, c, h, w = input_data.shape
    oh, ow = _outputs(h, filter_h, stride, pad), _outputs(w, filter_w, stride, pad)
    padded = np.pad(input_data, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    taps = np.zeros((n, c, filter_h, filter_w, oh, ow))
    for k in range(filter_h):
        for tap in range(filter_w):
            taps[:, :, k, tap] = padded[:, :, _under(k, stride, oh), _under(tap, stride, ow)]
    return taps.transpose(0, 4, 5, 1, 2, 3).reshape(n * oh * ow, -1)


def col2im(col, input_shape, filter_h, filter_w, stride=1, pad=0, *, assigns=False):
    """`assigns`: as in faulty copies."""
    n, c, h, w = input_shape
    oh, ow = _outputs(h, filter_h, stride, pad), _outputs(w, filter_w, stride, pad)
    taps = col.reshape(n, oh, ow, c, filter_h, filter_w).transpose(0, 3, 4, 5, 1, 2)
    padded = np.zeros((n, c, h + 2 * pad + stride - 1, w + 2 * pad + stride - 1))
    for k in range(filter_h):
        for tap in range(filter_w):
            view = padded[:, :, _under(k, stride, oh), _under(tap, stride, ow)]
            view[...] = taps[:, :, k, tap] + (0 if assigns else view)
    return padded[:, :, pad : pad + h, pad : pad + w]


class Convolution:
    def __init__(self, W, b, stride=1, pad=0, *, assigns=False):
        self.W, self.b, self.stride, self.pad, self.assigns = W, b, stride, pad, assigns
        self.x = self.col = self.col_W = self.dW = self.db = None

    def forward(self, x):
        f, _, kh, kw = self.W.shape
        oh, ow = _outputs(x.shape[2], kh, self.stride, self.pad), _outputs(x.shape[3], kw, self.stride, self.pad)
        self.x = x
        self.col = im2col(x, kh, kw, self.stride, self.pad)
        self.col_W = self.W.reshape(f, -1).T
        return (np.dot(self.col, self.col_W) + self.b).reshape(len(x), oh, ow, f).transpose(0, 3, 1, 2)

    def backward(self, dout):
        f, c, kh, kw = self.W.shape
        rows = dout.transpose(0, 2, 3, 1).reshape(-1, f)
        self.db = np.sum(rows, axis=0)
        self.dW = np.dot(self.col.T, rows).T.reshape(f, c, kh, kw)
        taps = np.dot(rows, self.col_W.T)
        return col2im(taps, self.x.shape, kh, kw, self.stride, self.pad, assigns=self.assigns)


class Pooling:
    """Its size takes no account of `pad`, which is filled with zeros."""

    def __init__(self, pool_h, pool_w, stride=2, pad=0, *, assigns=False):
        self.pool_h, self.pool_w, self.stride, self.pad, self.assigns = pool_h, pool_w, stride, pad, assigns
        self.x = self.arg_max = None

    def forward(self, x):
        n, c, h, w = x.shape
        oh, ow = _outputs(h, self.pool_h, self.stride, 0), _outputs(w, self.pool_w, self.stride, 0)
        rows = im2col(x, self.pool_h, self.pool_w, self.stride, self.pad).reshape(-1, self.pool_h * self.pool_w)
        self.x, self.arg_max = x, np.argmax(rows, axis=1)
        return np.max(rows, axis=1).reshape(n, oh, ow, c).transpose(0, 3, 1, 2)

    def backward(self, dout):
        gradient = dout.transpose(0, 2, 3, 1)
        taps = np.zeros((gradient.size, self.pool_h * self.pool_w))
        taps[np.arange(gradient.size), self.arg_max] = gradient.flatten()
        taps = taps.reshape(len(gradient) * gradient.shape[1] * gradient.shape[2], -1)
        return col2im(taps, self.x.shape, self.pool_h, self.pool_w, self.stride, self.pad, assigns=self.assigns)
