"""Arguments that the functions of convolution refuse, by what they say."""

from __future__ import annotations

import re

import numpy as np
import pytest

import jitconv

X = np.ones((2, 4, 8, 9), np.float32)
W = np.ones((6, 4, 3, 3), np.float32)
B = np.ones(6, np.float32)
DY = np.ones((2, 6, 6, 7), np.float32)
OUTPUT = "`dy` must have the shape of the output"
EMPTY = "`w` must have at least one channel and one tap"
TOO_LARGE = "more than the padded image of `x`"
NUMBERS = "an int, a pair, ((top, bottom), (left, right))"
FORMS = f'{NUMBERS}, "same" or "valid"'
AXES = "`x` must have the axes NCHW or, for one image, CHW"
ONLY_FLOATS = "but only float32 and float64 are computed: convert it, for example with x.astype(np.float32)"

# What is changed in conv2d(X, W, B), the exception, and how its message starts.
CONV2D = [
    ({"x": [[1.0]]}, TypeError, "`x` must be a NumPy array of float32 or float64, got list"),
    ({"x": X.astype(np.int64)}, TypeError, f"`x` has dtype int64, {ONLY_FLOATS}"),
    ({"x": X.astype(np.float16)}, TypeError, f"`x` has dtype float16, {ONLY_FLOATS}"),
    ({"x": X.astype(np.complex64)}, TypeError, f"`x` has dtype complex64, {ONLY_FLOATS}"),
    ({"x": X.astype(">f4")}, TypeError, f"`x` has dtype >f4, {ONLY_FLOATS}"),
    ({"x": X.astype(object)}, TypeError, f"`x` has dtype object, {ONLY_FLOATS}"),
    ({"x": np.ma.masked_array(X)}, TypeError, "`x` is a masked array, whose mask would be ignored"),
    ({"x": X[0, 0]}, ValueError, f"{AXES}, got 2 dimensions (8, 9)"),
    ({"x": X[0, 0, 0]}, ValueError, f"{AXES}, got 1 dimension (9,)"),
    ({"x": X[None]}, ValueError, f"{AXES}, got 5 dimensions"),
    ({"x": X, "layout": "NHWC"}, ValueError, "`w` has 4 input channels, but `x` has 9 (groups=1)"),
    ({"w": W.astype(np.float64)}, TypeError, "`w` has dtype float64, but the other arrays have float32"),
    ({"w": W.tolist()}, TypeError, "`w` must be a NumPy array of float32 or float64, got list"),
    ({"w": W[0]}, ValueError, "`w` must have the axes (F, C/groups, KH, KW), got (4, 3, 3)"),
    ({"w": W[:, :3]}, ValueError, "`w` has 3 input channels, but `x` has 4 (groups=1)"),
    ({"groups": 2}, ValueError, "`w` has 4 input channels, but `x` has 4 (groups=2)"),
    ({"w": W[:0]}, ValueError, f"{EMPTY}, got shape (0, 4, 3, 3)"),
    ({"w": W[:, :, :0]}, ValueError, f"{EMPTY}, got shape (6, 4, 0, 3)"),
    ({"groups": 3}, ValueError, "`groups` must divide the channels of `x`, got 3 for 4"),
    ({"groups": 4}, ValueError, "`groups` must divide the output channels of `w`, got 4 for 6"),
    ({"groups": 0}, ValueError, "`groups` must be an integer of at least 1, got 0"),
    ({"groups": 1.0}, TypeError, "`groups` must be an integer of at least 1, got 1.0"),
    ({"b": B[:5]}, ValueError, "`b` must have shape (6,) (one for each output channel), got (5,)"),
    ({"b": B[:, None]}, ValueError, "`b` must have shape (6,) (one for each output channel), got (6, 1)"),
    ({"b": B.astype(np.float64)}, TypeError, "`b` has dtype float64, but the other arrays have float32"),
    ({"b": 0.5}, TypeError, "`b` must be a NumPy array of float32 or float64, got float"),
    ({"stride": 0}, ValueError, "`stride` must be an integer of at least 1, got 0"),
    ({"stride": (1, -2)}, ValueError, "`stride` must be an integer of at least 1, got -2"),
    ({"stride": 1.5}, TypeError, "`stride` must be an integer of at least 1, got 1.5"),
    ({"stride": True}, TypeError, "`stride` must be an integer of at least 1, got True"),
    ({"stride": (1, 1, 1)}, ValueError, "`stride` must be an int or a pair of ints, got (1, 1, 1)"),
    ({"stride": "2"}, TypeError, "`stride` must be an integer of at least 1, got '2'"),
    ({"stride": 2**31}, ValueError, "`stride` must be below 2**31, got 2147483648"),
    ({"dilation": 0}, ValueError, "`dilation` must be an integer of at least 1, got 0"),
    ({"padding": -1}, ValueError, "`padding` must be an integer of at least 0, got -1"),
    ({"padding": (1, 1.0)}, TypeError, "`padding` must be an integer of at least 0, got 1.0"),
    ({"padding": ((1, 1), 1)}, ValueError, f"`padding` must be {FORMS}, got ((1, 1), 1)"),
    ({"padding": (1, 1, 1, 1)}, ValueError, f"`padding` must be {FORMS}, got (1, 1, 1, 1)"),
    ({"padding": "full"}, ValueError, f"`padding` must be {FORMS}, got 'full'"),
    ({"padding": "same", "stride": 2}, ValueError, "`padding`='same' needs stride 1, got stride (2, 2)"),
    ({"dilation": 4}, ValueError, f"`kernel` spans 9x9 pixels (dilation (4, 4)), {TOO_LARGE}, 8x9"),
    ({"x": X[:, :, :2]}, ValueError, f"`kernel` spans 3x3 pixels (dilation (1, 1)), {TOO_LARGE}, 2x9"),
    ({"padding": 2**30}, ValueError, "`y` would have shape (2, 6, 2147483654, 2147483655)"),
    ({"layout": "nchw"}, ValueError, "`layout` must be one of 'NCHW', 'NHWC', got 'nchw'"),
    ({"layout": None}, ValueError, "`layout` must be one of 'NCHW', 'NHWC', got None"),
    (
        {"algorithm": "fft"},
        ValueError,
        "`algorithm` must be one of 'auto', 'direct', 'im2col', 'winograd', 'winograd_2x2', got 'fft'",
    ),
    ({"activation": "tanh"}, ValueError, "`activation` must be one of None, 'relu', got 'tanh'"),
    ({"out": DY.tolist()}, TypeError, "`out` must be a NumPy array, got list"),
    ({"out": DY.astype(np.float64)}, TypeError, "`out` has dtype float64, but the result has float32"),
    ({"out": DY[:1]}, ValueError, "`out` must have shape (2, 6, 6, 7), got (1, 6, 6, 7)"),
    ({"out": np.broadcast_to(B[0], DY.shape)}, ValueError, "`out` is read-only"),
]


