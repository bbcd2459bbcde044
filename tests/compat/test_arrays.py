"""The dtypes in which the stand-ins compute, and attributes that are computed when asked."""

from __future__ import annotations

import numpy as np
import pytest

import jitconv
from jitconv.compat import arrays

OTHERS = [np.int64, np.uint8, bool, np.float16, np.longdouble]


@pytest.mark.parametrize("kind", [np.float32, np.float64, *OTHERS])
@pytest.mark.parametrize("keep", [False, True])
def test_everything_becomes_float64_but_float32_that_is_kept(kind, keep):
    (a,) = arrays.floats(keep, a=np.ones((2, 3), kind))
    assert a.dtype == (np.float32 if keep and kind is np.float32 else np.float64)


def test_all_arrays_of_a_call_get_one_dtype():
    single, double = np.ones(2, np.float32), np.ones(2)
    assert [a.dtype for a in arrays.floats(True, a=single, b=double)] == [np.float64] * 2
    assert [a.dtype for a in arrays.floats(True, a=single, b=single)] == [np.float32] * 2


def test_what_has_the_dtype_is_not_copied():
    a = np.ones((2, 3)).T
    assert arrays.floats(False, a=a)[0] is a
    assert arrays.converted(np.float64, a=a)[0] is a


def test_lists_are_accepted():
    assert arrays.floats(False, a=[[1, 2], [3, 4]])[0].dtype == np.float64


@pytest.mark.parametrize("value", [np.ones(2, complex), "12", np.array([object()]), [[1, 2], [3]], None])
def test_what_holds_no_numbers_is_refused(value):
    with pytest.raises(TypeError, match="`a` must be an array of"):
        arrays.as_array(value, "a")


def test_none_is_no_array():
    for call in (lambda: arrays.floats(True, a=None), lambda: arrays.converted(np.float64, a=None)):
        with pytest.raises(TypeError, match="`a` must be an array of real numbers, got NoneType"):
            call()


def test_masked_arrays_are_refused():
    with pytest.raises(TypeError, match=r"`a` is a masked array.*a\.filled\(0\)"):
        arrays.floats(False, a=np.ma.ones(2))


def test_preserve_dtype_is_a_boolean():
    with pytest.raises(TypeError, match="`preserve_dtype` must be True or False"):
        arrays.floats("yes", a=np.ones(2))


def test_axes_are_counted():
    assert arrays.with_axes(np.ones((1, 2, 3)), "a", "C, H, W").shape == (1, 2, 3)
    with pytest.raises(ValueError, match=r"`a` must have the axes \(N, C, H, W\), got shape \(2, 3\)"):
        arrays.with_axes(np.ones((2, 3)), "a", "N, C, H, W")


def test_shapes_are_compared():
    assert arrays.with_shape(np.ones((1, 2)), "a", (1, 2)).shape == (1, 2)
    with pytest.raises(ValueError, match=r"`a` must have shape \(3,\), got \(2, 3\)"):
        arrays.with_shape(np.ones((2, 3)), "a", (3,))


@pytest.mark.parametrize("shape", [(3,), (5, 7), (100, 400)])
def test_a_change_of_an_input_is_noticed(shape, rng):
    a = rng.standard_normal(shape)
    kept = arrays.AsItWas(a, a, "a")
    assert kept.unchanged() is a
    a.flat[-1] = np.nan
    with pytest.raises(RuntimeError, match="`a` was changed between the forward and the backward pass"):
        kept.unchanged()


def test_a_copy_may_be_changed_by_whom_it_was_made_from(rng):
    a = rng.standard_normal((6, 4))
    for given, taken in ((a.T, a.T), (a.tolist(), np.array(a)), (a, a.astype(np.float32))):
        kept = arrays.AsItWas(taken, given, "a")
        before = taken.copy()
        a += 1
        np.testing.assert_array_equal(kept.unchanged(), before)
        assert kept.array.flags.c_contiguous


def test_threads_may_change_between_the_passes(rng):
    a = rng.standard_normal((200, 400))
    with jitconv.num_threads(1):
        kept = arrays.AsItWas(a, a, "a")
    with jitconv.num_threads(2):
        assert kept.unchanged() is a


class Square:
    def __init__(self, a):
        self.a = a

    @arrays.WhenAsked
    def area(self):
        """The area."""
        return self.a**2


def test_an_attribute_is_computed_when_asked_and_can_be_replaced():
    square = Square(3)
    assert square.area == 9
    square.a = 4
    assert square.area == 16
    square.area = None
    assert square.area is None
    assert Square(5).area == 25
    assert Square.area.__doc__ == "The area."
