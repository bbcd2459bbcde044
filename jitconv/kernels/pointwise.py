"""Kernels over elements and rows: ReLU, dropout and softmax cross-entropy.

Work is split over `threads` parts that are cut at multiples of BLOCK elements, or between rows. Each element
then lies at the same place of a vector whatever the number of parts, and so gets the same bits.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from .jit import kernel, step

BLOCK = 1024  # elements: a multiple of every vector length times every unrolling that LLVM uses

_LOW = np.uint64(0xFFFFFFFF)
_MULTIPLIER_1, _MULTIPLIER_2 = np.uint64(0x7FEB352D), np.uint64(0x846CA68B)
_SHIFT_15, _SHIFT_16, _SHIFT_32 = np.uint64(15), np.uint64(16), np.uint64(32)


@step
def share(n, part, parts):
    """Return where part `part` of `parts` starts and stops in `n` elements."""
    blocks = (n + BLOCK - 1) // BLOCK
    return blocks * part // parts * BLOCK, min(n, blocks * (part + 1) // parts * BLOCK)


@step
def _relu(x, y):
    zero = x.dtype.type(0)
    for i in range(x.size):
        y[i] = zero if x[i] < zero else x[i]


@kernel(parallel=True)
def relu_forward(x, y, threads):
    """Fill y with x where x is not below zero; NaN stays NaN.  x, y (n,); y overwritten."""
    for i in prange(threads):
        start, stop = share(x.size, np.int64(i), threads)
        _relu(x[start:stop], y[start:stop])


@step
def _relu_mask(dy, y, dx):
    zero = y.dtype.type(0)
    for i in range(y.size):
        dx[i] = zero if y[i] <= zero else dy[i]


@kernel(parallel=True)
def relu_backward(dy, y, dx, threads):
    """Fill dx with dy where the saved output y is not zero.  dy, y, dx (n,); dx overwritten."""
    for i in prange(threads):
        start, stop = share(y.size, np.int64(i), threads)
        _relu_mask(dy[start:stop], y[start:stop], dx[start:stop])


@step
def _mix(bits):
    """Return 32 well mixed bits of 32 bits: the finaliser "lowbias32" of Chris Wellons' hash prospector.

    The 64-bit products never overflow.
    """
    bits ^= bits >> _SHIFT_16
    bits = (bits * _MULTIPLIER_1) & _LOW
    bits ^= bits >> _SHIFT_15
    bits = (bits * _MULTIPLIER_2) & _LOW
    return bits ^ (bits >> _SHIFT_16)


@step
def _drop(x, first, low, high, threshold, scale, y):
    zero = x.dtype.type(0)
    for i in range(x.size):
        index = np.uint64(first + i)
        bits = _mix(_mix((index & _LOW) ^ low) ^ high ^ (index >> _SHIFT_32))
        y[i] = x[i] * (scale if bits >= threshold else zero)


@kernel(parallel=True)
def dropout_apply(x, low, high, threshold, scale, y, threads):
    """Fill y with x * scale, or x * 0 with probability threshold / 2**32.  x, y (n,); y overwritten.

    An element's fate is a hash of its index and of the key (low, high, 32 bits each): no mask is stored, the
    backward pass asks for the same key, and no order of evaluation can change it.
    """
    for i in prange(threads):
        start, stop = share(x.size, np.int64(i), threads)
        _drop(x[start:stop], start, low, high, threshold, scale, y[start:stop])


@step
def _softmax_row(logits, label, scale, dlogits):
    highest = logits[0]
    for k in range(1, logits.size):
        highest = max(highest, logits[k])
    total = logits.dtype.type(0)
    for k in range(logits.size):
        power = np.exp(logits[k] - highest)
        dlogits[k] = power
        total += power
    factor = scale / total
    for k in range(logits.size):
        dlogits[k] *= factor
    dlogits[label] -= scale
    return np.log(total) - (logits[label] - highest)


@kernel(parallel=True)
def softmax_cross_entropy(logits, labels, scale, losses, dlogits, threads):
    """Fill losses with -log softmax(logits)[label] and dlogits with scale * (softmax - one hot), row by row.

    logits, dlogits (N, K), K > 0; labels, losses (N,); losses and dlogits overwritten. Powers are of logits
    less the row's highest, so none overflows.
    """
    rows = labels.size
    for i in prange(threads):
        part = np.int64(i)
        for n in range(rows * part // threads, rows * (part + 1) // threads):
            losses[n] = _softmax_row(logits[n], labels[n], scale, dlogits[n])
