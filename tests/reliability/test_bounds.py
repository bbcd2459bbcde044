"""No kernel touches a byte outside the arrays of its launch, writes to an input, or to what another thread uses.

Every load and store is checked, by its address: see `instrumentation.py`. Kernels are compiled anew for it, in
processes of their own, and run over drawn shapes, cut into 1 to 5 parts. What is compiled for users runs between
protected pages: test_guards.py has the convolutions, this the rest.
"""

from __future__ import annotations

import concurrent.futures
import json
import os
import pathlib
import re
import subprocess
import sys

import pytest
from forms import FULL
from test_simd_modes import MODES

from jitconv.ahead import every_worker
from jitconv.kernels import simd

HERE = pathlib.Path(__file__).parent
# By the process that runs them, those that take longest first; and the examples of each operation in the short form.
FAMILIES = {"winograd": 4, "groups": 3, "convolution": 10, "pooling": 6, "rest": 6}
MORE = 8  # times as many in the full form


def start(script, *arguments, **environment):
    """Run a script of this folder, and return what it did; it prints as JSON what it found."""
    paths = os.pathsep.join([str(HERE), str(HERE.parent), *filter(None, sys.path)])
    child = subprocess.run(
        [sys.executable, "-P", "-X", "faulthandler", str(HERE / script), *arguments],
        env=os.environ | {"PYTHONPATH": paths, "NUMBA_NUM_THREADS": "5", "JITCONV_QUIET": "1"} | environment,
        capture_output=True,
        text=True,
        timeout=7200 if FULL else 1200,
        check=False,
    )
    assert child.returncode == 0, f"{arguments}: {child.stdout[-2000:]}{child.stderr[-6000:]}"
    return child.stdout


def start_checked(script, cache, *arguments, **environment):
    """As `start`, for a script that compiles with checks, none of which may be kept in the folder `cache`."""
    said = start(script, *arguments, NUMBA_CACHE_DIR=str(cache), NUMBA_OPT="0", **environment)
    assert not [*cache.rglob("*.nb?")], "code with checks in it has been kept on disk"
    return json.loads(said)


def reports_of_all(cache, dtypes, examples, **environment):
    """Run every family, as many at once as there are cores."""

    def one(family):
        return start_checked(
            "bounded_operations.py", cache, family, dtypes, str(FAMILIES[family] * examples), **environment
        )

    with concurrent.futures.ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        return [*pool.map(one, FAMILIES)]


def test_every_access_of_every_kernel_lies_in_its_arrays(tmp_path):
    reports = reports_of_all(tmp_path, *(("float32,float64", MORE) if FULL else ("float32", 1)))
    assert {name for report in reports for name in report["launched"]} == set(every_worker())
    assert all(report["accesses"] > 100_000 for report in reports)


@pytest.mark.skipif(not FULL, reason="each width compiles all kernels: JITCONV_RELIABILITY=full")
@pytest.mark.parametrize("mode", MODES)
def test_every_access_of_kernels_with_narrower_vectors(mode, tmp_path):
    _, features = MODES[mode]
    missing = {name.lstrip("+") for name in features["NUMBA_CPU_FEATURES"].split(",")} - simd.FEATURES
    if missing:
        pytest.skip(f"this CPU lacks {', '.join(sorted(missing))}")
    reports = reports_of_all(tmp_path, "float32,float64", MORE // 5, **features)
    assert {name for report in reports for name in report["launched"]} <= set(every_worker())


# What is said of each of `planted_faults.py`; None: nothing is wrong.
SAID = {
    "nothing": None,
    "nothing, in three parts": None,
    "reads past": "reads 4 bytes up to 4 bytes past the end of argument 0",
    "writes before": "writes 4 bytes from 4 bytes before argument 1",
    "writes an input": "writes 4 bytes at byte 0 of argument 0, .* which it reads",
    "a vector, one element past": r"reads \d+ bytes up to 4 bytes past the end of argument 1",
    "masked load, one lane past": "reads 4 bytes up to 4 bytes past the end of argument 1",
    "masked store, one lane past": "writes 4 bytes up to 4 bytes past the end of argument 1",
    "copies one byte past": r"reads \d+ bytes up to 1 bytes past the end of argument 0",
    "fills one byte past": r"writes \d+ bytes up to 1 bytes past the end of argument 1",
    "one byte by two parts": "part 0 writes 4 bytes at byte 0 of argument 1, .*, where another part writes or reads",
    "a part reads another's": "part 0 reads 4 bytes at byte 4 of argument 1, .*, where another part writes or reads",
    "streams to no boundary": "at byte 4 of argument 1, .*, which is not aligned as the code says",
    "beside its own variable": "writes 8 bytes outside a variable of its own",
    "lanes that are masked out": None,
    "pooling": None,
    "pooling, a narrower image": "reads 4 bytes up to 4 bytes past the end of argument 0",
    "pooling by gathers": None,
    "pooling by gathers, a narrower image": "reads 4 bytes up to 8 bytes past the end of argument 0",
    "im2col": None,
    "im2col, an image more": r"part 1 reads 4 bytes up to \d+ bytes past the end of argument 0",
    "optimizer": None,
    "optimizer, an element more": "reads 4 bytes up to 4 bytes past the end of array behind argument 0",
    "relayout": None,
    "relayout, a row more": r"reads \d+ bytes up to \d+ bytes past the end of argument 0",
    "relayout, a row less": "leaves 320 bytes of argument 1, .* as they were",
    "relu": None,
    "relu, an element more": "reads 4 bytes up to 4 bytes past the end of argument 0",
    "relu, an element less": "leaves 4 bytes of argument 1, .* as they were, from byte 156",
}


def test_planted_faults_are_found(tmp_path):
    said = start_checked("planted_faults.py", tmp_path)
    assert said.keys() == SAID.keys()
    wrong = {
        name: said[name]
        for name, pattern in SAID.items()
        if (said[name] is not None if pattern is None else not re.search(pattern, said[name] or ""))
    }
    assert not wrong


@pytest.mark.skipif(os.name == "nt", reason="pages are protected with POSIX calls")
def test_no_byte_past_an_array_is_touched_by_optimised_code():
    start("protected_operations.py", "40" if FULL else "3")
