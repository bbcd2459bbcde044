"""What a network will run and return, from a step in which no kernel runs."""

from __future__ import annotations

import contextlib

import numpy as np

from ..kernels.jit import Job, recording
from ..layers.base import Array, Layer
from .data import Dataset
from .losses import softmax_cross_entropy
from .optimizers import Optimizer
from .sequential import Sequential


def step(model: Layer, optimizer: Optimizer, x: Array, labels: Array) -> list[Job]:
    """Return the workers that a training step runs. Parameters, buffers and the optimizer stay as they are.

    Only of layers of this library: others could do anything, and have done it twice. What does not fit is not told: the
    step itself will.
    """
    if not _is_ours(model) or not _is_ours(optimizer):
        return []
    buffers = {name: a.copy() for name, a in model.buffers.items()}
    # Results are whatever lay in memory: sums over them may overflow.
    with recording() as wanted, contextlib.suppress(Exception), np.errstate(all="ignore"):
        try:
            _, dlogits = softmax_cross_entropy(model.forward(x), labels)
            model.backward(dlogits)
        finally:
            for name, a in model.buffers.items():
                np.copyto(a, buffers[name])
        for a in model.parameters.values():
            optimizer.kernel.recorded(a.dtype)
    return list(wanted)


def inference(model: Layer, x: Array) -> list[Job]:
    """As `step`, of a forward pass after `eval`."""
    training = model.training
    with recording() as wanted, np.errstate(all="ignore"):
        model.eval()
        try:
            model.forward(x)
        finally:
            model.train()  # forgets packed weights, which were not packed
            model.train(training)
    return list(wanted)


def result(model: Layer, x: Array) -> Array:
    """Return an array of the shape and dtype of ``model.forward(x)``; what it holds may be anything.

    Layers that are not of this library are run, and then all of them. After `eval` the model is of no use any more: the
    packed weights that it keeps may be anything, too.
    """
    if not _is_ours(model):
        return model.forward(x)
    with recording(), np.errstate(all="ignore"):
        return model.forward(x)


def training(model: Layer, optimizer: Optimizer, dataset: Dataset, batch_size: int, test_batch_size: int) -> list[Job]:
    """Return the workers of all that training on a dataset runs; the last batch may be smaller, and so take others."""
    wanted: dict[Job, None] = {}
    for images in _sizes(len(dataset.x), batch_size):
        wanted |= dict.fromkeys(step(model, optimizer, dataset.x[:images], dataset.labels[:images]))
    for images in _sizes(len(dataset.x_test), test_batch_size):
        wanted |= dict.fromkeys(inference(model, dataset.x_test[:images]))
    return list(wanted)


def _sizes(images: int, batch_size: int) -> set[int]:
    return {min(images, batch_size), images % batch_size or min(images, batch_size)}


def _is_ours(one: Layer | Optimizer) -> bool:
    if isinstance(one, Sequential) and type(one) is Sequential:
        return all(map(_is_ours, one.layers))
    return type(one).__module__.partition(".")[0] == __name__.partition(".")[0]
