"""Tiles of pooling, backward: one vector of pixels, each the sum over the windows that cover it.

A pixel belongs to the tile that writes it, and its sum takes the windows in the order of the output rows and columns,
in max pooling each row of windows by itself from zero: no thread writes what another reads, and both layouts give the
same bits. A lane is a channel (NHWC) or a column (NCHW).

Windows at stride 2 fall into two classes, by their columns of taps: 0 and 2, or 1. The even columns of an image take
those of one class, the odd ones those of the other; which, is decided by the padding.
"""

from __future__ import annotations

from typing import NamedTuple

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .pool_lanes import Lanes, emit_masked, place, rolled, times
from .simd import I64, POINTER, at, cases, i64


class Kind(NamedTuple):
    """What a tile takes for granted: windows side by side over a pixel (0: any), and columns from lane to lane in dx
    (0: any). With two it is the windows of the first class.
    """

    windows: int
    step: int


CHANNEL_KINDS = (Kind(0, 1), Kind(1, 1), Kind(2, 1), Kind(3, 1))  # by their windows
COLUMN_KINDS = (Kind(0, 1), Kind(3, 1), Kind(1, 2), Kind(2, 2), Kind(0, 0))
ANY, TRIPLES, PAIRS, HALF_TRIPLES, STRIDED = range(5)


class Arguments(NamedTuple):
    """Of the tiles of some runs: `length` pixels side by side each, the next one dy_run and dx_run bytes on.

    dy: the first row of windows over them, of `rows` that lie dy_row bytes apart. start: what lies over the first lane,
    a channel or a window, of `width`; the next of the `windows` lies dy_column bytes and start_step on. other: as
    `start`, for the second class; odd: the odd columns take the first. tap: that of the first window, less by tap_row
    and tap_column for the next. first, stride, w: the first lane's column of dx, from lane to lane, and how many.
    argmax: lies as dy does. scales: what dy is multiplied by, one for each window of a row; scale_rows: where those of
    the first row of windows begin, the next scale_row bytes on; window: over the first pixel.
    """

    kind: object
    runs: object
    dy_run: object
    dx_run: object
    dy: object
    dy_row: object
    dy_column: object
    rows: object
    windows: object
    start: object
    start_step: object
    width: object
    other: object
    odd: object
    tap: object
    tap_row: object
    tap_column: object
    dx: object
    first: object
    stride: object
    w: object
    length: object
    inside: object
    stream: object
    scales: object = None
    scale_rows: object = None
    scale_row: object = None
    window: object = None
    argmax: object = None


