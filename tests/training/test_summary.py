"""What a network says about itself."""

from __future__ import annotations

import re
import threading
import tracemalloc

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from jitconv.layers import BatchNorm2d, Conv2d, ConvTranspose2d, Dense, Dropout, Flatten, MaxPool2d, ReLU
from jitconv.training import Sequential, zoo


def lines_of(model, shape, capsys):
    model.summary(shape)
    return capsys.readouterr().out.splitlines()


def test_what_was_decided(capsys):
    lines = lines_of(zoo.deep_convnet(seed=0), (10, 1, 28, 28), capsys)
    rows = [re.split(r"\s{2,}", line.strip()) for line in lines[2:13]]
    assert rows[0] == ["(layout)", "(10, 28, 28, 1)", "to NHWC"]
    assert rows[1][:5] == ["Conv2d", "(10, 28, 28, 16)", "160", "2.3", "ReLU"]
    assert rows[1][5].startswith("direct")
    assert rows[2][:5] == ["Conv2d + MaxPool2d", "(10, 14, 14, 16)", "2,320", "36.1", "ReLU, pooling"]
    assert rows[8] == ["Flatten", "(10, 1024)"]
    assert lines[-2].startswith("123,552 parameters, 0.175 GFLOP")


def test_the_algorithm_follows_the_layer(capsys):
    model = Sequential([Conv2d(16, 16, 3, padding=1, algorithm="im2col", seed=0)])
    assert "im2col" in lines_of(model, (2, 16, 12, 12), capsys)[3]


def test_every_layer_has_a_row(capsys):
    model = Sequential(
        [
            Conv2d(2, 4, 3, bias=False, seed=0),
            BatchNorm2d(4),
            ReLU(),
            ConvTranspose2d(4, 3, 2, 2, seed=0),
            MaxPool2d(2),
            Dropout(0.5, seed=0),
            Flatten(),
            Dense(3 * 36, 2, seed=0),
        ]
    )
    state = model.state()
    text = "\n".join(lines_of(model, (5, 2, 8, 8), capsys))
    for layer in model.layers:
        assert type(layer).__name__ in text
    for name, array in model.state().items():  # the network itself has run no step
        assert_array_equal(array, state[name])


@pytest.mark.parametrize(("name", "shape"), [("vgg_cifar", (16, 3, 32, 32)), ("deep_convnet", (50, 1, 28, 28))])
def test_the_memory_of_a_step_is_what_is_measured(name, shape, capsys):
    model = getattr(zoo, name)(seed=0)
    said = float(re.search(r"peak memory of a step: ([\d.]+) MiB", "\n".join(lines_of(model, shape, capsys)))[1])
    measured = []

    def step():  # in a Python thread of its own, which has no scratch yet
        tracemalloc.start()
        try:
            fresh = getattr(zoo, name)(seed=0)
            x = np.zeros(shape, np.float32)
            for _ in range(2):
                fresh.backward(fresh(x))
            measured.append(tracemalloc.get_traced_memory()[1] / 2**20)
        finally:
            tracemalloc.stop()

    thread = threading.Thread(target=step)
    thread.start()
    thread.join()
    assert measured[0] == pytest.approx(said, rel=0.2)


@pytest.mark.parametrize(
    ("shape", "error", "message"),
    [
        ((2, 3, 28, 28), ValueError, "input channels"),
        (5, TypeError, "`x_shape` must be a tuple"),
        ((2, 1, -1, 28), ValueError, "`x_shape`"),
        ((2, 1, 4, 4), ValueError, "x"),
    ],
)
def test_a_shape_that_does_not_fit(shape, error, message):
    with pytest.raises(error, match=message):
        zoo.simple_convnet(seed=0).summary(shape)
