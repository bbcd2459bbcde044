"""The transforms of Winograd convolution: bilinear algorithms for one axis, and intrinsics that apply them to a tile.

One axis is y = A^T [(G g) * (B^T x)], with matrices by the method of Cook and Toom: a polynomial product is computed
from its values at some points, the last of which is infinity. Applied along both axes it convolves a tile (Winograd,
"Arithmetic Complexity of Computations", 1980; Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks",
2015). Stride 2 takes even and odd inputs apart: two taps see the even ones, one the odd ones.
"""

from __future__ import annotations

from fractions import Fraction
from typing import NamedTuple

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from .simd import I64, POINTER, REGISTERS, Vector, at, cases, i64


class Form(NamedTuple):
    """A bilinear algorithm for one axis: `outputs` outputs from `extent` inputs, `step` inputs on from tile to tile."""

    number: int  # its place in `FORMS`
    taps: int
    step: int
    input: np.ndarray  # B^T (points, extent)
    kernel: np.ndarray  # G (points, taps)
    output: np.ndarray  # A^T (outputs, points)

    @property
    def outputs(self) -> int:
        return len(self.output)

    @property
    def points(self) -> int:
        return len(self.input)

    @property
    def extent(self) -> int:
        return len(self.input[0])


# The point 1 comes second: there the transform of a gradient is the sum of its tile.
SUM_POINT = 1


def _polynomial(roots):
    """Return the coefficients, lowest first, of the polynomial with these roots."""
    coefficients = [Fraction(1)]
    for root in roots:
        moved, same = [Fraction(0), *coefficients], [*coefficients, Fraction(0)]
        coefficients = [high - root * low for high, low in zip(moved, same, strict=True)]
    return coefficients


def cook_toom(outputs, taps, points):
    """Return B^T, G and A^T of F(outputs, taps) for these points and infinity."""
    points = [Fraction(point) for point in points]
    inverse = [[point**i for point in points] + [Fraction(i == outputs - 1)] for i in range(outputs)]
    kernel, inputs = [], []
    for point in points:
        others = [other for other in points if other != point]
        scale = np.prod([point - other for other in others])
        kernel.append([point**k / scale for k in range(taps)])
        inputs.append([*_polynomial(others), Fraction(0)])
    kernel.append([Fraction(k == taps - 1) for k in range(taps)])
    inputs.append(_polynomial(points))
    return tuple(np.array(matrix, float) for matrix in (inputs, kernel, inverse))


HALF = Fraction(1, 2)


def _stride_1(number, outputs, taps, points):
    return Form(number, taps, outputs, *cook_toom(outputs, taps, points))


def _stride_2(number):
    """Return four outputs of three taps at stride 2: F(4, 2) of the even inputs, and the odd ones as they are."""
    inputs, kernel, output = cook_toom(4, 2, (0, 1, -1, 2))
    points = len(inputs)
    wide, taps = np.zeros((points + 4, 9)), np.zeros((points + 4, 3))
    wide[:points, 0::2] = inputs
    wide[points + np.arange(4), 1 + 2 * np.arange(4)] = 1
    taps[:points, [0, 2]], taps[points:, 1] = kernel, 1
    return Form(number, 3, 8, wide, taps, np.hstack([output, np.eye(4)]))


def _stride_2_data(number, odd_first):
    """Return eight pixels of the gradient of the input of `_stride_2`: four see two pixels of dy, four see one.

    With an odd padding those that see one come first. The taps are those of the flipped kernel.
    """
    inputs, kernel, output = cook_toom(4, 2, (0, 1, -1, 2))
    points = len(inputs)
    wide, taps, spread = np.zeros((points + 4, 5)), np.zeros((points + 4, 3)), np.zeros((8, points + 4))
    wide[:points] = inputs
    wide[points + np.arange(4), np.arange(4) + (0 if odd_first else 1)] = 1
    taps[:points, [0, 2]], taps[points:, 1] = kernel, 1
    spread[1 if odd_first else 0 :: 2, :points] = output
    spread[0 if odd_first else 1 :: 2, points:] = np.eye(4)
    return Form(number, 3, 4, wide, taps, spread)


