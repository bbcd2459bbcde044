"""What follows a convolution, done while its result is written or its gradient is read: ReLU and 2x2 max pooling.

Forward stores ReLU with the result (`tile.py`, `transforms.py`); with pooling the result of a strip stays in scratch,
and only the largest of each square leaves it. Backward reads its dy through `gather_gradient`: dy where the saved
output y is above zero or NaN and, behind a pooling, where the square took the pixel. Neither dense gradient is ever in
memory: one pass for each would write and read as much as the convolution itself.

All arrays lie in NHWC.
"""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .jit import step
from .pool_lanes import Lanes
from .simd import I1, I8, POINTER, at, i64, load_i64, zero_bytes

# How a gradient is read: as it lies; where y is not zero; behind a pooling.
PLAIN, MASKED, POOLED = range(3)

# The entries of the table that stands for dy where it is not plain: addresses of dy, y (of dy's shape) and argmax, and
# the rows and columns of dy behind a pooling. Of the table that stands for a pooled result: Y and ARGMAX.
DY, Y, ARGMAX, POOLED_H, POOLED_W = range(5)
FIELDS = 5


def _lanes(builder, array_type):
    return Lanes(builder, array_type, types.CPointer(types.uint8))


def _over_vectors(builder, vector, count, emit):
    """Emit `emit(first lane, mask)` for each whole vector of `count` elements (mask None) and for the rest."""
    lanes = i64(vector.lanes)
    whole = builder.sdiv(count, lanes)
    with cgutils.for_range(builder, whole) as loop:
        emit(builder.mul(loop.index, lanes), None)
    first = builder.mul(whole, lanes)
    with builder.if_then(builder.icmp_signed("<", first, count)):
        emit(first, vector.lanes_between(i64(0), builder.sub(count, first)))


def _element(builder, vector, base, index):
    return at(builder, base, builder.mul(index, i64(vector.itemsize)))


def _write(vector, value, pointer, mask):
    if mask is None:
        vector.store(value, pointer)
    else:
        vector.store_masked(value, pointer, mask)


@intrinsic
def _copy_masked(typingctx, target, dy, y, count, like):
    """Copy `count` elements of dy where y is above zero or NaN; zeros elsewhere."""

    def codegen(context, builder, signature, args):
        vector = _lanes(builder, signature.args[-1])
        target, dy, y = (builder.inttoptr(address, POINTER) for address in args[:3])

        def emit(first, mask):
            value, output = (vector.read(_element(builder, vector, base, first), mask, 0.0) for base in (dy, y))
            passed = builder.fcmp_unordered(">", output, vector.zero)
            kept = builder.select(passed, value, vector.zero)
            _write(vector, kept, _element(builder, vector, target, first), mask)

        _over_vectors(builder, vector, args[3], emit)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 4, like), codegen


@intrinsic
def _copy_pooled(typingctx, target, dy, y, argmax, tap, count, like):
    """As `_copy_masked`, and only where the byte of argmax is `tap`."""

    def codegen(context, builder, signature, args):
        vector = _lanes(builder, signature.args[-1])
        target, dy, y, argmax = (builder.inttoptr(address, POINTER) for address in args[:4])
        tap = vector.splat(args[4], ir.VectorType(I8, vector.lanes))

        def emit(first, mask):
            value, output = (vector.read(_element(builder, vector, base, first), mask, 0.0) for base in (dy, y))
            taken = builder.icmp_unsigned("==", vector.read_entries(at(builder, argmax, first), mask), tap)
            passed = builder.and_(taken, builder.fcmp_unordered(">", output, vector.zero))
            kept = builder.select(passed, value, vector.zero)
            _write(vector, kept, _element(builder, vector, target, first), mask)

        _over_vectors(builder, vector, args[5], emit)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 6, like), codegen


@intrinsic
def _copy_square(typingctx, target, row_pitch, pixel_pitch, dy, y, argmax, count, like):
    """As `_copy_pooled`, to all four pixels of a square: dy, y and argmax are read once."""

    def codegen(context, builder, signature, args):
        vector = _lanes(builder, signature.args[-1])
        target, dy, y, argmax = (builder.inttoptr(args[place], POINTER) for place in (0, 3, 4, 5))
        row_pitch, pixel_pitch = args[1], args[2]
        taps = [target, at(builder, target, pixel_pitch), at(builder, target, row_pitch)]
        taps.append(at(builder, taps[2], pixel_pitch))

        def emit(first, mask):
            value, output = (vector.read(_element(builder, vector, base, first), mask, 0.0) for base in (dy, y))
            passed = builder.select(builder.fcmp_unordered(">", output, vector.zero), value, vector.zero)
            taken = vector.read_entries(at(builder, argmax, first), mask)
            for tap, base in enumerate(taps):
                kept = builder.select(
                    builder.icmp_unsigned("==", taken, vector.splat(tap, taken.type)), passed, vector.zero
                )
                _write(vector, kept, _element(builder, vector, base, first), mask)

        _over_vectors(builder, vector, args[6], emit)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 7, like), codegen


