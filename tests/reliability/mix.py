"""A mix of calls of all kinds of kernels, most of them large enough for several threads, and their results' SHA-256."""

from __future__ import annotations

import functools
import hashlib
import itertools

import numpy as np

import jitconv
from jitconv.layers import BatchNorm2d, Conv2d, Dense, Flatten, MaxPool2d
from jitconv.training import SGD, Sequential, Trainer

# Name: shapes of x and w in NCHW, and options.
CONVOLUTIONS = {
    "3x3": ((2, 24, 16, 16), (40, 24, 3, 3), {"padding": 1}),
    "5x5": ((2, 24, 15, 15), (24, 24, 5, 5), {"padding": 2}),
    "3x3, stride 2": ((3, 24, 21, 21), (40, 24, 3, 3), {"padding": 1, "stride": 2}),
    "1x1": ((4, 40, 14, 14), (64, 40, 1, 1), {}),
    "first layer": ((8, 1, 28, 28), (16, 1, 3, 3), {"padding": 1}),
    "depthwise": ((4, 64, 28, 28), (64, 1, 3, 3), {"padding": 1, "groups": 64}),
    "groups of 4": ((2, 64, 20, 20), (64, 4, 3, 3), {"padding": 1, "groups": 16}),
    "groups of 16": ((2, 64, 20, 20), (64, 16, 3, 3), {"padding": 1, "groups": 4}),
    "one small image": ((1, 6, 14, 14), (16, 6, 5, 5), {}),
}
ALGORITHMS = {
    "3x3": ("auto", "direct", "im2col", "winograd", "winograd_2x2"),
    "5x5": ("direct", "winograd"),
    "3x3, stride 2": ("direct", "im2col", "winograd"),
}
POOLS = {
    "2x2": (2, {}),
    "3x3, stride 2": (3, {"stride": 2, "padding": 1, "ceil_mode": True}),
    "3x3, stride 1": (3, {"stride": 1, "padding": 1}),
}


def _numbers(shape, dtype, layout="NCHW", seed=0):
    a = np.random.default_rng(seed).standard_normal(shape).astype(dtype)
    return np.ascontiguousarray(np.moveaxis(a, 1, -1)) if layout == "NHWC" else a


def _convolution(shape, w_shape, dtype, layout, **options):
    """Return y, dx, dw and db."""
    x, w, b = _numbers(shape, dtype, layout), _numbers(w_shape, dtype, seed=1), _numbers(w_shape[0], dtype, seed=2)
    y = jitconv.conv2d(x, w, b, layout=layout, **options)
    return y, *jitconv.conv2d_backward(y, x, w, layout=layout, **options)


def _transposed(dtype, layout):
    x, w = _numbers((2, 40, 12, 12), dtype, layout), _numbers((40, 24, 3, 3), dtype, seed=1)
    y = jitconv.conv_transpose2d(x, w, stride=2, layout=layout)
    return y, *jitconv.conv_transpose2d_backward(y, x, w, stride=2, layout=layout)


def _pooling(kernel, dtype, layout, **options):
    x = _numbers((6, 40, 28, 28), dtype, layout)
    y, argmax = jitconv.max_pool2d_with_argmax(x, kernel, layout=layout, **options)
    mean = jitconv.avg_pool2d(x, kernel, layout=layout, **options)
    largest, place = jitconv.global_max_pool2d(x, layout=layout)
    whole = jitconv.global_avg_pool2d(x, layout=layout)
    return (
        y, argmax, mean, largest, place, whole,
        jitconv.max_pool2d_backward(y, argmax, x.shape, kernel, layout=layout, **options),
        jitconv.avg_pool2d_backward(mean, x.shape, kernel, layout=layout, **options),
        jitconv.global_avg_pool2d_backward(whole, x.shape, layout=layout),
    )  # fmt: skip


def _columns(dtype):
    x = _numbers((2, 24, 20, 20), dtype)
    columns = jitconv.im2col(x, 3, padding=1)
    return columns, jitconv.col2im(columns, x.shape, 3, padding=1)


def _training(dtype, layout):
    """Return the parameters after two steps of a network that has everything that is fused."""
    layers = [
        Conv2d(3, 16, 3, padding=1, activation="relu", layout=layout, dtype=dtype, seed=0),
        MaxPool2d(2, layout=layout),
        Conv2d(16, 24, 3, padding=1, layout=layout, dtype=dtype, seed=1),
        BatchNorm2d(24, layout=layout, dtype=dtype),
        Flatten(),
        Dense(24 * 8 * 8, 10, dtype=dtype, seed=2),
    ]
    trainer = Trainer(Sequential(layers), SGD(0.01, momentum=0.9))
    x, labels = _numbers((16, 3, 16, 16), dtype, layout), np.arange(16) % 10
    for _ in range(2):
        trainer.step(x, labels)
    return tuple(trainer.model.parameters.values())


@functools.cache
def calls(dtypes=("float32", "float64"), layouts=("NCHW", "NHWC")):
    """Return functions by name; each returns a tuple of arrays that is always the same."""
    made = {}
    for dtype, layout in itertools.product(dtypes, layouts):
        where = f"{dtype} {layout}"
        for name, (shape, w_shape, options) in CONVOLUTIONS.items():
            for algorithm in ALGORITHMS.get(name, ("auto",)):
                call = functools.partial(_convolution, shape, w_shape, dtype, layout, algorithm=algorithm, **options)
                made[f"{name} {algorithm} {where}"] = call
        for name, (kernel, options) in POOLS.items():
            made[f"pooling {name} {where}"] = functools.partial(_pooling, kernel, dtype, layout, **options)
        made[f"transposed {where}"] = functools.partial(_transposed, dtype, layout)
        made[f"training {where}"] = functools.partial(_training, dtype, layout)
    return made | {f"columns {dtype}": functools.partial(_columns, dtype) for dtype in dtypes}


def few():
    """Return the calls of which one process after another can be asked: a small one, and others on all threads."""
    names = ("one small image auto", "3x3 direct", "3x3 winograd", "pooling 3x3, stride 2")
    return {name: call for name, call in calls(("float32",), ("NCHW",)).items() if name.startswith(names)}


def digest(arrays):
    """Return the SHA-256 of shapes, dtypes and bytes."""
    found = hashlib.sha256()
    for a in arrays:
        found.update(f"{a.shape} {a.dtype}".encode() + a.tobytes())
    return found.hexdigest()


def digests(chosen=None):
    """Return the digests of calls, all of them or those that are given."""
    return {name: digest(call()) for name, call in (calls() if chosen is None else chosen).items()}
