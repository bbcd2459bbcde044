"""The stand-in for cnn-from-scratch against a plain model of it and against jitconv's own functions."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from models import cnn_from_scratch as model
from numpy.testing import assert_allclose, assert_array_equal

import jitconv
from jitconv.compat.cnn_from_scratch import Conv3x3, MaxPool2, Softmax


def seeded(make, *args, **options):
    np.random.seed(4)  # noqa: NPY002
    return make(*args, **options)


def test_the_same_seed_gives_the_originals_weights():
    np.random.seed(4)  # noqa: NPY002
    drawn = np.random.randn(5, 3, 3) / 9  # noqa: NPY002
    assert_array_equal(seeded(Conv3x3, 5).filters, drawn)
    np.random.seed(4)  # noqa: NPY002
    drawn = np.random.randn(12, 3) / 12  # noqa: NPY002
    softmax = seeded(Softmax, 12, 3)
    assert_array_equal(softmax.weights, drawn)
    assert_array_equal(softmax.biases, np.zeros(3))


@pytest.mark.parametrize("size", [(3, 3), (8, 11), (28, 28)])
@pytest.mark.parametrize("channels", [None, 1, 4])
def test_convolution(size, channels, rng):
    conv = Conv3x3(5, channels=channels, needs_input_gradient=True)
    image = rng.standard_normal(size if channels is None else (*size, channels))
    plain = model.Conv3x3(conv.filters)
    y = conv.forward(image)
    assert_allclose(y, plain.forward(image), rtol=1e-10, atol=1e-12)
    w = conv.filters[..., np.newaxis] if channels is None else conv.filters
    x = image.reshape(*size, -1)
    assert_array_equal(y, jitconv.conv2d(x, w.transpose(0, 3, 1, 2).copy(), layout="NHWC"))
    assert y.flags.writeable
    assert conv.last_input is image
    dy = rng.standard_normal(y.shape)
    d_filters, d_image = plain.gradients(dy)
    filters, before = conv.filters, conv.filters.copy()
    assert_allclose(conv.backprop(dy, 0.25), d_image, rtol=1e-10, atol=1e-12)
    assert conv.filters is filters  # updated in place
    assert_allclose(filters, before - 0.25 * d_filters, rtol=1e-10, atol=1e-12)


def test_convolution_returns_none_unless_asked(rng):
    conv, image = Conv3x3(2), rng.standard_normal((6, 5))
    assert conv.backprop(np.ones_like(conv.forward(image)), 0.1) is None


def test_filters_are_live(rng):
    conv, image = Conv3x3(2), rng.standard_normal((6, 5))
    before = conv.forward(image)
    conv.filters[1, 1, 1] += 1
    assert_allclose((conv.forward(image) - before)[..., 1], image[1:-1, 1:-1], rtol=1e-10, atol=1e-12)
    conv.filters = np.zeros((3, 3, 3))
    assert_array_equal(conv.forward(image), np.zeros((4, 3, 3)))


@pytest.mark.parametrize("size", [(2, 2), (6, 8), (7, 9), (5, 12)])
def test_pooling_gives_the_gradient_to_all_equal_pixels(size, tied, rng):
    pool, plain, image = MaxPool2(), model.MaxPool2(), tied(*size, 3)
    y = pool.forward(image)
    assert_array_equal(y, plain.forward(image))
    assert_array_equal(y, jitconv.max_pool2d(image, 2, layout="NHWC"))
    dy = rng.standard_normal(y.shape)
    dx = pool.backprop(dy)
    assert_array_equal(dx, plain.backprop(dy))
    assert dx.flags.writeable
    assert (dx != 0).sum() > dy.size


@pytest.mark.parametrize("ties", ["first", "all", "split"])
def test_ties_can_be_chosen(ties):
    pool = MaxPool2(ties=ties)
    pool.forward(np.zeros((2, 2, 1)))
    expected = {"first": [[1, 0], [0, 0]], "all": [[1, 1], [1, 1]], "split": [[0.25, 0.25], [0.25, 0.25]]}[ties]
    assert_array_equal(pool.backprop(np.ones((1, 1, 1)))[..., 0], expected)


def test_regions_are_the_originals(rng):
    image = rng.standard_normal((5, 4))
    regions = list(Conv3x3(1).iterate_regions(image))
    assert [(i, j) for _, i, j in regions] == list(np.ndindex(3, 2))
    assert_array_equal(regions[3][0], image[1:4, 1:4])
    squares = list(MaxPool2().iterate_regions(image[..., np.newaxis]))
    assert [(i, j) for _, i, j in squares] == list(np.ndindex(2, 2))
    assert_array_equal(squares[3][0], image[2:4, 2:4, np.newaxis])


@pytest.mark.parametrize("strict", [False, True])
def test_softmax_of_one_gradient(strict, rng):
    softmax = Softmax(24, 7, strict=strict)
    plain = model.Softmax(softmax.weights, softmax.biases)
    x, dy = rng.standard_normal((2, 4, 3)), np.zeros(7)
    out = softmax.forward(x)
    assert_allclose(out, plain.forward(x), rtol=1e-12)
    assert_array_equal(softmax.last_input, x.ravel())
    assert softmax.last_input_shape == x.shape
    assert_array_equal(softmax.last_totals, plain.totals)
    dy[2] = -1 / out[2]
    weights = softmax.weights
    assert_allclose(softmax.backprop(dy, 0.5), plain.backprop(dy, 0.5), rtol=1e-9, atol=1e-12)
    assert softmax.weights is weights
    assert_allclose(weights, plain.weights, rtol=1e-9, atol=1e-12)
    assert_allclose(softmax.biases, plain.biases, rtol=1e-9, atol=1e-12)


class TestLedger:
    """The faults that docs/compat/README.md lists."""

    def test_softmax_of_large_totals(self):
        """Above 709 exp overflows: the original gives NaN."""
        softmax, strict = (Softmax(1, 2, strict=strict) for strict in (False, True))
        for layer in (softmax, strict):
            layer.weights[...] = [[1000, 999]]
        plain = model.Softmax(strict.weights, strict.biases)
        assert_allclose(softmax.forward(np.ones(1)), [1 / (1 + np.exp(-1)), 1 / (1 + np.e)], rtol=1e-12)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert np.isnan(plain.forward(np.ones(1))).all()
            assert np.isnan(strict.forward(np.ones(1))).all()

    def test_softmax_of_several_gradients(self, rng):
        """The original takes the first that is not zero, and returns None if there is none."""
        x, dy = rng.standard_normal(6), np.array([0, 2.0, 0, -1.0])
        softmax, strict = (seeded(Softmax, 6, 4, strict=strict) for strict in (False, True))
        plain, before = model.Softmax(strict.weights, strict.biases), softmax.weights.copy()
        p = softmax.forward(x)
        strict.forward(x)
        plain.forward(x)
        assert_allclose(strict.backprop(dy, 0.5), plain.backprop(dy, 0.5), rtol=1e-9)
        assert_allclose(strict.weights, plain.weights, rtol=1e-9)
        d_totals = (np.diag(p) - np.outer(p, p)) @ dy
        assert_allclose(softmax.backprop(dy, 0.5), before @ d_totals, rtol=1e-9)
        assert_allclose(softmax.weights, before - 0.5 * np.outer(x, d_totals), rtol=1e-9)
        assert not np.allclose(softmax.weights, strict.weights)
        for layer in (softmax, strict, plain):
            layer.forward(x)
        assert strict.backprop(np.zeros(4), 0.5) is plain.backprop(np.zeros(4), 0.5) is None
        assert_array_equal(softmax.backprop(np.zeros(4), 0.5), np.zeros(6))


@pytest.mark.parametrize("kind", [np.float64, np.float32, np.float16, np.int64, np.uint8])
def test_results_are_float64(kind, rng):
    image = rng.integers(0, 9, (6, 6)).astype(kind)
    conv, pool, softmax = Conv3x3(2, needs_input_gradient=True), MaxPool2(), Softmax(8, 3)
    y = conv.forward(image)
    z = pool.forward(y.astype(kind))
    out = softmax.forward(z.astype(kind))
    d = softmax.backprop(np.ones(3, kind), 0.1)
    results = [y, z, out, d, pool.backprop(d.astype(kind)), conv.backprop(np.ones((4, 4, 2), kind), 0.1), conv.filters]
    assert all(a.dtype == np.float64 for a in results)
    assert Conv3x3(2).forward(image.tolist()).dtype == np.float64


def test_float32_is_kept_if_asked(rng):
    image = rng.standard_normal((6, 6)).astype(np.float32)
    conv = Conv3x3(2, needs_input_gradient=True, preserve_dtype=True)
    pool, softmax = MaxPool2(preserve_dtype=True), Softmax(8, 3, preserve_dtype=True)
    results = [conv.forward(image)]
    results.append(pool.forward(results[-1]))
    results.append(softmax.forward(results[-1]))
    results.append(softmax.backprop(np.array([1, 0, 0], np.float32), 0.1))
    results.append(pool.backprop(results[-1]))
    results.append(conv.backprop(results[-1], 0.1))
    assert all(a.dtype == np.float32 for a in (*results, conv.filters, softmax.weights, softmax.biases))


class Own:
    """The three layers written with jitconv's own functions."""

    def __init__(self, filters, weights, biases):
        self.filters, self.weights, self.biases = filters.copy(), weights.copy(), biases.copy()

    def train(self, image, label, rate):
        x, w = image[..., np.newaxis], self.filters[:, np.newaxis]
        conv = jitconv.conv2d(x, w, layout="NHWC")
        pooled, argmax = jitconv.max_pool2d_with_argmax(conv, 2, layout="NHWC")
        totals = pooled.ravel() @ self.weights + self.biases
        powers = np.exp(totals - totals.max())
        out = powers / powers.sum()
        d = out - np.eye(len(out))[label]
        d_pooled = (self.weights @ d).reshape(pooled.shape)
        self.weights -= rate * np.outer(pooled.ravel(), d)
        self.biases -= rate * d
        d_conv = jitconv.max_pool2d_backward(d_pooled, argmax, conv.shape, 2, layout="NHWC")
        self.filters -= rate * jitconv.conv2d_backward(d_conv, x, w, layout="NHWC").dw[:, 0]
        return out


