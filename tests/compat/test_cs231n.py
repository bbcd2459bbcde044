"""CS231n's fast layers: against a NumPy model of them, against jitconv's functions, and in a network."""

from __future__ import annotations

import importlib.util
import inspect
import pathlib

import numpy as np
import pytest
from models import cs231n as model
from numpy.testing import assert_allclose, assert_array_equal

import jitconv
from jitconv.compat import cs231n

EXAMPLE = pathlib.Path(__file__).parents[2] / "examples" / "cs231n.py"

# Shapes of x and w, stride, pad; windows that do not fill the image, too.
CONVOLUTIONS = [
    ((2, 3, 8, 8), (4, 3, 3, 3), 1, 1),
    ((3, 2, 7, 9), (5, 2, 5, 5), 2, 2),
    ((2, 3, 8, 7), (4, 3, 3, 3), 2, 0),
    ((1, 2, 6, 6), (3, 2, 2, 3), 1, 0),
    ((2, 1, 5, 6), (2, 1, 1, 1), 1, 1),
]
# Shape of x, window, stride, and whether the original pools by reshaping.
POOLINGS = [
    ((2, 3, 8, 6), (2, 2), 2, True),
    ((2, 2, 9, 6), (3, 3), 3, True),
    ((2, 3, 7, 7), (3, 3), 2, False),
    ((1, 2, 8, 9), (2, 3), 3, False),
    ((2, 3, 7, 8), (2, 2), 2, False),
]
SIGNATURES = {
    "conv_forward_fast": "x w b conv_param",
    "conv_backward_fast": "dout cache",
    "conv_forward_strides": "x w b conv_param",
    "conv_backward_strides": "dout cache",
    "conv_forward_im2col": "x w b conv_param",
    "conv_backward_im2col": "dout cache",
    "max_pool_forward_fast": "x pool_param",
    "max_pool_backward_fast": "dout cache",
    "max_pool_forward_reshape": "x pool_param",
    "max_pool_backward_reshape": "dout cache",
    "max_pool_forward_im2col": "x pool_param",
    "max_pool_backward_im2col": "dout cache",
    "im2col_cython": "x field_height field_width padding stride",
    "col2im_cython": "cols N C H W field_height field_width padding stride",
    "col2im_6d_cython": "cols N C H W HH WW pad stride",
    "im2col_indices": "x field_height field_width padding stride",
    "col2im_indices": "cols x_shape field_height field_width padding stride",
    "conv_relu_forward": "x w b conv_param",
    "conv_relu_backward": "dout cache",
    "conv_bn_relu_forward": "x w b gamma beta conv_param bn_param",
    "conv_bn_relu_backward": "dout cache",
    "conv_relu_pool_forward": "x w b conv_param pool_param",
    "conv_relu_pool_backward": "dout cache",
}


def close(actual, expected):
    assert_allclose(actual, expected, rtol=1e-10, atol=1e-10)


def conv_param(stride, pad):
    return {"stride": stride, "pad": pad}


def pool_param(window, stride):
    return {"pool_height": window[0], "pool_width": window[1], "stride": stride}


def test_names_and_signatures_are_the_originals():
    assert set(SIGNATURES) == set(cs231n.__all__)
    for name, wanted in SIGNATURES.items():
        parameters = inspect.signature(getattr(cs231n, name)).parameters.values()
        assert " ".join(one.name for one in parameters if one.kind != one.KEYWORD_ONLY) == wanted


