"""Wrong calls of the stand-ins for courses and libraries: `jitconv.compat`'s cs231n and numpy_neuron_network."""

from __future__ import annotations

import numpy as np

from jitconv.compat import cs231n
from jitconv.compat import numpy_neuron_network as neurons
from jitconv.compat.numpy_neuron_network import clayers, layers_v2

from .books import BOOLEAN, COLUMNS, DY, FLAT, HUGE, TIES, B, W, X, integers
from .functions import NAN
from .rows import no_array, rows

# CS231n
PARAM = {"stride": 1, "pad": 0}
POOL = {"pool_height": 2, "pool_width": 2, "stride": 2}
NORM = {"gamma": B, "beta": B, "bn_param": {"mode": "train"}}
NO_CACHE = "`cache` must be what the forward call returned, got another"
CACHES = [
    ({"cache": None}, ValueError, f"{NO_CACHE} NoneType"),
    ({"cache": ()}, ValueError, f"{NO_CACHE} tuple"),
    ({"cache": X}, ValueError, f"{NO_CACHE} ndarray"),
    ({"cache": (X, W, B, PARAM, 1, 2)}, ValueError, f"{NO_CACHE} tuple"),
]
CONV_PARAM = [
    ({"conv_param": None}, ValueError, "`conv_param` must be a dictionary with the key 'stride', got None"),
    ({"conv_param": {"stride": 1}}, ValueError, "`conv_param` must be a dictionary with the key 'pad', got {'stride'"),
    ({"conv_param": PARAM | {"stride": 0}}, ValueError, "`conv_param['stride']` must be an integer of at least 1"),
    ({"conv_param": PARAM | {"stride": NAN}}, TypeError, "`conv_param['stride']` must be an integer of at least 1"),
    ({"conv_param": PARAM | {"pad": -1}}, ValueError, "`conv_param['pad']` must be an integer of at least 0, got -1"),
]
POOL_PARAM = [
    ({"pool_param": 2}, ValueError, "`pool_param` must be a dictionary with the key 'pool_height', got 2"),
    ({"pool_param": POOL | {"stride": 0}}, ValueError, "`pool_param['stride']` must be an integer of at least 1"),
    ({"pool_param": POOL | {"pool_width": 2.5}}, TypeError, "`pool_param['pool_width']` must be an integer of at"),
]
CONV_ARRAYS = [
    *no_array("x", X),
    ({"x": X[0]}, ValueError, f"`x` {FLAT}"),
    ({"x": X[:, :2]}, ValueError, "`w` has 3 input channels, but `x` has 2"),
    ({"x": X[:, :, :2]}, ValueError, "`kernel` spans 3x3 pixels (dilation (1, 1)), more than the padded image of `x`"),
    ({"w": W[0]}, ValueError, "`w` must have the axes (F, C, HH, WW), got shape (3, 3, 3)"),
    ({"w": W * 1j}, TypeError, "`w` must be an array of real numbers, got ndarray of dtype complex128"),
    ({"b": None}, TypeError, "`b` must be an array of real numbers, got NoneType of dtype object"),
    ({"b": B[:3]}, ValueError, "`b` must have shape (4,) (one for each output channel), got (3,)"),
    *CONV_PARAM,
]
CONV = {"x": X, "w": W, "b": B, "conv_param": PARAM}


def _of(forward, backward, *given):
    """Return the backward pass with the cache of a forward pass, which runs when it is called."""

    def call(dout):
        return backward(dout, forward(*given)[-1])

    return call


