"""Operators that compute with elements and vectors: activations, arithmetic, normalisation, dense layers, means."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from .. import dense, pointwise, pool, validate
from .arrangement import matrix
from .node import Array, Node
from .operator import Run


def relu(node: Node) -> Run:
    """Return ReLU."""
    return pointwise.relu


def leaky_relu(node: Node) -> Run:
    """Return ReLU with a slope below zero."""
    slope = node.attribute("alpha", 0.01)

    def run(x: Array) -> Array:
        return np.where(x < 0, slope * x, x)

    return run


def sigmoid(node: Node) -> Run:
    """Return the logistic function."""

    def run(x: Array) -> Array:
        return 1 / (1 + np.exp(-x))

    return run


def clip(node: Node) -> Run:
    """Return the nearest numbers between two limits, which are inputs, or, before version 11, attributes."""
    limits = node.attribute("min"), node.attribute("max")

    def run(x: Array, low: Array | None = None, high: Array | None = None) -> Array:
        low, high = limits if node.version < 11 else (low, high)
        y = x.copy() if low is None else np.maximum(x, low)
        return y if high is None else np.minimum(y, high)

    return run


def elementwise(function: Callable[..., Any]) -> Callable[[Node], Run]:
    """Return an operator that is this function of NumPy, with its broadcasting."""

    def make(node: Node) -> Run:
        if node.attribute("axis") is not None:
            node.refuse("broadcasting along an `axis`, which opset 7 has abolished, is not served")
        return function

    return make


def total(node: Node) -> Run:
    """Return the sum of any number of inputs."""

    def run(*terms: Array) -> Array:
        return functools.reduce(np.add, terms[1:], terms[0].copy())

    return run


def softmax(node: Node, *, logarithm: bool = False) -> Run:
    """Return softmax along an axis; before version 13 along this and all that follow."""
    whole = node.version < 13
    axis = node.attribute("axis", 1 if whole else -1)

    def run(x: Array) -> Array:
        rows = matrix(x, axis) if whole else x
        along = 1 if whole else axis
        shifted = rows - rows.max(axis=along, keepdims=True)
        powers = np.exp(shifted)
        sums = powers.sum(axis=along, keepdims=True)
        y = shifted - np.log(sums) if logarithm else powers / sums
        return y.reshape(x.shape)

    return run


def gemm(node: Node) -> Run:
    """Return alpha A B + beta C; with B transposed, as PyTorch's layers have it, by jitconv's dense layer."""
    alpha, beta = node.attribute("alpha", 1.0), node.attribute("beta", 1.0)
    transposed_a, transposed_b = node.attribute("transA", 0) == 1, node.attribute("transB", 0) == 1

    def run(a: Array, b: Array, c: Array | None = None) -> Array:
        if transposed_b and not transposed_a:
            features = validate.array(a, "A", (None, b.shape[1]), None, "as B has it")
            y = dense.forward(features, validate.contiguous(b), None, False)
        else:
            y = (a.T if transposed_a else a) @ (b.T if transposed_b else b)
        y = y if alpha == 1.0 else alpha * y
        return y if c is None else y + beta * c

    return run


def batch_normalization(node: Node) -> Run:
    """Return batch normalisation with running statistics, of any images, rows or vectors."""
    epsilon = node.attribute("epsilon", 1e-5)
    if any(node.outputs[1:]) or node.attribute("training_mode", 0) == 1:
        node.refuse("training is not served: there must be one output, and `training_mode` must be 0")
    if node.version < 7 and node.attribute("is_test", 0) == 0:
        node.refuse("training is not served: `is_test` must be 1")
    if node.attribute("spatial", 1) == 0:
        node.refuse("statistics of each pixel, `spatial=0`, are not served")

    def run(x: Array, *parameters: Array) -> Array:
        scale, bias, mean, variance = (one.astype(x.dtype, copy=False) for one in parameters)
        images = x.reshape(*x.shape[:2], math.prod(x.shape[2:]), 1)
        y = pointwise.batch_norm(images, scale, bias, mean, variance, training=False, eps=epsilon).y
        return y.reshape(x.shape)

    return run


def local_response_normalization(node: Node) -> Run:
    """Return x over a power of the squares of its neighbours in `size` channels (Krizhevsky and others, 2012)."""
    alpha, beta, bias = node.attribute("alpha", 1e-4), node.attribute("beta", 0.75), node.attribute("bias", 1.0)
    size = validate.integer(node.attribute("size"), "size", 1)

    def run(x: Array) -> Array:
        channels = x.shape[1]
        before, after = (min(reach, channels) for reach in ((size - 1) // 2, size // 2))
        squares = np.zeros((len(x), before + channels + after, *x.shape[2:]), x.dtype)
        np.square(x, out=squares[:, before : before + channels])
        sums = functools.reduce(np.add, (squares[:, first : first + channels] for first in range(before + after + 1)))
        return x / (bias + alpha / size * sums) ** beta

    return run


def reduce_mean(node: Node) -> Run:
    """Return means over axes, which are an attribute, or, from version 18 on, an input."""
    attribute, keep = node.attribute("axes"), node.attribute("keepdims", 1) == 1
    none_is_none = node.attribute("noop_with_empty_axes", 0) == 1

    def run(x: Array, axes: Array | None = None) -> Array:
        given = attribute if axes is None else tuple(axes.tolist())
        if not given:
            if none_is_none:
                return x.copy()
            given = range(x.ndim)
        over = tuple(axis + x.ndim if axis < 0 else axis for axis in given)
        if x.ndim == 4 and over == (2, 3):
            y = pool.global_avg_pool2d(x)
            return y if keep else y.reshape(y.shape[:2])
        sums = x.sum(axis=over, keepdims=keep)
        return np.divide(sums, math.prod(x.shape[axis] for axis in over), dtype=x.dtype)

    return run