@pytest.mark.parametrize("path", ["fast", "strides", "im2col"])
@pytest.mark.parametrize("case", CONVOLUTIONS, ids=str)
def test_convolution_matches_the_model_and_the_library(case, path, rng):
    x_shape, w_shape, stride, pad = case
    x, w, b = (rng.standard_normal(shape) for shape in (x_shape, w_shape, w_shape[0]))
    param = conv_param(stride, pad)
    forward, backward = (getattr(cs231n, f"conv_{name}_{path}") for name in ("forward", "backward"))
    out, cache = forward(x, w, b, param)
    expected, model_cache = model.conv_forward(x, w, b, param)
    close(out, expected)
    assert_array_equal(out, jitconv.conv2d(x, w, b, stride=stride, padding=pad))
    assert all(one is given for one, given in zip(cache[:4], (x, w, b, param), strict=True))
    assert len(cache) == len(model_cache)
    dout = rng.standard_normal(out.shape)
    before = [a.copy() for a in (x, w, b, dout)]
    gradients = backward(dout, cache)
    library = jitconv.conv2d_backward(dout, x, w, stride=stride, padding=pad)
    for gradient, exact, theirs in zip(gradients, library, model.conv_backward(dout, model_cache), strict=True):
        close(gradient, theirs)
        assert_array_equal(gradient, exact)
        assert gradient.flags.writeable
        assert not any(np.shares_memory(gradient, a) for a in (x, w, b, dout))
    for a, copy in zip((x, w, b, dout), before, strict=True):
        assert_array_equal(a, copy)


@pytest.mark.parametrize("case", POOLINGS, ids=str)
def test_pooling_matches_the_model(case, tied, rng):
    shape, window, stride, reshapes = case
    x, param = tied(*shape), pool_param(window, stride)
    out, cache = cs231n.max_pool_forward_fast(x, param)
    expected, model_cache = model.max_pool_forward(x, param)
    assert_array_equal(out, expected)
    assert_array_equal(out, jitconv.max_pool2d(x, window, stride=stride))
    assert cache[0] == model_cache[0] == ("reshape" if reshapes else "im2col")
    dout = rng.standard_normal(out.shape)
    dx = cs231n.max_pool_backward_fast(dout, cache)
    close(dx, model.max_pool_backward(dout, model_cache))
    assert out.flags.writeable
    assert dx.flags.writeable
    path = cache[0]
    again, saved = getattr(cs231n, f"max_pool_forward_{path}")(x, param)
    assert_array_equal(again, out)
    assert_array_equal(getattr(cs231n, f"max_pool_backward_{path}")(dout, saved), dx)


def test_pooling_takes_other_rules_for_ties():
    x, dout = np.ones((1, 1, 2, 2)), np.ones((1, 1, 1, 1))
    for rule, expected in (("first", [1, 0, 0, 0]), ("all", [1] * 4), ("split", [0.25] * 4), (None, [0.25] * 4)):
        _, cache = cs231n.max_pool_forward_fast(x, pool_param((2, 2), 2), ties=rule)
        assert_array_equal(cs231n.max_pool_backward_fast(dout, cache).ravel(), expected)


@pytest.mark.parametrize("case", CONVOLUTIONS, ids=str)
def test_columns_match_the_model(case, rng):
    shape, (_, c, kh, kw), stride, pad = case
    x = rng.standard_normal(shape)
    cols = cs231n.im2col_cython(x, kh, kw, pad, stride)
    assert_array_equal(cols, model.im2col(x, kh, kw, pad, stride))
    assert_array_equal(cols, cs231n.im2col_indices(x, kh, kw, pad, stride))
    gradient = rng.standard_normal(cols.shape)
    image = cs231n.col2im_cython(gradient, *shape, kh, kw, pad, stride)
    close(image, model.col2im(gradient, shape, kh, kw, pad, stride))
    assert_array_equal(image, cs231n.col2im_indices(gradient, shape, kh, kw, pad, stride))
    outputs = [model.outputs(size, k, pad, stride) for size, k in zip(shape[2:], (kh, kw), strict=True)]
    six = gradient.reshape(c, kh, kw, *outputs, shape[0]).transpose(0, 1, 2, 5, 3, 4)
    close(cs231n.col2im_6d_cython(six, *shape, kh, kw, pad, stride), image)