@intrinsic
def _take_largest(typingctx, source, row_pitch, pixel_pitch, y, argmax, count, like):
    """Store the largest of a square of pixels, `count` channels of each, and which it is; the first of equal ones."""

    def codegen(context, builder, signature, args):
        vector = _lanes(builder, signature.args[-1])
        source, y, argmax = (builder.inttoptr(args[place], POINTER) for place in (0, 3, 4))
        row_pitch, pixel_pitch = args[1], args[2]
        taps = [source, at(builder, source, pixel_pitch), at(builder, source, row_pitch)]
        taps.append(at(builder, taps[2], pixel_pitch))

        def emit(first, mask):
            values = [vector.read(_element(builder, vector, base, first), mask, 0.0) for base in taps]
            state = values[0], vector.splat(0, vector.taps)
            for tap in (1, 2, 3):
                state = vector.challenge(state, values[tap], vector.splat(tap, vector.taps))
            _write(vector, state[0], _element(builder, vector, y, first), mask)
            whole, some = ir.Constant(I1, mask is None), vector.first_lanes(i64(vector.lanes)) if mask is None else mask
            vector.write_entries(state[1], at(builder, argmax, first), whole, some)

        _over_vectors(builder, vector, args[5], emit)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 6, like), codegen


@step
def pool_rows(source, row_pitch, pixel_pitch, rows, cols, y, argmax, channels, count, like):
    """Store the largest of each square of `rows` x `cols` pixels, `count` of `channels` channels.

    `y` and `argmax` are the addresses of the first channel in the first pixel, the rows one after another; what a last
    odd row or column holds belongs to no square.
    """
    size = like.itemsize
    for row in range(rows // 2):
        for col in range(cols // 2):
            place = (row * (cols // 2) + col) * channels
            _take_largest(
                source + 2 * row * row_pitch + 2 * col * pixel_pitch, row_pitch, pixel_pitch, y + place * size,
                argmax + place, count, like,
            )  # fmt: skip


@step
def gather_gradient(
    table, how, image, h, w, c, c0, count, row0, rows, col0, cols, target, row_pitch, pixel_pitch, like
):  # fmt: skip
    """Copy a window of one image of the gradient (h, w, c) that `table` stands for to pixels of `count` channels.

    As `gather_rows` of NHWC; `how` is MASKED or POOLED.
    """
    dy, y, argmax = load_i64(table + 8 * DY), load_i64(table + 8 * Y), load_i64(table + 8 * ARGMAX)
    pooled_h, pooled_w = load_i64(table + 8 * POOLED_H), load_i64(table + 8 * POOLED_W)
    size = like.itemsize
    top, bottom = max(row0, 0), min(row0 + rows, h)
    left, right = max(col0, 0), min(col0 + cols, w)
    if bottom - top < rows or right - left < cols:
        for row in range(rows):
            zero_bytes(target + row * row_pitch, cols * pixel_pitch)
    if bottom <= top or right <= left:
        return
    if how == MASKED:
        flat = count == c and pixel_pitch == c * size
        runs, run = (1, (right - left) * c) if flat else (right - left, count)
        for row in range(top, bottom):
            place = ((image * h + row) * w + left) * c + c0
            to = target + (row - row0) * row_pitch + (left - col0) * pixel_pitch
            for i in range(runs):
                here = (place + i * c) * size
                _copy_masked(to + i * pixel_pitch, dy + here, y + here, run, like)
        return
    for row in range(top, bottom):
        if row % 2 and row > top:
            continue  # done with the row above
        whole_rows = row % 2 == 0 and row + 1 < bottom and row // 2 < pooled_h
        for col in range(left, right):
            if col % 2 and col > left and whole_rows and col // 2 < pooled_w:
                continue  # done with the column before
            place = ((image * pooled_h + row // 2) * pooled_w + col // 2) * c + c0
            to = target + (row - row0) * row_pitch + (col - col0) * pixel_pitch
            if whole_rows and col % 2 == 0 and col + 1 < right and col // 2 < pooled_w:
                _copy_square(
                    to, row_pitch, pixel_pitch, dy + place * size, y + place * size, argmax + place, count, like
                )
                continue
            for below in range(2 if row % 2 == 0 and row + 1 < bottom else 1):
                if row // 2 >= pooled_h or col // 2 >= pooled_w:
                    zero_bytes(to + below * row_pitch, count * size)
                else:
                    _copy_pooled(
                        to + below * row_pitch, dy + place * size, y + place * size, argmax + place,
                        (row + below) % 2 * 2 + col % 2, count, like,
                    )  # fmt: skip
