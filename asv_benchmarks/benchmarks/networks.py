"""The same networks for everyone who trains them: a step is forward, softmax cross-entropy, backward and SGD."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from .common import Missing  # isort: skip
import numpy as np

Array = np.ndarray
Item = tuple[int, int, int] | str | int


class Network(NamedTuple):
    """The batch's shape, and layers: convolution (channels, kernel, padding), "pool", "global" or a dense size."""

    batch: tuple[int, int, int, int]
    layers: tuple[Item, ...]


NETWORKS = {
    "simple_convnet": Network((100, 1, 28, 28), ((30, 5, 0), "pool", 100, 10)),
    "deep_convnet": Network(
        (100, 1, 28, 28),
        ((16, 3, 1), (16, 3, 1), "pool", (32, 3, 1), (32, 3, 2), "pool", (64, 3, 1), (64, 3, 1), "pool", 50, 10),
    ),
    "vgg_cifar": Network(
        (64, 3, 32, 32),
        ((64, 3, 1), (64, 3, 1), "pool", (128, 3, 1), (128, 3, 1), "pool", (256, 3, 1), (256, 3, 1), "pool", "global",
         10),
    ),
}  # fmt: skip
TRAINERS = ("jitconv", "NumPy", "PyTorch", "PyTorch channels_last")
RATE = 0.01


def batch(network: Network, dtype: str) -> tuple[Array, Array]:
    """Return images and labels."""
    rng = np.random.default_rng(0)
    return rng.standard_normal(network.batch).astype(dtype), rng.integers(0, 10, network.batch[0])


def parameters(network: Network, dtype: str) -> list[tuple[Array, Array] | None]:
    """Return the weights and bias of each layer that has some, and the same for everyone."""
    rng = np.random.default_rng(1)
    (_, channels, size, _), found = network.batch, []
    flat = 0
    for item in network.layers:
        if isinstance(item, tuple):
            f, kernel, padding = item
            scale = (2 / (channels * kernel * kernel)) ** 0.5
            found.append((scale * rng.standard_normal((f, channels, kernel, kernel)), np.zeros(f)))
            channels, size = f, size + 2 * padding - kernel + 1
        elif isinstance(item, int):
            inputs = flat or channels * size * size
            found.append(((2 / inputs) ** 0.5 * rng.standard_normal((item, inputs)), np.zeros(item)))
            flat = item
        else:
            found.append(None)
            size = size // 2 if item == "pool" else 1
    return [None if pair is None else (pair[0].astype(dtype), pair[1].astype(dtype)) for pair in found]


class BookNetwork:
    """A network in NumPy, in the style of books."""

    def __init__(self, network: Network, dtype: str) -> None:
        self.layers = network.layers
        self.parameters = parameters(network, dtype)

    def step(self, x: Array, labels: Array) -> float:
        """Train on a batch, and return the loss that it had."""
        from variants import book_numpy as book

        kept: list[Any] = []
        for i, (item, pair) in enumerate(zip(self.layers, self.parameters, strict=True)):
            if isinstance(item, tuple):
                y = np.maximum(book.conv_forward(x, *pair, 1, item[2]), 0)
                kept.append((x, y))
            elif isinstance(item, int):
                rows = x.reshape(len(x), -1)
                y = np.dot(rows, pair[0].T) + pair[1]
                if i + 1 < len(self.layers):
                    y = np.maximum(y, 0)
                kept.append((rows, y, x.shape))
            elif item == "pool":
                y, argmax = book.max_forward(x, 2, 2, 0)
                kept.append((x.shape, argmax))
            else:
                y = x.mean((2, 3), keepdims=True)
                kept.append(x.shape)
            x = y
        scores = np.exp(x - x.max(1, keepdims=True))
        scores /= scores.sum(1, keepdims=True)
        loss = float(-np.log(scores[np.arange(len(labels)), labels]).mean())
        scores[np.arange(len(labels)), labels] -= 1
        dy = scores / np.asarray(len(labels), scores.dtype)
        for i in reversed(range(len(self.layers))):
            item, pair = self.layers[i], self.parameters[i]
            if isinstance(item, tuple):
                x, y = kept[i]
                dy = np.where(y > 0, dy, 0)
                dw, db = book.conv_backward_weights(dy, x, pair[0].shape, 1, item[2])
                if i:
                    dy = book.conv_backward_data(dy, pair[0], x.shape, 1, item[2])
            elif isinstance(item, int):
                rows, y, shape = kept[i]
                if i + 1 < len(self.layers):
                    dy = np.where(y > 0, dy, 0)
                dw, db = np.dot(dy.T, rows), dy.sum(0)
                dy = np.dot(dy, pair[0]).reshape(shape)
            elif item == "pool":
                shape, argmax = kept[i]
                dy = book.max_backward(dy, argmax, shape, 2, 2, 0)
            else:
                dy = book.global_average_backward(dy, kept[i])
            if pair is not None:
                pair[0][...] -= RATE * dw
                pair[1][...] -= RATE * db
        return loss