def assert_refuses(function, given, error, message):
    before = {name: value.tobytes() for name, value in given.items() if isinstance(value, np.ndarray)}
    with pytest.raises(error, match="^" + re.escape(message)):
        function(**given)
    assert {name: given[name].tobytes() for name in before} == before


@pytest.mark.parametrize(("changed", "error", "message"), CONV2D, ids=[message for _, _, message in CONV2D])
def test_conv2d(changed, error, message):
    assert_refuses(jitconv.conv2d, {"x": X, "w": W, "b": B} | changed, error, message)


@pytest.mark.parametrize("shared", ["x", "w", "b"])
def test_out_must_not_be_an_input(shared):
    memory = {"x": X.copy(), "w": np.ones((4, 4, 1, 1), np.float32), "b": np.ones(4, np.float32)}
    out = memory["x"]
    if shared != "x":
        whole = np.ones(X.size + memory[shared].size, np.float32)
        out = whole[: X.size].reshape(X.shape)
        memory[shared] = whole[X.size - 1 :][: memory[shared].size].reshape(memory[shared].shape)
    assert_refuses(jitconv.conv2d, memory | {"out": out}, ValueError, "`out` shares memory with an input")


IN_COMMON = [
    "x must be",
    "x has dtype",
    "w has",
    "groups must",
    "stride must",
    "dilation must",
    "padding must",
    "layout must",
    "kernel spans",
]


def _is_common(message):
    return any(message.replace("`", "").startswith(start) for start in IN_COMMON)


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [row for row in CONV2D if _is_common(row[2])],
    ids=[message for _, _, message in CONV2D if _is_common(message)],
)
def test_conv2d_backward_refuses_what_conv2d_refuses(changed, error, message):
    assert_refuses(jitconv.conv2d_backward, {"dy": DY, "x": X, "w": W} | changed, error, message)


