"""Numbers at the ends of the range: overflow, underflow and subnormals, infinity, NaN, ties and signed zeros.

docs/numerics.md says what happens, in "Extremes". Whole numbers times a power of two have exact sums in any order, also
where the sums are subnormal: results are compared bit by bit, with the reference, and with PyTorch if it is there.
"""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from cases import ConvCase, TransposedCase
from layouts import from_layout, to_layout
from numpy.testing import assert_allclose, assert_array_equal
from references import conv as reference
from references import pool as pool_reference

import jitconv
from jitconv.kernels import simd, transforms
from jitconv.layers import BatchNorm2d
from jitconv.pointwise import relu, relu_backward
from jitconv.training import SGD, Adadelta, AdaGrad, Adam, RMSProp, softmax_cross_entropy

NAN, INF = np.nan, np.inf

CASES = [
    ConvCase("3x3", 2, 5, 9, 11, 7, padding=1),
    ConvCase("few channels", 2, 1, 12, 33, 4, (5, 5), padding=2),
    ConvCase("1x1", 2, 19, 6, 7, 33, (1, 1)),
    ConvCase("stride 2", 2, 17, 9, 10, 20, stride=2, padding=1),
    ConvCase("many channels", 1, 64, 6, 6, 65, padding=1),
    ConvCase("depthwise", 2, 18, 8, 17, 18, padding=1, groups=18),
    ConvCase("groups of 4 channels", 2, 20, 8, 9, 20, padding=1, groups=5),
]
each_case = pytest.mark.parametrize("case", CASES, ids=str)
exact_algorithm = pytest.mark.parametrize("algorithm", ["direct", "im2col"])


def scaled(values, exponent, dtype):
    """Return whole numbers times a power of two, rounded and overflowed as the dtype does."""
    with np.errstate(over="ignore"):
        return np.ldexp(np.asarray(values, np.longdouble), exponent).astype(dtype)


def smallest(dtype):
    """Return the exponent of the smallest subnormal number."""
    return {4: -149, 8: -1074}[dtype.itemsize]


def convolve(case, x, w, b, dy, layout, algorithm):
    """Return y, dx, dw and db, in NCHW."""
    options = {"layout": layout, "algorithm": algorithm, **case.options}
    x, dy = to_layout(x, layout), to_layout(dy, layout)
    y, gradients = jitconv.conv2d(x, w, b, **options), jitconv.conv2d_backward(dy, x, w, **options)
    return from_layout(y, layout), from_layout(gradients.dx, layout), gradients.dw, gradients.db


def exact(case, x, w, b, dy):
    """Return the same of whole numbers."""
    return reference.conv2d(x, w, b, **case.options), *reference.conv2d_backward(dy, x, w, **case.options)


def torch_convolve(case, x, w, b, dy):
    torch = pytest.importorskip("torch")
    x, w, b = (torch.tensor(a, requires_grad=True) for a in (x, w, b))
    y = torch.nn.functional.conv2d(x, w, b, **case.options)
    y.backward(torch.tensor(dy))
    return [a.detach().numpy() for a in (y, x.grad, w.grad, b.grad)]


# Subnormals

# Exponents of x, w and dy above that of the smallest number: subnormal products, subnormal inputs or weights.
SUBNORMAL = {"products": (0.5, 0.5, 0.5), "x": (1, 0, 0), "w": (0, 1, 0), "dy": (0, 0, 1)}


@each_case
@exact_algorithm
@pytest.mark.parametrize("which", SUBNORMAL)
def test_subnormal_convolutions_are_exact(case, algorithm, which, dtype, layout, rng):
    """In all passes: sums of multiples of the smallest number, none of which is flushed to zero."""
    low = smallest(dtype) + 1 + (smallest(dtype) + 1) % 2
    ex, ew, edy = (int(share * low) for share in SUBNORMAL[which])
    whole = case.integers(rng, np.float64)
    exponents = ex, ew, ex + ew, edy
    given = [scaled(a, e, dtype) for a, e in zip(whole, exponents, strict=True)]
    results = convolve(case, *given, layout, algorithm)
    for got, right, exponent in zip(results, exact(case, *whole), (ex + ew, edy + ew, edy + ex, edy), strict=True):
        assert_array_equal(got, scaled(right, exponent, dtype))
    assert any(((a != 0) & (abs(a) < np.finfo(dtype).tiny)).any() for a in results)


