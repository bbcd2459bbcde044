"""The stand-in for numpy_neuron_network against a plain model of it and against jitconv's own functions."""

from __future__ import annotations

import numpy as np
import pytest
from models import numpy_neuron_network as model
from numpy.testing import assert_allclose, assert_array_equal

import jitconv
from jitconv.compat import numpy_neuron_network as compat
from jitconv.compat.numpy_neuron_network import clayers, layers, layers_v2

# Images (N, C, H, W), D, window, padding, strides that divide: there the original's forward pass is right.
CONVS = [
    ((2, 3, 7, 8), 4, (3, 3), (0, 0), (1, 1)),
    ((2, 3, 7, 8), 4, (3, 3), (1, 1), (1, 1)),
    ((1, 1, 9, 7), 2, (3, 2), (1, 0), (2, 1)),
    ((3, 2, 9, 10), 3, (5, 3), (2, 1), (2, 3)),
]
POOLS = [((2, 2), (2, 2)), ((3, 3), (2, 2)), ((2, 3), (1, 1)), ((3, 2), (3, 4))]
each_conv = pytest.mark.parametrize("case", CONVS, ids=str)
each_pool = pytest.mark.parametrize(("pooling", "strides"), POOLS, ids=str)


def arrays(case, rng):
    shape, d, kernel, padding, strides = case
    z, K, b = rng.standard_normal(shape), rng.standard_normal((shape[1], d, *kernel)), rng.standard_normal(d)
    dz = rng.standard_normal(model.conv_forward(z, K, b, padding, strides).shape)
    return z, K, b, dz, padding, strides


@each_conv
@pytest.mark.parametrize("module", [layers, layers_v2, clayers])
def test_conv_forward(case, module, rng):
    z, K, b, _, padding, strides = arrays(case, rng)
    y = module.conv_forward(z, K, b, padding, strides)
    assert_allclose(y, model.conv_forward(z, K, b, padding, strides), rtol=1e-10, atol=1e-10)
    own = jitconv.conv2d(z, K.swapaxes(0, 1).copy(), b, padding=padding, stride=strides)
    assert_array_equal(y, own)
    assert y.dtype == np.float64
    assert y.flags.writeable
    assert y.flags.c_contiguous


@each_conv
def test_conv_backward_divides_by_the_batch(case, rng):
    z, K, _, dy, padding, strides = arrays(case, rng)
    dK, db, dz = compat.conv_backward(dy, K, z, padding, strides)
    own = jitconv.conv2d_backward(dy, z, K.swapaxes(0, 1).copy(), padding=padding, stride=strides)
    assert_array_equal(dK, own.dw.swapaxes(0, 1) / len(z))
    assert_array_equal(db, own.db / len(z))
    assert_array_equal(dz, own.dx)
    _, written_db, written_dz = model.conv_backward(dy, K, z, padding, strides)
    assert_allclose(db, written_db, rtol=1e-10)
    assert_allclose(dz, written_dz, rtol=1e-10, atol=1e-10)
    for result, like in ((dK, K), (db, db), (dz, z)):
        assert result.shape == like.shape
        assert result.flags.writeable
        assert result.flags.c_contiguous


@each_pool
@pytest.mark.parametrize("padding", [(0, 0), (1, 0), (1, 1)])
@pytest.mark.parametrize("module", [layers, layers_v2, clayers])
def test_max_pooling(pooling, strides, padding, module, tied, rng):
    z = tied(2, 3, 8, 9) - 1  # some are negative: zeros in the padding win over them
    dy = rng.standard_normal(model.max_pooling_forward(z, pooling, strides, padding).shape)
    ties = "all" if module is layers_v2 else "first"
    strict = module.max_pooling_forward(z, pooling, strides, padding, strict=True)
    assert_array_equal(strict, model.max_pooling_forward(z, pooling, strides, padding))
    dz = module.max_pooling_backward(dy, z, pooling, strides, padding, strict=True)
    if ties == "first" or strides in (pooling, (1, 1)):
        assert_allclose(dz, model.max_pooling_backward(dy, z, pooling, strides, padding, ties=ties), atol=1e-12)
    assert dz.flags.c_contiguous
    y = module.max_pooling_forward(z, pooling, strides, padding)
    assert_array_equal(y, jitconv.max_pool2d(z, pooling, stride=strides, padding=padding))
    if padding == (0, 0):
        assert_array_equal(y, strict)
        assert_array_equal(module.max_pooling_backward(dy, z, pooling, strides, padding), dz)


