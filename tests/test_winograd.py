"""Winograd convolution: all passes, all forms, and how "auto" comes to choose it."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from cases import ConvCase
from fences import Poisoned, allocating_in, placed
from numpy.testing import assert_allclose, assert_array_equal
from references import conv as reference

import jitconv
from jitconv.kernels import transforms

NAMES = ("winograd", "winograd_2x2")
each_name = pytest.mark.parametrize("algorithm", NAMES)

CASES = [
    ConvCase("whole tiles", 2, 16, 8, 8, 16, padding=1),
    ConvCase("partial tiles", 2, 17, 9, 7, 20, padding=1),
    ConvCase("one pixel", 3, 5, 3, 3, 7),
    ConvCase("one row", 1, 33, 3, 21, 15),
    ConvCase("one channel", 2, 1, 10, 10, 1, padding=1),
    ConvCase("no padding", 2, 64, 6, 11, 48),
    ConvCase("wide padding", 1, 8, 5, 5, 9, padding=3),
    ConvCase("asymmetric padding", 2, 16, 7, 8, 31, padding=((0, 2), (1, 0))),
    ConvCase("two panels", 2, 30, 6, 6, 130, padding="same"),
    ConvCase("many images", 9, 32, 4, 4, 64, padding=1),
    ConvCase("no batch axis", None, 16, 12, 12, 16, padding=1),
    ConvCase("no bias", 2, 16, 14, 14, 16, padding=1, bias=False),
]
OTHER_CASES = [
    ConvCase("5x5", 2, 17, 9, 11, 20, kernel=(5, 5), padding=2),
    ConvCase("5x5, one channel", 3, 1, 8, 12, 30, kernel=(5, 5)),
    ConvCase("5x5, one pixel", 2, 6, 5, 5, 33, kernel=(5, 5)),
    ConvCase("stride 2", 2, 17, 16, 15, 20, stride=2, padding=1),
    ConvCase("stride 2, no padding", 2, 33, 9, 14, 16, stride=2),
    ConvCase("stride 2, wide padding", 1, 8, 7, 6, 9, stride=2, padding=3),
    ConvCase("stride 2, an odd and an even padding", 2, 8, 10, 10, 16, stride=2, padding=((1, 1), (0, 1))),
    # Sums that do not fit in L2: rounds of tiles, one and several, with blocks of channels and several panels.
    ConvCase("one round", 4, 70, 8, 8, 130, padding=1),
    ConvCase("groups", 2, 32, 9, 9, 64, padding=1, groups=2),
    ConvCase("groups of a part of a vector", 2, 40, 10, 13, 72, padding=1, groups=4),
    ConvCase("groups, 5x5", 2, 48, 9, 9, 32, kernel=(5, 5), padding=2, groups=2),
    ConvCase("groups, stride 2", 2, 64, 9, 8, 48, stride=2, padding=1, groups=2),
    ConvCase("groups in rounds", 3, 144, 14, 14, 144, padding=1, groups=2),
    ConvCase("several rounds", 40, 64, 28, 28, 33, padding=1),
]
ALL_CASES = [(name, case) for name in NAMES for case in CASES] + [("winograd", case) for case in OTHER_CASES]
each_case = pytest.mark.parametrize(("algorithm", "case"), ALL_CASES, ids=str)

# The largest error over the largest result, as a multiple of eps: asv_benchmarks/error_table.py gives up to 105 (4x4),
# 160 (4x4 of 5x5), 55 (stride 2) and 8 (2x2) for up to 512 channels or 64 images, all passes, and 9 for direct.
TOLERANCE = {"winograd": 250.0, "winograd_2x2": 80.0}


def assert_close(actual, expected, algorithm):
    assert actual.shape == expected.shape
    error = np.abs(actual - expected).max() / np.abs(expected).max()
    assert error < TOLERANCE[algorithm] * np.finfo(actual.dtype).eps


def passes(case, arrays, layout, **options):
    x, w, b, dy = arrays
    options |= {"layout": layout, **case.options}
    return jitconv.conv2d(x, w, b, **options), *jitconv.conv2d_backward(dy, x, w, **options)


@pytest.mark.simd
@each_case
def test_every_pass_matches_the_reference(case, algorithm, dtype, layout, rng):
    x, w, b = case.arrays(rng, dtype, layout)
    dy = case.gradient(rng, dtype, layout)
    results = passes(case, (x, w, b, dy), layout, algorithm=algorithm)
    expected = (
        reference.conv2d(x, w, b, layout=layout, **case.options),
        *reference.conv2d_backward(dy, x, w, layout=layout, **case.options),
    )
    for got, right in zip(results, expected, strict=True):
        assert got.dtype == dtype
        assert_close(got, right, algorithm)


@each_name
def test_relu_is_fused(algorithm, dtype, layout, rng):
    case = CASES[1]
    x, w, b = case.arrays(rng, dtype, layout)
    options = {"layout": layout, "algorithm": algorithm, **case.options}
    y = jitconv.conv2d(x, w, b, activation="relu", **options)
    assert_array_equal(y, np.maximum(jitconv.conv2d(x, w, b, **options), 0))


@each_case
def test_the_bits_do_not_depend_on_the_threads(case, algorithm, dtype, layout, rng):
    arrays = *case.arrays(rng, dtype, layout), case.gradient(rng, dtype, layout)
    with jitconv.num_threads(1):
        one = passes(case, arrays, layout, algorithm=algorithm)
    with jitconv.num_threads(2):
        two = passes(case, arrays, layout, algorithm=algorithm)
    for a, b in zip(one, two, strict=True):
        assert_array_equal(a, b)


@pytest.mark.simd
@each_case
def test_stays_inside_its_arrays(case, algorithm, dtype, layout, rng):
    arrays = *case.arrays(rng, dtype, layout), case.gradient(rng, dtype, layout)
    expected = passes(case, arrays, layout, algorithm=algorithm)
    fence = Poisoned()
    fenced = [placed(fence, a) for a in arrays]
    with allocating_in(fence):
        results = passes(case, fenced, layout, algorithm=algorithm)
    fence.check()
    for got, clean in zip(results, expected, strict=True):
        assert_array_equal(got, clean)


@pytest.mark.parametrize(
    ("algorithm", "kernel", "stride", "rows", "cols"),
    [
        ("winograd", 3, 1, slice(4, 7), slice(5, 8)),
        ("winograd_2x2", 3, 1, slice(4, 7), slice(5, 8)),
        ("winograd", 5, 1, slice(2, 7), slice(3, 8)),
        ("winograd", 3, 2, slice(2, 4), slice(3, 4)),
    ],
)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_value_that_is_no_number_shows_in_every_output_that_sees_it(
    algorithm, kernel, stride, rows, cols, bad, dtype, layout, rng
):
    case = ConvCase("", 2, 16, 12, 12, 16, kernel=(kernel, kernel), stride=stride, padding=1)
    x, w, b = case.arrays(rng, dtype, "NCHW")
    x[1, 3, 5, 6] = bad
    given = x if layout == "NCHW" else np.ascontiguousarray(x.transpose(0, 2, 3, 1))
    y = jitconv.conv2d(given, w, b, layout=layout, algorithm=algorithm, **case.options)
    y = y if layout == "NCHW" else y.transpose(0, 3, 1, 2)
    assert not np.isfinite(y[1, :, rows, cols]).any()
    assert np.isfinite(y[0]).all()  # another image


@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (5, 1), (3, 2)])
@pytest.mark.parametrize("channels", [32, 128, 512])
def test_float32_error_stays_under_the_documented_bound(channels, kernel, stride, rng):
    case = ConvCase("", 1, channels, 12, 12, channels, kernel=(kernel, kernel), stride=stride, padding=1, bias=False)
    x, w, _ = case.arrays(rng, np.float32)
    y = jitconv.conv2d(x, w, algorithm="winograd", **case.options)
    expected = reference.conv2d(x, w, None, **case.options)
    assert np.abs(y - expected).max() < 3e-5 * np.abs(expected).max()


@pytest.mark.parametrize(
    ("algorithm", "w_shape", "options"),
    [
        ("winograd", (4, 4, 7, 7), {}),
        ("winograd", (4, 4, 3, 5), {}),
        ("winograd", (4, 4, 5, 5), {"stride": 2}),
        ("winograd", (4, 4, 3, 3), {"stride": 3}),
        ("winograd", (4, 4, 3, 3), {"stride": (1, 2)}),
        ("winograd", (4, 4, 3, 3), {"dilation": 2}),
        ("winograd", (4, 2, 3, 3), {"groups": 2}),
        ("winograd_2x2", (4, 4, 5, 5), {}),
        ("winograd_2x2", (4, 4, 3, 3), {"stride": 2}),
    ],
)
def test_what_winograd_cannot_do_is_refused(algorithm, w_shape, options):
    x, w = np.zeros((1, 4, 9, 9), np.float32), np.zeros(w_shape, np.float32)
    with pytest.raises(ValueError, match=f"`algorithm`='{algorithm}' needs a 3x3 kernel of stride 1"):
        jitconv.conv2d(x, w, algorithm=algorithm, **options)


FORMS = transforms.FORWARD_FORMS


def test_a_form_knows_its_place():
    assert [form.number for form in transforms.FORMS] == list(range(len(transforms.FORMS)))


@pytest.mark.parametrize("form", FORMS, ids=lambda form: f"{form.outputs} outputs, {form.taps} taps, step {form.step}")
def test_a_form_convolves_a_line(form, rng):
    stride = form.step // form.outputs
    line, taps = rng.standard_normal(form.extent), rng.standard_normal(form.taps)
    windows = [line[i * stride : i * stride + form.taps] @ taps for i in range(form.outputs)]
    assert_allclose(form.output @ ((form.kernel @ taps) * (form.input @ line)), windows, rtol=1e-12)


@pytest.mark.parametrize("padding", [0, 1])
def test_the_forms_of_backward_data_at_stride_2_spread_a_line(padding, rng):
    form = transforms.STRIDE_2_DATA_ODD if padding else transforms.STRIDE_2_DATA_EVEN
    line, taps = rng.standard_normal(form.extent), rng.standard_normal(form.taps)
    spread = np.zeros(2 * form.extent + 2)
    for i, value in enumerate(line):
        spread[2 * i : 2 * i + 3] += value * taps
    # The first pixel of line is the one before pixel 0 where the padding is even.
    first = 1 if padding else 2
    result = form.output @ ((form.kernel @ taps[::-1]) * (form.input @ line))
    assert_allclose(result, spread[first : first + 8], rtol=1e-12)


@pytest.mark.parametrize("form", FORMS)
def test_a_gradient_at_the_sum_point_is_the_sum_of_its_tile(form):
    assert_array_equal(form.output.T[transforms.SUM_POINT], np.ones(form.outputs))


LARGE = (32, 64, 32, 32), (64, 64, 3, 3)


def chosen(plan):
    return plan.forward.algorithm, plan.backward_data.algorithm, plan.backward_weights.algorithm


def test_auto_chooses_winograd_where_it_pays():
    assert chosen(jitconv.plan_conv2d(*LARGE, padding=1)) == ("winograd",) * 3
    assert chosen(jitconv.plan_conv2d((1, 1, 8, 8), (1, 1, 3, 3))) == ("direct",) * 3


def test_winograd_can_be_turned_off_for_auto():
    with jitconv.without_winograd():
        assert chosen(jitconv.plan_conv2d(*LARGE, padding=1)) == ("direct",) * 3
        assert jitconv.plan_conv2d(*LARGE, padding=1, algorithm="winograd").algorithm == "winograd"
        with jitconv.without_winograd():
            pass
        assert jitconv.plan_conv2d(*LARGE, padding=1).algorithm == "direct"
    assert jitconv.plan_conv2d(*LARGE, padding=1).algorithm == "winograd"


def test_the_environment_turns_winograd_off(monkeypatch):
    monkeypatch.setenv("JITCONV_WINOGRAD", "0")
    assert chosen(jitconv.plan_conv2d(*LARGE, padding=1)) == ("direct",) * 3


def test_a_new_process_gives_the_same_bits(rng):
    """Scratch left over from other calls must not reach a result."""
    program = (
        "import numpy as np, jitconv, zlib\n"
        "rng = np.random.default_rng(5)\n"
        "x, w = rng.standard_normal((2, 17, 9, 9)), rng.standard_normal((20, 17, 3, 3))\n"
        "y = jitconv.conv2d(x, w, padding=1, algorithm='winograd')\n"
        "print(zlib.crc32(y.tobytes()))\n"
    )
    run = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, check=True)
    scope: dict[str, object] = {}
    exec(program.replace("print", "result = "), scope)
    assert int(run.stdout) == scope["result"]
