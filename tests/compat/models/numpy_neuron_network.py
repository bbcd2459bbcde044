"""What numpy_neuron_network computes, faults included, window by window. It shares no code with jitconv."""

from __future__ import annotations

import itertools

import numpy as np


def padded(z, padding):
    return np.pad(z, ((0, 0), (0, 0), (padding[0], padding[0]), (padding[1], padding[1])))


def places(size, window, strides):
    """Yield the row and column of each result, and where its window lies."""
    counts = [(length - k) // s + 1 for length, k, s in zip(size, window, strides, strict=True)]
    for i, j in itertools.product(*map(range, counts)):
        y, x = i * strides[0], j * strides[1]
        yield i, j, (slice(None), slice(None), slice(y, y + window[0]), slice(x, x + window[1]))


def empty_result(z, channels, window, strides):
    counts = [(length - k) // s + 1 for length, k, s in zip(z.shape[2:], window, strides, strict=True)]
    return np.zeros((len(z), channels, *counts))


def correlate(z, K, strides=(1, 1)):
    """z (N, C, H, W), K (C, D, k1, k2) -> (N, D, OH, OW), float64; tap by tap, or window by window for a large K."""
    y = empty_result(z, K.shape[1], K.shape[2:], strides)
    if K.shape[2] * K.shape[3] < 10 * y.shape[2] * y.shape[3]:
        for c, i, j in np.ndindex(len(K), *K.shape[2:]):
            rows, columns = (slice(k, k + s * n, s) for k, s, n in zip((i, j), strides, y.shape[2:], strict=True))
            y += z[:, c, np.newaxis, rows, columns] * K[c, :, i, j, np.newaxis, np.newaxis]
        return y
    for i, j, place in places(z.shape[2:], K.shape[2:], strides):
        y[:, :, i, j] = np.einsum("nchw,cdhw->nd", z[place], K)
    return y


def conv_forward(z, K, b, padding=(0, 0), strides=(1, 1)):
    """As `layers` and `clayers`: the strides must divide."""
    z = padded(z, padding)
    assert all((size - k) % s == 0 for size, k, s in zip(z.shape[2:], K.shape[2:], strides, strict=True))
    return correlate(z, K, strides) + b[:, np.newaxis, np.newaxis]


def conv_forward_v2(z, K, b, padding=(0, 0), strides=(1, 1)):
    """As `layers_v2`: of the results at stride 1 it takes one in each stride, their number rounded down."""
    dense = correlate(padded(z, padding), K) + b[:, np.newaxis, np.newaxis]
    rows, columns = dense.shape[2] // strides[0], dense.shape[3] // strides[1]
    return dense[:, :, : rows * strides[0] : strides[0], : columns * strides[1] : strides[1]]


def conv_backward(next_dz, K, z, padding=(0, 0), strides=(1, 1)):
    """As both: the padding is left out of dK."""
    n, d, oh, ow = next_dz.shape
    apart = np.zeros((n, d, (oh - 1) * strides[0] + 1, (ow - 1) * strides[1] + 1))
    apart[:, :, :: strides[0], :: strides[1]] = next_dz
    flipped = K[:, :, ::-1, ::-1].swapaxes(0, 1)
    dz = correlate(padded(apart, (K.shape[2] - 1, K.shape[3] - 1)), flipped)
    dK = correlate(z.swapaxes(0, 1), apart)
    db = next_dz.sum(axis=(0, 2, 3))
    rows, columns = (slice(p, dz.shape[axis] - p) for axis, p in zip((2, 3), padding, strict=True))
    return dK / n, db / n, dz[:, :, rows, columns]


def max_pooling_forward(z, pooling, strides=(2, 2), padding=(0, 0)):
    z = padded(z, padding)
    y = empty_result(z, z.shape[1], pooling, strides)
    for i, j, place in places(z.shape[2:], pooling, strides):
        y[:, :, i, j] = z[place].max(axis=(2, 3))
    return y


def max_pooling_backward(next_dz, z, pooling, strides=(2, 2), padding=(0, 0), *, ties="first"):
    """`layers`: ties="first"; `layers_v2`: "all"."""
    h, w = z.shape[2:]
    z = padded(z, padding)
    dz = np.zeros_like(z)
    for i, j, place in places(z.shape[2:], pooling, strides):
        equal = z[place] == z[place].max(axis=(2, 3), keepdims=True)
        if ties == "first":
            flat = equal.reshape(*equal.shape[:2], -1)
            equal = (flat & (flat.cumsum(axis=2) == 1)).reshape(equal.shape)
        # The zeros of `layers_v2` have the size of a stride, and fail where a window has another.
        zeros = np.zeros((*z.shape[:2], *strides)) if ties == "all" else 0
        dz[place] += np.where(equal, next_dz[:, :, i, j, np.newaxis, np.newaxis], zeros)
    return dz[:, :, padding[0] : padding[0] + h, padding[1] : padding[1] + w]


def avg_pooling_forward(z, pooling, strides=(2, 2), padding=(0, 0)):
    z = padded(z, padding)
    y = empty_result(z, z.shape[1], pooling, strides).astype(np.float32)
    for i, j, place in places(z.shape[2:], pooling, strides):
        y[:, :, i, j] = z[place].mean(axis=(2, 3))
    return y


def avg_pooling_backward(next_dz, z, pooling, strides=(2, 2), padding=(0, 0)):
    h, w = z.shape[2:]
    dz = np.zeros_like(padded(z, padding))
    for i, j, place in places(dz.shape[2:], pooling, strides):
        dz[place] += (next_dz[:, :, i, j] / (pooling[0] * pooling[1]))[:, :, np.newaxis, np.newaxis]
    return dz[:, :, padding[0] : padding[0] + h, padding[1] : padding[1] + w]


def global_max_pooling_backward(next_dz, z):
    dz = np.zeros_like(z)
    for n, c in np.ndindex(z.shape[:2]):
        dz[n, c][np.unravel_index(z[n, c].argmax(), z.shape[2:])] = next_dz[n, c]
    return dz


def global_avg_pooling_backward(next_dz, z):
    return np.broadcast_to(next_dz[:, :, np.newaxis, np.newaxis] / (z.shape[2] * z.shape[3]), z.shape).astype(z.dtype)
