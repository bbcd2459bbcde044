"""Print how much faster single layers of four code bases are when only their import changes.

    python asv_benchmarks/compat_layers.py [--rounds 9] [--threads N] [--module d2l]

Each row is a layer of a network of that style. "NumPy" is the plain model in `tests/compat/models`, which loops as the
original does: numpy_neuron_network as `layers_v2`, the fastest of its three, whose conv_backward leaves the padding out
and so has one tap of nine to compute; cnn-from-scratch and d2l pixel by pixel, but for the pooling backward, whose
squares are one step here; DeZero by taps and one matrix product. Both sides take turns; a figure is the lower quartile
over the rounds, in milliseconds. The book's networks are in `compat_steps.py`.
"""

from __future__ import annotations

import argparse
import importlib
import pathlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import jitconv
from jitconv.compat import cnn_from_scratch, d2l, dezero
from jitconv.compat.numpy_neuron_network import layers_v2

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "tests" / "compat"))

Row = tuple[str, Callable[[], Any], Callable[[], Any]]


def model_of(name: str) -> Any:
    """Return the plain model of a code base."""
    return importlib.import_module(f"models.{name}")


def numpy_neuron_network_rows(rng: np.random.Generator) -> Iterator[Row]:
    """Two convolutions with their poolings, batches of 32, float64."""
    model = model_of("numpy_neuron_network")
    for shape, d in (((32, 1, 28, 28), 16), ((32, 16, 14, 14), 32)):
        z, K, b = rng.random(shape), rng.standard_normal((shape[1], d, 3, 3)), np.zeros(d)
        y = layers_v2.conv_forward(z, K, b, (1, 1))
        p = layers_v2.max_pooling_forward(y, (2, 2))
        name = f"{shape[1]} of {shape[2]}x{shape[3]} to {d}, 3x3, padding 1"
        for on, run in (
            ("conv_forward, " + name, lambda m, z=z, K=K, b=b: m.conv_forward(z, K, b, (1, 1))),
            ("conv_backward, " + name, lambda m, z=z, K=K, y=y: m.conv_backward(y, K, z, (1, 1))),
            (f"max_pooling_forward, {d} channels", lambda m, y=y: m.max_pooling_forward(y, (2, 2))),
            (
                f"max_pooling_backward, {d} channels",
                lambda m, y=y, p=p: m.max_pooling_backward(p, y, (2, 2), ties="all"),
            ),
        ):
            yield on, lambda run=run: run(model), lambda run=run: run(layers_v2)


def cnn_from_scratch_rows(rng: np.random.Generator) -> Iterator[Row]:
    """Its network's three layers, and a whole step, for one image of 28x28."""
    model, image = model_of("cnn_from_scratch"), rng.random((28, 28)) - 0.5
    ours = cnn_from_scratch.Conv3x3(8), cnn_from_scratch.MaxPool2(), cnn_from_scratch.Softmax(13 * 13 * 8, 10)
    theirs = model.Conv3x3(ours[0].filters), model.MaxPool2(), model.Softmax(ours[2].weights, ours[2].biases)
    y = ours[0].forward(image)
    p = ours[1].forward(y)
    gradient = np.eye(10)[3]

    def step(conv: Any, pool: Any, softmax: Any) -> None:
        softmax.forward(pool.forward(conv.forward(image)))
        conv.backprop(pool.backprop(softmax.backprop(gradient, 1e-6)), 1e-6)

    step(*ours)
    step(*theirs)
    for name, run in (
        ("Conv3x3(8).forward", lambda conv, *_: conv.forward(image)),
        ("Conv3x3(8).backprop", lambda conv, *_: conv.backprop(y, 1e-9)),
        ("MaxPool2.forward", lambda _, pool, *__: pool.forward(y)),
        ("MaxPool2.backprop", lambda _, pool, *__: pool.backprop(p)),
        ("a step of all three", step),
    ):
        yield name, lambda run=run: run(*theirs), lambda run=run: run(*ours)