@pytest.mark.parametrize("groups", [1, 20])
def test_subnormal_transposed_convolutions_are_exact(groups, dtype, layout, rng):
    case = TransposedCase("", 2, 20, 5, 6, 20, stride=2, padding=1, output_padding=1, groups=groups)
    x, w, b, _ = case.integers(rng, np.float64)
    low = (smallest(dtype) + 1) // 2
    given = scaled(x, low, dtype), scaled(w, low, dtype), scaled(b, 2 * low, dtype)
    y = jitconv.conv_transpose2d(to_layout(given[0], layout), *given[1:], layout=layout, **case.options)
    right = scaled(reference.conv_transpose2d(x, w, b, **case.options), 2 * low, dtype)
    assert_array_equal(from_layout(y, layout), right)


@pytest.mark.parametrize("algorithm", ["winograd", "winograd_2x2"])
def test_winograd_loses_digits_of_subnormals_but_does_not_flush_them(algorithm, dtype, layout, rng):
    """Its transforms hold fractions, of which a subnormal number keeps few digits: an absolute error."""
    case = ConvCase("", 2, 16, 12, 12, 16, padding=1)
    x, w, b, dy = case.integers(rng, np.float64)
    exponent = smallest(dtype) + 12
    given = [scaled(a, e, dtype) for a, e in ((x, exponent), (w, 0), (b, exponent), (dy, exponent))]
    y, dx, _, _ = convolve(case, *given, layout, algorithm)
    for got, right in zip((y, dx), exact(case, x, w, b, dy)[:2], strict=True):
        error = np.abs(np.ldexp(got.astype(np.longdouble), -exponent) - right)
        assert error.max() < 0.5  # of 2**12 of the smallest number


def test_averages_of_subnormals_are_exact(dtype, layout, rng):
    low = smallest(dtype)
    x = rng.integers(-8, 9, (2, 5, 8, 40)) * 64
    given = to_layout(scaled(x, low, dtype), layout)
    y = jitconv.avg_pool2d(given, 2, layout=layout)
    means = pool_reference.avg_pool2d(x.astype(np.float64), 2)
    assert_array_equal(from_layout(y, layout), scaled(means, low, dtype))
    dx = jitconv.avg_pool2d_backward(y, given.shape, 2, layout=layout)
    assert_array_equal(from_layout(dx, layout), scaled(np.repeat(np.repeat(means / 4, 2, 2), 2, 3), low, dtype))
    mean = jitconv.global_avg_pool2d(given[:, :8, :8] if layout == "NHWC" else given[..., :8], layout=layout)
    assert_array_equal(from_layout(mean, layout)[..., 0, 0], scaled(x[..., :8].mean((2, 3)), low, dtype))


FLUSHING = """
import numpy as np
import jitconv
from jitconv.kernels.calls import float_mode, set_float_mode
from jitconv.kernels.jit import kernel

@kernel()
def mode():
    return float_mode()

@kernel()
def set_mode(mode):
    set_float_mode(mode)

rng = np.random.default_rng(0)
x = np.ldexp(rng.integers(-3, 4, (8, 16, 40, 40)), -70).astype(np.float32)
w = np.ldexp(rng.integers(-3, 4, (16, 16, 3, 3)), -74).astype(np.float32)

def run(threads):
    with jitconv.num_threads(threads):
        return jitconv.conv2d(x, w, algorithm="direct")

def equal(times, expected):
    return [np.array_equal(run(2), expected) for _ in range(times)].count(True)

own = mode()
flushing = own | FLAGS
set_mode(flushing)
zeros = run(2)  # starts the threads, which flush as this one does
set_mode(own)
right = run(1)
print(right.any(), zeros.any(), equal(20, right))
set_mode(flushing)
print(equal(20, zeros), np.array_equal(run(1), zeros), mode() == flushing)
"""
# Flush to zero, and take subnormals for zero: of MXCSR, of FPCR.
FLAGS = {"x86_64": 0x8040, "AMD64": 0x8040, "aarch64": 1 << 24, "arm64": 1 << 24}


