"""conv2d, forward."""

from __future__ import annotations

import hypothesis
import numpy as np
import pytest
from cases import CONV_CASES, DIVIDED, SAMPLE, ConvCase, conv_cases, in_layout, named
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from references import conv as reference
from rounding import WINOGRAD, assert_within_rounding, mixed
from views import VIEWS

import jitconv

ALGORITHMS = ("auto", "direct", "im2col")
each_algorithm = pytest.mark.parametrize("algorithm", ALGORITHMS)


def assert_matches_reference(case, rng, dtype, layout, algorithm):
    x, w, b = case.arrays(rng, dtype, layout)
    y = jitconv.conv2d(x, w, b, layout=layout, algorithm=algorithm, **case.options)
    expected = reference.conv2d(x, w, b, layout=layout, **case.options)
    magnitude = reference.conv2d(np.abs(x), np.abs(w), None if b is None else np.abs(b), layout=layout, **case.options)
    assert y.dtype == dtype
    assert y.flags.c_contiguous
    slack = 1.0
    if algorithm == "auto":
        magnitude, slack = mixed(magnitude, layout), WINOGRAD
    assert_within_rounding(y, expected, magnitude, case.terms["y"], slack)


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
    x, w, b, _ = case.integers(rng, dtype)
    expected = reference.conv2d(x, w, b, **case.options)
    for algorithm in ALGORITHMS:
        for layout in ("NCHW", "NHWC"):
            for threads in (1, 2):
                with jitconv.num_threads(threads), jitconv.without_winograd():  # whose fractions are not exact
                    y = jitconv.conv2d(in_layout(x, layout), w, b, layout=layout, algorithm=algorithm, **case.options)
                assert_array_equal(y, in_layout(expected, layout), err_msg=f"{algorithm} {layout} {threads}")


@each_algorithm
@pytest.mark.parametrize("case", DIVIDED, ids=str)
def test_bits_do_not_depend_on_threads(case, algorithm, dtype, layout, rng):
    x, w, b = case.arrays(rng, dtype, layout)
    results = []
    for threads in (1, 2):
        with jitconv.num_threads(threads):
            results.append(jitconv.conv2d(x, w, b, layout=layout, algorithm=algorithm, **case.options).tobytes())
    assert results[0] == results[1]


@pytest.mark.parametrize("size", [8, 14, 28])
def test_infinite_weights_on_padding_do_not_follow_the_threads(size, layout, rng):
    """Whether inf times padding gives NaN is left open, but the number of threads must not decide it."""
    case = ConvCase("", 1, 1, size, size, 64, padding=1)
    x, w, b = case.arrays(rng, np.float32, layout)
    w[3, 0, 0, 0] = np.inf
    results = []
    for threads in (1, 2):
        with jitconv.num_threads(threads):
            results.append(jitconv.conv2d(x, w, b, padding=1, layout=layout))
    assert_array_equal(*results)


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("case", named("odd sizes", "1x1 kernel", "without a batch"), ids=str)
def test_takes_any_memory_layout(case, view, dtype, layout, rng):
    plain = case.arrays(rng, dtype, layout)
    x, w, b = map(VIEWS[view], plain)
    y = jitconv.conv2d(x, w, b, layout=layout, **case.options)
    assert type(y) is np.ndarray
    assert_array_equal(y, jitconv.conv2d(*plain, layout=layout, **case.options))
    for given, before in zip((x, w, b), plain, strict=True):
        assert_array_equal(given, before)


@each_algorithm
@pytest.mark.parametrize("case", SAMPLE, ids=str)
def test_leaves_its_inputs_as_they_were(case, algorithm, layout, rng):
    arrays = [a for a in case.arrays(rng, np.float32, layout) if a is not None]
    before = [a.tobytes() for a in arrays]
    jitconv.conv2d(*arrays, layout=layout, algorithm=algorithm, activation="relu", **case.options)
    assert [a.tobytes() for a in arrays] == before


@each_algorithm
@pytest.mark.parametrize("case", named("odd sizes", "1x1 kernel", "without a batch", "empty batch"), ids=str)
def test_out_is_filled_and_returned(case, algorithm, dtype, layout, rng):
    x, w, b = case.arrays(rng, dtype, layout)
    expected = jitconv.conv2d(x, w, b, layout=layout, algorithm=algorithm, **case.options)
    blank = np.full_like(expected, np.nan)
    backwards = (slice(None, None, -1),) * blank.ndim
    for out in (blank.copy(), np.asfortranarray(blank), blank.copy()[backwards]):
        y = jitconv.conv2d(x, w, b, layout=layout, algorithm=algorithm, out=out, **case.options)
        assert y is out
        assert_array_equal(out, expected)


