"""Backward-data of few input channels in NCHW, wherever it can run: the plan chooses it for few of these cases."""

from __future__ import annotations

import numpy as np
import pytest
from cases import CONV_CASES
from fences import Poisoned, allocating_in, placed
from numpy.testing import assert_array_equal
from references import conv as reference
from rounding import assert_within_rounding

import jitconv
from jitconv import planes_data
from jitconv.planes_data import PlanesData, PlanesDataCall, plan_planes_data


def pass_of(case, dtype):
    """Return the pass of a case, None if it does not suit."""
    shape = case.x_shape if case.n is not None else (1, *case.x_shape)
    return PlanesData.of(jitconv.plan_conv2d(shape, case.w_shape, dtype, **case.options).problem)


FITTING = [case for case in CONV_CASES if pass_of(case, np.float64)]


def computed(each, threads, dy, w, b):
    """Return dx, plus the bias b, if there is one."""
    p = each.problem
    dx = np.empty((p.n, p.c, p.h, p.w), dy.dtype)
    PlanesDataCall.of(each, plan_planes_data(each, threads)[1]).run(dy.reshape(p.n, p.f, *p.output_size), w, b, dx)
    return dx


def test_there_is_something_to_test():
    assert len(FITTING) > 20
    assert jitconv.plan_conv2d((100, 1, 28, 28), (30, 1, 5, 5), np.float64).backward_data.spread


@pytest.mark.simd
@pytest.mark.parametrize("strip_bytes", [planes_data.PRODUCTS_BYTES, 1])
@pytest.mark.parametrize("case", FITTING, ids=str)
def test_matches_the_reference(case, strip_bytes, dtype, rng, monkeypatch):
    monkeypatch.setattr(planes_data, "PRODUCTS_BYTES", strip_bytes)
    each = pass_of(case, dtype)
    if each is None:
        return  # a vector of float32 is more pixels than there are
    x, w, _ = case.arrays(rng, dtype)
    dy, b = case.gradient(rng, dtype), rng.standard_normal(case.c).astype(dtype)
    expected, _, _ = reference.conv2d_backward(dy, x, w, **case.options)
    magnitude, _, _ = reference.conv2d_backward(np.abs(dy), x, np.abs(w), **case.options)
    dx = computed(each, 2, dy, w, None)
    assert_within_rounding(dx.reshape(expected.shape), expected, magnitude, case.terms["dx"])
    assert_array_equal(computed(each, 1, dy, w, None), dx)
    column = b[:, np.newaxis, np.newaxis].astype(np.float64)
    shifted = computed(each, 1, dy, w, b).reshape(expected.shape)
    assert_within_rounding(shifted, expected + column, magnitude + np.abs(column), case.terms["dx"] + 1)


@pytest.mark.parametrize("case", FITTING, ids=str)
def test_stays_inside_its_arrays(case, rng):
    each = pass_of(case, np.float64)
    arrays = case.gradient(rng, np.float64), case.arrays(rng, np.float64)[1], rng.standard_normal(case.c)
    expected = computed(each, 2, *arrays)
    fence = Poisoned()
    fenced = [placed(fence, a) for a in arrays]
    with allocating_in(fence):
        dx = computed(each, 2, *fenced)
    fence.check()
    assert_array_equal(dx, expected)