@pytest.mark.skipif(os.uname().machine not in FLAGS, reason="how to flush is not known")
@pytest.mark.parametrize("layer", ["default", "omp", "workqueue"])
def test_all_threads_keep_subnormals_if_the_caller_does(layer):
    """Threads have the mode of whoever started them, and other libraries change it: results would be mixed."""
    child = subprocess.run(
        [sys.executable, "-P", "-c", FLUSHING.replace("FLAGS", str(FLAGS[os.uname().machine]))],
        env=os.environ | {"NUMBA_THREADING_LAYER": layer},
        capture_output=True,
        text=True,
        check=False,
    )
    assert child.stdout.split("\n")[:2] == ["True False 20", "20 True True"], child.stderr


ON_TORCHS_THREADS = """
import torch
import jitconv.torch
from jitconv.torch.functional import conv2d

draw = torch.Generator().manual_seed(0)
x = torch.ldexp(torch.randint(-3, 4, (8, 16, 40, 40), generator=draw).float(), torch.tensor(-70))
w = torch.ldexp(torch.randint(-3, 4, (16, 16, 3, 3), generator=draw).float(), torch.tensor(-74))

def run(threads):
    torch.set_num_threads(threads)
    return conv2d(x, w)

assert torch.set_flush_denormal(True)
zeros = run(2)
torch.set_flush_denormal(False)
right = run(1)
print(bool((right != 0).any()), bool((zeros != 0).any()), [torch.equal(run(2), right) for _ in range(20)].count(True))
"""


def test_pytorchs_threads_keep_subnormals_too():
    pytest.importorskip("torch")
    child = subprocess.run([sys.executable, "-P", "-c", ON_TORCHS_THREADS], capture_output=True, text=True, check=False)
    assert child.stdout == "True False 20\n", child.stderr


# Overflow


def large(dtype):
    """Return the exponent of the smallest power of two that is too large."""
    return {4: 128, 8: 1024}[dtype.itemsize]


@each_case
@exact_algorithm
def test_a_result_overflows_only_if_it_is_too_large(case, algorithm, dtype, layout, rng):
    """No sum of positive numbers is ever above the result: infinity is where the exact result is too large."""
    whole = [abs(a) for a in case.integers(rng, np.float64)]
    right = exact(case, *whole)
    middle = int(np.log2(np.median(right[0][right[0] > 0])))
    exponent = large(dtype) - middle
    exponents = exponent // 2, exponent - exponent // 2, exponent, 0
    given = [scaled(a, e, dtype) for a, e in zip(whole, exponents, strict=True)]
    expected = [scaled(a, e, dtype) for a, e in zip(right, (exponent, exponents[1], exponents[0], 0), strict=True)]
    y = expected[0]
    assert np.isinf(y).any()
    assert np.isfinite(y).any()
    for got, wanted in zip(convolve(case, *given, layout, algorithm), expected, strict=True):
        assert_array_equal(got, wanted)


@each_case
@pytest.mark.parametrize("overflows", [True, False])
def test_pytorch_overflows_where_we_do(case, overflows, dtype, layout, rng):
    """Positive sums as above, with NaN and infinity among them; or finite ones, with infinities of both signs."""
    x, w, b, dy = (abs(a) for a in case.integers(rng, np.float64))
    exponent = large(dtype) - int(np.log2(np.median(exact(case, x, w, b, dy)[0]))) - (0 if overflows else 40)
    x, w, b, dy = (scaled(a, e, dtype) for a, e in ((x, exponent - 20), (w, 20), (b, exponent), (dy, 0)))
    x[0, 0, 3, 3], x[-1, -1, 2, 5], x[0, -1, -1, -1] = NAN, INF, INF if overflows else -INF
    w += 2**20  # zero times infinity would be NaN
    expected = torch_convolve(case, x, w, b, dy)
    with jitconv.without_winograd():
        results = convolve(case, x, w, b, dy, layout, "auto")
    for got, wanted in zip(results, expected, strict=True):
        assert_array_equal(np.isnan(got), np.isnan(wanted))
        assert_allclose(got, wanted, rtol=20 * np.finfo(dtype).eps)


@each_case
@exact_algorithm
def test_sums_of_both_signs_are_right_or_show_that_they_are_not(case, algorithm, dtype, layout, rng):
    """A sum on the way may be too large where the result is not; it never comes back as a wrong number."""
    whole = case.integers(rng, np.float64)
    exponent = large(dtype) - 4
    given = [scaled(a, e, dtype) for a, e in zip(whole, (exponent - 20, 20, exponent, 0), strict=True)]
    y = convolve(case, *given, layout, algorithm)[0]
    right = scaled(exact(case, *whole)[0], exponent, dtype)
    finite = np.isfinite(y)
    assert_array_equal(y[finite], right[finite])
    magnitude = scaled(reference.conv2d(*(abs(a) for a in whole[:3]), **case.options), exponent, dtype)
    assert finite[np.isfinite(magnitude)].all()  # whatever the order
    assert not finite.all()


