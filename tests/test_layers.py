"""Layers: gradients against numerical ones, state, initialisation and errors."""

from __future__ import annotations

import numpy as np
import pytest
from gradients import numerical_gradient
from numpy.testing import assert_allclose, assert_array_equal
from references import conv as reference

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
    MaxPool2d,
    ReLU,
    pooling,
)

F64 = {"dtype": np.float64, "seed": 3}

# Each layer with the shape of an input; layers with options that have a backward pass of their own come again.
CASES = {
    "conv": (lambda: Conv2d(3, 4, 3, 2, 1, **F64), (2, 3, 6, 5)),
    "conv groups": (lambda: Conv2d(4, 6, (3, 2), 1, ((1, 0), (2, 1)), (1, 2), 2, False, **F64), (2, 4, 5, 5)),
    "conv relu": (lambda: Conv2d(2, 5, 3, activation="relu", **F64), (2, 2, 5, 4)),
    "conv relu NHWC": (lambda: Conv2d(2, 5, 3, activation="relu", layout="NHWC", **F64), (2, 5, 4, 2)),
    "conv one image": (lambda: Conv2d(2, 3, 3, padding="same", **F64), (2, 5, 4)),
    "conv transpose": (lambda: ConvTranspose2d(4, 6, 3, 2, 1, 1, 2, **F64), (2, 4, 3, 4)),
    "conv transpose dilated": (lambda: ConvTranspose2d(2, 3, 2, 1, 0, 0, 1, False, 2, **F64), (1, 2, 3, 3)),
    "dense": (lambda: Dense(7, 5, **F64), (3, 7)),
    "dense relu": (lambda: Dense(7, 5, False, activation="relu", **F64), (3, 7)),
    "max pool": (lambda: MaxPool2d(3, 2, 1), (2, 2, 5, 6)),
    "max pool ceil": (lambda: MaxPool2d((2, 3), ceil_mode=True), (1, 2, 5, 5)),
    "avg pool": (lambda: AvgPool2d(2), (2, 2, 4, 5)),
    "avg pool padded": (lambda: AvgPool2d(3, 2, 1, True, False), (2, 2, 5, 6)),
    "global avg pool": (lambda: GlobalAvgPool2d(), (2, 3, 4, 3)),
    "global max pool": (lambda: GlobalMaxPool2d(), (2, 3, 4, 3)),
    "relu": (lambda: ReLU(), (4, 5)),
    "flatten": (lambda: Flatten(), (2, 3, 2, 2)),
    "batch norm": (lambda: BatchNorm2d(3, dtype=np.float64), (3, 3, 2, 4)),
    "batch norm NHWC": (lambda: BatchNorm2d(4, layout="NHWC", dtype=np.float64), (3, 3, 2, 4)),
    "batch norm plain": (lambda: BatchNorm2d(3, 0.1, None, False, False, dtype=np.float64), (3, 3, 2, 4)),
    "batch norm in use": (lambda: BatchNorm2d(3, dtype=np.float64).eval(), (3, 3, 2, 4)),
    "dropout": (lambda: Dropout(0.4, seed=1), (5, 6)),
    "dropout in use": (lambda: Dropout(0.4, seed=1).eval(), (5, 6)),
}


@pytest.fixture(params=CASES)
def case(request):
    """Return a fresh layer and the shape of an input."""
    make, shape = CASES[request.param]
    return make(), shape


def test_gradients_are_the_numerical_ones(case, rng):
    layer, shape = case
    x = rng.standard_normal(shape)
    for parameter in layer.parameters.values():
        parameter += 0.1 * rng.standard_normal(parameter.shape)  # biases of zero would hide a mistake
    dropped = layer.buffers.get("batches")
    weights = rng.standard_normal(layer(x).shape)

    def loss():
        if dropped is not None:
            dropped[...] = 0  # the same elements each time
        return float((layer(x) * weights).sum())

    loss()
    dx = layer.backward(weights)
    gradients = {name: gradient.copy() for name, gradient in layer.gradients.items()}
    assert gradients.keys() == layer.parameters.keys()
    assert_allclose(dx, numerical_gradient(loss, x), rtol=1e-6, atol=1e-7)
    for name, parameter in layer.parameters.items():
        assert_allclose(gradients[name], numerical_gradient(loss, parameter), rtol=1e-6, atol=1e-7)


