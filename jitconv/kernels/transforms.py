"""The transforms of Winograd convolution, as intrinsics on one vector of channels.

Points 0, 1, -1 and infinity give F(2x2, 3x3); 2 and -2 more give F(4x4, 3x3). The matrices are those of Lavin and
Gray, "Fast Algorithms for Convolutional Neural Networks" (2015).
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from .simd import I64, POINTER, Vector, at, i64

INPUT = {
    2: np.array([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, -1, 0, 1]], float),
    4: np.array(
        [
            [4, 0, -5, 0, 1, 0],
            [0, -4, -4, 1, 1, 0],
            [0, 4, -4, -1, 1, 0],
            [0, -2, -1, 2, 1, 0],
            [0, 2, -1, -2, 1, 0],
            [0, 4, 0, -5, 0, 1],
        ],
        float,
    ),
}
KERNEL = {
    2: np.array([[1, 0, 0], [1 / 2, 1 / 2, 1 / 2], [1 / 2, -1 / 2, 1 / 2], [0, 0, 1]]),
    4: np.array(
        [
            [1 / 4, 0, 0],
            [-1 / 6, -1 / 6, -1 / 6],
            [-1 / 6, 1 / 6, -1 / 6],
            [1 / 24, 1 / 12, 1 / 6],
            [1 / 24, -1 / 12, 1 / 6],
            [0, 0, 1],
        ]
    ),
}
OUTPUT = {
    2: np.array([[1, 1, 1, 0], [0, 1, -1, 1]], float),
    4: np.array([[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]], float),
}


def _combine(builder, vector, coefficients, values):
    """Emit the sum of coefficients times vectors: products first, so that each later term is one operation."""
    total = None
    order = sorted(range(len(values)), key=lambda i: abs(coefficients[i]) == 1)
    for i in order:
        coefficient, value = float(coefficients[i]), values[i]
        if coefficient == 0:
            continue
        constant = ir.Constant(vector.type, [coefficient] * vector.lanes)
        if total is None:
            total = value if coefficient == 1 else builder.fmul(value, constant)
        elif abs(coefficient) == 1:
            total = (builder.fadd if coefficient == 1 else builder.fsub)(total, value)
        else:
            total = vector.fma(value, constant, total)
    return total


def _make(matrix, finish):
    outputs, inputs = matrix.shape

    def emit(builder, like, args):
        source, source_row, source_col, target, target_row, target_col = args[:6]
        vector = Vector(builder, like)
        source, target = builder.inttoptr(source, POINTER), builder.inttoptr(target, POINTER)

        def place(base, row, i, col, j):
            return at(builder, base, builder.add(builder.mul(row, i64(i)), builder.mul(col, i64(j))))

        half = [[None] * inputs for _ in range(outputs)]
        for j in range(inputs):
            column = [vector.load(place(source, source_row, i, source_col, j)) for i in range(inputs)]
            for i in range(outputs):
                half[i][j] = _combine(builder, vector, matrix[i], column)
        if finish:
            bias = vector.load(builder.inttoptr(args[6], POINTER))
            relu = builder.icmp_signed("!=", args[7], ir.Constant(I64, 0))
        for i in range(outputs):
            for j in range(outputs):
                value = _combine(builder, vector, matrix[j], half[i])
                if finish:
                    value = builder.fadd(value, bias)
                    value = builder.select(relu, vector.relu(value), value)
                vector.store(value, place(target, target_row, i, target_col, j))

    return emit


def make_transform(matrix):
    """Return the intrinsic target = matrix @ source @ matrix.T; rows and columns lie pitches of bytes apart."""
    emit = _make(matrix, False)

    @intrinsic
    def transform(typingctx, source, source_row, source_col, target, target_row, target_col, like):
        def codegen(context, builder, signature, args):
            emit(builder, signature.args[-1], args)
            return context.get_dummy_value()

        return types.void(*[types.intp] * 6, like), codegen

    return transform


def make_finish(matrix):
    """Return the intrinsic of `make_transform` that adds a bias vector, then applies ReLU if `relu`."""
    emit = _make(matrix, True)

    @intrinsic
    def finish(typingctx, source, source_row, source_col, target, target_row, target_col, bias, relu, like):
        def codegen(context, builder, signature, args):
            emit(builder, signature.args[-1], args)
            return context.get_dummy_value()

        return types.void(*[types.intp] * 8, like), codegen

    return finish
