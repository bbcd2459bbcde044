"""The stand-in for DeZero's functions against a plain model of them and against jitconv's own functions.

The Function classes are tested on a small core of the tests, and on DeZero's own if it is installed.
"""

from __future__ import annotations

import importlib
import importlib.util
import subprocess
import sys
import types

import numpy as np
import pytest
from models import dezero as model
from models import dezero_core
from numpy.testing import assert_allclose, assert_array_equal

import jitconv
from jitconv.compat import dezero as compat

# Image, channels out, kernel, stride, pad; the strides of the last two leave something over.
CONVS = [
    ((2, 3, 6, 7), 4, (3, 3), 1, 0),
    ((2, 3, 6, 7), 4, (3, 3), 1, 1),
    ((1, 2, 9, 8), 3, (3, 2), (2, 1), (1, 0)),
    ((2, 2, 8, 10), 3, (3, 3), (2, 3), (1, 1)),
    ((3, 1, 7, 8), 2, (2, 3), 3, (0, 1)),
]
POOLS = [(2, 2, 0), ((3, 3), 2, 1), ((2, 3), (2, 1), (1, 1)), (3, (3, 2), 0), ((1, 2), 1, (0, 1))]
each_conv = pytest.mark.parametrize("case", CONVS, ids=str)
each_pool = pytest.mark.parametrize(("kernel", "stride", "pad"), POOLS, ids=str)


def arrays(case, rng):
    shape, outputs, kernel, stride, pad = case
    x, W, b = (
        rng.standard_normal(shape),
        rng.standard_normal((outputs, shape[1], *kernel)),
        rng.standard_normal(outputs),
    )
    return x, W, b, rng.standard_normal(model.conv2d(x, W, b, stride, pad).shape), {"stride": stride, "pad": pad}


def assert_close(y, expected):
    assert_allclose(y, expected, rtol=1e-9, atol=1e-11)
    assert y.flags.writeable
    assert y.flags.c_contiguous


@each_conv
def test_conv2d(case, rng):
    x, W, b, _, options = arrays(case, rng)
    y = compat.conv2d(x, W, b, **options)
    assert_close(y, model.conv2d(x, W, b, **options))
    assert_array_equal(y, jitconv.conv2d(x, W, b, stride=options["stride"], padding=options["pad"]))
    assert_close(compat.conv2d(x, W, None, options["stride"], options["pad"]), model.conv2d(x, W, None, **options))


@each_conv
def test_deconv2d(case, rng):
    x, W, _, gy, options = arrays(case, rng)
    b = rng.standard_normal(W.shape[1])
    assert_close(compat.deconv2d(gy, W, b, **options), model.deconv2d(gy, W, b, **options))
    size = x.shape[2:]
    y = compat.deconv2d(gy, W, outsize=size, **options)
    assert_close(y, model.deconv2d(gy, W, outsize=size, **options))
    own = {"stride": options["stride"], "padding": options["pad"]}
    assert_array_equal(y, jitconv.conv2d_backward(gy, x, W, **own).dx)


@each_conv
@pytest.mark.parametrize("to_matrix", [True, False])
def test_im2col_and_col2im(case, to_matrix, rng):
    x, W, _, _, options = arrays(case, rng)
    kernel = W.shape[2:]
    col = compat.im2col(x, kernel, **options, to_matrix=to_matrix)
    assert_array_equal(col, model.im2col(x, kernel, **options, to_matrix=to_matrix))
    assert col.flags.c_contiguous
    windows = rng.standard_normal(col.shape)
    image = compat.col2im(windows, x.shape, kernel, **options, to_matrix=to_matrix)
    assert_close(image, model.col2im(windows, x.shape, kernel, **options, to_matrix=to_matrix))


@each_pool
def test_pooling(kernel, stride, pad, tied, rng):
    x = tied(2, 3, 7, 8) - 1
    strict = compat.pooling(x, kernel, stride, pad, strict=True)
    assert_array_equal(strict, model.pooling(x, kernel, stride, pad))
    y = compat.pooling(x, kernel, stride, pad)
    assert_array_equal(y, jitconv.max_pool2d(x, kernel, stride=stride, padding=pad))
    if pad == 0:
        assert_array_equal(y, strict)
    y = compat.average_pooling(x, kernel, stride, pad)
    assert_close(y, model.average_pooling(x, kernel, stride, pad))
    assert_array_equal(y, jitconv.avg_pool2d(x, kernel, stride=stride, padding=pad))


