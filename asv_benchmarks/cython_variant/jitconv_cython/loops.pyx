"""Convolution and pooling as typed loops; planes are shared out to threads, and the inner loop runs along a row.

x (N, C, H, W) comes with its padding around it, w (F, C, KH, KW), dy and y (N, F, OH, OW).
"""

import numpy as np

from cython cimport floating
from cython.parallel cimport prange


cdef inline void _axpy(Py_ssize_t n, floating a, const floating *x, Py_ssize_t step, floating *y) noexcept nogil:
    cdef Py_ssize_t i
    if step == 1:
        for i in range(n):
            y[i] += a * x[i]
    else:
        for i in range(n):
            y[i] += a * x[i * step]


cdef inline void _spread(Py_ssize_t n, floating a, const floating *x, floating *y, Py_ssize_t step) noexcept nogil:
    cdef Py_ssize_t i
    if step == 1:
        for i in range(n):
            y[i] += a * x[i]
    else:
        for i in range(n):
            y[i * step] += a * x[i]


cdef inline floating _dot(Py_ssize_t n, const floating *x, Py_ssize_t step, const floating *y) noexcept nogil:
    cdef Py_ssize_t i
    cdef floating total = 0
    if step == 1:
        for i in range(n):
            total += x[i] * y[i]
    else:
        for i in range(n):
            total += x[i * step] * y[i]
    return total


cdef void _forward_plane(
    floating[:, :, :, ::1] x, floating[:, :, :, ::1] w, floating[::1] b, Py_ssize_t stride,
    floating[:, :, :, ::1] y, Py_ssize_t n, Py_ssize_t f,
) noexcept nogil:
    cdef Py_ssize_t c, p, q, i, j
    for i in range(y.shape[2]):
        for j in range(y.shape[3]):
            y[n, f, i, j] = b[f]
        for c in range(x.shape[1]):
            for p in range(w.shape[2]):
                for q in range(w.shape[3]):
                    _axpy(y.shape[3], w[f, c, p, q], &x[n, c, i * stride + p, q], stride, &y[n, f, i, 0])


