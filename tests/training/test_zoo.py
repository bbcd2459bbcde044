"""The ready-made networks: shapes, parameters, seeds and layouts."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from jitconv.layers import Conv2d, Dense, Dropout, Flatten
from jitconv.training import zoo

# Images that each network takes, and its parameters for ten classes, counted by hand from the papers and the book.
SIZES = {
    "simple_convnet": ((1, 28, 28), 30 * 25 + 30 + 4320 * 100 + 100 + 1010),
    "deep_convnet": (
        (1, 28, 28),
        9 * (16 + 16 * 16 + 16 * 32 + 32 * 32 + 32 * 64 + 64 * 64) + 224 + 1024 * 50 + 50 + 510,
    ),
    "vgg_cifar": ((3, 32, 32), 9 * (192 + 4096 + 8192 + 16384 + 32768 + 65536) + 896 + 2570),
    "vgg11": ((3, 32, 32), 9_220_480 + 512 * 4096 + 4096 + 4096 * 4096 + 4096 + 40970),
    "lenet": ((1, 28, 28), 61_706),
}


def test_the_table_is_complete():
    assert SIZES.keys() == zoo.MODELS.keys()


@pytest.mark.parametrize("name", SIZES)
def test_parameters(name):
    shape, count = SIZES[name]
    model = zoo.MODELS[name](seed=0, input_shape=shape, classes=10)
    assert sum(array.size for array in model.parameters.values()) == count
    assert not model.needs_input_gradient
    assert all(array.dtype == np.float32 for array in model.parameters.values())
    assert all(layer.activation == "relu" for layer in model.layers if isinstance(layer, Conv2d))


@pytest.mark.parametrize("name", ["simple_convnet", "lenet"])
def test_output_and_layouts(name, rng):
    """The same weights, the dense ones in the order of the layout, give the same logits."""
    x = rng.standard_normal((2, 1, 28, 28))
    model = zoo.MODELS[name](dtype="float64", seed=0)
    y = model(x)
    assert y.shape == (2, 10)
    other = zoo.MODELS[name](dtype="float64", seed=0, layout="NHWC")
    state = other.state()
    index = next(i for i, layer in enumerate(model.layers) if isinstance(layer, Flatten))
    h, w, c = (12, 12, 30) if name == "simple_convnet" else (5, 5, 16)
    dense = f"{index + 1}.weight"
    state[dense] = state[dense].reshape(-1, c, h, w).transpose(0, 2, 3, 1).reshape(state[dense].shape)
    other.load_state(state)
    assert_allclose(other(x.transpose(0, 2, 3, 1)), y, rtol=1e-9, atol=1e-9)


def test_seeds():
    one, same, other = (zoo.lenet(seed=seed).state() for seed in (1, 1, 2))
    for name, array in one.items():
        assert_array_equal(array, same[name])
    assert not np.array_equal(one["0.weight"], other["0.weight"])


def test_deep_convnet_drops_between_its_dense_layers():
    def kinds(**options):
        return [type(layer) for layer in zoo.deep_convnet(**options).layers[-3:]]

    assert kinds() == [Dense, Dropout, Dense]
    assert kinds(dropout=0.0) == [Flatten, Dense, Dense]


def test_other_images_and_classes(rng):
    model = zoo.lenet(dtype=np.float64, seed=0, input_shape=(3, 20, 16), classes=4)
    assert model(rng.standard_normal((2, 3, 20, 16))).shape == (2, 4)


def test_fits():
    assert {name for name in zoo.MODELS if zoo.fits(name, (1, 28, 28))} == zoo.MODELS.keys() - {"vgg11"}
    assert all(zoo.fits(name, (3, 32, 32)) for name in zoo.MODELS)
    assert not any(zoo.fits(name, (1, 3, 3)) for name in zoo.MODELS)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"input_shape": (1, 6, 6)}, ValueError, r"`input_shape` \(1, 6, 6\) is too small for lenet"),
        ({"input_shape": (28, 28)}, ValueError, r"`input_shape` must be \(channels, height, width\)"),
        ({"input_shape": (0, 28, 28)}, ValueError, "`input_shape` must be an integer of at least 1, got 0"),
        ({"classes": 0}, ValueError, "`classes` must be an integer of at least 1, got 0"),
        ({"dtype": "int8"}, TypeError, "`dtype` must be float32 or float64, got 'int8'"),
        ({"layout": "HWC"}, ValueError, "`layout` must be one of 'NCHW', 'NHWC', got 'HWC'"),
    ],
)
def test_errors(options, error, message):
    with pytest.raises(error, match=message):
        zoo.lenet(**options)