def test_dtypes():
    x, W = np.ones((1, 2, 5, 5)), np.ones((3, 2, 3, 3))

    def dtypes(x, W):
        results = compat.conv2d(x, W), compat.deconv2d(compat.conv2d(x, W), W), compat.im2col(x, 3)
        return {a.dtype for a in (*results, compat.pooling(x, 2), compat.average_pooling(x, 2))}

    assert dtypes(x.astype("f"), W.astype("f")) == {np.dtype(np.float32)}
    assert dtypes(x, W) == {np.dtype(np.float64)}
    assert compat.conv2d(x.astype("f"), W).dtype == np.float64
    for kind in (np.float16, np.int64, np.uint8, bool):
        assert dtypes(x.astype(kind), W.astype(kind)) == {np.dtype(np.float64)}
    assert compat.conv2d(x.tolist(), W.tolist()).dtype == np.float64


CORES = ["own", "dezero"] if importlib.util.find_spec("dezero") else ["own"]


@pytest.fixture(params=CORES)
def core(request, monkeypatch):
    """Return a module with DeZero's Variable and Function, in place of `dezero`."""
    monkeypatch.delitem(sys.modules, "jitconv.compat.dezero_functions", raising=False)
    if request.param == "own":
        places = {name: types.ModuleType(f"dezero.{name}") for name in ("functions", "functions_conv")}
        for name, place in places.items():
            monkeypatch.setitem(sys.modules, f"dezero.{name}", place)
            vars(place).update({function: f"{name}.{function}" for function in compat.FUNCTIONS})
        monkeypatch.setitem(sys.modules, "dezero", dezero_core)
        yield dezero_core
    else:
        monkeypatch.setattr(np, "int", int, raising=False)  # DeZero 0.0.13 was written for NumPy before 1.24
        yield importlib.import_module("dezero")
    sys.modules.pop("jitconv.compat.dezero_functions", None)


def backward(y, gy):
    """Run `y.backward()` from a gradient, which must not be forgotten where DeZero would."""
    y.grad = type(y)(gy)
    try:
        y.backward(create_graph=True)
    except TypeError:
        y.backward()


@each_conv
@pytest.mark.parametrize("bias", [True, False])
def test_gradients_of_conv2d(case, bias, core, rng):
    x, W, b, gy, options = arrays(case, rng)
    v = [core.Variable(a) for a in (x, W, b if bias else None)]
    y = compat.conv2d(*v, **options)
    assert isinstance(y, core.Variable)
    assert_close(y.data, model.conv2d(x, W, v[2].data, **options))
    backward(y, gy)
    assert_close(v[0].grad.data, model.deconv2d(gy, W, outsize=x.shape[2:], **options))
    assert_close(v[1].grad.data, model.conv2d_weights(x, gy, W.shape[2:], **options))
    if bias:
        assert_allclose(v[2].grad.data, gy.sum(axis=(0, 2, 3)), rtol=1e-10)
    own = jitconv.conv2d_backward(gy, x, W, stride=options["stride"], padding=options["pad"])
    assert_array_equal(v[0].grad.data, own.dx)
    assert_array_equal(v[1].grad.data, own.dw)


@each_conv
def test_gradients_of_deconv2d(case, core, rng):
    _, W, _, x, options = arrays(case, rng)
    b = rng.standard_normal(W.shape[1])
    v = [core.Variable(a) for a in (x, W, b)]
    y = compat.deconv2d(*v, **options)
    gy = rng.standard_normal(y.shape)
    backward(y, gy)
    assert_close(v[0].grad.data, model.conv2d(gy, W, **options))
    assert_close(v[1].grad.data, model.conv2d_weights(gy, x, W.shape[2:], **options))
    assert_allclose(v[2].grad.data, gy.sum(axis=(0, 2, 3)), rtol=1e-10)


@each_pool
@pytest.mark.parametrize("strict", [False, True])
def test_gradients_of_pooling(kernel, stride, pad, strict, core, tied, rng):
    x = tied(2, 3, 7, 8) - (1 if strict else -1)  # not strict: the zeros of the padding win nothing
    v = core.Variable(x)
    y = compat.pooling(v, kernel, stride, pad, strict=strict)
    gy = rng.standard_normal(y.shape)
    backward(y, gy)
    assert_close(v.grad.data, model.pooling_backward(gy, x, kernel, stride, pad))


