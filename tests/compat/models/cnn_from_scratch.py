"""What cnn-from-scratch computes, pixel by pixel. It shares no code with jitconv."""

from __future__ import annotations

import numpy as np


class Conv3x3:
    def __init__(self, filters):
        self.filters = filters.copy()

    def forward(self, image):
        self.image = image
        h, w = image.shape[:2]
        y = np.zeros((h - 2, w - 2, len(self.filters)))
        for i, j in np.ndindex(y.shape[:2]):
            y[i, j] = (image[i : i + 3, j : j + 3] * self.filters).reshape(len(self.filters), -1).sum(axis=1)
        return y

    def gradients(self, dy):
        """Return the gradients of filters and image; the original has the first."""
        filters, image = np.zeros(self.filters.shape), np.zeros(self.image.shape)
        for i, j, f in np.ndindex(dy.shape):
            filters[f] += dy[i, j, f] * self.image[i : i + 3, j : j + 3]
            image[i : i + 3, j : j + 3] += dy[i, j, f] * self.filters[f]
        return filters, image

    def backprop(self, dy, learn_rate):
        self.filters -= learn_rate * self.gradients(dy)[0]


class MaxPool2:
    def forward(self, image):
        self.image = image
        h, w, f = image.shape
        y = np.zeros((h // 2, w // 2, f))
        for i, j in np.ndindex(y.shape[:2]):
            y[i, j] = image[2 * i : 2 * i + 2, 2 * j : 2 * j + 2].max(axis=(0, 1))
        return y

    def backprop(self, dy):
        dx = np.zeros(self.image.shape)
        for i, j, f in np.ndindex(dy.shape):
            square = self.image[2 * i : 2 * i + 2, 2 * j : 2 * j + 2, f]
            dx[2 * i : 2 * i + 2, 2 * j : 2 * j + 2, f][square == square.max()] = dy[i, j, f]
        return dx


class Softmax:
    def __init__(self, weights, biases):
        self.weights, self.biases = weights.copy(), biases.copy()

    def forward(self, x):
        self.shape, self.x = x.shape, x.flatten()
        self.totals = self.x @ self.weights + self.biases
        powers = np.exp(self.totals)
        return powers / powers.sum()

    def backprop(self, dy, learn_rate):
        for i, gradient in enumerate(dy):
            if gradient != 0:
                powers = np.exp(self.totals)
                total = powers.sum()
                slope = -powers[i] * powers / total**2
                slope[i] = powers[i] * (total - powers[i]) / total**2
                dx = self.weights @ (gradient * slope)
                self.weights -= learn_rate * np.outer(self.x, gradient * slope)
                self.biases -= learn_rate * gradient * slope
                return dx.reshape(self.shape)
        return None