@pytest.mark.parametrize("pooled", [False, True])
def test_layers_in_one_call(pooled, tied, rng):
    x, w, b = tied(2, 3, 8, 8) - 1, tied(4, 3, 3, 3) - 1, np.zeros(4)
    param, pool = conv_param(1, 1), pool_param((2, 2), 2)
    a, conv_cache = model.conv_forward(x, w, b, param)
    expected = np.maximum(a, 0)
    if pooled:
        expected, pool_cache = model.max_pool_forward(np.ascontiguousarray(expected), pool)
        out, cache = cs231n.conv_relu_pool_forward(x, w, b, param, pool)
    else:
        out, cache = cs231n.conv_relu_forward(x, w, b, param)
    close(out, expected)
    out[...] = -1  # the caller's
    dout = rng.standard_normal(out.shape)
    before = dout.copy()
    backward = cs231n.conv_relu_pool_backward if pooled else cs231n.conv_relu_backward
    da = model.max_pool_backward(dout, pool_cache) if pooled else dout
    for gradient, exact in zip(backward(dout, cache), model.conv_backward(da * (a > 0), conv_cache), strict=True):
        close(gradient, exact)
    assert_array_equal(dout, before)


def test_batch_normalisation_in_one_call(rng):
    x, w, b = (rng.standard_normal(shape) for shape in ((4, 3, 6, 5), (5, 3, 3, 3), 5))
    gamma, beta, param = rng.standard_normal(5), rng.standard_normal(5), conv_param(1, 1)
    bn_param = {"mode": "train", "momentum": 0.75, "eps": 1e-3}
    out, cache = cs231n.conv_bn_relu_forward(x, w, b, gamma, beta, param, bn_param)
    a, conv_cache = model.conv_forward(x, w, b, param)
    normalised, backward = model.batchnorm(a, gamma, beta, 1e-3)
    close(out, np.maximum(normalised, 0))
    close(bn_param["running_mean"], 0.25 * a.mean(axis=(0, 2, 3)))
    close(bn_param["running_var"], 0.25 * a.var(axis=(0, 2, 3)))
    dout = rng.standard_normal(out.shape)
    da, dgamma, dbeta = backward(dout * (normalised > 0))
    expected = *model.conv_backward(da, conv_cache), dgamma, dbeta
    for gradient, exact in zip(cs231n.conv_bn_relu_backward(dout, cache), expected, strict=True):
        assert_allclose(gradient, exact, rtol=1e-8, atol=1e-8)
    test, cache = cs231n.conv_bn_relu_forward(x, w, b, gamma, beta, param, bn_param | {"mode": "test"})
    mean, var = (bn_param[key][:, np.newaxis, np.newaxis] for key in ("running_mean", "running_var"))
    scale = gamma[:, np.newaxis, np.newaxis] / np.sqrt(var + 1e-3)
    close(test, np.maximum((a - mean) * scale + beta[:, np.newaxis, np.newaxis], 0))
    close(cs231n.conv_bn_relu_backward(dout, cache)[0], model.conv_backward(dout * (test > 0) * scale, conv_cache)[0])


class TestDtypes:
    """NumPy's arithmetic: float32 alone stays, all else is float64."""

    def results(self, x, w, b):
        out, cache = cs231n.conv_forward_fast(x, w, b, conv_param(1, 0))
        pooled, pool_cache = cs231n.max_pool_forward_fast(out, pool_param((2, 2), 2))
        dout = cs231n.max_pool_backward_fast(np.ones_like(pooled), pool_cache)
        return [out, pooled, dout, *cs231n.conv_backward_fast(dout, cache)]

    def test_float32_stays(self, rng):
        arrays = [rng.standard_normal(shape, np.float32) for shape in ((2, 1, 6, 6), (3, 1, 3, 3), 3)]
        assert [a.dtype for a in self.results(*arrays)] == [np.float32] * 6
        arrays[1] = arrays[1].astype(np.float64)
        assert [a.dtype for a in self.results(*arrays)] == [np.float64] * 6

    @pytest.mark.parametrize("kind", [np.float16, np.int64, np.uint8])
    def test_the_rest_is_float64(self, kind, rng):
        arrays = [rng.integers(0, 3, shape).astype(kind) for shape in ((2, 1, 6, 6), (3, 1, 3, 3), 3)]
        assert [a.dtype for a in self.results(*arrays)] == [np.float64] * 6
        assert cs231n.im2col_cython(arrays[0], 2, 2, 0, 1).dtype == np.float64

    def test_columns_keep_float32(self, rng):
        x = rng.standard_normal((2, 1, 4, 4), np.float32)
        cols = cs231n.im2col_cython(x, 2, 2, 0, 1)
        assert cols.dtype == cs231n.col2im_cython(cols, 2, 1, 4, 4, 2, 2, 0, 1).dtype == np.float32


