"""The stand-in for d2l against a plain model of it, against jitconv's own functions, and with PyTorch's gradients."""

from __future__ import annotations

import numpy as np
import pytest
from models import d2l as model
from numpy.testing import assert_allclose, assert_array_equal

import jitconv
from jitconv.compat import d2l
from jitconv.layers import Conv2d

SIZES = [((3, 3), (2, 2)), ((6, 8), (1, 2)), ((7, 5), (3, 3)), ((12, 9), (5, 4)), ((4, 4), (4, 4))]
each_size = pytest.mark.parametrize(("image", "window"), SIZES, ids=str)
KINDS = (np.float64, np.float32, np.float16, np.int64, np.int32, np.int8, bool)


def whole(rng, *shape):
    """Return whole numbers, whose products and sums are exact in every dtype that is tested."""
    return rng.integers(-3, 4, shape)


def assert_equal(y, expected):
    assert y.dtype == np.float32
    assert y.flags.writeable
    assert_array_equal(y, expected)


@each_size
@pytest.mark.parametrize("kind", KINDS)
def test_on_whole_numbers(image, window, kind, rng):
    X, K = whole(rng, *image).astype(kind), whole(rng, *window).astype(kind)
    exact = X.astype(np.float64), K.astype(np.float64)
    assert_equal(d2l.corr2d(X, K), model.corr2d(*exact))
    assert_equal(d2l.trans_conv(X, K), model.trans_conv(*exact))
    assert_equal(d2l.pool2d(X, window), model.pool2d(exact[0], window))
    y = d2l.pool2d(X, window, mode="avg")
    assert y.dtype == np.float32
    assert_allclose(y, model.pool2d(exact[0], window, "avg"), rtol=1e-6, atol=1e-7)


@each_size
@pytest.mark.parametrize("kind", KINDS)
def test_channels_on_whole_numbers(image, window, kind, rng):
    X, K = whole(rng, 3, *image).astype(kind), whole(rng, 4, 3, *window).astype(kind)
    exact = X.astype(np.float64), K.astype(np.float64)
    assert_equal(d2l.corr2d_multi_in(X, K[0]), model.corr2d_multi_in(exact[0], exact[1][0]))
    assert_equal(d2l.corr2d_multi_in_out(X, K), model.corr2d_multi_in_out(*exact))
    points = K[:, :, :1, :1]
    y = d2l.corr2d_multi_in_out_1x1(X, points)
    assert y.dtype == (np.float64 if kind == np.float64 else np.float32)
    assert_array_equal(y, model.corr2d_multi_in_out_1x1(exact[0], exact[1][:, :, :1, :1]))
    if kind == np.float32:
        assert_array_equal(d2l.corr2d_multi_in_out(X, points), y)


@each_size
def test_results_are_rounded_to_float32_once(image, window, rng):
    X, K = rng.standard_normal((3, *image)), rng.standard_normal((2, 3, *window))
    own = jitconv.conv2d(X, K)
    assert_array_equal(d2l.corr2d_multi_in_out(X, K, preserve_dtype=True), own)
    assert_equal(d2l.corr2d_multi_in_out(X, K), own.astype(np.float32))
    assert_array_equal(d2l.corr2d_multi_in(X, K[0], preserve_dtype=True), jitconv.conv2d(X, K[:1])[0])
    assert_array_equal(d2l.corr2d(X[0], K[0, 0], preserve_dtype=True), jitconv.conv2d(X[:1], K[:1, :1])[0])
    own = jitconv.conv_transpose2d(X[:1], K[:1, :1])
    assert_array_equal(d2l.trans_conv(X[0], K[0, 0], preserve_dtype=True), own[0])
    for mode, pool in (("max", jitconv.max_pool2d), ("avg", jitconv.avg_pool2d)):
        own = pool(X[:1], window, stride=1)[0]
        assert_array_equal(d2l.pool2d(X[0], window, mode, preserve_dtype=True), own)
        assert_equal(d2l.pool2d(X[0], window, mode), own.astype(np.float32))
    assert d2l.corr2d(X[0].astype(np.float32), K[0, 0], preserve_dtype=True).dtype == np.float64
    assert d2l.corr2d(X[0].astype(int), K[0, 0].astype(int), preserve_dtype=True).dtype == np.float32