@pytest.mark.parametrize("rule", ["first", "all", "split"])
def test_ties_can_be_chosen(rule):
    z, dy = np.zeros((1, 1, 2, 2)), np.ones((1, 1, 1, 1))
    expected = {"first": [[1, 0], [0, 0]], "all": [[1, 1], [1, 1]], "split": [[0.25, 0.25], [0.25, 0.25]]}[rule]
    for module in (layers, layers_v2):
        assert_array_equal(module.max_pooling_backward(dy, z, (2, 2), ties=rule)[0, 0], expected)
    pool = compat.MaxPooling2D(ties=rule)
    pool.forward(z)
    assert_array_equal(pool.backward(dy)[0, 0], expected)


@each_pool
@pytest.mark.parametrize("padding", [(0, 0), (1, 1)])
def test_avg_pooling(pooling, strides, padding, rng):
    z = rng.standard_normal((2, 3, 8, 9))
    written = model.avg_pooling_forward(z, pooling, strides, padding)
    y = compat.avg_pooling_forward(z, pooling, strides, padding)
    assert y.dtype == np.float64
    assert_allclose(y, written, rtol=1e-6, atol=1e-7)
    dy = rng.standard_normal(y.shape)
    dz = compat.avg_pooling_backward(dy, z, pooling, strides, padding)
    assert_allclose(dz, model.avg_pooling_backward(dy, z, pooling, strides, padding), rtol=1e-10, atol=1e-12)


def test_global_pooling(tied, rng):
    z, dy = tied(3, 4, 5, 6), rng.standard_normal((3, 4))
    assert_array_equal(compat.global_max_pooling_forward(z), z.max(axis=(2, 3)))
    assert_array_equal(compat.global_max_pooling_backward(dy, z), model.global_max_pooling_backward(dy, z))
    assert_allclose(compat.global_avg_pooling_forward(z), z.mean(axis=(2, 3)), rtol=1e-12)
    assert_allclose(compat.global_avg_pooling_backward(dy, z), model.global_avg_pooling_backward(dy, z), rtol=1e-12)
    assert_array_equal(layers_v2.global_avg_pooling_backward(dy, z), compat.global_avg_pooling_backward(dy, z))


def test_dense_and_flat(rng):
    z, W, b, dy = (rng.standard_normal(shape) for shape in ((5, 6), (6, 3), (3,), (5, 3)))
    assert_array_equal(compat.fc_forward(z, W, b), z @ W + b)
    for result, expected in zip(
        compat.fc_backward(dy, W, z), (z.T @ dy / 5, dy.sum(axis=0) / 5, dy @ W.T), strict=True
    ):
        assert_array_equal(result, expected)
    images = rng.standard_normal((5, 3, 2, 1))
    assert_array_equal(compat.flatten_forward(images), images.reshape(5, 6))
    assert_array_equal(compat.flatten_backward(z, images), z.reshape(5, 3, 2, 1))