class _Tile:
    """Emits the tiles of one intrinsic. `by_channel`: all lanes have the same windows; `scale`: that of all windows."""

    def __init__(self, builder, lanes, by_channel, scale, args):
        self.builder, self.lanes, self.by_channel, self.scale, self.args = builder, lanes, by_channel, scale, args
        self.entries = ir.VectorType(lanes.entry, lanes.lanes)

    def bytes(self, elements):
        return self.builder.mul(elements, i64(self.lanes.itemsize))

    def emit(self, kind, masked):
        """Emit the tiles of some runs, one after the other."""
        builder, lanes, given = self.builder, self.lanes, self.args
        pixels = lanes.lanes * max(kind.step, 1)
        vectors = builder.sdiv(builder.add(given.length, i64(pixels - 1)), i64(pixels))
        with rolled(builder, given.runs) as run, rolled(builder, vectors) as vector:
            done, written = (builder.mul(vector.index, i64(count)) for count in (lanes.lanes, pixels))
            self.run = run.index
            to = builder.mul(run.index, given.dx_run)
            if kind.step:
                to = builder.add(to, self.bytes(written))
            self.args = given._replace(
                start=builder.add(given.start, done),
                other=builder.add(given.other, done),
                length=builder.sub(given.length, written),
                first=builder.add(given.first, builder.mul(done, given.stride)),
                dx=at(builder, given.dx, to),
            )
            self._tile(kind, masked)
        self.args = given

    def _tile(self, kind, masked):
        builder, lanes, args = self.builder, self.lanes, self.args
        groups = [[(args.start, number, 0) for number in range(kind.windows)]]
        if kind.step == 2:
            # Of three columns of taps the first class has 2 and 0, from window to window; of two it has 0.
            groups.append([(args.other, 0, -1 if kind.windows == 2 else 1)])
        sums = self._sums(groups, masked)
        if kind.step == 2:
            odd = builder.icmp_signed("!=", args.odd, i64(0))
            pair = [builder.select(odd, *sums[::-1]), builder.select(odd, *sums)]
            for half in (0, 1):
                count = builder.sub(args.length, i64(half * lanes.lanes))
                with builder.if_then(builder.icmp_signed(">", count, i64(0))):
                    self._write(lanes.interleave(*pair, half), at(builder, args.dx, half * lanes.bytes), count)
        elif kind.step == 1:
            self._write(sums[0], args.dx, args.length)
        else:
            columns = lanes.columns(args.first, args.stride)
            lanes.scatter(sums[0], args.dx, columns, lanes.inside(columns, args.w))

    def _write(self, value, pointer, count):
        whole = self.builder.icmp_signed(">=", count, i64(self.lanes.lanes))
        self.lanes.write(value, pointer, whole, self.lanes.first_lanes(count), self.args.stream)

    def _sums(self, groups, masked):
        """Return the sums over groups of windows: where the first lane's lies, how many further, what is added to the
        tap. An empty group: all windows.
        """
        builder, lanes, args = self.builder, self.lanes, self.args
        slots = [cgutils.alloca_once_value(builder, lanes.zero) for _ in groups]
        own = cgutils.alloca_once_value(builder, lanes.zero)
        for slot in slots:
            builder.store(lanes.zero, slot)
        with rolled(builder, args.rows) as row:
            for slot, group in zip(slots, groups, strict=True):
                total = builder.load(slot)
                before, total = total, lanes.zero if lanes.has_argmax else total
                for start, number, extra in group:
                    total = self._add(total, row.index, start, i64(number), extra, masked, True)
                if not group:
                    builder.store(total, own)
                    with rolled(builder, args.windows) as window:
                        total = self._add(builder.load(own), row.index, args.start, window.index, 0, masked, False)
                        builder.store(total, own)
                    total = builder.load(own)
                builder.store(builder.fadd(before, total) if lanes.has_argmax else total, slot)
        return [builder.load(slot) for slot in slots]

    def _add(self, total, row, start, number, extra, masked, alike):
        """Return the sum with what one window gives; `alike`: all windows have the same scale."""
        builder, lanes, args = self.builder, self.lanes, self.args
        places = [
            builder.mul(self.run, args.dy_run),
            builder.mul(row, args.dy_row),
            builder.mul(number, args.dy_column),
        ]
        offset = self.bytes(start)
        for each in places:
            offset = builder.add(offset, each)
        start = builder.add(start, builder.mul(number, args.start_step))
        where = lanes.inside(lanes.columns(start, i64(1)), args.width) if masked else None
        dy = lanes.read(at(builder, args.dy, offset), where, 0.0)
        if lanes.has_argmax:
            entry = builder.ashr(offset, i64(lanes.itemsize.bit_length() - 1))
            found = lanes.read_entries(at(builder, args.argmax, entry), where)
            less = builder.add(builder.mul(row, args.tap_row), builder.mul(number, args.tap_column))
            tap = builder.sub(builder.add(args.tap, i64(extra)), less)
            chosen = builder.icmp_unsigned("==", found, lanes.splat(tap, self.entries))
            return builder.select(chosen, builder.fadd(total, dy), total)
        if alike:
            return lanes.fma(dy, self.scale, total)
        begin = at(builder, args.scale_rows, builder.mul(row, args.scale_row))
        scales = at(builder, args.scales, builder.load(builder.bitcast(begin, I64.as_pointer())))
        if self.by_channel:
            window = builder.add(builder.add(args.window, self.run), number)
            weight = lanes.broadcast(at(builder, scales, self.bytes(window)))
        else:
            weight = lanes.read(at(builder, scales, self.bytes(start)), where, 0.0)
        return lanes.fma(dy, weight, total)


def _emit_kinds(builder, lanes, kinds, scale, arguments):
    pointers = {name: place(builder, getattr(arguments, name)) for name in ("dy", "dx", "scales", "scale_rows")
                if getattr(arguments, name) is not None}  # fmt: skip
    tile = _Tile(builder, lanes, kinds == CHANNEL_KINDS, scale, arguments._replace(**pointers))
    for number, _ in cases(builder, arguments.kind, range(len(kinds))):
        emit_masked(builder, kinds[number], arguments.inside, tile.emit)


def _max_tile(kinds):
    @intrinsic
    def max_tile(
        typingctx, kind, runs, dy_run, dx_run, dy, dy_row, dy_column, rows, windows, start, start_step, width, other,
        odd, tap, tap_row, tap_column, dx, first, stride, w, length, inside, stream, argmax, like,
    ):  # fmt: skip
        """Overwrite pixels with the sums of dy where argmax is theirs; see `Arguments`."""

        def codegen(context, builder, signature, args):
            lanes = Lanes(builder, signature.args[-1], argmax)
            given = Arguments(*args[:-2], argmax=builder.bitcast(args[-2], POINTER))
            _emit_kinds(builder, lanes, kinds, None, given)
            return context.get_dummy_value()

        return types.void(*[types.intp] * 24, argmax, like), codegen

    return max_tile


