"""Average pooling over sliding windows, forward and backward; laid out and shared out as in `max_pooling`."""

from __future__ import annotations

from numba import carray

from .jit import inlined, step, worker
from .max_pooling import columns_inside, kind_of_columns
from .max_pooling_backward import columns_inside as gradient_inside
from .max_pooling_backward import kind_of_columns as gradient_kind
from .pool_gradient_tiles import (
    ANY,
    HALF_TRIPLES,
    PAIRS,
    STRIDED,
    avg_gradient_of_channels,
    avg_gradient_of_columns,
)
from .pool_tiles import avg_of_channels, avg_of_columns
from .simd import ALIGNMENT, VECTOR_BYTES, fence, store
from .views import int64s
from .windows import (
    FIELDS,
    RUN_FIELDS,
    Window,
    classes_of_columns,
    counted_columns,
    divisor,
    full_columns,
    full_rows,
    run_between,
    runs_over,
    share,
    taps_inside,
    taps_of_residue,
    window_of,
    windows_over,
)


@worker
def avg_pool_nchw(like, arguments, thread, threads):
    """Average each window. Arguments: x (P, H, W), y (P, OH, OW), overwritten; whether y is stored past the caches, P,
    the window.
    """
    a = carray(arguments, 4 + FIELDS)
    g = window_of(a[4:])
    first, past = share(thread, threads, a[3] * g.oh)
    _rows_of_planes(a[0], a[1], g, first, past, a[2], carray(like, 1))


@worker
def avg_pool_nhwc(like, arguments, thread, threads):
    """Average each window. Arguments: x (N, H, W, C), y (N, OH, OW, C), overwritten; whether y is stored past the
    caches, N, C, the window.
    """
    a = carray(arguments, 5 + FIELDS)
    g = window_of(a[5:])
    first, past = share(thread, threads, a[3] * g.oh)
    _rows_of_images(a[0], a[1], g, a[4], first, past, a[2], carray(like, 1))


@worker
def avg_pool_backward_nchw(like, arguments, thread, threads):
    """Spread dy evenly over each window. Arguments: dy (P, OH, OW), dx (P, H, W), overwritten; scratch (threads,
    bytes), its bytes (see `scratch_bytes`), whether dx is stored past the caches, P, the window.
    """
    a = carray(arguments, 6 + FIELDS)
    g = window_of(a[6:])
    first, past = share(thread, threads, a[5] * g.h)
    _gradient_of_planes(a[0], a[1], g, first, past, a[2] + thread * a[3], a[4], carray(like, 1))


@worker
def avg_pool_backward_nhwc(like, arguments, thread, threads):
    """Spread dy evenly over each window. Arguments: dy (N, OH, OW, C), dx (N, H, W, C), overwritten; scratch (threads,
    bytes), its bytes (see `scratch_bytes`), whether dx is stored past the caches, N, C, the window.
    """
    a = carray(arguments, 7 + FIELDS)
    g = window_of(a[7:])
    first, past = share(thread, threads, a[5] * g.h)
    _gradient_of_images(a[0], a[1], g, a[6], first, past, a[2] + thread * a[3], a[4], carray(like, 1))