# Errors against direct's grow with the number of points: the table is in docs/numerics.md.
F4_3 = _stride_1(0, 4, 3, (0, 1, -1, 2, -2))
F2_3 = _stride_1(1, 2, 3, (0, 1, -1))
F4_5 = _stride_1(2, 4, 5, (0, 1, -1, 2, -2, HALF, -HALF))
STRIDE_2 = _stride_2(3)
STRIDE_2_DATA_EVEN = _stride_2_data(4, False)
STRIDE_2_DATA_ODD = _stride_2_data(5, True)
FORMS = (F4_3, F2_3, F4_5, STRIDE_2, STRIDE_2_DATA_EVEN, STRIDE_2_DATA_ODD)
FORWARD_FORMS = FORMS[:4]  # those of forward, whose adjoint is backward-weights


def _combine(builder, vector, terms):
    """Emit the sum of (coefficient, vector) terms: from one of coefficient 1 on, each other is one operation."""
    terms = sorted(terms, key=lambda term: (term[0] != 1, abs(term[0]) == 1))
    total = None
    for coefficient, value in terms:
        constant = ir.Constant(vector.type, [float(coefficient)] * vector.lanes)
        if total is None:
            total = value if coefficient == 1 else builder.fmul(value, constant)
        elif abs(coefficient) == 1:
            total = (builder.fadd if coefficient == 1 else builder.fsub)(total, value)
        else:
            total = vector.fma(value, constant, total)
    return total


def _mirrored(rows):
    """Return the first two rows that differ in some signs only, None if there are none."""
    for i, row in enumerate(rows):
        for j in range(i + 1, len(rows)):
            if np.array_equal(np.abs(row), np.abs(rows[j])) and not np.array_equal(row, rows[j]):
                return i, j
    return None


def _apply(builder, vector, matrix, values):
    """Emit matrix @ values.

    Points come in pairs of either sign, so that rows or columns of the matrices differ in some signs only: such a
    pair shares the sum of what agrees and the sum of what differs. It takes 12 operations for a line of F(4, 3)'s
    inputs and 10 for one of its products, instead of 22 and 17.
    """
    values = list(values)
    pair = _mirrored(matrix.T)
    while len(matrix) < len(values) and pair:
        first, second = pair
        total, difference = builder.fadd(values[first], values[second]), builder.fsub(values[first], values[second])
        both, one = matrix[:, first] + matrix[:, second], matrix[:, first] - matrix[:, second]
        kept = [i for i in range(len(values)) if i not in pair]
        matrix = np.column_stack([matrix[:, kept], both / 2, one / 2])
        values = [values[i] for i in kept] + [total, difference]
        pair = _mirrored(matrix.T)
    results = [None] * len(matrix)
    left = list(range(len(matrix)))
    pair = _mirrored(matrix)
    while pair:
        plus, minus = (left[i] for i in pair)
        agree = [(c, v) for c, d, v in zip(matrix[plus], matrix[minus], values, strict=True) if c and c == d]
        differ = [(c, v) for c, d, v in zip(matrix[plus], matrix[minus], values, strict=True) if c and c != d]
        left = [i for i in left if i not in (plus, minus)]
        pair = _mirrored(matrix[left])
        scale = abs(differ[0][0])
        if any(abs(c) != scale for c, _ in differ):
            scale = 1
        other = _combine(builder, vector, [(c / scale, v) for c, v in differ])
        base = [(1, _combine(builder, vector, agree))] if agree else []
        results[plus] = _combine(builder, vector, [*base, (scale, other)])
        results[minus] = _combine(builder, vector, [*base, (-scale, other)])
    for i in left:
        results[i] = _combine(builder, vector, [(c, v) for c, v in zip(matrix[i], values, strict=True) if c])
    return results


