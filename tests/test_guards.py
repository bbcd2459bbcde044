"""No kernel reads or writes outside the arrays that it is given."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

import pytest
from cases import CONV_CASES, SAMPLE, TRANSPOSED_CASES
from fences import Poisoned, allocating_in, placed
from numpy.testing import assert_array_equal

import jitconv

ALGORITHMS = ("direct", "im2col")


def all_passes(case, x, w, b, dy, **options):
    """Return y, dx, dw and db of a case."""
    transposed = hasattr(case, "output_padding")
    forward = jitconv.conv_transpose2d if transposed else jitconv.conv2d
    backward = jitconv.conv_transpose2d_backward if transposed else jitconv.conv2d_backward
    return forward(x, w, b, **options), *backward(dy, x, w, **options)


def assert_stays_inside(case, rng, dtype, layout, **options):
    arrays = *case.arrays(rng, dtype, layout), case.gradient(rng, dtype, layout)
    options |= {"layout": layout, **case.options}
    expected = all_passes(case, *arrays, **options)
    fence = Poisoned()
    fenced = [placed(fence, a) for a in arrays]
    with allocating_in(fence):
        results = all_passes(case, *fenced, **options)
    fence.check()
    for got, clean in zip(results, expected, strict=True):
        assert_array_equal(got, clean)


@pytest.mark.simd
@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("case", CONV_CASES, ids=str)
def test_convolution_stays_inside_its_arrays(case, algorithm, dtype, layout, rng):
    assert_stays_inside(case, rng, dtype, layout, algorithm=algorithm)


@pytest.mark.parametrize("case", TRANSPOSED_CASES, ids=str)
def test_transposed_convolution_stays_inside_its_arrays(case, dtype, layout, rng):
    assert_stays_inside(case, rng, dtype, layout)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("case", SAMPLE, ids=str)
def test_only_out_is_written(case, algorithm, dtype, layout, rng):
    x, w, b = case.arrays(rng, dtype, layout)
    options = {"layout": layout, "algorithm": algorithm, **case.options}
    expected = jitconv.conv2d(x, w, b, **options)
    fence = Poisoned()
    out = fence.empty(expected.shape, dtype)
    jitconv.conv2d(x, w, b, out=out, **options)
    fence.check()
    assert_array_equal(out, expected)


@pytest.mark.simd
@pytest.mark.skipif(os.name == "nt", reason="pages are protected with POSIX calls")
def test_no_byte_past_an_array_is_touched():
    """Run the table in a process of its own, with protected pages before or behind every array."""
    child = subprocess.run(
        [sys.executable, "-X", "faulthandler", str(pathlib.Path(__file__).with_name("protected_pages.py"))],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert child.returncode == 0, f"{child.stdout[-400:]}\n{child.stderr[-4000:]}"
