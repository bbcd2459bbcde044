"""Wrong calls of `jitconv.layers`: constructors, forward and backward passes."""

from __future__ import annotations

import numpy as np

from jitconv import layers

from .functions import ALGORITHMS, LAYOUTS, NAN, STRIDES
from .rows import DY, X, after, not_floats, rows

LAYER = "`x` must have the axes NCHW or, for one image, CHW, got 2 dimensions"
SEED = "must be an integer of at least 0, a numpy.random.Generator or None, got"
SEEDS = [
    ({"seed": -1}, ValueError, f"`seed` {SEED} -1"),
    ({"seed": 1.5}, TypeError, f"`seed` {SEED} 1.5"),
    ({"seed": "7"}, TypeError, f"`seed` {SEED} '7'"),
    ({"seed": True}, TypeError, f"`seed` {SEED} True"),
    ({"seed": [1, -2]}, ValueError, f"`seed` {SEED} [1, -2]"),
]
DTYPES = [
    ({"dtype": np.int32}, TypeError, "`dtype` must be float32 or float64, got <class 'numpy.int32'>"),
    ({"dtype": "half"}, TypeError, "`dtype` must be float32 or float64, got 'half'"),
]
CHANNELS = [
    ({"in_channels": 0}, ValueError, "`in_channels` must be an integer of at least 1, got 0"),
    ({"in_channels": 4.0}, TypeError, "`in_channels` must be an integer of at least 1, got 4.0"),
    ({"out_channels": -6}, ValueError, "`out_channels` must be an integer of at least 1, got -6"),
    ({"out_channels": None}, TypeError, "`out_channels` must be an integer of at least 1, got None"),
    ({"kernel_size": (3, 3, 3)}, ValueError, "`kernel_size` must be an int or a pair of ints, got (3, 3, 3)"),
    ({"kernel_size": 0}, ValueError, "`kernel_size` must be an integer of at least 1, got 0"),
    ({"in_channels": 2**31 - 1, "out_channels": 2**31 - 1}, ValueError, "`weight` would have shape"),
    ({"dilation": 0}, ValueError, "`dilation` must be an integer of at least 1, got 0"),
    ({"groups": 3}, ValueError, "`in_channels` must be a multiple of `groups`, got 4 and groups=3"),
    ({"groups": 4}, ValueError, "`out_channels` must be a multiple of `groups`, got 6 and groups=4"),
    ({"bias": 1}, TypeError, "`bias` must be True or False, got 1"),
    ({"padding_mode": "reflect"}, ValueError, "`padding_mode` must be one of 'zeros', got 'reflect'"),
    ({"layout": "HWC"}, ValueError, f"{LAYOUTS} 'HWC'"),
    ({"padding": (0, -1)}, ValueError, "`padding` must be an integer of at least 0, got -1"),
    *STRIDES,
    *SEEDS,
    *DTYPES,
]


def conv():
    return layers.Conv2d(4, 6, 3, seed=0)


def rectified():
    return layers.Conv2d(4, 6, 3, activation="relu", layout="NHWC", seed=0)


def transposed():
    return layers.ConvTranspose2d(4, 6, 3, seed=0)


def dense():
    return layers.Dense(9, 5, activation="relu", seed=0)


def batch_norm():
    return layers.BatchNorm2d(4)


