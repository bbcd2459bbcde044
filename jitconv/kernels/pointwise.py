"""Kernels over elements and rows: ReLU, dropout and softmax cross-entropy.

Elements are shared in blocks of BLOCK, rows whole. Each element then lies at the same place of a vector whatever the
number of threads, and so gets the same bits.
"""

from __future__ import annotations

import numpy as np
from numba import carray

from .jit import step, worker
from .views import floats, int64s

BLOCK = 1024  # elements: a multiple of every vector length times every unrolling that LLVM uses

_LOW = 0xFFFFFFFF
_MULTIPLIER_1, _MULTIPLIER_2 = np.uint32(0x7FEB352D), np.uint32(0x846CA68B)
_SHIFT_15, _SHIFT_16 = np.uint32(15), np.uint32(16)


@step
def share(n, thread, threads):
    """Return where a thread's share of `n` elements starts and stops."""
    blocks = (n + BLOCK - 1) // BLOCK
    return blocks * thread // threads * BLOCK, min(n, blocks * (thread + 1) // threads * BLOCK)


@worker
def relu_forward(like, arguments, thread, threads):
    """Fill y with x where x is not below zero; NaN stays NaN. Arguments: x (n,), y (n,), overwritten; n."""
    a = carray(arguments, 3)
    start, stop = share(a[2], thread, threads)
    x, y = floats(a[0], (a[2],), like)[start:stop], floats(a[1], (a[2],), like)[start:stop]
    zero = x.dtype.type(0)
    for i in range(x.size):
        y[i] = zero if x[i] < zero else x[i]


@worker
def relu_backward(like, arguments, thread, threads):
    """Fill dx with dy where the saved output y is not zero. Arguments: dy (n,), y (n,), dx (n,), overwritten; n."""
    a = carray(arguments, 4)
    start, stop = share(a[3], thread, threads)
    dy, y = floats(a[0], (a[3],), like)[start:stop], floats(a[1], (a[3],), like)[start:stop]
    dx = floats(a[2], (a[3],), like)[start:stop]
    zero = y.dtype.type(0)
    for i in range(y.size):
        dx[i] = zero if y[i] <= zero else dy[i]


@step
def _mix(bits):
    """Return 32 well mixed bits of 32 bits: the finaliser "lowbias32" of Chris Wellons' hash prospector.

    Each product is cut to 32 bits at once: LLVM then multiplies twice as many lanes.
    """
    bits = np.uint32(bits ^ (bits >> _SHIFT_16))
    bits = np.uint32(bits * _MULTIPLIER_1)
    bits = np.uint32(bits ^ (bits >> _SHIFT_15))
    bits = np.uint32(bits * _MULTIPLIER_2)
    return np.uint32(bits ^ (bits >> _SHIFT_16))


@step
def _drop(x, first, low, high, last, kept, dropped, y):
    """Fill y from elements `first` on, whose numbers share their upper 32 bits; those with a hash to `last` drop."""
    for i in range(x.size):
        bits = _mix(np.uint32(_mix(np.uint32(np.uint32(first + i) ^ low)) ^ high))
        y[i] = x[i] * (kept if bits > last else dropped)


@worker
def dropout_apply(like, arguments, thread, threads):
    """Fill y with x * scale, or x * 0 with probability threshold / 2**32.

    Arguments: x (n,), y (n,), overwritten; scale (1,); n, low, high, threshold, offset. An element's fate is a hash of
    its index plus the offset, and of the key (low, high, 32 bits each): no mask is stored, the backward pass asks for
    the same key, and no order of evaluation can change it.
    """
    a = carray(arguments, 8)
    x, y = floats(a[0], (a[3],), like), floats(a[1], (a[3],), like)
    kept, threshold = floats(a[2], (1,), like)[0], a[6]
    # hash >= threshold, where the threshold may be 2**32, in 32 bits: above the last that drops, if one does.
    dropped = kept if threshold == 0 else x.dtype.type(0)
    last = np.uint32(max(threshold - 1, 0))
    offset = a[7]
    first, past = share(x.size, thread, threads)
    while first < past:
        number = first + offset
        stop = min(past, (number | _LOW) + 1 - offset)
        high = np.uint32(a[5] ^ (number >> 32))
        _drop(x[first:stop], number, np.uint32(a[4]), high, last, kept, dropped, y[first:stop])
        first = stop


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


@worker
def softmax_cross_entropy(like, arguments, thread, threads):
    """Fill losses with -log softmax(logits)[label] and dlogits with scale * (softmax - one hot), row by row.

    Arguments: logits (N, K), K > 0; labels (N,) of int64; scale (1,); losses (N,) and dlogits (N, K), overwritten;
    N, K. Powers are of logits less the row's highest, so none overflows.
    """
    a = carray(arguments, 7)
    rows = a[5]
    logits, dlogits = floats(a[0], (rows, a[6]), like), floats(a[4], (rows, a[6]), like)
    labels, scale, losses = int64s(a[1], (rows,)), floats(a[2], (1,), like)[0], floats(a[3], (rows,), like)
    for n in range(rows * thread // threads, rows * (thread + 1) // threads):
        losses[n] = _softmax_row(logits[n], labels[n], scale, dlogits[n])