def test_dtypes():
    z, K, b = np.ones((2, 1, 4, 4), np.float32), np.ones((1, 2, 3, 3), np.float32), np.zeros(2, np.float32)
    dy = np.ones((2, 2, 2, 2), np.float32)
    small = np.ones((2, 1, 2, 2))
    for kind in (np.float32, np.float16, np.int64, np.uint8, bool):
        assert compat.conv_forward(z.astype(kind), K, b).dtype == np.float64
        assert all(a.dtype == np.float64 for a in compat.conv_backward(dy.astype(kind), K, z))
        assert compat.max_pooling_forward(z.astype(kind), (2, 2)).dtype == np.float64
        assert compat.avg_pooling_forward(z.astype(kind), (2, 2)).dtype == np.float64
        wanted = np.float32 if kind == np.float32 else np.float64  # backward: that of z, as in the original
        assert compat.max_pooling_backward(small, z.astype(kind), (2, 2)).dtype == wanted
        assert compat.avg_pooling_backward(small, z.astype(kind), (2, 2)).dtype == wanted
        assert compat.global_max_pooling_forward(z.astype(kind)).dtype == wanted
        assert compat.global_avg_pooling_backward(np.ones((2, 1)), z.astype(kind)).dtype == wanted
    assert compat.conv_forward(z, K, b, preserve_dtype=True).dtype == np.float32
    assert all(a.dtype == np.float32 for a in compat.conv_backward(dy, K, z, preserve_dtype=True))
    assert compat.max_pooling_forward(z, (2, 2), preserve_dtype=True).dtype == np.float32
    assert compat.conv_forward(z.tolist(), K.tolist(), [0, 0]).dtype == np.float64