def test_weights_are_live(rng):
    x, w, b = (rng.standard_normal(shape) for shape in ((2, 16, 8, 8), (16, 16, 3, 3), 16))
    param = conv_param(1, 1)
    for change in (lambda: None, lambda: w.__imul__(2), lambda: w.__setitem__((3, 2, 1, 0), 5.0), lambda: b.fill(1)):
        change()
        out, cache = cs231n.conv_forward_fast(x, w, b, param)
        expected, model_cache = model.conv_forward(x, w, b, param)
        close(out, expected)
        close(cs231n.conv_backward_fast(out, cache)[0], model.conv_backward(expected, model_cache)[0])


def test_x_must_stay_as_it_was(rng):
    x, w, b = rng.standard_normal((2, 1, 8, 8)), rng.standard_normal((2, 1, 3, 3)), np.zeros(2)
    out, cache = cs231n.conv_forward_fast(x, w, b, conv_param(1, 1))
    x[0, 0, 0, 0] += 1
    for backward in (cs231n.conv_backward_fast, cs231n.conv_backward_im2col):
        with pytest.raises(RuntimeError, match="`x` was changed between the forward and the backward pass"):
            backward(out, cache)


class TestLedger:
    """What the original does, and what this does: a row of docs/compat/README.md each."""

    @pytest.mark.parametrize("path", ["fast", "im2col"])
    def test_windows_that_do_not_fill_the_image_are_refused(self, path, rng):
        x, w, b = (rng.standard_normal(shape) for shape in ((2, 3, 8, 7), (4, 3, 3, 3), 4))
        forward = getattr(cs231n, f"conv_forward_{path}")
        with pytest.raises(AssertionError, match="height: windows of 3 at a stride of 2 do not fill 8"):
            forward(x, w, b, conv_param(2, 0), strict=True)
        close(forward(x, w, b, conv_param(2, 0))[0], model.conv_forward(x, w, b, conv_param(2, 0))[0])
        close(forward(x, w, b, conv_param(1, 0), strict=True)[0], model.conv_forward(x, w, b, conv_param(1, 0))[0])

    def test_pooling_windows_that_do_not_fill_the_image_are_refused(self, rng):
        x, param = rng.standard_normal((1, 1, 4, 7)), pool_param((2, 2), 2)
        for forward in (cs231n.max_pool_forward_fast, cs231n.max_pool_forward_im2col):
            with pytest.raises(AssertionError, match="width: windows of 2 at a stride of 2 do not fill 7"):
                forward(x, param, strict=True)
            assert_array_equal(forward(x, param)[0], jitconv.max_pool2d(x, 2))

    @pytest.mark.parametrize("window", [(2, 3), (1, 4), (3, 3)], ids=str)
    def test_im2col_cython_mixes_height_and_width(self, window, rng):
        x = rng.standard_normal((2, 3, 5, 6))
        cols = cs231n.im2col_cython(x, *window, 1, 1, strict=True)
        assert_array_equal(cols, model.im2col(x, *window, 1, 1, faulty=True))
        right = cs231n.im2col_cython(x, *window, 1, 1)
        assert_array_equal(right, model.im2col(x, *window, 1, 1))
        assert np.array_equal(cols, right) == (window[0] == window[1] or window[0] == 1)
        gradient = rng.standard_normal(cols.shape)
        image = cs231n.col2im_cython(gradient, *x.shape, *window, 1, 1, strict=True)
        close(image, model.col2im(gradient, x.shape, *window, 1, 1, faulty=True))

    def test_im2col_cython_leaves_its_memory_in_high_windows(self, rng):
        x = rng.standard_normal((2, 3, 5, 6))
        with pytest.raises(ValueError, match=r"`field_height` 3 is above `field_width` 2: .*outside of its memory"):
            cs231n.im2col_cython(x, 3, 2, 1, 1, strict=True)
        assert_array_equal(cs231n.im2col_cython(x, 3, 2, 1, 1), model.im2col(x, 3, 2, 1, 1))

    def test_convolution_by_im2col_cython_has_its_fault(self, rng):
        x, w, b = (rng.standard_normal(shape) for shape in ((2, 3, 5, 6), (4, 3, 2, 3), 4))
        param = conv_param(1, 1)
        out, cache = cs231n.conv_forward_im2col(x, w, b, param, strict=True)
        expected, model_cache = model.conv_forward(x, w, b, param, faulty=True)
        close(out, expected)
        dout = rng.standard_normal(out.shape)
        gradients = cs231n.conv_backward_im2col(dout, cache, strict=True)
        for gradient, faulty in zip(gradients, model.conv_backward(dout, model_cache, faulty=True), strict=True):
            close(gradient, faulty)
        right = cs231n.conv_forward_im2col(x, w, b, param)[0]
        close(right, model.conv_forward(x, w, b, param)[0])
        assert not np.allclose(right, out)

    @pytest.mark.parametrize("pad", [0, 1])
    def test_convolution_by_strides_misreads_fortran_order(self, pad, rng):
        x, w, b = (rng.standard_normal(shape) for shape in ((2, 3, 5, 6), (4, 3, 3, 3), 4))
        fortran, param = np.asfortranarray(x), conv_param(1, pad)
        misread, unpadded = model.strided_reading(fortran, pad), conv_param(1, 0)
        expected, model_cache = model.conv_forward(misread, w, b, unpadded)
        out, cache = cs231n.conv_forward_fast(fortran, w, b, param, strict=True)
        close(out, expected)
        dout = rng.standard_normal(out.shape)
        dx, dw, db = cs231n.conv_backward_fast(dout, cache, strict=True)
        faulty_dx, faulty_dw, faulty_db = model.conv_backward(dout, model_cache)
        close(dx, faulty_dx[:, :, pad : pad + 5, pad : pad + 6])
        close(dw, faulty_dw)
        close(db, faulty_db)
        right, _ = cs231n.conv_forward_fast(fortran, w, b, param)
        close(right, model.conv_forward(x, w, b, param)[0])
        assert not np.allclose(right, out)


