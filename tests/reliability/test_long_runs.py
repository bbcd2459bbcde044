"""Long runs: training that is killed or stopped at any moment goes on exactly, and memory does not grow."""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import random
import signal
import subprocess
import sys

import numpy as np
import pytest
from reliability.forms import FULL

import jitconv
from jitconv.cli import main
from jitconv.layers import BatchNorm2d, Conv2d, Dense, Dropout, Flatten, MaxPool2d, ReLU
from jitconv.training import SGD, Adadelta, AdaGrad, Adam, RMSProp, Sequential, Trainer, checkpoint

OPTIMIZERS = ("sgd", "adagrad", "rmsprop", "adadelta", "adam")


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Return the path of 30 images of 28x28 pixels in two classes, 6 of them to test on."""
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("data") / "images.npz"
    np.savez(path, x=rng.uniform(0, 1, (30, 28, 28)), y=np.arange(30) % 2)
    return path


def arguments(images, save, *more):
    """Return the arguments of a training: three steps in an epoch, the last of them smaller."""
    return ["train", "--data", str(images), "--batch-size", "10", "--save", str(save), *map(str, more)]


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


# Killed

EPOCHS = 25
KILLS = 50 if FULL else 10


@pytest.fixture
def uninterrupted(images, tmp_path, monkeypatch):
    """Return the digest of the file after each epoch of a training that nobody stops."""
    digests, save = [], checkpoint.save

    def noted(path, *rest):
        save(path, *rest)
        digests.append(digest(pathlib.Path(path)))

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", noted)
        assert main(arguments(images, tmp_path / "whole", "--epochs", EPOCHS, "--threads", 1)) == 0
    assert len(set(digests)) == EPOCHS
    return digests


def unfinished(folder):
    return [name for name in os.listdir(folder) if name.endswith(".part")]


def kill_at_some_moment(child, folder, chance):
    """Kill a training: while it starts, at any moment after that, or as soon as it writes; return its exit status."""
    kind = chance.choice(("start", "any", "any", "write", "write"))
    if kind != "start":
        child.stdout.readline()  # what is trained: the first step is next
    before = unfinished(folder)
    try:
        if kind == "write":
            while child.poll() is None and unfinished(folder) in (before, []):
                pass
        else:
            child.wait(chance.uniform(0, 0.3))
    except subprocess.TimeoutExpired:
        pass
    child.kill()
    return child.wait()


def test_killed_at_any_moment_it_goes_on_from_a_whole_file(images, uninterrupted, tmp_path):
    """The file is always that of an epoch of the uninterrupted training, and the last is the same, byte for byte."""
    folder = tmp_path / "killed"
    folder.mkdir()
    save = folder / "weights.safetensors"
    chance = random.Random(8)
    kills = writes = done = 0

    def start():
        how = ("--resume", save) if done else ("--epochs", EPOCHS)
        command = [sys.executable, "-P", "-m", "jitconv", *arguments(images, save, *how, "--threads", 1)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    while kills < KILLS:
        with start() as child:
            status = kill_at_some_moment(child, folder, chance)
            assert status in (0, -signal.SIGKILL), child.stderr.read()
        kills += status != 0
        left = unfinished(folder)
        assert len(left) <= 1  # those of earlier processes have been removed
        writes += f".{child.pid}.part" in "".join(left)
        if save.exists():
            found = uninterrupted.index(digest(save)) + 1
            assert checkpoint.load(save).progress["epoch"] == found
            assert found >= done
            done = found
        assert save.exists() or not done
        if done == EPOCHS and kills < KILLS:  # once more from the beginning
            save.unlink()
            done = 0
    if done < EPOCHS:
        with start() as child:
            _, errors = child.communicate()
        assert child.returncode == 0, errors
        assert digest(save) == uninterrupted[-1]
        assert os.listdir(folder) == [save.name]
    print(f"{kills} kills, {writes} of them while it wrote")
    assert writes > 0


# Stopped and resumed


def stopping(monkeypatch, where, name, number):
    """Let the call of this number of a method send Ctrl-C before it returns."""
    calls, method = [], getattr(where, name)

    def called(self, *given, **options):
        result = method(self, *given, **options)
        calls.append(name)
        if len(calls) == number:
            signal.raise_signal(signal.SIGINT)
        return result

    monkeypatch.setattr(where, name, called)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_stopped_within_an_epoch_and_resumed_with_other_threads(images, tmp_path, monkeypatch, capsys, optimizer):
    """With dropout (deep_convnet), and whatever an optimizer keeps."""
    options = "--model", "deep_convnet", "--optimizer", optimizer, "--epochs", 2
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    assert main(arguments(images, whole, *options, "--threads", 2)) == 0
    with monkeypatch.context() as patch:
        stopping(patch, Trainer, "step", 5)
        assert main(arguments(images, stopped, *options, "--threads", 1)) == 130
    assert "stopped in epoch 2, after 20 of 24 images" in capsys.readouterr().out
    assert main(arguments(images, stopped, "--resume", stopped, "--threads", 2)) == 0
    assert stopped.read_bytes() == whole.read_bytes()


def test_stopped_while_it_tests_and_resumed(images, tmp_path, monkeypatch, capsys):
    """No step of the epoch is left then, only its accuracy."""
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    assert main(arguments(images, whole, "--epochs", 2)) == 0
    with monkeypatch.context() as patch:
        stopping(patch, Sequential, "forward", 7)  # three steps, then the test images, and the same again
        assert main(arguments(images, stopped, "--epochs", 2)) == 130
    out = capsys.readouterr().out
    assert "stopped in epoch 1, after 24 of 24 images" in out
    assert main(arguments(images, stopped, "--resume", stopped)) == 0
    assert "epoch 1/2  loss" in capsys.readouterr().out
    assert stopped.read_bytes() == whole.read_bytes()


@pytest.mark.parametrize("make", [lambda: SGD(0.01, 0.9), AdaGrad, RMSProp, Adadelta, Adam])
def test_batch_norm_and_dropout_go_on_exactly(tmp_path, rng, make):
    x, labels = rng.standard_normal((30, 3, 24, 24)).astype(np.float32), rng.integers(0, 3, 30)

    def trainer():
        layers = [Conv2d(3, 16, 3, seed=0), BatchNorm2d(16), ReLU(), MaxPool2d(2), Dropout(0.3, seed=0), Flatten()]
        return Trainer(Sequential([*layers, Dense(16 * 11 * 11, 3, seed=1)]), make())

    def fit(one, epochs, threads, **options):
        with jitconv.num_threads(threads):
            one.fit(x, labels, epochs=epochs, batch_size=8, test=(x, labels), **options)

    def stop(step):
        if (step.epoch, step.images) == (2, 16):
            raise KeyboardInterrupt

    whole, stopped, rest = trainer(), trainer(), trainer()
    fit(whole, 3, 2)
    with pytest.raises(KeyboardInterrupt):
        fit(stopped, 3, 1, on_step=stop)
    checkpoint.save(tmp_path / "stopped", stopped)
    checkpoint.load(tmp_path / "stopped").restore(rest)
    fit(rest, 2, 2)
    for name, one in (("whole", whole), ("rest", rest)):
        checkpoint.save(tmp_path / name, one)
    assert (tmp_path / "whole").read_bytes() == (tmp_path / "rest").read_bytes()


# Memory

STEPS = 2000 if FULL else 1000


def growth(what, warm_up, times):
    program = pathlib.Path(__file__).parent / "growth.py"
    child = subprocess.run(
        [sys.executable, "-P", str(program), what, str(warm_up), str(times)], capture_output=True, text=True
    )
    assert child.returncode == 0, child.stderr
    return json.loads(child.stdout)


linux_only = pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="memory is read from /proc")


@linux_only
@pytest.mark.parametrize(
    ("what", "warm_up", "times"),
    [("training", 200, STEPS), ("functions", 300, STEPS), ("errors", 200, STEPS), ("threads", 100, 600)],
)
def test_memory_does_not_grow(what, warm_up, times):
    grown = growth(what, warm_up, times)
    assert grown["bytes"] < 0.01
    assert grown["objects"] < 0.5  # of Python, at each step: some settle later, but not one at each


@linux_only
def test_a_leak_would_be_found():
    grown = growth("leak", 100, STEPS)
    assert grown["bytes"] > 0.01
    assert grown["objects"] > 0.9
