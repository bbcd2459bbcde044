"""Packed weights that are kept from call to call."""

from __future__ import annotations

import copy
import pickle
import threading

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import jitconv
from jitconv.kept import KEPT_FROM
from jitconv.kernels.checksum import BLOCK_BYTES, checksum
from jitconv.layers import Conv2d

# Winograd, planes (or channels, in NHWC), and channels by im2col; all with more weights than are packed anew.
CASES = {
    "winograd": ((2, 64, 16, 16), (64, 64, 3, 3), {"padding": 1}),
    "direct, 1x1": ((2, 128, 8, 8), (128, 128, 1, 1), {}),
    "direct, 3x3": ((2, 64, 12, 12), (64, 64, 3, 3), {"algorithm": "direct"}),
    "im2col": ((2, 64, 12, 12), (64, 64, 3, 3), {"algorithm": "im2col"}),
    "groups": ((2, 128, 9, 9), (128, 64, 3, 3), {"groups": 2}),
    "depthwise": ((2, 16, 9, 9), (16, 1, 3, 3), {"groups": 16}),
}
each_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def arrays(case, dtype, layout, rng):
    x_shape, w_shape, options = case
    x = rng.standard_normal(x_shape).astype(dtype)
    if layout == "NHWC":
        x = np.ascontiguousarray(x.transpose(0, 2, 3, 1))
    w, b = rng.standard_normal(w_shape).astype(dtype), rng.standard_normal(w_shape[0]).astype(dtype)
    return x, w, b, {"layout": layout, **options}


@each_case
@pytest.mark.parametrize("threads", [1, 2])
def test_a_kept_pack_gives_the_result_of_a_new_one(case, threads, dtype, layout, rng):
    x, w, b, options = arrays(case, dtype, layout, rng)
    kept = jitconv.KeptWeights()
    with jitconv.num_threads(threads):
        first = jitconv.conv2d(x, w, b, kept=kept, **options)
        assert_array_equal(jitconv.conv2d(x, w, b, kept=kept, **options), first)
        expected = jitconv.conv2d(x, w, b, **options)
    # "auto" may choose another algorithm where weights are kept.
    assert_allclose(first, expected, atol=3e-5 * np.abs(expected).max(), rtol=0)


@each_case
def test_a_change_in_place_is_noticed(case, dtype, layout, rng):
    x, w, b, options = arrays(case, dtype, layout, rng)
    kept = jitconv.KeptWeights()
    jitconv.conv2d(x, w, b, kept=kept, **options)
    for array, place in ((w, 0), (w, -1), (w, w.size // 2), (b, 0), (b, -1)):
        array.flat[place] += 1
        changed = jitconv.conv2d(x, w, b, kept=kept, **options)
        assert_array_equal(changed, jitconv.conv2d(x, w, b, kept=jitconv.KeptWeights(), **options))


def test_a_pack_is_made_once(dtype, rng, monkeypatch):
    x, w, b, options = arrays(CASES["winograd"], dtype, "NHWC", rng)
    kept = jitconv.KeptWeights()
    jitconv.conv2d(x, w, b, kept=kept, **options)
    held = kept._held
    assert held is not None
    jitconv.conv2d(x[::-1].copy(), w.copy(), b.copy(), kept=kept, **options)  # the values count, not the arrays
    assert kept._held is held
    jitconv.conv2d(x, w[::-1].copy(), b, kept=kept, **options)
    assert kept._held is not held


def test_other_shapes_and_options_pack_anew(rng):
    kept = jitconv.KeptWeights()
    w = rng.standard_normal((64, 64, 3, 3)).astype(np.float32)
    for n in (1, 3, 1):
        for options in ({}, {"padding": 1}, {"stride": 2}, {"activation": "relu"}):
            x = rng.standard_normal((n, 64, 14, 14)).astype(np.float32)
            result = jitconv.conv2d(x, w, kept=kept, **options)
            assert_array_equal(result, jitconv.conv2d(x, w, kept=jitconv.KeptWeights(), **options))


def test_something_else_is_refused(rng):
    x, w = np.zeros((1, 1, 4, 4)), np.zeros((1, 1, 3, 3))
    for _ in range(2):  # the second call has been seen
        with pytest.raises(TypeError, match=r"`kept` must be a jitconv.KeptWeights, got dict"):
            jitconv.conv2d(x, w, kept={})
        jitconv.conv2d(x, w)


def test_python_threads_share_kept_weights(rng):
    kept = jitconv.KeptWeights()
    x = rng.standard_normal((2, 64, 14, 14)).astype(np.float32)
    weights = [rng.standard_normal((64, 64, 3, 3)).astype(np.float32) for _ in range(2)]
    expected = [jitconv.conv2d(x, w, padding=1, kept=jitconv.KeptWeights()) for w in weights]
    wrong = []

    def work(index):
        for _ in range(30):
            if not np.array_equal(jitconv.conv2d(x, weights[index], padding=1, kept=kept), expected[index]):
                wrong.append(index)

    threads = [threading.Thread(target=work, args=(i % 2,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))])
def test_a_layer_in_use_can_be_copied(copied, rng):
    layer = Conv2d(64, 64, 3, padding=1, seed=0).eval()
    x = rng.standard_normal((2, 64, 14, 14)).astype(np.float32)
    y = layer(x)
    assert layer._kept._held is not None
    other = copied(layer)
    assert other._kept._held is None
    assert_array_equal(other(x), y)


class TestLayer:
    def test_eval_keeps_and_train_gives_back(self, rng):
        layer = Conv2d(64, 64, 3, padding=1, seed=0)
        x = rng.standard_normal((2, 64, 14, 14)).astype(np.float32)
        layer(x)
        assert layer._kept._held is None
        layer.eval()
        layer(x)
        assert layer._kept._held is not None
        layer.train()
        assert layer._kept._held is None

    def test_a_step_between_two_evaluations_is_seen(self, rng):
        layer = Conv2d(64, 64, 3, padding=1, seed=0)
        x = rng.standard_normal((2, 64, 14, 14)).astype(np.float32)
        layer.eval()
        before = layer(x)
        view = layer.weight[3]
        view[...] = 0
        after = layer(x)
        assert_array_equal(after[:, 3], np.zeros_like(after[:, 3]))
        assert_array_equal(np.delete(after, 3, axis=1), np.delete(before, 3, axis=1))


def checksums(array, threads):
    sums = np.zeros(threads, np.int64)
    checksum(array.dtype, threads, array, array.nbytes, sums)
    return sums.tobytes()


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("words", [2, 3, 63, BLOCK_BYTES // 4, BLOCK_BYTES // 4 + 1, 5 * BLOCK_BYTES // 4 + 7])
def test_a_checksum_sees_every_element(words, threads, rng):
    array = rng.standard_normal(words).astype(np.float32)
    seen = {checksums(array, threads)}
    for i in range(words):
        changed = array.copy()
        changed[i] = np.nextafter(changed[i], np.float32(9))
        seen.add(checksums(changed, threads))
    assert len(seen) == words + 1
    if words > 2:
        assert checksums(np.roll(array, 1), threads) not in seen


def test_few_weights_are_not_kept(rng):
    kept = jitconv.KeptWeights()
    w = rng.standard_normal((8, 8, 3, 3)).astype(np.float32)
    assert w.nbytes < KEPT_FROM
    jitconv.conv2d(rng.standard_normal((1, 8, 8, 8)).astype(np.float32), w, kept=kept)
    assert kept._held is None