WRONG_DOUT = [
    *no_array("dout", DY),
    ({"dout": DY[:1]}, ValueError, "`dout` must have shape (2, 4, 4, 4), got (1, 4, 4, 4)"),
]
WRONG_POOLED = [({"dout": X}, ValueError, "`dout` must have shape (2, 3, 3, 3), got (2, 3, 6, 6)")]
POOLINGS = [
    (name, getattr(cs231n, f"max_pool_forward_{name}"), getattr(cs231n, f"max_pool_backward_{name}"))
    for name in ("fast", "im2col", "reshape")
]
CS231N = [
    *(
        row
        for name in ("fast", "im2col", "strides")
        for row in [
            *rows(f"cs231n.conv_forward_{name}", getattr(cs231n, f"conv_forward_{name}"), CONV, *CONV_ARRAYS),
            *rows(
                f"cs231n.conv_forward_{name}",
                getattr(cs231n, f"conv_forward_{name}"),
                CONV,
                ({"strict": "no"}, TypeError, f"`strict` {BOOLEAN} 'no'"),
            ),
            *rows(f"cs231n.conv_backward_{name}", getattr(cs231n, f"conv_backward_{name}"), {"dout": DY}, *CACHES),
            *rows(
                f"cs231n.conv_backward_{name}",
                _of(getattr(cs231n, f"conv_forward_{name}"), getattr(cs231n, f"conv_backward_{name}"), X, W, B, PARAM),
                {},
                *WRONG_DOUT,
            ),
        ]
    ),
    *(
        row
        for name, forward, backward in POOLINGS
        for row in [
            *rows(
                f"cs231n.max_pool_forward_{name}",
                forward,
                {"x": X, "pool_param": POOL},
                *no_array("x", X),
                *POOL_PARAM,
                ({"x": X[0, 0]}, ValueError, "`x` must have the axes (N, C, H, W), got shape (6, 6)"),
            ),
            *rows(f"cs231n.max_pool_backward_{name}", backward, {"dout": X}, *CACHES),
            *rows(f"cs231n.max_pool_backward_{name}", _of(forward, backward, X, POOL), {}, *WRONG_POOLED),
        ]
    ),
    *rows(
        "cs231n.max_pool_forward_fast",
        cs231n.max_pool_forward_fast,
        {"x": X, "pool_param": POOL},
        ({"ties": "last"}, ValueError, TIES),
    ),
    *rows(
        "cs231n.max_pool_forward_reshape",
        cs231n.max_pool_forward_reshape,
        {"x": X},
        ({"pool_param": POOL | {"stride": 1}}, ValueError, "`pool_param` must be squares that tile the image of `x`"),
    ),
    *(
        row
        for name, more, forward, backward in (
            ("conv_relu", {}, cs231n.conv_relu_forward, cs231n.conv_relu_backward),
            ("conv_bn_relu", NORM, cs231n.conv_bn_relu_forward, cs231n.conv_bn_relu_backward),
            ("conv_relu_pool", {"pool_param": POOL}, cs231n.conv_relu_pool_forward, cs231n.conv_relu_pool_backward),
        )
        for row in [
            *rows(f"cs231n.{name}_forward", forward, CONV | more, *CONV_ARRAYS),
            *rows(f"cs231n.{name}_backward", backward, {"dout": DY}, *CACHES),
        ]
    ),
    *rows(
        "cs231n.conv_bn_relu_forward",
        cs231n.conv_bn_relu_forward,
        CONV | NORM,
        ({"gamma": B[:3]}, ValueError, "`gamma` must have shape (4,), got (3,)"),
        ({"beta": None}, TypeError, "`beta` must be an array of real numbers, got NoneType"),
        ({"bn_param": []}, ValueError, "`bn_param` must be a dictionary, got []"),
        ({"bn_param": {"mode": "eval"}}, ValueError, "`bn_param['mode']` must be one of 'train', 'test', got 'eval'"),
        ({"bn_param": {"mode": "test", "eps": NAN}}, ValueError, "`bn_param['eps']` must be a finite number of at"),
        (
            {"bn_param": {"mode": "train", "running_mean": np.ones(3)}},
            ValueError,
            "`bn_param['running_mean']` must have shape (4,), got (3,)",
        ),
    ),
    *rows("cs231n.conv_relu_pool_forward", cs231n.conv_relu_pool_forward, CONV | {"pool_param": POOL}, *POOL_PARAM),
    *rows(
        "cs231n.conv_relu_backward",
        _of(cs231n.conv_relu_forward, cs231n.conv_relu_backward, X, W, B, PARAM),
        {},
        *WRONG_DOUT,
    ),
    *(
        row
        for function, shape in (
            (cs231n.im2col_cython, {"x": X}),
            (cs231n.im2col_indices, {"x": X}),
            (cs231n.col2im_cython, {"cols": np.ones((27, 32)), "N": 2, "C": 3, "H": 6, "W": 6}),
            (cs231n.col2im_indices, {"cols": np.ones((27, 32)), "x_shape": X.shape}),
        )
        for row in rows(
            f"cs231n.{function.__name__}",
            function,
            {**shape, "field_height": 3, "field_width": 3, "padding": 0, "stride": 1},
            *integers("field_height", 1),
            *integers("padding", 0),
            *integers("stride", 1),
            ({"field_width": 9}, ValueError, "`field_height` x `field_width`, 3x9, must fit into the padded image"),
            ({"padding": HUGE, "stride": HUGE, "field_width": 1}, ValueError, "`padding` is too large for an array"),
        )
        if row.given["padding"] != HUGE or "x" in row.given
    ),
    *rows(
        "cs231n.im2col_cython",
        cs231n.im2col_cython,
        {"x": X, "field_height": 3, "field_width": 3, "padding": 0, "stride": 1},
        *no_array("x", X),
        ({"x": X[0]}, ValueError, f"`x` {FLAT}"),
        ({"strict": None}, TypeError, f"`strict` {BOOLEAN} None"),
        ({"field_height": 4, "strict": True}, ValueError, "`field_height` 4 is above `field_width` 3: the original"),
    ),
    *rows(
        "cs231n.col2im_cython",
        cs231n.col2im_cython,
        {"N": 2, "C": 3, "H": 6, "W": 6, "field_height": 3, "field_width": 3, "padding": 0, "stride": 1},
        *no_array("cols", COLUMNS),
        ({"cols": COLUMNS}, ValueError, "`cols` must have shape (27, 32), got (32, 27)"),
        ({"cols": COLUMNS.T, "C": -3}, ValueError, "`C` must be an integer of at least 0, got -3"),
        ({"cols": COLUMNS.T, "N": 2.0}, TypeError, "`N` must be an integer of at least 0, got 2.0"),
    ),
    *rows(
        "cs231n.col2im_indices",
        cs231n.col2im_indices,
        {"cols": COLUMNS.T},
        ({"x_shape": 4}, ValueError, "`x_shape` must be a tuple of the sizes NCHW, got 4"),
        ({"x_shape": (3, 6, 6)}, ValueError, "`x_shape` must be a tuple of the sizes NCHW, got (3, 6, 6)"),
    ),
    *rows(
        "cs231n.col2im_6d_cython",
        cs231n.col2im_6d_cython,
        {"N": 2, "C": 3, "H": 6, "W": 6, "HH": 3, "WW": 3, "pad": 0, "stride": 1},
        ({"cols": COLUMNS}, ValueError, "`cols` must have shape (3, 3, 3, 2, 4, 4), got (32, 27)"),
        ({"cols": COLUMNS, "C": 3.0}, TypeError, "`C` must be an integer of at least 0, got 3.0"),
        ({"cols": COLUMNS, "HH": 0}, ValueError, "`HH` must be an integer of at least 1, got 0"),
        ({"cols": COLUMNS, "WW": 9}, ValueError, "`HH` x `WW`, 3x9, must fit into the padded image"),
        ({"cols": COLUMNS, "pad": -1}, ValueError, "`pad` must be an integer of at least 0, got -1"),
    ),
]

