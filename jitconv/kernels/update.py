"""Kernels of the optimizers: one launch updates all parameters of a network, one pass over each.

All arrays are flat; parameters and state are updated, gradients are read. The arguments of each worker are a table,
the scalars of its rule in the arrays' dtype, and the number of parameters. A row of the table (int64) is a parameter:
its address, its gradient's, those of the rule's two arrays of state (0 where it has none), its elements, and the blocks
up to and with it. Threads share the blocks of all parameters evenly. A block starts where its parameter does, so that
no bit depends on the number of threads.

Squares are multiplied by their share first, as in PyTorch: in float32 (0.001 * 1e20) * 1e20 is finite, 1e20 * 1e20 is
not.
"""

from __future__ import annotations

import numpy as np
from numba import carray

from .jit import inlined, step, worker
from .pointwise import BLOCK
from .views import floats, int64s

COLUMNS, SIZE, PAST = 6, 4, 5


@step
def _blocks_of(table, thread, threads):
    """Return a thread's share of the blocks of all parameters."""
    total = table[table.shape[0] - 1, PAST] if table.shape[0] else 0
    return total * thread // threads, total * (thread + 1) // threads


@step
def _piece(table, first, past):
    """Return the parameter in which block `first` lies, which of its elements [first, past) has, and its last block."""
    row = 0
    while table[row, PAST] <= first:
        row += 1
    begin = table[row - 1, PAST] if row else 0
    stop = min(table[row, SIZE], (past - begin) * BLOCK)
    return row, (first - begin) * BLOCK, stop, table[row, PAST]


@inlined
def _part(table, row, column, start, stop, like):
    return floats(table[row, column], (table[row, SIZE],), like)[start:stop]


@inlined
def _slope(gradient, decay, parameter):
    """Return a gradient with its decay; without decay an infinite parameter stays infinite, as in PyTorch."""
    return gradient + decay * parameter if decay != 0 else gradient


@worker
def sgd(like, arguments, thread, threads):
    """Step against the gradient. Scalars: rate, decay."""
    a = carray(arguments, 3)
    table, scalars = int64s(a[0], (a[2], COLUMNS)), floats(a[1], (2,), like)
    rate, decay = scalars[0], scalars[1]
    first, past = _blocks_of(table, thread, threads)
    while first < past:
        row, start, stop, first = _piece(table, first, past)
        parameter, gradient = _part(table, row, 0, start, stop, like), _part(table, row, 1, start, stop, like)
        for i in range(parameter.size):
            parameter[i] -= rate * _slope(gradient[i], decay, parameter[i])


@worker
def sgd_momentum(like, arguments, thread, threads):
    """Step against a decaying sum of gradients. Scalars: rate, decay, momentum."""
    a = carray(arguments, 3)
    table, scalars = int64s(a[0], (a[2], COLUMNS)), floats(a[1], (3,), like)
    rate, decay, momentum = scalars[0], scalars[1], scalars[2]
    first, past = _blocks_of(table, thread, threads)
    while first < past:
        row, start, stop, first = _piece(table, first, past)
        parameter, gradient = _part(table, row, 0, start, stop, like), _part(table, row, 1, start, stop, like)
        velocity = _part(table, row, 2, start, stop, like)
        for i in range(parameter.size):
            velocity[i] = momentum * velocity[i] + _slope(gradient[i], decay, parameter[i])
            parameter[i] -= rate * velocity[i]


@worker
def adagrad(like, arguments, thread, threads):
    """Step against the gradient over the root of the sum of its squares so far. Scalars: rate, decay, eps."""
    a = carray(arguments, 3)
    table, scalars = int64s(a[0], (a[2], COLUMNS)), floats(a[1], (3,), like)
    rate, decay, eps = scalars[0], scalars[1], scalars[2]
    first, past = _blocks_of(table, thread, threads)
    while first < past:
        row, start, stop, first = _piece(table, first, past)
        parameter, gradient = _part(table, row, 0, start, stop, like), _part(table, row, 1, start, stop, like)
        total = _part(table, row, 2, start, stop, like)
        for i in range(parameter.size):
            slope = _slope(gradient[i], decay, parameter[i])
            total[i] += slope * slope
            parameter[i] -= rate * slope / (np.sqrt(total[i]) + eps)


@worker
def rmsprop(like, arguments, thread, threads):
    """Step against the gradient over the root of the running mean of its square.

    Scalars: rate, decay, alpha, 1 - alpha, eps.
    """
    a = carray(arguments, 3)
    table, scalars = int64s(a[0], (a[2], COLUMNS)), floats(a[1], (5,), like)
    rate, decay, alpha, rest, eps = scalars[0], scalars[1], scalars[2], scalars[3], scalars[4]
    first, past = _blocks_of(table, thread, threads)
    while first < past:
        row, start, stop, first = _piece(table, first, past)
        parameter, gradient = _part(table, row, 0, start, stop, like), _part(table, row, 1, start, stop, like)
        square = _part(table, row, 2, start, stop, like)
        for i in range(parameter.size):
            slope = _slope(gradient[i], decay, parameter[i])
            square[i] = alpha * square[i] + rest * slope * slope
            parameter[i] -= rate * slope / (np.sqrt(square[i]) + eps)


@worker
def adadelta(like, arguments, thread, threads):
    """Step by the gradient times the ratio of the running sizes of steps and gradients.

    Scalars: rate, decay, rho, 1 - rho, eps.
    """
    a = carray(arguments, 3)
    table, scalars = int64s(a[0], (a[2], COLUMNS)), floats(a[1], (5,), like)
    rate, decay, rho, rest, eps = scalars[0], scalars[1], scalars[2], scalars[3], scalars[4]
    first, past = _blocks_of(table, thread, threads)
    while first < past:
        row, start, stop, first = _piece(table, first, past)
        parameter, gradient = _part(table, row, 0, start, stop, like), _part(table, row, 1, start, stop, like)
        square, change = _part(table, row, 2, start, stop, like), _part(table, row, 3, start, stop, like)
        for i in range(parameter.size):
            slope = _slope(gradient[i], decay, parameter[i])
            square[i] = rho * square[i] + rest * slope * slope
            delta = np.sqrt(change[i] + eps) / np.sqrt(square[i] + eps) * slope
            change[i] = rho * change[i] + rest * delta * delta
            parameter[i] -= rate * delta


@worker
def adam(like, arguments, thread, threads):
    """Step against the running mean of the gradient over the root of that of its square.

    Scalars: rate, decay, 1 - beta_1, beta_2, 1 - beta_2, root, eps; `rate` and `root` hold the bias corrections.
    """
    a = carray(arguments, 3)
    table, scalars = int64s(a[0], (a[2], COLUMNS)), floats(a[1], (7,), like)
    rate, decay, rest_1, beta_2 = scalars[0], scalars[1], scalars[2], scalars[3]
    rest_2, root, eps = scalars[4], scalars[5], scalars[6]
    first, past = _blocks_of(table, thread, threads)
    while first < past:
        row, start, stop, first = _piece(table, first, past)
        parameter, gradient = _part(table, row, 0, start, stop, like), _part(table, row, 1, start, stop, like)
        mean, square = _part(table, row, 2, start, stop, like), _part(table, row, 3, start, stop, like)
        for i in range(parameter.size):
            slope = _slope(gradient[i], decay, parameter[i])
            mean[i] += rest_1 * (slope - mean[i])
            square[i] = beta_2 * square[i] + rest_2 * slope * slope
            parameter[i] -= rate * mean[i] / (np.sqrt(square[i]) / root + eps)