@each_pool
def test_gradients_of_average_pooling(kernel, stride, pad, core, rng):
    x = rng.standard_normal((2, 3, 7, 8))
    v = core.Variable(x)
    y = compat.average_pooling(v, kernel, stride, pad)
    gy = rng.standard_normal(y.shape)
    backward(y, gy)
    assert_close(v.grad.data, jitconv.avg_pool2d_backward(gy, x.shape, kernel, stride=stride, padding=pad))
    if len(set(model.pair(kernel))) == 1:
        assert_close(v.grad.data, model.average_pooling_backward(gy, x, kernel, stride, pad))


@each_conv
@pytest.mark.parametrize("to_matrix", [True, False])
def test_gradients_of_im2col_and_col2im(case, to_matrix, core, rng):
    x, W, _, _, options = arrays(case, rng)
    options = {**options, "kernel_size": W.shape[2:], "to_matrix": to_matrix}
    v = core.Variable(x)
    col = compat.im2col(v, **options)
    g = rng.standard_normal(col.shape)
    backward(col, g)
    assert_close(v.grad.data, model.col2im(g, x.shape, **options))
    v = core.Variable(g)
    image = compat.col2im(v, x.shape, **options)
    g = rng.standard_normal(image.shape)
    backward(image, g)
    assert_array_equal(v.grad.data, model.im2col(g, **options))


class TestLedger:
    """The faults that docs/compat/README.md lists."""

    def test_zeros_of_the_padding_win_in_pooling(self):
        x = np.full((1, 1, 4, 4), -1.0)
        assert (compat.pooling(x, 3, 2, 1) == -1).all()
        assert (compat.pooling(x, 3, 2, 1, strict=True)[0, 0, 0] == 0).all()
        assert_array_equal(compat.pooling(x, 3, 2, 1, strict=True), model.pooling(x, 3, 2, 1))

    @pytest.mark.parametrize("strict", [False, True])
    def test_gradients_of_gradients(self, strict, core, rng):
        """Of x . grad(y) for each function, against the slope of the gradient. DeZero's own weights fail here."""
        x, W, other = (
            rng.standard_normal((2, 2, 6, 7)),
            rng.standard_normal((3, 2, 3, 3)),
            rng.standard_normal((2, 2, 6, 7)),
        )
        functions = compat._functions()

        def gradient(x, W):
            """Return the gradient of the sum of y, squared by feeding y back, for x and W."""
            vx, vW = core.Variable(x), core.Variable(W)
            y = functions.conv2d(vx, vW, None, (2, 1), 1)
            y = functions.Pooling((2, 3), (1, 2), (0, 1), strict=strict)(y)
            y = functions.average_pooling(y, 2, 1, 1)
            y.grad = y  # as of half the sum of squares
            try:
                y.backward(create_graph=True)
            except TypeError:
                y.backward()
            return vx, vW

        vx, vW = gradient(x, W)
        first = vx.grad, vW.grad
        vx.grad = vW.grad = None
        backward(first[0], other)
        second = vx.grad.data, vW.grad.data
        step = 1e-6
        up, down = gradient(x + step * other, W), gradient(x - step * other, W)
        slopes = [(a.grad.data - b.grad.data) / (2 * step) for a, b in zip(up, down, strict=True)]
        for result, slope in zip(second, slopes, strict=True):
            assert_allclose(result, slope, rtol=1e-4, atol=1e-5)
        if hasattr(core, "functions_conv"):
            vW = core.Variable(W)
            core.functions_conv.conv2d(x, vW).backward(create_graph=True)
            with pytest.raises(TypeError):
                vW.grad.backward()

    def test_average_pooling_of_windows_that_are_not_square(self, core, rng):
        x, gy = rng.standard_normal((2, 3, 7, 8)), rng.standard_normal((2, 3, 6, 6))
        with pytest.raises(IndexError):
            model.average_pooling_backward(gy, x, (2, 3))
        v = core.Variable(x)
        backward(compat.average_pooling(v, (2, 3)), gy)
        assert_close(v.grad.data, jitconv.avg_pool2d_backward(gy, x.shape, (2, 3), stride=1))


