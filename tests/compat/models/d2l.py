"""What the functions of "Dive into Deep Learning" compute, window by window. It shares no code with jitconv."""

from __future__ import annotations

import numpy as np


def corr2d(X, K):
    h, w = K.shape
    Y = np.zeros((X.shape[0] - h + 1, X.shape[1] - w + 1), np.float32)
    for i, j in np.ndindex(Y.shape):
        Y[i, j] = (X[i : i + h, j : j + w] * K).sum()
    return Y


def corr2d_multi_in(X, K):
    return sum(corr2d(x, k) for x, k in zip(X, K, strict=False))


def corr2d_multi_in_out(X, K):
    return np.stack([corr2d_multi_in(X, k) for k in K])


def corr2d_multi_in_out_1x1(X, K):
    return np.matmul(K.reshape(len(K), -1), X.reshape(len(X), -1)).reshape(len(K), *X.shape[1:])


def pool2d(X, pool_size, mode="max"):
    h, w = pool_size
    Y = np.zeros((X.shape[0] - h + 1, X.shape[1] - w + 1), np.float32)
    for i, j in np.ndindex(Y.shape):
        if mode == "max":
            Y[i, j] = X[i : i + h, j : j + w].max()
        elif mode == "avg":
            Y[i, j] = X[i : i + h, j : j + w].mean()
    return Y


def trans_conv(X, K):
    h, w = K.shape
    Y = np.zeros((X.shape[0] + h - 1, X.shape[1] + w - 1), np.float32)
    for i, j in np.ndindex(X.shape):
        Y[i : i + h, j : j + w] += X[i, j] * K
    return Y
