"""Convolution and pooling as they are first written in Cython: typed arrays and loops, and NumPy on a slice for each
output. The compiler cannot help: nearly all the time is that of NumPy's calls on a few numbers each.

x (N, C, H, W) comes with its padding around it, w (F, C, KH, KW), dy and y (N, F, OH, OW).
"""

import numpy as np

cimport numpy as cnp
from cython cimport floating

cnp.import_array()


def conv_forward(
    cnp.ndarray[floating, ndim=4] x, cnp.ndarray[floating, ndim=4] w, cnp.ndarray[floating, ndim=1] b,
    Py_ssize_t stride, cnp.ndarray[floating, ndim=4] y,
):
    """Overwrite y."""
    cdef Py_ssize_t n, f, i, j, kernel = w.shape[2]
    for n in range(y.shape[0]):
        for f in range(y.shape[1]):
            for i in range(y.shape[2]):
                for j in range(y.shape[3]):
                    window = x[n, :, i * stride : i * stride + kernel, j * stride : j * stride + kernel]
                    y[n, f, i, j] = np.sum(window * w[f]) + b[f]


def conv_backward_data(
    cnp.ndarray[floating, ndim=4] dy, cnp.ndarray[floating, ndim=4] w, Py_ssize_t stride,
    cnp.ndarray[floating, ndim=4] dx,
):
    """Add to dx, which has its padding around it."""
    cdef Py_ssize_t n, f, i, j, kernel = w.shape[2]
    for n in range(dy.shape[0]):
        for f in range(dy.shape[1]):
            for i in range(dy.shape[2]):
                for j in range(dy.shape[3]):
                    window = dx[n, :, i * stride : i * stride + kernel, j * stride : j * stride + kernel]
                    window += w[f] * dy[n, f, i, j]


def conv_backward_weights(
    cnp.ndarray[floating, ndim=4] dy, cnp.ndarray[floating, ndim=4] x, Py_ssize_t stride,
    cnp.ndarray[floating, ndim=4] dw, cnp.ndarray[floating, ndim=1] db,
):
    """Add to dw and overwrite db."""
    cdef Py_ssize_t n, f, i, j, kernel = dw.shape[2]
    for n in range(dy.shape[0]):
        for f in range(dy.shape[1]):
            for i in range(dy.shape[2]):
                for j in range(dy.shape[3]):
                    window = x[n, :, i * stride : i * stride + kernel, j * stride : j * stride + kernel]
                    dw[f] += window * dy[n, f, i, j]
    for f in range(dy.shape[1]):
        db[f] = np.sum(dy[:, f])


def max_forward(
    cnp.ndarray[floating, ndim=4] x, Py_ssize_t kernel, Py_ssize_t stride, cnp.ndarray[floating, ndim=4] y,
    cnp.ndarray[int, ndim=4] argmax,
):
    """Overwrite y and argmax: the place in the window."""
    cdef Py_ssize_t n, c, i, j
    for n in range(y.shape[0]):
        for c in range(y.shape[1]):
            for i in range(y.shape[2]):
                for j in range(y.shape[3]):
                    window = x[n, c, i * stride : i * stride + kernel, j * stride : j * stride + kernel]
                    y[n, c, i, j] = np.max(window)
                    argmax[n, c, i, j] = np.argmax(window)


def max_backward(
    cnp.ndarray[floating, ndim=4] dy, cnp.ndarray[int, ndim=4] argmax, Py_ssize_t kernel, Py_ssize_t stride,
    cnp.ndarray[floating, ndim=4] dx,
):
    """Add to dx, which has its padding around it."""
    cdef Py_ssize_t n, c, i, j
    for n in range(dy.shape[0]):
        for c in range(dy.shape[1]):
            for i in range(dy.shape[2]):
                for j in range(dy.shape[3]):
                    window = dx[n, c, i * stride : i * stride + kernel, j * stride : j * stride + kernel]
                    p, q = np.unravel_index(argmax[n, c, i, j], (kernel, kernel))
                    window[p, q] += dy[n, c, i, j]


def average_forward(
    cnp.ndarray[floating, ndim=4] x, Py_ssize_t kernel, Py_ssize_t stride, cnp.ndarray[floating, ndim=4] y
):
    """Overwrite y; padding counts."""
    cdef Py_ssize_t n, c, i, j
    for n in range(y.shape[0]):
        for c in range(y.shape[1]):
            for i in range(y.shape[2]):
                for j in range(y.shape[3]):
                    window = x[n, c, i * stride : i * stride + kernel, j * stride : j * stride + kernel]
                    y[n, c, i, j] = np.sum(window) / (kernel * kernel)


def average_backward(
    cnp.ndarray[floating, ndim=4] dy, Py_ssize_t kernel, Py_ssize_t stride, cnp.ndarray[floating, ndim=4] dx
):
    """Add to dx, which has its padding around it."""
    cdef Py_ssize_t n, c, i, j
    for n in range(dy.shape[0]):
        for c in range(dy.shape[1]):
            for i in range(dy.shape[2]):
                for j in range(dy.shape[3]):
                    window = dx[n, c, i * stride : i * stride + kernel, j * stride : j * stride + kernel]
                    window += dy[n, c, i, j] / (kernel * kernel)
