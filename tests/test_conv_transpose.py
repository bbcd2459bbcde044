"""conv_transpose2d and its gradients."""

from __future__ import annotations

import itertools

import hypothesis
import numpy as np
import pytest
from cases import TRANSPOSED_CASES, TransposedCase, in_layout, transposed_cases
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from references import conv as reference
from rounding import WINOGRAD, assert_within_rounding, mixed
from views import VIEWS

import jitconv

FEW = [case for case in TRANSPOSED_CASES if case.name in ("doubling 4x4", "groups 3, stride 2", "without a batch")]


def forward_and_backward(functions, x, w, b, dy, **options):
    """Return y, dx, dw and db; `functions` is jitconv or the reference."""
    y = functions.conv_transpose2d(x, w, b, **options)
    return y, *functions.conv_transpose2d_backward(dy, x, w, **options)


def assert_matches_reference(case, rng, dtype, layout):
    arrays = *case.arrays(rng, dtype, layout), case.gradient(rng, dtype, layout)
    sizes = [None if a is None else np.abs(a) for a in arrays]
    options = {"layout": layout, **case.options}
    results = forward_and_backward(jitconv, *arrays, **options)
    expected = forward_and_backward(reference, *arrays, **options)
    magnitudes = forward_and_backward(reference, *sizes, **options)
    names = ("y", "dx", "dw", "db")
    for name, got, exact, magnitude in zip(names, results, expected, magnitudes, strict=True):
        assert got.dtype == dtype
        assert got.flags.c_contiguous
        magnitude = mixed(magnitude, "NCHW" if name == "dw" else layout)
        assert_within_rounding(got, exact, magnitude, case.terms[name], WINOGRAD)


@pytest.mark.simd
@pytest.mark.parametrize("case", TRANSPOSED_CASES, ids=str)
def test_matches_the_reference(case, dtype, layout, rng):
    assert_matches_reference(case, rng, dtype, layout)


@hypothesis.given(
    case=transposed_cases(),
    seed=st.integers(0, 2**32 - 1),
    dtype=st.sampled_from((np.float32, np.float64)),
    layout=st.sampled_from(("NCHW", "NHWC")),
)
def test_matches_the_reference_for_drawn_shapes(case, seed, dtype, layout):
    assert_matches_reference(case, np.random.default_rng(seed), dtype, layout)


@pytest.mark.parametrize("case", TRANSPOSED_CASES, ids=str)
def test_whole_numbers_are_exact_and_equal_everywhere(case, dtype, rng):
    x, w, b, dy = case.integers(rng, dtype)
    y, dx, dw, db = forward_and_backward(reference, x, w, b, dy, **case.options)
    for layout, threads in itertools.product(("NCHW", "NHWC"), (1, 2)):
        expected = in_layout(y, layout), in_layout(dx, layout), dw, db
        given = in_layout(x, layout), w, b, in_layout(dy, layout)
        with jitconv.num_threads(threads), jitconv.without_winograd():  # whose fractions are not exact
            results = forward_and_backward(jitconv, *given, layout=layout, **case.options)
        for got, exact in zip(results, expected, strict=True):
            assert_array_equal(got, exact)


@pytest.mark.parametrize("case", TRANSPOSED_CASES, ids=str)
def test_bits_do_not_depend_on_threads(case, layout, rng):
    arrays = *case.arrays(rng, np.float32, layout), case.gradient(rng, np.float32, layout)
    results = []
    for threads in (1, 2):
        with jitconv.num_threads(threads):
            got = forward_and_backward(jitconv, *arrays, layout=layout, **case.options)
        results.append([a.tobytes() for a in got])
    assert results[0] == results[1]


@pytest.mark.parametrize("case", FEW, ids=str)
def test_agrees_with_numerical_gradients(case, layout, rng):
    x, w, b = case.arrays(rng, np.float64, layout)
    dy = case.gradient(rng, np.float64, layout)
    options = {"layout": layout, **case.options}
    inputs = {"dx": x, "dw": w, "db": b}
    gradients = jitconv.conv_transpose2d_backward(dy, x, w, **options)

    def loss(**changed):
        now = inputs | changed
        return float(np.vdot(dy, jitconv.conv_transpose2d(now["dx"], now["dw"], now["db"], **options)))

    for name, value in inputs.items():
        direction = rng.standard_normal(value.shape)
        slope = (loss(**{name: value + direction}) - loss(**{name: value - direction})) / 2
        assert_allclose(np.vdot(getattr(gradients, name), direction), slope, rtol=1e-9, atol=1e-9)


def test_is_the_adjoint_of_conv2d(layout, rng):
    case = TransposedCase("", 2, 6, 5, 4, 9, stride=2, padding=1, output_padding=1)
    x, w, _ = case.arrays(rng, np.float64, layout)
    z = case.gradient(rng, np.float64, layout)
    y = jitconv.conv_transpose2d(x, w, stride=2, padding=1, output_padding=1, layout=layout)
    down = jitconv.conv2d(z, w, stride=2, padding=1, layout=layout)
    assert_allclose(np.vdot(y, z), np.vdot(x, down), rtol=1e-12)


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("case", FEW, ids=str)
def test_takes_any_memory_layout_and_leaves_it(case, view, layout, rng):
    plain = *case.arrays(rng, np.float32, layout), case.gradient(rng, np.float32, layout)
    views = [VIEWS[view](a) for a in plain]
    got = forward_and_backward(jitconv, *views, layout=layout, **case.options)
    expected = forward_and_backward(jitconv, *plain, layout=layout, **case.options)
    assert [a.tobytes() for a in got] == [a.tobytes() for a in expected]
    for given, before in zip(views, plain, strict=True):
        assert_array_equal(given, before)


@pytest.mark.parametrize("needs", list(itertools.product((False, True), repeat=3)), ids=str)
def test_gives_what_is_needed_and_none_else(needs, layout, rng):
    case = FEW[0]
    x, w, _ = case.arrays(rng, np.float32, layout)
    dy = case.gradient(rng, np.float32, layout)
    options = {"layout": layout, **case.options}
    whole = jitconv.conv_transpose2d_backward(dy, x, w, **options)
    part = jitconv.conv_transpose2d_backward(dy, x, w, needs=needs, **options)
    for needed, got, expected in zip(needs, part, whole, strict=True):
        if needed:
            assert_array_equal(got, expected)
        else:
            assert got is None