class TestLedger:
    """The faults that docs/compat/README.md lists."""

    @each_conv
    def test_strict_leaves_the_padding_out_of_dk(self, case, rng):
        """The original's dK has the taps that are left without the padding; the default has the kernel's."""
        z, K, _, dy, padding, strides = arrays(case, rng)
        results = layers.conv_backward(dy, K, z, padding, strides, strict=True)
        for result, expected in zip(results, model.conv_backward(dy, K, z, padding, strides), strict=True):
            assert_allclose(result, expected, rtol=1e-10, atol=1e-10)
        taps = tuple(k - 2 * p for k, p in zip(K.shape[2:], padding, strict=True))
        assert results[0].shape == (*K.shape[:2], *taps)
        if padding == (0, 0):
            assert_allclose(results[0], layers.conv_backward(dy, K, z, padding, strides)[0], rtol=1e-10, atol=1e-10)

    def test_strict_adds_the_centre_tap_to_all_nine(self, rng):
        z, K, _, dy, *_ = arrays(CONVS[1], rng)
        right = layers.conv_backward(dy, K, z, (1, 1))[0]
        strict = layers.conv_backward(dy, K, z, (1, 1), strict=True)[0]
        assert strict.shape == (3, 4, 1, 1)
        assert_allclose(strict[:, :, 0, 0], right[:, :, 1, 1], rtol=1e-10)
        assert not np.allclose(K - strict, K - right)

    def test_strict_refuses_strides_that_do_not_divide(self, rng):
        z, K, b = rng.standard_normal((1, 2, 8, 7)), rng.standard_normal((2, 3, 3, 3)), np.zeros(3)
        with pytest.raises(AssertionError):
            model.conv_forward(z, K, b, (0, 0), (2, 2))
        for module in (layers, clayers):
            with pytest.raises(AssertionError, match="`strides`"):
                module.conv_forward(z, K, b, (0, 0), (2, 2), strict=True)
        assert layers.conv_forward(z, K, b, (0, 0), (2, 2)).shape == (1, 3, 3, 3)

    @pytest.mark.parametrize("strides", [(2, 2), (2, 1), (1, 3), (3, 2)])
    @pytest.mark.parametrize("size", [(7, 7), (8, 9)])
    def test_strict_v2_leaves_windows_out_above_stride_1(self, strides, size, rng):
        z, K, b = rng.standard_normal((2, 3, *size)), rng.standard_normal((3, 4, 3, 3)), rng.standard_normal(4)
        strict = layers_v2.conv_forward(z, K, b, (1, 1), strides, strict=True)
        assert_allclose(strict, model.conv_forward_v2(z, K, b, (1, 1), strides), rtol=1e-10, atol=1e-10)
        dy = rng.standard_normal(strict.shape)
        results = layers_v2.conv_backward(dy, K, z, (1, 1), strides, strict=True)
        for result, expected in zip(results, model.conv_backward(dy, K, z, (1, 1), strides), strict=True):
            assert_allclose(result, expected, rtol=1e-10, atol=1e-10)
        right = layers_v2.conv_forward(z, K, b, (1, 1), strides)
        assert_array_equal(right, layers.conv_forward(z, K, b, (1, 1), strides))
        assert right.shape[2:] == tuple((n - 1) // s + 1 for n, s in zip(size, strides, strict=True))
        assert_array_equal(strict, right[:, :, : strict.shape[2], : strict.shape[3]])

    def test_zeros_of_the_padding_win(self):
        z = np.full((1, 1, 4, 4), -1.0)
        assert (layers.max_pooling_forward(z, (3, 3), (2, 2), (1, 1)) == -1).all()
        assert (layers.max_pooling_forward(z, (3, 3), (2, 2), (1, 1), strict=True)[0, 0, 0] == 0).all()
        dy = np.ones((1, 1, 2, 2))
        assert layers.max_pooling_backward(dy, z, (3, 3), (2, 2), (1, 1)).sum() == 4
        assert layers.max_pooling_backward(dy, z, (3, 3), (2, 2), (1, 1), strict=True).sum() == 1

    def test_v2_pools_windows_of_another_size_than_its_strides(self, rng):
        z = rng.standard_normal((2, 3, 7, 7))
        dy = rng.standard_normal((2, 3, 3, 3))
        with pytest.raises(ValueError, match="could not be broadcast"):
            model.max_pooling_backward(dy, z, (3, 3), (2, 2), ties="all")
        expected = model.max_pooling_backward(dy, z, (3, 3), (2, 2))  # no two pixels are equal
        for strict in (False, True):
            assert_allclose(layers_v2.max_pooling_backward(dy, z, (3, 3), (2, 2), strict=strict), expected, rtol=1e-12)

    def test_averages_are_rounded_to_float32(self, rng):
        z = rng.standard_normal((2, 3, 8, 8))
        written, right = model.avg_pooling_forward(z, (2, 2)), compat.avg_pooling_forward(z, (2, 2))
        assert_allclose(right, z.reshape(2, 3, 4, 2, 4, 2).mean(axis=(3, 5)), rtol=1e-12)
        strict = compat.avg_pooling_forward(z, (2, 2), strict=True)
        assert strict.dtype == written.dtype == np.float32
        assert_array_equal(strict, right.astype(np.float32))
        assert not np.allclose(strict, right, rtol=1e-10)


class Network:
    """Convolution, ReLU, pooling, convolution, ReLU, pooling, dense: functions and a dict of weights, as theirs."""

    def __init__(self, functions, seed, pools):
        rng = np.random.default_rng(seed)
        self.on, self.pools = functions, pools
        self.weights = {
            "K1": rng.standard_normal((1, 6, 3, 3)) / 3,
            "b1": rng.standard_normal(6) / 10,
            "K2": rng.standard_normal((6, 5, 3, 3)) / 7,
            "b2": rng.standard_normal(5) / 10,
            "W3": rng.standard_normal((5 * 3 * 3, 4)) / 6,
            "b3": np.zeros(4),
        }

    def forward(self, x):
        on, w, a = self.on, self.weights, {"x": x}
        a["conv1"] = on["conv_forward"](x, w["K1"], w["b1"])
        a["relu1"] = np.maximum(a["conv1"], 0)
        a["pool1"] = on["max_pooling_forward"](a["relu1"], (2, 2))
        a["conv2"] = on["conv_forward"](a["pool1"], w["K2"], w["b2"], (1, 1))
        a["relu2"] = np.maximum(a["conv2"], 0)
        a["pool2"] = on[f"{self.pools}_pooling_forward"](a["relu2"], (2, 2))
        a["flat"] = compat.flatten_forward(a["pool2"])
        a["y"] = compat.fc_forward(a["flat"], w["W3"], w["b3"])
        self.values = a
        return a["y"]

    def backward(self, dy):
        on, w, a, g = self.on, self.weights, self.values, {}
        g["W3"], g["b3"], d = compat.fc_backward(dy, w["W3"], a["flat"])
        d = compat.flatten_backward(d, a["pool2"])
        d = on[f"{self.pools}_pooling_backward"](d, a["relu2"], (2, 2))
        d[a["conv2"] <= 0] = 0  # in place, as some ReLUs do
        g["K2"], g["b2"], d = on["conv_backward"](d, w["K2"], a["pool1"], (1, 1))
        d = on["max_pooling_backward"](d, a["relu1"], (2, 2))
        d[a["conv1"] <= 0] = 0
        g["K1"], g["b1"], self.dx = on["conv_backward"](d, w["K1"], a["x"])
        return g

    def step(self, x, labels, rate=0.1):
        y = self.forward(x)
        powers = np.exp(y - y.max(axis=1, keepdims=True))
        gradients = self.backward(powers / powers.sum(axis=1, keepdims=True) - np.eye(4)[labels])
        for key, gradient in gradients.items():
            self.weights[key] -= rate * gradient
        return gradients


def of_jitconv(pools):
    """Return the functions of a network, of jitconv's own."""

    def conv_backward(dy, K, z, padding=(0, 0)):
        g = jitconv.conv2d_backward(dy, z, K.swapaxes(0, 1).copy(), padding=padding)
        return g.dw.swapaxes(0, 1) / len(z), g.db / len(z), g.dx

    def max_backward(dy, z, pooling):
        return jitconv.max_pool2d_backward(dy, jitconv.max_pool2d_with_argmax(z, pooling)[1], z.shape, pooling)

    return {
        "conv_forward": lambda z, K, b, padding=(0, 0): jitconv.conv2d(z, K.swapaxes(0, 1).copy(), b, padding=padding),
        "conv_backward": conv_backward,
        "max_pooling_forward": jitconv.max_pool2d,
        "max_pooling_backward": max_backward,
        "avg_pooling_forward": jitconv.avg_pool2d,
        "avg_pooling_backward": lambda dy, z, pooling: jitconv.avg_pool2d_backward(dy, z.shape, pooling),
    }


def of_model(strict):
    """Return the functions of a network, of the model; not `strict`: with the padding in dK, and float64 averages."""

    def conv_backward(dy, K, z, padding=(0, 0)):
        dK, db, dz = model.conv_backward(dy, K, z, padding)
        return (dK if strict else model.conv_backward(dy, K, model.padded(z, padding))[0]), db, dz

    def avg_forward(z, pooling):
        return model.correlate(
            z.reshape(-1, 1, *z.shape[2:]), np.full((1, 1, *pooling), 1 / pooling[0] / pooling[1]), pooling
        ).reshape(*z.shape[:2], z.shape[2] // pooling[0], z.shape[3] // pooling[1])

    return {**vars(model), "conv_backward": conv_backward} | ({} if strict else {"avg_pooling_forward": avg_forward})


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("pools", ["max", "avg"])
def test_a_network_trains_as_the_original(pools, strict, rng):
    names = [name for name in compat.__all__ if name.startswith(("conv", "max", "avg"))]
    ours = {name: getattr(compat, name) for name in names}
    if strict:
        for name in ("conv_forward", "conv_backward", "avg_pooling_forward"):
            ours[name] = lambda *a, run=ours[name], **k: run(*a, strict=True, **k)
    networks = [Network(ours, 1, pools), Network(of_model(strict), 1, pools)]
    networks += [] if strict else [Network(of_jitconv(pools), 1, pools)]
    for step in range(10):
        x, labels = rng.standard_normal((8, 1, 14, 14)), rng.integers(0, 4, 8)
        results = [net.step(x, labels) for net in networks]
        for net, gradients in zip(networks[1:], results[1:], strict=True):
            assert_allclose(networks[0].values["y"], net.values["y"], rtol=1e-6, atol=1e-8)
            if step == 0:
                assert_allclose(networks[0].dx, net.dx, rtol=1e-6, atol=1e-9)
                for key, gradient in gradients.items():
                    assert_allclose(results[0][key], gradient, rtol=1e-6, atol=1e-9)
    for net in networks[1:]:
        for key, value in net.weights.items():
            assert_allclose(networks[0].weights[key], value, rtol=1e-6, atol=1e-8)


class TestModules:
    def network(self):
        return [
            compat.Conv2D(1, 4, name="conv1"),
            compat.MaxPooling2D(name="pool1"),
            compat.Conv2D(4, 3, kernel=(3, 2), padding=(0, 1), stride=(2, 1), name="conv2"),
            compat.GlobalAvgPooling2D(name="gap"),
        ]

    def test_train_as_the_model(self, rng):
        np.random.seed(3)  # noqa: NPY002
        modules = self.network()
        weights = {key: value.copy() for module in modules for key, value in module.weights.items()}
        for _ in range(10):
            x, dy = rng.standard_normal((4, 1, 10, 9)), rng.standard_normal((4, 3))
            y = x
            for module in modules:
                y = module.forward(y)
            d = dy
            for module in reversed(modules):
                d = module.backward(d)
            for module in modules:
                module.update_gradient(0.1)

            K1, b1, K2, b2 = (weights[key] for key in ("conv1_weight", "conv1_bias", "conv2_weight", "conv2_bias"))
            conv1 = model.correlate(model.padded(x, (1, 1)), K1) + b1[:, np.newaxis, np.newaxis]
            pool1 = model.max_pooling_forward(conv1, (2, 2))
            conv2 = model.conv_forward(pool1, K2, b2, (0, 1), (2, 1))
            assert_allclose(y, conv2.mean(axis=(2, 3)), rtol=1e-9, atol=1e-10)
            g = model.global_avg_pooling_backward(dy, conv2)
            dK2, db2, _ = model.conv_backward(g, K2, model.padded(pool1, (0, 1)), (0, 0), (2, 1))
            g = model.conv_backward(g, K2, pool1, (0, 1), (2, 1))[2]
            g = model.max_pooling_backward(g, conv1, (2, 2), ties="all")
            dK1, db1, _ = model.conv_backward(g, K1, model.padded(x, (1, 1)))
            dx = model.conv_backward(g, K1, x, (1, 1))[2]
            assert_allclose(d, dx, rtol=1e-9, atol=1e-10)
            for key, gradient in zip(weights, (dK1, db1, dK2, db2), strict=True):
                weights[key] -= 0.1 * gradient
        for module in modules:
            for key, value in module.weights.items():
                assert_allclose(value, weights[key], rtol=1e-8, atol=1e-10)

    def test_names_and_weights_are_the_originals(self):
        np.random.seed(5)  # noqa: NPY002
        layer = compat.Conv2D(2, 3, (3, 2), name="c")
        np.random.seed(5)  # noqa: NPY002
        drawn = np.random.randn(2, 3, 3, 2) * np.sqrt(2 / (2 * 6 + 3 * 6))  # noqa: NPY002
        assert_allclose(layer.weight, drawn, rtol=1e-15)
        assert (layer.padding, layer.stride, layer.kernel) == ((1, 1), (1, 1), (3, 2))
        assert list(layer.weights) == list(layer.gradients) == ["c_weight", "c_bias"]
        assert layer.in_features is None
        assert not layer.bias.any()

    def test_weights_are_live(self, rng):
        layer, x = compat.Conv2D(2, 3, name="c"), rng.standard_normal((2, 2, 5, 5))
        before = layer.forward(x)
        layer.weight[0, 0, 1, 1] += 1
        after = layer.forward(x)
        assert_allclose(after[:, 0] - before[:, 0], x[:, 0], rtol=1e-10, atol=1e-12)
        layer.load_weights({"c_weight": np.zeros((2, 3, 3, 3)), "c_bias": np.array([1.0, 2, 3])})
        assert_array_equal(layer.forward(x), np.broadcast_to(np.array([1.0, 2, 3]).reshape(3, 1, 1), (2, 3, 5, 5)))
        shared = layer.weights["c_weight"]
        layer.backward(np.ones((2, 3, 5, 5)))
        layer.update_gradient(0.5)  # in place: a Model that shares the arrays sees it
        assert layer.weights["c_weight"] is shared
        assert_array_equal(shared, -0.5 * layer.gradients["c_weight"])

    def test_keep_float32_if_asked(self):
        layer, pool = compat.Conv2D(1, 2, preserve_dtype=True), compat.MaxPooling2D(preserve_dtype=True)
        y = pool.forward(layer.forward(np.ones((1, 1, 4, 4), np.float32)))
        assert y.dtype == layer.backward(pool.backward(y)).dtype == layer.gradients["_weight"].dtype == np.float32

    def test_strict_is_that_of_v2(self, rng):
        layer, x = compat.Conv2D(1, 2, stride=(2, 2), strict=True), rng.standard_normal((1, 1, 7, 7))
        assert_allclose(layer.forward(x), model.conv_forward_v2(x, layer.weight, layer.bias, (1, 1), (2, 2)), rtol=1e-9)
        assert compat.Conv2D(1, 2, stride=(2, 2)).forward(x).shape == (1, 2, 4, 4)


def test_inputs_stay_as_they_were(rng):
    z, K, b, dy, padding, strides = arrays(CONVS[3], rng)
    given = [a.copy() for a in (z, K, b, dy)]
    for strict in (False, True):
        layers_v2.conv_forward(z, K, b, padding, strides, strict=strict)
        layers.conv_backward(dy, K, z, padding, strides, strict=strict)
        layers.max_pooling_forward(z, (2, 2), padding=(1, 1), strict=strict)
    for a, before in zip((z, K, b, dy), given, strict=True):
        assert_array_equal(a, before)


IMAGE, KERNEL, BIAS = np.ones((2, 3, 6, 6)), np.ones((3, 4, 3, 3)), np.ones(4)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: compat.conv_forward(IMAGE[0], KERNEL, BIAS), ValueError, r"`z` must have the axes \(N, C, H, W\)"),
        (lambda: compat.conv_forward(IMAGE, KERNEL[0], BIAS), ValueError, r"`K` must have the axes \(C, D, k1, k2\)"),
        (lambda: compat.conv_forward(IMAGE[:, :2], KERNEL, BIAS), ValueError, "`K` has 3 input channels, but `z`"),
        (lambda: compat.conv_forward(IMAGE, KERNEL, np.ones(3)), ValueError, "`b` must have shape"),
        (lambda: compat.conv_forward(IMAGE, KERNEL, BIAS, strides=(0, 1)), ValueError, "`strides`"),
        (lambda: compat.conv_forward(IMAGE, KERNEL, BIAS, padding=(-1, 0)), ValueError, "`padding`"),
        (lambda: compat.conv_forward(IMAGE[..., :2], KERNEL, BIAS), ValueError, "padded image of `z`"),
        (lambda: compat.conv_forward("image", KERNEL, BIAS), TypeError, "`z` must be an array"),
        (lambda: compat.conv_forward(IMAGE, KERNEL, BIAS, strict="yes"), TypeError, "`strict`"),
        (lambda: compat.conv_backward(np.ones((2, 4, 3, 4)), KERNEL, IMAGE), ValueError, "`next_dz` must have"),
        (lambda: compat.conv_backward(np.ones((2, 4, 7, 7)), KERNEL, IMAGE, strict=True), ValueError, "`next_dz` sp"),
        (lambda: compat.max_pooling_forward(IMAGE, (7, 2)), ValueError, "`pooling`"),
        (lambda: compat.max_pooling_forward(IMAGE, (2, 2), padding=(2, 2)), ValueError, "`padding`"),
        (lambda: compat.max_pooling_backward(IMAGE, IMAGE, (2, 2)), ValueError, "`next_dz`"),
        (lambda: compat.max_pooling_backward(IMAGE, IMAGE, (2, 2), ties="last"), ValueError, "`ties`"),
        (lambda: compat.avg_pooling_forward(IMAGE, (2, 2), (0, 2)), ValueError, "`strides`"),
        (lambda: compat.global_avg_pooling_backward(np.ones((2, 2)), IMAGE), ValueError, "`next_dz` must have shape"),
        (lambda: compat.fc_forward(np.ones((2, 3)), np.ones((4, 2)), np.ones(2)), ValueError, "`W` has 4 inputs"),
        (lambda: compat.Conv2D(0, 3), ValueError, "`in_filters`"),
        (lambda: compat.MaxPooling2D(ties="last"), ValueError, "`ties`"),
        (lambda: compat.Conv2D(1, 3).backward(IMAGE), RuntimeError, "before Conv2D.forward"),
    ],
)  # fmt: skip
def test_bad_input_is_named(call, error, words):
    with pytest.raises(error, match=words):
        call()