BACKWARD = [
    ({"dy": DY[:, :, :5]}, ValueError, f"{OUTPUT}, (2, 6, 6, 7), got (2, 6, 5, 7)"),
    ({"dy": DY[0]}, ValueError, f"{OUTPUT}, (2, 6, 6, 7), got (6, 6, 7)"),
    ({"dy": DY[:1], "x": X[0]}, ValueError, f"{OUTPUT}, (6, 6, 7), got (1, 6, 6, 7)"),
    ({"dy": DY.astype(np.float64)}, TypeError, "`dy` has dtype float64, but the other arrays have float32"),
    ({"dy": 1.0}, TypeError, "`dy` must be a NumPy array of float32 or float64, got float"),
    ({"needs": (True, True)}, ValueError, "`needs` must be three booleans, for dx, dw and db, got"),
    ({"needs": True}, ValueError, "`needs` must be three booleans, for dx, dw and db, got True"),
    ({"needs": (1, 0, 1)}, TypeError, "`needs` must be True or False, got 1"),
    (
        {"algorithm": "winograd2"},
        ValueError,
        "`algorithm` must be one of 'auto', 'direct', 'im2col', 'winograd', 'winograd_2x2', got",
    ),
]


@pytest.mark.parametrize(("changed", "error", "message"), BACKWARD, ids=[row[2] for row in BACKWARD])
def test_conv2d_backward(changed, error, message):
    assert_refuses(jitconv.conv2d_backward, {"dy": DY, "x": X, "w": W} | changed, error, message)


# conv_transpose2d takes w as (C, F/groups, KH, KW): from the 6 channels of DY to the 4 of X.
TRANSPOSE = [
    ({"x": DY.astype(np.int32)}, TypeError, "`x` has dtype int32, but only float32 and float64 are computed"),
    ({"x": DY[:, :5]}, ValueError, "`w` has 6 input channels, but `x` has 5"),
    ({"w": W[0]}, ValueError, "`w` must have the axes (C, F/groups, KH, KW), got (4, 3, 3)"),
    ({"w": W[:, :0]}, ValueError, f"{EMPTY}, got shape (6, 0, 3, 3)"),
    ({"groups": 4}, ValueError, "`groups` must divide the channels of `x`, got 4 for 6"),
    ({"b": B}, ValueError, "`b` must have shape (4,) (one for each output channel), got (6,)"),
    ({"padding": "same"}, ValueError, f"`padding` must be {NUMBERS}, got 'same'"),
    ({"padding": 4}, ValueError, "`padding` ((4, 4), (4, 4)) leaves nothing of the output"),
    ({"output_padding": 1}, ValueError, "`output_padding` must be less than `stride` or `dilation`"),
    ({"output_padding": -1}, ValueError, "`output_padding` must be an integer of at least 0, got -1"),
    ({"x": DY[:, :, :0]}, ValueError, "`x` has no pixels: its images are 0x7"),
]


@pytest.mark.parametrize(("changed", "error", "message"), TRANSPOSE, ids=[row[2] for row in TRANSPOSE])
def test_conv_transpose2d(changed, error, message):
    assert_refuses(jitconv.conv_transpose2d, {"x": DY, "w": W} | changed, error, message)
    if "b" not in changed:
        given = {"dy": X, "x": DY, "w": W} | changed
        assert_refuses(jitconv.conv_transpose2d_backward, given, error, message)


def test_conv_transpose2d_backward_needs_a_gradient_of_the_output():
    message = f"{OUTPUT}, (2, 4, 8, 9), got (2, 4, 7, 9)"
    assert_refuses(jitconv.conv_transpose2d_backward, {"dy": X[:, :, :7], "x": DY, "w": W}, ValueError, message)


PLAN = [
    ({"x_shape": X}, ValueError, "`x_shape` must be a tuple of the sizes NCHW or CHW, got"),
    ({"x_shape": (8, 9)}, ValueError, "`x_shape` must be a tuple of the sizes NCHW or CHW, got (8, 9)"),
    ({"x_shape": (-1, 4, 8, 9)}, ValueError, "`x_shape` must be an integer of at least 0, got -1"),
    ({"w_shape": (6, 4, 3)}, ValueError, "`w_shape` must have the axes (F, C/groups, KH, KW), got (6, 4, 3)"),
    ({"w_shape": (6, 5, 3, 3)}, ValueError, "`w_shape` has 5 input channels, but `x_shape` has 4 (groups=1)"),
    ({"dtype": np.int32}, TypeError, "`dtype` must be float32 or float64, got"),
    ({"dtype": None}, TypeError, "`dtype` must be float32 or float64, got None"),
    (
        {"algorithm": "fft"},
        ValueError,
        "`algorithm` must be one of 'auto', 'direct', 'im2col', 'winograd', 'winograd_2x2', got 'fft'",
    ),
]


@pytest.mark.parametrize(("changed", "error", "message"), PLAN, ids=[row[2] for row in PLAN])
def test_plan_conv2d(changed, error, message):
    given = {"x_shape": X.shape, "w_shape": W.shape, "dtype": np.float32} | changed
    assert_refuses(jitconv.plan_conv2d, given, error, message)
