"""Max pooling backward: which of several equal pixels gets the gradient."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import jitconv
from jitconv.compat import ties

# Image, window, stride, padding: tiles, overlaps, gaps, what is left over, one row, a window as large as the image.
CASES = [
    ((2, 3, 6, 8), (2, 2), (2, 2), 0),
    ((2, 3, 7, 7), (3, 3), (2, 2), 0),
    ((1, 2, 9, 8), (3, 2), (1, 3), 0),
    ((2, 1, 9, 10), (2, 2), (3, 3), 0),
    ((2, 3, 8, 7), (3, 3), (2, 2), 1),
    ((1, 2, 6, 6), (4, 5), (2, 1), ((2, 1), (0, 2))),
    ((3, 2, 1, 9), (1, 3), (1, 2), 0),
    ((2, 2, 5, 4), (5, 4), (1, 1), 0),
    ((20, 16, 24, 24), (3, 3), (2, 2), 1),
]


def spread(dy, x, kernel, stride, padding, rule):
    """Give each dy to the pixels of its window that equal the largest, window by window; NCHW."""
    pairs = (padding, padding) if isinstance(padding, int) else padding
    (top, bottom), (left, right) = ((side, side) if isinstance(side, int) else side for side in pairs)
    padded = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)), constant_values=-np.inf)
    dx = np.zeros_like(padded)
    for i, j in itertools.product(*map(range, dy.shape[2:])):
        place = (..., *(slice(o * s, o * s + k) for o, s, k in zip((i, j), stride, kernel, strict=True)))
        equal = padded[place] == padded[place].max(axis=(2, 3), keepdims=True)
        if rule == "first":
            flat = equal.reshape(*equal.shape[:2], -1)
            equal = (flat & (np.cumsum(flat, axis=2) == 1)).reshape(equal.shape)
        count = equal.sum(axis=(2, 3), keepdims=True) if rule == "split" else 1
        dx[place] += equal * dy[:, :, i : i + 1, j : j + 1] / count
    return dx[:, :, top : top + x.shape[2], left : left + x.shape[3]]


@pytest.mark.parametrize("rule", ties.TIES)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_gives_the_gradient_to_the_right_pixels(case, rule, layout, dtype, tied, rng):
    shape, kernel, stride, padding = case
    x = tied(*shape).astype(dtype)
    y, argmax = ties.max_pool2d_forward(x, kernel, stride=stride, padding=padding, ties=rule)
    assert_array_equal(y, jitconv.max_pool2d(x, kernel, stride=stride, padding=padding))
    dy = rng.standard_normal(y.shape).astype(dtype)
    expected = spread(dy.astype(np.float64), x.astype(np.float64), kernel, stride, padding, rule)
    if layout == "NHWC":
        x, dy, expected = (np.ascontiguousarray(a.transpose(0, 2, 3, 1)) for a in (x, dy, expected))
        argmax = None
    before = x.copy(), dy.copy()
    results = []
    for threads in (1, 2):
        with jitconv.num_threads(threads):
            dx = ties.max_pool2d_backward(
                dy, x, kernel, stride=stride, padding=padding, layout=layout, ties=rule, argmax=argmax
            )
        results.append(dx.tobytes())
    assert results[0] == results[1]
    assert dx.dtype == dtype
    assert dx.flags.writeable
    assert_allclose(dx, expected, rtol=0, atol=20 * np.finfo(dtype).eps)
    assert_array_equal(x, before[0])
    assert_array_equal(dy, before[1])


@pytest.mark.parametrize("rule", ties.TIES)
def test_one_image_has_no_batch_axis(rule, tied, layout):
    x = tied(6, 8, 4)
    y, argmax = ties.max_pool2d_forward(x, 2, layout=layout, ties=rule)
    dx = ties.max_pool2d_backward(np.ones_like(y), x, 2, layout=layout, ties=rule, argmax=argmax)
    batch = ties.max_pool2d_backward(np.ones_like(y)[np.newaxis], x[np.newaxis], 2, layout=layout, ties=rule)
    assert dx.shape == x.shape
    assert_array_equal(dx, batch[0])


def test_nan_equals_nothing():
    x = np.array([[[[np.nan, 1.0], [np.nan, 2.0]]]])
    dy = np.full((1, 1, 1, 1), 3.0)
    assert_array_equal(ties.max_pool2d_backward(dy, x, 2, ties="first"), [[[[3.0, 0.0], [0.0, 0.0]]]])
    for rule in ("all", "split"):
        assert_array_equal(ties.max_pool2d_backward(dy, x, 2, ties=rule), np.zeros((1, 1, 2, 2)))


def test_views_are_accepted(tied):
    x, dy = tied(2, 12, 6, 3)[:, ::2].transpose(0, 3, 1, 2), np.ones((2, 3, 3, 3))[..., ::-1]
    dx = ties.max_pool2d_backward(dy, x, 2, ties="all")
    assert_array_equal(dx, ties.max_pool2d_backward(dy.copy(), x.copy(), 2, ties="all"))


def test_bad_arguments_are_named():
    x, dy = np.zeros((1, 1, 4, 4)), np.zeros((1, 1, 2, 2))
    with pytest.raises(ValueError, match=r"`ties` must be one of 'first', 'all', 'split', got 'last'"):
        ties.max_pool2d_backward(dy, x, 2, ties="last")
    with pytest.raises(ValueError, match="`dy` must have the shape of the output"):
        ties.max_pool2d_backward(dy[..., 1:], x, 2, ties="all")
    with pytest.raises(TypeError, match="`dy` has dtype float32"):
        ties.max_pool2d_backward(dy.astype(np.float32), x, 2, ties="split")