def train(layers, image, label, rate):
    conv, pool, softmax = layers
    out = softmax.forward(pool.forward(conv.forward(image)))
    gradient = np.zeros(10)
    gradient[label] = -1 / out[label]
    conv.backprop(pool.backprop(softmax.backprop(gradient, rate)), rate)
    return out


@pytest.mark.parametrize("tied_pixels", [False, True])
def test_a_network_trains_as_the_original(tied_pixels, rng):
    conv, pool, softmax = seeded(Conv3x3, 8), MaxPool2(), Softmax(7 * 6 * 8, 10)
    networks = [
        (conv, pool, softmax),
        (model.Conv3x3(conv.filters), model.MaxPool2(), model.Softmax(softmax.weights, softmax.biases)),
    ]
    own = Own(conv.filters, softmax.weights, softmax.biases)
    for _ in range(10):
        image = rng.standard_normal((16, 14))
        if tied_pixels:
            image[4:12] = -0.5  # a plain background: equal pixels, of which each gets the gradient
        label = int(rng.integers(10))
        ours, plain = (train(layers, image, label, 0.05) for layers in networks)
        assert_allclose(ours, plain, rtol=1e-8)
        if not tied_pixels:
            assert_allclose(own.train(image, label, 0.05), plain, rtol=1e-8)
    assert_allclose(conv.filters, networks[1][0].filters, rtol=1e-8, atol=1e-12)
    assert_allclose(softmax.weights, networks[1][2].weights, rtol=1e-8, atol=1e-12)
    assert_allclose(softmax.biases, networks[1][2].biases, rtol=1e-8, atol=1e-12)
    if not tied_pixels:
        assert_allclose(conv.filters, own.filters, rtol=1e-8, atol=1e-12)


