"""Training that is shared out among the ranks of a communicator."""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import numpy as np

from .. import validate
from ..ahead import compile_all
from ..kernels.cache import cache_problem
from ..layers import BatchNorm2d, Dropout
from ..layers.base import Array, Layer, Part
from ..threads import chosen_threads, num_threads
from . import checks, rehearsal
from .gradient_sum import GradientSum
from .losses import softmax_cross_entropy
from .optimizers import Optimizer
from .ranks import Ranks, Share
from .sequential import Sequential

_PROGRESS = ("epoch", "position", "images", "loss_sum", "step_losses", "history")


class Training(Protocol):
    """What is asked of a `Trainer`, which has the attributes of `_PROGRESS` besides."""

    model: Layer
    optimizer: Optimizer

    def predict(self, x: Array, *, batch_size: int, on_batch: Callable[[], None] | None) -> Array: ...


class DataParallel:
    """What a `Trainer` with a communicator does in place of what one without it does.

    Parameters
    ----------
    trainer : Trainer
    communicator : mpi4py.MPI.Comm

    Attributes
    ----------
    ranks : Ranks
    """

    def __init__(self, trainer: Training, communicator: Any) -> None:
        self.ranks = Ranks.of(communicator)
        self._trainer = trainer
        self._threads = self.ranks.threads()
        self._gradients: GradientSum | None = None  # once the ranks have the same weights
        self._compiled = False

    def begin(self, x: Array, labels: Array, facts: Mapping[str, Any]) -> None:
        """Let all ranks go on from where the first one stands, once they agree on what they are about to do.

        Raises
        ------
        ValueError
            In all ranks, if they do not agree.
        """
        images = {"the images": f"{x.shape} {x.dtype}", "the checksum of the labels": _checksum(labels)}
        self.ranks.same({**images, **facts})
        self._join()

    def _join(self) -> GradientSum:
        trainer, ranks = self._trainer, self.ranks
        arrays = trainer.model.parameters | trainer.model.buffers
        network = {name: f"{a.shape} {a.dtype}" for name, a in arrays.items()}
        optimizer = trainer.optimizer
        ranks.same({"the network": network, "the optimizer": type(optimizer).__name__, "lr": optimizer.lr})
        ranks.overwrite(arrays.values())
        optimizer.load_state(ranks.of_first(optimizer.state()), trainer.model.parameters)
        for name, value in ranks.of_first({name: getattr(trainer, name) for name in _PROGRESS}).items():
            setattr(trainer, name, value)
        self._gradients = GradientSum(trainer.model, ranks)
        return self._gradients

    def step_of(self, x: Array, labels: Array, chosen: Array) -> float:
        """Take a step with the chosen images, of which each rank reads its own; return the loss of all."""
        share = self.ranks.share(len(chosen))
        own = chosen[share.first : share.past]
        return self._step(x[own], labels[own], share)

    def step(self, x: Array, labels: Array) -> float:
        """Take a step with the images of all ranks; return the loss of all."""
        return self._step(x, labels, self.ranks.shares(len(validate.batch(x, "x"))))

    def _step(self, x: Array, labels: Array, share: Share) -> float:
        model, optimizer = self._trainer.model, self._trainer.optimizer
        gradients = self._gradients or self._join()
        if not model.training:
            model.train()
        if not self._compiled:
            self._compiled = True
            self._compile(x, labels)
        with self.sharing_cores():
            loss = self._backward(gradients, x, labels, share)
            optimizer.update(model.parameters, model.gradients)
        return loss

    def _compile(self, x: Array, labels: Array) -> None:
        """Let the first rank of each node compile; the others load what it keeps on disk."""

        def compile_step() -> None:
            compile_all(rehearsal.step(self._trainer.model, self._trainer.optimizer, x, labels))

        self.ranks.once_on_each_node(compile_step, kept=cache_problem() is None)

    def _backward(self, gradients: GradientSum, x: Array, labels: Array, share: Share) -> float:
        """Fill the gradients with those of the whole batch, and return its loss."""
        model = self._trainer.model
        with self._part(share):
            # Of the whole batch's mean: what is summed needs no factor.
            loss, dlogits = softmax_cross_entropy(model.forward(x), labels, total=share.total)
            whole = np.array([loss])
            gradients.begin(whole)
            if type(model) is Sequential:
                model.run_back(dlogits, gradients.completed)
            else:
                model.backward(dlogits)
            gradients.wait()
        return float(whole[0])

    @contextlib.contextmanager
    def _part(self, share: Share) -> Iterator[None]:
        """Let layers know inside a `with` block that the batch is a part."""
        layers = [layer for layer in _all_layers(self._trainer.model) if isinstance(layer, (BatchNorm2d, Dropout))]
        part = Part(share.first, self.ranks.add_up)
        for layer in layers:
            layer.part = part
        try:
            yield
        finally:
            for layer in layers:
                layer.part = None

    def evaluate(
        self, x: Array, labels: Array, batch_size: int, on_batch: Callable[[], None] | None
    ) -> tuple[float, float]:
        """Return the mean loss and the accuracy on images, of which each rank takes its share."""
        images = len(validate.batch(x, "x"))
        checks.not_empty(images, "x")
        first, past, total = self.ranks.share(images)
        logits = self._trainer.predict(x[first:past], batch_size=batch_size, on_batch=on_batch)
        loss, _ = softmax_cross_entropy(logits, labels[first:past], total=total)
        sums = np.array([loss, np.count_nonzero(logits.argmax(axis=1) == labels[first:past])], np.float64)
        self.ranks.add_up(sums)
        return float(sums[0]), float(sums[1] / total)

    def average_statistics(self) -> None:
        """Overwrite what layers have seen of their ranks' own images with the means over the ranks."""
        layers = [layer for layer in _all_layers(self._trainer.model) if not getattr(layer, "layers", None)]
        # Normalisations of the whole batch have seen the same in all ranks.
        own = [layer for layer in layers if not (isinstance(layer, BatchNorm2d) and layer.sync)]
        buffers = [a for layer in own for a in layer.buffers.values()]
        self.ranks.average(a for a in buffers if a.dtype.kind == "f")
        self.ranks.overwrite(a for a in buffers if a.dtype.kind != "f")

    def end_epoch(self, seconds: float) -> float:
        """Let all ranks have the same network, and the same time for its steps, which is returned.

        MPI does not promise that a sum has the same bits in all ranks, nor are all machines of a cluster of one kind:
        what ranks differ by must not grow.
        """
        self.average_statistics()
        self.ranks.overwrite(self._trainer.model.parameters.values())
        return self.ranks.of_first(seconds)

    @contextlib.contextmanager
    def sharing_cores(self) -> Iterator[None]:
        """Use this rank's share of the cores inside a `with` block, unless a number of threads was asked for."""
        with contextlib.nullcontext() if chosen_threads() else num_threads(self._threads):
            yield


def _all_layers(layer: Layer) -> Iterator[Layer]:
    """Yield a layer, and those in its list `layers`, if it has one."""
    yield layer
    for inner in getattr(layer, "layers", ()):
        if isinstance(inner, Layer):
            yield from _all_layers(inner)


def _checksum(labels: Array) -> int:
    return zlib.crc32(np.ascontiguousarray(labels).tobytes())
