"""Training a network: a step, the loop over epochs, and the accuracy."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from .. import validate
from ..ahead import compile_all
from ..layers.base import Array, Layer
from . import checks, rehearsal
from .losses import softmax_cross_entropy
from .optimizers import Optimizer
from .parallel import DataParallel

TEST_BATCH = 100  # images that are looked at together where no number is given


class Evaluation(NamedTuple):
    """How a network does on labelled images: the mean loss, and the share of right answers."""

    loss: float
    accuracy: float


class Epoch(NamedTuple):
    """One pass over the training images."""

    number: int  # from 1
    loss: float  # mean over the epoch, of the network as it was at each step
    accuracy: float | None  # on the test images, after the epoch
    images_per_second: float | None  # of the steps alone; None if there were none, or in an epoch restored from a file


class Step(NamedTuple):
    """What `Trainer.fit` tells after each step."""

    epoch: int  # the number of the epoch under way, from 1
    images: int  # of this epoch seen so far
    batch: int  # images in this step
    loss: float


class Trainer:
    """Trains a network to tell classes apart.

    Parameters
    ----------
    model : Layer
        A network whose output is an (N, classes) array of logits.
    optimizer : Optimizer
    communicator : mpi4py.MPI.Comm, optional
        Train on several processes at once, each on its part of every batch. All of them make the same calls with the
        same arguments. They begin with the first one's weights, and all have the same losses and accuracies.

    Attributes
    ----------
    epoch : int
        Epochs finished so far.
    position : int
        Images seen so far of the epoch under way: not 0 after an interruption, and then `fit` goes on there.
    images : int
        Images in an epoch, known after `fit` has begun.
    step_losses : list of float
        The loss of every step so far.
    history : list of Epoch
        The epochs finished so far.
    """

    def __init__(self, model: Layer, optimizer: Optimizer, communicator: Any = None) -> None:
        checks.kind_of(model, "model", Layer, "a layer")
        checks.kind_of(optimizer, "optimizer", Optimizer, "an Optimizer")
        self.model = model
        self.optimizer = optimizer
        self.epoch = 0
        self.position = 0
        self.images = 0
        self.loss_sum = 0.0  # over the images of the epoch under way
        self.step_losses: list[float] = []
        self.history: list[Epoch] = []
        self._compiled = False
        self._parallel = None if communicator is None else DataParallel(self, communicator)

    def step(self, x: Array, labels: Array) -> float:
        """Train on one batch, and return the mean loss that it had before.

        Parameters
        ----------
        x : array
            Images in the network's layout and dtype.
        labels : (N,) array of integers
            The class of each image.

        With a communicator these are the part of the batch that this rank takes, of which the first rank has the first
        images; the loss is that of the whole.

        Raises
        ------
        TypeError, ValueError
            If an array does not fit the network.
        """
        labels = checks.labels(labels, "labels", len(validate.batch(x, "x")))
        if self._parallel is not None:
            return self._parallel.step(x, labels)
        if not self.model.training:
            self.model.train()
        if not self._compiled:
            # Each kernel by itself would be compiled when it is first called, one after the other.
            self._compiled = True
            compile_all(rehearsal.step(self.model, self.optimizer, x, labels))
        buffers = self.model.buffers
        before = {name: a.copy() for name, a in buffers.items()}
        try:
            loss, dlogits = softmax_cross_entropy(self.model.forward(x), labels)
            self.model.backward(dlogits)
            self.optimizer.update(self.model.parameters, self.model.gradients)
        except BaseException:  # of whatever kind: a step that is not finished has changed nothing
            for name, value in before.items():
                buffers[name][...] = value
            raise
        return loss

    def fit(
        self,
        x: Array,
        labels: Array,
        *,
        epochs: int,
        batch_size: int = 100,
        seed: int = 0,
        test: tuple[Array, Array] | None = None,
        on_step: Callable[[Step], None] | None = None,
        on_epoch: Callable[[Epoch], None] | None = None,
        on_test_batch: Callable[[], None] | None = None,
    ) -> list[Epoch]:
        """Train for a number of epochs, each over all images in an order of its own.

        With a communicator every rank gives all images; it looks at its own alone, so that they may be an array in a
        file (``numpy.load(..., mmap_mode="r")``). N ranks with batches of B do the same steps as one process with
        batches of N * B, within rounding.

        The order follows from `seed` and the epoch's number alone: training goes on from a saved state as if
        it had never stopped, and the same seed gives the same bits, whatever the number of threads.

        Parameters
        ----------
        x, labels : arrays
            As in `step`, for all images.
        epochs : int
            How many; an interrupted one counts.
        batch_size : int
            Images in a step, in each rank. The last step of an epoch takes what is left.
        seed : int
            Of the order.
        test : (x, labels), optional
            Images to measure the accuracy on after each epoch.
        on_step, on_epoch, on_test_batch : functions, optional
            Called after each, the last after each batch of test images. An exception that they raise ends the
            training between two steps, where it can be saved. With a communicator they are called in all ranks, and
            what ends the training must be raised in all of them (see `average_statistics`).

        Returns
        -------
        list of Epoch
            The epochs finished in this call.

        Raises
        ------
        TypeError, ValueError
            If an argument does not fit.
        """
        epochs = validate.integer(epochs, "epochs", 0)
        batch_size = validate.integer(batch_size, "batch_size", 1)
        seed = validate.integer(seed, "seed", 0)
        images = len(validate.batch(x, "x"))
        checks.not_empty(images, "x")
        labels = checks.labels(labels, "labels", images)
        if test is not None:
            checks.test_images(test)
        checks.function(on_step, "on_step")
        checks.function(on_epoch, "on_epoch")
        checks.function(on_test_batch, "on_test_batch")
        self.images = images
        if self._parallel is not None:
            facts = {"epochs": epochs, "batch_size": batch_size, "seed": seed, "test images": test is not None}
            self._parallel.begin(x, labels, facts)
        done: list[Epoch] = []
        for _ in range(epochs):
            done.append(self._run_epoch(x, labels, batch_size, seed, test, on_step, on_test_batch))
            self.history.append(done[-1])
            if on_epoch is not None:
                on_epoch(done[-1])
        return done

    def _run_epoch(
        self,
        x: Array,
        labels: Array,
        batch_size: int,
        seed: int,
        test: tuple[Array, Array] | None,
        on_step: Callable[[Step], None] | None,
        on_test_batch: Callable[[], None] | None,
    ) -> Epoch:
        order = np.random.default_rng((seed, self.epoch)).permutation(len(x))
        begin = self.position
        seconds = 0.0
        parallel = self._parallel
        for chosen in _batches(order, begin, batch_size if parallel is None else batch_size * parallel.ranks.size):
            start = time.perf_counter()
            loss = self.step(x[chosen], labels[chosen]) if parallel is None else parallel.step_of(x, labels, chosen)
            seconds += time.perf_counter() - start
            self.position += len(chosen)
            self.loss_sum += loss * len(chosen)
            self.step_losses.append(loss)
            if on_step is not None:
                on_step(Step(self.epoch + 1, self.position, len(chosen), loss))
        if parallel is not None:
            seconds = parallel.end_epoch(seconds)
        accuracy = None if test is None else self.evaluate(*test, on_batch=on_test_batch).accuracy
        mean = self.loss_sum / len(order)
        rate = (self.position - begin) / max(seconds, 1e-9) if begin < len(order) else None
        self.epoch, self.position, self.loss_sum = self.epoch + 1, 0, 0.0
        return Epoch(self.epoch, mean, accuracy, rate)

    def predict(self, x: Array, *, batch_size: int = TEST_BATCH, on_batch: Callable[[], None] | None = None) -> Array:
        """Return the logits of images, computed in batches, without training and in this process alone.

        `on_batch` is called after each batch.
        """
        images = len(validate.batch(x, "x"))
        batch_size = validate.integer(batch_size, "batch_size", 1)
        training = self.model.training
        self.model.eval()
        try:
            logits = []
            with contextlib.nullcontext() if self._parallel is None else self._parallel.sharing_cores():
                for start in range(0, max(images, 1), batch_size):
                    logits.append(self.model.forward(x[start : start + batch_size]))
                    if on_batch is not None:
                        on_batch()
            return np.concatenate(logits)
        finally:
            self.model.train(training)

    def evaluate(
        self,
        x: Array,
        labels: Array,
        *,
        batch_size: int = TEST_BATCH,
        on_batch: Callable[[], None] | None = None,
    ) -> Evaluation:
        """Return the mean loss and the accuracy on labelled images, which the ranks of a communicator share out.

        `on_batch` is called after each batch, as many times as this rank has batches.
        """
        labels = checks.labels(labels, "labels", len(validate.batch(x, "x")))
        if self._parallel is not None:
            return Evaluation(*self._parallel.evaluate(x, labels, batch_size, on_batch))
        logits = self.predict(x, batch_size=batch_size, on_batch=on_batch)
        loss, _ = softmax_cross_entropy(logits, labels)
        return Evaluation(loss, float(np.mean(logits.argmax(axis=1) == labels)))

    def accuracy(self, x: Array, labels: Array, *, batch_size: int = TEST_BATCH) -> float:
        """Return the share of images whose class has the largest logit."""
        return self.evaluate(x, labels, batch_size=batch_size).accuracy

    def average_statistics(self) -> None:
        """Give all ranks of a communicator the mean of their running statistics, as `fit` does after each epoch.

        BatchNorm2d with ``sync=False`` keeps those of its rank's own images. Where `fit` was left by an exception, call
        this in all ranks before the network is saved or used. Without a communicator it does nothing.
        """
        if self._parallel is not None:
            self._parallel.average_statistics()


def _batches(order: Array, begin: int, batch_size: int) -> Iterator[Array]:
    for start in range(begin, len(order), batch_size):
        yield order[start : start + batch_size]
