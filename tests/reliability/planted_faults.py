"""Launches that touch what they must not; prints as JSON what the bounds checks say of each. See test_bounds.py.

Some are kernels of the library, told sizes that are too large; the others are kernels made for it.
"""

from __future__ import annotations

import json

import launches
import numpy as np
from llvmlite import ir
from numba import carray, types
from numba.core import cgutils
from numba.extending import intrinsic

from jitconv import pooling
from jitconv.kernels import columns, max_pooling, pointwise, relayout, update
from jitconv.kernels.jit import worker
from jitconv.kernels.simd import I64, POINTER, VECTOR_BYTES, Vector, copy_bytes, i64, load, store, zero_bytes
from jitconv.shapes import Activation

FLOAT = np.dtype(np.float32)
LANES = VECTOR_BYTES // 4


def vectors(count):
    """Return inputs and results of so many elements, aligned, and with room on both sides that is not theirs."""
    made = []
    for _ in range(2):
        memory = np.zeros(count * 4 + 6 * VECTOR_BYTES, np.uint8)
        start = 2 * VECTOR_BYTES - memory.ctypes.data % VECTOR_BYTES
        made.append(memory[start : start + 4 * count].view(np.float32))
    return made


def _vector_operation(emit):
    """Return an intrinsic (address, number, like): what `emit` does with a vector there."""

    @intrinsic
    def operation(typingctx, address, number, like):
        def codegen(context, builder, signature, args):
            emit(Vector(builder, signature.args[2]), builder.inttoptr(args[0], POINTER), args[1])
            return context.get_dummy_value()

        return types.void(types.intp, types.intp, like), codegen

    return operation


load_vector = _vector_operation(lambda vector, pointer, _: vector.store(vector.load(pointer), pointer))
stream_vector = _vector_operation(lambda vector, pointer, _: vector.stream(vector.zero, pointer))


@_vector_operation
def store_lanes(vector, pointer, number):
    vector.store_masked(vector.zero, pointer, vector.lanes_between(i64(0), number))


@_vector_operation
def load_lanes(vector, pointer, number):
    mask = vector.lanes_between(i64(0), number)
    vector.store_masked(vector.load_masked(pointer, mask), pointer, vector.lanes_between(i64(0), i64(1)))


@_vector_operation
def own_variable(vector, pointer, number):
    builder = vector.builder
    variable = cgutils.alloca_once(builder, ir.ArrayType(I64, 4))
    builder.store(i64(0), builder.gep(variable, [i64(0), number]))


@worker
def planted(like, arguments, thread, threads):
    """Do what `what` says to x and y of n elements. Arguments: x, y, what, n."""
    x, y, what, n = carray(arguments, 4)
    one = carray(like, 1)
    size = one.itemsize
    if what == 0:  # nothing wrong
        for i in range(n * thread // threads, n * (thread + 1) // threads):
            store(y + i * size, load(x + i * size, one), one)
    elif what == 1:
        load(x + n * size, one)
        store(y, load(x + n * size, one), one)
    elif what == 2:
        store(y - size, one.dtype.type(1), one)
    elif what == 3:
        store(x, one.dtype.type(1), one)
    elif what == 4:
        load_vector(y + (n - LANES + 1) * size, 0, one)
    elif what == 5:
        load_lanes(y + (n - 2) * size, 3, one)
    elif what == 6:
        store_lanes(y + (n - 2) * size, 3, one)
    elif what == 7:
        copy_bytes(y, x + 1, n * size)
    elif what == 8:
        zero_bytes(y, n * size + 1)
    elif what == 9:  # by two parts
        store(y, one.dtype.type(1), one)
    elif what == 10:  # one part reads what the other writes
        store(y + thread * size, load(y + (1 - thread) * size, one), one)
    elif what == 11:
        stream_vector(y + size, 0, one)
    elif what == 12:
        own_variable(0, what - 8, one)
    elif what == 13:  # lanes past the array that are not those of the mask
        store_lanes(y + (n - 2) * size, 2, one)
        load_lanes(y + (n - 2) * size, 2, one)


def run_planted(what, threads=1):
    x, y = vectors(4 * LANES)
    launches.ACCESS[planted.name] = "rw" if what in (0, 7, 8) else "rs"
    planted(FLOAT, threads, x, y, what, x.size)


def pool(width, stride):
    """Max pooling of an image that is `width` columns wide, and whose kernel is told that it is 20."""
    window = pooling.Pooling.of(Activation(1, 1, 3, 20), "x", 3, stride, 0).window
    x, y = np.zeros((1, 1, 3, width), FLOAT), np.zeros((1, 1, window.oh, window.ow), FLOAT)
    max_pooling.max_pool_nchw(FLOAT, 1, x, y, False, 1, *window)


def unfold(images):
    window = pooling.Pooling.of(Activation(2, 3, 5, 6), "x", 2, 1, 0).window
    x, made = np.zeros((2, 3, 5, 6), FLOAT), np.zeros((2 * 4 * 5, 3 * 2 * 2), FLOAT)
    offsets = np.add.outer(np.arange(3) * 30, window.tap_offsets())
    columns.im2col(FLOAT, 2, x, made, offsets, images, 3, *window)


def step(elements):
    parameter, gradient = vectors(40)
    table = np.array([[parameter.ctypes.data, gradient.ctypes.data, 0, 0, elements, 1]])
    launches._remember(table, [("u", parameter), ("r", gradient)])
    update.sgd(FLOAT, 1, table, np.array([0.1, 0.0], FLOAT), 1)


def transpose(rows):
    relayout.transpose_images(FLOAT, 1, np.zeros((2, 17, 40), FLOAT), np.zeros((2, 40, 17), FLOAT), 2, rows, 40)


def relu(elements):
    x, y = vectors(40)
    pointwise.relu_forward(FLOAT, 2, x, y, elements)


PLANTED = {
    "nothing": lambda: run_planted(0),
    "nothing, in three parts": lambda: run_planted(0, 3),
    "reads past": lambda: run_planted(1),
    "writes before": lambda: run_planted(2),
    "writes an input": lambda: run_planted(3),
    "a vector, one element past": lambda: run_planted(4),
    "masked load, one lane past": lambda: run_planted(5),
    "masked store, one lane past": lambda: run_planted(6),
    "copies one byte past": lambda: run_planted(7),
    "fills one byte past": lambda: run_planted(8),
    "one byte by two parts": lambda: run_planted(9, 2),
    "a part reads another's": lambda: run_planted(10, 2),
    "streams to no boundary": lambda: run_planted(11),
    "beside its own variable": lambda: run_planted(12),
    "lanes that are masked out": lambda: run_planted(13),
    "pooling": lambda: pool(20, 1),
    "pooling, a narrower image": lambda: pool(19, 1),
    "pooling by gathers": lambda: pool(20, 3),
    "pooling by gathers, a narrower image": lambda: pool(19, 3),
    "im2col": lambda: unfold(2),
    "im2col, an image more": lambda: unfold(3),
    "optimizer": lambda: step(40),
    "optimizer, an element more": lambda: step(41),
    "relayout": lambda: transpose(17),
    "relayout, a row more": lambda: transpose(18),
    "relayout, a row less": lambda: transpose(16),
    "relu": lambda: relu(40),
    "relu, an element more": lambda: relu(41),
    "relu, an element less": lambda: relu(39),
}


def main():
    launches.install()
    said = {}
    for name, launch in PLANTED.items():
        said[name] = None
        try:
            launch()
        except launches.OutOfBoundsError as error:
            said[name] = str(error)
    print(json.dumps(said))


if __name__ == "__main__":
    main()
