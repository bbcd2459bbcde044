"""The same bits: for any number of threads, in every layer, in every repetition, in a Python thread, after a fork."""

from __future__ import annotations

import json
import os

import mix
import pytest
from children import HERE, LAYERS, needs, python, succeeded
from forms import FULL

REPEATS = 20 if FULL else 3
THREADS = (1, 2, 3, 4, 8)


@pytest.fixture(scope="module")
def expected():
    """The digests in this process."""
    return mix.digests()


@pytest.mark.parametrize("layer", LAYERS)
def test_same_bits(layer, expected, record_property):
    needs(layer)
    ways = [f"threads {threads}" for threads in THREADS] + [f"repeat {i}" for i in range(REPEATS)] + ["thread"]
    ways += ["fork"] if hasattr(os, "fork") else []
    record_property("tried", len(ways) * len(expected))
    child = python(HERE / "many_ways.py", *ways, NUMBA_THREADING_LAYER=layer, NUMBA_NUM_THREADS=max(THREADS))
    found = json.loads(succeeded(child).splitlines()[-1])  # Numba's tbb may print a line when a process forks
    assert list(found) == ways
    for way in ways:
        assert found[way] == expected, way


def test_a_changed_bit_changes_the_digest():
    arrays = mix.calls()["pooling 2x2 float32 NCHW"]()
    before = mix.digest(arrays)
    arrays[0].view("u4")[0, 0, 0, 0] ^= 1
    assert mix.digest(arrays) != before
