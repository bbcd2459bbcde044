"""The picture of a training: that it is drawn, of whatever state a training is in."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.image import imread

from jitconv.layers import Conv2d, Dense, Flatten
from jitconv.training import SGD, Epoch, Sequential, Trainer, plot


def trainer_of(filters, epochs, steps):
    layers = [Flatten(), Dense(4, 3, seed=0)] if filters is None else [Conv2d(filters[1], filters[0], 3, seed=0)]
    trainer = Trainer(Sequential(layers), SGD())
    trainer.history = [Epoch(i + 1, 2.0 / (i + 1), 1 - 0.5**i, None) for i in range(epochs)]
    trainer.step_losses = [2.0 / (i + 1) for i in range(steps)]
    trainer.epoch, trainer.images = epochs, 100
    return trainer


@pytest.mark.parametrize(
    ("filters", "epochs", "steps"),
    [((30, 1), 4, 40), ((100, 3), 1, 10), ((5, 2), 0, 3), ((1, 1), 0, 0), (None, 2, 8)],
)
def test_every_state_can_be_drawn(tmp_path, filters, epochs, steps):
    path = tmp_path / "a.png"
    plot.draw(path, trainer_of(filters, epochs, steps), title="a network")
    picture = imread(path)
    assert picture.shape[1] == plot.WIDTH * 150
    assert picture.std() > 0.01  # not blank


def test_no_accuracy(tmp_path):
    trainer = trainer_of((4, 1), 0, 8)
    trainer.history, trainer.epoch = [Epoch(1, 1.0, None, None)], 1
    plot.draw(tmp_path / "a.svg", trainer)
    assert (tmp_path / "a.svg").read_text().startswith("<?xml")


def test_mosaic():
    filters = np.arange(1, 17 * 4 + 1, dtype=float).reshape(17, 1, 2, 2)
    mosaic = plot._mosaic(filters)
    assert mosaic.shape == (5, 26, 1)  # two rows of nine
    np.testing.assert_array_equal(mosaic[:2, 3:5, 0], filters[1, 0])
    np.testing.assert_array_equal(mosaic[3:, :2, 0], filters[9, 0])
    assert np.isnan(mosaic[2]).all()
    assert np.isnan(mosaic[3:, -2:]).all()  # the place of the eighteenth
