"""What CS231n's fast layers compute, in plain loops: cython's loops and NumPy's reshaping, faults included."""

from __future__ import annotations

import itertools

import numpy as np


def outputs(size, window, pad, stride):
    return (size + 2 * pad - window) // stride + 1


def padded(x, pad):
    return np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))


def _places(shape, window, pad, stride, faulty):
    """Yield the row and the columns of the matrix, and the place in the padded images, of each tap of each output."""
    n, c, h, w = shape
    kh, kw = window
    oh, ow = outputs(h, kh, pad, stride), outputs(w, kw, pad, stride)
    for channel, i, j in itertools.product(range(c), range(kh), range(kw)):
        row = channel * kh * kw + i * (kh if faulty else kw) + j
        for y, x in itertools.product(range(oh), range(ow)):
            first = (y * ow + x) * n
            yield row, slice(first, first + n), (slice(None), channel, y * stride + i, x * stride + j)


def im2col(x, kh, kw, pad, stride, *, faulty=False):
    n, c, h, w = x.shape
    cols = np.zeros((c * kh * kw, outputs(h, kh, pad, stride) * outputs(w, kw, pad, stride) * n), x.dtype)
    images = padded(x, pad)
    for row, columns, place in _places(x.shape, (kh, kw), pad, stride, faulty):
        cols[row, columns] = images[place]
    return cols


def col2im(cols, shape, kh, kw, pad, stride, *, faulty=False):
    n, c, h, w = shape
    images = np.zeros((n, c, h + 2 * pad, w + 2 * pad), cols.dtype)
    for row, columns, place in _places(shape, (kh, kw), pad, stride, faulty):
        images[place] += cols[row, columns]
    return images[:, :, pad : pad + h, pad : pad + w]


def conv_forward(x, w, b, conv_param, *, faulty=False):
    stride, pad = conv_param["stride"], conv_param["pad"]
    f, _, kh, kw = w.shape
    cols = im2col(x, kh, kw, pad, stride, faulty=faulty)
    out = w.reshape(f, -1).dot(cols) + b.reshape(-1, 1)
    oh, ow = outputs(x.shape[2], kh, pad, stride), outputs(x.shape[3], kw, pad, stride)
    return out.reshape(f, oh, ow, len(x)).transpose(3, 0, 1, 2), (x, w, b, conv_param, cols)


def conv_backward(dout, cache, *, faulty=False):
    x, w, _, conv_param, cols = cache
    f, _, kh, kw = w.shape
    rows = dout.transpose(1, 2, 3, 0).reshape(f, -1)
    dcols = w.reshape(f, -1).T.dot(rows)
    dx = col2im(dcols, x.shape, kh, kw, conv_param["pad"], conv_param["stride"], faulty=faulty)
    return dx, rows.dot(cols.T).reshape(w.shape), dout.sum(axis=(0, 2, 3))


def strided_reading(x, pad):
    """What reading the padded x by the strides of C order gives, wherever its elements lie."""
    images = padded(x, pad)
    _, c, h, w = images.shape
    strides = images.itemsize * np.array((c * h * w, h * w, w, 1))
    return np.lib.stride_tricks.as_strided(images, images.shape, strides).copy()


def max_pool_forward(x, pool_param):
    kh, kw, stride = (pool_param[key] for key in ("pool_height", "pool_width", "stride"))
    n, c, h, w = x.shape
    if kh == kw == stride and h % kh == 0 and w % kw == 0:
        tiles = x.reshape(n, c, h // kh, kh, w // kw, kw)
        out = tiles.max(axis=(3, 5))
        return out, ("reshape", (x, tiles, out))
    cols = im2col(x.reshape(n * c, 1, h, w), kh, kw, 0, stride)
    first = cols.argmax(axis=0)
    out = cols[first, np.arange(cols.shape[1])]
    shape = outputs(h, kh, 0, stride), outputs(w, kw, 0, stride), n, c
    return out.reshape(shape).transpose(2, 3, 0, 1), ("im2col", (x, cols, first, pool_param))


def max_pool_backward(dout, cache):
    method, saved = cache
    if method == "reshape":
        x, tiles, out = saved
        largest = tiles == out[:, :, :, np.newaxis, :, np.newaxis]
        shares = dout[:, :, :, np.newaxis, :, np.newaxis] * largest / largest.sum(axis=(3, 5), keepdims=True)
        return shares.reshape(x.shape)
    x, cols, first, pool_param = saved
    n, c, h, w = x.shape
    dcols = np.zeros_like(cols)
    dcols[first, np.arange(cols.shape[1])] = dout.transpose(2, 3, 0, 1).ravel()
    sizes = pool_param["pool_height"], pool_param["pool_width"], 0, pool_param["stride"]
    return col2im(dcols, (n * c, 1, h, w), *sizes).reshape(x.shape)


def batchnorm(x, gamma, beta, eps):
    """Return the normalised images, and the function that gives dx, dgamma and dbeta for dout; in training."""
    rows = x.transpose(0, 2, 3, 1).reshape(-1, x.shape[1])
    mean, std = rows.mean(axis=0), np.sqrt(rows.var(axis=0) + eps)
    unit = (rows - mean) / std

    def images(a):
        return a.reshape(len(x), *x.shape[2:], -1).transpose(0, 3, 1, 2)

    def backward(dout):
        d = dout.transpose(0, 2, 3, 1).reshape(rows.shape)
        dunit = d * gamma
        drows = (dunit - dunit.mean(axis=0) - unit * (dunit * unit).mean(axis=0)) / std
        return images(drows), (d * unit).sum(axis=0), d.sum(axis=0)

    return images(unit * gamma + beta), backward