def _row_groups(matrix):
    """Split the rows of a matrix so that what a group keeps between the two axes fits in registers; pairs stay whole.

    All 36 points of F(4x4, 3x3) at once would spill.
    """
    limit = max(2, (REGISTERS - 12) // matrix.shape[1])
    left, units = list(range(len(matrix))), []
    while pair := _mirrored(matrix[left]):
        units.append([left[i] for i in pair])
        left = [i for i in left if i not in units[-1]]
    # Rows of the output's transform need the sums of pairs of points, or their differences: every other row.
    units.extend([i] for i in sorted(left, key=lambda i: (i % 2, i)))
    groups = [[]]
    for unit in units:
        if len(groups[-1]) + len(unit) > limit:
            groups.append([])
        groups[-1].extend(unit)
    return groups


def _make(matrix, finish=False, plain=False):
    outputs, inputs = matrix.shape

    def emit(builder, like, args):
        source, source_row, source_col, target, target_row, target_col = args[:6]
        vector = Vector(builder, like)

        def places(base, row, rows, col, cols):
            """Return a function of (row, column): a chain of rows and a column each, which is all that x86 can add."""
            lines = [builder.inttoptr(base, POINTER)]
            for _ in range(rows - 1):
                lines.append(at(builder, lines[-1], row))
            columns = [builder.mul(col, i64(j)) for j in range(cols)]
            return lambda i, j: at(builder, lines[i], columns[j])

        read = places(source, source_row, inputs, source_col, inputs)
        write = places(target, target_row, outputs, target_col, outputs)
        stream = None if plain else builder.icmp_signed("!=", args[-2], ir.Constant(I64, 0))
        if finish:
            bias = vector.load(builder.inttoptr(args[6], POINTER))
            relu = builder.icmp_signed("!=", args[7], ir.Constant(I64, 0))
        for rows in _row_groups(matrix):
            part = matrix[rows]
            used = np.flatnonzero(part.any(axis=0))
            half = [
                _apply(builder, vector, part[:, used], [vector.load(read(i, j)) for i in used]) for j in range(inputs)
            ]
            for index, i in enumerate(rows):
                line = _apply(builder, vector, matrix, [column[index] for column in half])
                if finish:
                    line = [builder.fadd(value, bias) for value in line]
                    line = [builder.select(relu, vector.relu(value), value) for value in line]
                if stream is None:
                    for j, value in enumerate(line):
                        vector.store(value, write(i, j))
                    continue
                with builder.if_else(stream) as (past, stays):
                    with past:
                        for j, value in enumerate(line):
                            vector.stream(value, write(i, j))
                    with stays:
                        for j, value in enumerate(line):
                            vector.store(value, write(i, j))

    return emit


def _by_form(matrices, **options):
    """Return the code that applies one of `matrices`, in the order of `FORMS`: the first argument says which."""
    emits = [_make(np.asarray(matrix), **options) for matrix in matrices]

    def codegen(context, builder, signature, args):
        form, *rest = args
        for number, _ in cases(builder, form, range(len(emits))):
            emits[number](builder, signature.args[-1], rest)
        return context.get_dummy_value()

    return codegen


def make_transform(matrices):
    """Return the intrinsic target = matrix @ source @ matrix.T; rows and columns lie pitches of bytes apart.

    `matrices` holds a matrix for each form, in the order of `FORMS`; forms at its end may be left out.
    """
    codegen = _by_form(matrices, plain=True)

    @intrinsic
    def transform(typingctx, form, source, source_row, source_col, target, target_row, target_col, like):
        return types.void(*[types.intp] * 7, like), codegen

    return transform


def make_streamed(matrices):
    """Return the intrinsic of `make_transform` that stores past the caches, to aligned places, if `stream`."""
    codegen = _by_form(matrices)

    @intrinsic
    def transform(typingctx, form, source, source_row, source_col, target, target_row, target_col, stream, like):
        return types.void(*[types.intp] * 8, like), codegen

    return transform


def make_finish(matrices):
    """Return the intrinsic of `make_transform` that adds a bias vector, then applies ReLU if `relu`.

    `stream`: past the caches, to aligned pixels.
    """
    codegen = _by_form(matrices, finish=True)

    @intrinsic
    def finish(
        typingctx, form, source, source_row, source_col, target, target_row, target_col, bias, relu, stream, like
    ):  # fmt: skip
        return types.void(*[types.intp] * 10, like), codegen

    return finish