def test_gradients_are_overwritten_in_place(case, rng):
    layer, shape = case
    arrays = dict(layer.gradients)
    dy = rng.standard_normal(layer(rng.standard_normal(shape)).shape)
    layer.backward(dy)
    once = {name: gradient.copy() for name, gradient in arrays.items()}
    layer.backward(dy)
    for name, parameter in layer.parameters.items():
        assert layer.gradients[name] is arrays[name]
        assert arrays[name].shape == parameter.shape
        assert arrays[name].dtype == parameter.dtype
        assert np.any(arrays[name])
        assert_array_equal(arrays[name], once[name])


def test_no_input_gradient(case, rng):
    layer, shape = case
    y = layer(rng.standard_normal(shape))
    layer.backward(np.ones_like(y))
    with_dx = {name: gradient.copy() for name, gradient in layer.gradients.items()}
    layer.needs_input_gradient = False
    assert layer.backward(np.ones_like(y)) is None
    for name, gradient in layer.gradients.items():
        assert_array_equal(gradient, with_dx[name])


def test_backward_before_forward(case):
    layer, shape = case
    name = type(layer).__name__
    with pytest.raises(RuntimeError, match=f"{name}.backward was called before {name}.forward"):
        layer.backward(np.ones(shape))


def test_backward_refuses_another_shape(case, rng):
    layer, shape = case
    y = layer(rng.standard_normal(shape))
    if isinstance(layer, Dropout):
        return  # any shape is dropped
    with pytest.raises(ValueError, match=r"`dy` must have (the )?shape"):
        layer.backward(np.ones((*y.shape[:-1], y.shape[-1] + 1)))


def test_inputs_are_not_modified(case, rng):
    layer, shape = case
    x = rng.standard_normal(shape)
    x_before = x.copy()
    dy = rng.standard_normal(layer(x).shape)
    dy_before = dy.copy()
    layer.backward(dy)
    assert_array_equal(x, x_before)
    assert_array_equal(dy, dy_before)


def test_dense_is_a_matrix_product(rng):
    layer = Dense(33, 17, **F64)
    layer.bias[...] = rng.standard_normal(17)
    x = rng.standard_normal((50, 33))
    assert_allclose(layer(x), x @ layer.weight.T + layer.bias, rtol=1e-10, atol=1e-12)


def test_dense_takes_an_empty_batch():
    layer = Dense(4, 3, activation="relu", **F64)
    assert layer(np.zeros((0, 4))).shape == (0, 3)
    assert layer.backward(np.zeros((0, 3))).shape == (0, 4)
    assert not layer.gradients["weight"].any()


def test_convolutions_compute_those_of_the_functions(rng):
    x = rng.standard_normal((2, 4, 6, 5))
    layer = Conv2d(4, 6, (3, 2), (2, 1), (1, 2), (1, 2), 2, activation="relu", algorithm="direct", **F64)
    options = {"stride": (2, 1), "padding": (1, 2), "dilation": (1, 2), "groups": 2}
    expected = reference.conv2d(x, layer.weight, layer.bias, activation="relu", **options)
    assert_allclose(layer(x), expected, rtol=1e-10, atol=1e-12)
    layer = ConvTranspose2d(4, 6, (3, 2), (2, 3), (1, 0), (1, 2), 2, True, (1, 2), **F64)
    options = {"stride": (2, 3), "padding": (1, 0), "output_padding": (1, 2), "dilation": (1, 2), "groups": 2}
    expected = reference.conv_transpose2d(x, layer.weight, layer.bias, **options)
    assert_allclose(layer(x), expected, rtol=1e-10, atol=1e-12)


