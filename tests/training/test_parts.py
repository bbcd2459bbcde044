"""Batches in parts, without MPI: layers and losses of a part are those of its place in the whole."""

from __future__ import annotations

import itertools
import threading

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from jitconv.layers import (
    AvgPool2d,
    BatchNorm2d,
    Conv2d,
    ConvTranspose2d,
    Dense,
    Dropout,
    Flatten,
    GlobalAvgPool2d,
    GlobalMaxPool2d,
    MaxPool2d,
    ReLU,
)
from jitconv.layers.base import Part
from jitconv.training import Sequential, softmax_cross_entropy


class Meeting:
    """Sums over Python threads, each of which computes a part."""

    def __init__(self, parts):
        self._barrier = threading.Barrier(parts, timeout=60)
        self._parts = [None] * parts

    def add_up(self, index):
        def add(a):
            self._parts[index] = a.copy()
            self._barrier.wait()
            a[...] = sum(self._parts)
            self._barrier.wait()

        return add

    def run(self, work):
        """Return what work(index) returns, called in a thread for each part."""
        found = [None] * len(self._parts)

        def do(index):
            try:
                found[index] = work(index)
            except Exception:
                self._barrier.abort()
                raise

        threads = [threading.Thread(target=do, args=(index,)) for index in range(len(found))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return found


@pytest.mark.parametrize("ends", [(0, 3, 7), (0, 7, 7), (0, 1, 1, 7)])
@pytest.mark.parametrize("activation", [None, "relu"])
def test_synchronised_normalisation(ends, activation, layout, dtype, rng):
    """In float64 so far from zero that a sum of squares would cancel."""
    x = (rng.standard_normal((7, 5, 3, 4)) + (3 if dtype == np.float32 else 1e5)).astype(dtype)
    dy = rng.standard_normal(x.shape).astype(dtype)
    if layout == "NHWC":
        x, dy = (np.ascontiguousarray(a.transpose(0, 2, 3, 1)) for a in (x, dy))
    weight, bias = rng.uniform(0.5, 2, 5), rng.uniform(-1, 1, 5)

    def layer():
        made = BatchNorm2d(5, sync=True, layout=layout, dtype=dtype)
        made.parameters["weight"][...], made.parameters["bias"][...] = weight, bias
        return made

    whole = layer()
    y, dx = whole.forward_with(layout, x, activation), whole.backward(dy)
    parts, meeting = [layer() for _ in ends[1:]], Meeting(len(ends) - 1)

    def work(index):
        first, past = ends[index : index + 2]
        parts[index].part = Part(first, meeting.add_up(index))
        return parts[index].forward_with(layout, x[first:past], activation), parts[index].backward(dy[first:past])

    done = meeting.run(work)
    rtol = 2e-5 if dtype == np.float32 else 1e-9
    near = {"rtol": rtol, "atol": rtol}
    assert_allclose(np.concatenate([y for y, _ in done]), y, **near)
    assert_allclose(np.concatenate([dx for _, dx in done]), dx, **near)
    for name, a in whole.gradients.items():
        assert_allclose(sum(part.gradients[name] for part in parts), a, **near, err_msg=name)
    for part in parts:
        for name, a in whole.buffers.items():
            assert_allclose(part.buffers[name], a, **near, err_msg=name)


def test_synchronised_alone_is_the_same_bits(layout, rng):
    x, dy = rng.standard_normal((2, 4, 3, 3, 3)).astype(np.float32)
    plain, synchronised = BatchNorm2d(3, layout=layout), BatchNorm2d(3, sync=True, layout=layout)
    assert_array_equal(plain(x), synchronised(x))
    assert_array_equal(plain.backward(dy), synchronised.backward(dy))


def test_a_part_without_images_leaves_statistics_alone(layout):
    layer = BatchNorm2d(3, layout=layout)
    layer.part = Part(4, lambda a: pytest.fail("summed"))
    before = {name: a.copy() for name, a in layer.buffers.items()}
    empty = np.zeros((0, 3, 3, 3), np.float32)
    assert layer(empty).shape == layer.backward(empty).shape == empty.shape
    for name, a in layer.buffers.items():
        assert_array_equal(a, before[name])
    layer.part = None
    with pytest.raises(ValueError, match="training needs at least 2"):
        layer(empty)


@pytest.mark.parametrize("ends", [(0, 3, 7), (0, 7, 7), (0, 1, 1, 7)])
def test_dropout_of_a_part_is_that_of_the_whole(ends, dtype, rng):
    x = rng.standard_normal((7, 11, 130)).astype(dtype)
    whole = Dropout(0.4, seed=1)
    y, dx = whole(x), whole.backward(x)
    assert 0.3 < np.mean(y == 0) < 0.5
    for first, past in itertools.pairwise(ends):
        layer = Dropout(0.4, seed=1)
        layer.part = Part(first, None)
        assert_array_equal(layer(x[first:past]), y[first:past])
        assert_array_equal(layer.backward(x[first:past]), dx[first:past])


def test_losses_of_parts_add_up(dtype, rng):
    logits, labels = rng.standard_normal((9, 4)).astype(dtype), rng.integers(0, 4, 9)
    loss, dlogits = softmax_cross_entropy(logits, labels)
    parts = [softmax_cross_entropy(logits[part], labels[part], total=9) for part in np.split(np.arange(9), (4, 4))]
    assert_allclose(sum(part.value for part in parts), loss, rtol=1e-6)
    assert_array_equal(np.concatenate([part.dlogits for part in parts]), dlogits)
    with pytest.raises(ValueError, match="`total` must be an integer of at least 9, got 8"):
        softmax_cross_entropy(logits, labels, total=8)


LAYERS = {
    "convolution": lambda o: Conv2d(4, 6, 3, padding=1, activation="relu", seed=0, **o),
    "1x1": lambda o: Conv2d(4, 6, 1, seed=0, **o),
    "groups": lambda o: Conv2d(4, 8, 3, groups=2, seed=0, **o),
    "depthwise": lambda o: Conv2d(4, 4, 3, groups=4, seed=0, **o),
    "stride": lambda o: Conv2d(4, 6, 3, stride=2, seed=0, **o),
    "transposed": lambda o: ConvTranspose2d(4, 6, 3, seed=0, **o),
    "maximum": lambda o: MaxPool2d(2, layout=o["layout"]),
    "average": lambda o: AvgPool2d(2, layout=o["layout"]),
    "global average": lambda o: GlobalAvgPool2d(layout=o["layout"]),
    "global maximum": lambda o: GlobalMaxPool2d(layout=o["layout"]),
    "ReLU": lambda o: ReLU(),
    "dropout": lambda o: Dropout(0.5, seed=0),
}


@pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)
def test_no_images_leave_no_gradients(make, layout, dtype):
    layer = make({"layout": layout, "dtype": dtype})
    for gradient in layer.gradients.values():
        gradient[...] = np.nan
    x = np.zeros((0, 4, 8, 8) if layout == "NCHW" else (0, 8, 8, 4), dtype)
    y = layer(x)
    assert len(y) == 0
    assert layer.backward(np.zeros_like(y)).shape == x.shape
    for gradient in layer.gradients.values():
        assert not gradient.any()


def test_no_images_leave_no_gradients_in_a_network(layout):
    o = {"layout": layout, "seed": 0}
    layers = [Conv2d(3, 16, 3, activation="relu", **o), MaxPool2d(2, layout=layout), Conv2d(16, 16, 3, **o), ReLU()]
    model = Sequential([*layers, Flatten(), Dense(64, 5, seed=0)], needs_input_gradient=False)
    for gradient in model.gradients.values():
        gradient[...] = np.nan
    x = np.zeros((0, 3, 10, 10) if layout == "NCHW" else (0, 10, 10, 3), np.float32)
    loss, dlogits = softmax_cross_entropy(model(x), np.zeros(0, int), total=3)
    assert loss == 0
    model.backward(dlogits)
    for name, gradient in model.gradients.items():
        assert not gradient.any(), name
