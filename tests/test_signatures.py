"""Calls whose arguments have been seen skip the checks, and nothing else."""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import jitconv
from jitconv import geometry, signatures
from jitconv.signatures import Seen, signature

SMALL = (1, 6, 14, 14), (16, 6, 5, 5)
LARGE = (32, 64, 32, 32), (64, 64, 3, 3)  # where "auto" chooses Winograd


def arrays(rng, shapes=SMALL, dtype=np.float32):
    x, w = (rng.standard_normal(shape).astype(dtype) for shape in shapes)
    return x, w, rng.standard_normal(len(w)).astype(dtype)


class Odd(np.ndarray):
    """Neither plain nor wrong."""


# Signatures


def test_what_equals_but_differs_in_type_is_not_the_same():
    x = np.zeros((1, 2, 3, 3), np.float32)
    assert signature((x,), (1, (1, 2), "same", None)) is not None
    for option in (True, 1.0, np.int64(1), (1, True), ((1, 1), (1, 1.0)), [1, 1], {}):
        assert signature((x,), (option,)) is None


def test_arrays_that_a_kernel_cannot_take_have_no_signature():
    x = np.zeros((4, 4), np.float32)
    read_only = x.copy()
    read_only.flags.writeable = False
    unaligned = np.frombuffer(bytearray(65), np.uint8)[1:].view(np.float32)
    for a in (x[:, ::2], x.T[1:], read_only, unaligned, x.view(Odd), np.ma.masked_array(x), x.tolist()):
        assert signature((a,), ()) is None


def test_shapes_dtypes_and_missing_arrays_tell_signatures_apart():
    x, y = np.zeros((2, 3), np.float32), np.zeros((3, 2), np.float32)
    different = [(x,), (y,), (x.astype(np.float64),), (x.astype(">f4"),), (x, None), (x, y), (None, x), (y, x)]
    assert len({signature(one, ()) for one in different}) == len(different)
    assert signature((x, y), (1,)) == signature((x + 1, y + 1), (1,))


def test_what_is_kept_is_bounded(monkeypatch):
    monkeypatch.setattr(signatures, "_MOST", 3)
    seen = Seen()
    for key in range(100):
        seen.add(key, key)
        assert seen.get(key) == key
    seen.add(None, 5)
    assert sum(seen.get(key) is not None for key in (*range(100), None)) <= 3


# Errors


@pytest.mark.parametrize("shapes", [SMALL, LARGE], ids=["small", "large"])
def test_a_seen_call_skips_no_error_of_conv2d(shapes, rng):
    x, w, b = arrays(rng, shapes)
    for _ in range(2):
        jitconv.conv2d(x, w, b)
        jitconv.conv2d(x, w, b, stride=(1, 1), padding=((1, 1), (1, 1)))
    wrong = [
        ((x, w, b), {"stride": True}, TypeError, "`stride` must be an integer"),
        ((x, w, b), {"stride": 1.0}, TypeError, "`stride` must be an integer"),
        ((x, w, b), {"stride": (1, 1.0)}, TypeError, "`stride` must be an integer"),
        ((x, w, b), {"padding": ((1, 1), (1, True))}, TypeError, "`padding` must be an integer"),
        ((x, w, b), {"padding": False}, TypeError, "`padding` must be an integer"),
        ((x, w, b), {"dilation": []}, ValueError, "`dilation` must be an int or a pair"),
        ((x, w, b), {"groups": 1.0}, TypeError, "`groups` must be an integer"),
        ((x, w, b), {"layout": "NCWH"}, ValueError, "`layout` must be one of"),
        ((x, w, b), {"activation": "tanh"}, ValueError, "`activation` must be one of"),
        ((x, w, b[1:]), {}, ValueError, "`b` must have shape"),
        ((x, w, b.astype(np.float64)), {}, TypeError, "`b` has dtype float64"),
        ((x, w.astype(np.float64), b), {}, TypeError, "`w` has dtype float64"),
        ((x.astype(">f4"), w, b), {}, TypeError, "`x` has dtype >f4"),
        ((np.ma.masked_array(x), w, b), {}, TypeError, "`x` is a masked array"),
        ((x, w, list(b)), {}, TypeError, "`b` must be a NumPy array"),
        ((x[:, 1:].copy(), w, b), {}, ValueError, "`w` has"),
        ((x, w, b), {"out": np.zeros(3, np.float32)}, ValueError, "`out` must have shape"),
    ]
    for given, options, error, message in wrong:
        with pytest.raises(error, match=message):
            jitconv.conv2d(*given, **options)


@pytest.mark.parametrize("pool", [jitconv.max_pool2d, jitconv.max_pool2d_with_argmax])
def test_a_seen_call_skips_no_error_of_max_pool2d(pool, rng):
    x = rng.standard_normal((1, 6, 28, 28)).astype(np.float32)
    for _ in range(2):
        pool(x, 1)
        pool(x, (2, 2), stride=(1, 1), ceil_mode=False)
    wrong = [
        (x, 1.0, {}, TypeError, "`kernel` must be an integer"),
        (x, True, {}, TypeError, "`kernel` must be an integer"),
        (x, (2, 2.0), {"stride": (1, 1)}, TypeError, "`kernel` must be an integer"),
        (x, 1, {"padding": False}, TypeError, "`padding` must be an integer"),
        (x, 1, {"ceil_mode": 0}, TypeError, "`ceil_mode` must be True or False"),
        (x, 1, {"layout": "nchw"}, ValueError, "`layout` must be one of"),
        (x.astype(np.int32), 1, {}, TypeError, "`x` has dtype int32"),
        (np.ma.masked_array(x), 1, {}, TypeError, "`x` is a masked array"),
    ]
    for given, kernel, options, error, message in wrong:
        with pytest.raises(error, match=message):
            pool(given, kernel, **options)