def _sum_tile(kinds):
    @intrinsic
    def avg_tile(
        typingctx, kind, runs, dy_run, dx_run, dy, dy_row, dy_column, rows, windows, start, start_step, width, other,
        odd, tap, tap_row, tap_column, dx, first, stride, w, length, inside, stream, scales, scale_rows, scale_row,
        window, scale, like,
    ):  # fmt: skip
        """Overwrite pixels with the sums of dy times its scale; see `Arguments`."""

        def codegen(context, builder, signature, args):
            lanes = Lanes(builder, signature.args[-1])
            _emit_kinds(builder, lanes, kinds, lanes.every(args[-2]), Arguments(*args[:-2]))
            return context.get_dummy_value()

        return types.void(*[types.intp] * 28, like.dtype, like), codegen

    return avg_tile


class RowArguments(NamedTuple):
    """Of a row of dx in NHWC under three columns of taps at stride 1.

    dy, argmax: the first row of windows over it, of `rows` (1 to 3), dy_row bytes apart; tap: that of its first column
    of taps, less by tap_row for the next row. ow: windows of a row, pixels `pixel` bytes apart. left: the padding
    before the first of the `w` pixels of dx. vectors: whole ones of channels.
    """

    rows: object
    vectors: object
    pixel: object
    dy: object
    dy_row: object
    ow: object
    tap: object
    tap_row: object
    dx: object
    left: object
    w: object
    argmax: object


def _emit_row(builder, lanes, rows, args):
    """Emit a row of dx: each dy is loaded once, and added to the three pixels under its window.

    As a tile that takes the nine windows of a pixel it is bound by loads: 3.3 ns a vector, 6.3 as a tile.
    """
    entries = ir.VectorType(lanes.entry, lanes.lanes)
    shift = i64(lanes.itemsize.bit_length() - 1)
    taps = [[lanes.splat(builder.add(builder.sub(args.tap, times(builder, args.tap_row, row)), i64(column)), entries)
             for column in range(3)] for row in range(rows)]  # fmt: skip
    with rolled(builder, args.vectors) as vector:
        lane = builder.mul(vector.index, i64(lanes.bytes))
        # Sums of a row of windows for the pixels that further windows cover: the nearest pixel, and the next.
        slots = [[cgutils.alloca_once_value(builder, lanes.zero) for _ in range(rows)] for _ in range(2)]
        for slot in (*slots[0], *slots[1]):
            builder.store(lanes.zero, slot)

        def write(sums, column):
            inside = builder.icmp_unsigned("<", column, args.w)  # a negative one is not
            with builder.if_then(inside):
                total = sums[0]
                for one in sums[1:]:
                    total = builder.fadd(total, one)
                lanes.store(total, at(builder, args.dx, builder.add(lane, builder.mul(column, args.pixel))))

        with rolled(builder, args.ow) as window:
            offset = builder.add(lane, builder.mul(window.index, args.pixel))
            done = []
            for row in range(rows):
                there = builder.add(offset, times(builder, args.dy_row, row))
                value = lanes.load(at(builder, args.dy, there))
                found = lanes.read_entries(at(builder, args.argmax, builder.ashr(there, shift)), None)
                sums = [builder.load(slots[0][row]), builder.load(slots[1][row]), lanes.zero]
                for column in range(3):
                    chosen = builder.icmp_unsigned("==", found, taps[row][column])
                    sums[column] = builder.select(chosen, builder.fadd(sums[column], value), sums[column])
                done.append(sums[0])
                builder.store(sums[1], slots[0][row])
                builder.store(sums[2], slots[1][row])
            write(done, builder.sub(window.index, args.left))
        for further in range(2):
            last = builder.sub(builder.add(args.ow, i64(further)), args.left)
            write([builder.load(slot) for slot in slots[further]], last)


@intrinsic
def max_gradient_of_row(
    typingctx, rows, vectors, pixel, dy, dy_row, ow, tap, tap_row, dx, left, w, argmax, like
):  # fmt: skip
    """Overwrite a row of dx with the sums of dy where argmax is its pixels'; see `RowArguments`."""

    def codegen(context, builder, signature, args):
        lanes = Lanes(builder, signature.args[-1], argmax)
        given = RowArguments(*args[:-2], argmax=builder.bitcast(args[-2], POINTER))
        given = given._replace(dy=place(builder, given.dy), dx=place(builder, given.dx))
        for rows, _ in cases(builder, given.rows, (1, 2, 3)):
            _emit_row(builder, lanes, rows, given)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 11, argmax, like), codegen


max_gradient_of_channels, max_gradient_of_columns = _max_tile(CHANNEL_KINDS), _max_tile(COLUMN_KINDS)
avg_gradient_of_channels, avg_gradient_of_columns = _sum_tile(CHANNEL_KINDS), _sum_tile(COLUMN_KINDS)
