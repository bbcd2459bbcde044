"""Wrong calls of the functions of `jitconv`."""

from __future__ import annotations

import threading

import numpy as np
from numpy.lib.stride_tricks import as_strided

import jitconv

from .rows import DY, B, W, X, not_floats, rows

NAN, INF = float("nan"), float("inf")
HUGE = 10**5000  # more digits than Python writes
OUTPUT = "`dy` must have the shape of the output"
AXES = "`x` must have the axes NCHW or, for one image, CHW"
TOO_LARGE = "more than the padded image of `x`"
EMPTY = "`w` must have at least one channel and one tap"
ALGORITHMS = "`algorithm` must be one of 'auto', 'direct', 'im2col', 'winograd', 'winograd_2x2', got"
LAYOUTS = "`layout` must be one of 'NCHW', 'NHWC', got"
POOLED = np.ones((2, 4, 4, 4), np.float32)
ARGMAX = np.zeros((2, 4, 4, 4), np.uint8)
PIXEL = np.ones((2, 4, 1, 1), np.float32)
COLUMNS = np.ones((2 * 6 * 7, 4 * 9), np.float32)

# A window's options, wrong in the same ways wherever there are any.
STRIDES = [
    ({"stride": 0}, ValueError, "`stride` must be an integer of at least 1, got 0"),
    ({"stride": -1}, ValueError, "`stride` must be an integer of at least 1, got -1"),
    ({"stride": (2, 0)}, ValueError, "`stride` must be an integer of at least 1, got 0"),
    ({"stride": NAN}, TypeError, "`stride` must be an integer of at least 1, got nan"),
    ({"stride": 2.0}, TypeError, "`stride` must be an integer of at least 1, got 2.0"),
    ({"stride": True}, TypeError, "`stride` must be an integer of at least 1, got True"),
    ({"stride": (1, 2, 3)}, ValueError, "`stride` must be an int or a pair of ints, got (1, 2, 3)"),
    ({"stride": np.array([2, 2])}, TypeError, "`stride` must be an integer of at least 1, got an array of shape (2,)"),
    ({"stride": HUGE}, ValueError, "`stride` must be below 2**31, got one of type int that cannot be shown"),
]
PADDINGS = [
    ({"padding": -1}, ValueError, "`padding` must be an integer of at least 0, got -1"),
    ({"padding": INF}, TypeError, "`padding` must be an integer of at least 0, got inf"),
    ({"padding": (1, 1, 1, 1)}, ValueError, "`padding` must be an int, a pair, ((top, bottom), (left, right))"),
    ({"padding": ((1, 1), 1)}, ValueError, "`padding` must be an int, a pair, ((top, bottom), (left, right))"),
    ({"padding": ((0, -1), (0, 0))}, ValueError, "`padding` must be an integer of at least 0, got -1"),
    ({"padding": "reflect"}, ValueError, "`padding` must be an int, a pair, ((top, bottom), (left, right))"),
    ({"padding": None}, TypeError, "`padding` must be an integer of at least 0, got None"),
]
WORDS = [
    ({"layout": "CHWN"}, ValueError, f"{LAYOUTS} 'CHWN'"),
    ({"layout": "nchw"}, ValueError, f"{LAYOUTS} 'nchw'"),
    ({"layout": None}, ValueError, f"{LAYOUTS} None"),
    ({"layout": 1}, ValueError, f"{LAYOUTS} 1"),
]
DILATIONS = [
    ({"dilation": 0}, ValueError, "`dilation` must be an integer of at least 1, got 0"),
    ({"dilation": "2"}, TypeError, "`dilation` must be an integer of at least 1, got '2'"),
]
WEIGHTS = [
    ({"w": W[0]}, ValueError, "`w` must have the axes (F, C/groups, KH, KW), got (4, 3, 3)"),
    ({"w": W[:, :3]}, ValueError, "`w` has 3 input channels, but `x` has 4 (groups=1)"),
    ({"w": W[:, :, :, :0]}, ValueError, f"{EMPTY}, got shape (6, 4, 3, 0)"),
    ({"w": W.astype(np.float64)}, TypeError, "`w` has dtype float64, but the other arrays have float32"),
    ({"groups": 3}, ValueError, "`groups` must divide the channels of `x`, got 3 for 4"),
    ({"groups": 2}, ValueError, "`w` has 4 input channels, but `x` has 4 (groups=2)"),
    ({"groups": -1}, ValueError, "`groups` must be an integer of at least 1, got -1"),
    ({"groups": None}, TypeError, "`groups` must be an integer of at least 1, got None"),
]
SHAPES = [
    ({"x": X[0, 0]}, ValueError, f"{AXES}, got 2 dimensions (8, 9)"),
    ({"x": X[np.newaxis]}, ValueError, f"{AXES}, got 5 dimensions"),
    ({"x": np.ones((), np.float32)}, ValueError, f"{AXES}, got 0 dimensions ()"),
    ({"x": X[:, :, :0], "padding": 2}, ValueError, "`x` has images of 0x9 pixels, but at least one pixel is needed"),
    ({"x": X[:, :, :2]}, ValueError, f"`kernel` spans 3x3 pixels (dilation (1, 1)), {TOO_LARGE}, 2x9"),
    ({"dilation": 2**31 - 1}, ValueError, "`kernel` spans 4294967295x4294967295 pixels"),
]
OVERLAPPING = as_strided(np.ones(60, np.float32), DY.shape, (4, 4, 4, 4))

