"""set_num_threads and num_threads."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numba
import pytest

import jitconv
from jitconv import threads


@pytest.fixture(autouse=True)
def _nothing_chosen(monkeypatch):
    monkeypatch.setattr(threads, "_chosen", None)


def test_default_is_what_numba_would_use():
    assert jitconv.get_num_threads() == numba.get_num_threads()


def test_set_num_threads_holds_in_all_python_threads():
    jitconv.set_num_threads(1)
    assert jitconv.get_num_threads() == 1
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(jitconv.get_num_threads).result() == 1
    jitconv.set_num_threads(2)
    assert jitconv.get_num_threads() == 2


def test_num_threads_holds_inside_its_block_only():
    jitconv.set_num_threads(2)
    with jitconv.num_threads(1):
        assert jitconv.get_num_threads() == 1
        with jitconv.num_threads(2):
            assert jitconv.get_num_threads() == 2
        assert jitconv.get_num_threads() == 1
    assert jitconv.get_num_threads() == 2


def test_num_threads_is_undone_after_an_exception():
    jitconv.set_num_threads(2)
    with pytest.raises(KeyError), jitconv.num_threads(1):
        raise KeyError
    assert jitconv.get_num_threads() == 2


def test_num_threads_is_local_to_its_python_thread():
    jitconv.set_num_threads(2)
    inside, checked = threading.Event(), threading.Event()

    def hold():
        with jitconv.num_threads(1):
            inside.set()
            checked.wait(10)
            return jitconv.get_num_threads()

    with ThreadPoolExecutor(1) as pool:
        held = pool.submit(hold)
        assert inside.wait(10)
        assert jitconv.get_num_threads() == 2
        checked.set()
        assert held.result() == 1


def test_numba_keeps_its_own_number():
    before = numba.get_num_threads()
    jitconv.set_num_threads(1)
    with jitconv.num_threads(2):
        assert numba.get_num_threads() == before
    assert numba.get_num_threads() == before


def test_follows_numbas_number_until_one_is_set():
    before = numba.get_num_threads()
    numba.set_num_threads(1)
    try:
        assert jitconv.get_num_threads() == 1
    finally:
        numba.set_num_threads(before)


@pytest.mark.parametrize("choose", [jitconv.set_num_threads, lambda n: jitconv.num_threads(n).__enter__()])
@pytest.mark.parametrize(
    ("n", "error", "message"),
    [
        (0, ValueError, r"`n` must be an integer of at least 1, got 0"),
        (-1, ValueError, r"`n` must be an integer of at least 1, got -1"),
        (1.0, TypeError, r"`n` must be an integer of at least 1, got 1\.0"),
        (True, TypeError, r"`n` must be an integer of at least 1, got True"),
        ("2", TypeError, r"`n` must be an integer of at least 1, got '2'"),
        (10**6, ValueError, r"`n` must be at most \d+, the threads that Numba was started with, got 1000000"),
    ],
)
def test_other_numbers_are_refused(choose, n, error, message):
    before = jitconv.get_num_threads()
    with pytest.raises(error, match=message):
        choose(n)
    assert jitconv.get_num_threads() == before


FROM_FOUR_THREADS = """
import threading
import numpy as np
import jitconv

x, w = np.ones((2, 3, 16, 16), np.float32), np.ones((8, 3, 3, 3), np.float32)
expected = jitconv.conv2d(x, w)
wrong = []

def work():
    for _ in range(50):
        if not np.array_equal(jitconv.conv2d(x, w), expected):
            wrong.append(1)

workers = [threading.Thread(target=work) for _ in range(4)]
[worker.start() for worker in workers]
[worker.join() for worker in workers]
print("wrong", len(wrong))
"""


@pytest.mark.parametrize("layer", ["default", "workqueue"])
def test_calls_from_several_python_threads(layer):
    """With every threading layer, workqueue too, which by itself ends the process on concurrent calls."""
    child = subprocess.run(
        [sys.executable, "-P", "-c", FROM_FOUR_THREADS],
        env=os.environ | {"NUMBA_THREADING_LAYER": layer},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert child.stdout == "wrong 0\n", child.stderr
