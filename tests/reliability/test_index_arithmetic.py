"""Sizes, offsets and ranges beyond 2**31 and 2**32: the functions that compute them agree with exact integers."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import jitconv
from jitconv import cost, geometry, planes, problem, records, shapes
from jitconv.kernels import correlate, windows
from jitconv.kernels.windows import Window
from jitconv.problem import ConvProblem
from jitconv.shapes import Activation

EDGES = (2**31, 2**32, 2**33)
totals = st.sampled_from(EDGES).flatmap(lambda edge: st.integers(edge - 9, edge + 9)) | st.integers(0, 2**40)
SMALL = st.integers(1, 9)


def assert_exact(name, *arguments):
    """Compiled to int64 arithmetic a part of kernels returns what it does with Python's integers."""
    function = getattr(windows, name)
    exact = function.py_func(*arguments)
    assert function(*arguments) == exact
    return exact


@given(total=totals, parts=st.integers(1, 40))
def test_shares_cover_what_they_share(total, parts):
    shares = [assert_exact("share", part, parts, total) for part in range(parts)]
    assert [first for first, _ in shares] == [0, *(past for _, past in shares[:-1])]
    assert shares[-1][1] == total
    assert max(past - first for first, past in shares) - min(past - first for first, past in shares) <= 1


@given(start=totals, size=totals, kernel=SMALL, dilation=SMALL, sign=st.sampled_from((-1, 1)))
def test_taps_inside_an_axis(start, size, kernel, dilation, sign):
    assert_exact("taps_inside", sign * start, size, kernel, dilation)