CONV2D = rows(
    "jitconv.conv2d",
    jitconv.conv2d,
    {"x": X, "w": W, "b": B},
    *not_floats("x", X),
    *not_floats("w", W),
    *not_floats("b", B),
    *SHAPES,
    *WEIGHTS,
    *STRIDES,
    *PADDINGS,
    *WORDS,
    *DILATIONS,
    ({"b": B[:5]}, ValueError, "`b` must have shape (6,) (one for each output channel), got (5,)"),
    ({"b": B[:, np.newaxis]}, ValueError, "`b` must have shape (6,) (one for each output channel), got (6, 1)"),
    ({"b": B.astype(np.float64)}, TypeError, "`b` has dtype float64, but the other arrays have float32"),
    ({"padding": 2**30}, ValueError, "`y` would have shape (2, 6, 2147483654, 2147483655)"),
    (
        {"padding": 2**31 - 1, "stride": 2**31 - 1},
        ValueError,
        "`padding` ((2147483647, 2147483647), (2147483647, 2147483647)) makes images of 4294967302x4294967303 pixels",
    ),
    ({"padding": "same", "stride": 2}, ValueError, "`padding`='same' needs stride 1, got stride (2, 2)"),
    ({"layout": "NHWC"}, ValueError, "`w` has 4 input channels, but `x` has 9 (groups=1)"),
    ({"algorithm": "fft"}, ValueError, f"{ALGORITHMS} 'fft'"),
    ({"algorithm": "winograd", "stride": 3}, ValueError, "`algorithm`='winograd' needs a 3x3 kernel of stride 1 or 2"),
    ({"activation": "tanh"}, ValueError, "`activation` must be one of None, 'relu', got 'tanh'"),
    ({"activation": X}, ValueError, "`activation` must be one of None, 'relu', got an array of shape (2, 4, 8, 9)"),
    ({"kept": {}}, TypeError, "`kept` must be a jitconv.KeptWeights, got dict"),
    ({"out": [1]}, TypeError, "`out` must be a NumPy array, got list"),
    ({"out": DY.astype(np.float64)}, TypeError, "`out` has dtype float64, but the result has float32"),
    ({"out": DY.astype(">f4")}, TypeError, "`out` has dtype >f4, but the result has float32"),
    ({"out": DY[0]}, ValueError, "`out` must have shape (2, 6, 6, 7), got (6, 6, 7)"),
    ({"out": np.ma.masked_array(DY)}, TypeError, "`out` must be a NumPy array, got MaskedArray"),
    ({"out": np.broadcast_to(DY[:1], DY.shape)}, ValueError, "`out` is read-only"),
    ({"out": OVERLAPPING}, ValueError, "`out` overlaps itself"),
)
KEPT = rows(
    "jitconv.KeptWeights",
    jitconv.conv2d,
    {"x": X, "w": W},
    ({"kept": jitconv.KeptWeights}, TypeError, "`kept` must be a jitconv.KeptWeights, got type"),
    ({"kept": True}, TypeError, "`kept` must be a jitconv.KeptWeights, got bool"),
)
CONV2D_BACKWARD = rows(
    "jitconv.conv2d_backward",
    jitconv.conv2d_backward,
    {"dy": DY, "x": X, "w": W},
    *not_floats("dy", DY),
    *not_floats("x", X),
    *not_floats("w", W),
    *SHAPES,
    *WEIGHTS,
    *STRIDES,
    *PADDINGS,
    *WORDS,
    *DILATIONS,
    ({"dy": DY[..., :6]}, ValueError, f"{OUTPUT}, (2, 6, 6, 7), got (2, 6, 6, 6)"),
    ({"dy": DY[0]}, ValueError, f"{OUTPUT}, (2, 6, 6, 7), got (6, 6, 7)"),
    ({"dy": DY.astype(np.float64)}, TypeError, "`dy` has dtype float64, but the other arrays have float32"),
    ({"needs": (True, True)}, ValueError, "`needs` must be three booleans, for dx, dw and db, got (True, True)"),
    ({"needs": (1, 1, 1)}, TypeError, "`needs` must be True or False, got 1"),
    ({"needs": "all"}, ValueError, "`needs` must be three booleans, for dx, dw and db, got 'all'"),
    ({"algorithm": 3}, ValueError, f"{ALGORITHMS} 3"),
)
NUMBERS = "`padding` must be an int, a pair, ((top, bottom), (left, right)), got 'same'"
SPREAD_WINDOW = [
    ({"x": DY[:, :5]}, ValueError, "`w` has 6 input channels, but `x` has 5"),
    ({"x": DY[:, :, :0]}, ValueError, "`x` has no pixels: its images are 0x7"),
    ({"w": W[0]}, ValueError, "`w` must have the axes (C, F/groups, KH, KW), got (4, 3, 3)"),
    ({"w": W[:, :0]}, ValueError, f"{EMPTY}, got shape (6, 0, 3, 3)"),
    ({"groups": 4}, ValueError, "`groups` must divide the channels of `x`, got 4 for 6"),
    ({"padding": "same"}, ValueError, NUMBERS),
    ({"padding": 4}, ValueError, "`padding` ((4, 4), (4, 4)) leaves nothing of the output, which would be 0x1"),
    ({"output_padding": 1}, ValueError, "`output_padding` must be less than `stride` or `dilation`, got (1, 1)"),
    ({"output_padding": -1}, ValueError, "`output_padding` must be an integer of at least 0, got -1"),
    ({"output_padding": NAN}, TypeError, "`output_padding` must be an integer of at least 0, got nan"),
    ({"stride": 2**31 - 1}, ValueError, "`y` would have shape (2, 4, 10737418238, 12884901885)"),
]
CONV_TRANSPOSE2D = rows(
    "jitconv.conv_transpose2d",
    jitconv.conv_transpose2d,
    {"x": DY, "w": W, "b": np.ones(4, np.float32)},
    *not_floats("x", DY),
    *not_floats("w", W),
    *not_floats("b", np.ones(4, np.float32)),
    *SPREAD_WINDOW,
    *STRIDES,
    *PADDINGS,
    *WORDS,
    *DILATIONS,
    ({"b": B}, ValueError, "`b` must have shape (4,) (one for each output channel), got (6,)"),
)
CONV_TRANSPOSE2D_BACKWARD = rows(
    "jitconv.conv_transpose2d_backward",
    jitconv.conv_transpose2d_backward,
    {"dy": X, "x": DY, "w": W},
    *not_floats("dy", X),
    *not_floats("x", DY),
    *SPREAD_WINDOW,
    *WORDS,
    ({"dy": X[:, :, 1:]}, ValueError, f"{OUTPUT}, (2, 4, 8, 9), got (2, 4, 7, 9)"),
    ({"needs": None}, ValueError, "`needs` must be three booleans, for dx, dw and db, got None"),
)
PLAN = rows(
    "jitconv.plan_conv2d",
    jitconv.plan_conv2d,
    {"x_shape": X.shape, "w_shape": W.shape},
    *STRIDES,
    *PADDINGS,
    *WORDS,
    *DILATIONS,
    ({"x_shape": X}, ValueError, "`x_shape` must be a tuple of the sizes NCHW or CHW, got an array of shape"),
    ({"x_shape": (8, 9)}, ValueError, "`x_shape` must be a tuple of the sizes NCHW or CHW, got (8, 9)"),
    ({"x_shape": (2, 4, -8, 9)}, ValueError, "`x_shape` must be an integer of at least 0, got -8"),
    ({"x_shape": (2, 4, 8.0, 9)}, TypeError, "`x_shape` must be an integer of at least 0, got 8.0"),
    ({"x_shape": (2**31 - 1, 4, 2**31 - 1, 9)}, ValueError, "`x_shape` is too large for an array"),
    ({"w_shape": (2**31 - 1, 4, 2**31 - 1, 9)}, ValueError, "`w_shape` is too large for an array"),
    ({"w_shape": None}, ValueError, "`w_shape` must have the axes (F, C/groups, KH, KW), got None"),
    ({"w_shape": (6, 5, 3, 3)}, ValueError, "`w_shape` has 5 input channels, but `x_shape` has 4 (groups=1)"),
    ({"w_shape": (0, 4, 3, 3)}, ValueError, "`w_shape` must have at least one channel and one tap"),
    ({"groups": 4}, ValueError, "`groups` must divide the output channels of `w_shape`, got 4 for 6"),
    ({"dtype": np.float16}, TypeError, "`dtype` must be float32 or float64, got"),
    ({"dtype": ">f8"}, TypeError, "`dtype` must be float32 or float64, got '>f8'"),
    ({"dtype": "(2,"}, TypeError, "`dtype` must be float32 or float64, got '(2,'"),
    ({"dtype": None}, TypeError, "`dtype` must be float32 or float64, got None"),
    ({"algorithm": "winograd", "w_shape": (6, 4, 3, 5)}, ValueError, "`algorithm`='winograd' needs a 3x3 kernel"),
)

