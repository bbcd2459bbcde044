"""Dense layers' products."""

from __future__ import annotations

import numpy as np
import pytest
from fences import Poisoned, allocating_in, placed
from numpy.testing import assert_array_equal
from rounding import assert_within_rounding

import jitconv
from jitconv import dense

SIZES = [  # rows, features, outputs: tails of every kind, fewer features than lanes, blocks of k, several units
    (1, 1, 1), (7, 3, 5), (3, 16, 1), (5, 15, 16), (1, 17, 33), (32, 9, 3), (64, 256, 10), (53, 1000, 77),
    (130, 70, 200), (600, 33, 3), (2, 1100, 41), (3, 65, 520),
]  # fmt: skip
each_size = pytest.mark.parametrize("size", SIZES, ids=str)


def draw(size, rng, dtype):
    rows, features, outputs = size
    shapes = (rows, features), (outputs, features), (outputs,), (rows, outputs)
    return [rng.standard_normal(shape).astype(dtype) for shape in shapes]


def run(x, w, b, dy, relu=False):
    dw, db = np.full_like(w, np.nan), np.full_like(b, np.nan)
    y = dense.forward(x, w, b, relu)
    return y, dense.backward(dy, x, w, dw, db, True), dw, db


@pytest.mark.simd
@each_size
def test_results_are_the_products(size, dtype, rng):
    arrays = draw(size, rng, dtype)

    def exact(x, w, b, dy):
        x, w, b, dy = (a.astype(np.longdouble) for a in (x, w, b, dy))
        return x @ w.T + b, dy @ w, dy.T @ x, dy.sum(axis=0)

    rows, features, outputs = size
    terms = features + 1, outputs, rows, rows
    for got, want, size_of, count in zip(run(*arrays), exact(*arrays), exact(*map(np.abs, arrays)), terms, strict=True):
        assert got.dtype == dtype
        assert_within_rounding(got, want.astype(dtype), size_of.astype(dtype), count)


@each_size
def test_bits_do_not_depend_on_threads(size, dtype, rng):
    arrays = draw(size, rng, dtype)
    results = []
    for threads in (1, 2):
        with jitconv.num_threads(threads):
            results.append([a.tobytes() for a in run(*arrays)])
    assert results[0] == results[1]


@pytest.mark.simd
@each_size
def test_nothing_outside_the_arrays_is_touched(size, dtype, rng):
    arrays = draw(size, rng, dtype)
    expected = run(*arrays)
    fence = Poisoned()
    fenced = [placed(fence, a) for a in arrays]
    with allocating_in(fence):
        results = run(*fenced)
    fence.check()
    for got, want in zip(results, expected, strict=True):
        assert_array_equal(got, want)


def test_relu_keeps_nan(dtype):
    x = np.array([[1], [-1], [np.nan]], dtype)
    assert_array_equal(dense.forward(x, np.ones((1, 1), dtype), None, True), [[1], [0], [np.nan]])


def test_no_rows(dtype):
    x, w = np.zeros((0, 5), dtype), np.ones((3, 5), dtype)
    assert dense.forward(x, w, None, False).shape == (0, 3)
    dw, db = np.ones_like(w), np.ones(3, dtype)
    assert dense.backward(np.zeros((0, 3), dtype), x, w, dw, db, True).shape == x.shape
    assert not dw.any()
    assert not db.any()
