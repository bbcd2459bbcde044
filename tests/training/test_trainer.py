"""Trainer: the loop, what it reports, stopping and going on, and learning real digits."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from jitconv import num_threads
from jitconv.layers import Conv2d, Dense, Flatten
from jitconv.training import SGD, Adam, Sequential, Trainer, zoo


def small_trainer(seed=0):
    rng = np.random.default_rng(seed)
    layers = [Conv2d(1, 4, 3, activation="relu", dtype=np.float64, seed=rng), Flatten()]
    return Trainer(Sequential([*layers, Dense(64, 3, dtype=np.float64, seed=rng)]), SGD(0.05, 0.9))


@pytest.fixture
def images(rng):
    """Return 23 images of three classes: a prime number, so that the last batch is never full."""
    labels = rng.integers(0, 3, 23)
    x = rng.standard_normal((23, 1, 6, 6)) + labels[:, None, None, None]
    return x, labels


def weights(trainer):
    return np.concatenate([array.ravel() for array in trainer.model.state().values()])


def test_step_is_forward_loss_backward_update(images):
    x, labels = images
    trainer, other = small_trainer(), small_trainer()
    before = weights(trainer)
    loss = trainer.step(x, labels)
    logits = other.model(x)
    log_softmax = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    assert isinstance(loss, float)
    assert_allclose(loss, -log_softmax[np.arange(23), labels].mean())
    assert not np.array_equal(weights(trainer), before)
    assert trainer.step(x, labels) < loss


def test_step_trains_in_training_mode(images):
    trainer = small_trainer()
    trainer.model.eval()
    trainer.step(*images)
    assert trainer.model.training


def test_fit_sees_every_image_once_in_each_epoch(images):
    x, labels = images
    trainer, seen, steps = small_trainer(), [], []
    step = trainer.step

    def watched(x_batch, labels_batch):
        seen.append(x_batch)
        return step(x_batch, labels_batch)

    trainer.step = watched
    epochs = trainer.fit(x, labels, epochs=2, batch_size=10, test=images, on_step=steps.append)
    assert [len(batch) for batch in seen] == [10, 10, 3] * 2
    first, second = np.concatenate(seen[:3]), np.concatenate(seen[3:])
    assert not np.array_equal(first, second)
    for order in (first, second):
        assert_array_equal(np.sort(order.ravel()), np.sort(x.ravel()))
    assert [(step.epoch, step.images, step.batch) for step in steps] == [
        (epoch, images, batch) for epoch in (1, 2) for images, batch in ((10, 10), (20, 10), (23, 3))
    ]
    assert [epoch.number for epoch in epochs] == [1, 2]
    assert trainer.history == epochs
    assert trainer.step_losses == [step.loss for step in steps]
    assert_allclose(epochs[0].loss, np.average(trainer.step_losses[:3], weights=[10, 10, 3]))
    assert epochs[1].accuracy == trainer.accuracy(x, labels)
    assert epochs[1].images_per_second > 0


def test_fit_again_goes_on(images):
    one, two = small_trainer(), small_trainer()
    one.fit(*images, epochs=3, batch_size=7, seed=4)
    two.fit(*images, epochs=1, batch_size=7, seed=4)
    two.fit(*images, epochs=2, batch_size=7, seed=4)
    assert two.epoch == 3
    assert_array_equal(weights(one), weights(two))
    assert one.step_losses == two.step_losses


def test_another_seed_gives_another_order(images):
    one, two = small_trainer(), small_trainer()
    one.fit(*images, epochs=1, batch_size=7, seed=0)
    two.fit(*images, epochs=1, batch_size=7, seed=1)
    assert not np.array_equal(weights(one), weights(two))


@pytest.mark.parametrize("stop_after", [1, 2, 3, 4])
def test_stopped_between_two_steps_it_goes_on_exactly(images, stop_after):
    whole, stopped = small_trainer(), small_trainer()
    expected = whole.fit(*images, epochs=2, batch_size=10, test=images)

    def stop(step):
        if len(stopped.step_losses) == stop_after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped.fit(*images, epochs=2, batch_size=10, test=images, on_step=stop)
    stopped.fit(*images, epochs=2 - stopped.epoch, batch_size=10, test=images)
    assert [epoch[:3] for epoch in stopped.history] == [epoch[:3] for epoch in expected]
    assert_array_equal(weights(whole), weights(stopped))


def test_predict_and_evaluate(images):
    x, labels = images
    trainer = small_trainer()
    trainer.model.train()
    logits = trainer.predict(x, batch_size=10)
    assert trainer.model.training
    assert_array_equal(logits, trainer.model(x))
    loss, accuracy = trainer.evaluate(x, labels, batch_size=5)
    assert accuracy == (logits.argmax(1) == labels).mean()
    assert_allclose(loss, -np.log(np.exp(logits) / np.exp(logits).sum(1, keepdims=True))[range(23), labels].mean())
    assert trainer.predict(x[:0]).shape == (0, 3)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"epochs": -1}, ValueError, "`epochs` must be an integer of at least 0, got -1"),
        ({"batch_size": 0}, ValueError, "`batch_size` must be an integer of at least 1, got 0"),
        ({"seed": 0.5}, TypeError, "`seed` must be an integer of at least 0, got 0.5"),
        ({"x": np.zeros((0, 1, 6, 6))}, ValueError, "`x` holds no images"),
        ({"x": [[1.0]]}, TypeError, "`x` must be a NumPy array of float32 or float64, got list"),
        ({"labels": np.zeros(5, int)}, ValueError, r"`labels` must have shape \(23,\), one class for each image"),
        ({"labels": np.full(23, 3)}, ValueError, r"`labels` must lie from 0 to 2 \(3 classes\)"),
    ],
)
def test_errors_of_fit(images, change, error, message):
    arguments = {"x": images[0], "labels": images[1], "epochs": 1} | change
    with pytest.raises(error, match=message):
        small_trainer().fit(**arguments)


def test_a_few_steps_on_real_digits(digits):
    """Twelve steps of the smallest network take the loss from over 2.3 to under 1, on any number of threads."""
    ends = []
    for n in (1, 2):
        with num_threads(n):
            trainer = Trainer(zoo.simple_convnet(seed=0), Adam())
            trainer.fit(digits.x[::2], digits.labels[::2], epochs=1, batch_size=100, seed=0)
        ends.append(weights(trainer).tobytes())
        assert trainer.step_losses[0] > 2
        assert max(trainer.step_losses[-3:]) < 1
    assert ends[0] == ends[1]
    assert trainer.accuracy(digits.x_test, digits.labels_test) > 0.8