# Results


@pytest.mark.parametrize("single", [False, True], ids=["batch", "single"])
def test_other_arrays_of_a_seen_shape(single, dtype, layout, rng):
    """Strided, read-only and odd arrays, and other values, give what they would give alone."""
    x, w, b = arrays(rng, dtype=dtype)
    x = np.ascontiguousarray(x if layout == "NCHW" else x.transpose(0, 2, 3, 1))
    x = x[0] if single else x
    expected, pooled = jitconv.conv2d(x, w, b, layout=layout), jitconv.max_pool2d(x, 2, layout=layout)
    _, argmax = jitconv.max_pool2d_with_argmax(x, 2, layout=layout)
    again = jitconv.conv2d(x, w, b, layout=layout)
    assert again is not expected
    assert not np.may_share_memory(again, expected)

    wide = np.repeat(x, 2, axis=-1)[..., ::2]
    read_only = x.copy()
    read_only.flags.writeable = False
    for one in (x, x.copy(), wide, read_only, x.view(Odd)):
        found = jitconv.conv2d(one, w, b, layout=layout)
        assert type(found) is np.ndarray
        assert found.shape == expected.shape
        assert_array_equal(found, expected)
        assert_array_equal(jitconv.max_pool2d(one, 2, layout=layout), pooled)
        y, found = jitconv.max_pool2d_with_argmax(one, 2, layout=layout)
        assert_array_equal(y, pooled)
        assert_array_equal(found, argmax)
        assert found.dtype == np.uint8
    assert_array_equal(jitconv.conv2d(x, w, layout=layout), jitconv.conv2d(x, w, b * 0, layout=layout))
    w *= 2  # the weights are read in every call
    b *= 2
    assert_array_equal(jitconv.conv2d(x, w, b, layout=layout), 2 * expected)
    assert_array_equal(jitconv.conv2d(x, w, b, activation="relu", layout=layout), np.maximum(2 * expected, 0))


def test_calls_from_several_python_threads(rng):
    """They share what is kept for a signature, not the arrays."""
    shapes = SMALL, ((1, 1, 28, 28), (6, 1, 5, 5))
    given = [arrays(rng, shapes[index % 2]) for index in range(8)]
    expected = [(jitconv.conv2d(*one), jitconv.max_pool2d(one[0], 2)) for one in given]

    def wrong(index):
        count = 0
        for _ in range(200):
            y, pooled = jitconv.conv2d(*given[index]), jitconv.max_pool2d(given[index][0], 2)
            count += not (np.array_equal(y, expected[index][0]) and np.array_equal(pooled, expected[index][1]))
        return count

    with ThreadPoolExecutor(len(given)) as pool:
        assert sum(pool.map(wrong, range(len(given)))) == 0


# What may change between two calls


def test_a_seen_call_follows_the_number_of_threads(rng, monkeypatch):
    used = []
    forward_call = geometry.forward_call

    def spy(p, algorithm, n_threads, relu):
        used.append(n_threads)
        return forward_call(p, algorithm, n_threads, relu)

    x, w, b = arrays(rng, LARGE)
    expected = jitconv.conv2d(x, w, b)
    monkeypatch.setattr(geometry, "forward_call", spy)
    for n in (1, 2, 1):
        with jitconv.num_threads(n):
            assert_array_equal(jitconv.conv2d(x, w, b), expected)
    assert used == [1, 2, 1]


@pytest.mark.parametrize("order", list(itertools.permutations(("allowed", "with", "environment"))), ids="-".join)
def test_a_seen_call_follows_whether_winograd_is_allowed(order, rng, monkeypatch):
    monkeypatch.setattr("jitconv.conv._seen", Seen())
    x, w, _ = arrays(rng, ((2, 64, 32, 32), (64, 64, 3, 3)))
    direct, winograd = (jitconv.conv2d(x, w, padding=1, algorithm=name) for name in ("direct", "winograd"))
    assert not np.array_equal(direct, winograd)
    for setting in (*order, *order):
        monkeypatch.setenv("JITCONV_WINOGRAD", "0" if setting == "environment" else "1")
        if setting == "with":
            with jitconv.without_winograd():
                y = jitconv.conv2d(x, w, padding=1)
        else:
            y = jitconv.conv2d(x, w, padding=1)
        assert_array_equal(y, winograd if setting == "allowed" else direct)


def test_small_work_is_not_shared():
    for threads in (1, 2):
        with jitconv.num_threads(threads):
            small, large = (jitconv.plan_conv2d(*shapes, padding=1) for shapes in (SMALL, LARGE))
        assert small.forward.threads == 1
        assert large.forward.threads == threads
