"""Fixtures and settings that every test shares."""

from __future__ import annotations

import os
import zlib

import hypothesis
import numpy as np
import pytest

hypothesis.settings.register_profile(
    "jitconv", deadline=None, max_examples=60, derandomize=bool(os.environ.get("CI")), database=None
)
hypothesis.settings.load_profile("jitconv")


def pytest_configure(config):
    # Thread independence must be tested on a single core too. Numba reads this when it is imported.
    os.environ.setdefault("NUMBA_NUM_THREADS", str(max(2, os.cpu_count() or 1)))
    os.environ.setdefault("JITCONV_QUIET", "1")  # tests read stderr
    config.addinivalue_line("markers", "simd: runs once more with narrower vectors, see test_simd_modes.py")


def pytest_collection_modifyitems(items):
    # The longest begin first: on several processes (pytest -n auto) nobody then waits for them at the end.
    items.sort(key=lambda item: "test_simd_modes" not in item.nodeid)


@pytest.fixture
def rng(request):
    """Return a generator whose seed is the test's own name: the same data on every run and every machine."""
    return np.random.default_rng(zlib.crc32(request.node.name.encode()))


@pytest.fixture(params=("float32", "float64"))
def dtype(request):
    """Return each dtype that is computed."""
    return np.dtype(request.param)


@pytest.fixture(params=("NCHW", "NHWC"))
def layout(request):
    """Return each layout."""
    return request.param
