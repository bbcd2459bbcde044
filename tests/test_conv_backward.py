"""conv2d_backward: the gradients of conv2d."""

from __future__ import annotations

import itertools

import hypothesis
import numpy as np
import pytest
from cases import CONV_CASES, DIVIDED, SAMPLE, ConvCase, conv_cases, in_layout, named
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from references import conv as reference
from rounding import WINOGRAD, assert_within_rounding, mixed
from views import VIEWS

import jitconv

ALGORITHMS = ("auto", "direct", "im2col")
each_algorithm = pytest.mark.parametrize("algorithm", ALGORITHMS)


def assert_matches_reference(case, rng, dtype, layout, algorithm):
    x, w, _ = case.arrays(rng, dtype, layout)
    dy = case.gradient(rng, dtype, layout)
    gradients = jitconv.conv2d_backward(dy, x, w, layout=layout, algorithm=algorithm, **case.options)
    expected = reference.conv2d_backward(dy, x, w, layout=layout, **case.options)
    magnitudes = reference.conv2d_backward(np.abs(dy), np.abs(x), np.abs(w), layout=layout, **case.options)
    for name, got, exact, magnitude in zip(("dx", "dw", "db"), gradients, expected, magnitudes, strict=True):
        assert got.dtype == dtype
        assert got.flags.c_contiguous
        slack = 1.0
        if algorithm == "auto":
            magnitude, slack = mixed(magnitude, layout if name == "dx" else "NCHW"), WINOGRAD
        assert_within_rounding(got, exact, magnitude, case.terms[name], slack)


def gradient_bytes(gradients):
    return [a.tobytes() for a in gradients]


@pytest.mark.simd
@each_algorithm
@pytest.mark.parametrize("case", CONV_CASES, ids=str)
def test_matches_the_reference(case, algorithm, dtype, layout, rng):
    assert_matches_reference(case, rng, dtype, layout, algorithm)


@hypothesis.given(
    case=conv_cases(),
    seed=st.integers(0, 2**32 - 1),
    dtype=st.sampled_from((np.float32, np.float64)),
    layout=st.sampled_from(("NCHW", "NHWC")),
    algorithm=st.sampled_from(ALGORITHMS),
)
def test_matches_the_reference_for_drawn_shapes(case, seed, dtype, layout, algorithm):
    assert_matches_reference(case, np.random.default_rng(seed), dtype, layout, algorithm)


@pytest.mark.parametrize("case", CONV_CASES, ids=str)
def test_whole_numbers_are_exact_and_equal_everywhere(case, dtype, rng):
    x, w, _, dy = case.integers(rng, dtype)
    dx, dw, db = reference.conv2d_backward(dy, x, w, **case.options)
    for algorithm in ALGORITHMS:
        for layout in ("NCHW", "NHWC"):
            for threads in (1, 2):
                with jitconv.num_threads(threads), jitconv.without_winograd():  # whose fractions are not exact
                    got = jitconv.conv2d_backward(
                        in_layout(dy, layout),
                        in_layout(x, layout),
                        w,
                        layout=layout,
                        algorithm=algorithm,
                        **case.options,
                    )
                where = f"{algorithm} {layout} {threads}"
                assert_array_equal(got.dx, in_layout(dx, layout), err_msg=where)
                assert_array_equal(got.dw, dw, err_msg=where)
                assert_array_equal(got.db, db, err_msg=where)


@each_algorithm
@pytest.mark.parametrize("case", DIVIDED, ids=str)
def test_bits_do_not_depend_on_threads(case, algorithm, dtype, layout, rng):
    x, w, _ = case.arrays(rng, dtype, layout)
    dy = case.gradient(rng, dtype, layout)
    results = []
    for threads in (1, 2):
        with jitconv.num_threads(threads):
            results.append(jitconv.conv2d_backward(dy, x, w, layout=layout, algorithm=algorithm, **case.options))
    assert gradient_bytes(results[0]) == gradient_bytes(results[1])