ROWS_OF_X = np.ones((3, 9), np.float32)
BACKWARD = "was called before"
CONV = [
    *rows(
        "jitconv.layers.Conv2d",
        layers.Conv2d,
        {"in_channels": 4, "out_channels": 6, "kernel_size": 3},
        *CHANNELS,
        ({"activation": "gelu"}, ValueError, "`activation` must be one of None, 'relu', got 'gelu'"),
        ({"algorithm": "cudnn"}, ValueError, f"{ALGORITHMS} 'cudnn'"),
        ({"padding": "same", "stride": 2}, ValueError, "`padding`='same' needs stride 1, got stride (2, 2)"),
    ),
    *rows(
        "jitconv.layers.Conv2d",
        lambda **given: conv().forward(**given),
        {"x": X},
        *not_floats("x", X),
        ({"x": X[0, 0]}, ValueError, LAYER),
        ({"x": X[:, :2]}, ValueError, "`w` has 4 input channels, but `x` has 2 (groups=1)"),
        ({"x": X.astype(np.float64)}, TypeError, "`w` has dtype float32, but the other arrays have float64"),
        ({"x": X[:, :, :, :2]}, ValueError, "`kernel` spans 3x3 pixels"),
    ),
    *rows(
        "jitconv.layers.Conv2d",
        after(conv, X),
        {"dy": DY},
        *not_floats("dy", DY),
        ({"dy": DY[:1]}, ValueError, "`dy` must have shape (2, 6, 6, 7) as the output, got (1, 6, 6, 7)"),
        ({"dy": DY.astype(np.float64)}, TypeError, "`dy` has dtype float64, but the other arrays have float32"),
    ),
    *rows(
        "jitconv.layers.Conv2d",
        after(rectified, np.ones((2, 8, 9, 4), np.float32)),
        {},
        ({"dy": DY}, ValueError, "`dy` must have shape (2, 6, 7, 6) as the output, got (2, 6, 6, 7)"),
        ({"dy": None}, TypeError, "`dy` must be a NumPy array of float32 or float64, got NoneType"),
    ),
    *rows(
        "jitconv.layers.Conv2d",
        lambda **given: conv().backward(**given),
        {},
        ({"dy": DY}, RuntimeError, f"Conv2d.backward {BACKWARD} Conv2d.forward"),
    ),
    *rows(
        "jitconv.layers.ConvTranspose2d",
        layers.ConvTranspose2d,
        {"in_channels": 4, "out_channels": 6, "kernel_size": 3},
        *CHANNELS,
        ({"output_padding": -1}, ValueError, "`output_padding` must be an integer of at least 0, got -1"),
        ({"padding": "same"}, ValueError, "`padding` must be an int, a pair, ((top, bottom), (left, right)), got"),
    ),
    *rows(
        "jitconv.layers.ConvTranspose2d",
        lambda **given: transposed().forward(**given),
        {"x": X},
        *not_floats("x", X),
        ({"x": X[:, :3]}, ValueError, "`w` has 4 input channels, but `x` has 3"),
        ({"x": X[:, :, :0]}, ValueError, "`x` has no pixels: its images are 0x9"),
    ),
    *rows(
        "jitconv.layers.ConvTranspose2d",
        after(transposed, X),
        {},
        ({"dy": X}, ValueError, "`dy` must have the shape of the output, (2, 6, 10, 11), got (2, 4, 8, 9)"),
    ),
]
DENSE = [
    *rows(
        "jitconv.layers.Dense",
        layers.Dense,
        {"in_features": 9, "out_features": 5},
        ({"in_features": 0}, ValueError, "`in_features` must be an integer of at least 1, got 0"),
        ({"out_features": 2.5}, TypeError, "`out_features` must be an integer of at least 1, got 2.5"),
        ({"in_features": 2**31 - 1, "out_features": 2**31 - 1}, ValueError, "`weight` would have shape"),
        ({"bias": None}, TypeError, "`bias` must be True or False, got None"),
        ({"activation": "softmax"}, ValueError, "`activation` must be one of None, 'relu', got 'softmax'"),
        *SEEDS,
        *DTYPES,
    ),
    *rows(
        "jitconv.layers.Dense",
        lambda **given: dense().forward(**given),
        {"x": ROWS_OF_X},
        *not_floats("x", ROWS_OF_X),
        ({"x": ROWS_OF_X[:, :8]}, ValueError, "`x` must have shape (any, 9) as (N, in_features), got (3, 8)"),
        ({"x": ROWS_OF_X[0]}, ValueError, "`x` must have shape (any, 9) as (N, in_features), got (9,)"),
        ({"x": ROWS_OF_X.astype(np.float64)}, TypeError, "`x` has dtype float64, but the other arrays have float32"),
    ),
    *rows(
        "jitconv.layers.Dense",
        after(dense, ROWS_OF_X),
        {},
        ({"dy": ROWS_OF_X}, ValueError, "`dy` must have shape (3, 5) as the output, got (3, 9)"),
    ),
]
WINDOW = [
    *STRIDES,
    ({"kernel_size": 0}, ValueError, "`kernel_size` must be an integer of at least 1, got 0"),
    ({"kernel_size": "2"}, TypeError, "`kernel_size` must be an integer of at least 1, got '2'"),
    ({"padding": 2}, ValueError, "`padding` of a pooling must be at most half the kernel on each side"),
    ({"ceil_mode": "floor"}, TypeError, "`ceil_mode` must be True or False, got 'floor'"),
    ({"layout": "NWHC"}, ValueError, f"{LAYOUTS} 'NWHC'"),
]