def scratch_bytes(window: Window, itemsize: int) -> int:
    """Return the bytes of scratch that a thread needs for a backward pass."""
    size = 8 * (RUN_FIELDS * max(window.h, window.w) + window.oh) + window.kh * window.ow * itemsize
    return -(-size // ALIGNMENT) * ALIGNMENT


@inlined
def _rows_of_images(x, y, g, c, first, past, stream, like):
    """Fill the rows [first, past) of all images' rows."""
    size = like.itemsize
    lanes = VECTOR_BYTES // size
    pixel, line = c * size, g.w * c * size
    full0, full1 = full_columns(g)
    columns = g.kw - 1 if 2 <= g.kw <= 3 else ANY  # PAIRS or TRIPLES
    end, floor = counted_columns(g)
    for row in range(first, past):
        n, oh = row // g.oh, row % g.oh
        start_h = oh * g.stride_h - g.top
        k0, k1 = taps_inside(start_h, g.h, g.kh, 1)
        height = _rows(oh, g)
        line_at = x + (n * g.h + start_h + k0) * line
        ow = 0
        while ow < g.ow:
            start_w = ow * g.stride_w - g.left
            l0, l1 = taps_inside(start_w, g.w, g.kw, 1)
            inside = full0 <= ow < full1
            runs = full1 - ow if inside else 1
            avg_of_channels(
                columns if inside else ANY, runs, g.stride_w * pixel, pixel, line_at + (start_w + l0) * pixel, line, 0,
                c, 0, pixel, 1, k1 - k0, l1 - l0, c, c % lanes == 0, 0, g.kw, y + (row * g.ow + ow) * pixel, 0, stream,
                start_w, 0, end, floor, height, like,
            )  # fmt: skip
            ow += runs
    if stream != 0:
        fence()


@inlined
def _rows_of_planes(x, y, g, first, past, stream, like):
    """Fill the rows [first, past) of all planes' rows."""
    size = like.itemsize
    line = g.w * size
    kind = kind_of_columns(g)
    inside = columns_inside(g, kind, VECTOR_BYTES // size)
    end, floor = counted_columns(g)
    full = full_rows(g)
    row = first
    while row < past:
        p, oh = row // g.oh, row % g.oh
        start_h = oh * g.stride_h - g.top
        k0, k1 = taps_inside(start_h, g.h, g.kh, 1)
        runs = min(full[1] - oh, past - row) if full[0] <= oh < full[1] else 1
        avg_of_columns(
            kind, runs, g.stride_h * line, g.ow * size, x + (p * g.h + start_h + k0) * line, line, -g.left, g.w, 1,
            size, g.stride_w, k1 - k0, g.kw, g.ow, inside, 0, g.kw, y + row * g.ow * size, 0, stream, -g.left,
            g.stride_w, end, floor, _rows(oh, g), like,
        )  # fmt: skip
        row += runs
    if stream != 0:
        fence()


@inlined
def _rows(oh, g):
    return divisor(oh * g.stride_h - g.top, g.h, g.kh, g.padded_h, g.include_pad)


@inlined
def _columns(ow, g):
    return divisor(ow * g.stride_w - g.left, g.w, g.kw, g.padded_w, g.include_pad)


@step
def _alike(g):
    """Tell whether all windows count all their pixels: the first and the last count the fewest."""
    height = min(_rows(0, g), _rows(g.oh - 1, g))
    return height == g.kh and min(_columns(0, g), _columns(g.ow - 1, g)) == g.kw


@step
def _fill_scales(g, scales, rows, like):
    """Fill `scales` (KH, OW) with one over the pixels of a window that counts 1 to KH rows, and `rows` (OH,) with where
    those of each row of windows begin, in bytes.
    """
    one = like.dtype.type(1)
    for oh in range(g.oh):
        height = _rows(oh, g)
        rows[oh] = (height - 1) * g.ow * like.itemsize
        if oh > 0 and rows[oh] == rows[oh - 1]:
            continue
        for ow in range(g.ow):
            pixels = like.dtype.type(height) * like.dtype.type(_columns(ow, g))
            store(scales + rows[oh] + ow * like.itemsize, one / pixels, like)


@inlined
def _gradient_of_images(dy, dx, g, c, first, past, scratch, stream, like):
    """Fill the rows [first, past) of all images' rows."""
    size = like.itemsize
    pixel = c * size
    rows_at = scratch + 8 * RUN_FIELDS * g.w
    scales = rows_at + 8 * g.oh
    runs = int64s(scratch, (g.w, RUN_FIELDS))
    count = runs_over(g.w, g.ow, g.kw, g.stride_w, g.left, 1, runs)
    _fill_scales(g, scales, int64s(rows_at, (g.oh,)), like)
    scale = like.dtype.type(1) / (like.dtype.type(g.kh) * like.dtype.type(g.kw))
    alike, whole = _alike(g), c % (VECTOR_BYTES // size) == 0
    for row in range(first, past):
        n, h = row // g.h, row % g.h
        oh, rows, _ = windows_over(h + g.top, g.oh, g.kh, g.stride_h, 1)
        for i in range(count):
            windows, source = runs[i, 3], (n * g.oh + oh) * g.ow + runs[i, 2]
            avg_gradient_of_channels(
                windows if alike and windows <= 3 else ANY, runs[i, 1], pixel, g.stride_w * pixel, dy + source * pixel,
                g.ow * pixel, pixel, rows, windows, 0, 0, c, 0, 0, 0, 0, 0, dx + (row * g.w + runs[i, 0]) * pixel, 0,
                0, 0, c, whole, stream, scales, rows_at + 8 * oh, 8, runs[i, 2], scale, like,
            )  # fmt: skip
    if stream != 0:
        fence()


@inlined
def _gradient_of_planes(dy, dx, g, first, past, scratch, stream, like):
    """Fill the rows [first, past) of all planes' rows."""
    size = like.itemsize
    rows_at = scratch + 8 * RUN_FIELDS * g.h
    scales = rows_at + 8 * g.oh
    runs = int64s(scratch, (g.h, RUN_FIELDS))
    count = runs_over(g.h, g.oh, g.kh, g.stride_h, g.top, 1, runs)
    _fill_scales(g, scales, int64s(rows_at, (g.oh,)), like)
    scale = like.dtype.type(1) / (like.dtype.type(g.kh) * like.dtype.type(g.kw))
    kind, alike = gradient_kind(g), _alike(g)
    if not alike:
        kind = ANY if g.stride_w == 1 else STRIDED
    inside = gradient_inside(g, kind, VECTOR_BYTES // size)
    zero, one, odd = classes_of_columns(g)
    row = first
    while row < past:
        p, row0 = row // g.h, row % g.h
        row1 = min(g.h, row0 + past - row)
        for i in range(count):
            skipped, rows = run_between(runs[i], g.stride_h, row0, row1)
            source, target = p * g.oh + runs[i, 2] + skipped, p * g.h + runs[i, 0] + skipped * g.stride_h
            # Rows of windows whose scales differ are no run.
            together = rows if alike else 1
            for residue in range(min(g.stride_w, g.w) if kind == STRIDED else 1):
                start, windows, columns = zero - (g.kw - 2), 1, g.w
                if kind != PAIRS and kind != HALF_TRIPLES:
                    start, windows, _ = taps_of_residue(residue, g)
                    columns = (g.w - residue + g.stride_w - 1) // g.stride_w
                for one_row in range(0, rows, max(1, together)):
                    avg_gradient_of_columns(
                        kind, together, g.ow * size, g.stride_h * g.w * size, dy + (source + one_row) * g.ow * size,
                        g.ow * size, size, runs[i, 3], windows, start, 1, g.ow, one, odd, 0, 0, 0,
                        dx + (target + one_row * g.stride_h) * g.w * size, residue, g.stride_w, g.w, columns, inside,
                        stream, scales, rows_at + 8 * (source + one_row - p * g.oh), 8, 0, scale, like,
                    )  # fmt: skip
        row += row1 - row0
    if stream != 0:
        fence()
