"""Copying activations from one layout to the other: a transposition of (C, H * W) and back, image by image."""

from __future__ import annotations

from numba import carray

from .jit import worker
from .simd import VECTOR_BYTES, load, store, transpose_block
from .windows import share

# Vectors of columns that are written before the next rows: so many streams of writes, each some lines long.
COLUMNS = 4


@worker
def transpose_images(like, arguments, thread, threads):
    """Overwrite `target` (n, columns, rows) with `source` (n, rows, columns). Arguments: both, n, rows, columns.

    A thread takes some blocks of columns of all images.
    """
    source, target, images, rows, columns = carray(arguments, 5)
    element = carray(like, 1)
    size = element.itemsize
    lanes = VECTOR_BYTES // size
    width = COLUMNS * lanes
    blocks = (columns + width - 1) // width
    first, past = share(thread, threads, images * blocks)
    for unit in range(first, past):
        image, begin = unit // blocks, unit % blocks * width
        end = min(begin + width, columns)
        here, to = source + image * rows * columns * size, target + image * rows * columns * size
        if rows < lanes or end - begin < lanes:
            for column in range(begin, end):
                for row in range(rows):
                    value = load(here + (row * columns + column) * size, element)
                    store(to + (column * rows + row) * size, value, element)
            continue
        for column in range(begin, end, lanes):
            column = min(column, end - lanes)
            for row in range(0, rows, lanes):
                row = min(row, rows - lanes)
                transpose_block(
                    here + (row * columns + column) * size, columns * size, to + (column * rows + row) * size,
                    rows * size, element,
                )  # fmt: skip
