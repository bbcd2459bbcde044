"""Arrays as callers have them: of subclasses, without elements, read-only, overlapping, unaligned. All work right."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.lib.stride_tricks import as_strided
from numpy.testing import assert_array_equal
from views import VIEWS

import jitconv
from jitconv import layers
from jitconv.training import softmax_cross_entropy


def of_a_buffer(a):
    """Return an array in bytes that nobody may write, one byte off."""
    return np.frombuffer(b"\x00" + a.tobytes(), a.dtype, a.size, 1).reshape(a.shape)


def memory_mapped(a, folder):
    """Return an array in a file that is mapped read-only."""
    path = folder / f"{a.size}.bin"
    path.write_bytes(a.tobytes())
    return np.memmap(path, a.dtype, "r", shape=a.shape)


def overlapping(a):
    """Return an array whose rows overlap: each begins one element after the one before."""
    line = a.ravel()[: a.shape[-1] + a.size // a.shape[-1] - 1].copy()
    rows = as_strided(line, (a.size // a.shape[-1], a.shape[-1]), (a.itemsize, a.itemsize), writeable=False)
    return rows.reshape(a.shape) if a.ndim <= 2 else as_strided(line, a.shape, _steps(a), writeable=False)


def _steps(a):
    """Return strides by which each row lies one element after the one before."""
    steps, count = [a.itemsize], 1
    for length in a.shape[-2::-1]:
        steps.insert(0, count * a.itemsize)
        count *= length
    return tuple(steps)


def repeated(a):
    """Return an array of which all entries of the first axis are one, in the same memory."""
    return np.broadcast_to(a[:1], a.shape)


ODD = {**VIEWS, "a buffer": of_a_buffer, "overlapping": overlapping, "repeated": repeated}


def run_layer(make, x):
    layer = make()
    y = layer.forward(x)
    return y, layer.backward(y), *layer.gradients.values()


def images(rng, *shape):
    return rng.standard_normal(shape).astype(np.float32)


OTHERS = ("depthwise", "softmax_cross_entropy")  # which need channels, or images
# What is called, the shapes of its arrays, and its other arguments.
CALLS = {
    "conv2d": (jitconv.conv2d, {"x": (2, 4, 8, 9), "w": (6, 4, 3, 3), "b": (6,)}, {"padding": 1}),
    "conv2d, NHWC": (jitconv.conv2d, {"x": (2, 8, 9, 4), "w": (6, 4, 3, 3)}, {"layout": "NHWC"}),
    "conv2d, kept": (jitconv.conv2d, {"x": (2, 9, 8, 9), "w": (99, 9, 3, 3)}, {"kept": jitconv.KeptWeights()}),
    "depthwise": (jitconv.conv2d, {"x": (2, 8, 8, 9), "w": (8, 1, 3, 3)}, {"groups": 8}),
    "conv2d_backward": (jitconv.conv2d_backward, {"dy": (2, 6, 6, 7), "x": (2, 4, 8, 9), "w": (6, 4, 3, 3)}, {}),
    "conv_transpose2d": (jitconv.conv_transpose2d, {"x": (2, 4, 5, 6), "w": (4, 3, 3, 3), "b": (3,)}, {"stride": 2}),
    "conv_transpose2d_backward": (
        jitconv.conv_transpose2d_backward, {"dy": (2, 3, 7, 8), "x": (2, 4, 5, 6), "w": (4, 3, 3, 3)}, {},
    ),
    "max_pool2d": (jitconv.max_pool2d, {"x": (2, 4, 8, 9)}, {"kernel": 3}),
    "max_pool2d_with_argmax": (jitconv.max_pool2d_with_argmax, {"x": (2, 8, 9, 4)}, {"kernel": 3, "layout": "NHWC"}),
    "max_pool2d_backward": (
        jitconv.max_pool2d_backward, {"dy": (2, 4, 4, 4), "argmax": (2, 4, 4, 4)},
        {"x_shape": (2, 4, 8, 9), "kernel": 2},
    ),
    "avg_pool2d": (jitconv.avg_pool2d, {"x": (2, 4, 8, 9)}, {"kernel": 3, "padding": 1}),
    "avg_pool2d_backward": (jitconv.avg_pool2d_backward, {"dy": (2, 4, 4, 4)}, {"x_shape": (2, 4, 8, 9), "kernel": 2}),
    "global_avg_pool2d": (jitconv.global_avg_pool2d, {"x": (2, 4, 8, 9)}, {}),
    "global_max_pool2d": (jitconv.global_max_pool2d, {"x": (2, 4, 8, 9)}, {}),
    "global_avg_pool2d_backward": (jitconv.global_avg_pool2d_backward, {"dy": (2, 4, 1, 1)}, {"x_shape": (2, 4, 8, 9)}),
    "im2col": (jitconv.im2col, {"x": (2, 4, 8, 9)}, {"kernel": 3}),
    "col2im": (jitconv.col2im, {"columns": (84, 36)}, {"x_shape": (2, 4, 8, 9), "kernel": 3}),
    "Conv2d": (run_layer, {"x": (2, 4, 8, 9)}, {"make": lambda: layers.Conv2d(4, 6, 3, activation="relu", seed=0)}),
    "Dense": (run_layer, {"x": (5, 9)}, {"make": lambda: layers.Dense(9, 4, seed=0)}),
    "BatchNorm2d": (run_layer, {"x": (2, 4, 8, 9)}, {"make": lambda: layers.BatchNorm2d(4)}),
    "MaxPool2d": (run_layer, {"x": (2, 4, 8, 9)}, {"make": lambda: layers.MaxPool2d(2)}),
    "Flatten": (run_layer, {"x": (2, 4, 8, 9)}, {"make": layers.Flatten}),
    "ReLU": (run_layer, {"x": (2, 4, 8, 9)}, {"make": layers.ReLU}),
    "Dropout": (run_layer, {"x": (2, 4, 8, 9)}, {"make": lambda: layers.Dropout(seed=0)}),
    "softmax_cross_entropy": (softmax_cross_entropy, {"logits": (4, 3)}, {"labels": np.array([0, 2, 1, 1])}),
}  # fmt: skip


def arrays_of(name, rng):
    """Return plain arrays for a call."""
    _, shapes, _ = CALLS[name]
    made = {one: images(rng, *shape) for one, shape in shapes.items()}
    if "argmax" in made:
        made["argmax"] = rng.integers(0, 4, made["argmax"].shape).astype(np.uint8)
    return made


def results_of(name, arrays):
    function, _, options = CALLS[name]
    result = function(**arrays, **options)
    return list(result) if isinstance(result, tuple) else [result]


def assert_works(name, odd):
    """Assert that odd arrays give the bits that plain ones of the same values give, and stay as they are."""
    before = {one: a.tobytes() for one, a in odd.items()}
    expected = results_of(name, {one: np.array(a, order="C", subok=False) for one, a in odd.items()})
    for got, right in zip(results_of(name, odd), expected, strict=True):
        assert_array_equal(np.asarray(got), np.asarray(right))
        assert not isinstance(got, np.ndarray) or type(got) is np.ndarray or name == "Dropout"
    assert {one: a.tobytes() for one, a in odd.items()} == before


@pytest.mark.parametrize("kind", ODD)
@pytest.mark.parametrize("name", CALLS)
def test_every_memory_gives_the_same_bits(name, kind, rng):
    plain = arrays_of(name, rng)
    for one, a in plain.items():
        assert_works(name, plain | {one: ODD[kind](a)})
    assert_works(name, {one: ODD[kind](a) for one, a in plain.items()})


@pytest.mark.parametrize("name", CALLS)
def test_files_that_are_mapped_read_only(name, rng, tmp_path):
    assert_works(name, {one: memory_mapped(a, tmp_path) for one, a in arrays_of(name, rng).items()})


@pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")
@pytest.mark.parametrize("name", ["col2im", "Dense", "softmax_cross_entropy"])
def test_matrices(name, rng):
    odd = {one: np.asmatrix(a) for one, a in arrays_of(name, rng).items()}
    assert_works(name, odd)


@pytest.mark.parametrize("name", [name for name in CALLS if "conv" not in name and name not in OTHERS])
@pytest.mark.parametrize("axis", [0, 1])
def test_without_images_or_channels_the_results_are_empty(name, axis, rng):
    function, _, options = CALLS[name]
    plain = arrays_of(name, rng)
    layout = options.get("layout", "NCHW")
    fixed = name in ("Conv2d", "Dense", "BatchNorm2d")
    if fixed or (name == "col2im" and axis) or (axis and layout == "NHWC"):
        axis = 0
    cut = {one: a[(slice(None),) * axis + (slice(0, 0),)] for one, a in plain.items()}
    if "x_shape" in options:
        shape = list(options["x_shape"])
        shape[axis] = 0
        options = options | {"x_shape": tuple(shape)}
    if name == "BatchNorm2d":
        with pytest.raises(ValueError, match="`x` has 0 values for each channel"):
            function(**cut, **options)
        return
    results = function(**cut, **options)
    first = results[0] if isinstance(results, tuple) else results
    assert first.size == 0
    assert first.dtype == np.float32


@pytest.mark.parametrize("name", ["conv2d", "conv_transpose2d"])
def test_no_images_give_no_results(name, rng):
    function, _, options = CALLS[name]
    plain = arrays_of(name, rng)
    assert function(**plain | {"x": plain["x"][:0]}, **options).shape[0] == 0


@pytest.mark.parametrize("layer", [layers.ReLU(), layers.Dropout(seed=0)])
def test_arrays_without_axes(layer):
    x = np.array(-1.5)
    y = layer.forward(x)
    assert y.shape == layer.backward(y).shape == ()


@pytest.mark.parametrize("flags", [False, True])
def test_what_a_layer_hands_on_may_be_written_only_if_its_input_may(flags, rng):
    """Flatten, and Dropout after `eval`, hand on the memory of their input."""
    x = images(rng, 2, 3, 4, 5)
    x.flags.writeable = flags
    y = layers.Flatten().forward(x)
    assert np.shares_memory(x, y)
    assert y.flags.writeable == flags
    assert layers.Dropout().eval().forward(x) is x
