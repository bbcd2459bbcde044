"""ReLU, dropout, batch normalisation and softmax cross-entropy against NumPy in float64."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from jitconv import num_threads
from jitconv.cost import SMALL
from jitconv.kernels import pointwise as kernels
from jitconv.pointwise import batch_norm, batch_norm_backward, dropout, relu, relu_backward
from jitconv.training import softmax_cross_entropy

RTOL = {"float32": 2e-5, "float64": 1e-12}
SIZES = (0, 1, 1023, 1025, int(SMALL) + 1237)  # around a block, and enough for two threads


def same_bits(function):
    """Return what `function` returns with one thread, after asserting that two threads give the same bits."""
    results = []
    for n in (1, 2):
        with num_threads(n):
            results.append(function())
    one, two = (result if isinstance(result, tuple) else (result,) for result in results)
    for a, b in zip(one, two, strict=True):
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()
    return results[0]


@pytest.mark.parametrize("size", SIZES)
def test_relu(size, dtype, rng):
    x = rng.standard_normal(size).astype(dtype)
    dy = rng.standard_normal(size).astype(dtype)
    y = same_bits(lambda: relu(x))
    dx = same_bits(lambda: relu_backward(dy, y))
    assert y.dtype == dx.dtype == dtype
    assert_array_equal(y, np.maximum(x, 0))
    assert_array_equal(dx, np.where(x > 0, dy, 0))


def test_relu_keeps_nan_and_shape_and_takes_any_strides(dtype):
    x = np.array([[np.nan, np.inf, -np.inf], [-1, 0, 2]], dtype).T[::-1]
    before = x.copy()
    y = relu(x)
    assert_array_equal(y, np.where(np.isnan(x), x, np.maximum(x, 0)))
    assert_array_equal(x, before)
    dy = np.full(x.shape, 3, dtype)
    assert_array_equal(relu_backward(dy, y), np.where(before <= 0, 0, dy))  # NaN passes, as in PyTorch


def mixed(bits):
    """Return the hash of the kernel, in Python's integers."""
    bits ^= bits >> 16
    bits = bits * 0x7FEB352D & 0xFFFFFFFF
    bits ^= bits >> 15
    bits = bits * 0x846CA68B & 0xFFFFFFFF
    return bits ^ bits >> 16


def test_dropout_follows_its_hash(dtype, rng):
    x = rng.standard_normal(int(SMALL) + 1237).astype(dtype)
    y = same_bits(lambda: dropout(x, 0.25, 7))
    low, high = map(int, np.random.SeedSequence(7).generate_state(2))
    kept = [mixed(mixed(i ^ low) ^ high) >= 2**30 for i in range(x.size)]
    assert_allclose(y, np.where(kept, x / 0.75, 0), rtol=RTOL[dtype.name])


