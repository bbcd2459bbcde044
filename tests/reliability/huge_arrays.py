"""Passes over arrays whose indices do not fit in 32 bits; test_huge_arrays.py starts this.

    python huge_arrays.py ROWS

The images have ROWS rows of ROWS pixels. They are zeros, which Linux maps to one page as long as nobody writes to them,
but for a patch in the last corner; results are small, and compared with those of that corner alone.
"""

from __future__ import annotations

import sys

import numpy as np
from numpy.testing import assert_allclose, assert_array_equal

import jitconv

PATCH = 300
STEP = 64


def image(rows, layout, dtype=np.float32):
    """Return two images of one channel (NCHW), or one of two channels; the last pixels of the last are not zero."""
    x = np.zeros((2, 1, rows, rows) if layout == "NCHW" else (1, rows, rows, 2), dtype)
    planes = x[:, 0] if layout == "NCHW" else np.moveaxis(x[0], -1, 0)
    planes[-1, -PATCH:, -PATCH:] = np.random.default_rng(0).standard_normal((PATCH, PATCH)) + 9
    return x, planes[-1]


def corner_windows(plane, kernel):
    """Return the first row of windows in the patch, and all windows there, (rows, columns, kernel, kernel)."""
    first = (len(plane) - PATCH) // STEP + 1
    last = (len(plane) - kernel) // STEP + 1
    return first, np.stack(
        [
            np.stack([plane[i * STEP :][:kernel, j * STEP :][:, :kernel] for j in range(first, last)])
            for i in range(first, last)
        ]
    ).astype(np.float64)


def channel(y, layout):
    return y[-1, 0] if layout == "NCHW" else y[0, :, :, -1]


def check(rows, layout):
    x, plane = image(rows, layout)
    print(x.shape, x.nbytes, flush=True)
    first, windows = corner_windows(plane, 3)
    options = {"layout": layout, "stride": STEP}
    count = 1 if layout == "NCHW" else 2
    w = np.random.default_rng(1).standard_normal((1, count, 3, 3)).astype(np.float32)
    for algorithm in ("direct", "im2col"):
        y = jitconv.conv2d(x, w, algorithm=algorithm, **options)
        expected = np.einsum("ijkl,kl->ij", windows, w[0, -1])
        assert_allclose(channel(y, layout)[first:, first:], expected, rtol=1e-4, atol=1e-4)
        assert not channel(y, layout)[: first - 1].any()
    depthwise = jitconv.conv2d(x, w[:, -1:].repeat(count, 0), groups=count, **options)
    assert_allclose(channel(depthwise, layout)[first:, first:], expected, rtol=1e-4, atol=1e-4)
    y, argmax = jitconv.max_pool2d_with_argmax(x, 3, **options)
    flat = windows.reshape(*windows.shape[:2], 9)
    assert_array_equal(channel(y, layout)[first:, first:], flat.max(axis=2))
    assert_array_equal(channel(argmax, layout)[first:, first:], flat.argmax(axis=2))
    average = channel(jitconv.avg_pool2d(x, 3, **options), layout)
    assert_allclose(average[first:, first:], flat.mean(axis=2), rtol=1e-5)
    y, argmax = jitconv.global_max_pool2d(x, layout=layout)
    largest = int(plane[-PATCH:, -PATCH:].argmax())
    place = (rows - PATCH + largest // PATCH) * rows + rows - PATCH + largest % PATCH
    assert int(argmax.ravel()[-1]) == place
    assert y.ravel()[-1] == plane[-PATCH:, -PATCH:].max()
    mean = jitconv.global_avg_pool2d(x, layout=layout).ravel()
    assert_allclose(mean[-1], plane[-PATCH:, -PATCH:].astype(np.float64).sum() / rows**2, rtol=1e-6)
    if layout == "NCHW":
        assert mean[0] == 0
        columns = jitconv.im2col(x, 3, stride=STEP)
        side = (rows - 3) // STEP + 1
        last = columns[-side * side :].reshape(side, side, 3, 3)
        assert_array_equal(last[first:, first:], windows)


def check_gradients(rows):
    """Check a backward pass whose result has so many rows and is written; its memory is real."""
    x_shape = (1, 1, rows, rows)
    size = (rows - 3) // STEP + 1
    dy = np.zeros((1, 1, size, size), np.float32)
    dy[0, 0, -1, -1] = 3
    at = (size - 1) * STEP
    dx = jitconv.avg_pool2d_backward(dy, x_shape, 3, stride=STEP)
    assert_allclose(dx[0, 0, at : at + 3, at : at + 3], np.full((3, 3), 1 / 3), rtol=1e-6)
    assert float(dx[0, 0, -STEP * 2 :].sum()) == float(dx[0, 0, at:, at:].sum())
    del dx
    dx = jitconv.max_pool2d_backward(dy, np.full(dy.shape, 8, np.uint8), x_shape, 3, stride=STEP)
    assert dx[0, 0, at + 2, at + 2] == 3
    assert not dx[0, 0, :at].any()
    del dx
    w = np.arange(9, dtype=np.float32).reshape(1, 1, 3, 3)
    dx = jitconv.conv_transpose2d(dy, w, stride=STEP)
    assert_array_equal(dx[0, 0, -3:, -3:], 3 * w[0, 0])
    assert not dx[0, 0, :-3].any()


def main():
    rows, *gradients = map(int, sys.argv[1:])
    for layout in ("NCHW", "NHWC"):
        check(rows, layout)
    for one in gradients:
        check_gradients(one)


if __name__ == "__main__":
    main()