def d2l_rows(rng: np.random.Generator) -> Iterator[Row]:
    """Images of 28x28 and channels of 12x12, float32."""
    model, X, K = model_of("d2l"), rng.random((28, 28), np.float32), rng.random((5, 5), np.float32)
    many, kernels = rng.random((6, 12, 12), np.float32), rng.random((16, 6, 5, 5), np.float32)
    for name, run in (
        ("corr2d, 28x28, 5x5", lambda m: m.corr2d(X, K)),
        ("corr2d_multi_in_out, 6 of 12x12 to 16, 5x5", lambda m: m.corr2d_multi_in_out(many, kernels)),
        ("pool2d, 28x28, 2x2", lambda m: m.pool2d(X, (2, 2))),
        ("trans_conv, 28x28, 5x5", lambda m: m.trans_conv(X, K)),
    ):
        yield name, lambda run=run: run(model), lambda run=run: run(d2l)


def dezero_rows(rng: np.random.Generator) -> Iterator[Row]:
    """Layers of VGG's sizes for small images, batches of 16, float32."""
    model = model_of("dezero")
    for shape, d in (((16, 3, 32, 32), 64), ((16, 64, 32, 32), 64)):
        x, W = rng.random(shape, np.float32), rng.random((d, shape[1], 3, 3), np.float32)
        b, gy = np.zeros(d, np.float32), rng.random((16, d, 32, 32), np.float32)
        name = f"{shape[1]} of {shape[2]}x{shape[3]} to {d}, 3x3, pad 1"
        for on, run in (
            ("conv2d, " + name, lambda m, x=x, W=W, b=b: m.conv2d(x, W, b, 1, 1)),
            ("deconv2d, its gradient for x", lambda m, gy=gy, W=W: m.deconv2d(gy, W, None, 1, 1)),
        ):
            yield on, lambda run=run: run(model), lambda run=run: run(dezero)
    x = rng.random((16, 64, 32, 32), np.float32)
    for on, run in (
        ("pooling, 64 of 32x32, 2x2", lambda m: m.pooling(x, 2, 2)),
        ("average_pooling, 64 of 32x32, 2x2", lambda m: m.average_pooling(x, 2, 2)),
        ("im2col, 64 of 32x32, 3x3", lambda m: m.im2col(x, 3, 1, 1)),
    ):
        yield on, lambda run=run: run(model), lambda run=run: run(dezero)


MODULES = {
    "numpy_neuron_network": numpy_neuron_network_rows,
    "cnn_from_scratch": cnn_from_scratch_rows,
    "d2l": d2l_rows,
    "dezero": dezero_rows,
}


def milliseconds(runs: tuple[Callable[[], Any], ...], rounds: int) -> list[float]:
    """Return the lower quartile of each, in turns; calls too short to time are repeated."""
    repeats = []
    for run in runs:
        run()
        start = time.perf_counter()
        run()
        repeats.append(max(1, int(2e-3 / (time.perf_counter() - start))))
    times: list[list[float]] = [[] for _ in runs]
    for _ in range(rounds):
        for run, count, of in zip(runs, repeats, times, strict=True):
            start = time.perf_counter()
            for _ in range(count):
                run()
            of.append(1000 * (time.perf_counter() - start) / count)
    return [float(np.percentile(of, 25)) for of in times]


def main() -> None:
    """Print a table for each code base."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=jitconv.get_num_threads())
    parser.add_argument("--module", choices=tuple(MODULES))
    arguments = parser.parse_args()
    jitconv.set_num_threads(arguments.threads)
    for module, rows in MODULES.items():
        if arguments.module in (None, module):
            print(
                f"\n{module}, {arguments.threads} threads\n\n| | NumPy, ms | jitconv, ms | times |\n|---|---|---|---|"
            )
            for name, plain, fast in rows(np.random.default_rng(0)):
                before, after = milliseconds((plain, fast), arguments.rounds)
                print(f"| {name} | {before:.3g} | {after:.3g} | {before / after:.1f} |", flush=True)


if __name__ == "__main__":
    main()