def test_pooling_layers_pass_their_options_on(monkeypatch):
    """Every option reaches the function, in both passes; what it does there is tested in test_pool.py."""
    x, calls = np.zeros((2, 3, 4, 5)), []

    def record(name, result):
        monkeypatch.setattr(pooling, name, lambda *args, **options: calls.append((args, options)) or result)

    for name, result in (("max_pool2d", None), ("avg_pool2d", x), ("global_avg_pool2d", x)):
        record(f"{name}_backward", x)
        record(name if result is not None else f"{name}_with_argmax", result if result is not None else (x, x))
    record("global_max_pool2d", (x, x))
    record("global_max_pool2d_backward", x)
    options = {"stride": (2, 1), "padding": ((1, 1), (0, 0)), "ceil_mode": True, "layout": "NHWC"}
    for layer, first, expected in (
        (
            MaxPool2d((3, 2), (2, 1), (1, 0), 2, ceil_mode=True, layout="NHWC"),
            ((3, 2),),
            options | {"dilation": (2, 2)},
        ),
        (
            AvgPool2d((3, 2), (2, 1), (1, 0), True, False, layout="NHWC"),
            ((3, 2),),
            options | {"count_include_pad": False},
        ),
        (GlobalAvgPool2d(layout="NHWC"), (), {"layout": "NHWC"}),
        (GlobalMaxPool2d(layout="NHWC"), (), {"layout": "NHWC"}),
    ):
        calls.clear()
        layer.backward(layer(x))
        forward, backward = calls
        assert forward[0][1:] == first
        assert backward[0][-1 - len(first) :] == (x.shape, *first)
        assert forward[1] == backward[1] == expected


@pytest.mark.parametrize(
    ("make", "fan_in"),
    [
        (lambda **options: Conv2d(32, 64, 3, groups=2, **options), 16 * 9),
        (lambda **options: ConvTranspose2d(64, 32, 4, 2, **options), 64 * 16 / 4),
        (lambda **options: Dense(300, 100, **options), 300),
    ],
    ids=["conv", "conv transpose", "dense"],
)
def test_he_initialisation_from_a_seed(make, fan_in):
    layer = make(seed=5)
    assert_allclose(layer.weight.std(), np.sqrt(2 / fan_in), rtol=0.03)
    assert abs(layer.weight.mean()) < 5 * np.sqrt(2 / fan_in / layer.weight.size)
    assert not layer.bias.any()
    assert_array_equal(layer.weight, make(seed=5).weight)
    assert_array_equal(layer.weight, make(seed=5, dtype=np.float64).weight.astype(np.float32))
    assert not np.array_equal(layer.weight, make(seed=6).weight)
    assert not np.array_equal(make().weight, make().weight)
    stream = np.random.default_rng(5)
    assert_array_equal(layer.weight, make(seed=stream).weight)
    assert not np.array_equal(layer.weight, make(seed=stream).weight)  # the stream has moved on


def test_batch_norm_running_statistics(rng):
    batches = [2 + 3 * rng.standard_normal((4, 2, 3, 3)) for _ in range(3)]
    means = np.stack([x.mean((0, 2, 3)) for x in batches])
    variances = np.stack([x.var((0, 2, 3), ddof=1) for x in batches])
    moving, plain = BatchNorm2d(2, dtype=np.float64), BatchNorm2d(2, momentum=None, dtype=np.float64)
    expected_mean, expected_var = np.zeros(2), np.ones(2)
    for x, mean, var in zip(batches, means, variances, strict=True):
        moving(x)
        plain(x)
        expected_mean, expected_var = 0.9 * expected_mean + 0.1 * mean, 0.9 * expected_var + 0.1 * var
    assert_allclose(moving.buffers["running_mean"], expected_mean)
    assert_allclose(moving.buffers["running_var"], expected_var)
    assert_allclose(plain.buffers["running_mean"], means.mean(0))
    assert_allclose(plain.buffers["running_var"], variances.mean(0))
    assert moving.buffers["num_batches_tracked"] == 3
    before = {name: buffer.copy() for name, buffer in moving.buffers.items()}
    y = moving.eval()(batches[0])
    column = (slice(None), None, None)
    assert_allclose(y, (batches[0] - expected_mean[column]) / np.sqrt(expected_var + 1e-5)[column])
    for name, buffer in moving.buffers.items():
        assert_array_equal(buffer, before[name])