class Network:
    """Convolution, pooling, deconvolution, average pooling on Variables, as DeZero's layers call them."""

    def __init__(self, core, rng):
        self.core = core
        self.W1 = core.Variable(rng.standard_normal((4, 1, 3, 3)) / 3)
        self.b1 = core.Variable(np.zeros(4))
        self.W2 = core.Variable(rng.standard_normal((4, 2, 2, 2)) / 4)

    def step(self, x, gy, rate):
        y = compat.conv2d(x, self.W1, self.b1, 1, 1)
        y = compat.pooling(y, 2, 2)
        y = compat.deconv2d(y, self.W2, None, 2)
        y = compat.average_pooling(y, 3, 1, 1)
        backward(y, gy)
        for p in (self.W1, self.b1, self.W2):
            p.data -= rate * p.grad.data  # in place: weights are live
            p.grad = None
        return y.data


class Plain:
    """The same on arrays with gradients written out, of the model or of jitconv's functions."""

    def __init__(self, on, network):
        self.on = on
        self.W1, self.b1, self.W2 = (p.data.copy() for p in (network.W1, network.b1, network.W2))

    def step(self, x, gy, rate):
        on = self.on
        a = on.conv2d(x, self.W1, self.b1, 1, 1)
        p = on.pooling(a, 2, 2)
        d = on.deconv2d(p, self.W2, None, 2)
        y = on.average_pooling(d, 3, 1, 1)
        gd = on.average_pooling_backward(gy, d, 3, 1, 1)
        gp, gW2 = on.conv2d(gd, self.W2, None, 2), on.conv2d_weights(gd, p, (2, 2), 2)
        ga = on.pooling_backward(gp, a, 2, 2)
        gW1, gb1 = on.conv2d_weights(x, ga, (3, 3), 1, 1), ga.sum(axis=(0, 2, 3))
        for w, g in ((self.W1, gW1), (self.b1, gb1), (self.W2, gW2)):
            w -= rate * g
        return y


def own_weights(x, gy, kernel_size, stride=1, pad=0):
    w = np.zeros((gy.shape[1], x.shape[1], *kernel_size))
    return jitconv.conv2d_backward(gy, x, w, stride=stride, padding=pad).dw


OWN = types.SimpleNamespace(
    conv2d=lambda x, W, b, stride=1, pad=0: jitconv.conv2d(x, W, b, stride=stride, padding=pad),
    conv2d_weights=own_weights,
    deconv2d=lambda x, W, b, stride: jitconv.conv_transpose2d(x, W, b, stride=stride),
    pooling=lambda x, k, stride: jitconv.max_pool2d(x, k, stride=stride),
    pooling_backward=lambda gy, x, k, stride: jitconv.max_pool2d_backward(
        gy, jitconv.max_pool2d_with_argmax(x, k, stride=stride)[1], x.shape, k, stride=stride
    ),
    average_pooling=lambda x, k, stride, pad: jitconv.avg_pool2d(x, k, stride=stride, padding=pad),
    average_pooling_backward=lambda gy, x, k, stride, pad: jitconv.avg_pool2d_backward(
        gy, x.shape, k, stride=stride, padding=pad
    ),
)


def test_a_network_trains_as_the_original(core, rng):
    network = Network(core, rng)
    plain = [Plain(model, network), Plain(OWN, network)]
    for _ in range(10):
        x, gy = rng.standard_normal((3, 1, 8, 8)), rng.standard_normal((3, 2, 8, 8))
        y = network.step(x, gy, 0.01)
        for other in plain:
            assert_allclose(y, other.step(x, gy, 0.01), rtol=1e-8, atol=1e-10)
    for other in plain:
        for name in ("W1", "b1", "W2"):
            assert_allclose(getattr(network, name).data, getattr(other, name), rtol=1e-8, atol=1e-10)


def test_install_and_uninstall(core, rng):
    places = [sys.modules[f"dezero.{name}"] for name in ("functions", "functions_conv")]
    before = [[getattr(place, name) for name in compat.FUNCTIONS] for place in places]
    x = rng.standard_normal((1, 2, 5, 5))
    try:
        compat.install()
        compat.install()  # twice is once
        for place in places:
            assert isinstance(place.pooling(x, 2), core.Variable)  # whatever it is given, as DeZero's
            assert_array_equal(place.pooling(x, 2).data, jitconv.max_pool2d(x, 2, stride=1))
            assert_array_equal(place.im2col(x, 3).data, jitconv.im2col(x, 3))
        if hasattr(core, "layers"):
            layer = core.layers.Conv2d(4, 3, stride=2, pad=1)
            y = layer(x)
            assert isinstance(y.creator, compat.Conv2d)
            y.backward()
            assert layer.W.grad.shape == (4, 2, 3, 3)
    finally:
        compat.uninstall()
    assert [[getattr(place, name) for name in compat.FUNCTIONS] for place in places] == before


