"""What a training step of a network asks of a node: gradients, products, memory traffic, and the seconds of a core."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scaling_model import Block, Work

import jitconv
from jitconv.kernels.jit import recording
from jitconv.layers import Conv2d, Dense, Layer
from jitconv.training import SGD, Sequential, Trainer, zoo
from jitconv.training.losses import softmax_cross_entropy

MIB = 2**20
BATCHES = {"simple_convnet": 100, "vgg_cifar": 64, "vgg11": 16}  # images for each core


class Seconds(NamedTuple):
    """What a network takes on one core: `Work` without what follows from its layers."""

    step: float
    forward: float
    backward: float
    update: float


def _flops(layer: Layer, x_shape: tuple[int, ...]) -> float:
    """Return the products and sums of a layer's forward pass."""
    if isinstance(layer, Conv2d):
        return float(layer.problem().flops)
    return 2.0 * x_shape[0] * layer.weight.size if isinstance(layer, Dense) else 0.0


class _Zeros(np.random.Generator):
    """Draws zeros: for networks whose weights are of no account, of vgg11 132 million."""

    def standard_normal(self, size: Any = None, *_: Any, **__: Any) -> Any:
        """Return zeros."""
        return np.zeros(size)


@functools.cache
def shape_of(name: str) -> tuple[list[Block], float]:
    """Return the blocks of a network's gradients, as backward fills them, and the bytes that an image moves.

    Nothing is computed. A layer reads its input and writes its output; backward does as much for each of the two
    gradients.
    """
    images = 2
    blocks: list[Block] = []
    moved = 0

    def observe(step: Any, x: Any, y: Any) -> None:
        nonlocal moved
        moved += x.nbytes + y.nbytes
        size = sum(gradient.nbytes for layer in step.layers for gradient in layer.gradients.values())
        if size:
            flops = sum(_flops(layer, x.shape) for layer in step.layers) / images
            blocks.append(Block(size, flops * (2 if blocks else 1)))  # the first layer needs no gradient of its input

    model = zoo.MODELS[name](seed=_Zeros(np.random.PCG64(0)))
    with recording():
        model.run(np.zeros((images, *zoo.input_shape(name)), np.float32), observe)
    return blocks[::-1], 3 * moved / images


def work_of(name: str, seconds: Seconds) -> Work:
    """Return what a step of a network takes on a core."""
    blocks, traffic = shape_of(name)
    return Work(*seconds, traffic, tuple(blocks))


def batch_of(name: str, images: int, seed: int = 0) -> tuple[Any, Any]:
    """Return images and classes that a network takes."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((images, *zoo.input_shape(name)), dtype=np.float32)
    return x, rng.integers(0, 10, images)


def _quartile(times: Sequence[float]) -> float:
    """Return the lower quartile: others use the machine now and then."""
    return float(np.quantile(times, 0.25))


def passes(model: Sequential, optimizer: SGD, x: Any, labels: Any, seconds: float) -> tuple[float, float, float]:
    """Return the times of forward with the loss, of backward and of the optimizer, of this thread's CPU."""
    times: list[tuple[float, float, float]] = []
    Trainer(model, optimizer).step(x, labels)
    while len(times) < 5 or sum(map(sum, times)) < seconds:
        begin = time.thread_time()
        _, dlogits = softmax_cross_entropy(model.forward(x), labels)
        middle = time.thread_time()
        model.backward(dlogits)
        end = time.thread_time()
        optimizer.update(model.parameters, model.gradients)
        times.append((middle - begin, end - middle, time.thread_time() - end))
    forward, backward, update = map(_quartile, zip(*times, strict=True))
    return forward, backward, update


def measure(name: str, seconds: float) -> Seconds:
    """Return what a network takes on a core: a line through the times of a small batch and of a core's."""
    model, optimizer = zoo.MODELS[name](seed=0), SGD(0.001, 0.9)
    large, small = BATCHES[name], max(1, BATCHES[name] // 8)
    with jitconv.num_threads(1):
        found = [passes(model, optimizer, *batch_of(name, images), seconds) for images in (small, large)]
    slopes = [(b - a) / (large - small) for a, b in zip(found[0][:2], found[1][:2], strict=True)]
    step = sum(found[1][:2]) - large * sum(slopes)
    return Seconds(max(step, 0.0), *slopes, found[1][2])


def measure_memory(threads: int, size: int = 256 * MIB, rounds: int = 9) -> float:
    """Return the bytes a second that so many threads read and write together when each copies an array."""
    arrays = [(np.ones(size // 8), np.zeros(size // 8)) for _ in range(threads)]
    times = []
    for _ in range(rounds):
        running = [threading.Thread(target=np.copyto, args=(b, a)) for a, b in arrays]
        begin = time.perf_counter()
        for thread in running:
            thread.start()
        for thread in running:
            thread.join()
        times.append(time.perf_counter() - begin)
    return 2 * size * threads / _quartile(times)