def pooling_rows(name, make, out):
    return [
        *rows(
            f"jitconv.layers.{name}",
            lambda **given: make().forward(**given),
            {"x": X},
            *not_floats("x", X),
            ({"x": X[0, 0]}, ValueError, LAYER),
        ),
        *rows(
            f"jitconv.layers.{name}",
            after(make, X),
            {},
            ({"dy": X[:1]}, ValueError, f"`dy` must have the shape of the output, {out}, got (1, 4, 8, 9)"),
            ({"dy": np.ones(out)}, TypeError, "`dy` has dtype float64, but the other arrays have float32"),
            ({"dy": [1.0]}, TypeError, "`dy` must be a NumPy array of float32 or float64, got list"),
        ),
        *rows(
            f"jitconv.layers.{name}",
            lambda **given: make().backward(**given),
            {},
            ({"dy": X}, RuntimeError, f"{name}.backward {BACKWARD} {name}.forward"),
        ),
    ]


POOLINGS = [
    *rows(
        "jitconv.layers.MaxPool2d",
        layers.MaxPool2d,
        {"kernel_size": 2},
        *WINDOW,
        ({"dilation": -1}, ValueError, "`dilation` must be an integer of at least 1, got -1"),
        ({"return_indices": True}, ValueError, "`return_indices` must be one of False, got True"),
    ),
    *rows(
        "jitconv.layers.AvgPool2d",
        layers.AvgPool2d,
        {"kernel_size": 2},
        *WINDOW,
        ({"count_include_pad": 1}, TypeError, "`count_include_pad` must be True or False, got 1"),
        ({"divisor_override": 3}, ValueError, "`divisor_override` must be one of None, got 3"),
    ),
    *pooling_rows("MaxPool2d", lambda: layers.MaxPool2d(2), (2, 4, 4, 4)),
    *pooling_rows("AvgPool2d", lambda: layers.AvgPool2d(2), (2, 4, 4, 4)),
    *pooling_rows("GlobalAvgPool2d", layers.GlobalAvgPool2d, (2, 4, 1, 1)),
    *pooling_rows("GlobalMaxPool2d", layers.GlobalMaxPool2d, (2, 4, 1, 1)),
    *(
        row
        for name in ("GlobalAvgPool2d", "GlobalMaxPool2d")
        for row in rows(
            f"jitconv.layers.{name}",
            getattr(layers, name),
            {},
            ({"layout": "CHW"}, ValueError, f"{LAYOUTS} 'CHW'"),
        )
    ),
]
NORM = [
    *rows(
        "jitconv.layers.BatchNorm2d",
        layers.BatchNorm2d,
        {"num_features": 4},
        ({"num_features": 0}, ValueError, "`num_features` must be an integer of at least 1, got 0"),
        ({"num_features": X}, TypeError, "`num_features` must be an integer of at least 1, got an array of shape"),
        ({"eps": -1e-5}, ValueError, "`eps` must be a finite number of at least 0, got -1e-05"),
        ({"eps": NAN}, ValueError, "`eps` must be a finite number of at least 0, got nan"),
        ({"eps": "small"}, TypeError, "`eps` must be a finite number of at least 0, got 'small'"),
        ({"momentum": 1.5}, ValueError, "`momentum` must be a finite number from 0 to 1, got 1.5"),
        ({"momentum": [[0.1], [0.1, 0.2]]}, TypeError, "`momentum` must be a finite number from 0 to 1, got [[0.1]"),
        ({"momentum": 1j}, TypeError, "`momentum` must be a finite number from 0 to 1, got 1j"),
        ({"momentum": np.complex64(1)}, TypeError, "`momentum` must be a finite number from 0 to 1, got"),
        ({"affine": 0}, TypeError, "`affine` must be True or False, got 0"),
        ({"track_running_stats": None}, TypeError, "`track_running_stats` must be True or False, got None"),
        *DTYPES,
    ),
    *rows(
        "jitconv.layers.BatchNorm2d",
        lambda **given: batch_norm().forward(**given),
        {"x": X},
        *not_floats("x", X),
        ({"x": X[0]}, ValueError, "`x` must have shape (any, any, any, any) with the axes NCHW, got (4, 8, 9)"),
        ({"x": X[:, :3]}, ValueError, "`x` has 3 channels in NCHW (2, 3, 8, 9), but the layer has 4"),
        ({"x": X[:1, :, :1, :1]}, ValueError, "`x` has 1 value for each channel, but training needs at least 2"),
        ({"x": X[:0]}, ValueError, "`x` has 0 values for each channel, but training needs at least 2"),
        ({"x": X.astype(np.float64)}, TypeError, "`weight` has dtype float32, but the other arrays have float64"),
    ),
    *rows(
        "jitconv.layers.BatchNorm2d",
        after(batch_norm, X),
        {},
        ({"dy": X[:1]}, ValueError, "`dy` must have shape (2, 4, 8, 9) as the output, got (1, 4, 8, 9)"),
    ),
    *rows(
        "jitconv.layers.Dropout",
        layers.Dropout,
        {},
        ({"p": 1.1}, ValueError, "`p` must be a finite number from 0 to 1, got 1.1"),
        ({"p": NAN}, ValueError, "`p` must be a finite number from 0 to 1, got nan"),
        ({"p": "0.5"}, TypeError, "`p` must be a finite number from 0 to 1, got '0.5'"),
        ({"p": b"0.5"}, TypeError, "`p` must be a finite number from 0 to 1, got b'0.5'"),
        ({"p": True}, TypeError, "`p` must be a finite number from 0 to 1, got True"),
        ({"p": np.array([0.5, 0.5])}, TypeError, "`p` must be a finite number from 0 to 1, got an array of shape (2,)"),
        ({"p": 10**400}, ValueError, "`p` must be a finite number from 0 to 1, got 1000"),
        ({"inplace": 1}, TypeError, "`inplace` must be True or False, got 1"),
        *SEEDS,
    ),
    *rows(
        "jitconv.layers.Dropout",
        lambda **given: layers.Dropout(seed=0).forward(**given),
        {},
        *not_floats("x", X),
    ),
    *rows(
        "jitconv.layers.Dropout",
        lambda **given: layers.Dropout(seed=0).eval().forward(**given),
        {},
        *not_floats("x", X),
    ),
    *rows(
        "jitconv.layers.Dropout",
        after(lambda: layers.Dropout(seed=0), X),
        {},
        ({"dy": X[0]}, ValueError, "`dy` must have shape (2, 4, 8, 9) as the output, got (4, 8, 9)"),
        ({"dy": X.astype(np.float64)}, TypeError, "`dy` has dtype float64, but the other arrays have float32"),
    ),
]
SHAPE = [
    *rows(
        "jitconv.layers.ReLU",
        layers.ReLU,
        {},
        ({"inplace": "yes"}, TypeError, "`inplace` must be True or False, got 'yes'"),
    ),
    *rows("jitconv.layers.ReLU", lambda **given: layers.ReLU().forward(**given), {}, *not_floats("x", X)),
    *rows(
        "jitconv.layers.ReLU",
        after(layers.ReLU, X),
        {},
        ({"dy": X[0]}, ValueError, "`dy` must have shape (2, 4, 8, 9) as the output, got (4, 8, 9)"),
    ),
    *rows(
        "jitconv.layers.Flatten",
        layers.Flatten,
        {},
        ({"start_dim": 0}, ValueError, "`start_dim` must be one of 1, got 0"),
        ({"end_dim": 3}, ValueError, "`end_dim` must be one of -1, got 3"),
    ),
    *rows(
        "jitconv.layers.Flatten",
        lambda **given: layers.Flatten().forward(**given),
        {},
        *not_floats("x", X),
        ({"x": X[0, 0, 0]}, ValueError, "`x` must have a batch axis and at least one more, got shape (9,)"),
    ),
    *rows(
        "jitconv.layers.Flatten",
        after(layers.Flatten, X),
        {},
        ({"dy": X}, ValueError, "`dy` must have shape (2, 288) as the output, got (2, 4, 8, 9)"),
        (
            {"dy": np.ones((2, 288))},
            TypeError,
            "`dy` has dtype float64, but the other arrays have float32: convert one of them",
        ),
    ),
]
LAYER_ITSELF = rows(
    "jitconv.layers.Layer",
    layers.ReLU().train,
    {},
    ({"mode": 1}, TypeError, "`mode` must be True or False, got 1"),
    ({"mode": None}, TypeError, "`mode` must be True or False, got None"),
)

ROWS = [*CONV, *DENSE, *POOLINGS, *NORM, *SHAPE, *LAYER_ITSELF]
