"""Moving activations between the caller's layout and the NHWC blocks that the tile reads and writes.

`source` and `target` are addresses; pitches and offsets are in bytes. NCHW is transposed in registers a block at a
time, by the thread that uses the block: never as a pass over memory of its own.
"""

from __future__ import annotations

from .jit import step
from .simd import (
    ALIGNMENT,
    VECTOR_BYTES,
    copy_bytes,
    copy_vector,
    load,
    load_i64,
    prefetch,
    store,
    store_i64,
    transpose_block,
    transpose_scatter,
    transpose_scatter_some,
    transpose_stream,
    zero_bytes,
)

# Squares of pixels by channels that are gathered from some planes before the next: a run of 512 bytes of each plane in
# float32. With one square at a time planes of a power of two of bytes push each other out of the cache.
SQUARES = 8
GATHER_TABLE_BYTES = 8 * SQUARES * (VECTOR_BYTES // 4)  # see `gather_rows`


# Planes that are fetched ahead of those being copied: many short runs from memory, which no hardware prefetcher follows
# (256 runs of 896 bytes: 8 GB/s by memcpy, 15 by vectors, 19 with those four planes on fetched ahead).
PLANES_AHEAD = 4

# The same for pixels of which only some channels are copied.
PIXELS_AHEAD = 8


@step
def copy_row(target, source, count, like):
    """Copy a few elements: whole vectors, the last one overlapping, where a call of memcpy would cost more."""
    size = like.itemsize
    lanes = VECTOR_BYTES // size
    if count < lanes:
        for i in range(count):
            store(target + i * size, load(source + i * size, like), like)
        return
    for i in range(0, count, lanes):
        i = min(i, count - lanes)
        copy_vector(target + i * size, source + i * size, like)


@step
def copy_row_ahead(target, source, count, ahead, like):
    """As `copy_row`, of a run from memory: fetch what lies `ahead` bytes on."""
    for i in range(0, count * like.itemsize, ALIGNMENT):
        prefetch(source + ahead + i)
    copy_row(target, source, count, like)


@step
def gather_rows(
    source,
    channels_first,
    h,
    w,
    c,
    c0,
    count,
    row0,
    rows,
    col0,
    cols,
    target,
    row_pitch,
    pixel_pitch,
    table,
    like,
):
    """Copy a window of one image, (h, w, c) or (c, h, w) at `source`, to pixels of `count` channels from `c0`.

    The window is `rows` x `cols` from (row0, col0) and may reach outside the image, where it holds zeros. `table`
    is scratch of GATHER_TABLE_BYTES.
    """
    top, bottom = max(row0, 0), min(row0 + rows, h)
    left, right = max(col0, 0), min(col0 + cols, w)
    if bottom - top < rows or right - left < cols:
        for row in range(rows):
            zero_bytes(target + row * row_pitch, cols * pixel_pitch)
    if bottom <= top or right <= left:
        return
    if channels_first:
        _gather_planes(
            source,
            h,
            w,
            c0,
            count,
            top,
            bottom,
            left,
            right,
            row0,
            col0,
            target,
            row_pitch,
            pixel_pitch,
            table,
            like,
        )
        return
    size = like.itemsize
    for row in range(top, bottom):
        line = source + ((row * w + left) * c + c0) * size
        to = target + (row - row0) * row_pitch + (left - col0) * pixel_pitch
        if count == c and pixel_pitch == c * size:
            copy_bytes(to, line, (right - left) * pixel_pitch)
        else:
            for pixel in range(right - left):
                copy_row_ahead(to + pixel * pixel_pitch, line + pixel * c * size, count, PIXELS_AHEAD * c * size, like)


@step
def _gather_planes(
    source, h, w, c0, count, top, bottom, left, right, row0, col0, target, row_pitch, pixel_pitch, table, like
):
    """The (c, h, w) case of `gather_rows`: squares of pixels x channels, the last ones overlapping those before."""
    size = like.itemsize
    lanes = VECTOR_BYTES // size
    plane = h * w * size
    planes = source + c0 * plane
    if count < lanes:
        for row in range(top, bottom):
            to = target + (row - row0) * row_pitch - col0 * pixel_pitch
            for channel in range(count):
                line = planes + channel * plane + row * w * size
                for pixel in range(left, right):
                    store(to + pixel * pixel_pitch + channel * size, load(line + pixel * size, like), like)
        return
    width = right - left
    run = (bottom - top) * width  # pixels in one run when the window takes whole rows, else row by row
    segments = 1
    if width < w:
        run, segments = width, bottom - top
    for segment in range(segments):
        first_row = top + segment
        begin = planes + (first_row * w + left) * size
        to = target + (first_row - row0) * row_pitch + (left - col0) * pixel_pitch
        if run < lanes:
            for pixel in range(run):
                offset = pixel // width * row_pitch + pixel % width * pixel_pitch
                for channel in range(count):
                    value = load(begin + channel * plane + pixel * size, like)
                    store(to + offset + channel * size, value, like)
            continue
        for first in range(0, run, SQUARES * lanes):
            first = min(first, run - lanes)
            squares = min(SQUARES, (run - first + lanes - 1) // lanes)
            row, column = first // width, first % width
            for i in range(squares * lanes):
                store_i64(table + 8 * i, row * row_pitch + column * pixel_pitch)
                column += 1
                if column == width:
                    row, column = row + 1, 0
            for channel in range(0, count, lanes):
                channel = min(channel, count - lanes)
                ahead = begin + (channel + lanes) * plane + first * size
                if channel + lanes < count:
                    for i in range(lanes):
                        for line in range(0, squares * VECTOR_BYTES, ALIGNMENT):
                            prefetch(ahead + i * plane + line)
                for square in range(squares):
                    pixel = min(first + square * lanes, run - lanes)
                    transpose_scatter(
                        begin + channel * plane + pixel * size, plane, to + channel * size,
                        table + 8 * (pixel - first), like,
                    )  # fmt: skip


@step
def gather_planes(
    image, h, w, c0, count, row0, rows, col0, cols, target, row_pitch, plane_pitch, like
):  # fmt: skip
    """Copy a window of `count` planes from `c0` of an image (c, h, w) to planes; it holds zeros outside the image."""
    size = like.itemsize
    left, right = max(col0, 0), min(col0 + cols, w)
    plane = h * w * size
    for channel in range(count):
        to = target + channel * plane_pitch
        for row in range(row0, row0 + rows):
            inside = row >= 0 and row < h and right > left
            if not inside or right - left < cols:
                zero_bytes(to, row_pitch)
            if inside:
                source = image + (c0 + channel) * plane + (row * w + left) * size
                copy_row_ahead(to + (left - col0) * size, source, right - left, PLANES_AHEAD * plane, like)
            to += row_pitch


@step
def scatter_rows(source, pixel_pitch, count, channels_first, plane, c, c0, target, pixels, stream, like):
    """Copy `pixels` pixels of `count` channels, contiguous rows of an image, to channels `c0`... of `target`.

    `target` is the address of the run's first pixel in (h, w, c), or in the first plane of (c, h, w) planes that
    lie `plane` bytes apart. `stream`: past the caches where the planes are aligned.
    """
    size = like.itemsize
    lanes = VECTOR_BYTES // size
    if not channels_first:
        to = target + c0 * size
        for pixel in range(pixels):
            copy_row(to + pixel * c * size, source + pixel * pixel_pitch, count, like)
        return
    to = target + c0 * plane
    if count < lanes or pixels < lanes:
        for channel in range(count):
            for pixel in range(pixels):
                value = load(source + pixel * pixel_pitch + channel * size, like)
                store(to + channel * plane + pixel * size, value, like)
        return
    # Along the planes: as many streams of writes as a vector has lanes.
    stream = stream and (to | plane) % VECTOR_BYTES == 0
    for channel in range(0, count, lanes):
        channel = min(channel, count - lanes)
        for pixel in range(0, pixels, lanes):
            begin, place = source + channel * size, to + channel * plane
            if pixel + lanes > pixels:
                pixel = pixels - lanes
            elif stream:
                transpose_stream(begin + pixel * pixel_pitch, pixel_pitch, place + pixel * size, plane, like)
                continue
            transpose_block(begin + pixel * pixel_pitch, pixel_pitch, place + pixel * size, plane, like)


@step
def transpose_rows(source, pitch, rows, columns, target, offsets, end, like):
    """Copy a matrix (rows, columns) at `pitch` to target[offsets[column] + row * itemsize], a table of int64.

    No byte from `end` on is read; before it, what follows a short row may be.
    """
    size = like.itemsize
    lanes = VECTOR_BYTES // size
    for row in range(0, rows, lanes):
        begin, to = source + row * pitch, target + row * size
        if row + lanes > rows or (columns < lanes and begin + (lanes - 1) * pitch + VECTOR_BYTES > end):
            for i in range(min(lanes, rows - row)):
                for column in range(columns):
                    value = load(begin + i * pitch + column * size, like)
                    store(to + i * size + load_i64(offsets + 8 * column), value, like)
        elif columns < lanes:
            transpose_scatter_some(begin, pitch, to, offsets, columns, like)
        else:
            for column in range(0, columns, lanes):
                column = min(column, columns - lanes)
                transpose_scatter(begin + column * size, pitch, to, offsets + 8 * column, like)
