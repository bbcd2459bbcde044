"""What the tables of wrong calls and the fuzzer found, each as a test of its own."""

from __future__ import annotations

import gc
import random
import weakref

import numpy as np
import pytest
from layouts import shape_in, to_layout
from numpy.testing import assert_array_equal
from references import conv as reference
from rounding import assert_within_rounding

import jitconv
from jitconv import validate
from jitconv.layers import Dense
from jitconv.problem import Line, _split
from jitconv.relayout import relayout


@pytest.mark.parametrize("width", [9, 15])
@pytest.mark.parametrize("shape", [(16, 2), (32, 4), (64, 8)])
def test_the_last_pixel_of_a_row_in_groups_of_8_channels(width, shape, layout, dtype, rng):
    """It was left at the bias where four rows or vectors of channels were computed side by side."""
    channels, groups = shape
    x = rng.standard_normal((3, channels, 12, width)).astype(dtype)
    w = rng.standard_normal((channels, 8, 3, 3)).astype(dtype)
    y = jitconv.conv2d(to_layout(x, layout), w, groups=groups, layout=layout, algorithm="direct")
    expected, size = (
        to_layout(reference.conv2d(a, b, groups=groups), layout) for a, b in ((x, w), (np.abs(x), np.abs(w)))
    )
    assert_within_rounding(y, expected, size, 72)


def test_a_read_only_input_lives_as_long_as_what_is_kept_of_it():
    """Kernels get an alias of it without the flag, which a layer may keep until its backward pass."""
    x = np.arange(12.0).reshape(3, 4)
    x.flags.writeable = False
    held, alias = weakref.ref(x), validate.contiguous(x)
    del x
    gc.collect()
    assert held() is not None
    assert_array_equal(alias, np.arange(12.0).reshape(3, 4))
    del alias
    gc.collect()
    assert held() is None


def test_backward_after_a_read_only_input_has_gone(rng):
    layer, x = Dense(300, 4, dtype=np.float64, seed=0), rng.standard_normal((200, 300))
    layer.forward(x.copy())
    dy = rng.standard_normal((200, 4))
    layer.backward(dy)
    expected = layer.gradients["weight"].copy()
    gone = x.copy()
    gone.flags.writeable = False
    layer.forward(gone)
    del gone
    taken = [np.full_like(x, np.nan) for _ in range(4)]  # what would lie in its place
    layer.backward(dy)
    assert_array_equal(layer.gradients["weight"], expected)
    assert len(taken) == 4


@pytest.mark.parametrize("shape", [(2, 1, 4, 5), (2, 3, 1, 1)])
def test_a_change_of_layout_hands_on_the_flag(shape):
    x = np.ones(shape)
    x.flags.writeable = False
    assert not relayout(x, "NHWC").flags.writeable


@pytest.mark.parametrize("algorithm", ["auto", "direct", "im2col"])
@pytest.mark.parametrize(
    ("x_shape", "w_shape", "groups"), [((0, 17, 1, 11), (17, 1, 1, 1), 17), ((0, 17, 5, 7), (70, 17, 3, 3), 1)]
)
def test_no_images_have_a_plan(x_shape, w_shape, groups, algorithm, layout, dtype):
    options = {"groups": groups, "padding": 1, "algorithm": algorithm, "layout": layout, "dtype": dtype}
    plan = jitconv.plan_conv2d(shape_in(x_shape, layout), w_shape, **options)
    assert plan.problem.n == 0
    assert "forward" in str(plan)


@pytest.mark.parametrize("groups", [np.array(2), np.int32(2), np.uint8(2)])
def test_groups_may_be_a_number_of_numpys(groups, rng):
    x, w = rng.standard_normal((1, 4, 5, 5)), rng.standard_normal((6, 2, 3, 3))
    y = jitconv.conv2d(x, w, groups=2)
    assert_array_equal(jitconv.conv2d(x, w, groups=groups), y)
    for got, right in zip(
        jitconv.conv2d_backward(y, x, w, groups=groups), jitconv.conv2d_backward(y, x, w, groups=2), strict=True
    ):
        assert_array_equal(got, right)
    assert_array_equal(jitconv.conv_transpose2d(y, w, groups=groups), jitconv.conv_transpose2d(y, w, groups=2))


def test_no_images_are_unfolded_at_once_whatever_the_padding():
    options = {"kernel": (3, 1), "padding": (1, 2**31 - 1)}
    assert jitconv.im2col(np.ones((0, 5, 10, 11)), **options).shape == (0, 15)
    assert jitconv.col2im(np.ones((0, 15)), (0, 5, 10, 11), **options).shape == (0, 5, 10, 11)


def _split_pixel_by_pixel(line, size, in_stride, out_stride):
    pieces, last = [], None
    for i in range(line.pixels):
        inside = tuple(tap for tap in line.taps if 0 <= i * in_stride + tap[0] < size)
        if last is not None and [tap for _, tap in inside] == [tap for _, tap in last]:
            pieces[-1] = pieces[-1]._replace(pixels=pieces[-1].pixels + 1)
        else:
            moved = tuple((source + i * in_stride, tap) for source, tap in inside)
            pieces.append(Line(line.offset + i * out_stride, 1, moved))
        last = inside
    return pieces


def test_borders_are_split_without_a_walk_over_the_pixels():
    draw = random.Random(0)
    for _ in range(2000):
        taps = tuple((draw.randint(-12, 12), tap) for tap in range(draw.randint(0, 5)))
        line = Line(draw.randint(0, 3), draw.randint(0, 12), taps)
        sizes = draw.randint(0, 10), draw.randint(1, 4), draw.randint(1, 4)
        assert _split(line, *sizes) == _split_pixel_by_pixel(line, *sizes)
    (before, middle, behind) = _split(Line(0, 2**40, ((-1, 0), (0, 1), (1, 2))), 2**40, 1, 1)
    assert (before.pixels, middle.pixels, behind.pixels) == (1, 2**40 - 2, 1)


class Silent:
    """An object that cannot be shown."""

    def __repr__(self):
        raise OSError


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (10**5000, "one of type int that cannot be shown"),
        (Silent(), "one of type Silent that cannot be shown"),
        (np.zeros((3, 4)), r"an array of shape \(3, 4\)"),
        ("two\nlines", r"'two\\nlines'"),
        ([1] * 999, r"\[1, 1, .*\.\.\."),
    ],
    ids=["int", "object", "array", "text", "list"],
)
def test_a_message_quotes_a_value_on_one_line(value, words):
    with pytest.raises((TypeError, ValueError), match=f"`stride` must be .*, got {words}$") as caught:
        jitconv.conv2d(np.ones((1, 1, 3, 3)), np.ones((1, 1, 3, 3)), stride=value)
    assert len(str(caught.value)) < 300