def test_two_convolutions_with_input_gradients(rng):
    """What the original cannot: a second convolution on the channels of the first."""
    first, second = Conv3x3(3), Conv3x3(2, channels=3, needs_input_gradient=True)
    plain = model.Conv3x3(first.filters), model.Conv3x3(second.filters)
    image, dy = rng.standard_normal((7, 8)), rng.standard_normal((3, 4, 2))
    for step in (lambda layer, x: layer.forward(x),):
        assert_allclose(step(second, step(first, image)), step(plain[1], step(plain[0], image)), rtol=1e-9, atol=1e-12)
    gradient = second.backprop(dy, 0.1)
    expected = plain[1].gradients(dy)[1]
    assert_allclose(gradient, expected, rtol=1e-9, atol=1e-12)
    first.backprop(gradient, 0.1)
    plain[0].backprop(expected, 0.1)
    assert_allclose(first.filters, plain[0].filters, rtol=1e-9, atol=1e-12)


def test_inputs_stay_as_they_were(rng):
    image, dy = rng.standard_normal((8, 8)), rng.standard_normal((6, 6, 2))
    before = image.copy(), dy.copy()
    conv, pool, softmax = Conv3x3(2, needs_input_gradient=True), MaxPool2(), Softmax(18, 3)
    pool.forward(conv.forward(image))
    softmax.forward(dy[:3, :3])
    conv.backprop(dy, 0.1)
    pool.backprop(dy[:3, :3])
    softmax.backprop(dy[0, 0, :1].repeat(3), 0.1)
    assert_array_equal(image, before[0])
    assert_array_equal(dy, before[1])


