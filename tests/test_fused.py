"""Convolution with ReLU and pooling in the same pass: the same as one pass after another."""

from __future__ import annotations

import numpy as np
import pytest
from cases import ConvCase
from fences import Poisoned, allocating_in, placed
from numpy.testing import assert_allclose, assert_array_equal

import jitconv
from jitconv import fused
from jitconv.pointwise import relu_backward

# Every algorithm that reads dy or stores y, tails of channels, odd sizes, strides, groups and images of few pixels.
CASES = [
    ConvCase("3x3", 3, 4, 9, 10, 5, padding=1),
    ConvCase("first layer", 4, 1, 28, 28, 30, (5, 5)),
    ConvCase("three channels", 2, 3, 32, 32, 64, padding=1),
    ConvCase("tails", 2, 17, 13, 15, 33, padding=1),
    ConvCase("several strips", 5, 64, 32, 30, 48, padding=1),
    ConvCase("stride 2", 2, 16, 21, 23, 24, stride=2, padding=1),
    ConvCase("5x5", 2, 16, 12, 12, 24, (5, 5), padding=2),
    ConvCase("groups", 2, 32, 14, 14, 36, padding=1, groups=4),
    ConvCase("1x1", 2, 20, 9, 9, 70, (1, 1)),
    ConvCase("blocks of weights", 1, 300, 6, 6, 130, padding=1),
    ConvCase("one pixel after pooling", 7, 8, 2, 3, 9, padding=1),
    ConvCase("no bias", 2, 8, 6, 6, 5, bias=False),
    ConvCase("dilation", 2, 6, 11, 9, 8, padding=2, dilation=2),
    ConvCase("depthwise", 2, 20, 7, 8, 20, padding=1, groups=20),
]
each_case = pytest.mark.parametrize("case", CASES, ids=str)
each_algorithm = pytest.mark.parametrize("algorithm", ["auto", "direct", "im2col"])
RTOL = {"float32": 2e-5, "float64": 1e-13}


def both(value):
    return value if isinstance(value, tuple) else (value, value)


def options_of(case, algorithm):
    (top, left), given = both(case.options["padding"]), case.options
    return fused.Options(
        both(given["stride"]), ((top, top), (left, left)), both(given["dilation"]), given["groups"], algorithm
    )


def draw(case, rng, dtype):
    x, w, b = case.arrays(rng, dtype, "NHWC")
    return np.ascontiguousarray(x), w, b


def assert_close(got, expected):
    assert got.dtype == expected.dtype
    assert_allclose(got, expected, rtol=0, atol=RTOL[got.dtype.name] * max(1e-30, np.abs(expected).max()))


@pytest.mark.simd
@each_algorithm
@each_case
def test_pooling_takes_what_the_pooling_layer_takes(case, algorithm, dtype, rng):
    x, w, b = draw(case, rng, dtype)
    options = options_of(case, algorithm)
    y = jitconv.conv2d(x, w, b, activation="relu", layout="NHWC", algorithm=algorithm, **case.options)
    expected = jitconv.max_pool2d_with_argmax(y, 2, layout="NHWC")
    for got, want in zip(fused.conv2d_pooled(x, w, b, options), expected, strict=True):
        assert got.dtype == want.dtype
        assert_array_equal(got, want)


@pytest.mark.simd
@pytest.mark.parametrize("pooled", [False, True])
@each_algorithm
@each_case
def test_gradients_are_those_of_one_pass_after_another(case, algorithm, pooled, dtype, rng):
    x, w, b = draw(case, rng, dtype)
    options = options_of(case, algorithm)
    arguments = {"layout": "NHWC", "algorithm": algorithm, **case.options}
    y, argmax = jitconv.conv2d(x, w, b, activation="relu", **arguments), None
    whole = y
    if pooled:
        y, argmax = fused.conv2d_pooled(x, w, b, options)
    dy = rng.standard_normal(y.shape).astype(dtype)
    before = [a.copy() for a in (dy, x, w, y)]
    dense = relu_backward(dy, y)
    if pooled:
        dense = jitconv.max_pool2d_backward(dense, argmax, whole.shape, 2, layout="NHWC")
    expected = jitconv.conv2d_backward(dense, x, w, **arguments)
    dw, db = np.full_like(w, np.nan), np.full(len(w), np.nan, dtype)
    dx = fused.conv2d_backward(dy, x, w, dw, db, options, "NHWC", saved=(y, argmax))
    for got, want in zip((dx, dw, db), expected, strict=True):
        assert_close(got, want)
    for a, was in zip((dy, x, w, y), before, strict=True):
        assert_array_equal(a, was)


