"""im2col and col2im against an independent reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from references import pool as reference

from jitconv import columns
from jitconv.threads import num_threads

CASES: list[tuple[tuple[int, ...], Any, dict[str, Any]]] = [
    ((2, 3, 6, 7), 3, {}),
    ((2, 3, 6, 7), 3, {"padding": 1}),
    ((2, 3, 7, 9), (2, 4), {"stride": 2, "padding": (0, 2)}),
    ((1, 2, 8, 9), 3, {"stride": (2, 3), "padding": ((2, 0), (1, 3))}),
    ((1, 5, 9, 10), (3, 2), {"dilation": (2, 4)}),
    ((2, 1, 4, 5), 1, {}),
    ((1, 3, 4, 5), 1, {"stride": 3}),
    ((2, 2, 2, 3), 5, {"padding": 4}),
    ((1, 4, 3, 3), 2, {"stride": 1, "padding": 3, "dilation": 2}),
    ((3, 2, 5, 6), (5, 6), {}),
    ((1, 1, 30, 31), 5, {"padding": 2}),
]


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(("shape", "kernel", "options"), CASES, ids=str)
def test_both_match_the_reference(shape, kernel, options, threads, dtype, rng):
    x = rng.integers(-9, 10, shape).astype(dtype)
    expected = reference.im2col(x, kernel, **options)
    with num_threads(threads):
        found = columns.im2col(x, kernel, **options)
        assert found.dtype == dtype
        np.testing.assert_array_equal(found, expected)
        matrix = rng.integers(-9, 10, found.shape).astype(dtype)
        image = columns.col2im(matrix, shape, kernel, **options)
    assert image.dtype == dtype
    np.testing.assert_array_equal(image, reference.col2im(matrix, shape, kernel, **options))


@given(data=st.data(), dtype=st.sampled_from(["float32", "float64"]), seed=st.integers(0, 99))
def test_drawn_shapes_match_the_reference(data, dtype, seed):
    size = st.integers(1, 4)
    shape = tuple(data.draw(st.tuples(st.integers(0, 2), st.integers(0, 4), st.integers(1, 9), st.integers(1, 9))))
    kernel = data.draw(size), data.draw(size)
    side = st.integers(0, 5)
    options = {
        "stride": (data.draw(size), data.draw(size)),
        "padding": ((data.draw(side), data.draw(side)), (data.draw(side), data.draw(side))),
        "dilation": (data.draw(size), data.draw(size)),
    }
    windows = reference.Windows.of(shape, kernel, **options)
    assume(len(windows.rows) and len(windows.columns))
    rng = np.random.default_rng(seed)
    x = rng.integers(-9, 10, shape).astype(dtype)
    n, c = shape[:2]
    rows, width = n * len(windows.rows) * len(windows.columns), c * kernel[0] * kernel[1]
    found = columns.im2col(x, kernel, **options)
    assert found.shape == (rows, width)
    if found.size:
        np.testing.assert_array_equal(found, reference.im2col(x, kernel, **options))
    matrix = rng.integers(-9, 10, found.shape).astype(dtype)
    np.testing.assert_array_equal(
        columns.col2im(matrix, shape, kernel, **options), reference.col2im(matrix, shape, kernel, **options)
    )


def test_a_convolution_is_a_product_with_the_columns(rng):
    # The use that the book "Deep Learning from Scratch" makes of it.
    x, w = rng.standard_normal((2, 3, 7, 6)), rng.standard_normal((4, 3, 3, 3))
    product = columns.im2col(x, 3, stride=2, padding=1) @ w.reshape(4, -1).T
    y = product.reshape(2, 4, 3, 4).transpose(0, 3, 1, 2)
    windows = reference.Windows.of(x.shape, 3, stride=2, padding=1).gather(x, 0)
    np.testing.assert_allclose(y, np.einsum("nchwij,fcij->nfhw", windows, w), atol=1e-12)


def test_col2im_adds_up_what_overlaps():
    ones = columns.col2im(np.ones((4, 4)), (1, 1, 3, 3), 2)
    np.testing.assert_array_equal(ones[0, 0], [[1, 2, 1], [2, 4, 2], [1, 2, 1]])
    apart = columns.col2im(np.ones((4, 1), np.float32), (1, 1, 4, 4), 1, stride=3)
    np.testing.assert_array_equal(np.flatnonzero(apart), [0, 3, 12, 15])


def test_col2im_is_the_adjoint_of_im2col(rng):
    x = rng.standard_normal((2, 3, 9, 8))
    options: dict[str, Any] = {"stride": 2, "padding": 1, "dilation": 2}
    unfolded = columns.im2col(x, 3, **options)
    matrix = rng.standard_normal(unfolded.shape)
    folded = columns.col2im(matrix, x.shape, 3, **options)
    assert np.vdot(unfolded, matrix) == pytest.approx(np.vdot(x, folded), rel=1e-12)


def test_sums_have_the_same_bits_with_any_number_of_threads(dtype, rng):
    matrix = (rng.standard_normal((2 * 81, 27)) * 10.0 ** rng.integers(-3, 4, (162, 27))).astype(dtype)
    results = []
    for threads in (1, 2):
        with num_threads(threads):
            results.append(columns.col2im(matrix, (2, 3, 9, 9), 3, padding=1).tobytes())
    assert results[0] == results[1]


def test_same_and_valid_padding_and_one_image(rng):
    x = rng.standard_normal((3, 6, 7)).astype(np.float32)
    for word, sides in (("same", ((1, 2), (0, 1))), ("valid", 0)):
        found = columns.im2col(x, (4, 2), padding=word)
        np.testing.assert_array_equal(found, columns.im2col(x[np.newaxis], (4, 2), padding=sides))
        folded = columns.col2im(found, x.shape, (4, 2), padding=word)
        assert folded.shape == x.shape
        np.testing.assert_array_equal(folded, columns.col2im(found, (1, *x.shape), (4, 2), padding=sides)[0])


def test_nan_and_infinity_stay_in_their_windows():
    x = np.zeros((1, 1, 3, 4))
    x[0, 0, 0, 0], x[0, 0, 2, 3] = np.nan, np.inf
    found = columns.im2col(x, 2, padding=1)
    np.testing.assert_array_equal(found, reference.im2col(x, 2, padding=1))
    folded = columns.col2im(found, x.shape, 2, padding=1)
    assert np.isnan(folded[0, 0, 0, 0])
    assert folded[0, 0, 2, 3] == np.inf
    assert np.count_nonzero(folded) == 2


def test_every_kind_of_memory_gives_the_same_result(rng):
    x = rng.standard_normal((2, 3, 6, 7)).astype(np.float32)
    expected = columns.im2col(x, 3)
    image = columns.col2im(expected, x.shape, 3)
    frozen, frozen_columns = x.copy(), expected.copy()
    frozen.flags.writeable = frozen_columns.flags.writeable = False
    for other in (frozen, np.asfortranarray(x), x[:, ::-1].copy()[:, ::-1], np.repeat(x, 2, -1)[..., ::2]):
        np.testing.assert_array_equal(columns.im2col(other, 3), expected)
    for other in (frozen_columns, np.asfortranarray(expected), np.repeat(expected, 2, 0)[::2]):
        np.testing.assert_array_equal(columns.col2im(other, x.shape, 3), image)
    np.testing.assert_array_equal(frozen, x)


def test_nothing_outside_the_arrays_is_read_or_written(rng, monkeypatch):
    guard, memories = 64, []

    class GuardedNumPy:
        def __getattr__(self, name):
            return getattr(np, name)

        def empty(self, shape, dtype):
            size = int(np.prod(shape))
            memories.append(np.full(size + 2 * guard, np.nan, dtype))
            return memories[-1][guard : guard + size].reshape(shape)

    module = GuardedNumPy()
    for shape, kernel, options in CASES:
        x = module.empty(shape, np.float32)
        x[...] = rng.standard_normal(shape)
        with monkeypatch.context() as patch:
            patch.setattr(columns, "np", module)
            found = columns.im2col(x, kernel, **options)
            folded = columns.col2im(found, shape, kernel, **options)
        assert np.isfinite(found).all()
        assert np.isfinite(folded).all()
    assert len(memories) == 3 * len(CASES)
    for memory in memories:
        assert np.isnan(memory[:guard]).all()
        assert np.isnan(memory[-guard:]).all()


def test_both_agree_with_pytorch(rng):
    torch = pytest.importorskip("torch")
    x = rng.standard_normal((2, 3, 9, 8))
    unfolded = torch.nn.functional.unfold(torch.tensor(x), (3, 2), dilation=2, padding=1, stride=(1, 2))
    found = columns.im2col(x, (3, 2), dilation=2, padding=1, stride=(1, 2))
    np.testing.assert_array_equal(found, unfolded.numpy().transpose(0, 2, 1).reshape(found.shape))
    folded = torch.nn.functional.fold(unfolded, (9, 8), (3, 2), dilation=2, padding=1, stride=(1, 2))
    image = columns.col2im(found, x.shape, (3, 2), dilation=2, padding=1, stride=(1, 2))
    np.testing.assert_allclose(image, folded.numpy(), rtol=1e-14)


X = np.zeros((2, 3, 6, 8), np.float32)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: columns.im2col([1.0], 2), TypeError, "`x` must be a NumPy array of float32 or float64, got list"),
        (lambda: columns.im2col(X.astype(np.int8), 2), TypeError, "`x` has dtype int8, but only float32 and float64"),
        (lambda: columns.im2col(X[0, 0], 2), ValueError, "`x` must have the axes NCHW or, for one image, CHW"),
        (lambda: columns.im2col(X, 9), ValueError, "`kernel` spans 9x9 pixels"),
        (lambda: columns.im2col(X, (1, 2, 3)), ValueError, "`kernel` must be an int or a pair of ints"),
        (lambda: columns.im2col(X, 2, stride=0), ValueError, "`stride` must be an integer of at least 1"),
        (lambda: columns.im2col(X, 2, dilation=0), ValueError, "`dilation` must be an integer of at least 1"),
        (lambda: columns.im2col(X, 2, padding="full"), ValueError, "`padding` must be an int, a pair, .* got 'full'"),
        (lambda: columns.im2col(X, 2, stride=2, padding="same"), ValueError, "`padding`='same' needs stride 1"),
        (lambda: columns.im2col(X[:, :, :0], 2, padding=2), ValueError, "`x` has images of 0x8 pixels"),
        (
            lambda: columns.im2col(X, 2**20, padding=2**20),
            ValueError,
            "`columns` would have shape .* too large",
        ),
        (
            lambda: columns.col2im(np.zeros((70, 11)), X.shape, 2),
            ValueError,
            r"`columns` must have shape \(70, 12\) \(N\*OH\*OW, C\*KH\*KW\), got \(70, 11\)",
        ),
        (lambda: columns.col2im(np.zeros((70, 12), int), X.shape, 2), TypeError, "`columns` has dtype int64"),
        (lambda: columns.col2im(np.zeros((70, 12)), (6, 8), 2), ValueError, "`x_shape` must be a tuple of the sizes"),
        (lambda: columns.col2im(np.zeros((70, 12)), (2, 3, 0, 8), 2), ValueError, "`x_shape` has images of 0x8"),
    ],
)
def test_errors_name_the_argument_and_the_rule(call, error, message):
    with pytest.raises(error, match=message):
        call()