def test_the_books_examples():
    X, K = np.arange(9.0).reshape(3, 3), np.arange(4.0).reshape(2, 2)
    assert_equal(d2l.corr2d(X, K), [[19, 25], [37, 43]])
    assert_equal(d2l.pool2d(X, (2, 2)), [[4, 5], [7, 8]])
    assert_equal(d2l.pool2d(X, (2, 2), "avg"), [[2, 3], [5, 6]])
    assert_equal(d2l.trans_conv(K, K), [[0, 0, 1], [0, 4, 6], [4, 12, 9]])
    assert_equal(d2l.corr2d_multi_in(np.stack((X, X + 1)), np.stack((K, K + 1))), [[56, 72], [104, 120]])


class TestLedger:
    """The faults that docs/compat/README.md lists."""

    def test_more_channels_than_the_other_has(self, rng):
        """The original leaves channels out without a word."""
        X, K = rng.standard_normal((3, 5, 6)), rng.standard_normal((4, 2, 2, 3))
        for x, k in ((X, K), (X[:1], K)):
            assert_allclose(
                d2l.corr2d_multi_in(x, k[0], strict=True), model.corr2d_multi_in(x, k[0]), rtol=1e-5, atol=1e-6
            )
            y = d2l.corr2d_multi_in_out(x, k, strict=True)
            assert_allclose(y, model.corr2d_multi_in_out(x, k), rtol=1e-5, atol=1e-6)
            with pytest.raises(ValueError, match="`K` has 2 input channels, but `X` has"):
                d2l.corr2d_multi_in(x, k[0])
            with pytest.raises(ValueError, match="`K` has 2 input channels, but `X` has"):
                d2l.corr2d_multi_in_out(x, k)

    def test_an_unknown_mode(self, rng):
        """The original returns zeros."""
        X = rng.standard_normal((5, 6))
        assert_equal(d2l.pool2d(X, (2, 3), "mean", strict=True), model.pool2d(X, (2, 3), "mean"))
        assert not model.pool2d(X, (2, 3), "mean").any()
        with pytest.raises(ValueError, match="`mode` must be one of 'max', 'avg', got 'mean'"):
            d2l.pool2d(X, (2, 3), "mean")

    def test_small_integers_do_not_wrap(self):
        X, K = np.full((2, 2), 100, np.uint8), np.full((2, 2), 3, np.uint8)
        assert model.corr2d(X, K) == 4 * (300 - 256)  # the original's products are uint8
        assert d2l.corr2d(X, K) == 1200


def test_comp_conv2d(rng):
    layer, X = Conv2d(1, 1, 3, padding=1, stride=2), rng.random((8, 8))
    y = d2l.comp_conv2d(layer, X)
    assert_array_equal(y, layer(X.astype(np.float32)[np.newaxis, np.newaxis])[0, 0])
    assert y.shape == (4, 4)
    assert d2l.comp_conv2d(lambda x: x * 2, X).dtype == np.float64
    with pytest.raises(ValueError, match="one channel"):
        d2l.comp_conv2d(Conv2d(1, 2, 3), X)


class Edges:
    """Learns kernels from images in the book's style: every gradient is one of its functions again."""

    def __init__(self, on, K):
        self.on, self.K = on, K.copy()

    def forward(self, X):
        self.X, self.Y = X, self.on.corr2d_multi_in_out(X, self.K)
        return self.on.corr2d_multi_in_out_1x1(np.maximum(self.Y, 0), np.ones((1, len(self.K), 1, 1), np.float32))[0]

    def backward(self, d):
        d = d * (self.Y > 0)
        dK = np.stack([np.stack([self.on.corr2d(x, one) for x in self.X]) for one in d])
        dX = [sum(self.on.trans_conv(one, k[c]) for one, k in zip(d, self.K, strict=True)) for c in range(len(self.X))]
        return dK, np.stack(dX)


class Own:
    """`Edges` on jitconv's own functions."""

    def __init__(self, K):
        self.K = K.copy()

    def forward(self, X):
        self.X, self.Y = X, jitconv.conv2d(X, self.K)
        return np.maximum(self.Y, 0).sum(axis=0)

    def backward(self, d):
        return jitconv.conv2d_backward(d * (self.Y > 0), self.X, self.K)[1::-1]