class TestBadInput:
    def test_arrays(self, rng):
        x, w, b, param = np.zeros((1, 3, 5, 5)), np.zeros((2, 3, 3, 3)), np.zeros(2), conv_param(1, 1)
        with pytest.raises(ValueError, match=r"`x` must have the axes \(N, C, H, W\)"):
            cs231n.conv_forward_fast(x[0], w, b, param)
        with pytest.raises(ValueError, match="`w` has 2 input channels, but `x` has 3"):
            cs231n.conv_forward_fast(x, w[:, :2], b, param)
        with pytest.raises(ValueError, match=r"`b` must have shape \(2,\)"):
            cs231n.conv_forward_fast(x, w, b[:1], param)
        _, cache = cs231n.conv_forward_fast(x, w, b, param)
        for backward in (cs231n.conv_backward_fast, cs231n.conv_backward_im2col):
            with pytest.raises(ValueError, match=r"`dout` must have shape \(1, 2, 5, 5\)"):
                backward(np.zeros((1, 2, 4, 5)), cache)
        _, cache = cs231n.max_pool_forward_fast(x, pool_param((2, 2), 1))
        with pytest.raises(ValueError, match=r"`dout` must have shape \(1, 3, 4, 4\)"):
            cs231n.max_pool_backward_fast(np.zeros((1, 3, 2, 2)), cache)
        with pytest.raises(ValueError, match=r"`x` must have the axes"):
            cs231n.max_pool_forward_fast(x[0], pool_param((2, 2), 1))
        with pytest.raises(TypeError, match="`x` must be an array of real numbers"):
            cs231n.max_pool_forward_fast(x.astype(complex), pool_param((2, 2), 1))
        _, cache = cs231n.conv_relu_forward(x, w, b, param)
        with pytest.raises(ValueError, match=r"`dout` must have shape \(1, 2, 5, 5\)"):
            cs231n.conv_relu_backward(np.zeros((1, 1, 5, 5)), cache)

    def test_options(self):
        x, w, b = np.zeros((1, 3, 5, 5)), np.zeros((2, 3, 3, 3)), np.zeros(2)
        with pytest.raises(ValueError, match="`conv_param` must be a dictionary with the key 'pad'"):
            cs231n.conv_forward_fast(x, w, b, {"stride": 1})
        with pytest.raises(ValueError, match=r"`conv_param\['stride'\]` must be an integer of at least 1, got 0"):
            cs231n.conv_forward_fast(x, w, b, conv_param(0, 1))
        with pytest.raises(TypeError, match=r"`pool_param\['pool_width'\]` must be an integer"):
            cs231n.max_pool_forward_fast(x, pool_param((2, 2.5), 1))
        with pytest.raises(ValueError, match="`pool_param` must be squares that tile"):
            cs231n.max_pool_forward_reshape(x, pool_param((2, 2), 2))
        with pytest.raises(ValueError, match="`ties` must be one of"):
            cs231n.max_pool_forward_fast(x, pool_param((2, 2), 2), ties="last")
        with pytest.raises(ValueError, match=r"`cache\[0\]` must be one of 'reshape', 'im2col'"):
            cs231n.max_pool_backward_fast(x, ("naive", None))
        with pytest.raises(ValueError, match=r"`bn_param\['mode'\]` must be one of"):
            cs231n.conv_bn_relu_forward(x, w, b, b, b, conv_param(1, 1), {})
        with pytest.raises(ValueError, match=r"`gamma` must have shape \(2,\)"):
            cs231n.conv_bn_relu_forward(x, w, b, np.ones(3), b, conv_param(1, 1), {"mode": "train"})
        with pytest.raises(ValueError, match="must fit into the padded image of 5x5"):
            cs231n.im2col_cython(x, 6, 2, 0, 1)
        with pytest.raises(ValueError, match=r"`cols` must have shape \(12, 16\)"):
            cs231n.col2im_cython(np.zeros((12, 15)), 1, 3, 5, 5, 2, 2, 0, 1)
        with pytest.raises(ValueError, match=r"`cols` must have shape \(3, 2, 2, 1, 4, 4\)"):
            cs231n.col2im_6d_cython(np.zeros((12, 16)), 1, 3, 5, 5, 2, 2, 0, 1)


