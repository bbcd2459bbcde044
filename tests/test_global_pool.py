"""Pooling of whole images: values, gradients, extremes, and the same bits with any number of threads."""

from __future__ import annotations

import math

import numpy as np
import pytest
from layouts import from_layout, shape_in, to_layout
from rounding import assert_within_rounding

from jitconv import pool
from jitconv.threads import num_threads

NAN, INF = np.nan, np.inf

GLOBAL_SHAPES = [(2, 3, 5, 7), (1, 70, 3, 3), (3, 1, 4, 4), (2, 17, 1, 1), (4, 5, 6), (1, 2, 90, 93)]


@pytest.mark.parametrize("shape", GLOBAL_SHAPES, ids=str)
def test_global_pooling_is_pooling_of_the_whole_image(shape, dtype, layout, rng):
    integers = rng.integers(-9, 9, shape).astype(dtype)
    x = to_layout(integers, layout)
    pixels, mean_of = math.prod(shape[-2:]), rng.standard_normal(shape).astype(dtype)

    y, argmax = pool.global_max_pool2d(x, layout=layout)
    values = integers.reshape(*shape[:-2], pixels)
    assert y.shape == argmax.shape == shape_in((*shape[:-2], 1, 1), layout)
    assert y.dtype == dtype
    assert argmax.dtype == np.min_scalar_type(pixels - 1)
    np.testing.assert_array_equal(from_layout(y, layout)[..., 0, 0], values.max(-1))
    np.testing.assert_array_equal(from_layout(argmax, layout)[..., 0, 0], values.argmax(-1))

    dy = rng.standard_normal(y.shape).astype(dtype)
    dx = from_layout(pool.global_max_pool2d_backward(dy, argmax, x.shape, layout=layout), layout)
    expected = np.zeros((*shape[:-2], pixels), dtype)
    np.put_along_axis(expected, values.argmax(-1)[..., None], from_layout(dy, layout)[..., 0], -1)
    assert dx.dtype == dtype
    np.testing.assert_array_equal(dx, expected.reshape(shape))

    mean = pool.global_avg_pool2d(to_layout(mean_of, layout), layout=layout)
    assert mean.dtype == dtype
    wide = mean_of.astype(np.longdouble)
    assert_within_rounding(
        from_layout(mean, layout), wide.mean((-2, -1), keepdims=True), abs(wide).mean((-2, -1), keepdims=True), 1
    )
    dx = pool.global_avg_pool2d_backward(dy, x.shape, layout=layout)
    assert dx.dtype == dtype
    np.testing.assert_array_equal(
        from_layout(dx, layout), np.broadcast_to(from_layout(dy, layout) / dtype.type(pixels), shape)
    )


def test_global_average_of_float32_is_exact_but_for_its_last_rounding(layout, rng):
    x = (1000 + rng.standard_normal((2, 3, 200, 211))).astype(np.float32)
    mean = from_layout(pool.global_avg_pool2d(to_layout(x, layout), layout=layout), layout)[..., 0, 0]
    exact = [[math.fsum(map(float, x[n, c].ravel())) / (200 * 211) for c in range(3)] for n in range(2)]
    np.testing.assert_array_equal(mean, np.array(exact).astype(np.float32))


def test_global_average_of_float64_keeps_small_terms(layout):
    # A plain running sum of 160,000 times 0.1 is off by 1e-11; in blocks of 128 by 2e-14.
    mean = pool.global_avg_pool2d(np.full(shape_in((1, 2, 400, 400), layout), 0.1), layout=layout)
    np.testing.assert_allclose(mean, 0.1, rtol=5e-14)


def test_global_maximum_with_nan_and_infinities(layout, dtype):
    x = np.full((1, 4, 3, 100), -INF, dtype)
    x[0, 1, 2, 5] = x[0, 1, 2, 7] = NAN
    x[0, 1, 0, 3] = INF
    x[0, 2, 1, 1] = x[0, 2, 2, 2] = 4
    x[0, 3, 2, 99] = 0
    y, argmax = pool.global_max_pool2d(to_layout(x, layout), layout=layout)
    np.testing.assert_array_equal(y.ravel(), [-INF, NAN, 4, 0])
    np.testing.assert_array_equal(argmax.ravel(), [0, 205, 101, 299])


def test_global_pooling_gives_the_same_bits_with_any_number_of_threads(dtype, layout, rng):
    for shape in ((1, 67, 20, 23), (3, 2, 97, 91)):
        x = to_layout((rng.standard_normal(shape) * 10.0 ** rng.integers(-3, 4, shape)).astype(dtype), layout)

        def results(threads, x=x):
            with num_threads(threads):
                y, argmax = pool.global_max_pool2d(x, layout=layout)
                mean = pool.global_avg_pool2d(x, layout=layout)
                dx = pool.global_max_pool2d_backward(y, argmax, x.shape, layout=layout)
                spread = pool.global_avg_pool2d_backward(mean, x.shape, layout=layout)
            return [a.tobytes() for a in (y, argmax, mean, dx, spread)]

        assert results(1) == results(2)


def test_an_image_without_pixels_averages_to_nan(layout, dtype):
    x = np.empty(shape_in((2, 3, 0, 4), layout), dtype)
    mean = pool.global_avg_pool2d(x, layout=layout)
    assert np.isnan(mean).all()
    assert pool.global_avg_pool2d_backward(mean, x.shape, layout=layout).shape == x.shape


@pytest.mark.parametrize("size", [16, 17, 257], ids=str)
def test_argmax_of_a_global_maximum_takes_the_smallest_type(size, layout):
    x = np.zeros(shape_in((1, 2, size, size), layout), np.float32)
    from_layout(x, layout)[0, :, -1, -1] = 1
    _, argmax = pool.global_max_pool2d(x, layout=layout)
    assert argmax.dtype == {16: np.uint8, 17: np.uint16, 257: np.uint32}[size]
    assert (argmax == size * size - 1).all()
    dx = pool.global_max_pool2d_backward(np.ones(argmax.shape, np.float32), argmax, x.shape, layout=layout)
    np.testing.assert_array_equal(dx, x)
