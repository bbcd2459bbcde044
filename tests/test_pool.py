"""Pooling against an independent reference, against PyTorch, and at the edges of what it accepts."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from layouts import from_layout, shape_in, to_layout
from references import pool as reference
from rounding import assert_within_rounding

from jitconv import pool, workspace
from jitconv.threads import num_threads

NAN, INF = np.nan, np.inf


@dataclass(frozen=True)
class PoolCase:
    """The shape of x in NCHW, the window and its options."""

    name: str
    shape: tuple[int, ...]
    kernel: Any
    options: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.name

    def integers(self, rng, dtype, shape=None):
        """Return small integers: many ties, and every sum is exact."""
        return rng.integers(-4, 5, shape or self.shape).astype(dtype)


CASES = [
    PoolCase("2x2", (2, 3, 8, 12), 2),
    PoolCase("2x2-odd-image", (2, 17, 9, 7), 2),
    PoolCase("2x2-odd-image-ceil", (2, 3, 9, 7), 2, {"ceil_mode": True}),
    PoolCase("2x2-wide-rows", (1, 2, 6, 75), 2),
    PoolCase("2x2-padded", (1, 5, 6, 8), 2, {"padding": 1}),
    PoolCase("2x2-stride-1", (1, 4, 5, 37), 2, {"stride": 1}),
    PoolCase("3x3-stride-2", (2, 16, 9, 11), 3, {"stride": 2}),
    PoolCase("3x3-stride-2-padded", (1, 33, 12, 70), 3, {"stride": 2, "padding": 1}),
    PoolCase("3x3-stride-2-padded-ceil", (1, 3, 8, 10), 3, {"stride": 2, "padding": 1, "ceil_mode": True}),
    PoolCase("3x3-stride-1-padded", (2, 5, 6, 40), 3, {"stride": 1, "padding": 1}),
    PoolCase("3x3-stride-3-one-channel", (3, 1, 10, 9), 3),
    PoolCase("1x1", (1, 3, 4, 5), 1),
    PoolCase("1x1-stride-3", (1, 3, 7, 8), 1, {"stride": 3}),
    PoolCase("stride-above-kernel", (1, 2, 11, 13), 2, {"stride": (4, 5)}),
    PoolCase("oblong", (1, 6, 9, 10), (1, 3), {"stride": (2, 1), "padding": (0, 1)}),
    PoolCase("asymmetric-padding", (2, 2, 7, 9), (3, 5), {"stride": 2, "padding": ((1, 0), (0, 2))}),
    PoolCase("padded-far-end-ceil", (1, 2, 5, 6), 4, {"padding": ((0, 2), (2, 0)), "ceil_mode": True}),
    PoolCase("7x6-overlapping", (1, 4, 13, 12), (7, 6), {"stride": (3, 2), "padding": (3, 3)}),
    PoolCase("larger-than-the-image", (2, 3, 3, 4), 6, {"padding": 3}),
    PoolCase("whole-image", (2, 3, 5, 6), (5, 6)),
    PoolCase("one-pixel", (1, 2, 1, 1), 1),
    PoolCase("no-batch", (3, 6, 7), 2),
]
DILATED = [
    PoolCase("dilated", (2, 3, 9, 10), 3, {"stride": 2, "padding": 1, "dilation": 2}),
    PoolCase("dilated-oblong", (1, 5, 8, 11), (2, 3), {"stride": 1, "dilation": (3, 2)}),
    PoolCase("dilated-stride-2", (1, 2, 7, 20), (3, 2), {"stride": (1, 2), "dilation": (2, 3), "padding": 1}),
    PoolCase("dilated-ceil", (1, 3, 7, 6), 2, {"dilation": 2, "padding": 1, "ceil_mode": True}),
]
BATCHED = [case for case in (*CASES, *DILATED) if len(case.shape) == 4]


def check_max(x, kernel, layout, rng, **options):
    """Compare the three functions of maximum pooling with the reference, bit by bit."""
    batch = x if x.ndim == 4 else x[np.newaxis]
    y, argmax = reference.max_pool2d(batch, kernel, **options)
    dy = rng.integers(-4, 5, y.shape).astype(x.dtype)
    dx = reference.max_pool2d_backward(dy, argmax, batch.shape, kernel, **options)
    if x.ndim == 3:
        y, argmax, dy, dx = y[0], argmax[0], dy[0], dx[0]
    options["layout"] = layout
    given_x = to_layout(x, layout)
    before = given_x.copy()
    alone = pool.max_pool2d(given_x, kernel, **options)
    both, found = pool.max_pool2d_with_argmax(given_x, kernel, **options)
    for result in (alone, both):
        assert result.dtype == x.dtype
        np.testing.assert_array_equal(from_layout(result, layout), y)
    assert found.dtype == np.min_scalar_type(math.prod(reference.pair(kernel)) - 1)
    np.testing.assert_array_equal(from_layout(found, layout), argmax)
    np.testing.assert_array_equal(given_x, before)
    gradient = pool.max_pool2d_backward(to_layout(dy, layout), found, given_x.shape, kernel, **options)
    assert gradient.dtype == x.dtype
    np.testing.assert_array_equal(from_layout(gradient, layout), dx)


def check_avg(x, kernel, layout, rng, **options):
    """Compare both functions of average pooling with the reference, within the rounding of a sum."""
    batch = x if x.ndim == 4 else x[np.newaxis]
    taps = math.prod(reference.pair(kernel)) + 1
    y = reference.avg_pool2d(batch, kernel, **options)
    dy = rng.standard_normal(y.shape).astype(x.dtype)
    arguments = (batch.shape, kernel)
    checks = (
        (x, (kernel,), pool.avg_pool2d, y, reference.avg_pool2d(abs(batch), kernel, **options)),
        (
            dy if x.ndim == 4 else dy[0],
            (shape_in(x.shape, layout), kernel),
            pool.avg_pool2d_backward,
            reference.avg_pool2d_backward(dy, *arguments, **options),
            reference.avg_pool2d_backward(abs(dy), *arguments, **options),
        ),
    )
    for source, positional, function, expected, magnitude in checks:
        given_array = to_layout(source, layout)
        before = given_array.copy()
        result = function(given_array, *positional, layout=layout, **options)
        np.testing.assert_array_equal(given_array, before)
        assert result.dtype == x.dtype
        result = from_layout(result, layout).reshape(expected.shape)
        assert_within_rounding(result, expected, magnitude, taps)


@pytest.mark.parametrize("case", [*CASES, *DILATED], ids=str)
def test_max_pooling_matches_the_reference(case, dtype, layout, rng):
    check_max(case.integers(rng, dtype), case.kernel, layout, rng, **case.options)


@pytest.mark.parametrize("count_include_pad", [True, False])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_average_pooling_matches_the_reference(case, count_include_pad, dtype, layout, rng):
    x = rng.standard_normal(case.shape).astype(dtype)
    check_avg(x, case.kernel, layout, rng, count_include_pad=count_include_pad, **case.options)


@st.composite
def poolings(draw):
    """Draw a shape, a kernel that fits, and options."""
    size = st.integers(1, 5)
    kernel = draw(size), draw(size)
    half = [st.integers(0, k // 2) for k in kernel]
    padding = tuple((draw(side), draw(side)) for side in half)
    dilation = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    options = {"padding": padding, "dilation": dilation, "ceil_mode": draw(st.booleans())}
    options["stride"] = draw(st.none() | st.integers(1, 6) | st.tuples(size, size))
    shape = draw(st.integers(0, 3)), draw(st.integers(0, 20)), draw(st.integers(1, 12)), draw(st.integers(1, 40))
    return shape, kernel, options


@given(pooling=poolings(), dtype=st.sampled_from(["float32", "float64"]), seed=st.integers(0, 99))
def test_drawn_poolings_match_the_reference(pooling, dtype, seed):
    shape, kernel, options = pooling
    windows = reference.Windows.of(shape, kernel, **options)
    assume(len(windows.rows) and len(windows.columns))
    rng = np.random.default_rng(seed)
    x = rng.integers(-4, 5, shape).astype(dtype)
    x[rng.random(shape) < 0.05] = NAN
    x[rng.random(shape) < 0.2] = -INF
    numbers = rng.standard_normal(shape).astype(dtype)
    for layout in ("NCHW", "NHWC"):
        check_max(x, kernel, layout, rng, **options)
        if options["dilation"] == (1, 1):
            rest = {name: value for name, value in options.items() if name != "dilation"}
            check_avg(numbers, kernel, layout, rng, count_include_pad=bool(seed % 2), **rest)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_average_backward_is_the_adjoint_of_forward(case, layout, rng):
    # <avg(x), dy> = <x, backward(dy)> for all x and dy: the numerical gradient of a linear function, exactly.
    x = to_layout(rng.standard_normal(case.shape), layout)
    y = pool.avg_pool2d(x, case.kernel, layout=layout, **case.options)
    dy = rng.standard_normal(y.shape)
    dx = pool.avg_pool2d_backward(dy, x.shape, case.kernel, layout=layout, **case.options)
    assert np.vdot(y, dy) == pytest.approx(np.vdot(x, dx), rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("case", [case for case in BATCHED if case.shape[1] > 1], ids=str)
def test_layouts_and_thread_counts_give_the_same_bits(case, dtype, rng):
    # Wide exponents make every change of the order of a sum visible.
    x = (rng.standard_normal(case.shape) * 10.0 ** rng.integers(-3, 4, case.shape)).astype(dtype)
    average = {name: value for name, value in case.options.items() if name != "dilation"}

    def results(layout, threads):
        options = {"layout": layout}
        given_x = to_layout(x, layout)
        with num_threads(threads):
            y, argmax = pool.max_pool2d_with_argmax(given_x, case.kernel, **options, **case.options)
            dx = pool.max_pool2d_backward(y, argmax, given_x.shape, case.kernel, **options, **case.options)
            found = [y, argmax, dx, pool.max_pool2d(given_x, case.kernel, **options, **case.options)]
            if "dilation" not in case.options:
                y = pool.avg_pool2d(given_x, case.kernel, **options, **average)
                found += [y, pool.avg_pool2d_backward(y, given_x.shape, case.kernel, **options, **average)]
        return [from_layout(a, layout).tobytes() for a in found]

    one = results("NCHW", 1)
    assert results("NCHW", 2) == one
    assert results("NHWC", 1) == one
    assert results("NHWC", 2) == one


def single_window(values, layout, dtype, **options):
    """Pool one window, over three channels that hold the same values, and return its value and argmax."""
    x = np.broadcast_to(np.array(values, dtype), (3, *np.shape(values)))
    kernel = options.pop("kernel", np.shape(values))
    y, argmax = pool.max_pool2d_with_argmax(to_layout(x, layout), kernel, layout=layout, **options)
    alone = pool.max_pool2d(to_layout(x, layout), kernel, layout=layout, **options)
    np.testing.assert_array_equal(alone, y)
    y, argmax = from_layout(y, layout), from_layout(argmax, layout)
    assert (argmax == argmax[0]).all()
    return y[0, 0, 0], argmax[0, 0, 0]


@pytest.mark.parametrize(
    ("values", "largest", "offset"),
    [
        ([[1, 3], [3, 2]], 3, 1),
        ([[-INF, -INF], [-INF, -INF]], -INF, 0),
        ([[-INF, 5], [INF, INF]], INF, 2),
        ([[INF, 5], [1, NAN]], NAN, 3),
        ([[1, NAN], [NAN, 9]], NAN, 1),
        ([[NAN, NAN], [INF, 9]], NAN, 0),
        ([[-0.0, 0.0], [0.0, -0.0]], 0, 0),
        ([[2, 7, 7], [9, NAN, 9], [NAN, 0, INF]], NAN, 4),
        ([[2, 7, 7], [9, 9, 9], [-5, 0, 1]], 9, 3),
    ],
)
def test_the_first_maximum_wins_and_nan_wins_over_numbers(values, largest, offset, layout, dtype):
    y, argmax = single_window(values, layout, dtype)
    np.testing.assert_array_equal(y, largest)
    assert argmax == offset
    # The same again through the loops for strides of 2, where the window fits more than once.
    wide = np.tile(np.array(values, dtype), (1, 20)) if len(values) == 2 else np.pad(values, ((0, 0), (0, 20)))
    y, argmax = single_window(wide, layout, dtype, kernel=len(values), stride=2)
    np.testing.assert_array_equal(y, largest)
    assert argmax == offset


def test_padding_never_wins(layout, dtype):
    for values, offset in ((np.full((2, 2), -INF), 4), (np.array([[-5, -2], [-2, -9]]), 5)):
        y, argmax = single_window(values, layout, dtype, kernel=3, padding=1, stride=2)
        assert (y, argmax) == (values.max(), offset)


def test_a_window_without_a_pixel_gives_minus_infinity_and_no_gradient(layout, dtype):
    # Taps at -1 and 2 of an image of 2: both in the padding. PyTorch's indices lie outside of the image here.
    options = {"dilation": 3, "padding": 1, "stride": 1, "layout": layout}
    x = np.ones(shape_in((2, 3, 2, 2), layout), dtype)
    y, argmax = pool.max_pool2d_with_argmax(x, 2, **options)
    assert y.shape == shape_in((2, 3, 1, 1), layout)
    assert (y == -INF).all()
    assert (argmax == 0).all()
    assert not pool.max_pool2d_backward(np.ones_like(y), argmax, x.shape, 2, **options).any()
    argmax[0, 0, 0, 0] = 1
    with pytest.raises(ValueError, match="`argmax` holds 1 offset outside the window or in the padding"):
        pool.max_pool2d_backward(np.ones_like(y), argmax, x.shape, 2, **options)


def test_infinite_pixels_average_as_they_add_up(layout, dtype):
    x = np.array([[[1, INF, 3, -INF, NAN, 1]]], dtype)
    y = pool.avg_pool2d(to_layout(x, layout), (1, 2), stride=1, layout=layout)
    np.testing.assert_array_equal(y.ravel(), [INF, INF, -INF, NAN, NAN])
    dx = pool.avg_pool2d_backward(y, shape_in(x.shape, layout), (1, 2), stride=1, layout=layout)
    np.testing.assert_array_equal(dx.ravel(), [INF, INF, NAN, NAN, NAN, NAN])


@pytest.mark.parametrize("shape", [(0, 3, 4, 5), (2, 0, 4, 5), (0, 4, 5)], ids=str)
def test_no_images_and_no_channels_give_empty_results(shape, layout, dtype):
    x = np.empty(shape_in(shape, layout), dtype)
    y, argmax = pool.max_pool2d_with_argmax(x, 2, layout=layout)
    expected = shape_in((*shape[:-2], 2, 2), layout)
    assert y.shape == argmax.shape == expected
    assert pool.max_pool2d(x, 2, layout=layout).shape == expected
    assert pool.max_pool2d_backward(y, argmax, x.shape, 2, layout=layout).shape == x.shape
    assert pool.avg_pool2d(x, 2, layout=layout).shape == expected
    assert pool.avg_pool2d_backward(y, x.shape, 2, layout=layout).shape == x.shape
    pixel = shape_in((*shape[:-2], 1, 1), layout)
    y, argmax = pool.global_max_pool2d(x, layout=layout)
    assert y.shape == argmax.shape == pool.global_avg_pool2d(x, layout=layout).shape == pixel
    assert pool.global_max_pool2d_backward(y, argmax, x.shape, layout=layout).shape == x.shape
    assert pool.global_avg_pool2d_backward(y, x.shape, layout=layout).shape == x.shape


def variants(x):
    """Return the same values in memory of other kinds."""
    spread = np.full((*x.shape[:-1], 2 * x.shape[-1]), NAN, x.dtype)
    spread[..., ::2] = x
    frozen = x.copy()
    frozen.flags.writeable = False
    shifted = np.empty(x.nbytes + 1, np.uint8)[1:].view(x.dtype).reshape(x.shape)
    shifted[:] = x
    return {
        "strided": spread[..., ::2],
        "negative": x[::-1, :, ::-1].copy()[::-1, :, ::-1],
        "fortran": np.asfortranarray(x),
        "read-only": frozen,
        "unaligned": shifted,
    }


def test_every_kind_of_memory_gives_the_same_result(layout, rng):
    x = rng.standard_normal(shape_in((2, 3, 6, 7), layout)).astype(np.float32)
    y, argmax = pool.max_pool2d_with_argmax(x, 2, layout=layout)
    mean = pool.avg_pool2d(x, 2, layout=layout)
    dx = pool.max_pool2d_backward(y, argmax, x.shape, 2, layout=layout)
    for name, other in variants(x).items():
        np.testing.assert_array_equal(pool.max_pool2d(other, 2, layout=layout), y, name)
        np.testing.assert_array_equal(pool.avg_pool2d(other, 2, layout=layout), mean, name)
        np.testing.assert_array_equal(other, x, name)
    for name, other in variants(y).items():
        kind = variants(argmax.astype(np.float32))[name].astype(np.uint8, order="K")
        np.testing.assert_array_equal(pool.max_pool2d_backward(other, kind, x.shape, 2, layout=layout), dx, name)


# Argmax


def test_argmax_takes_the_smallest_type_that_holds_the_window(layout, rng):
    x = rng.integers(-4, 5, (1, 3, 40, 41)).astype(np.float32)
    for kernel in (16, (16, 17)):
        check_max(x, kernel, layout, rng, stride=9, padding=8)
    # 257 * 257 is more than 65,536; the window is mostly padding.
    check_max(x[:, :, :3, :2], 257, layout, rng, stride=1, padding=128)


@pytest.mark.parametrize(
    ("kernel", "options", "at", "entry"),
    [
        (2, {}, (1, 1), 4),
        (2, {}, (2, 3), 255),
        (3, {"stride": 2, "padding": 1}, (1, 1), 9),
        (3, {"stride": 2, "padding": 1}, (1, 2), 200),
        (3, {"stride": 2, "padding": 1}, (0, 1), 1),
        (3, {"stride": 2, "padding": 1}, (1, 0), 3),
        (3, {"stride": 2, "padding": 1, "ceil_mode": True}, (1, 4), 5),
        (6, {"stride": 1, "padding": 3}, (0, 3), 17),
        (6, {"stride": 1, "padding": 3}, (3, 4), 36),
        (6, {"stride": 1, "padding": 3}, (3, 0), 255),
    ],
)
def test_a_bad_argmax_is_refused_and_nothing_is_written_outside(kernel, options, at, entry, layout, rng, monkeypatch):
    x = to_layout(rng.standard_normal((2, 3, 7, 8)).astype(np.float32), layout)
    y, argmax = pool.max_pool2d_with_argmax(x, kernel, layout=layout, **options)
    allocated = guarded_allocations(monkeypatch)
    from_layout(argmax, layout)[1, 2, at[0], at[1]] = entry
    for threads in (1, 2):
        with num_threads(threads), pytest.raises(ValueError, match="`argmax` holds 1 offset outside the window"):
            pool.max_pool2d_backward(y, argmax, x.shape, kernel, layout=layout, **options)
    argmax[:] = entry | 128
    with pytest.raises(ValueError, match=f"`argmax` holds {argmax.size} offsets outside the window"):
        pool.max_pool2d_backward(y, argmax, x.shape, kernel, layout=layout, **options)
    check_guards(allocated)


def test_a_bad_argmax_of_a_global_maximum_is_refused(layout, monkeypatch):
    x = np.ones(shape_in((2, 3, 4, 5), layout), np.float32)
    y, argmax = pool.global_max_pool2d(x, layout=layout)
    allocated = guarded_allocations(monkeypatch)
    argmax.flat[[0, 5]] = 20, 255
    with pytest.raises(ValueError, match="`argmax` holds 2 offsets outside the window or in the padding"):
        pool.global_max_pool2d_backward(y, argmax, x.shape, layout=layout)
    check_guards(allocated)


# Memory

GUARD = 64  # elements: at least a vector of the smallest type


def guarded(a):
    """Return a copy of an array between regions of NaN, or of the largest integers."""
    sentinel = NAN if a.dtype.kind == "f" else np.iinfo(a.dtype).max
    memory = np.full(a.size + 2 * GUARD, sentinel, a.dtype)
    inside = memory[GUARD : GUARD + a.size].reshape(a.shape)
    inside[...] = a
    return inside


class GuardedNumPy:
    """NumPy, but for arrays that `empty` makes between guard regions and keeps a list of."""

    def __init__(self):
        self.allocated = []

    def __getattr__(self, name):
        return getattr(np, name)

    def empty(self, shape, dtype=np.float64):
        sentinel = NAN if np.dtype(dtype).kind == "f" else np.iinfo(dtype).max
        self.allocated.append(guarded(np.full(shape, sentinel, dtype)))
        return self.allocated[-1]


def guarded_allocations(monkeypatch):
    """Let the modules allocate its results between guard regions, and return the list of what it allocates."""
    module = GuardedNumPy()
    monkeypatch.setattr(pool, "np", module)
    monkeypatch.setattr(workspace, "np", module)
    return module.allocated


def check_guards(allocated):
    """Assert that the guard regions around all results still hold what they held."""
    for array in allocated:
        memory = array
        while memory.base is not None:
            memory = memory.base
        sentinel = NAN if array.dtype.kind == "f" else np.iinfo(array.dtype).max
        np.testing.assert_array_equal(memory[:GUARD], sentinel)
        np.testing.assert_array_equal(memory[-GUARD:], sentinel)


@pytest.mark.parametrize("case", BATCHED, ids=str)
def test_nothing_outside_the_arrays_is_read_or_written(case, layout, dtype, rng, monkeypatch):
    x = guarded(to_layout(case.integers(rng, dtype), layout))
    options = {"layout": layout, **case.options}
    allocated = guarded_allocations(monkeypatch)
    y, argmax = pool.max_pool2d_with_argmax(x, case.kernel, **options)
    results = [y, pool.max_pool2d(x, case.kernel, **options)]
    results.append(pool.max_pool2d_backward(guarded(y), guarded(argmax), x.shape, case.kernel, **options))
    if "dilation" not in case.options:
        y = pool.avg_pool2d(x, case.kernel, **options)
        results += [y, pool.avg_pool2d_backward(guarded(y), x.shape, case.kernel, **options)]
    mean = pool.global_avg_pool2d(x, layout=layout)
    y, index = pool.global_max_pool2d(x, layout=layout)
    results += [mean, y, pool.global_avg_pool2d_backward(guarded(mean), x.shape, layout=layout)]
    results.append(pool.global_max_pool2d_backward(guarded(y), guarded(index), x.shape, layout=layout))
    check_guards(allocated)
    # Results were allocated full of NaN, and the guards around inputs hold NaN too.
    assert all(np.isfinite(result).all() for result in results)


# PyTorch


@pytest.mark.parametrize("case", [case for case in BATCHED if "padded-far" not in case.name], ids=str)
def test_values_and_gradients_are_pytorchs(case, dtype, layout, rng):
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional
    if isinstance(reference.pair(case.options.get("padding", 0))[0], tuple):
        return  # PyTorch pads both sides alike
    x = rng.standard_normal(case.shape).astype(dtype)
    mine, rest = {"layout": layout, **case.options}, dict(case.options)
    given_x = to_layout(x, layout)

    tensor = torch.tensor(x, requires_grad=True)
    y, flat = functional.max_pool2d(tensor, case.kernel, **rest, return_indices=True)
    if not torch.isinf(y).any():
        dy = rng.standard_normal(y.shape).astype(dtype)
        y.backward(torch.tensor(dy))
        found, argmax = pool.max_pool2d_with_argmax(given_x, case.kernel, **mine)
        np.testing.assert_array_equal(from_layout(found, layout), y.detach().numpy())
        windows = reference.Windows.of(case.shape, case.kernel, **rest)
        places = windows.rows[:, None, :, None] * case.shape[3] + windows.columns[None, :, None, :]
        places = np.broadcast_to(reference.flat(places), (*y.shape, places.shape[2] * places.shape[3]))
        offsets = from_layout(argmax, layout)[..., None].astype(np.int64)
        np.testing.assert_array_equal(np.take_along_axis(places, offsets, -1)[..., 0], flat.numpy())
        dx = pool.max_pool2d_backward(to_layout(dy, layout), argmax, given_x.shape, case.kernel, **mine)
        eps = np.finfo(dtype).eps
        np.testing.assert_allclose(from_layout(dx, layout), tensor.grad.numpy(), rtol=0, atol=40 * eps)

    if "dilation" in case.options:
        return
    for count_include_pad in (True, False):
        mine["count_include_pad"] = rest["count_include_pad"] = count_include_pad
        tensor = torch.tensor(x, requires_grad=True)
        y = functional.avg_pool2d(tensor, case.kernel, **rest)
        dy = rng.standard_normal(y.shape).astype(dtype)
        y.backward(torch.tensor(dy))
        eps = np.finfo(dtype).eps
        found = pool.avg_pool2d(given_x, case.kernel, **mine)
        np.testing.assert_allclose(from_layout(found, layout), y.detach().numpy(), rtol=0, atol=20 * eps)
        dx = pool.avg_pool2d_backward(to_layout(dy, layout), given_x.shape, case.kernel, **mine)
        np.testing.assert_allclose(from_layout(dx, layout), tensor.grad.numpy(), rtol=0, atol=20 * eps)


# Errors

X = np.zeros((2, 3, 6, 8), np.float32)
Y = np.zeros((2, 3, 3, 4), np.float32)
A = np.zeros((2, 3, 3, 4), np.uint8)
PIXEL = np.zeros((2, 3, 1, 1), np.float32)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: pool.max_pool2d(X.tolist(), 2), TypeError, "`x` must be a NumPy array of float32 or float64"),
        (lambda: pool.max_pool2d(X.astype(int), 2), TypeError, "`x` has dtype int64, but only float32 and float64"),
        (lambda: pool.avg_pool2d(X.astype(">f4"), 2), TypeError, "`x` has dtype >f4"),
        (lambda: pool.max_pool2d(X[0, 0], 2), ValueError, "`x` must have the axes NCHW or, for one image, CHW"),
        (lambda: pool.max_pool2d(X, 0), ValueError, "`kernel` must be an integer of at least 1, got 0"),
        (lambda: pool.max_pool2d(X, 2.0), TypeError, "`kernel` must be an integer"),
        (lambda: pool.avg_pool2d(X, (2, 2, 2)), ValueError, "`kernel` must be an int or a pair of ints"),
        (lambda: pool.max_pool2d(X, 2, stride=0), ValueError, "`stride` must be an integer of at least 1"),
        (lambda: pool.max_pool2d(X, 2, dilation=0), ValueError, "`dilation` must be an integer of at least 1"),
        (lambda: pool.max_pool2d(X, 2, padding=-1), ValueError, "`padding` must be an integer of at least 0"),
        (lambda: pool.max_pool2d(X, 2, padding="same"), ValueError, "`padding` must be an int, a pair"),
        (
            lambda: pool.max_pool2d(X, 3, padding=2),
            ValueError,
            "`padding` of a pooling must be at most half the kernel on each side, 1 above and below and 1 left and "
            "right of a 3x3 kernel, got 2",
        ),
        (lambda: pool.avg_pool2d(X, (4, 1), padding=((0, 0), (0, 1))), ValueError, "2 above and below and 0 left"),
        (lambda: pool.max_pool2d(X, 2, padding=2, dilation=3), ValueError, "at most half the kernel"),
        (lambda: pool.max_pool2d(X, 2, ceil_mode=1), TypeError, "`ceil_mode` must be True or False, got 1"),
        (lambda: pool.avg_pool2d(X, 2, count_include_pad=None), TypeError, "`count_include_pad` must be True or Fa"),
        (lambda: pool.max_pool2d(X, 2, layout="NCWH"), ValueError, "`layout` must be one of 'NCHW', 'NHWC'"),
        (lambda: pool.max_pool2d(X, 7), ValueError, "`kernel` spans 7x7 pixels .* more than the padded image"),
        (lambda: pool.max_pool2d(X[:, :, :0], 2), ValueError, "`x` has images of 0x8 pixels, but at least one"),
        (lambda: pool.avg_pool2d(X[..., :0], 2), ValueError, "`x` has images of 6x0 pixels, but at least one"),
        (lambda: pool.avg_pool2d_backward(Y, (2, 3, 6), 2), ValueError, "must have the shape of the output"),
        (lambda: pool.avg_pool2d_backward(Y, (6, 8), 2), ValueError, "`x_shape` must be a tuple of the sizes NCHW"),
        (lambda: pool.avg_pool2d_backward(Y, (2, 3, 6.0, 8), 2), TypeError, "`x_shape` must be an integer"),
        (lambda: pool.avg_pool2d_backward(Y, (2, 3, 0, 8), 2), ValueError, "`x_shape` has images of 0x8 pixels"),
        (lambda: pool.avg_pool2d_backward(X, X.shape, 2), ValueError, r"of the output, \(2, 3, 3, 4\), got \(2, 3, 6"),
        (lambda: pool.max_pool2d_backward(X, A, X.shape, 2), ValueError, "`dy` must have the shape of the output"),
        (lambda: pool.max_pool2d_backward(Y[0], A, X.shape, 2), ValueError, "`dy` must have the shape of the output"),
        (lambda: pool.max_pool2d_backward(Y, A.tolist(), X.shape, 2), TypeError, "`argmax` must be a NumPy array of"),
        (
            lambda: pool.max_pool2d_backward(Y, A.astype(np.int64), X.shape, 2),
            TypeError,
            "`argmax` has dtype int64, but the offsets in this window have uint8: pass the argmax of the forward call",
        ),
        (lambda: pool.max_pool2d_backward(Y, A[0], X.shape, 2), ValueError, "`argmax` must have the shape of the outp"),
        (
            lambda: pool.max_pool2d_backward(Y, A + np.uint8(4), X.shape, 2),
            ValueError,
            "`argmax` holds 72 offsets outside the window or in the padding: pass the argmax that "
            "max_pool2d_with_argmax returned, with the same sizes and options",
        ),
        (lambda: pool.global_avg_pool2d(X[0, 0]), ValueError, "`x` must have the axes NCHW"),
        (lambda: pool.global_avg_pool2d(X, layout=None), ValueError, "`layout` must be one of"),
        (lambda: pool.global_avg_pool2d_backward(Y, X.shape), ValueError, r"of the output, \(2, 3, 1, 1\), got"),
        (lambda: pool.global_max_pool2d(X[..., :0]), ValueError, "`x` has images of 6x0 pixels"),
        (
            lambda: pool.global_max_pool2d_backward(PIXEL, A[..., :1, :1], (2, 3, 0, 8)),
            ValueError,
            "`x_shape` has images of 0x8 pixels",
        ),
        (
            lambda: pool.global_max_pool2d_backward(PIXEL, A[..., :1, :1], (2, 3, 60, 80)),
            TypeError,
            "`argmax` has dtype uint8, but the offsets in this window have uint16",
        ),
        (
            lambda: pool.global_avg_pool2d_backward(PIXEL, (2, 3, 2**30, 2**30)),
            ValueError,
            "`x_shape` is too large for an array",
        ),
    ],
)
def test_errors_name_the_argument_and_the_rule(call, error, message):
    with pytest.raises(error, match=message):
        call()
