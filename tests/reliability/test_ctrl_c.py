"""Ctrl-C ends ``jitconv train`` at once, whatever it does, with status 130 and one line that says so."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from reliability.forms import FULL

# What is promised, where a step is short. Other programs may keep a machine busy: the short form allows for them.
SECONDS = 2 if FULL else 20

# The command, which says on stdout once what it does.
PROGRAM = r"""
import signal
import sys
from jitconv import ahead
from jitconv.cli import main
from jitconv.training import Trainer, data

def telling(word, function):
    told = []
    def tells(*arguments, **options):
        if not told:
            told.append(print(word, flush=True))
        return function(*arguments, **options)
    return tells

def feed(process, left):
    sys.stdout.write(f"process {{process.pid}}\n")  # in one piece: two threads do it
    sys.stdout.flush()
    feeding(process, left)

feeding, ahead._feed = ahead._feed, feed
data.load = telling("loading", data.load)
Trainer.predict = telling("testing", Trainer.predict)
{change}
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture
def train(tmp_path):
    """Return a function that starts a training on images, with a file to save it in."""
    children = []

    def start(x, *options, change="", test=None, **environment):
        arrays = {"x": x, "y": np.arange(len(x)) % 2}
        if test is not None:
            arrays |= {"x_test": test, "y_test": np.arange(len(test)) % 2}
        np.savez(tmp_path / "images.npz", **arrays)
        save = tmp_path / "weights.safetensors"
        train = "train", "--data", str(tmp_path / "images.npz"), "--save", str(save), "--batch-size", "10"
        child = subprocess.Popen(
            [sys.executable, "-P", "-c", PROGRAM.format(change=change), *train, *options],
            env=os.environ | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        children.append(child)
        return child

    yield start
    for child in children:
        child.kill()
        child.communicate()


def interrupt(child, word, after=0.0):
    """Press Ctrl-C so many seconds after a line that begins with a word; return stdout's and stderr's lines."""
    seen = []
    while not seen or not seen[-1].startswith(word):
        line = child.stdout.readline()
        assert line, child.stderr.read()
        seen.append(line.rstrip())
    if after:
        time.sleep(after)  # a moment within what it does, not one to wait for
    child.send_signal(signal.SIGINT)
    begin = time.perf_counter()
    out, err = child.communicate(timeout=SECONDS)
    print(f"{word!r}, {after} s: ended after {time.perf_counter() - begin:.2f} s")  # shown with pytest -rP
    assert child.returncode == 130, err
    return [*seen, *out.splitlines()], err.splitlines()


def small(count=20):
    return np.random.default_rng(0).integers(0, 256, (count, 12, 12)).astype(np.uint8)


def test_while_it_loads(train):
    out, err = interrupt(train(np.zeros((30_000, 28, 28), np.uint8)), "loading")
    assert out == ["loading"]
    assert err == ["jitconv train: stopped"]


@pytest.mark.parametrize("after", [0.0, 1.0, 3.0, 6.0] if FULL else [0.5])
@pytest.mark.parametrize("cores", [1, 2])
def test_while_it_compiles(train, tmp_path, cores, after):
    """In processes of their own, also on one core: they end with it. Nothing is trained and nothing saved."""
    change = f"ahead.cores = lambda: {cores}"
    child = train(small(), change=change, NUMBA_CACHE_DIR=str(tmp_path / "cold"))
    out, err = interrupt(child, "process", after)
    assert err == ["jitconv train: stopped"]
    processes = [int(line.split()[1]) for line in out if line.startswith("process")]
    assert 1 <= len(processes) <= cores
    for process in processes:
        with pytest.raises(ProcessLookupError):
            os.kill(process, 0)
    assert not (tmp_path / "weights.safetensors").exists()


@pytest.mark.parametrize("after", [0.0, 0.1, 0.5] if FULL else [0.1])
def test_while_it_trains(train, tmp_path, after):
    out, err = interrupt(train(small(), "--epochs", "100000"), "epoch", after)
    assert out[-1].startswith("stopped ")
    assert f"; saved to {tmp_path}/weights.safetensors, to go on: jitconv train --resume" in out[-1]
    assert err == ["", "stopping after this step (Ctrl-C again: at once, without saving)"]
    assert sorted(os.listdir(tmp_path)) == ["images.npz", "weights.safetensors"]


def test_while_it_tests(train):
    """The epoch is not over before all test images have been seen, which may take long."""
    out, _ = interrupt(train(small(), test=small(40_000)), "testing")
    assert out[-1].startswith("stopped in epoch 1, after 20 of 20 images; saved to ")
