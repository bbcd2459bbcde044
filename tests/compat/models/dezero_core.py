"""A small module with the names of DeZero's core that its functions need: Variables that remember what made them.

Written for these tests, so that the Function classes are tested where DeZero is not installed.
"""

from __future__ import annotations

import numpy as np


class Variable:
    def __init__(self, data):
        self.data, self.grad, self.creator, self.generation = data, None, None, 0

    shape = property(lambda self: self.data.shape)
    dtype = property(lambda self: self.data.dtype)

    def sum(self, axis):
        return Sum(axis)(self)

    def backward(self):
        """Give every Variable that this one was made of its gradient, itself a Variable that remembers."""
        self.grad = self.grad or Variable(np.ones_like(self.data))
        pending = [self.creator]
        while pending:
            pending.sort(key=lambda function: function.generation)
            function = pending.pop()
            gradients = function.backward(function.output.grad)
            gradients = gradients if isinstance(gradients, tuple) else (gradients,)
            for x, gx in zip(function.inputs, gradients, strict=True):
                x.grad = gx if x.grad is None else Add()(x.grad, gx)
                if x.creator is not None and x.creator not in pending:
                    pending.append(x.creator)
            function.output.grad = None


def as_variable(value):
    return value if isinstance(value, Variable) else Variable(value)


class Function:
    def __call__(self, *inputs):
        self.inputs = [as_variable(value) for value in inputs]
        self.output = Variable(self.forward(*[x.data for x in self.inputs]))
        self.generation = max(x.generation for x in self.inputs)
        self.output.creator, self.output.generation = self, self.generation + 1
        return self.output


class Add(Function):
    def forward(self, a, b):
        return a + b

    def backward(self, gy):
        return gy, gy


class Sum(Function):
    def __init__(self, axis):
        self.axis = axis

    def forward(self, x):
        return x.sum(axis=self.axis)

    def backward(self, gy):
        return Spread(self.axis, self.inputs[0].shape)(gy)


class Spread(Function):
    def __init__(self, axis, shape):
        self.axis, self.to = axis, shape

    def forward(self, x):
        return np.broadcast_to(np.expand_dims(x, self.axis), self.to).copy()

    def backward(self, gy):
        return gy.sum(self.axis)