def test_dropout_counts_past_32_bits(dtype):
    """The last block of an array of 2**32 + 40 elements, of which only that block is there."""
    first, low, high = 2**32, 123, 456
    x, y, scale = np.ones(40, dtype), np.zeros(40, dtype), np.full(1, 2, dtype)
    places = [a.ctypes.data - first * a.itemsize for a in (x, y)]
    table = np.array([*places, scale.ctypes.data, first + 40, low, high, 2**31, 0], np.int64)
    run = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 4)(kernels.dropout_apply.address(dtype))
    run(0, table.ctypes.data, first // kernels.BLOCK, first // kernels.BLOCK + 1)
    assert_array_equal(y, [2 * (mixed(mixed(i ^ low) ^ high ^ 1) >= 2**31) for i in range(40)])


def test_dropout_of_a_part_counts_from_its_first(dtype):
    """Around 2**32, where the numbers' upper bits change within the array."""
    first = 2**32 - 1500
    y = same_bits(lambda: dropout(np.ones(3000, dtype), 0.5, 7, first=first))
    low, high = map(int, np.random.SeedSequence(7).generate_state(2))
    numbers = range(first, first + 3000)
    assert_array_equal(y, [2 * (mixed(mixed(i & 0xFFFFFFFF ^ low) ^ high ^ i >> 32) >= 2**31) for i in numbers])


def test_dropout_is_fair_and_independent():
    ones = np.ones(1 << 20, np.float32)
    kept = np.stack([dropout(ones, 0.3, key) > 0 for key in (1, 2)])
    sigma = np.sqrt(0.3 * 0.7 / ones.size)
    assert_allclose(kept.mean(axis=1), 0.7, atol=5 * sigma)
    assert abs((kept[0] & kept[1]).mean() - 0.49) < 5 * sigma  # two keys
    assert abs((kept[0][1:] & kept[0][:-1]).mean() - 0.49) < 5 * sigma  # neighbours


def test_dropout_at_the_ends(dtype):
    x = np.array([1, -2, np.nan], dtype)
    assert_array_equal(dropout(x, 0.0, 0), x)
    assert_array_equal(dropout(x, 1.0, 0), [0, 0, np.nan])
    assert dropout(x[:0], 0.5, 0).shape == (0,)


@pytest.mark.parametrize("p", [-0.1, 1.1, np.nan])
def test_dropout_refuses_other_probabilities(p):
    with pytest.raises(ValueError, match="`p` must be a finite number from 0 to 1, got"):
        dropout(np.ones(3), p, 0)


NORM_SHAPES = [(2, 3, 1, 1), (4, 5, 3, 7), (3, 17, 33, 31), (1, 1, 70, 65), (40, 300, 2, 1)]  # N, C, H, W


def to_layout(a, layout):
    return np.ascontiguousarray(a if layout == "NCHW" else a.transpose(0, 2, 3, 1))


def reference_batch_norm(x, dy, weight, bias, eps):
    """Return y, mean, var, dx, dw and db in float64; x and dy NCHW."""
    x, dy = x.astype(np.float64), dy.astype(np.float64)
    axes, column = (0, 2, 3), (slice(None), None, None)
    mean, var = x.mean(axes), x.var(axes)
    inverse_std = 1 / np.sqrt(var + eps)
    unit = (x - mean[column]) * inverse_std[column]
    dw, db = (dy * unit).sum(axes), dy.sum(axes)
    slope = dy - dy.mean(axes)[column] - unit * (dy * unit).mean(axes)[column]
    scale = weight.astype(np.float64)
    dx = slope * (scale * inverse_std)[column]
    return unit * scale[column] + bias[column], mean, var, dx, dw, db


@pytest.mark.parametrize("shape", NORM_SHAPES, ids=str)
def test_batch_norm_in_training(shape, dtype, layout, rng):
    x, dy = (rng.standard_normal(shape).astype(dtype) for _ in range(2))
    weight, bias = (rng.standard_normal(shape[1]).astype(dtype) for _ in range(2))
    y, mean, var, dx, dw, db = reference_batch_norm(x, dy, weight, bias, 1e-3)
    x_laid, dy_laid = to_layout(x, layout), to_layout(dy, layout)

    def both():
        running = np.zeros(shape[1], dtype), np.ones(shape[1], dtype)
        got = batch_norm(x_laid, weight, bias, *running, training=True, momentum=0.3, eps=1e-3, layout=layout)
        saved = x_laid, weight, got.mean, got.inverse_std
        return (*got, *running, *batch_norm_backward(dy_laid, *saved, training=True, layout=layout))

    got = same_bits(both)
    assert all(array.dtype == dtype for array in got)
    count = x.size // shape[1]
    tolerance = {"rtol": 50 * RTOL[dtype.name], "atol": 50 * RTOL[dtype.name]}
    assert_allclose(got[0], to_layout(y, layout), **tolerance)
    assert_allclose(got[1], mean, **tolerance)
    assert_allclose(got[3], 0.3 * mean, **tolerance)
    assert_allclose(got[4], 0.7 + 0.3 * var * count / (count - 1), **tolerance)
    assert_allclose(got[5], to_layout(dx, layout), **tolerance)
    assert_allclose(got[6], dw, **tolerance)
    assert_allclose(got[7], db, **tolerance)


def test_batch_norm_in_use(dtype, layout, rng):
    x, dy = (rng.standard_normal((4, 5, 3, 7)).astype(dtype) for _ in range(2))
    weight, bias, mean = (rng.standard_normal(5).astype(dtype) for _ in range(3))
    var = rng.uniform(0.5, 2, 5).astype(dtype)
    got = batch_norm(to_layout(x, layout), weight, bias, mean, var, training=False, eps=1e-3, layout=layout)
    column = (slice(None), None, None)
    unit = (x.astype(np.float64) - mean[column]) / np.sqrt(var.astype(np.float64) + 1e-3)[column]
    expected = unit * weight[column] + bias[column]
    assert_allclose(got.y, to_layout(expected, layout), rtol=1e-4, atol=1e-4)
    saved = to_layout(x, layout), weight, got.mean, got.inverse_std
    dx, dw, db = batch_norm_backward(to_layout(dy, layout), *saved, training=False, layout=layout)
    scale = (weight / np.sqrt(var.astype(np.float64) + 1e-3))[column]
    assert_allclose(dx, to_layout(dy * scale, layout), rtol=1e-4, atol=1e-5)
    assert_allclose(dw, (dy * unit).sum((0, 2, 3)), rtol=1e-4, atol=1e-4)
    assert_allclose(db, dy.sum((0, 2, 3), dtype=np.float64), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shape", NORM_SHAPES, ids=str)
def test_batch_norm_with_relu_is_both_in_turn(shape, training, dtype, layout, rng):
    x, dy = (to_layout(rng.standard_normal(shape).astype(dtype), layout) for _ in range(2))
    x.ravel()[-1] = np.nan if not training else 3  # in training every value of the channel would be NaN
    weight, bias, mean = (rng.standard_normal(shape[1]).astype(dtype) for _ in range(3))
    var = rng.uniform(0.5, 2, shape[1]).astype(dtype)

    def run(activation):
        return batch_norm(x, weight, bias, mean.copy(), var, training=training, layout=layout, activation=activation)

    plain, fused = run(None), same_bits(lambda: run("relu"))
    assert_array_equal(fused.y, relu(plain.y))
    saved = x, weight, plain.mean, plain.inverse_std
    expected = batch_norm_backward(relu_backward(dy, fused.y), *saved, training=training, layout=layout)
    got = same_bits(lambda: batch_norm_backward(dy, *saved, training=training, layout=layout, y=fused.y))
    for one, other in zip(got, expected, strict=True):
        assert_allclose(one, other, rtol=RTOL[dtype.name], atol=RTOL[dtype.name])


def test_batch_norm_does_not_cancel(layout, rng):
    """A mean ten thousand times the deviation: E[x^2] - E[x]^2 would have no correct digit in float32."""
    x = (1e4 + rng.standard_normal((8, 3, 40, 40))).astype(np.float32)
    one, zero = np.ones(3, np.float32), np.zeros(3, np.float32)
    got = batch_norm(to_layout(x, layout), one, zero, None, None, training=True, eps=0.0, layout=layout)
    exact = x.astype(np.float64)
    assert_allclose(got.inverse_std, 1 / exact.std((0, 2, 3)), rtol=1e-3)


def test_a_constant_channel_has_no_variance(layout):
    """A mean that is off in its last places makes numbers of size 1 out of equal ones, if they are large."""
    x = np.full((8, 3, 40, 40), 12345.678, np.float32)
    one, zero = np.ones(3, np.float32), np.zeros(3, np.float32)
    got = batch_norm(to_layout(x, layout), one, zero, None, None, training=True, layout=layout)
    assert_array_equal(got.y, 0)
    assert_array_equal(got.mean, x[0, :, 0, 0])


def test_batch_norm_errors():
    x, one = np.ones((1, 3, 1, 1)), np.ones(3)
    with pytest.raises(ValueError, match="`x` has 1 value for each channel, but training needs at least 2"):
        batch_norm(x, one, one, None, None, training=True)
    with pytest.raises(ValueError, match="`x` has 3 channels in NCHW"):
        batch_norm(x, np.ones(4), np.ones(4), None, None, training=True)
    with pytest.raises(ValueError, match=r"`x` must have shape \(any, any, any, any\) with the axes NCHW"):
        batch_norm(x[0], one, one, None, None, training=True)
    with pytest.raises(ValueError, match="`activation` must be one of None, 'relu', got 'tanh'"):
        batch_norm(x, one, one, one, one, training=False, activation="tanh")
    with pytest.raises(TypeError, match="`bias` has dtype float32, but the other arrays have float64"):
        batch_norm(x, one, one.astype(np.float32), None, None, training=True)


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (100, 10), (2000, 13)], ids=str)
def test_softmax_cross_entropy(shape, dtype, rng):
    logits = (5 * rng.standard_normal(shape)).astype(dtype)
    labels = rng.integers(0, shape[1], shape[0])
    loss, dlogits = same_bits(lambda: tuple(softmax_cross_entropy(logits, labels)))
    exact = logits.astype(np.float64)
    log_softmax = exact - exact.max(1, keepdims=True)
    log_softmax -= np.log(np.exp(log_softmax).sum(1, keepdims=True))
    rows = np.arange(shape[0])
    expected = np.exp(log_softmax)
    expected[rows, labels] -= 1
    assert isinstance(loss, float)
    assert dlogits.dtype == dtype
    assert_allclose(loss, -log_softmax[rows, labels].mean(), rtol=RTOL[dtype.name], atol=1e-7)
    assert_allclose(dlogits, expected / shape[0], rtol=10 * RTOL[dtype.name], atol=RTOL[dtype.name])