FUSED = "fma" in simd.FEATURES or os.uname().machine in ("aarch64", "arm64")


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_a_product_may_be_too_large_where_its_sum_is_not(layout, dtype):
    """A fused operation rounds once: docs/numerics.md, "Types"."""
    high = large(dtype)
    x, w = scaled(np.ones((1, 1, 1, 1)), high - 1, dtype), scaled(np.full((1, 1, 1, 1), 2), 0, dtype)
    b = scaled([-1.5], high - 1, dtype)
    y = jitconv.conv2d(x, w, b, layout=layout, algorithm="direct")
    assert y.item() == (scaled(0.5, high - 1, dtype) if FUSED else INF)


# By how much a transform may make the largest input larger: docs/numerics.md, "Extremes".
WINOGRAD = [
    ("winograd", 3, 1, transforms.F4_3, 100),
    ("winograd_2x2", 3, 1, transforms.F2_3, 4),
    ("winograd", 5, 1, transforms.F4_5, 225),
    ("winograd", 3, 2, transforms.STRIDE_2, 36),
]


@pytest.mark.parametrize(("algorithm", "kernel", "stride", "form", "growth"), WINOGRAD)
def test_winograd_overflows_earlier(algorithm, kernel, stride, form, growth, dtype, layout, rng):
    """Its transforms add up multiples of the inputs of a tile. Direct does as PyTorch."""
    assert np.abs(form.input).sum(axis=1).max() ** 2 == growth
    case = ConvCase("", 2, 16, 12, 12, 16, (kernel, kernel), stride, kernel // 2, bias=False)
    x, w, _ = case.arrays(rng, np.float64)
    x, w = np.clip(x, -1, 1), (w * 2.0**-20).astype(dtype)
    most = float(np.finfo(dtype).max)
    options = {"layout": layout, **case.options}
    right = reference.conv2d(x, w.astype(np.float64), None, **case.options)

    def run(part, algorithm):
        y = jitconv.conv2d(to_layout((x * part).astype(dtype), layout), w, algorithm=algorithm, **options)
        return from_layout(y, layout).astype(np.longdouble) / part

    within = run(most / 2 / growth, algorithm)
    assert np.abs(within - right).max() < 300 * np.finfo(dtype).eps * np.abs(right).max()
    beyond = run(most / 1.01, algorithm)
    assert not np.isfinite(beyond).all()
    assert_allclose(run(most / 1.01, "direct"), right, atol=30 * np.finfo(dtype).eps * np.abs(right).max())
    with jitconv.without_winograd():
        assert_array_equal(run(most / 1.01, "auto"), run(most / 1.01, "direct"))


# Pooling

VALUES = (-INF, INF, NAN, -0.0, 0.0, 1, 1, -1)
POOLINGS = [
    (2, {"stride": 2}),
    (2, {"stride": 1}),
    (3, {"stride": 2, "padding": 1}),
    (3, {"stride": 1, "padding": 1}),
    (3, {"stride": 2, "padding": 1, "ceil_mode": True}),
    (2, {"stride": 2, "dilation": 2}),
    (5, {"stride": 2, "padding": 2}),
]
each_pooling = pytest.mark.parametrize(("kernel", "options"), POOLINGS, ids=str)


@pytest.fixture(params=["any", "ties", "minus infinity"])
def pixels(request, rng, dtype):
    """Return images (2, 5, 11, 37) of infinities, NaN, zeros of both signs, and the largest and smallest numbers."""
    limits = np.finfo(dtype)
    values = [*VALUES, limits.max, -limits.max, limits.smallest_subnormal, -limits.smallest_subnormal]
    if request.param == "ties":
        values = [-0.0, 0.0, -0.0, 0.0, -1]
    if request.param == "minus infinity":
        values = [-INF] * 9 + [-limits.max]
    return rng.choice(np.array(values, dtype), (2, 5, 11, 37))


def in_memory_of(torch, a, layout):
    return torch.tensor(a).contiguous(memory_format=getattr(torch, FORMATS[layout]))


FORMATS = {"NCHW": "contiguous_format", "NHWC": "channels_last"}


def same_bits(a, b):
    """Assert that arrays are equal, signs of zeros too; NaN equals NaN."""
    assert_array_equal(a, b)
    numbers = ~np.isnan(a)
    assert_array_equal(np.signbit(a)[numbers], np.signbit(b)[numbers])


def places(argmax, kernel, columns, stride, padding=0, dilation=1, ceil_mode=False):
    """Return PyTorch's indices, places in the image, for offsets within windows."""
    row, column = (np.arange(size) * stride - padding for size in argmax.shape[-2:])
    argmax = argmax.astype(np.int64)
    return (row[:, None] + argmax // kernel * dilation) * columns + column + argmax % kernel * dilation


@each_pooling
def test_the_largest_pixel_is_pytorchs(kernel, options, pixels, layout):
    """Its value, the sign of zero included, and its place, with the first of equal ones; the gradient goes there.

    Of several NaN the first is taken, as by `np.argmax`; PyTorch takes the last.
    """
    torch = pytest.importorskip("torch")
    wanted, indices = torch.nn.functional.max_pool2d(
        in_memory_of(torch, pixels, layout), kernel, return_indices=True, **options
    )
    given = to_layout(pixels, layout)
    y, argmax = jitconv.max_pool2d_with_argmax(given, kernel, layout=layout, **options)
    same_bits(from_layout(y, layout), wanted.numpy())
    same_bits(from_layout(jitconv.max_pool2d(given, kernel, layout=layout, **options), layout), wanted.numpy())
    found = places(from_layout(argmax, layout), kernel, pixels.shape[-1], **options)
    nan = np.isnan(wanted.numpy())
    assert_array_equal(found[~nan], indices.numpy()[~nan])
    planes = pixels.reshape(2, 5, -1)
    assert np.isnan(np.take_along_axis(planes, found.reshape(2, 5, -1), -1)[nan.reshape(2, 5, -1)]).all()
    assert (found <= indices.numpy()).all()


@each_pooling
def test_the_largest_pixel_is_the_first_of_its_window(kernel, options, pixels, layout):
    wanted, offsets = pool_reference.max_pool2d(pixels, kernel, **options)
    y, argmax = jitconv.max_pool2d_with_argmax(to_layout(pixels, layout), kernel, layout=layout, **options)
    assert_array_equal(from_layout(y, layout), wanted)
    assert_array_equal(from_layout(argmax, layout), offsets)


def test_a_gradient_of_any_value_goes_where_the_largest_was(pixels, layout, rng):
    """Also infinity and NaN, and zeros of either sign; none is multiplied by zero on its way."""
    torch = pytest.importorskip("torch")
    options = {"stride": 2, "padding": 1}
    x = np.where(np.isnan(pixels), 2, pixels)
    given = in_memory_of(torch, x, layout).requires_grad_()
    wanted = torch.nn.functional.max_pool2d(given, 3, **options)
    dy = rng.choice(np.array([*VALUES, 3.5], x.dtype), wanted.shape)
    wanted.backward(torch.tensor(dy))
    _, argmax = jitconv.max_pool2d_with_argmax(to_layout(x, layout), 3, layout=layout, **options)
    shape = to_layout(x, layout).shape
    dx = jitconv.max_pool2d_backward(to_layout(dy, layout), argmax, shape, 3, layout=layout, **options)
    assert_array_equal(from_layout(dx, layout), given.grad.numpy())


@pytest.mark.parametrize("counted", [True, False])
@pytest.mark.parametrize(("kernel", "options"), [one for one in POOLINGS if "dilation" not in one[1]], ids=str)
def test_averages_are_pytorchs(kernel, options, counted, pixels, layout):
    """Infinity and minus infinity average to NaN; sums that are too large are infinite, also where the mean is not."""
    torch = pytest.importorskip("torch")
    given = in_memory_of(torch, pixels, layout)
    wanted = torch.nn.functional.avg_pool2d(given, kernel, count_include_pad=counted, **options).numpy()
    y = jitconv.avg_pool2d(to_layout(pixels, layout), kernel, count_include_pad=counted, layout=layout, **options)
    assert_array_equal(from_layout(y, layout), wanted)


def test_averages_that_are_too_large_on_the_way(layout):
    """Windows are summed in their own dtype; whole images in float64, so that float32 cannot overflow."""
    high = np.finfo(np.float32).max
    x = np.full((1, 2, 4, 4), high, np.float32)
    assert (jitconv.avg_pool2d(to_layout(x, layout), 2, layout=layout) == INF).all()
    assert (jitconv.global_avg_pool2d(to_layout(x, layout), layout=layout) == high).all()
    wide = x.astype(np.float64) / high * np.finfo(np.float64).max
    assert (jitconv.global_avg_pool2d(to_layout(wide, layout), layout=layout) == INF).all()


def test_the_global_maximum_is_pytorchs(pixels, layout):
    torch = pytest.importorskip("torch")
    wanted = torch.nn.functional.adaptive_max_pool2d(torch.tensor(pixels), 1).numpy()
    y, argmax = jitconv.global_max_pool2d(to_layout(pixels, layout), layout=layout)
    same_bits(from_layout(y, layout), wanted)
    planes = pixels.reshape(2, 5, -1)
    assert_array_equal(from_layout(argmax, layout).reshape(2, 5), planes.argmax(-1))


# Zeros


@each_case
@exact_algorithm
def test_a_sum_of_negative_zeros_is_positive(case, algorithm, dtype, layout):
    """Without a bias: the sum starts from +0. With a bias the sign of a zero is not defined, as in PyTorch."""
    x, w = np.full(case.x_shape, -0.0, dtype), np.ones(case.w_shape, dtype)
    options = {"layout": layout, "algorithm": algorithm, **case.options}
    for activation in (None, "relu"):
        y = jitconv.conv2d(to_layout(x, layout), w, activation=activation, **options)
        assert_array_equal(y, 0)
        assert not np.signbit(y).any()


def test_relu_keeps_the_sign_of_zero(dtype):
    x = np.array([-0.0, 0.0, -np.finfo(dtype).smallest_subnormal, np.finfo(dtype).smallest_subnormal] * 9, dtype)
    y = relu(x)
    same_bits(y, np.array([-0.0, 0.0, 0.0, np.finfo(dtype).smallest_subnormal] * 9, dtype))
    assert_array_equal(relu_backward(np.full_like(x, INF), y), np.where(x > 0, INF, 0))


def test_relu_is_pytorchs(pixels):
    torch = pytest.importorskip("torch")
    given = torch.tensor(pixels, requires_grad=True)
    wanted = torch.relu(given)
    wanted.backward(torch.full_like(wanted, 2))
    y = relu(pixels)
    same_bits(y, wanted.detach().numpy())
    assert_array_equal(relu_backward(np.full_like(pixels, 2), y), given.grad.numpy())


# Normalisation, loss and optimizers


@pytest.mark.parametrize("share", [0.3, 0.47, 0.6, 0.9])
def test_batch_norm_of_large_numbers_is_pytorchs(share, dtype, layout, rng):
    """Up to the root of the largest number it normalises; beyond, the variance is infinite and x becomes the bias."""
    torch = pytest.importorskip("torch")
    size = 2.0 ** int(share * (large(dtype) - 1))
    x, dy = (rng.standard_normal((4, 3, 6, 7)) for _ in range(2))
    x, dy = (np.clip(x, -2, 2) / 2 * size).astype(dtype), dy.astype(dtype)
    theirs = torch.nn.BatchNorm2d(3, dtype=getattr(torch, dtype.name))
    given = torch.tensor(x, requires_grad=True)
    wanted = theirs(given)
    wanted.backward(torch.tensor(dy))
    layer = BatchNorm2d(3, layout=layout, dtype=dtype)
    y = from_layout(layer.forward(to_layout(x, layout)), layout)
    dx = from_layout(layer.backward(to_layout(dy, layout)), layout)
    limit = {"rtol": 1e-4 if dtype == np.float32 else 1e-12, "atol": 1e-5 if dtype == np.float32 else 1e-13}
    assert_allclose(y, wanted.detach(), **limit)
    assert_allclose(dx * size, given.grad.numpy() * size, **limit)
    assert_allclose(layer.gradients["weight"], theirs.weight.grad, **limit)
    assert_allclose(layer.buffers["running_var"], theirs.running_var, rtol=1e-4)
    if share > 0.5:
        assert_array_equal(layer.buffers["running_var"], INF)


@pytest.mark.parametrize("share", [-0.9, -0.2, 0.0, 0.45])
def test_batch_norm_of_a_constant_channel_is_the_bias(share, dtype, layout, rng):
    value = dtype.type(1.7 * 2.0 ** int(share * (large(dtype) - 1)))
    layer = BatchNorm2d(3, layout=layout, dtype=dtype)
    layer.parameters["bias"][:] = 0.25, 0.5, 4
    x = np.full((4, 3, 8, 8), value)
    y = from_layout(layer.forward(to_layout(x, layout)), layout)
    expected = np.broadcast_to([[[0.25]], [[0.5]], [[4]]], x.shape)
    if dtype == np.float32:
        assert_array_equal(y, expected)
    else:  # blocks are put together in float64: the mean may be off in its last place
        assert_allclose(y, expected, atol=400 * np.finfo(dtype).eps * value)
    dx = from_layout(layer.backward(to_layout(rng.standard_normal(x.shape).astype(dtype), layout)), layout)
    assert np.isfinite(dx).all()


def test_batch_norm_of_infinity_is_nan_in_its_channel(dtype, layout, rng):
    x = rng.standard_normal((4, 3, 6, 7)).astype(dtype)
    x[1, 1, 2, 3], x[0, 2, 0, 0] = INF, NAN
    layer = BatchNorm2d(3, layout=layout, dtype=dtype)
    y = from_layout(layer.forward(to_layout(x, layout)), layout)
    dx = from_layout(layer.backward(to_layout(np.ones_like(x), layout)), layout)
    for a in (y, dx):
        assert np.isfinite(a[:, 0]).all()
        assert np.isnan(a[:, 1:]).all()


LOGITS = [
    (1e4, -1e4, 0),
    (1e4, 1e4, 1e4),
    (INF, 0, 1),
    (INF, INF, 1),
    (-INF, 0, 1),
    (-INF, -INF, -INF),
    (NAN, 0, 1),
    (0, 1, NAN),
    (0, -INF, -INF),
    (88, 0, -15),
    (100, 0, 0),
    (740, 0, -4),
]


@pytest.mark.parametrize("logits", [*LOGITS, "largest"], ids=str)
@pytest.mark.parametrize("label", [0, 1, 2])
def test_cross_entropy_is_pytorchs(logits, label, dtype):
    """Probabilities may be subnormal; a logit of infinity, or NaN, makes its whole row NaN."""
    torch = pytest.importorskip("torch")
    largest = np.finfo(dtype).max
    logits = np.array([(largest, -largest, 0) if logits == "largest" else logits], dtype)
    given = torch.tensor(logits, requires_grad=True)
    wanted = torch.nn.functional.cross_entropy(given, torch.tensor([label]))
    wanted.backward()
    loss, dlogits = softmax_cross_entropy(logits, np.array([label]))
    limit = 4 * np.finfo(dtype).eps
    assert_allclose(loss, wanted.item(), rtol=limit)
    assert_allclose(dlogits, given.grad, rtol=limit, atol=np.finfo(dtype).smallest_subnormal)


OPTIMIZERS = {
    "SGD": (lambda: SGD(0.01, momentum=0.9), {"lr": 0.01, "momentum": 0.9}),
    "Adagrad": (AdaGrad, {}),
    "RMSprop": (RMSProp, {}),
    "Adadelta": (Adadelta, {}),
    "Adam": (Adam, {}),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers_overflow_where_pytorchs_do(name, dtype):
    """Gradients from the smallest to the largest, infinity and NaN: five steps give the same parameters."""
    torch = pytest.importorskip("torch")
    limits = np.finfo(dtype)
    root, low = np.sqrt(limits.max), np.sqrt(limits.tiny)
    sizes = [limits.max, limits.max / 10, root * 30, root * 3, root / 3, 1, low * 3, low / 3, limits.tiny, INF, NAN, 0]
    gradient = np.array([sign * size for size in [*sizes, 5 * limits.smallest_subnormal] for sign in (1, -1)], dtype)
    ours, options = OPTIMIZERS[name]
    parameter = np.linspace(-1, 1, gradient.size).astype(dtype)
    theirs = torch.tensor(parameter, requires_grad=True)
    one, other = ours(), getattr(torch.optim, name)([theirs], **options)
    for _ in range(5):
        one.update({"p": parameter}, {"p": gradient})
        theirs.grad = torch.tensor(gradient)
        other.step()
    assert_allclose(parameter, theirs.detach(), rtol=100 * limits.eps, atol=100 * limits.eps)