def test_function_classes_have_dezeros_names(core):
    for name in compat.CLASSES:
        assert issubclass(getattr(compat, name), core.Function)
    pool = compat.Pooling(2, 2)
    pool(core.Variable(np.eye(4).reshape(1, 1, 4, 4)))
    assert pool.indexes.tolist() == [[[[0, 0], [0, 0]]]]


def test_without_dezero_the_arrays_run_and_the_classes_say_what_to_do():
    code = """
import sys
sys.modules["dezero"] = None
import numpy as np
from jitconv.compat import dezero
from jitconv.compat.dezero import *
print(conv2d(np.ones((1, 1, 3, 3)), np.ones((1, 1, 3, 3))))
for run in (lambda: dezero.Conv2d, dezero.install):
    try:
        run()
    except ImportError as error:
        print(error)
try:
    dezero.Conv3d
except AttributeError as error:
    print(error)
"""
    child = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    first, *rest = child.stdout.splitlines()
    assert first == "[[[[9.]]]]"
    assert rest[:2] == ["DeZero is not installed: pip install dezero"] * 2
    assert "no attribute 'Conv3d'" in rest[2]


def test_inputs_stay_as_they_were(rng):
    x, W, b, gy, options = arrays(CONVS[3], rng)
    before = [a.copy() for a in (x, W, b, gy)]
    compat.conv2d(x, W, b, **options)
    compat.deconv2d(gy, W, **options)
    compat.pooling(x, 3, 2, 1, strict=True)
    compat.im2col(x, 3)
    for a, given in zip((x, W, b, gy), before, strict=True):
        assert_array_equal(a, given)


IMAGE, WEIGHTS = np.ones((2, 3, 6, 6)), np.ones((4, 3, 3, 3))


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: compat.conv2d(IMAGE[0], WEIGHTS), ValueError, r"`x` must have the axes \(N, C, H, W\)"),
        (lambda: compat.conv2d(IMAGE, WEIGHTS[0]), ValueError, "`W` must have the axes"),
        (lambda: compat.conv2d(IMAGE, WEIGHTS[:, :2]), ValueError, "`W` has 2 input channels, but `x` has 3"),
        (lambda: compat.conv2d(IMAGE, WEIGHTS, np.ones(3)), ValueError, "`b` must have shape"),
        (lambda: compat.conv2d(IMAGE, WEIGHTS, pad=-1), ValueError, "`pad`"),
        (lambda: compat.conv2d(IMAGE, WEIGHTS, stride=0), ValueError, "`stride`"),
        (lambda: compat.conv2d("image", WEIGHTS), TypeError, "`x` must be an array"),
        (lambda: compat.deconv2d(IMAGE, WEIGHTS), ValueError, "`W` has 4 input channels, but `x` has 3"),
        (lambda: compat.deconv2d(IMAGE, WEIGHTS[:3], outsize=9), ValueError, "`outsize` must be"),
        (lambda: compat.pooling(IMAGE, 7), ValueError, "`kernel_size`"),
        (lambda: compat.pooling(IMAGE, 2, 2, 2), ValueError, "`pad`"),
        (lambda: compat.pooling(IMAGE, 2, strict=1), TypeError, "`strict`"),
        (lambda: compat.average_pooling(IMAGE[0], 2), ValueError, r"`x` must have the axes \(N, C, H, W\)"),
        (lambda: compat.im2col(IMAGE, 0), ValueError, "`kernel_size`"),
        (lambda: compat.im2col(IMAGE, 3, to_matrix=1), TypeError, "`to_matrix`"),
        (lambda: compat.col2im(IMAGE[0], (2, 3, 6, 6), 3), ValueError, r"`x` must have the axes"),
        (lambda: compat.col2im(IMAGE[0, 0], (2, 3, 6, 6), 3), ValueError, "`x` must have shape"),
        (lambda: compat.col2im(np.ones((2, 3, 3, 3, 3, 4)), (2, 3, 6, 6), 3, to_matrix=False), ValueError, "`x` must"),
        (lambda: compat.col2im(np.ones((32, 27)), (2, 3), 3), ValueError, "`input_shape`"),
    ],
)
def test_bad_input_is_named(call, error, words):
    with pytest.raises(error, match=words):
        call()
