"""Compiling ahead: which kernels, in which processes, and what those who wait are told."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

import jitconv
from jitconv import ahead
from jitconv.kernels import waiting

# Two kernels that compile fast; a process of the test's own that says what it compiled by itself. As a program of a
# user it has no `__main__` guard.
PROGRAM = """
import os, sys
import numpy as np
from jitconv import ahead
from jitconv.kernels import jit

ahead.cores = lambda: 2
compile = jit._Compiled._compile_uncached
def told(self):
    print("here:", self._pyfunc.__name__)
    return compile(self)
jit._Compiled._compile_uncached = told
start = ahead._start
def counted():
    print("process")
    return start()
ahead._start = counted
workers = ahead.every_worker()
jobs = [(workers[name], char) for name in ("pointwise.relu_forward", "pointwise.relu_backward") for char in "fd"]
def run():
    print(*ahead.compile_all(jobs), sep=", ")
    from jitconv.pointwise import relu
    print(relu(np.array([-1.0, 2.0])))
"""
RESULT = "[0. 2.]"
COMPILED = "relu_forward float32, pointwise.relu_forward float64, pointwise.relu_backward float32"


def run_program(folder, *lines, **environment):
    """Run PROGRAM and lines after it; return its output, and what it said on stderr."""
    child = subprocess.run(
        [sys.executable, "-c", "\n".join([PROGRAM, *lines])],
        env=os.environ | {"NUMBA_CACHE_DIR": str(folder), "JITCONV_QUIET": "0"} | environment,
        check=True,
        capture_output=True,
        text=True,
    )
    return child.stdout.splitlines(), child.stderr


def test_processes_compile_and_this_one_loads(tmp_path):
    output, _ = run_program(tmp_path, "run()")
    assert output[:2] == ["process", "process"]
    assert COMPILED in output[2]
    assert output[3:] == [RESULT]
    output, told = run_program(tmp_path, "run()")  # the cache has it all
    assert (output, told) == (["", RESULT], "")


def test_apart_one_kernel_on_one_core_goes_to_a_process_too(tmp_path):
    """For those who want to be able to stop it."""
    one = ["ahead.cores = lambda: 1", "print(ahead.compile_all(jobs[:1], apart=True))"]
    output, _ = run_program(tmp_path, *one)
    assert output == ["process", "['pointwise.relu_forward float32']"]
    output, _ = run_program(tmp_path, *one)
    assert output == ["[]"]


def test_from_a_daemon_without_a_main_guard(tmp_path):
    start = [
        "import multiprocessing",
        "daemon = multiprocessing.get_context('fork').Process(target=run, daemon=True)",
        "daemon.start()",
        "daemon.join()",
        "sys.exit(daemon.exitcode)",
    ]
    output, _ = run_program(tmp_path, *start)
    assert output[:2] == ["process", "process"]
    assert output[3:] == [RESULT]


@pytest.mark.parametrize(
    "change",
    [
        "ahead._CHILD = 'raise SystemExit(1)'",
        "ahead._CHILD = 'import os; os.close(0); os.close(1)'",
        "sys.executable = '/nowhere/python'",
        "sys.executable = None",
        "sys.frozen = True",
        "ahead.cores = lambda: 1",
        "ahead.cache_problem = lambda: 'cannot be written'",
    ],
)
def test_without_processes_it_compiles_here(tmp_path, change):
    output, _ = run_program(tmp_path, change, "run()")
    assert [line for line in output if line.startswith("here")] == ["here: relu_forward"] * 2 + [
        "here: relu_backward"
    ] * 2
    assert output[-1] == RESULT
    if "CHILD" not in change and "nowhere" not in change:
        assert "process" not in output


def test_interrupted_it_ends_its_processes(tmp_path):
    """Ctrl-C while it waits: the processes end, and the exception goes on."""
    lines = [
        "import signal, threading",
        "signal.signal(signal.SIGINT, signal.default_int_handler)",  # ignored in the background of a shell
        "ahead._CHILD = 'import time; time.sleep(60)'",
        "made = []",
        "ahead._start = lambda: made.append(start()) or made[-1]",
        "threading.Timer(1, os.kill, (os.getpid(), signal.SIGINT)).start()",
        "try: run()",
        "except KeyboardInterrupt: print('stopped', [one.returncode for one in made])",
    ]
    output, _ = run_program(tmp_path, *lines)
    assert output == [f"stopped {[-9, -9]}"]


def test_no_jit_no_compiling(tmp_path):
    output, _ = run_program(tmp_path, "print(ahead.compile_all(jobs), ahead.cores())", NUMBA_DISABLE_JIT="1")
    assert output == ["[] 2"]


@pytest.fixture
def wanted(monkeypatch):
    """Return a list that takes the names and dtypes of what would be compiled."""
    names = []
    monkeypatch.setattr(ahead, "compile_kept", lambda jobs: names.extend(f"{job[0].name} {job[1]}" for job in jobs))
    return names


def test_warmup_is_of_all_kernels(wanted):
    jitconv.warmup()
    assert len(wanted) == 2 * len(ahead.every_worker())
    assert {"correlate.correlate f", "planes.planes d", "update.adam f", "max_pooling.max_pool_nhwc d"} <= {*wanted}


@pytest.mark.parametrize(
    ("chosen", "there", "gone"),
    [
        ("NCHW", "planes.planes f", "batchnorm.moments_nhwc f"),
        ("NHWC", "batchnorm.moments_nhwc f", "batchnorm.moments_nchw f"),
        ("NHWC", "weights.correlate_weights f", "planes.planes f"),
        ("NHWC", "depthwise.groups_of_4_nhwc f", "columns.im2col f"),
    ],
)
def test_warmup_of_one_layout(wanted, chosen, there, gone):
    jitconv.warmup("float32", chosen)
    assert there in wanted
    assert gone not in wanted


def test_warmup_of_one_dtype(wanted, dtype):
    jitconv.warmup(dtype)
    assert len(wanted) == len(ahead.every_worker())
    assert all(name.endswith(dtype.char) for name in wanted)


def test_errors_of_warmup(monkeypatch):
    with pytest.raises(TypeError, match="`dtype` must be float32 or float64, got 'int8'"):
        jitconv.warmup("int8")
    with pytest.raises(ValueError, match="`layout` must be one of 'NCHW', 'NHWC', 'both', got 'HWC'"):
        jitconv.warmup(layout="HWC")
    monkeypatch.setattr(ahead, "cache_problem", lambda: "cannot be written: Permission denied")
    with pytest.raises(OSError, match=r" cannot be written: Permission denied$"):
        jitconv.warmup()


@pytest.fixture
def patience(monkeypatch):
    """Let a tenth of a second be too long, and nothing be told before."""
    monkeypatch.setattr(waiting, "PATIENCE", 0.1)
    monkeypatch.setattr(waiting, "_seconds", 0.0)
    monkeypatch.setattr(waiting, "_told", False)
    monkeypatch.delenv("JITCONV_QUIET", raising=False)


def compile_for(seconds, kept=True):
    with waiting.compiling(kept):
        waiting.time.sleep(seconds)


def test_a_long_wait_is_told_once(patience, capsys):
    compile_for(0.4)
    compile_for(0.4)
    assert capsys.readouterr() == ("", waiting.NOTICE + "\n")


def test_short_waits_add_up(patience, capsys):
    for _ in range(3):
        compile_for(0.0)
    assert capsys.readouterr().err == ""
    for _ in range(4):
        compile_for(0.06)
    assert capsys.readouterr().err == waiting.NOTICE + "\n"


def test_what_is_not_kept_is_told_otherwise(patience, capsys):
    compile_for(0.4, kept=False)
    assert capsys.readouterr().err == waiting.NOTICE_UNKEPT + "\n"


def test_it_can_be_quiet(patience, capsys, monkeypatch):
    monkeypatch.setenv("JITCONV_QUIET", "1")
    compile_for(0.4)
    assert capsys.readouterr().err == ""


def test_without_stderr(patience, monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)
    compile_for(0.4)
    assert waiting._told


def test_the_notice_in_a_process(tmp_path):
    impatient = "import jitconv.kernels.waiting as waiting; waiting.PATIENCE = 0.01"
    assert run_program(tmp_path, impatient, "run()")[1] == waiting.NOTICE + "\n"
    assert run_program(tmp_path, impatient, "run()")[1] == ""  # all comes from the cache
    asked = "ahead.compile_launchers = lambda dtype: None; ahead.compile_kept(jobs)"
    assert run_program(tmp_path / "asked", impatient, asked)[1] == ""


def test_what_was_recorded_runs_afterwards(rng):
    """A call that is only recorded is planned and kept, small ones with their arguments; the next one computes."""
    from jitconv.kernels.jit import recording

    x, w = rng.standard_normal((1, 2, 7, 9)), rng.standard_normal((3, 2, 3, 3))
    with recording() as wanted:
        jitconv.conv2d(x, w)
        jitconv.max_pool2d(x, 3)
    assert {"correlate.correlate", "max_pooling.max_pool_nchw"} & {worker.name for worker, _ in wanted}
    taps = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(2, 3))
    np.testing.assert_allclose(jitconv.conv2d(x, w), np.einsum("ncijkl,fckl->nfij", taps, w))
    np.testing.assert_array_equal(jitconv.max_pool2d(x, 3), taps.max(axis=(4, 5))[:, :, ::3, ::3])