HALF = "`padding` of a pooling must be at most half the kernel on each side"
POOL_WINDOW = [
    *STRIDES,
    *WORDS,
    ({"kernel": 0}, ValueError, "`kernel` must be an integer of at least 1, got 0"),
    ({"kernel": None}, TypeError, "`kernel` must be an integer of at least 1, got None"),
    ({"kernel": (2, 2, 2)}, ValueError, "`kernel` must be an int or a pair of ints, got (2, 2, 2)"),
    ({"kernel": 10, "stride": 1}, ValueError, "`kernel` spans 10x10 pixels (dilation (1, 1)), more than the padded"),
    (
        {"kernel": (2**21, 2), "ceil_mode": True},
        ValueError,
        "`kernel` (2097152, 2) is larger than the padded image",
    ),
    (
        {"kernel": 2**31 - 1, "ceil_mode": True},
        ValueError,
        "`kernel` has 2147483647x2147483647 pixels, but a window must",
    ),
    ({"padding": 2}, ValueError, f"{HALF}, 1 above and below and 1 left and right of a 2x2 kernel, got 2"),
    ({"padding": -1}, ValueError, "`padding` must be an integer of at least 0, got -1"),
    ({"padding": "same"}, ValueError, NUMBERS),
    ({"ceil_mode": 1}, TypeError, "`ceil_mode` must be True or False, got 1"),
    ({"ceil_mode": None}, TypeError, "`ceil_mode` must be True or False, got None"),
]
POOL_IMAGES = [
    *not_floats("x", X),
    ({"x": X[0, 0]}, ValueError, f"{AXES}, got 2 dimensions (8, 9)"),
    ({"x": X[:, :, :0]}, ValueError, "`x` has images of 0x9 pixels, but at least one pixel is needed"),
]
X_SHAPE = [
    ({"x_shape": X}, ValueError, "`x_shape` must be a tuple of the sizes NCHW or CHW, got an array of shape"),
    ({"x_shape": (4, 8)}, ValueError, "`x_shape` must be a tuple of the sizes NCHW or CHW, got (4, 8)"),
    ({"x_shape": (2, 4, "8", 9)}, TypeError, "`x_shape` must be an integer of at least 0, got '8'"),
    ({"x_shape": (2, 4, 2**31 - 1, 2**31 - 1)}, ValueError, "`x_shape` is too large for an array"),
]
TIES = "`dilation` must be an integer of at least 1, got"
DILATED = [
    ({"dilation": 0}, ValueError, f"{TIES} 0"),
    ({"dilation": 9}, ValueError, "`kernel` spans 10x10 pixels (dilation (9, 9))"),
]
MAX_POOLINGS = [
    row
    for function in (jitconv.max_pool2d, jitconv.max_pool2d_with_argmax)
    for row in rows(
        f"jitconv.{function.__name__}", function, {"x": X, "kernel": 2}, *POOL_IMAGES, *POOL_WINDOW, *DILATED
    )
]
MAX_POOL2D_BACKWARD = rows(
    "jitconv.max_pool2d_backward",
    jitconv.max_pool2d_backward,
    {"dy": POOLED, "argmax": ARGMAX, "x_shape": X.shape, "kernel": 2},
    *not_floats("dy", POOLED),
    *POOL_WINDOW,
    *DILATED,
    *X_SHAPE,
    ({"dy": POOLED[:1]}, ValueError, f"{OUTPUT}, (2, 4, 4, 4), got (1, 4, 4, 4)"),
    ({"argmax": ARGMAX.tolist()}, TypeError, "`argmax` must be a NumPy array of uint8, got list"),
    ({"argmax": np.ma.masked_array(ARGMAX)}, TypeError, "`argmax` must be a NumPy array of uint8, got MaskedArray"),
    ({"argmax": ARGMAX.astype(np.int64)}, TypeError, "`argmax` has dtype int64, but the offsets in this window have"),
    ({"argmax": ARGMAX.astype(">u2")}, TypeError, "`argmax` has dtype >u2, but the offsets in this window have uint8"),
    ({"argmax": ARGMAX.astype(np.float32)}, TypeError, "`argmax` has dtype float32, but the offsets in this window"),
    ({"argmax": ARGMAX[0]}, ValueError, "`argmax` must have the shape of the output, (2, 4, 4, 4), got (4, 4, 4)"),
    ({"argmax": ARGMAX + np.uint8(4)}, ValueError, "`argmax` holds 128 offsets outside the window or in the padding"),
    ({"argmax": ARGMAX + np.uint8(255)}, ValueError, "`argmax` holds 128 offsets outside the window"),
)
AVG_POOL2D = rows(
    "jitconv.avg_pool2d",
    jitconv.avg_pool2d,
    {"x": X, "kernel": 2},
    *POOL_IMAGES,
    *POOL_WINDOW,
    ({"count_include_pad": 0}, TypeError, "`count_include_pad` must be True or False, got 0"),
)
AVG_POOL2D_BACKWARD = rows(
    "jitconv.avg_pool2d_backward",
    jitconv.avg_pool2d_backward,
    {"dy": POOLED, "x_shape": X.shape, "kernel": 2},
    *not_floats("dy", POOLED),
    *POOL_WINDOW,
    *X_SHAPE,
    ({"dy": POOLED[:, :3]}, ValueError, f"{OUTPUT}, (2, 4, 4, 4), got (2, 3, 4, 4)"),
    ({"count_include_pad": "no"}, TypeError, "`count_include_pad` must be True or False, got 'no'"),
)
GLOBAL = [
    *rows("jitconv.global_avg_pool2d", jitconv.global_avg_pool2d, {"x": X}, *POOL_IMAGES[:-1], *WORDS),
    *rows("jitconv.global_max_pool2d", jitconv.global_max_pool2d, {"x": X}, *POOL_IMAGES, *WORDS),
    *rows(
        "jitconv.global_avg_pool2d_backward",
        jitconv.global_avg_pool2d_backward,
        {"dy": PIXEL, "x_shape": X.shape},
        *not_floats("dy", PIXEL),
        *X_SHAPE,
        *WORDS,
        ({"dy": X}, ValueError, f"{OUTPUT}, (2, 4, 1, 1), got (2, 4, 8, 9)"),
    ),
    *rows(
        "jitconv.global_max_pool2d_backward",
        jitconv.global_max_pool2d_backward,
        {"dy": PIXEL, "argmax": np.zeros((2, 4, 1, 1), np.uint8), "x_shape": X.shape},
        *not_floats("dy", PIXEL),
        *X_SHAPE,
        *WORDS,
        ({"x_shape": (2, 4, 0, 9)}, ValueError, "`x_shape` has images of 0x9 pixels, but at least one pixel is needed"),
        ({"argmax": np.zeros((2, 4, 1, 1), np.int32)}, TypeError, "`argmax` has dtype int32, but the offsets"),
        ({"argmax": np.full((2, 4, 1, 1), 72, np.uint8)}, ValueError, "`argmax` holds 8 offsets outside the window"),
        ({"argmax": None}, TypeError, "`argmax` must be a NumPy array of uint8, got NoneType"),
    ),
]
COLUMN_WINDOW = [
    *STRIDES,
    *PADDINGS,
    *DILATIONS,
    ({"kernel": -3}, ValueError, "`kernel` must be an integer of at least 1, got -3"),
    ({"kernel": (3, 2.5)}, TypeError, "`kernel` must be an integer of at least 1, got 2.5"),
    ({"kernel": 20}, ValueError, "`kernel` spans 20x20 pixels (dilation (1, 1))"),
]
IM2COL = rows(
    "jitconv.im2col",
    jitconv.im2col,
    {"x": X, "kernel": 3},
    *POOL_IMAGES,
    *COLUMN_WINDOW,
    ({"padding": 2**30}, ValueError, "`columns` would have shape"),
)
COL2IM = rows(
    "jitconv.col2im",
    jitconv.col2im,
    {"columns": COLUMNS, "x_shape": X.shape, "kernel": 3},
    *not_floats("columns", COLUMNS),
    *COLUMN_WINDOW,
    *X_SHAPE,
    ({"columns": COLUMNS[1:]}, ValueError, "`columns` must have shape (84, 36) (N*OH*OW, C*KH*KW), got (83, 36)"),
    ({"columns": COLUMNS[0]}, ValueError, "`columns` must have shape (84, 36) (N*OH*OW, C*KH*KW), got (36,)"),
    ({"x_shape": (2, 4, 0, 9)}, ValueError, "`x_shape` has images of 0x9 pixels, but at least one pixel is needed"),
)


