"""The command jitconv besides training: its help, info and warmup."""

from __future__ import annotations

import os
import subprocess
import sys

import numba
import numpy as np
import pytest

import jitconv
from jitconv import ahead
from jitconv.cli import main
from jitconv.kernels import cache
from jitconv.training import warming


def test_no_command(capsys):
    with pytest.raises(SystemExit, match="2"):
        main([])
    assert capsys.readouterr().err == "jitconv: error: the following arguments are required: COMMAND\n"
    with pytest.raises(SystemExit, match="2"):
        main(["fly"])
    assert capsys.readouterr().err.startswith("jitconv: error: argument COMMAND: invalid choice: 'fly'")


def test_version_and_help(capsys):
    for arguments, words in ((["--version"], jitconv.__version__), (["train", "--help"], "--resume FILE")):
        with pytest.raises(SystemExit, match="0"):
            main(arguments)
        assert words in capsys.readouterr().out


def test_info_as_a_module():
    answer = subprocess.run([sys.executable, "-m", "jitconv", "info"], check=True, capture_output=True, text=True)
    facts = dict(line.split("  ", 1) for line in answer.stdout.splitlines())
    assert {name: fact.strip() for name, fact in facts.items()}["jitconv"] == jitconv.__version__
    assert facts["numpy"].strip() == np.__version__
    assert facts["numba"].strip() == numba.__version__
    assert " lanes" in facts["tile float32"]
    assert facts["threading layer"].strip() in ("tbb", "omp", "workqueue", "none: NUMBA_DISABLE_JIT is set")
    assert facts.keys() >= {"python", "llvmlite", "cpu", "vector features", "threads", "cache"}


@pytest.fixture
def warm(monkeypatch, capsys):
    """Return a function that runs ``jitconv warmup`` without compiling: status, stdout, stderr, and what it would."""
    wanted = []

    def kept(jobs):
        wanted.extend(f"{worker.name} {np.dtype(char).name}" for worker, char in jobs)
        return wanted[:2]

    monkeypatch.setattr(ahead, "compile_kept", kept)

    def run_warmup(*arguments):
        status = main(["warmup", *arguments])
        output = capsys.readouterr()
        return status, output.out, output.err, wanted

    return run_warmup


def test_warmup(warm):
    status, out, err, wanted = warm("--dtype", "float32", "--layout", "NHWC")
    lines = out.splitlines()
    assert (status, err) == (0, "")
    assert lines[0].startswith("compiled 2 kernels in ")
    assert lines[1].startswith("float32: ")
    assert lines[2] == f"kept in {cache.cache_folder()}"
    assert "max_pooling.max_pool_nhwc float32" in wanted
    assert not {name for name in wanted if name.endswith("float64") or "nchw" in name}


def test_warmup_of_models(warm):
    _, _, _, wanted = warm("--model", "lenet", "simple_convnet", "--dtype", "both", "--layout", "NCHW")
    assert {"correlate.correlate float32", "correlate.correlate float64", "update.adam float64"} <= {*wanted}
    assert "columns.im2col float32" not in wanted
    assert len(wanted) == len({*wanted})


def test_warmup_with_nothing_to_do(monkeypatch, capsys):
    monkeypatch.setattr(ahead, "compile_kept", lambda jobs: [])
    assert main(["warmup"]) == 0
    assert capsys.readouterr().out == f"nothing to compile: all is kept in {cache.cache_folder()}\n"


def test_warmup_that_cannot_be_kept(monkeypatch, capsys):
    monkeypatch.setattr(ahead, "cache_problem", lambda: "cannot be written: Permission denied")
    assert main(["warmup"]) == 1
    problem = f"{cache.cache_folder()} cannot be written: Permission denied"
    assert capsys.readouterr() == ("", f"jitconv warmup: error: nothing can be kept: {problem}\n")
    monkeypatch.setattr(warming.config, "DISABLE_JIT", 1)
    assert main(["warmup"]) == 1
    assert capsys.readouterr().err == "jitconv warmup: error: NUMBA_DISABLE_JIT is set: nothing is compiled\n"


def test_warmup_takes_no_other_words(capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["warmup", "--layout", "HWC"])
    assert "argument --layout: invalid choice: 'HWC'" in capsys.readouterr().err


def test_info_on_a_cache_that_cannot_be_written(capsys, monkeypatch):
    def read_only(*arguments, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "makedirs", read_only)
    assert main(["info"]) == 0
    facts = capsys.readouterr().out
    assert (
        "(cannot be written: Permission denied; every process compiles anew)" in facts or "NUMBA_DISABLE_JIT" in facts
    )
