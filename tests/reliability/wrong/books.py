"""Wrong calls of the stand-ins for books: deep_learning_from_scratch, d2l, dezero and cnn_from_scratch."""

from __future__ import annotations

import numpy as np

from jitconv.compat import cnn_from_scratch, d2l, dezero
from jitconv.compat import deep_learning_from_scratch as book
from jitconv.layers import Conv2d

from .functions import NAN
from .rows import after, no_array, rows

X = np.ones((2, 3, 6, 6))
W = np.ones((4, 3, 3, 3))
B = np.ones(4)
DY = np.ones((2, 4, 4, 4))
COLUMNS = np.ones((2 * 4 * 4, 3 * 9))
FLAT = "must have the axes (N, C, H, W), got shape (3, 6, 6)"
BOOLEAN = "must be True or False, got"
TIES = "`ties` must be one of 'first', 'all', 'split', got 'last'"
HUGE = 2**31 - 1


def integers(name, minimum):
    rule = f"`{name}` must be an integer of at least {minimum}, got"
    return [
        ({name: minimum - 1}, ValueError, f"{rule} {minimum - 1}"),
        ({name: NAN}, TypeError, f"{rule} nan"),
        ({name: 2.5}, TypeError, f"{rule} 2.5"),
        ({name: None}, TypeError, f"{rule} None"),
    ]


# Deep Learning from Scratch
WINDOW = [row for name, least in (("filter_h", 1), ("stride", 1), ("pad", 0)) for row in integers(name, least)]
CONVOLUTION = {"W": W, "b": B}


def _convolve(x=X, **given):
    return book.Convolution(**CONVOLUTION | given).forward(x)


def _pool(x=X, **given):
    return book.Pooling(**{"pool_h": 2, "pool_w": 2} | given).forward(x)


def _pool_older(x=X, **given):
    return book.OlderPooling(**{"pool_h": 2, "pool_w": 2} | given).forward(x)


POOLING = [
    *no_array("x", X),
    ({"x": X[0]}, ValueError, f"`x` {FLAT}"),
    *integers("pool_h", 1),
    *integers("stride", 1),
    *integers("pad", 0),
    ({"pool_w": 7}, ValueError, "`pool_h` x `pool_w` spans 2x7 pixels"),
    ({"pad": 2}, ValueError, "`pad` must be at most half the window, 2x2, got 2"),
    ({"ties": "last"}, ValueError, TIES),
    ({"strict": 1}, TypeError, f"`strict` {BOOLEAN} 1"),
    ({"strict": "yes"}, ValueError, "`strict` must be one of 'assigns', got 'yes'"),
    ({"ties": "all", "strict": "assigns"}, ValueError, "`ties` must be 'first' with `strict`='assigns', got 'all'"),
    ({"strict": True, "pad": 1}, ValueError, "`pad`=1 makes 4x4 windows, but with `strict` the size of the result"),
    ({"strict": True, "pad": 2**29, "stride": HUGE}, ValueError, "`pad` is too large for an array"),
    ({"preserve_dtype": 1}, TypeError, f"`preserve_dtype` {BOOLEAN} 1"),
]
BOOK = [
    *rows(
        "deep_learning_from_scratch.im2col",
        book.im2col,
        {"input_data": X, "filter_h": 3, "filter_w": 3},
        *no_array("input_data", X),
        *WINDOW,
        ({"input_data": X[0]}, ValueError, f"`input_data` {FLAT}"),
        ({"filter_h": 7}, ValueError, "`filter_h` x `filter_w` spans 7x3 pixels"),
        ({"pad": 2**30}, ValueError, "`columns` would have shape"),
        ({"preserve_dtype": None}, TypeError, f"`preserve_dtype` {BOOLEAN} None"),
    ),
    *rows(
        "deep_learning_from_scratch.col2im",
        book.col2im,
        {"col": COLUMNS, "input_shape": X.shape, "filter_h": 3, "filter_w": 3},
        *no_array("col", COLUMNS),
        *WINDOW,
        ({"col": COLUMNS[1:]}, ValueError, "`col` must have 32 * 27 elements (N*OH*OW, C*FH*FW), got shape (31, 27)"),
        ({"input_shape": (3, 6, 6)}, ValueError, "`input_shape` must be a tuple of the sizes NCHW, got (3, 6, 6)"),
        ({"input_shape": X}, ValueError, "`input_shape` must be a tuple of the sizes NCHW, got an array of shape"),
        ({"input_shape": (HUGE,) * 4}, ValueError, "`input_shape` is too large for an array"),
        ({"strict": "add"}, ValueError, "`strict` must be one of 'assigns', got 'add'"),
    ),
    *rows(
        "deep_learning_from_scratch.Convolution",
        _convolve,
        {},
        *no_array("x", X),
        *no_array("W", W),
        *no_array("b", B),
        ({"x": X[0]}, ValueError, f"`x` {FLAT}"),
        ({"x": X[:, :2]}, ValueError, "`W` has 3 input channels, but `x` has 2"),
        ({"x": X[..., :2]}, ValueError, "`W` spans 3x3 pixels"),
        ({"W": W[0]}, ValueError, "`W` must have the axes (FN, C, FH, FW), got shape (3, 3, 3)"),
        ({"W": W[..., :0]}, ValueError, "`W` must have at least one channel and one tap"),
        ({"b": B[:3]}, ValueError, "`b` must have shape (4,) (one for each output channel), got (3,)"),
        ({"pad": 2**30}, ValueError, "`y` would have shape"),
        ({"strict": 0}, TypeError, f"`strict` {BOOLEAN} 0"),
        *integers("stride", 1),
        *integers("pad", 0),
    ),
    *rows(
        "deep_learning_from_scratch.Convolution",
        after(lambda: book.Convolution(W, B), X),
        {},
        *no_array("dout", DY),
        ({"dout": X}, ValueError, "`dout` must have shape (2, 4, 4, 4), got (2, 3, 6, 6)"),
    ),
    *rows(
        "deep_learning_from_scratch.Convolution",
        book.Convolution(W, B).backward,
        {},
        ({"dout": DY}, RuntimeError, "Convolution.backward was called before Convolution.forward"),
    ),
    *rows("deep_learning_from_scratch.Pooling", _pool, {}, *POOLING),
    *rows("deep_learning_from_scratch.OlderPooling", _pool_older, {}, *POOLING[:6], *POOLING[-4:-3]),
    *rows(
        "deep_learning_from_scratch.Pooling",
        after(lambda: book.Pooling(2, 2), X),
        {},
        *no_array("dout", X),
        ({"dout": X}, ValueError, "`dout` must have shape (2, 3, 3, 3), got (2, 3, 6, 6)"),
    ),
]

