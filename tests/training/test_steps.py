"""What a network runs: the same as its layers one by one, whatever is fused and in whichever layout."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from jitconv.layers import (
    AvgPool2d,
    BatchNorm2d,
    Conv2d,
    ConvTranspose2d,
    Dense,
    Dropout,
    Flatten,
    GlobalAvgPool2d,
    GlobalMaxPool2d,
    Layer,
    MaxPool2d,
    ReLU,
)
from jitconv.pointwise import relu
from jitconv.training import Sequential
from jitconv.training.steps import Rectified, Relayout, Single, steps_of


class Doubled(Layer):
    """A layer that nobody knows; it keeps what it has seen."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, x):
        self._saved = ()
        self.seen += [x, relu(x)]
        return 2 * x

    def backward(self, dy):
        self.seen += [dy, relu(dy)]
        return 2 * dy


def options(layout, rng, dtype):
    return {"layout": layout, "dtype": dtype, "seed": rng}


def plain_network(layout, rng, dtype):
    o = options(layout, rng, dtype)
    return [
        Conv2d(3, 16, 3, padding=1, activation="relu", **o),
        Conv2d(16, 24, 3, padding=1, activation="relu", **o),
        MaxPool2d(2, layout=layout),
        Conv2d(24, 20, 3, **o),
        ReLU(),
        MaxPool2d(2, layout=layout),
        Flatten(),
        Dense(20 * 6 * 6, 7, dtype=dtype, seed=rng),
    ]


def mixed_network(layout, rng, dtype):
    o = options(layout, rng, dtype)
    return [
        ReLU(),
        Conv2d(3, 10, 5, padding=2, bias=False, **o),  # a bias before the normalisation has no gradient
        BatchNorm2d(10, layout=layout, dtype=dtype),
        ReLU(),
        AvgPool2d(2, layout=layout),
        Sequential([Conv2d(10, 10, 3, padding=1, groups=10, activation="relu", **o), MaxPool2d(2, layout=layout)]),
        Doubled(),
        Dropout(0.3, seed=rng),
        ConvTranspose2d(10, 6, 2, 2, **o),
        ReLU(),
        MaxPool2d(3, 2, 1, layout=layout),
        GlobalMaxPool2d(layout=layout),
        Flatten(),
        Dense(6, 7, activation="relu", dtype=dtype, seed=rng),
    ]


def images_network(layout, rng, dtype):
    return [
        Conv2d(3, 8, 3, 2, activation="relu", **options(layout, rng, dtype)),
        MaxPool2d(2, layout=layout),
        Conv2d(8, 7, 1, **options(layout, rng, dtype)),
        ReLU(),
    ]


def global_network(layout, rng, dtype):
    return [Conv2d(3, 7, 3, **options(layout, rng, dtype)), ReLU(), GlobalAvgPool2d(layout=layout), Flatten()]


NETWORKS = [plain_network, mixed_network, images_network, global_network]
each_network = pytest.mark.parametrize("make", NETWORKS)


def leaves(layers):
    return [leaf for layer in layers for leaf in (leaves(layer.layers) if isinstance(layer, Sequential) else [layer])]


def images(rng, layout, dtype, count=4):
    x = rng.standard_normal((count, 3, 28, 28)).astype(dtype)
    return x if layout == "NCHW" else np.ascontiguousarray(x.transpose(0, 2, 3, 1))


def assert_close(got, expected):
    assert got.shape == expected.shape
    assert got.dtype == expected.dtype
    rtol = 1e-4 if got.dtype == np.float32 else 1e-12
    assert_allclose(got, expected, rtol=0, atol=rtol * max(1e-3, np.abs(expected).max()))


@each_network
def test_the_same_as_its_layers_one_by_one(make, dtype, layout, rng):
    seed = int(rng.integers(2**32))
    model = Sequential(make(layout, np.random.default_rng(seed), dtype))
    alone = leaves(make(layout, np.random.default_rng(seed), dtype))
    for _ in range(3):  # the second step uses the memory of the first
        x = images(rng, layout, dtype)
        y, expected = model(x), x
        for layer in alone:
            expected = layer(expected)
        assert_close(y, expected)
        dy = rng.standard_normal(y.shape).astype(dtype)
        dx, want = model.backward(dy), dy
        for layer in reversed(alone):
            want = layer.backward(want)
        assert_close(dx, want)
        for layer, other in zip(leaves(model.layers), alone, strict=True):
            for name, gradient in layer.gradients.items():
                assert_close(gradient, other.gradients[name])
            for name, buffer in layer.buffers.items():
                if buffer.dtype == dtype:
                    assert_close(buffer, other.buffers[name])
                else:
                    assert_array_equal(buffer, other.buffers[name])


@each_network
def test_results_are_the_callers(make, layout, rng):
    model = Sequential(make(layout, rng, np.float32))
    x, other = images(rng, layout, np.float32, 32), images(rng, layout, np.float32, 32)
    y = model(x)
    dy = rng.standard_normal(y.shape).astype(np.float32)
    dx = model.backward(dy)
    kept = [a.copy() for a in (x, y, dy, dx)]
    model(other)
    model.backward(-dy)
    for a, was in zip((x, y, dy, dx), kept, strict=True):
        assert_array_equal(a, was)