def test_softmax_cross_entropy_is_stable(dtype):
    logits = np.array([[1e4, -1e4, 0], [0, 1e4, 1e4], [-1e30, 0, -np.inf]], dtype)
    loss, dlogits = softmax_cross_entropy(logits, np.array([0, 1, 1]))
    assert_allclose(loss, np.log(2) / 3, rtol=1e-6)
    assert_allclose(dlogits * 3, [[0, 0, 0], [0, -0.5, 0.5], [0, 0, 0]], atol=1e-6)
    assert softmax_cross_entropy(logits, np.array([0, 1, 2])).value == np.inf
    for undefined in ([0, np.nan], [np.inf, 0]):
        assert np.isnan(softmax_cross_entropy(np.array([undefined], dtype), np.array([0])).value)


@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        ([0, 3], ValueError, r"`labels` must lie from 0 to 2 \(3 classes\), got 0 to 3"),
        ([-1, 0], ValueError, "`labels` must lie from 0 to 2"),
        ([0], ValueError, r"`labels` must have shape \(2,\), one class for each image, got \(1,\)"),
        ([0.0, 1.0], TypeError, "`labels` must be integers, the class of each image, got dtype float64"),
    ],
)
def test_softmax_cross_entropy_refuses_labels(labels, error, message):
    with pytest.raises(error, match=message):
        softmax_cross_entropy(np.zeros((2, 3)), np.array(labels))


def test_softmax_cross_entropy_refuses_logits():
    with pytest.raises(ValueError, match="`logits` holds no images: the mean over them is undefined"):
        softmax_cross_entropy(np.zeros((0, 3)), np.zeros(0, int))
    with pytest.raises(ValueError, match=r"`logits` must have shape \(any, any\) as \(images, classes\)"):
        softmax_cross_entropy(np.zeros(3), np.zeros(3, int))
    with pytest.raises(TypeError, match="`logits` has dtype int64"):
        softmax_cross_entropy(np.zeros((2, 3), np.int64), np.zeros(2, int))


def test_results_are_the_callers_own(rng):
    """No result shares memory with an input or with a later result."""
    x = rng.standard_normal((2, 2, 3, 3))
    first, second = relu(x), relu(x)
    assert not np.may_share_memory(first, x)
    assert not np.may_share_memory(first, second)