@pytest.mark.parametrize("size", [8, 14, 28])
def test_infinite_weights_on_padding_do_not_follow_the_threads(size, layout, rng):
    """Whether inf times padding gives NaN is left open, but the number of threads must not decide it."""
    case = ConvCase("", 1, 16, size, size, 4, padding=1)
    x, w, _ = case.arrays(rng, np.float32, layout)
    w[3, 0, 0, 0] = np.inf
    dy = case.gradient(rng, np.float32, layout)
    results = []
    for threads in (1, 2):
        with jitconv.num_threads(threads):
            results.append(jitconv.conv2d_backward(dy, x, w, padding=1, layout=layout).dx)
    assert_array_equal(*results)


@each_algorithm
@pytest.mark.parametrize("case", [ConvCase("", 2, 3, 30, 30, 6), ConvCase("", 2, 20, 9, 9, 6)], ids=str)
def test_what_is_not_finite_stays_with_the_taps_that_reach_it(case, algorithm, layout, rng):
    x, w, _ = case.arrays(rng, np.float32)
    dy = case.gradient(rng, np.float32)
    x[0, 0, -1, -1], dy[1, 1, 0, -1] = np.inf, np.nan
    with jitconv.without_winograd():
        dw, db = jitconv.conv2d_backward(
            in_layout(dy, layout), in_layout(x, layout), w, layout=layout, algorithm=algorithm
        )[1:]
    wrong = np.zeros(w.shape, bool)
    wrong[:, 0, -1, -1] = wrong[1] = True
    assert_array_equal(np.isfinite(dw), ~wrong)
    assert_array_equal(np.isnan(db), np.arange(6) == 1)


@each_algorithm
@pytest.mark.parametrize("needs", list(itertools.product((False, True), repeat=3)), ids=str)
@pytest.mark.parametrize("case", named("odd sizes", "without a batch"), ids=str)
def test_gives_what_is_needed_and_none_else(case, needs, algorithm, layout, rng):
    x, w, _ = case.arrays(rng, np.float32, layout)
    dy = case.gradient(rng, np.float32, layout)
    options = {"layout": layout, "algorithm": algorithm, **case.options}
    whole = jitconv.conv2d_backward(dy, x, w, **options)
    part = jitconv.conv2d_backward(dy, x, w, needs=needs, **options)
    for needed, got, expected in zip(needs, part, whole, strict=True):
        if needed:
            assert_allclose(got, expected, rtol=1e-5, atol=1e-6)  # db alone is summed in another order
        else:
            assert got is None


def test_returns_named_gradients(rng):
    case = ConvCase("", 2, 3, 5, 6, 4)
    x, w, _ = case.arrays(rng, np.float32)
    gradients = jitconv.conv2d_backward(case.gradient(rng, np.float32), x, w)
    assert isinstance(gradients, jitconv.ConvGradients)
    assert gradients._fields == ("dx", "dw", "db")
    assert (gradients.dx.shape, gradients.dw.shape, gradients.db.shape) == (x.shape, w.shape, (4,))


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("case", named("odd sizes", "1x1 kernel", "without a batch"), ids=str)
def test_takes_any_memory_layout(case, view, dtype, layout, rng):
    x, w, _ = case.arrays(rng, dtype, layout)
    plain = case.gradient(rng, dtype, layout), x, w
    views = [VIEWS[view](a) for a in plain]
    got = jitconv.conv2d_backward(*views, layout=layout, **case.options)
    expected = jitconv.conv2d_backward(*plain, layout=layout, **case.options)
    assert all(type(a) is np.ndarray for a in got)
    assert gradient_bytes(got) == gradient_bytes(expected)
    for given, before in zip(views, plain, strict=True):
        assert_array_equal(given, before)


@each_algorithm
@pytest.mark.parametrize("case", SAMPLE, ids=str)
def test_leaves_its_inputs_as_they_were(case, algorithm, layout, rng):
    x, w, _ = case.arrays(rng, np.float32, layout)
    arrays = case.gradient(rng, np.float32, layout), x, w
    before = gradient_bytes(arrays)
    jitconv.conv2d_backward(*arrays, layout=layout, algorithm=algorithm, **case.options)
    assert gradient_bytes(arrays) == before