# numpy_neuron_network: kernels are (C, D, k1, k2)
K = np.ones((3, 4, 3, 3))
Z = {"z": X, "K": K, "b": B}
STRIDES = [
    ({"strides": (0, 1)}, ValueError, "`strides` must be an integer of at least 1, got 0"),
    ({"strides": NAN}, TypeError, "`strides` must be an integer of at least 1, got nan"),
    ({"padding": (-1, 0)}, ValueError, "`padding` must be an integer of at least 0, got -1"),
    ({"padding": None}, TypeError, "`padding` must be an integer of at least 0, got None"),
]
NEURON_CONV = [
    *no_array("z", X),
    *no_array("K", K),
    *no_array("b", B),
    *STRIDES,
    ({"z": X[0]}, ValueError, f"`z` {FLAT}"),
    ({"z": X[:, :2]}, ValueError, "`K` has 3 input channels, but `z` has 2"),
    ({"z": X[..., :2]}, ValueError, "`K` spans 3x3 pixels (dilation (1, 1)), more than the padded image of `z`"),
    ({"K": K[0]}, ValueError, "`K` must have the axes (C, D, k1, k2), got shape (4, 3, 3)"),
    ({"b": B[:3]}, ValueError, "`b` must have shape (4,) (one for each output channel), got (3,)"),
    ({"strict": "yes"}, TypeError, f"`strict` {BOOLEAN} 'yes'"),
    ({"preserve_dtype": 1}, TypeError, f"`preserve_dtype` {BOOLEAN} 1"),
]
NEURON_POOL = [
    *no_array("z", X),
    *STRIDES,
    ({"z": X[0]}, ValueError, f"`z` {FLAT}"),
    ({"pooling": 0}, ValueError, "`pooling` must be an integer of at least 1, got 0"),
    ({"pooling": (7, 2)}, ValueError, "`pooling` spans 7x2 pixels"),
    ({"padding": (2, 2)}, ValueError, "`padding` of a pooling must be at most half the kernel on each side"),
]
NEXT_DZ = [
    *no_array("next_dz", DY),
    ({"next_dz": DY[..., :3]}, ValueError, "`next_dz` must have the shape of the output, (2, 4, 4, 4), got"),
]
POOLED_DZ = [
    *no_array("next_dz", X),
    ({"next_dz": X[0]}, ValueError, "`next_dz` must have the axes (N, C, OH, OW), got shape (3, 6, 6)"),
    ({"next_dz": X}, ValueError, "`next_dz` must have the shape of the output, (2, 3, 3, 3), got (2, 3, 6, 6)"),
]
NEURONS = [
    *(
        row
        for module, name in ((neurons, "numpy_neuron_network"), (clayers, "clayers"), (layers_v2, "layers_v2"))
        for row in rows(f"{name}.conv_forward", module.conv_forward, Z, *NEURON_CONV)
    ),
    *(
        row
        for module, name in ((neurons, "numpy_neuron_network"), (layers_v2, "layers_v2"))
        for row in rows(
            f"{name}.conv_backward",
            module.conv_backward,
            {"next_dz": DY, "K": K, "z": X},
            *NEXT_DZ,
            *STRIDES,
            ({"K": K[0]}, ValueError, "`K` must have the axes (C, D, k1, k2), got shape (4, 3, 3)"),
            ({"z": None}, TypeError, "`z` must be an array of real numbers, got NoneType"),
            (
                {"next_dz": np.ones((2, 4, 9, 9)), "strict": True},
                ValueError,
                "`next_dz` spans more pixels than `z`",
            ),
        )
    ),
    *(
        row
        for module, name in ((neurons, "numpy_neuron_network"), (clayers, "clayers"), (layers_v2, "layers_v2"))
        for row in [
            *rows(f"{name}.max_pooling_forward", module.max_pooling_forward, {"z": X, "pooling": (2, 2)}, *NEURON_POOL),
            *rows(
                f"{name}.max_pooling_backward",
                module.max_pooling_backward,
                {"next_dz": np.ones((2, 3, 3, 3)), "z": X, "pooling": (2, 2)},
                *POOLED_DZ,
                ({"ties": "last"}, ValueError, TIES),
                ({"strict": None}, TypeError, f"`strict` {BOOLEAN} None"),
                ({"strict": True, "padding": 2**30}, ValueError, "`padding` is too large for an array"),
            ),
        ]
    ),
    *rows(
        "numpy_neuron_network.avg_pooling_forward",
        neurons.avg_pooling_forward,
        {"z": X, "pooling": (2, 2)},
        *NEURON_POOL,
    ),
    *rows(
        "numpy_neuron_network.avg_pooling_backward",
        neurons.avg_pooling_backward,
        {"next_dz": np.ones((2, 3, 3, 3)), "z": X, "pooling": (2, 2)},
        *POOLED_DZ,
    ),
    *(
        row
        for name in ("global_max_pooling", "global_avg_pooling")
        for row in [
            *rows(
                f"numpy_neuron_network.{name}_forward",
                getattr(neurons, f"{name}_forward"),
                {},
                *no_array("z", X),
                ({"z": X[0]}, ValueError, f"`z` {FLAT}"),
            ),
            *rows(
                f"numpy_neuron_network.{name}_backward",
                getattr(neurons, f"{name}_backward"),
                {"next_dz": np.ones((2, 3)), "z": X},
                *no_array("next_dz", X),
                ({"next_dz": X}, ValueError, "`next_dz` must have shape (2, 3), one for each channel of `z`, got"),
            ),
        ]
    ),
    *rows(
        "layers_v2.global_avg_pooling_backward",
        layers_v2.global_avg_pooling_backward,
        {"next_dz": np.ones((2, 4)), "z": X},
        ({}, ValueError, "`next_dz` must have shape (2, 3), one for each channel of `z`, got (2, 4)"),
    ),
    *rows(
        "numpy_neuron_network.fc_forward",
        neurons.fc_forward,
        {"z": np.ones((2, 3)), "W": np.ones((3, 4)), "b": B},
        *no_array("z", X),
        ({"z": X}, ValueError, "`z` must have the axes (N, in), got shape (2, 3, 6, 6)"),
        ({"W": X}, ValueError, "`W` must have the axes (in, out), got shape (2, 3, 6, 6)"),
        ({"W": np.ones((4, 3))}, ValueError, "`W` has 4 inputs, but `z` has 3"),
        ({"b": np.ones(3)}, ValueError, "`b` must have shape (4,), one for each output, got (3,)"),
        ({"b": np.ones((2, 2, 4))}, ValueError, "`b` must have shape (4,), one for each output, got (2, 2, 4)"),
    ),
    *rows(
        "numpy_neuron_network.fc_backward",
        neurons.fc_backward,
        {"next_dz": np.ones((2, 4)), "W": np.ones((3, 4)), "z": np.ones((2, 3))},
        *no_array("next_dz", X),
        ({"next_dz": X}, ValueError, "`next_dz` must have the shape of the output, (2, 4), got (2, 3, 6, 6)"),
    ),
    *rows(
        "numpy_neuron_network.flatten_forward",
        neurons.flatten_forward,
        {},
        *no_array("z", X),
        ({"z": 3.0}, ValueError, "`z` must have an axis of images, got shape ()"),
    ),
    *rows(
        "numpy_neuron_network.flatten_backward",
        neurons.flatten_backward,
        {"z": X},
        *no_array("next_dz", X),
        ({"next_dz": X[0]}, ValueError, "`next_dz` must have as many elements as `z`, which is (2, 3, 6, 6), got"),
    ),
    *rows(
        "numpy_neuron_network.BaseModule",
        lambda **given: neurons.Conv2D(1, 2, name="a").load_weights(**given),
        {},
        ({"weights": None}, ValueError, "`weights` must be a dict with 'a_weight', 'a_bias'"),
        ({"weights": {"a_weight": X}}, ValueError, "`weights` must be a dict with 'a_bias'"),
    ),
    *rows(
        "numpy_neuron_network.Conv2D",
        neurons.Conv2D,
        {"in_filters": 1, "out_filters": 2},
        *integers("in_filters", 1),
        *integers("out_filters", 1),
        ({"in_filters": HUGE, "out_filters": HUGE}, ValueError, "`in_filters` is too large for an array"),
        ({"kernel": 0}, ValueError, "`kernel` must be an integer of at least 1, got 0"),
        ({"stride": (1, 0)}, ValueError, "`stride` must be an integer of at least 1, got 0"),
        ({"padding": -1}, ValueError, "`padding` must be an integer of at least 0, got -1"),
        ({"strict": 1}, TypeError, f"`strict` {BOOLEAN} 1"),
    ),
    *rows(
        "numpy_neuron_network.Conv2D",
        lambda **given: neurons.Conv2D(1, 2).update_gradient(**given),
        {},
        ({"lr": "fast"}, TypeError, "`lr` must be a finite number, got 'fast'"),
        ({"lr": NAN}, ValueError, "`lr` must be a finite number, got nan"),
    ),
    *rows(
        "numpy_neuron_network.Conv2D",
        lambda **given: neurons.Conv2D(1, 2).backward(**given),
        {},
        ({"in_gradient": X}, RuntimeError, "Conv2D.backward was called before Conv2D.forward"),
    ),
    *rows(
        "numpy_neuron_network.MaxPooling2D",
        neurons.MaxPooling2D,
        {},
        ({"kernel": (2,)}, ValueError, "`kernel` must be an int or a pair of ints, got (2,)"),
        ({"stride": NAN}, TypeError, "`stride` must be an integer of at least 1, got nan"),
        ({"ties": "last"}, ValueError, TIES),
        ({"preserve_dtype": 0}, TypeError, f"`preserve_dtype` {BOOLEAN} 0"),
    ),
    *rows(
        "numpy_neuron_network.GlobalAvgPooling2D",
        neurons.GlobalAvgPooling2D().forward,
        {},
        ({"x": X[0]}, ValueError, f"`z` {FLAT}"),
        ({"x": "image"}, TypeError, "`z` must be an array of real numbers, got str"),
    ),
]

ROWS = [*CS231N, *NEURONS]