# Dive into Deep Learning
IMAGE, KERNEL = np.ones((5, 6)), np.ones((2, 3))
STACK, KERNELS = np.ones((3, 5, 6)), np.ones((4, 3, 2, 3))
D2L = [
    *(
        row
        for function, x, k, axes in (
            (d2l.corr2d, IMAGE, KERNEL, "H, W"),
            (d2l.trans_conv, IMAGE, KERNEL, "H, W"),
            (d2l.corr2d_multi_in, STACK, KERNELS[0], "C, H, W"),
            (d2l.corr2d_multi_in_out, STACK, KERNELS, "C, H, W"),
            (d2l.corr2d_multi_in_out_1x1, STACK, KERNELS[:, :, :1, :1], "C, H, W"),
        )
        for row in rows(
            f"d2l.{function.__name__}",
            function,
            {"X": x, "K": k},
            *no_array("X", x),
            *no_array("K", k),
            ({"X": x[0]}, ValueError, f"`X` must have the axes ({axes}), got shape"),
            ({"K": np.float32(1)}, ValueError, "`K` must have "),
        )
    ),
    *rows(
        "d2l.corr2d",
        d2l.corr2d,
        {"X": IMAGE, "K": KERNEL},
        (
            {"K": np.ones((7, 1))},
            ValueError,
            "`K` spans 7x1 pixels (dilation (1, 1)), more than the padded",
        ),
        ({"K": KERNEL[:0]}, ValueError, "`K` must have at least one channel and one tap"),
        ({"preserve_dtype": "float64"}, TypeError, f"`preserve_dtype` {BOOLEAN} 'float64'"),
    ),
    *rows(
        "d2l.corr2d_multi_in",
        d2l.corr2d_multi_in,
        {"X": STACK, "K": KERNELS[0]},
        ({"K": KERNELS[0, :2]}, ValueError, "`K` has 2 input channels, but `X` has 3"),
        ({"strict": 1}, TypeError, f"`strict` {BOOLEAN} 1"),
    ),
    *rows(
        "d2l.pool2d",
        d2l.pool2d,
        {"X": IMAGE, "pool_size": (2, 2)},
        *no_array("X", IMAGE),
        ({"X": STACK}, ValueError, "`X` must have the axes (H, W), got shape (3, 5, 6)"),
        ({"pool_size": 0}, ValueError, "`pool_size` must be an integer of at least 1, got 0"),
        ({"pool_size": (2, NAN)}, TypeError, "`pool_size` must be an integer of at least 1, got nan"),
        ({"pool_size": (6, 2)}, ValueError, "`pool_size` spans 6x2 pixels"),
        ({"mode": "mean"}, ValueError, "`mode` must be one of 'max', 'avg', got 'mean'"),
        ({"mode": np.array(["max", "avg"])}, ValueError, "`mode` must be one of 'max', 'avg', got an array of shape"),
        ({"mode": None}, ValueError, "`mode` must be one of 'max', 'avg', got None"),
    ),
    *rows(
        "d2l.comp_conv2d",
        d2l.comp_conv2d,
        {"conv2d": Conv2d(1, 1, 3, seed=0), "X": IMAGE},
        *no_array("X", IMAGE),
        ({"conv2d": 3}, TypeError, "`conv2d` must be a layer or a function, got 3"),
        ({"conv2d": list}, TypeError, "`conv2d` must return an array, got list"),
        (
            {"conv2d": lambda x: x[0]},
            ValueError,
            "`conv2d` must return one image with one channel, got shape",
        ),
        ({"X": STACK}, ValueError, "`X` must have the axes (H, W), got shape (3, 5, 6)"),
    ),
]