@each_algorithm
@pytest.mark.parametrize("case", SAMPLE, ids=str)
def test_agrees_with_numerical_gradients(case, algorithm, layout, rng):
    x, w, b = case.arrays(rng, np.float64, layout)
    b = np.zeros(case.f) if b is None else b
    dy = case.gradient(rng, np.float64, layout)
    options = {"layout": layout, "algorithm": algorithm, **case.options}
    inputs = {"dx": x, "dw": w, "db": b}
    gradients = jitconv.conv2d_backward(dy, x, w, **options)

    def loss(**changed):
        now = inputs | changed
        return float(np.vdot(dy, jitconv.conv2d(now["dx"], now["dw"], now["db"], **options)))

    for name, value in inputs.items():
        direction = rng.standard_normal(value.shape)
        # The loss is linear in each input, so a step of 1 has no error but rounding.
        slope = (loss(**{name: value + direction}) - loss(**{name: value - direction})) / 2
        assert_allclose(np.vdot(getattr(gradients, name), direction), slope, rtol=1e-9, atol=1e-9)


@each_algorithm
@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("spoiled", ["dy", "x"])
@pytest.mark.parametrize(
    "case",
    named("3x3", "1x1 kernel stride 2", "groups 3, stride 2", "stride larger than the kernel", "depthwise, no padding"),
    ids=str,
)
def test_nan_and_inf_reach_their_windows_and_no_others(case, spoiled, value, algorithm, dtype, layout, rng):
    x, w, _ = case.arrays(rng, dtype)
    given = {"dy": case.gradient(rng, dtype), "x": x, "w": w}
    position = tuple(int(rng.integers(size)) for size in given[spoiled].shape)
    bad, marked = given[spoiled].copy(), np.zeros_like(given[spoiled])
    bad[position], marked[position] = value, 1

    def gradients(**changed):
        laid_out = {name: a if name == "w" else in_layout(a, layout) for name, a in (given | changed).items()}
        return jitconv.conv2d_backward(**laid_out, layout=layout, algorithm=algorithm, **case.options)

    ones = {name: np.ones_like(a) for name, a in given.items()} | {spoiled: marked}
    reached = reference.conv2d_backward(**ones, **case.options)
    expected = reference.conv2d_backward(**(given | {spoiled: bad}), **case.options)
    before, after = gradients(), gradients(**{spoiled: bad})
    for i, name in enumerate(("dx", "dw", "db")):
        here = (reached[i] > 0) & (spoiled == "dy" or name == "dw")  # only dw depends on x
        exact = expected[i]
        if name == "dx":
            here, exact = in_layout(here, layout), in_layout(exact, layout)
        assert_array_equal(after[i][~here], before[i][~here], err_msg=name)
        assert_array_equal(after[i][here], exact[here], err_msg=name)


@each_algorithm
def test_pixels_that_no_window_covers_get_zero(algorithm, dtype, layout, rng):
    case = ConvCase("", 1, 3, 7, 8, 18, (2, 2), stride=4)
    x, w, _ = case.arrays(rng, dtype, layout)
    x[...] = np.nan
    dy = case.gradient(rng, dtype, layout)
    dx = jitconv.conv2d_backward(
        dy, x, w, layout=layout, algorithm=algorithm, needs=(True, False, False), **case.options
    ).dx
    dx = np.moveaxis(dx, -1, 1) if layout == "NHWC" else dx
    covered = np.zeros(dx.shape, bool)
    for i, j in itertools.product((0, 1, 4, 5), repeat=2):
        covered[:, :, i, j] = True
    assert_array_equal(dx[~covered], 0)
    assert (dx[covered] != 0).all()


@each_algorithm
def test_empty_batch_has_gradients_of_zero(algorithm, dtype, layout):
    x, w = np.empty(in_layout(np.empty((0, 3, 6, 7)), layout).shape, dtype), np.ones((5, 3, 3, 3), dtype)
    dy = np.empty(in_layout(np.empty((0, 5, 4, 5)), layout).shape, dtype)
    dx, dw, db = jitconv.conv2d_backward(dy, x, w, layout=layout, algorithm=algorithm)
    assert dx.shape == x.shape
    assert_array_equal(dw, np.zeros_like(w))
    assert_array_equal(db, np.zeros(5))
