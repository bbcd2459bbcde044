"""Operators that arrange elements and compute nothing, also for the shapes that exporters compute with."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from .node import Array, Node, tensor_array
from .operator import Run


def identity(node: Node) -> Run:
    """Return the input."""

    def run(x: Array) -> Array:
        return x

    return run


def dropout(node: Node) -> Run:
    """Return the input, as in inference, and, if it has a name, a mask that keeps all."""
    if node.version == 6 and node.attribute("is_test", 0) == 0:
        node.refuse("training is not served: `is_test` must be 1")
    if node.given(2):
        training = node.constant(2)
        if training is None or training.any():
            node.refuse("training is not served: `training_mode` must be left out or a constant false")
    masked = len(node.outputs) > 1 and node.outputs[1] != ""

    def run(x: Array, *_: Array | None) -> Array | tuple[Array, Array]:
        return (x, np.ones(x.shape, x.dtype if node.version < 10 else np.bool_)) if masked else x

    return run


def matrix(x: Array, axis: int) -> Array:
    """Return x as a matrix, whose columns are the elements of `axis` and all that follow."""
    axis = axis + x.ndim if axis < 0 else axis
    return x.reshape(math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))


def flatten(node: Node) -> Run:
    """Return x as a matrix."""
    axis = node.attribute("axis", 1)

    def run(x: Array) -> Array:
        return matrix(x, axis)

    return run


def reshape(node: Node) -> Run:
    """Return the elements in another shape; 0 stands for the axis of the input, unless `allowzero` is set."""
    keep_zero = node.attribute("allowzero", 0) == 1

    def run(x: Array, shape: Array) -> Array:
        sizes = [int(size) for size in shape]
        if not keep_zero:
            sizes = [x.shape[axis] if size == 0 else size for axis, size in enumerate(sizes)]
        return x.reshape(sizes)

    return run


def _axes(node: Node, given: Array | None) -> tuple[int, ...] | None:
    """Return axes that are an attribute, or, from version 13 on, an input."""
    return node.attribute("axes") if given is None else tuple(given.tolist())


def squeeze(node: Node) -> Run:
    """Return x without axes of length 1."""

    def run(x: Array, axes: Array | None = None) -> Array:
        return np.squeeze(x, _axes(node, axes))

    return run


def unsqueeze(node: Node) -> Run:
    """Return x with more axes of length 1."""

    def run(x: Array, axes: Array | None = None) -> Array:
        return np.expand_dims(x, _axes(node, axes) or ())

    return run


def transpose(node: Node) -> Run:
    """Return x with its axes in another order."""
    order = node.attribute("perm")

    def run(x: Array) -> Array:
        return np.transpose(x, order)

    return run


def concat(node: Node) -> Run:
    """Return arrays one behind the other along an axis."""
    axis = node.attribute("axis")

    def run(*parts: Array) -> Array:
        return np.concatenate(parts, axis)

    return run


def gather(node: Node) -> Run:
    """Return the entries of an axis that the indices name."""
    axis = node.attribute("axis", 0)

    def run(x: Array, indices: Array) -> Array:
        return np.take(x, indices, axis)

    return run


def shape(node: Node) -> Run:
    """Return the shape of x, or a part of it."""
    begin, end = node.attribute("start", 0), node.attribute("end")

    def run(x: Array) -> Array:
        return np.array(x.shape[begin:end], np.int64)

    return run


def constant(node: Node) -> Run:
    """Return the value of an attribute."""
    made: dict[str, Callable[[Any], Array]] = {
        "value": tensor_array,
        "value_float": lambda value: np.array(value, np.float32),
        "value_floats": lambda value: np.array(value, np.float32),
        "value_int": lambda value: np.array(value, np.int64),
        "value_ints": lambda value: np.array(value, np.int64),
    }
    values = [convert(node.attribute(name)) for name, convert in made.items() if node.attribute(name) is not None]
    if not values:
        node.refuse(f"only {', '.join(made)} are served")

    def run() -> Array:
        return values[0]

    return run


def constant_of_shape(node: Node) -> Run:
    """Return an array of this shape whose elements are all the same: of float32 and zero if nothing is said."""
    value = node.attribute("value")
    element = np.zeros((), np.float32) if value is None else tensor_array(value).reshape(())

    def run(shape: Array) -> Array:
        return np.full(tuple(shape.tolist()), element, element.dtype)

    return run