def _with_threads(n):
    with jitconv.num_threads(n):
        raise AssertionError(f"{n!r} threads were accepted in thread {threading.get_ident()}")


THREADS = [
    row
    for name, call in (("set_num_threads", jitconv.set_num_threads), ("num_threads", _with_threads))
    for row in rows(
        f"jitconv.{name}",
        call,
        {},
        ({"n": 0}, ValueError, "`n` must be an integer of at least 1, got 0"),
        ({"n": -2}, ValueError, "`n` must be an integer of at least 1, got -2"),
        ({"n": 1.0}, TypeError, "`n` must be an integer of at least 1, got 1.0"),
        ({"n": True}, TypeError, "`n` must be an integer of at least 1, got True"),
        ({"n": None}, TypeError, "`n` must be an integer of at least 1, got None"),
        ({"n": 100_000}, ValueError, "`n` must be at most "),
    )
]
WARMUP = rows(
    "jitconv.warmup",
    jitconv.warmup,
    {},
    ({"dtype": "float16"}, TypeError, "`dtype` must be float32 or float64, got 'float16'"),
    ({"dtype": None}, TypeError, "`dtype` must be float32 or float64, got None"),
    ({"layout": "NCHW8c"}, ValueError, "`layout` must be one of 'NCHW', 'NHWC', 'both', got 'NCHW8c'"),
    ({"layout": None}, ValueError, "`layout` must be one of 'NCHW', 'NHWC', 'both', got None"),
)

ROWS = [
    *CONV2D,
    *KEPT,
    *CONV2D_BACKWARD,
    *CONV_TRANSPOSE2D,
    *CONV_TRANSPOSE2D_BACKWARD,
    *PLAN,
    *MAX_POOLINGS,
    *MAX_POOL2D_BACKWARD,
    *AVG_POOL2D,
    *AVG_POOL2D_BACKWARD,
    *GLOBAL,
    *IM2COL,
    *COL2IM,
    *THREADS,
    *WARMUP,
]