@each_algorithm
@pytest.mark.parametrize("case", SAMPLE, ids=str)
def test_relu_cuts_below_zero(case, algorithm, dtype, layout, rng):
    x, w, b = case.arrays(rng, dtype, layout)
    options = {"layout": layout, "algorithm": algorithm, **case.options}
    y = jitconv.conv2d(x, w, b, **options)
    assert (y < 0).any()
    assert_array_equal(jitconv.conv2d(x, w, b, activation="relu", **options), np.where(y < 0, 0, y))


@each_algorithm
def test_relu_keeps_nan(algorithm, dtype, layout, rng):
    case = ConvCase("", 1, 3, 6, 7, 20, padding=1)
    x, w, b = case.arrays(rng, dtype, layout)
    b[4] = np.nan
    y = jitconv.conv2d(x, w, b, layout=layout, algorithm=algorithm, activation="relu", **case.options)
    y = np.moveaxis(y, -1, 1) if layout == "NHWC" else y
    assert np.isnan(y[:, 4]).all()
    assert not np.isnan(np.delete(y, 4, axis=1)).any()


@each_algorithm
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    "case",
    named("odd sizes", "1x1 kernel stride 2", "groups 3, stride 2", "dilation", "28x28", "depthwise, stride 2"),
    ids=str,
)
def test_nan_and_inf_reach_their_windows_and_no_others(case, value, algorithm, dtype, layout, rng):
    x, w, b = case.arrays(rng, dtype)
    position = tuple(int(rng.integers(size)) for size in x.shape)
    spoiled = x.copy()
    spoiled[position] = value
    marked = np.zeros_like(x)
    marked[position] = 1
    reached = reference.conv2d(marked, np.ones_like(w), **case.options) > 0
    expected = reference.conv2d(spoiled, w, b, **case.options)
    options = {"layout": layout, "algorithm": algorithm, **case.options}
    clean = jitconv.conv2d(in_layout(x, layout), w, b, **options)
    y = jitconv.conv2d(in_layout(spoiled, layout), w, b, **options)
    reached, expected = in_layout(reached, layout), in_layout(expected, layout)
    assert_array_equal(y[~reached], clean[~reached])
    assert_array_equal(y[reached], expected[reached])


@each_algorithm
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_and_inf_in_weights_stay_in_their_channel(value, algorithm, dtype, layout, rng):
    case = ConvCase("", 2, 5, 7, 8, 37)
    x, w, b = case.arrays(rng, dtype, layout)
    options = {"layout": layout, "algorithm": algorithm}
    clean = jitconv.conv2d(x, w, b, **options)
    w[17, 2, 1, 1] = value
    y = jitconv.conv2d(x, w, b, **options)
    axis = 3 if layout == "NHWC" else 1
    assert not np.isfinite(np.take(y, 17, axis)).any()
    assert_array_equal(np.delete(y, 17, axis), np.delete(clean, 17, axis))


@each_algorithm
def test_one_image_is_a_batch_of_one(algorithm, layout, rng):
    case = ConvCase("", 1, 5, 9, 8, 12, padding=1)
    x, w, b = case.arrays(rng, np.float32, layout)
    options = {"layout": layout, "algorithm": algorithm, **case.options}
    y = jitconv.conv2d(x[0], w, b, **options)
    assert y.ndim == 3
    assert_array_equal(y, jitconv.conv2d(x, w, b, **options)[0])


def test_forms_of_padding_agree(rng):
    x, w, b = ConvCase("", 2, 3, 7, 8, 4).arrays(rng, np.float32)
    one = jitconv.conv2d(x, w, b, padding=1)
    for form in ((1, 1), [1, 1], ((1, 1), (1, 1)), [[1, 1], [1, 1]], "same", np.int64(1)):
        assert_array_equal(jitconv.conv2d(x, w, b, padding=form), one)
    assert_array_equal(jitconv.conv2d(x, w, b, padding="valid"), jitconv.conv2d(x, w, b))


def test_stride_and_dilation_take_an_int_or_a_pair(rng):
    x, w, b = ConvCase("", 2, 3, 9, 8, 4).arrays(rng, np.float32)
    assert_array_equal(jitconv.conv2d(x, w, b, stride=2), jitconv.conv2d(x, w, b, stride=(2, 2)))
    assert_array_equal(jitconv.conv2d(x, w, b, dilation=2), jitconv.conv2d(x, w, b, dilation=[2, 2]))