def test_a_refused_batch_leaves_the_statistics_alone():
    layer = BatchNorm2d(2)
    with pytest.raises(ValueError, match="training needs at least 2"):
        layer(np.ones((1, 2, 1, 1), np.float32))
    assert layer.buffers["num_batches_tracked"] == 0
    assert not layer.buffers["running_mean"].any()


def test_dropout_changes_from_batch_to_batch_and_follows_its_seed():
    x = np.ones((20, 30))
    one, same, other = Dropout(0.5, seed=1), Dropout(0.5, seed=1), Dropout(0.5, seed=2)
    first, second = one(x), one(x)
    assert not np.array_equal(first, second)
    assert_array_equal(first, same(x))
    assert not np.array_equal(first, other(x))
    assert_array_equal(one.backward(x), second)  # the gradient of the last batch
    assert_array_equal(one.eval()(x), x)


def test_train_and_eval_return_the_layer():
    layer = ReLU()
    assert layer.eval() is layer
    assert not layer.training
    assert layer.train() is layer
    assert layer.training


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Conv2d(0, 4, 3), ValueError, "`in_channels` must be an integer of at least 1, got 0"),
        (lambda: Conv2d(3, 4.0, 3), TypeError, "`out_channels` must be an integer of at least 1, got 4.0"),
        (lambda: Conv2d(3, 4, (3, 3, 3)), ValueError, "`kernel_size` must be an int or a pair of ints"),
        (
            lambda: Conv2d(3, 4, 3, groups=2),
            ValueError,
            "`in_channels` must be a multiple of `groups`, got 3",
        ),
        (
            lambda: Conv2d(4, 3, 3, groups=2),
            ValueError,
            "`out_channels` must be a multiple of `groups`, got 3",
        ),
        (lambda: Conv2d(3, 4, 3, 2, "same"), ValueError, "`padding`='same' needs stride 1"),
        (lambda: Conv2d(3, 4, 3, activation="tanh"), ValueError, "`activation` must be one of None, 'relu'"),
        (lambda: Conv2d(3, 4, 3, layout="CHWN"), ValueError, "`layout` must be one of 'NCHW', 'NHWC'"),
        (lambda: Conv2d(3, 4, 3, algorithm="fft"), ValueError, "`algorithm` must be one of"),
        (lambda: Conv2d(3, 4, 3, dtype=np.float16), TypeError, "`dtype` must be float32 or float64"),
        (lambda: Conv2d(3, 4, 3, dtype="x"), TypeError, "`dtype` must be float32 or float64, got 'x'"),
        (lambda: Dense(3, 4, bias=1), TypeError, "`bias` must be True or False, got 1"),
        (lambda: MaxPool2d(0), ValueError, "`kernel_size` must be an integer of at least 1, got 0"),
        (lambda: MaxPool2d(3, 1, 2), ValueError, "`padding` of a pooling must be at most half the kernel"),
        (lambda: AvgPool2d(2, ceil_mode=1), TypeError, "`ceil_mode` must be True or False, got 1"),
        (lambda: BatchNorm2d(3, -1), ValueError, "`eps` must be a finite number of at least 0, got -1"),
        (lambda: BatchNorm2d(3, momentum=2), ValueError, "`momentum` must be a finite number from 0 to 1"),
        (lambda: Dropout("half"), TypeError, "`p` must be a finite number from 0 to 1, got 'half'"),
        (lambda: ReLU().train(None), TypeError, "`mode` must be True or False, got None"),
    ],
)
def test_errors_of_constructors(make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize(
    ("layer", "x", "error", "message"),
    [
        (
            Dense(3, 2),
            np.ones((4, 5), np.float32),
            ValueError,
            r"`x` must have shape \(any, 3\) as \(N, in_f",
        ),
        (Dense(3, 2), np.ones((4, 3)), TypeError, "`x` has dtype float64, but the other arrays have float32"),
        (Flatten(), np.ones(4), ValueError, "`x` must have a batch axis and at least one more"),
        (Flatten(), [[1, 2]], TypeError, "`x` must be a NumPy array of float32 or float64, got list"),
        (ReLU(), np.ones(4, int), TypeError, "`x` has dtype int64"),
    ],
)
def test_errors_of_forward(layer, x, error, message):
    with pytest.raises(error, match=message):
        layer(x)
