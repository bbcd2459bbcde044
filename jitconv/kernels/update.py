"""Kernels of the optimizers: one pass over a parameter, its gradient and the optimizer's state.

All arrays are (n,); parameter and state are updated, the gradient is read. Scalars come in the arrays' dtype.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from .jit import kernel, step
from .pointwise import share


@step
def _sgd(parameter, gradient, rate, decay):
    for i in range(parameter.size):
        parameter[i] -= rate * (gradient[i] + decay * parameter[i])


@kernel(parallel=True)
def sgd(parameter, gradient, rate, decay, threads):
    """Step against the gradient."""
    for i in prange(threads):
        start, stop = share(parameter.size, np.int64(i), threads)
        _sgd(parameter[start:stop], gradient[start:stop], rate, decay)


@step
def _momentum(parameter, gradient, velocity, rate, decay, momentum):
    for i in range(parameter.size):
        velocity[i] = momentum * velocity[i] + (gradient[i] + decay * parameter[i])
        parameter[i] -= rate * velocity[i]


@kernel(parallel=True)
def sgd_momentum(parameter, gradient, velocity, rate, decay, momentum, threads):
    """Step against a decaying sum of gradients."""
    for i in prange(threads):
        start, stop = share(parameter.size, np.int64(i), threads)
        _momentum(parameter[start:stop], gradient[start:stop], velocity[start:stop], rate, decay, momentum)


@step
def _adagrad(parameter, gradient, total, rate, decay, eps):
    for i in range(parameter.size):
        slope = gradient[i] + decay * parameter[i]
        total[i] += slope * slope
        parameter[i] -= rate * slope / (np.sqrt(total[i]) + eps)


@kernel(parallel=True)
def adagrad(parameter, gradient, total, rate, decay, eps, threads):
    """Step against the gradient over the root of the sum of its squares so far."""
    for i in prange(threads):
        start, stop = share(parameter.size, np.int64(i), threads)
        _adagrad(parameter[start:stop], gradient[start:stop], total[start:stop], rate, decay, eps)


@step
def _rmsprop(parameter, gradient, square, rate, decay, alpha, rest, eps):
    for i in range(parameter.size):
        slope = gradient[i] + decay * parameter[i]
        square[i] = alpha * square[i] + rest * (slope * slope)
        parameter[i] -= rate * slope / (np.sqrt(square[i]) + eps)


@kernel(parallel=True)
def rmsprop(parameter, gradient, square, rate, decay, alpha, rest, eps, threads):
    """Step against the gradient over the root of the running mean of its square; rest = 1 - alpha."""
    for i in prange(threads):
        start, stop = share(parameter.size, np.int64(i), threads)
        _rmsprop(parameter[start:stop], gradient[start:stop], square[start:stop], rate, decay, alpha, rest, eps)


@step
def _adadelta(parameter, gradient, square, change, rate, decay, rho, rest, eps):
    for i in range(parameter.size):
        slope = gradient[i] + decay * parameter[i]
        square[i] = rho * square[i] + rest * (slope * slope)
        delta = np.sqrt(change[i] + eps) / np.sqrt(square[i] + eps) * slope
        change[i] = rho * change[i] + rest * (delta * delta)
        parameter[i] -= rate * delta


@kernel(parallel=True)
def adadelta(parameter, gradient, square, change, rate, decay, rho, rest, eps, threads):
    """Step by the gradient times the ratio of the running sizes of steps and gradients; rest = 1 - rho."""
    for i in prange(threads):
        start, stop = share(parameter.size, np.int64(i), threads)
        _adadelta(
            parameter[start:stop],
            gradient[start:stop],
            square[start:stop],
            change[start:stop],
            rate,
            decay,
            rho,
            rest,
            eps,
        )


@step
def _adam(parameter, gradient, first, second, rate, decay, rest_1, beta_2, rest_2, root, eps):
    for i in range(parameter.size):
        slope = gradient[i] + decay * parameter[i]
        first[i] += rest_1 * (slope - first[i])
        second[i] = beta_2 * second[i] + rest_2 * (slope * slope)
        parameter[i] -= rate * first[i] / (np.sqrt(second[i]) / root + eps)


@kernel(parallel=True)
def adam(parameter, gradient, first, second, rate, decay, rest_1, beta_2, rest_2, root, eps, threads):
    """Step against the running mean of the gradient over the root of that of its square.

    rest_1 = 1 - beta_1, rest_2 = 1 - beta_2; `rate` and `root` hold the two bias corrections.
    """
    for i in prange(threads):
        start, stop = share(parameter.size, np.int64(i), threads)
        _adam(
            parameter[start:stop],
            gradient[start:stop],
            first[start:stop],
            second[start:stop],
            rate,
            decay,
            rest_1,
            beta_2,
            rest_2,
            root,
            eps,
        )