def loaded(name):
    """Return the example as a module of its own, whose import can be changed."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def plain_layers(module):
    """Let the example's network stand on the model."""

    def relu_pool_forward(x, w, b, param, pool=None):
        a, conv_cache = model.conv_forward(x, w, b, param)
        out, pool_cache = np.ascontiguousarray(np.maximum(a, 0)), None
        if pool is not None:
            out, pool_cache = model.max_pool_forward(out, pool)
        return out, (conv_cache, a, pool_cache)

    def relu_pool_backward(dout, cache):
        conv_cache, a, pool_cache = cache
        da = dout if pool_cache is None else model.max_pool_backward(dout, pool_cache)
        return model.conv_backward(da * (a > 0), conv_cache)

    module.conv_relu_forward = module.conv_relu_pool_forward = relu_pool_forward
    module.conv_relu_backward = module.conv_relu_pool_backward = relu_pool_backward


def test_networks_train_alike(rng):
    """Ten steps of the example's network; what differs is the import alone."""
    plain, fast = loaded("plain"), loaded("fast")
    plain_layers(plain)
    sizes = {"filters": (3, 4), "image": (2, 8, 6)}
    networks = [module.ConvNet(np.random.default_rng(3), **sizes) for module in (plain, fast)]
    optimizers = [module.SGDMomentum(one.params) for module, one in zip((plain, fast), networks, strict=True)]
    x, y = rng.standard_normal((4, 2, 8, 6)), rng.integers(0, 10, 4)
    for _ in range(10):
        (loss, grads), (fast_loss, fast_grads) = (one.loss(x, y) for one in networks)
        close(fast_loss, loss)
        for key, value in grads.items():
            close(fast_grads[key], value)
        for optimizer, gradients in zip(optimizers, (grads, fast_grads), strict=True):
            optimizer.step(gradients)
    for key, value in networks[0].params.items():
        close(networks[1].params[key], value)
    close(networks[1].loss(x), networks[0].loss(x))
