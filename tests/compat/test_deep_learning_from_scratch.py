"""The book's layers: against a NumPy model of them, against jitconv's functions, and in its two networks."""

from __future__ import annotations

import importlib.util
import inspect
import pathlib

import numpy as np
import pytest
from models import deep_learning_from_scratch as model
from numpy.testing import assert_allclose, assert_array_equal

import jitconv
from jitconv.compat import deep_learning_from_scratch as book

EXAMPLE = pathlib.Path(__file__).parents[2] / "examples" / "deep_learning_from_scratch.py"

# Shapes of x and W, stride, pad; windows that do not fill the image, too.
CONVOLUTIONS = [
    ((2, 1, 8, 8), (3, 1, 5, 5), 1, 0),
    ((3, 4, 7, 9), (5, 4, 3, 3), 1, 1),
    ((2, 3, 8, 7), (4, 3, 3, 2), 2, 1),
    ((1, 2, 9, 9), (2, 2, 2, 3), 3, 0),
    ((2, 2, 6, 6), (3, 2, 1, 1), 1, 2),
]
# Shape of x, window, stride.
POOLINGS = [
    ((2, 3, 8, 8), (2, 2), 2),
    ((2, 3, 7, 7), (3, 3), 2),
    ((1, 2, 9, 8), (2, 3), 1),
    ((2, 2, 9, 9), (2, 2), 3),
]


def names_of(function):
    return [(one.name, one.default) for one in inspect.signature(function).parameters.values() if one.kind != 3]


def assert_fresh(a, *others):
    assert type(a) is np.ndarray
    assert a.flags.writeable
    assert not any(np.shares_memory(a, other) for other in others)


