"""Threading layers: which is chosen, that nobody's settings change, and calls from many Python threads at once."""

from __future__ import annotations

import concurrent_calls
import pytest
from children import LAYERS, needs, python, succeeded

CHOSEN = "import jitconv, numba; numba.get_num_threads(); print(numba.threading_layer())"
WITHOUT_PRELOADING = "import importlib.metadata as m; m.files = lambda name: None; " + CHOSEN
LOADER = "import ctypes; ctypes.CDLL('libtbb.so.12')"


@pytest.mark.parametrize("layer", LAYERS)
def test_calls_from_many_python_threads(layer, record_property):
    needs(layer)
    calls = concurrent_calls.THREADS * concurrent_calls.CALLS
    record_property("tried", calls)
    script = concurrent_calls.__file__
    assert succeeded(python(script, NUMBA_THREADING_LAYER=layer)) == f"{layer} {calls} calls, wrong: []\n"


def test_without_the_lock_workqueue_ends_the_process():
    needs("workqueue")
    child = python(concurrent_calls.__file__, "unguarded", NUMBA_THREADING_LAYER="workqueue")
    assert child.returncode < 0
    assert "Concurrent access has been detected" in child.stdout + child.stderr


def test_tbb_of_pip_is_found():
    """It is not on the loader's path: by itself Numba goes on to its next layer."""
    needs("tbb")
    assert succeeded(python("-c", CHOSEN, NUMBA_THREADING_LAYER=None)) == "tbb\n"
    if python("-c", LOADER).returncode == 0:
        pytest.skip("the loader finds a libtbb of the system")
    assert succeeded(python("-c", WITHOUT_PRELOADING, NUMBA_THREADING_LAYER=None)) in ("omp\n", "workqueue\n")


@pytest.mark.parametrize(
    ("setting", "value", "layer"),
    [
        ("NUMBA_THREADING_LAYER", "omp", "omp"),
        ("NUMBA_THREADING_LAYER", "workqueue", "workqueue"),
        ("NUMBA_THREADING_LAYER_PRIORITY", "omp tbb workqueue", "omp"),
        ("NUMBA_THREADING_LAYER_PRIORITY", "workqueue omp tbb", "workqueue"),
    ],
)
def test_the_users_choice_holds(setting, value, layer):
    needs(layer)
    assert succeeded(python("-c", CHOSEN, **{"NUMBA_THREADING_LAYER": None, setting: value})) == f"{layer}\n"


def test_settings_stay_as_they_are():
    """What the environment, Numba's configuration and the number of threads were before jitconv ran."""
    code = """
import os, numba
from numba.core import config
numba.set_num_threads(1)
seen = lambda: (dict(os.environ), {name: getattr(config, name) for name in dir(config) if name.isupper()})
before = seen()
import mix
mix.digests(mix.few())
print(seen() == before, numba.get_num_threads())
"""
    assert succeeded(python("-c", code)) == "True 1\n"


def test_importing_starts_nothing():
    code = """
import os, threading
import jitconv, jitconv.layers, jitconv.training, numba
try:
    print(numba.threading_layer())
except ValueError as error:
    print(error)
print(threading.active_count(), len(os.listdir("/proc/self/task")) if os.path.isdir("/proc/self/task") else 1)
"""
    child = python("-c", code, OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="1")  # NumPy starts OpenBLAS's
    assert succeeded(child) == "Threading layer is not initialized.\n1 1\n"
