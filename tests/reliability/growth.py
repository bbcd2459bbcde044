"""A program that does one thing many times and prints how its memory has grown: `growth.py WHAT WARM_UP TIMES`."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import itertools
import json
import pathlib
import resource
import sys
import threading

import numpy as np

import jitconv
from jitconv.layers import BatchNorm2d, Conv2d, Dense, Dropout, Flatten, MaxPool2d, ReLU
from jitconv.training import Adam, Sequential, Trainer

RNG = np.random.default_rng(0)
X = RNG.standard_normal((16, 8, 20, 20)).astype(np.float32)
W = RNG.standard_normal((16, 8, 3, 3)).astype(np.float32)
LABELS = np.arange(16) % 10


def network():
    """Return layers of every kind that keeps something from forward to backward."""
    layers = [
        Conv2d(8, 16, 3, padding=1, seed=0),
        BatchNorm2d(16),
        ReLU(),
        MaxPool2d(2),
        Conv2d(16, 16, 3, activation="relu", seed=1),
        MaxPool2d(2),
        Flatten(),
        Dropout(0.3, seed=0),
        Dense(256, 10, seed=2),
    ]
    return Sequential(layers)


def training():
    trainer = Trainer(network(), Adam())

    def step(number):
        trainer.step(X, LABELS)
        if number % 100 == 0:
            trainer.accuracy(X, LABELS)

    return step


def functions():
    """Batches of another size at each step, and images of another size now and then: none of it is kept for ever."""

    def step(number):
        n, side = 1 + number * 7 % 16, 8 + number * 5 % 12
        x = X[:n, :, :side]
        y = jitconv.conv2d(x, W, padding=1)
        jitconv.conv2d_backward(y, x, W, padding=1)
        pooled, argmax = jitconv.max_pool2d_with_argmax(y, 2)
        jitconv.max_pool2d_backward(pooled, argmax, y.shape, 2)
        jitconv.avg_pool2d(y, 3, stride=2)

    return step


def errors():
    """Calls that are refused at once, and such as are refused when results are there already."""
    y, argmax = jitconv.max_pool2d_with_argmax(X, 2)
    wrong = argmax.copy()
    wrong[-1, -1, -1, -1] = 200
    model = network()

    def stop():
        raise KeyError("stop")

    def step(number):
        with contextlib.suppress(ValueError):
            jitconv.conv2d(X, W[:, :5])
        with contextlib.suppress(TypeError):
            jitconv.conv2d(X, W.astype(np.float64))
        with contextlib.suppress(ValueError):
            jitconv.conv2d_backward(X, X, W)
        with contextlib.suppress(ValueError):
            jitconv.max_pool2d_backward(y, wrong, X.shape, 2)
        with contextlib.suppress(ValueError):
            model.forward(X[:, :, :5, :5])
        with contextlib.suppress(KeyError):
            Trainer(model, Adam()).predict(X, batch_size=8, on_batch=stop)

    return step


def threads():
    """Python threads that come and go: each has scratch of its own, and memory of the network's."""
    model = network()

    def work():
        y = jitconv.conv2d(X, W, padding=1)
        jitconv.conv2d_backward(y, X, W, padding=1)
        model.backward(np.ones_like(model.forward(X)))

    def step(number):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()

    return step


def leak():
    """What the tests must find: 8 KB at each step."""
    kept = []
    return lambda number: kept.append(np.ones(1024))


def give_back():
    """Let glibc give back what is free: it keeps a thread's memory for the next one, 3% of all, or does not."""
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)


def resident_bytes():
    return int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def main(what, warm_up, times):
    step = {one.__name__: one for one in (training, functions, errors, threads, leak)}[what]()
    number = itertools.count()

    def run(steps):
        """Return the least memory seen in the last of some steps, and the objects that are left."""
        seen = []
        for _ in range(steps):
            step(next(number))
            seen = [*seen[-9:], resident_bytes()]
        gc.collect()
        give_back()
        return min(*seen, resident_bytes()), sys.getallocatedblocks()

    run(warm_up // 2)
    before, after = run(warm_up // 2), run(times)
    print(json.dumps({"bytes": after[0] / before[0] - 1, "objects": (after[1] - before[1]) / times}))


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