def test_a_network_trains_as_the_original(rng):
    K = rng.standard_normal((3, 2, 3, 2)).astype(np.float32)
    networks = [Edges(d2l, K), Edges(model, K), Own(K)]
    X, goal = rng.standard_normal((2, 8, 9)).astype(np.float32), rng.standard_normal((6, 8)).astype(np.float32)
    losses = []
    for _ in range(10):
        outputs = [net.forward(X) for net in networks]
        gradients = [net.backward(y - goal) for net, y in zip(networks, outputs, strict=True)]
        losses.append(float(((outputs[0] - goal) ** 2).sum()))
        for y, (dK, dX), net in zip(outputs, gradients, networks, strict=True):
            assert y.dtype == dK.dtype == dX.dtype == np.float32
            assert_allclose(outputs[0], y, rtol=1e-4, atol=1e-4)
            assert_allclose(gradients[0][0], dK, rtol=1e-4, atol=1e-3)
            assert_allclose(gradients[0][1], dX, rtol=1e-4, atol=1e-3)
            net.K -= 0.002 * dK  # in place: weights are live
    assert_allclose(networks[0].K, networks[1].K, rtol=1e-4, atol=1e-5)
    assert_allclose(networks[0].K, networks[2].K, rtol=1e-4, atol=1e-5)
    assert losses[-1] < losses[0]


def test_inputs_stay_as_they_were(rng):
    X, K = rng.standard_normal((2, 5, 6)), rng.standard_normal((3, 2, 2, 2))
    before = X.copy(), K.copy()
    d2l.corr2d_multi_in_out(X, K)
    d2l.trans_conv(X[0], K[0, 0])
    d2l.pool2d(X[0], (2, 2))
    assert_array_equal(X, before[0])
    assert_array_equal(K, before[1])


IMAGE = np.ones((5, 6), np.float32)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: d2l.corr2d(IMAGE[0], IMAGE), ValueError, r"`X` must have the axes \(H, W\)"),
        (lambda: d2l.corr2d(IMAGE, IMAGE[0]), ValueError, r"`K` must have the axes \(h, w\)"),
        (lambda: d2l.corr2d(IMAGE[:2], IMAGE), ValueError, "padded image of `X`"),
        (lambda: d2l.corr2d("image", IMAGE), TypeError, "`X` must be an array"),
        (lambda: d2l.corr2d(IMAGE, IMAGE, preserve_dtype=1), TypeError, "`preserve_dtype`"),
        (lambda: d2l.corr2d_multi_in(IMAGE, IMAGE[None]), ValueError, r"`X` must have the axes \(C, H, W\)"),
        (
            lambda: d2l.corr2d_multi_in_out(IMAGE[None], IMAGE[None]),
            ValueError,
            r"`K` must have the axes \(D, C, h, w\)",
        ),
        (lambda: d2l.corr2d_multi_in_out_1x1(IMAGE[None], np.ones((3, 2, 1, 1))), ValueError, "`K` must have shape"),
        (lambda: d2l.pool2d(IMAGE, (6, 2)), ValueError, "`pool_size`"),
        (lambda: d2l.pool2d(IMAGE, (2, 2, 2)), ValueError, "`pool_size`"),
        (lambda: d2l.trans_conv(IMAGE, IMAGE[0]), ValueError, r"`K` must have the axes \(h, w\)"),
        (lambda: d2l.comp_conv2d(abs, IMAGE[0]), ValueError, r"`X` must have the axes \(H, W\)"),
    ],
)
def test_bad_input_is_named(call, error, words):
    with pytest.raises(error, match=words):
        call()