def close(actual, expected):
    assert_allclose(actual, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", ["Convolution", "Pooling", "im2col", "col2im"])
def test_signatures_are_the_originals(name):
    assert names_of(getattr(book, name)) == names_of(getattr(model, name))


def test_older_copies_pool_with_a_stride_of_one(rng):
    x = rng.standard_normal((1, 2, 5, 5))
    assert_array_equal(book.OlderPooling(2, 2).forward(x), book.Pooling(2, 2, stride=1).forward(x))
    assert book.OlderPooling(2, 2, 2, ties="all").forward(x).shape == (1, 2, 2, 2)


@pytest.mark.parametrize("case", CONVOLUTIONS, ids=str)
def test_convolution_matches_the_model_and_the_library(case, rng):
    x_shape, w_shape, stride, pad = case
    x, w, b = (rng.standard_normal(shape) for shape in (x_shape, w_shape, w_shape[0]))
    ours, theirs = book.Convolution(w, b, stride, pad), model.Convolution(w, b, stride, pad)
    for layer in (ours, theirs):
        assert (layer.x, layer.col, layer.col_W, layer.dW, layer.db) == (None,) * 5
    y, expected = ours.forward(x), theirs.forward(x)
    close(y, expected)
    assert_array_equal(y, jitconv.conv2d(x, w, b, stride=stride, padding=pad))
    dout = rng.standard_normal(y.shape)
    before = [a.copy() for a in (x, w, b, dout)]
    dx = ours.backward(dout)
    close(dx, theirs.backward(dout))
    gradients = jitconv.conv2d_backward(dout, x, w, stride=stride, padding=pad)
    for actual, exact, name in zip((dx, ours.dW, ours.db), gradients, (None, "dW", "db"), strict=True):
        assert_array_equal(actual, exact)
        assert_fresh(actual, x, w, b, dout)
        if name:
            close(actual, getattr(theirs, name))
    assert ours.x is x
    close(ours.col, theirs.col)
    assert_array_equal(ours.col_W, theirs.col_W)
    assert np.shares_memory(ours.col_W, w)
    assert_fresh(y, x, w, b)
    for a, copy in zip((x, w, b, dout), before, strict=True):
        assert_array_equal(a, copy)


@pytest.mark.parametrize("case", POOLINGS, ids=str)
def test_pooling_matches_the_model_and_the_library(case, tied, rng):
    shape, window, stride = case
    x = tied(*shape)
    ours, theirs = book.Pooling(*window, stride), model.Pooling(*window, stride)
    assert ours.x is None
    assert ours.arg_max is None
    y = ours.forward(x)
    assert_array_equal(y, theirs.forward(x))
    expected, argmax = jitconv.max_pool2d_with_argmax(x, window, stride=stride)
    assert_array_equal(y, expected)
    assert ours.x is x
    assert ours.arg_max.dtype == theirs.arg_max.dtype
    assert_array_equal(ours.arg_max, theirs.arg_max)
    dout = rng.standard_normal(y.shape)
    dx = ours.backward(dout)
    close(dx, theirs.backward(dout))
    assert_array_equal(dx, jitconv.max_pool2d_backward(dout, argmax, x.shape, window, stride=stride))
    assert_fresh(y, x)
    assert_fresh(dx, dout)


@pytest.mark.parametrize("rule", ["all", "split"])
def test_pooling_can_give_ties_to_others(rule):
    layer = book.Pooling(2, 2, ties=rule)
    layer.forward(np.array([[[[1.0, 1.0], [0.0, 1.0]]]]))
    part = 1.0 if rule == "all" else 1 / 3
    close(layer.backward(np.ones((1, 1, 1, 1))), [[[[part, part], [0.0, part]]]])
    assert_array_equal(layer.arg_max, [0])


@pytest.mark.parametrize("case", CONVOLUTIONS, ids=str)
def test_columns_match_the_model(case, rng):
    shape, (_, _, h, w), stride, pad = case
    x = rng.standard_normal(shape)
    col = book.im2col(x, h, w, stride, pad)
    assert_array_equal(col, model.im2col(x, h, w, stride, pad))
    gradient = rng.standard_normal(col.shape)
    image = book.col2im(gradient, shape, h, w, stride, pad)
    close(image, model.col2im(gradient, shape, h, w, stride, pad))
    assert_array_equal(book.col2im(gradient.reshape(-1, h * w), shape, h, w, stride, pad), image)
    assert_fresh(image, gradient)


def test_a_bias_is_what_numpy_would_add(rng):
    x, w = rng.standard_normal((2, 1, 5, 5)), rng.standard_normal((3, 1, 3, 3))
    for b in (0, 0.5, np.ones((1, 3)), np.ones(1), [1, 2, 3]):
        close(book.Convolution(w, b).forward(x), model.Convolution(w, b).forward(x))
    with pytest.raises(ValueError, match=r"`b` must have shape \(3,\)"):
        book.Convolution(w, np.zeros((3, 1))).forward(x)


class TestLiveWeights:
    """Nothing that was computed from the weights may outlive them."""

    @pytest.fixture
    def layers(self, rng):
        w, b = rng.standard_normal((16, 16, 3, 3)), rng.standard_normal(16)
        return book.Convolution(w, b, 1, 1), model.Convolution(w, b, 1, 1)

    @pytest.fixture
    def x(self, rng):
        return rng.standard_normal((2, 16, 8, 8))

    def same(self, layers, x):
        ours, theirs = layers
        y = ours.forward(x)
        close(y, theirs.forward(x))
        close(ours.backward(y), theirs.backward(y))
        close(ours.dW, theirs.dW)

    def test_changed_in_place(self, layers, x):
        self.same(layers, x)
        layers[0].W -= 0.1 * layers[0].dW  # both layers have this array
        layers[0].b *= 2
        self.same(layers, x)

    def test_replaced(self, layers, x):
        self.same(layers, x)
        w = layers[0].W[::-1] + 1
        for layer in layers:
            layer.W, layer.b = w, np.ones(16)
        self.same(layers, x)

    def test_single_elements(self, layers, x):
        for place in ((0, 0, 0, 0), (15, 15, 2, 2), (7, 3, 1, 0)):
            layers[0].W[place] += 1e-4
            self.same(layers, x)

    def test_between_forward_and_backward(self, layers, x, rng):
        """As in the book, backward sees what was changed in place, and not what replaced the weights."""
        ours, theirs = layers
        y = ours.forward(x)
        theirs.forward(x)
        ours.W *= 0.5
        close(ours.backward(y), theirs.backward(y))
        for layer in layers:
            layer.W = np.zeros_like(layer.W)
        close(ours.backward(y), theirs.backward(y))

    def test_stride_and_pad_too(self, layers, x):
        for layer in layers:
            layer.stride, layer.pad = 2, 0
        self.same(layers, x)


def test_x_must_stay_as_it_was(rng):
    """The book's layer keeps a copy of x, in its columns; this one would return a wrong dW."""
    x, layer = rng.standard_normal((2, 1, 8, 8)), book.Convolution(np.ones((2, 1, 3, 3)), np.zeros(2))
    y = layer.forward(x)
    x += 1
    with pytest.raises(RuntimeError, match="`x` was changed between the forward and the backward pass"):
        layer.backward(y)
    x -= 1
    x[...] = 0
    layer.forward(x.astype(np.float32))  # converted, so that there is a copy
    layer.backward(y)


@pytest.mark.parametrize("kind", [np.float32, np.float16, np.int64, np.uint8, bool])
def test_everything_is_float64(kind, rng):
    x, w, b = (rng.integers(0, 2, shape).astype(kind) for shape in ((2, 1, 6, 6), (3, 1, 3, 3), 3))
    convolution, pooling = book.Convolution(w, b), book.Pooling(2, 2)
    y = convolution.forward(x)
    z = pooling.forward(x)
    dout = np.ones(y.shape, kind)
    results = [
        y,
        z,
        convolution.backward(dout),
        convolution.dW,
        convolution.db,
        pooling.backward(np.ones(z.shape, kind)),
    ]
    results += [convolution.col, book.im2col(x, 3, 3), book.col2im(np.ones((32, 9), kind), (2, 1, 6, 6), 3, 3)]
    assert [a.dtype for a in results] == [np.float64] * len(results)
    close(y, model.Convolution(w, b).forward(x))
    assert convolution.x is x


def test_lists_are_accepted(rng):
    x, w = rng.standard_normal((1, 1, 4, 4)), rng.standard_normal((2, 1, 3, 3))
    layer = book.Convolution(w.tolist(), [0, 0])
    close(layer.forward(x.tolist()), model.Convolution(w, 0).forward(x))
    assert layer.backward(np.ones((1, 2, 2, 2)).tolist()).shape == x.shape
    assert layer.col_W.shape == (9, 2)
    assert book.Pooling(2, 2).forward(x.tolist()).dtype == np.float64


def test_float32_is_kept_if_asked(rng):
    x, w, b = (rng.standard_normal(shape, np.float32) for shape in ((2, 1, 6, 6), (3, 1, 3, 3), 3))
    convolution, pooling = book.Convolution(w, b, preserve_dtype=True), book.Pooling(2, 2, preserve_dtype=True)
    y = convolution.forward(x)
    z = pooling.forward(x)
    results = [y, z, convolution.backward(y.astype(np.float64)), convolution.dW, convolution.db]
    results += [pooling.backward(z), convolution.col, book.im2col(x, 3, 3, preserve_dtype=True)]
    results += [book.col2im(convolution.col, x.shape, 3, 3, preserve_dtype=True)]
    assert [a.dtype for a in results] == [np.float32] * len(results)
    assert book.Convolution(w.astype(np.float64), b, preserve_dtype=True).forward(x).dtype == np.float64


class TestLedger:
    """What the original does, and what this does: a row of docs/compat/README.md each."""

    def test_pooling_pads_with_zeros_that_win(self):
        x = np.full((1, 1, 3, 3), -1.0)
        assert_array_equal(model.Pooling(3, 3, 3, 1).forward(x), np.zeros((1, 1, 1, 1)))
        assert_array_equal(book.Pooling(3, 3, 3, 1, strict=True).forward(x), np.zeros((1, 1, 1, 1)))
        assert_array_equal(book.Pooling(3, 3, 3, 1).forward(x), np.full((1, 1, 1, 1), -1.0))

    def test_pooling_that_pads_gives_its_gradient_to_the_padding(self, rng):
        x = rng.standard_normal((2, 3, 6, 6))
        ours, theirs = book.Pooling(4, 4, 5, 1, strict=True), model.Pooling(4, 4, 5, 1)
        right = book.Pooling(4, 4, 5, 1)
        y = ours.forward(x)
        assert_array_equal(y, theirs.forward(x))
        dout = rng.standard_normal(y.shape)
        close(ours.backward(dout), theirs.backward(dout))
        assert_array_equal(ours.arg_max, theirs.arg_max)
        right.forward(x)
        close(right.backward(dout).sum(), dout.sum())

    def test_poolings_size_takes_no_account_of_its_padding(self, rng):
        x = rng.standard_normal((1, 1, 4, 4))
        with pytest.raises(ValueError):
            model.Pooling(2, 2, 2, 1).forward(x)
        with pytest.raises(ValueError, match=r"`pad`=1 makes 3x3 windows.*2x2"):
            book.Pooling(2, 2, 2, 1, strict=True).forward(x)
        y = book.Pooling(2, 2, 2, 1).forward(x)
        assert_array_equal(y, jitconv.max_pool2d(x, 2, stride=2, padding=1))

    @pytest.mark.parametrize("case", CONVOLUTIONS, ids=str)
    def test_col2im_of_some_copies_assigns(self, case, rng):
        shape, (_, _, h, w), stride, pad = case
        col = rng.standard_normal(model.im2col(np.zeros(shape), h, w, stride, pad).shape)
        faulty = model.col2im(col, shape, h, w, stride, pad, assigns=True)
        assert_array_equal(book.col2im(col, shape, h, w, stride, pad, strict=True), faulty)
        assert_array_equal(book.col2im(col, shape, h, w, stride, pad, strict="assigns"), faulty)
        close(book.col2im(col, shape, h, w, stride, pad), model.col2im(col, shape, h, w, stride, pad))

    def test_layers_of_such_copies(self, tied, rng):
        x, w, b = tied(2, 3, 7, 7), rng.standard_normal((4, 3, 3, 3)), rng.standard_normal(4)
        for strict, assigns in ((False, False), (True, False), ("assigns", True)):
            for ours, theirs in (
                (book.Convolution(w, b, 1, 1, strict=strict), model.Convolution(w, b, 1, 1, assigns=assigns)),
                (book.Pooling(3, 3, 2, strict=strict), model.Pooling(3, 3, 2, assigns=assigns)),
            ):
                dout = rng.standard_normal(ours.forward(x).shape)
                theirs.forward(x)
                close(ours.backward(dout), theirs.backward(dout))


class TestBadInput:
    def test_shapes(self, rng):
        layer = book.Convolution(np.zeros((2, 3, 3, 3)), np.zeros(2))
        with pytest.raises(ValueError, match=r"`x` must have the axes \(N, C, H, W\), got shape \(3, 8, 8\)"):
            layer.forward(np.zeros((3, 8, 8)))
        with pytest.raises(ValueError, match="`W` has 3 input channels, but `x` has 4"):
            layer.forward(np.zeros((1, 4, 8, 8)))
        with pytest.raises(ValueError, match="`W` spans 3x3 pixels"):
            layer.forward(np.zeros((1, 3, 2, 2)))
        layer.forward(np.zeros((1, 3, 8, 8)))
        with pytest.raises(ValueError, match=r"`dout` must have shape \(1, 2, 6, 6\), got \(1, 2, 5, 6\)"):
            layer.backward(np.zeros((1, 2, 5, 6)))
        with pytest.raises(ValueError, match=r"`W` must have the axes \(FN, C, FH, FW\)"):
            book.Convolution(np.zeros((2, 27)), np.zeros(2)).forward(np.zeros((1, 3, 8, 8)))
        with pytest.raises(ValueError, match="`col` must have 4 "):
            book.col2im(np.zeros((3, 4)), (1, 1, 4, 4), 2, 2, 2)
        pooling = book.Pooling(2, 2)
        pooling.forward(np.zeros((1, 3, 8, 8)))
        with pytest.raises(ValueError, match=r"`dout` must have shape \(1, 3, 4, 4\)"):
            pooling.backward(np.zeros((1, 3, 8, 8)))

    def test_options(self):
        x = np.zeros((1, 1, 4, 4))
        with pytest.raises(TypeError, match=r"`stride` must be an integer of at least 1, got 1\.5"):
            book.Convolution(np.zeros((1, 1, 2, 2)), 0, stride=1.5).forward(x)
        with pytest.raises(ValueError, match="`pad` must be an integer of at least 0"):
            book.Convolution(np.zeros((1, 1, 2, 2)), 0, pad=-1).forward(x)
        with pytest.raises(ValueError, match="`pad` must be at most half the window, 2x2, got 2"):
            book.Pooling(2, 2, pad=2).forward(x)
        with pytest.raises(ValueError, match="`filter_h` must be an integer of at least 1"):
            book.im2col(x, 0, 2)
        with pytest.raises(ValueError, match="`ties` must be one of"):
            book.Pooling(2, 2, ties="last")
        with pytest.raises(ValueError, match="`strict` must be one of 'assigns'"):
            book.Convolution(np.zeros((1, 1, 2, 2)), 0, strict="all")
        with pytest.raises(ValueError, match="`ties` must be 'first' with `strict`='assigns'"):
            book.Pooling(2, 2, ties="all", strict="assigns")

    def test_values(self):
        with pytest.raises(TypeError, match="`x` must be an array of real numbers"):
            book.Pooling(2, 2).forward(np.zeros((1, 1, 4, 4), complex))

    @pytest.mark.parametrize("layer", [book.Convolution(np.zeros((1, 1, 2, 2)), 0), book.Pooling(2, 2)])
    def test_backward_needs_forward(self, layer):
        with pytest.raises(RuntimeError, match=r"backward was called before .*forward"):
            layer.backward(np.zeros((1, 1, 2, 2)))


def loaded(name):
    """Return the example as a module of its own, whose import can be changed."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("network", ["simple", "deep"])
def test_networks_train_alike(network, rng):
    """Ten steps of the example's networks; what differs is the import alone."""
    plain, fast = loaded("plain"), loaded("fast")
    plain.Convolution, plain.Pooling = model.Convolution, model.Pooling
    networks = [module.NETWORKS[network](np.random.default_rng(5)) for module in (plain, fast)]
    optimizers = [plain.Adam(), fast.Adam()]
    x, t = rng.random((6, 1, 28, 28)), rng.integers(0, 10, 6)
    for step in range(10):
        gradients = [one.gradient(x, t) for one in networks]
        close(networks[1].loss, networks[0].loss)
        for key in gradients[0] if step == 0 else ():
            close(gradients[1][key], gradients[0][key])
        for one, optimizer, gradient in zip(networks, optimizers, gradients, strict=True):
            optimizer.update(one.params, gradient)
    for key, value in networks[0].params.items():
        assert_allclose(networks[1].params[key], value, rtol=0, atol=1e-7)
    close(networks[1].predict(x), networks[0].predict(x))