@each_case
def test_bits_do_not_depend_on_threads(case, rng):
    x, w, b = draw(case, rng, np.float32)
    options = options_of(case, "auto")
    results = []
    for threads in (1, 2):
        with jitconv.num_threads(threads):
            y, argmax = fused.conv2d_pooled(x, w, b, options)
            dw, db = np.empty_like(w), np.empty(len(w), w.dtype)
            dx = fused.conv2d_backward(np.cos(y), x, w, dw, db, options, "NHWC", saved=(y, argmax))
        results.append([a.tobytes() for a in (y, argmax, dx, dw, db)])
    assert results[0] == results[1]


@each_case
def test_nothing_outside_the_arrays_is_touched(case, dtype, rng):
    x, w, b = draw(case, rng, dtype)
    options = options_of(case, "direct")

    def run(x, w, b, place):
        y, argmax = fused.conv2d_pooled(x, w, b, options)
        dy, y, argmax = place(np.cos(y)), place(y), place(argmax)
        dw, db = place(np.zeros_like(w)), place(np.zeros(len(w), w.dtype))
        return fused.conv2d_backward(dy, x, w, dw, db, options, "NHWC", saved=(y, argmax)), dw, db, y, argmax

    expected = run(x, w, b, lambda a: a)
    fence = Poisoned()
    fenced = [placed(fence, a) for a in (x, w, b)]
    with allocating_in(fence):
        results = run(*fenced, lambda a: placed(fence, a))
    fence.check()
    for got, want in zip(results, expected, strict=True):
        assert_array_equal(got, want)


def test_the_first_of_equal_pixels_and_the_first_nan_are_taken():
    w = np.ones((1, 1, 1, 1), np.float32)
    x = np.array([[1, 1, np.nan, 2], [0, 1, np.nan, 3]], np.float32).reshape(1, 2, 4, 1)
    y, argmax = fused.conv2d_pooled(x, w, None, fused.Options((1, 1), ((0, 0), (0, 0)), (1, 1), 1, "direct"))
    assert_array_equal(y.ravel(), [1, np.nan])
    assert_array_equal(argmax.ravel(), [0, 0])


def test_the_gradient_of_nan_passes_and_that_of_zero_does_not():
    options = fused.Options((1, 1), ((0, 0), (0, 0)), (1, 1), 1, "direct")
    x = np.ones((1, 1, 3, 1), np.float32)
    y = np.array([np.nan, 0, 2], np.float32).reshape(x.shape)
    w = np.ones((1, 1, 1, 1), np.float32)
    dw, db = np.empty_like(w), np.empty(1, w.dtype)
    dy = np.array([1, np.inf, 4], np.float32).reshape(x.shape)
    dx = fused.conv2d_backward(dy, x, w, dw, db, options, "NHWC", saved=(y, None))
    assert_array_equal(dx.ravel(), [1, 0, 4])
    assert dw == db == 5


def test_an_empty_batch():
    options = fused.Options((1, 1), ((1, 1), (1, 1)), (1, 1), 1, "auto")
    x, w = np.zeros((0, 6, 6, 3), np.float32), np.ones((4, 3, 3, 3), np.float32)
    y, argmax = fused.conv2d_pooled(x, w, None, options)
    assert y.shape == argmax.shape == (0, 3, 3, 4)
    dw = np.full_like(w, np.nan)
    dx = fused.conv2d_backward(y, x, w, dw, None, options, "NHWC", saved=(y, argmax))
    assert dx.shape == x.shape
    assert not dw.any()


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros((2, 6, 6, 3), np.float64), "`x` has dtype float64"),
        (np.zeros((2, 6, 6, 5), np.float32), "`w` has 3 input channels, but `x` has 5"),
        (np.zeros((6, 6, 3), np.float32), "`x` must have shape"),
    ],
)
def test_input_that_does_not_fit(x, message):
    options = fused.Options((1, 1), ((1, 1), (1, 1)), (1, 1), 1, "auto")
    with pytest.raises((TypeError, ValueError), match=message):
        fused.conv2d_pooled(x, np.ones((4, 3, 3, 3), np.float32), None, options)