class TestTensors:
    @pytest.fixture
    def torch(self):
        return pytest.importorskip("torch")

    @pytest.mark.parametrize("kind", ["float32", "float64", "int64", "uint8", "bfloat16"])
    def test_results_have_the_default_dtype(self, kind, torch, rng):
        numbers = rng.integers(0, 4, (2, 5, 6)), rng.integers(0, 4, (3, 2, 2, 2))
        X, K = (torch.from_numpy(a).to(getattr(torch, kind)) for a in numbers)
        y = d2l.corr2d_multi_in_out(X, K)
        assert y.dtype == torch.float32
        assert_array_equal(y.numpy(), d2l.corr2d_multi_in_out(*numbers))
        assert_array_equal(d2l.pool2d(X[0], (2, 2)).numpy(), d2l.pool2d(numbers[0][0], (2, 2)))
        assert_array_equal(d2l.trans_conv(X[0], K[0, 0]).numpy(), d2l.trans_conv(numbers[0][0], numbers[1][0, 0]))
        y = d2l.corr2d_multi_in_out_1x1(X, K[:, :, :1, :1])
        assert y.dtype == (torch.float64 if kind == "float64" else torch.float32)
        if kind == "float64":
            assert d2l.corr2d(X[0], K[0, 0], preserve_dtype=True).dtype == torch.float64
            assert d2l.pool2d(X[0], (2, 2), "other", strict=True).sum() == 0

    @pytest.mark.parametrize("mode", ["max", "avg"])
    def test_gradients_flow(self, mode, torch, rng):
        F = torch.nn.functional
        arrays = rng.integers(0, 3, (2, 7, 8)), rng.standard_normal((3, 2, 3, 3)), rng.standard_normal((2, 4))

        def leaves():
            return [torch.tensor(a, dtype=torch.float64, requires_grad=True) for a in arrays]

        X, K, T = leaves()
        pooled = d2l.pool2d(d2l.corr2d_multi_in_out(X, K, preserve_dtype=True)[1], (2, 3), mode, preserve_dtype=True)
        y = d2l.trans_conv(pooled, T, preserve_dtype=True)
        flat = d2l.pool2d(X[0], (2, 2), mode, preserve_dtype=True)  # whole numbers: equal pixels share
        ((y**2).sum() + (flat**2).sum()).backward()
        x, k, t = leaves()

        def pool(a, size):
            windows = a.unfold(0, size[0], 1).unfold(1, size[1], 1)
            return windows.amax(dim=(2, 3)) if mode == "max" else windows.mean(dim=(2, 3))

        want = F.conv_transpose2d(pool(F.conv2d(x[None], k)[0, 1], (2, 3))[None, None], t[None, None])[0, 0]
        assert_allclose(y.detach().numpy(), want.detach().numpy(), rtol=1e-9, atol=1e-10)
        ((want**2).sum() + (pool(x[0], (2, 2)) ** 2).sum()).backward()
        for ours, theirs in ((X, x), (K, k), (T, t)):
            assert_allclose(ours.grad.numpy(), theirs.grad.numpy(), rtol=1e-9, atol=1e-10)

    def test_a_module_of_the_book_trains(self, torch, rng):
        """The book's edge detector, whose layer stands on corr2d, beside the same on PyTorch's convolution."""
        torch.manual_seed(0)
        X = torch.ones((6, 8))
        X[:, 2:6] = 0
        goal = d2l.corr2d(X, torch.tensor([[1.0, -1.0]]))
        weight, own = (torch.full((1, 2), 0.3, requires_grad=True) for _ in range(2))
        for _ in range(10):
            for w, y in (
                (weight, d2l.corr2d(X, weight)),
                (own, torch.nn.functional.conv2d(X[None, None], own[None, None])[0, 0]),
            ):
                ((y - goal) ** 2).sum().backward()
                with torch.no_grad():
                    w -= 3e-2 * w.grad
                    w.grad.zero_()
        assert_allclose(weight.detach().numpy(), own.detach().numpy(), rtol=1e-4)
        assert_allclose(weight.detach().numpy(), [[1, -1]], atol=0.2)

    def test_layers_of_torch(self, torch):
        layer, X = torch.nn.Conv2d(1, 1, 3, padding=1), torch.rand(8, 8)
        assert_array_equal(d2l.comp_conv2d(layer, X).detach(), layer(X[None, None])[0, 0].detach())

    def test_complex_numbers_are_refused(self, torch):
        with pytest.raises(TypeError, match="`X` must be a tensor of real numbers"):
            d2l.corr2d(torch.ones(3, 3, dtype=torch.complex64), torch.ones(2, 2))