def _torch_step(network: Network, dtype: str, threads: int, channels_last: bool) -> Callable[[], float]:
    try:
        import torch
        from torch import nn
    except ImportError as error:
        raise Missing(str(error)) from error
    torch.set_num_threads(threads)
    layers: list[nn.Module] = []
    flat = False
    for i, (item, pair) in enumerate(zip(network.layers, parameters(network, dtype), strict=True)):
        if isinstance(item, tuple):
            layers += [nn.Conv2d(pair[0].shape[1], item[0], item[1], padding=item[2]), nn.ReLU()]
        elif isinstance(item, int):
            layers += [] if flat else [nn.Flatten()]
            flat = True
            layers.append(nn.Linear(pair[0].shape[1], item))
            layers += [nn.ReLU()] if i + 1 < len(network.layers) else []
        else:
            layers.append(nn.MaxPool2d(2) if item == "pool" else nn.AdaptiveAvgPool2d(1))
    model = nn.Sequential(*layers).to(getattr(torch, dtype))
    with torch.no_grad():
        pairs = [pair for pair in parameters(network, dtype) if pair is not None]
        trained = [layer for layer in model if hasattr(layer, "weight")]
        for layer, (w, b) in zip(trained, pairs, strict=True):
            layer.weight.copy_(torch.from_numpy(w))
            layer.bias.copy_(torch.from_numpy(b))
    x, labels = (torch.from_numpy(a) for a in batch(network, dtype))
    if channels_last:
        model, x = model.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE)

    def step() -> float:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), labels)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def _jitconv_step(name: str, network: Network, dtype: str, threads: int) -> Callable[[], float]:
    import jitconv
    from jitconv.training import SGD, Trainer, zoo

    jitconv.set_num_threads(threads)
    given = {"dropout": 0.0} if name == "deep_convnet" else {}
    model = getattr(zoo, name)(dtype=dtype, seed=0, **given)
    values = [a for pair in parameters(network, dtype) if pair is not None for a in pair]
    for parameter, value in zip(model.parameters.values(), values, strict=True):
        parameter[...] = value
    return partial(Trainer(model, SGD(lr=RATE)).step, *batch(network, dtype))


def steps(implementation: str, name: str, dtype: str, threads: int) -> Callable[[], float]:
    """Return a training step that returns the loss before it."""
    network = NETWORKS[name]
    if implementation == "jitconv":
        return _jitconv_step(name, network, dtype, threads)
    if implementation == "NumPy":
        return partial(BookNetwork(network, dtype).step, *batch(network, dtype))
    return _torch_step(network, dtype, threads, implementation.endswith("channels_last"))


def checked_steps(implementation: str, name: str, dtype: str, threads: int) -> Callable[[], float]:
    """Return a training step that has run, and whose first losses were those of NumPy in float64.

    Raises
    ------
    ValueError
        If they were not.
    """
    step = steps(implementation, name, dtype, threads)
    images = NETWORKS[name].batch[0]
    book = BookNetwork(NETWORKS[name], "float64")
    x, labels = batch(NETWORKS[name], dtype)
    x = x.astype(np.float64)
    losses = [step() for _ in range(2)]
    right = [book.step(x, labels) for _ in range(2)]
    if not np.allclose(losses, right, rtol=1e-3 if dtype == "float32" else 1e-8):
        raise ValueError(f"{implementation} trains {name} on {images} images with losses {losses}, not {right}")
    return step