def test_an_unknown_layer_may_keep_what_it_sees(rng):
    unknown = Doubled()
    o = options("NCHW", rng, np.float32)
    model = Sequential([Conv2d(3, 64, 3, **o), ReLU(), unknown, Conv2d(64, 64, 3, **o), ReLU(), Conv2d(64, 5, 3, **o)])
    x = images(rng, "NCHW", np.float32, 16)
    dy = np.ones_like(model(x))
    model.backward(dy)
    kept = [a.copy() for a in unknown.seen]
    model(-x)
    model.backward(dy)
    for a, was in zip(unknown.seen, kept, strict=False):
        assert_array_equal(a, was)


def test_backward_may_be_called_again(rng):
    model = Sequential(plain_network("NCHW", rng, np.float32))
    y = model(images(rng, "NCHW", np.float32, 16))
    dy = rng.standard_normal(y.shape).astype(np.float32)
    dx = model.backward(dy)
    gradients = {name: a.copy() for name, a in model.gradients.items()}
    model.backward(2 * dy)
    assert_array_equal(model.backward(dy), dx)
    for name, gradient in model.gradients.items():
        assert_array_equal(gradient, gradients[name])


def test_one_image_without_its_batch_axis(rng):
    model = Sequential(images_network("NCHW", rng, np.float64))
    x = images(rng, "NCHW", np.float64, 1)
    y = model(x)
    dy = rng.standard_normal(y.shape)
    dx = model.backward(dy)
    assert_close(model(x[0]), y[0])
    assert_close(model.backward(dy[0]), dx[0])


def test_other_batch_sizes_in_turn(rng):
    model = Sequential(plain_network("NCHW", rng, np.float64))
    sizes = [16, 3, 16, 0, 5, 16]
    batches = [images(rng, "NCHW", np.float64, size) for size in sizes]
    fresh = [copy.deepcopy(model)(x) for x in batches]
    for x, expected in zip(batches, fresh, strict=True):
        assert_array_equal(model(x), expected)
        assert model.backward(np.ones_like(expected)).shape == x.shape


def test_a_network_in_use_can_be_copied_and_pickled(rng):
    model = Sequential(plain_network("NCHW", rng, np.float32))
    x = images(rng, "NCHW", np.float32)
    y = model(x)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert_array_equal(other(x), y)


def names(layers):
    return [
        (type(step).__name__, *(type(layer).__name__ for layer in step.layers)) for step in steps_of(layers, Sequential)
    ]


def test_convolutions_take_along_what_follows(rng):
    inside = [
        ("Single", "Conv2d"),
        ("Pooled", "Conv2d", "MaxPool2d"),
        ("Pooled", "Conv2d", "ReLU", "MaxPool2d"),
    ]
    rest = [("Single", "Flatten"), ("Single", "Dense")]
    assert names(plain_network("NHWC", rng, np.float32)) == inside + rest
    assert names(plain_network("NCHW", rng, np.float32)) == [("Relayout",), *inside, ("Relayout",), *rest]


def test_a_normalisation_takes_along_relu(rng):
    layers = [Conv2d(3, 4, 3, seed=rng), BatchNorm2d(4), ReLU(), MaxPool2d(2)]
    expected = [("Single", "Conv2d"), ("Rectified", "BatchNorm2d", "ReLU"), ("Single", "MaxPool2d")]
    assert names(layers)[1:-1] == expected


def test_what_is_not_fused(rng):
    o = options("NHWC", rng, np.float32)
    convolution, pool = Conv2d(3, 4, 3, activation="relu", **o), MaxPool2d(2, layout="NHWC")
    for layers in (
        [convolution, MaxPool2d(3, layout="NHWC")],
        [convolution, MaxPool2d(2, padding=1, layout="NHWC")],
        [convolution, MaxPool2d(2, ceil_mode=True, layout="NHWC")],
        [Conv2d(3, 4, 3, **o), pool],
        [Conv2d(3, 4, 3, **o), Dropout(0.5), ReLU()],
        [Conv2d(3, 3, 3, groups=3, activation="relu", **o), pool],
        [pool, ReLU()],
    ):
        assert all(isinstance(step, Single) for step in steps_of(layers, Sequential))


def test_layers_without_a_convolution_keep_their_layout():
    assert not any(isinstance(step, Relayout) for step in steps_of([MaxPool2d(2), ReLU()], Sequential))


def test_a_derived_layer_is_not_replaced(rng):
    class Shifted(Conv2d):
        def forward(self, x):
            return super().forward(x) + 1

    o = options("NCHW", rng, np.float32)
    layers = [Shifted(3, 4, 3, **o), ReLU(), Conv2d(4, 4, 3, **o), ReLU()]
    steps = steps_of(layers, Sequential)
    assert isinstance(steps[0], Single)
    assert steps[0].layers == (layers[0],)
    assert any(isinstance(step, Rectified) for step in steps[2:])
    x = images(rng, "NCHW", np.float32)
    y = x
    for layer in layers:
        y = layer(y)
    assert_close(Sequential(layers)(x), y)