@given(size=totals, kernel=SMALL, stride=SMALL, before=SMALL, dilation=SMALL)
def test_windows_along_a_long_axis(size, kernel, stride, before, dilation):
    outputs = max(0, (size + 2 * before - (kernel - 1) * dilation - 1) // stride + 1)
    first, past = assert_exact("full_windows", size, outputs, kernel, stride, before, dilation)
    if first < past:
        assert first * stride - before >= 0
        assert (past - 1) * stride - before + (kernel - 1) * dilation < size
    assert_exact("windows_over", size, outputs, kernel, stride, dilation)
    assert_exact("divisor", size - 3, size, kernel, size + before, 1)
    assert_exact("divisor", size - 3, size, kernel, size + before, 0)


@given(h=totals, first=totals, count=SMALL, kernel=SMALL, stride=SMALL, top=SMALL)
def test_rows_of_windows_that_touch_rows(h, first, count, kernel, stride, top):
    outputs = max(1, (h + 2 * top - kernel) // stride + 1)
    window = Window.of((h, 5), (outputs, 5), (kernel, 1), (stride, 1), ((top, top), (0, 0)), (1, 1))
    low, high = assert_exact("outputs_touching", first, first + count, window)
    for row in {*range(max(low - 2, 0), min(low + 2, outputs)), *range(max(high - 2, 0), min(high + 2, outputs))}:
        begin = row * stride - top
        assert (low <= row < high) == (begin < first + count and begin + kernel > first)


@given(begin=totals, count=st.integers(1, 2**33), first=totals, length=totals, stride=SMALL)
def test_positions_of_a_run(begin, count, first, length, stride):
    skipped, taken = assert_exact("run_between", (begin, count), stride, first, first + length)
    place = begin + skipped * stride
    assert skipped == count or place >= first
    assert taken == 0 or place + (taken - 1) * stride < first + length


@pytest.mark.parametrize("edge", EDGES)
def test_offsets_in_an_image_of_a_window(edge):
    window = Window.of((edge // 7, 7), (1, 1), (3, 3), (1, 1), ((0, 0), (0, 0)), (edge // 30, 1))
    assert window.tap_offsets().tolist() == [[k * (edge // 30) * 7 + tap for tap in range(3)] for k in range(3)]


@given(size=totals, kernel=SMALL, stride=SMALL, padding=st.tuples(SMALL, SMALL), dilation=SMALL, ceil=st.booleans())
def test_sizes_of_results(size, kernel, stride, padding, dilation, ceil):
    span = size + sum(padding) - (kernel - 1) * dilation - 1
    outputs = shapes.conv_output_size(size, kernel, stride, padding, dilation)
    assert (outputs - 1) * stride <= span < outputs * stride
    assert shapes.conv_transpose_output_size(outputs, kernel, stride, padding, span % stride, dilation) == size
    if max(padding) <= kernel // 2 and size:  # those that poolings take
        pooled = shapes.pool_output_size(size, kernel, stride, padding, dilation, ceil)
        assert outputs <= pooled <= outputs + ceil


@pytest.mark.parametrize("rows", [1, 2, 12, 97, 360, 1000])
def test_strips_are_those_of_every_number_of_pieces(rows):
    assert [*cost.heights(rows)] == sorted({-(-rows // pieces) for pieces in range(1, rows + 1)}, reverse=True)


def test_strips_of_many_rows():
    heights = [*cost.heights(2**33 + 1)]
    assert (heights[0], heights[-1]) == (2**33 + 1, 1)
    assert len(heights) < cost.TALL + 32
    assert all(high > low for high, low in itertools.pairwise(heights))


@pytest.mark.parametrize("numbers", [(1, 1), (12, 18), (97, 1), (360, 360), (1, 2**10)])
def test_divisors_of_a_product(numbers):
    product = numbers[0] * numbers[1]
    assert planes._divisors(numbers) == {n for n in range(1, product + 1) if product % n == 0}


@given(pixels=st.integers(1, 40), size=st.integers(1, 40), kernel=SMALL, stride=SMALL, before=SMALL, dilation=SMALL)
def test_lines_are_cut_where_taps_enter_and_leave(pixels, size, kernel, stride, before, dilation):
    (line,) = problem.forward_lines(pixels, kernel, before, dilation)
    found = []
    for piece in problem._split(line, size, stride, 1):
        assert piece.pixels > 0
        for i in range(piece.pixels):
            assert piece.offset + i == len(found)
            found.append([(source + i * stride, tap) for source, tap in piece.taps])
    assert found == [
        [(source + i * stride, tap) for source, tap in line.taps if 0 <= source + i * stride < size]
        for i in range(pixels)
    ]


@pytest.mark.parametrize("pitch", EDGES)
def test_offsets_of_pixels(pitch):
    offsets = geometry._pixel_offsets(3, 4, 5, 4 * pitch + 8, pitch + 4, 12)
    exact = [i * (4 * pitch + 8) + j * (pitch + 4) + 12 * k for i in range(3) for j in range(4) for k in range(5)]
    assert offsets.tolist() == exact


@pytest.mark.parametrize("value", EDGES)
def test_records_and_tables_hold_what_they_are_given(value):
    kind = np.dtype([("first", np.int64), ("second", np.int64)])
    assert records.record(kind, {"first": value + 1, "second": -value}).tolist() == [(value + 1, -value)]
    tables = records.Tables(2)
    places = tables.add([value, -value]), tables.add(np.arange(3) * value)
    assert places == (2, 4)
    assert tables.array().tolist() == [0, 0, value, -value, 0, value, 2 * value]
    scratch = records.Scratch()
    assert [scratch.add(value + 1), scratch.add(1), scratch.size] == [0, value + 64, value + 128]
    with pytest.raises(OverflowError):
        tables.add([2**63])


# By their bytes more than 2**32 in all, and in an image; 150 MB short of 2**33, and beyond it.
HUGE = {"batch": (70_000, 3, 224, 224), "images": (40, 3, 20_000, 20_000), "image": (1, 3, 50_000, 50_000)}


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("case", HUGE)
def test_geometry_of_images_beyond_32_bits(case, layout):
    n, c, h, w = HUGE[case]
    for side, stride in ((3, 1), (2, 2), (1, 1)):
        size, none = ((h - side) // stride + 1, (w - side) // stride + 1), ((0, 0), (0, 0))
        p = ConvProblem(n, c, h, w, 8, (side, side), (stride, stride), none, (1, 1), 1, size, layout, "float32")
        call = geometry.forward_call(p, "im2col", 2, False)
        made = dict(zip(correlate.FIELDS, call.correlate._constants[2][0].tolist(), strict=True))
        assert (made["n"], made["c"], made["h"], made["w"]) == (n, c, h, w)
        if layout == "NHWC":  # read where it lies
            assert made["source_in_place"]
            pixel = 4 * c
            assert (made["pixel_pitch"], made["row_pitch"], made["image_pitch"]) == (pixel, w * pixel, h * w * pixel)
        tables = call.correlate._constants[3]
        begin, pixels = int(tables[correlate.P_A_TABLE]), made["images"] * made["rows"] * p.output.w
        last = (made["images"] - 1) * made["image_pitch"] + (made["rows"] - 1) * stride * made["row_pitch"]
        assert tables[begin : begin + pixels].max() == last + (p.output.w - 1) * stride * made["pixel_pitch"]
        assert tables.min() >= 0


def test_a_plan_of_more_pixels_than_any_memory_holds_is_made():
    plan = jitconv.plan_conv2d((1, 2, 2**27, 2**27), (3, 2, 3, 3), padding=1)
    assert plan.problem.output == Activation(1, 3, 2**27, 2**27)
    assert plan.forward.rows * plan.forward.units >= 2**27
