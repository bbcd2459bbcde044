"""Python processes that a test starts: with a threading layer, with settings, with code before and after the import."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

import pytest

HERE = pathlib.Path(__file__).resolve().parent
LAYERS = ("tbb", "omp", "workqueue")


def environment(**changes):
    """Return this process's environment with changes; None takes a variable out."""
    folders = [str(HERE), str(HERE.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    changed = os.environ | {"PYTHONPATH": os.pathsep.join(folders)} | changes
    return {name: str(value) for name, value in changed.items() if value is not None}


def python(*arguments, timeout=300, **changes):
    """Run Python on a script of this folder, or on "-c" and code, with changes to the environment."""
    return subprocess.run(
        [sys.executable, "-P", *map(str, arguments)],
        env=environment(**changes),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def succeeded(child):
    """Return what a child printed; it must have ended well."""
    assert child.returncode == 0, f"exit status {child.returncode}\n{child.stdout[-2000:]}\n{child.stderr[-4000:]}"
    return child.stdout


def needs(layer):
    """Skip a test where Numba does not have a threading layer."""
    code = "import jitconv, numba; numba.get_num_threads(); print(numba.threading_layer())"
    child = python("-c", code, NUMBA_THREADING_LAYER=layer)
    if "No threading layer could be loaded" in child.stderr:
        pytest.skip(f"Numba has no layer {layer} here")
    assert succeeded(child) == f"{layer}\n"
