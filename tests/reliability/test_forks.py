"""Processes started from one that runs kernels: every start method, cold and warm, in every threading layer."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request

import mix
import pytest
from children import HERE, LAYERS, environment, needs, python, succeeded

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
METHODS = ("os.fork", "fork", "forkserver", "spawn", "loky")


@pytest.fixture(scope="module")
def expected():
    """The digests in this process."""
    return mix.digests(mix.few())


@pytest.mark.parametrize("state", ["cold", "warm"])
@pytest.mark.parametrize("layer", LAYERS)
def test_every_start_method(layer, state, expected, record_property):
    needs(layer)
    pytest.importorskip("loky", reason="pip install loky")
    record_property("tried", len(METHODS))
    child = python(HERE / "start_methods.py", state, *METHODS, NUMBA_THREADING_LAYER=layer)
    assert json.loads(succeeded(child).splitlines()[-1]) == dict.fromkeys(METHODS, expected)


FORKED = """
import os, signal, mix
from jitconv.kernels import forks

mix.digests(mix.few())
{between}
child = os.fork()
if not child:
    signal.alarm(120)
    mix.digests(mix.few())
    os._exit(0)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_without_the_guard_omp_ends_a_forked_child():
    needs("omp")
    unguarded = FORKED.format(between="forks.threads_left_behind = lambda: False")
    child = python("-c", unguarded, NUMBA_THREADING_LAYER="omp")
    assert succeeded(child) == f"{-signal.SIGTERM}\n"
    assert succeeded(python("-c", FORKED.format(between=""), NUMBA_THREADING_LAYER="omp")) == "0\n"


FORK_IN_A_THREAD = """
import concurrent.futures, os
from start_methods import by_fork, digests_of_few

expected = digests_of_few()
with concurrent.futures.ThreadPoolExecutor(1) as pool:
    print(pool.submit(by_fork).result() == expected, digests_of_few() == expected)
"""


@pytest.mark.parametrize("layer", LAYERS)
def test_a_fork_in_a_thread_other_than_the_first(layer):
    needs(layer)
    child = python("-c", FORK_IN_A_THREAD, NUMBA_THREADING_LAYER=layer)
    assert succeeded(child) == "True True\n"


FORK_WHILE_COMPILING = """
import os, signal, threading
{before}
import numpy as np
from jitconv import pointwise
from jitconv.kernels import jit

compiling, compile = threading.Event(), jit._Compiled._compile_uncached
def told(self):
    compiling.set()
    return compile(self)
jit._Compiled._compile_uncached = told

x = np.array([-1.0, 2.0])
other = threading.Thread(target=pointwise.relu, args=(x,))
other.start()
compiling.wait()
child = os.fork()
if not child:
    signal.alarm({patience})
    print(pointwise.relu(x), pointwise.relu(x.astype("f4")), flush=True)
    os._exit(0)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
other.join()
"""


def test_a_fork_while_another_thread_compiles(tmp_path):
    child = python("-c", FORK_WHILE_COMPILING.format(before="", patience=120), NUMBA_CACHE_DIR=tmp_path)
    assert succeeded(child) == "[0. 2.] [0. 2.]\n0\n"


def test_without_the_guard_a_fork_while_another_thread_compiles_waits_for_ever(tmp_path):
    before = "os.register_at_fork = lambda **_: None"
    child = python("-c", FORK_WHILE_COMPILING.format(before=before, patience=8), NUMBA_CACHE_DIR=tmp_path)
    assert succeeded(child) == f"{-signal.SIGALRM}\n"


@pytest.mark.parametrize("layer", ["tbb", "omp"])
def test_a_prefork_server(layer, expected, record_property):
    needs(layer)
    record_property("tried", 8)
    server = subprocess.Popen(
        [sys.executable, "-P", HERE / "prefork_server.py"],
        env=environment(NUMBA_THREADING_LAYER=layer),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with server:
        address = f"http://127.0.0.1:{int(server.stdout.readline())}/"
        for _ in range(8):
            with urllib.request.urlopen(address, timeout=60) as answer:
                content = json.load(answer)
            assert content["digests"] == expected
            assert content["worker"] != server.pid
        output, _ = server.communicate(timeout=60)
    assert output == "[0, 0]\n"