def conv_forward(
    floating[:, :, :, ::1] x, floating[:, :, :, ::1] w, floating[::1] b, Py_ssize_t stride,
    floating[:, :, :, ::1] y, int threads,
):
    """Overwrite y."""
    cdef Py_ssize_t item
    for item in prange(y.shape[0] * y.shape[1], nogil=True, schedule="static", num_threads=threads):
        _forward_plane(x, w, b, stride, y, item // y.shape[1], item % y.shape[1])


cdef void _backward_data_plane(
    floating[:, :, :, ::1] dy, floating[:, :, :, ::1] w, Py_ssize_t stride, floating[:, :, :, ::1] dx,
    Py_ssize_t n, Py_ssize_t c,
) noexcept nogil:
    cdef Py_ssize_t f, p, q, i
    for i in range(dy.shape[2]):
        for f in range(dy.shape[1]):
            for p in range(w.shape[2]):
                for q in range(w.shape[3]):
                    _spread(dy.shape[3], w[f, c, p, q], &dy[n, f, i, 0], &dx[n, c, i * stride + p, q], stride)


def conv_backward_data(
    floating[:, :, :, ::1] dy, floating[:, :, :, ::1] w, Py_ssize_t stride, floating[:, :, :, ::1] dx, int threads
):
    """Add to dx, which has its padding around it."""
    cdef Py_ssize_t item
    for item in prange(dx.shape[0] * dx.shape[1], nogil=True, schedule="static", num_threads=threads):
        _backward_data_plane(dy, w, stride, dx, item // dx.shape[1], item % dx.shape[1])


cdef void _backward_weights_window(
    floating[:, :, :, ::1] dy, floating[:, :, :, ::1] x, Py_ssize_t stride, floating[:, :, :, ::1] dw,
    Py_ssize_t f, Py_ssize_t c,
) noexcept nogil:
    cdef Py_ssize_t n, p, q, i
    for n in range(dy.shape[0]):
        for i in range(dy.shape[2]):
            for p in range(dw.shape[2]):
                for q in range(dw.shape[3]):
                    dw[f, c, p, q] += _dot(dy.shape[3], &x[n, c, i * stride + p, q], stride, &dy[n, f, i, 0])


cdef void _backward_bias(floating[:, :, :, ::1] dy, floating[::1] db) noexcept nogil:
    cdef Py_ssize_t n, f, i, j
    cdef floating total
    for f in range(dy.shape[1]):
        total = 0
        for n in range(dy.shape[0]):
            for i in range(dy.shape[2]):
                for j in range(dy.shape[3]):
                    total += dy[n, f, i, j]
        db[f] = total


def conv_backward_weights(
    floating[:, :, :, ::1] dy, floating[:, :, :, ::1] x, Py_ssize_t stride, floating[:, :, :, ::1] dw,
    floating[::1] db, int threads,
):
    """Add to dw and overwrite db."""
    cdef Py_ssize_t item
    _backward_bias(dy, db)
    for item in prange(dw.shape[0] * dw.shape[1], nogil=True, schedule="static", num_threads=threads):
        _backward_weights_window(dy, x, stride, dw, item // dw.shape[1], item % dw.shape[1])


cdef void _max_forward_plane(
    const floating *x, Py_ssize_t width, Py_ssize_t kernel, Py_ssize_t stride, floating[:, ::1] y, int[:, ::1] argmax
) noexcept nogil:
    cdef Py_ssize_t i, j, p, q
    cdef floating best, value
    cdef int where
    for i in range(y.shape[0]):
        for j in range(y.shape[1]):
            best = x[i * stride * width + j * stride]
            where = 0
            for p in range(kernel):
                for q in range(kernel):
                    value = x[(i * stride + p) * width + j * stride + q]
                    if value > best:
                        best = value
                        where = <int> (p * kernel + q)
            y[i, j] = best
            argmax[i, j] = where


def max_forward(
    floating[:, :, :, ::1] x, Py_ssize_t kernel, Py_ssize_t stride, floating[:, :, :, ::1] y,
    int[:, :, :, ::1] argmax, int threads,
):
    """Overwrite y and argmax: the place in the window."""
    cdef Py_ssize_t item, channels = x.shape[1], width = x.shape[3]
    for item in prange(x.shape[0] * channels, nogil=True, schedule="static", num_threads=threads):
        _max_forward_plane(
            &x[item // channels, item % channels, 0, 0], width, kernel, stride,
            y[item // channels, item % channels], argmax[item // channels, item % channels],
        )


cdef void _max_backward_plane(
    floating[:, ::1] dy, int[:, ::1] argmax, Py_ssize_t kernel, Py_ssize_t stride, floating *dx, Py_ssize_t width
) noexcept nogil:
    cdef Py_ssize_t i, j
    for i in range(dy.shape[0]):
        for j in range(dy.shape[1]):
            dx[(i * stride + argmax[i, j] // kernel) * width + j * stride + argmax[i, j] % kernel] += dy[i, j]


def max_backward(
    floating[:, :, :, ::1] dy, int[:, :, :, ::1] argmax, Py_ssize_t kernel, Py_ssize_t stride,
    floating[:, :, :, ::1] dx, int threads,
):
    """Add to dx, which has its padding around it."""
    cdef Py_ssize_t item, channels = dx.shape[1], width = dx.shape[3]
    for item in prange(dx.shape[0] * channels, nogil=True, schedule="static", num_threads=threads):
        _max_backward_plane(
            dy[item // channels, item % channels], argmax[item // channels, item % channels], kernel, stride,
            &dx[item // channels, item % channels, 0, 0], width,
        )


cdef void _average_forward_plane(
    const floating *x, Py_ssize_t width, Py_ssize_t kernel, Py_ssize_t stride, floating[:, ::1] y
) noexcept nogil:
    cdef Py_ssize_t i, j, p, q
    cdef floating total
    for i in range(y.shape[0]):
        for j in range(y.shape[1]):
            total = 0
            for p in range(kernel):
                for q in range(kernel):
                    total += x[(i * stride + p) * width + j * stride + q]
            y[i, j] = total / (kernel * kernel)


def average_forward(
    floating[:, :, :, ::1] x, Py_ssize_t kernel, Py_ssize_t stride, floating[:, :, :, ::1] y, int threads
):
    """Overwrite y; padding counts."""
    cdef Py_ssize_t item, channels = x.shape[1], width = x.shape[3]
    for item in prange(x.shape[0] * channels, nogil=True, schedule="static", num_threads=threads):
        _average_forward_plane(
            &x[item // channels, item % channels, 0, 0], width, kernel, stride, y[item // channels, item % channels]
        )


cdef void _average_backward_plane(
    floating[:, ::1] dy, Py_ssize_t kernel, Py_ssize_t stride, floating *dx, Py_ssize_t width
) noexcept nogil:
    cdef Py_ssize_t i, j, p, q
    cdef floating share
    for i in range(dy.shape[0]):
        for j in range(dy.shape[1]):
            share = dy[i, j] / (kernel * kernel)
            for p in range(kernel):
                for q in range(kernel):
                    dx[(i * stride + p) * width + j * stride + q] += share


def average_backward(
    floating[:, :, :, ::1] dy, Py_ssize_t kernel, Py_ssize_t stride, floating[:, :, :, ::1] dx, int threads
):
    """Add to dx, which has its padding around it."""
    cdef Py_ssize_t item, channels = dx.shape[1], width = dx.shape[3]
    for item in prange(dx.shape[0] * channels, nogil=True, schedule="static", num_threads=threads):
        _average_backward_plane(
            dy[item // channels, item % channels], kernel, stride, &dx[item // channels, item % channels, 0, 0], width
        )