# DeZero
SIZES = [
    ({"stride": 0}, ValueError, "`stride` must be an integer of at least 1, got 0"),
    ({"stride": NAN}, TypeError, "`stride` must be an integer of at least 1, got nan"),
    ({"pad": -1}, ValueError, "`pad` must be an integer of at least 0, got -1"),
]
KERNEL_SIZE = [
    ({"kernel_size": 0}, ValueError, "`kernel_size` must be an integer of at least 1, got 0"),
    ({"kernel_size": (2, 2, 2)}, ValueError, "`kernel_size` must be an int or a pair of ints, got (2, 2, 2)"),
    ({"kernel_size": 9}, ValueError, "`kernel_size` spans 9x9 pixels"),
]
IMAGES = [*no_array("x", X), ({"x": X[0]}, ValueError, f"`x` {FLAT}")]
DEZERO = [
    *rows(
        "dezero.conv2d",
        dezero.conv2d,
        {"x": X, "W": W},
        *IMAGES,
        *no_array("W", W),
        *SIZES,
        ({"b": "bias"}, TypeError, "`b` must be an array of real numbers, got str"),
        ({"b": B[:3]}, ValueError, "`b` must have shape (4,) (one for each output channel), got (3,)"),
        ({"W": W[0]}, ValueError, "`W` must have the axes (F, C/groups, KH, KW), got (3, 3, 3)"),
        ({"W": W[:, :2]}, ValueError, "`W` has 2 input channels, but `x` has 3 (groups=1)"),
    ),
    *rows(
        "dezero.deconv2d",
        dezero.deconv2d,
        {"x": DY, "W": W},
        *IMAGES,
        *SIZES,
        ({"W": W[:3]}, ValueError, "`W` has 3 input channels, but `x` has 4"),
        ({"W": W[0]}, ValueError, "`W` must have the axes (C, OC, KH, KW), got shape (3, 3, 3)"),
        (
            {"outsize": 5},
            ValueError,
            "`outsize` must be what a convolution with this stride and pad makes `x` of",
        ),
        ({"outsize": (6, NAN)}, TypeError, "`outsize` must be an integer of at least 1, got nan"),
    ),
    *rows(
        "dezero.pooling",
        dezero.pooling,
        {"x": X, "kernel_size": 2},
        *IMAGES,
        *SIZES,
        *KERNEL_SIZE,
        ({"pad": 2}, ValueError, "`pad` of a pooling must be at most half the kernel on each side"),
        ({"strict": 1}, TypeError, f"`strict` {BOOLEAN} 1"),
        ({"strict": True, "pad": 2**30}, ValueError, "`pad` is too large for an array"),
    ),
    *rows(
        "dezero.average_pooling",
        dezero.average_pooling,
        {"x": X, "kernel_size": 2},
        *IMAGES,
        *SIZES,
        *KERNEL_SIZE,
    ),
    *rows(
        "dezero.im2col",
        dezero.im2col,
        {"x": X, "kernel_size": 3},
        *IMAGES,
        *SIZES,
        *KERNEL_SIZE,
        ({"to_matrix": None}, TypeError, f"`to_matrix` {BOOLEAN} None"),
    ),
    *rows(
        "dezero.col2im",
        dezero.col2im,
        {"x": COLUMNS, "input_shape": X.shape, "kernel_size": 3},
        *no_array("x", COLUMNS),
        *SIZES,
        *KERNEL_SIZE[:2],
        ({"x": X}, ValueError, "`x` must have the axes (N*OH*OW, C*KH*KW), got shape (2, 3, 6, 6)"),
        ({"x": COLUMNS[1:]}, ValueError, "`x` must have shape (32, 27) (N*OH*OW, C*KH*KW), got (31, 27)"),
        ({"input_shape": (3, 6, 6)}, ValueError, "`input_shape` must be a tuple of the sizes NCHW, got (3, 6, 6)"),
        ({"to_matrix": "yes"}, TypeError, f"`to_matrix` {BOOLEAN} 'yes'"),
        (
            {"x": X[..., np.newaxis, np.newaxis], "to_matrix": False},
            ValueError,
            "`x` must have shape (2, 3, 3, 3, 4, 4) (N, C, KH, KW, OH, OW), got (2, 3, 6, 6, 1, 1)",
        ),
    ),
]