def after(layer, x):
    layer.forward(x)
    return layer


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: Conv3x3(0), ValueError, "`num_filters`"),
        (lambda: Conv3x3(2.5), TypeError, "`num_filters`"),
        (lambda: Conv3x3(2, channels=0), ValueError, "`channels`"),
        (lambda: Conv3x3(2).forward(np.ones((5, 5, 1))), ValueError, r"`input` must have the axes \(H, W\)"),
        (
            lambda: Conv3x3(2, channels=2).forward(np.ones((5, 5))),
            ValueError,
            r"`input` must have the axes \(H, W, C\)",
        ),
        (lambda: Conv3x3(2, channels=2).forward(np.ones((5, 5, 3))), ValueError, "`filters` has 2 input channels"),
        (lambda: Conv3x3(2).forward(np.ones((2, 5))), ValueError, "padded image of `input`"),
        (lambda: Conv3x3(2).forward([["a"]]), TypeError, "`input` must be an array"),
        (lambda: Conv3x3(2).backprop(np.ones((3, 3, 2)), 0.1), RuntimeError, "before Conv3x3.forward"),
        (
            lambda: after(Conv3x3(2), np.ones((5, 5))).backprop(np.ones((3, 3, 3)), 1),
            ValueError,
            "`d_L_d_out` must have",
        ),
        (lambda: MaxPool2(ties="last"), ValueError, "`ties`"),
        (lambda: MaxPool2().forward(np.ones((4, 4))), ValueError, r"`input` must have the axes \(H, W, F\)"),
        (
            lambda: after(MaxPool2(), np.ones((4, 4, 1))).backprop(np.ones((3, 2, 1))),
            ValueError,
            "`d_L_d_out` must have",
        ),
        (lambda: Softmax(3, 0), ValueError, "`nodes`"),
        (lambda: Softmax(3, 2).forward(np.ones(4)), ValueError, "`input` must have 3 elements"),
        (lambda: after(Softmax(3, 2), np.ones(3)).backprop(np.ones(3), 0.1), ValueError, "`d_L_d_out` must have shape"),
        (lambda: Softmax(3, 2).backprop(np.ones(2), 0.1), RuntimeError, "before Softmax.forward"),
    ],
)
def test_bad_input_is_named(call, error, words):
    with pytest.raises(error, match=words):
        call()
