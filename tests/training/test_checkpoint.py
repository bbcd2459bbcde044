"""Checkpoints: what comes back is what was saved, and nothing else is taken for one."""

from __future__ import annotations

import os
import stat

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from safetensors.numpy import save_file

from jitconv.layers import BatchNorm2d, Dense, Dropout, Flatten, ReLU
from jitconv.training import SGD, Adam, Sequential, Trainer, checkpoint
from jitconv.training.checkpoint import CheckpointError


def small_trainer(optimizer=Adam, seed=0):
    rng = np.random.default_rng(seed)
    layers = [BatchNorm2d(1, dtype=np.float64), Flatten(), Dropout(0.2, seed=rng)]
    return Trainer(Sequential([*layers, Dense(12, 3, dtype=np.float64, seed=rng)]), optimizer())


@pytest.fixture
def images(rng):
    """Return 20 images of three classes."""
    return rng.standard_normal((20, 1, 3, 4)), rng.integers(0, 3, 20)


def fit(trainer, images, epochs, **options):
    return trainer.fit(*images, epochs=epochs, batch_size=6, seed=1, test=images, **options)


def assert_same(one, two):
    for states in ((one.model.state(), two.model.state()), (one.optimizer.state(), two.optimizer.state())):
        assert states[0].keys() == states[1].keys()
        for name, array in states[0].items():
            assert_array_equal(array, states[1][name], err_msg=name)
    assert one.step_losses == two.step_losses
    assert [epoch[:3] for epoch in one.history] == [epoch[:3] for epoch in two.history]
    for name in ("epoch", "position", "images", "loss_sum"):
        assert getattr(one, name) == getattr(two, name)


@pytest.mark.parametrize("optimizer", [Adam, SGD])
def test_round_trip(tmp_path, images, optimizer):
    path = tmp_path / "a.safetensors"
    trainer, other = small_trainer(optimizer), small_trainer(optimizer, seed=1)
    fit(trainer, images, 2)
    checkpoint.save(path, trainer, {"lr": 0.1, "data": None})
    loaded = checkpoint.load(path)
    assert loaded.options == {"lr": 0.1, "data": None}
    loaded.restore(other)
    assert_same(trainer, other)
    assert os.listdir(tmp_path) == ["a.safetensors"]  # nothing temporary stays


def test_two_epochs_and_two_more_are_four(tmp_path, images):
    whole, half, rest = small_trainer(), small_trainer(), small_trainer(seed=1)
    fit(whole, images, 4)
    fit(half, images, 2)
    checkpoint.save(tmp_path / "half", half)
    checkpoint.load(tmp_path / "half").restore(rest)
    fit(rest, images, 2)
    assert_same(whole, rest)
    checkpoint.save(tmp_path / "whole", whole)
    checkpoint.save(tmp_path / "rest", rest)
    assert (tmp_path / "whole").read_bytes() == (tmp_path / "rest").read_bytes()


def test_stopped_in_the_middle_of_an_epoch(tmp_path, images):
    whole, stopped, rest = small_trainer(), small_trainer(), small_trainer(seed=1)
    fit(whole, images, 2)

    def stop(step):
        if len(stopped.step_losses) == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(stopped, images, 2, on_step=stop)
    checkpoint.save(tmp_path / "stopped", stopped)
    checkpoint.load(tmp_path / "stopped").restore(rest)
    assert (rest.epoch, rest.position) == (1, 12)
    fit(rest, images, 1)
    assert_same(whole, rest)


def test_a_failed_save_leaves_the_old_file(tmp_path, images, monkeypatch):
    path = tmp_path / "a.safetensors"
    trainer = small_trainer()
    checkpoint.save(path, trainer)
    before = path.read_bytes()

    def fail(*arguments):
        raise OSError("disk full")

    fit(trainer, images, 1)
    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        checkpoint.save(path, trainer)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["a.safetensors"]


def test_a_file_is_as_readable_as_any_other(tmp_path):
    (tmp_path / "plain").touch()
    checkpoint.save(tmp_path / "a.safetensors", small_trainer())
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("plain", "a.safetensors")]
    assert modes[0] == modes[1]


def test_a_link_is_followed(tmp_path):
    (tmp_path / "folder").mkdir()
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "folder" / "real")
    checkpoint.save(link, small_trainer())
    assert link.is_symlink()
    assert (tmp_path / "folder" / "real").is_file()


def test_another_network_is_refused_and_left_alone(tmp_path, images):
    trainer = small_trainer()
    fit(trainer, images, 1)
    checkpoint.save(tmp_path / "a", trainer)
    loaded = checkpoint.load(tmp_path / "a")
    other = Trainer(Sequential([Flatten(), Dense(12, 4, dtype=np.float64, seed=0)]), Adam())
    before = other.model.state()
    with pytest.raises(ValueError, match=r"does not fit this network: it lacks '1.bias', '1.weight' and also has"):
        loaded.restore(other)
    with pytest.raises(ValueError, match="does not fit this optimizer"):
        loaded.restore(small_trainer(SGD))
    for name, array in other.model.state().items():
        assert_array_equal(array, before[name])
    with pytest.raises(TypeError, match="`trainer` must be of a Sequential network, got one of ReLU"):
        loaded.restore(Trainer(ReLU(), Adam()))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file; expected one that `jitconv train --save` wrote"),
        (b"", "expected a safetensors file, but it cannot be read"),
        (b"\x89PNG and more", "expected a safetensors file, but it cannot be read"),
        (b"\xff" * 100, "expected a safetensors file, but it cannot be read"),
    ],
)
def test_files_that_are_none(tmp_path, content, message):
    path = tmp_path / "a.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CheckpointError, match=f"a.safetensors: {message}"):
        checkpoint.load(path)


def test_a_cut_file(tmp_path):
    path = tmp_path / "a.safetensors"
    checkpoint.save(path, small_trainer())
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(CheckpointError, match="expected a safetensors file, but it cannot be read"):
        checkpoint.load(path)


PROGRESS = """{"options": {}, "progress": {
    "epoch": EPOCH, "position": 0, "images": 0, "loss_sum": 0, "history": []
}}"""


@pytest.mark.parametrize(
    "metadata",
    [
        None,
        {"format": "pt"},
        {"jitconv": "no json"},
        {"jitconv": "[]"},
        {"jitconv": '{"options": {}}'},
        {"jitconv": PROGRESS.replace("EPOCH", "-1")},
        {"jitconv": PROGRESS.replace("EPOCH", "1")},
    ],
)
def test_a_safetensors_file_of_something_else(tmp_path, metadata):
    path = tmp_path / "a.safetensors"
    save_file({"history.step_losses": np.zeros(1)}, path, metadata)
    with pytest.raises(CheckpointError, match="a safetensors file, but not one that `jitconv train --save` wrote"):
        checkpoint.load(path)