# cnn-from-scratch: one image, channels last
PICTURE, POOLABLE = np.ones((5, 6)), np.ones((4, 6, 2))
LEARN_RATE = [
    ({"learn_rate": NAN}, ValueError, "`learn_rate` must be a finite number, got nan"),
    ({"learn_rate": "slow"}, TypeError, "`learn_rate` must be a finite number, got 'slow'"),
    ({"learn_rate": 1j}, TypeError, "`learn_rate` must be a finite number, got 1j"),
]
SCRATCH = [
    *rows(
        "cnn_from_scratch.Conv3x3",
        cnn_from_scratch.Conv3x3,
        {"num_filters": 2},
        *integers("num_filters", 1),
        ({"channels": 0}, ValueError, "`channels` must be an integer of at least 1, got 0"),
        ({"num_filters": HUGE, "channels": HUGE}, ValueError, "`num_filters` is too large for an array"),
        ({"needs_input_gradient": 1}, TypeError, f"`needs_input_gradient` {BOOLEAN} 1"),
        ({"preserve_dtype": 1}, TypeError, f"`preserve_dtype` {BOOLEAN} 1"),
    ),
    *rows(
        "cnn_from_scratch.Conv3x3",
        lambda **given: cnn_from_scratch.Conv3x3(2).forward(**given),
        {},
        *no_array("input", PICTURE),
        ({"input": POOLABLE}, ValueError, "`input` must have the axes (H, W), got shape (4, 6, 2)"),
        ({"input": PICTURE[:2]}, ValueError, "`filters` spans 3x3 pixels"),
    ),
    *rows(
        "cnn_from_scratch.Conv3x3",
        after(lambda: cnn_from_scratch.Conv3x3(2), PICTURE, "backprop"),
        {"d_L_d_out": np.ones((3, 4, 2)), "learn_rate": 0.1},
        *no_array("d_L_d_out", PICTURE),
        *LEARN_RATE,
        ({"d_L_d_out": PICTURE}, ValueError, "`d_L_d_out` must have the axes NHWC or, for one image, HWC"),
    ),
    *rows(
        "cnn_from_scratch.MaxPool2",
        cnn_from_scratch.MaxPool2,
        {},
        ({"ties": "last"}, ValueError, TIES),
        ({"preserve_dtype": None}, TypeError, f"`preserve_dtype` {BOOLEAN} None"),
    ),
    *rows(
        "cnn_from_scratch.MaxPool2",
        lambda **given: cnn_from_scratch.MaxPool2().forward(**given),
        {},
        *no_array("input", POOLABLE),
        ({"input": PICTURE}, ValueError, "`input` must have the axes (H, W, F), got shape (5, 6)"),
    ),
    *rows(
        "cnn_from_scratch.MaxPool2",
        after(cnn_from_scratch.MaxPool2, POOLABLE, "backprop"),
        {},
        *no_array("d_L_d_out", POOLABLE),
        (
            {"d_L_d_out": POOLABLE},
            ValueError,
            "`d_L_d_out` must have the shape of the output, (2, 3, 2), got",
        ),
    ),
    *rows(
        "cnn_from_scratch.Softmax",
        cnn_from_scratch.Softmax,
        {"input_len": 3, "nodes": 2},
        *integers("input_len", 1),
        *integers("nodes", 1),
        ({"input_len": HUGE, "nodes": HUGE}, ValueError, "`input_len` is too large for an array"),
        ({"strict": 1}, TypeError, f"`strict` {BOOLEAN} 1"),
    ),
    *rows(
        "cnn_from_scratch.Softmax",
        lambda **given: cnn_from_scratch.Softmax(3, 2).forward(**given),
        {},
        *no_array("input", B),
        ({"input": B}, ValueError, "`input` must have 3 elements, one for each row of `weights`, got (4,)"),
    ),
    *rows(
        "cnn_from_scratch.Softmax",
        after(lambda: cnn_from_scratch.Softmax(4, 2), B, "backprop"),
        {"d_L_d_out": np.ones(2), "learn_rate": 0.1},
        *no_array("d_L_d_out", B),
        *LEARN_RATE,
        ({"d_L_d_out": B}, ValueError, "`d_L_d_out` must have shape (2,), got (4,)"),
    ),
]

ROWS = [*BOOK, *D2L, *DEZERO, *SCRATCH]
