"""Tiles of pooling, forward: one vector of outputs of one row, or of a few rows that share the rows under them.

A lane is a channel (NHWC) or an output column (NCHW). Only how lanes lie in the image differs, so one emitter serves
both, for maxima and sums. A tap outside the image is read as minus infinity or zero, which changes neither.
"""

from __future__ import annotations

from typing import NamedTuple

from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .pool_lanes import MINUS_INF, Lanes, emit_masked, place, rolled, times
from .simd import POINTER, at, cases, i64


class Kind(NamedTuple):
    """What a tile takes for granted: columns of the window (0: any), columns from lane to lane (0: any), output rows,
    and the rows from one to the next where there are several of a 3x3 window.
    """

    columns: int
    step: int
    rows: int = 1
    down: int = 1


# Four rows of 3x3 windows at stride 1 take 20 comparisons instead of 36, two at stride 2 take 14 instead of 18.
TOGETHER = (4, 2)
CHANNEL_KINDS = (Kind(0, 1), Kind(2, 1), Kind(3, 1), Kind(3, 1, 4, 1), Kind(3, 1, 2, 2))
COLUMN_KINDS = (Kind(0, 1), Kind(2, 2), Kind(3, 1), Kind(3, 1, 4, 1), Kind(3, 2, 2, 2), Kind(3, 2), Kind(0, 0))
ANY, PAIRS, TRIPLES, FOUR_ROWS, TWO_ROWS, HALF_TRIPLES, STRIDED = range(7)
# Sums keep the order of the taps, so that every tile gives the same bits: no tile of several rows.


class _Tile:
    """Emits the tiles of one intrinsic."""

    def __init__(self, builder, lanes, largest, args):
        self.builder, self.lanes, self.largest, self.args = builder, lanes, largest, args
        self.size = lanes.itemsize

    def read(self, pointer, columns):
        """Load a vector at `pointer`; `columns`: where it lies in the row, None if that is inside."""
        mask = None if columns is None else self.lanes.inside(columns, self.args.w)
        return self.lanes.read(pointer, mask, MINUS_INF if self.largest else 0.0)

    def columns(self, further):
        """Return the columns of the lanes under a tap that is so many columns further, one apart."""
        return self.builder.add(self.first, self.lanes.splat(further, self.lanes.places))

    def tap(self, row, step, masked, column):
        """Return one tap of all lanes, and its columns: `column` columns of the window after the first."""
        builder, args, lanes = self.builder, self.args, self.lanes
        further = builder.mul(column, args.column)
        pointer = at(
            builder, at(builder, row, builder.mul(args.start, i64(self.size))), builder.mul(column, args.column_step)
        )
        if step == 1:
            return self.read(pointer, self.columns(further) if masked else None)
        columns = lanes.columns(builder.add(args.start, further), args.stride)
        return lanes.gather(row, columns, lanes.inside(columns, args.w), MINUS_INF if self.largest else 0.0)

    def taps(self, row, kind, masked):
        """Return the vectors under all columns of a window, in order."""
        if kind.step == 1:
            return [self.tap(row, 1, masked, i64(column)) for column in range(kind.columns)]
        builder, lanes = self.builder, self.lanes
        pointer = at(builder, row, builder.mul(self.args.start, i64(self.size)))

        def pair(further):
            found = []
            for half in (further, further + lanes.lanes):
                found.append(self.read(at(builder, pointer, half * self.size), self.columns(half) if masked else None))
            return lanes.halves(*found)

        values = pair(0)
        return values if kind.columns == 2 else [*values, pair(2)[0]]

    def take(self, state, value, tap):
        """Return the state of a window after one more tap."""
        if self.largest:
            return self.lanes.challenge(state, value, tap)
        return self.builder.fadd(state[0], value), state[1]

    def emit(self, kind, masked):
        """Emit the tiles of some runs, one after the other."""
        builder, lanes, given = self.builder, self.lanes, self.args
        vectors = builder.sdiv(builder.add(given.length, i64(lanes.lanes - 1)), i64(lanes.lanes))
        with rolled(builder, given.runs) as run, rolled(builder, vectors) as vector:
            done = builder.mul(vector.index, i64(lanes.lanes))
            moved = {
                "x": at(builder, given.x, builder.mul(run.index, given.x_run)),
                "y": at(builder, given.y, builder.add(builder.mul(run.index, given.y_run), self._bytes(done))),
                "start": builder.add(given.start, builder.mul(done, given.stride)),
                "length": builder.sub(given.length, done),
            }
            if not self.largest:
                moved["window"] = builder.add(given.window, builder.mul(done, given.window_step))
            elif lanes.has_argmax:
                entries = builder.add(builder.mul(builder.sdiv(given.y_run, i64(self.size)), run.index), done)
                moved["argmax"] = at(builder, given.argmax, builder.mul(entries, i64(lanes.entry.width // 8)))
            self.args = given._replace(**moved)
            self._tile(kind, masked)
        self.args = given

    def _bytes(self, elements):
        return self.builder.mul(elements, i64(self.size))

    def _tile(self, kind, masked):
        builder, lanes, args = self.builder, self.lanes, self.args
        self.first = lanes.columns(args.start, i64(1))
        whole = builder.icmp_signed(">=", args.length, i64(lanes.lanes))
        mask = lanes.first_lanes(args.length)
        rows = self._several(kind, masked) if kind.rows > 1 else [self._one(kind, masked)]
        for number, (value, taps) in enumerate(rows):
            pointer = at(builder, args.y, times(builder, args.y_row, number))
            lanes.write(self.finish(value), pointer, whole, mask, args.stream)
            if lanes.has_argmax:
                lanes.write_entries(
                    taps, at(builder, args.argmax, times(builder, args.argmax_row, number)), whole, mask
                )

    def _one(self, kind, masked):
        builder, lanes, args = self.builder, self.lanes, self.args
        start = lanes.fill(MINUS_INF if self.largest else 0.0), lanes.splat(args.tap, lanes.taps)
        slots = [cgutils.alloca_once_value(builder, value) for value in start]
        for slot, value in zip(slots, start, strict=True):
            builder.store(value, slot)

        def step(value, tap):
            state = self.take([builder.load(slot) for slot in slots], value, lanes.splat(tap, lanes.taps))
            for slot, new in zip(slots, state, strict=True):
                builder.store(new, slot)

        with rolled(builder, args.rows) as k:
            row = at(builder, args.x, builder.mul(k.index, args.row_step))
            tap = builder.add(args.tap, builder.mul(k.index, args.kw))
            if kind.columns:
                for column, value in enumerate(self.taps(row, kind, masked)):
                    step(value, builder.add(tap, i64(column)))
            else:
                with rolled(builder, args.columns) as column:
                    step(self.tap(row, kind.step, masked, column.index), builder.add(tap, column.index))
        return [builder.load(slot) for slot in slots]

    def _several(self, kind, masked):
        """Take the maximum of each row of three pixels once, for all windows over it, then of these."""
        builder, lanes, args = self.builder, self.lanes, self.args
        across = []
        for row in range((kind.rows - 1) * kind.down + 3):
            values = self.taps(at(builder, args.x, times(builder, args.row_step, row)), kind, masked)
            best = values[0], lanes.splat(0, lanes.taps)
            for column, value in enumerate(values[1:], 1):
                best = lanes.challenge(best, value, lanes.splat(column, lanes.taps))
            across.append(best)
        found = []
        for row in range(kind.rows):
            best = across[row * kind.down]
            for k in (1, 2):
                value, tap = across[row * kind.down + k]
                best = lanes.challenge(best, value, builder.add(tap, lanes.splat(3 * k, lanes.taps)))
            found.append(best)
        return found

    def finish(self, value):
        """Divide a sum by the pixels that its window counts: columns from `window` on, up to `end` or from `floor`."""
        if self.largest:
            return value
        builder, lanes, args = self.builder, self.lanes, self.args
        first = lanes.columns(args.window, args.window_step)
        past = builder.add(first, lanes.splat(args.kw, lanes.places))
        end, floor = lanes.splat(args.end, lanes.places), lanes.splat(args.floor, lanes.places)
        past = builder.select(builder.icmp_signed("<", past, end), past, end)
        first = builder.select(builder.icmp_signed(">", first, floor), first, floor)
        width = builder.sitofp(builder.sub(past, first), lanes.type)
        height = lanes.every(builder.sitofp(args.height, lanes.scalar))
        return builder.fdiv(value, builder.fmul(height, width))


class MaxArguments(NamedTuple):
    """Of the tiles of some runs. Steps and runs are in bytes, the rest in elements or rows.

    A run is `length` outputs side by side, of a row's columns or a pixel's channels; the next lies x_run, y_run on.
    x: the row of the first tap; start: where the first lane's first tap lies in it, and w: how many columns there are;
    column, column_step: from one tap to the next; stride: from lane to lane; rows, columns: of taps.
    """

    kind: object
    runs: object
    x_run: object
    y_run: object
    x: object
    row_step: object
    start: object
    w: object
    column: object
    column_step: object
    stride: object
    rows: object
    columns: object
    length: object
    inside: object
    tap: object
    kw: object
    y: object
    y_row: object
    stream: object
    argmax: object
    argmax_at: object
    argmax_row: object


class SumArguments(NamedTuple):
    """Of a tile of averages: as `MaxArguments`, and the windows' columns and rows in place of argmax."""

    kind: object
    runs: object
    x_run: object
    y_run: object
    x: object
    row_step: object
    start: object
    w: object
    column: object
    column_step: object
    stride: object
    rows: object
    columns: object
    length: object
    inside: object
    tap: object
    kw: object
    y: object
    y_row: object
    stream: object
    window: object
    window_step: object
    end: object
    floor: object
    height: object


def _emit_kinds(builder, lanes, kinds, arguments, largest):
    arguments = arguments._replace(x=place(builder, arguments.x), y=place(builder, arguments.y))
    tile = _Tile(builder, lanes, largest, arguments)
    several = largest and lanes.entry.width == 8  # rows at once
    served = [number for number, kind in enumerate(kinds) if several or kind.rows == 1]
    for number, _ in cases(builder, arguments.kind, served):
        emit_masked(builder, kinds[number], arguments.inside, tile.emit)


def _max_tile(kinds):
    @intrinsic
    def max_tile(
        typingctx, kind, runs, x_run, y_run, x, row_step, start, w, column, column_step, stride, rows, columns, length,
        inside, tap, kw, y, y_row, stream, argmax, argmax_at, argmax_row, like,
    ):  # fmt: skip
        """Overwrite a tile of maxima, and of argmax if that is not None; see `MaxArguments`."""

        def codegen(context, builder, signature, args):
            lanes = Lanes(builder, signature.args[-1], signature.args[20])
            arguments = MaxArguments(*args[:-1])
            if lanes.has_argmax:
                start = at(builder, builder.bitcast(arguments.argmax, POINTER), arguments.argmax_at)
                arguments = arguments._replace(argmax=start)
            _emit_kinds(builder, lanes, kinds, arguments, True)
            return context.get_dummy_value()

        return types.void(*[types.intp] * 20, argmax, types.intp, types.intp, like), codegen

    return max_tile


def _sum_tile(kinds):
    @intrinsic
    def avg_tile(
        typingctx, kind, runs, x_run, y_run, x, row_step, start, w, column, column_step, stride, rows, columns, length,
        inside, tap, kw, y, y_row, stream, window, window_step, end, floor, height, like,
    ):  # fmt: skip
        """Overwrite a tile of averages; see `SumArguments`."""

        def codegen(context, builder, signature, args):
            lanes = Lanes(builder, signature.args[-1])
            _emit_kinds(builder, lanes, kinds, SumArguments(*args[:-1]), False)
            return context.get_dummy_value()

        return types.void(*[types.intp] * 25, like), codegen

    return avg_tile


max_of_channels, max_of_columns = _max_tile(CHANNEL_KINDS), _max_tile(COLUMN_KINDS)
avg_of_channels, avg_of_columns = _sum_tile(CHANNEL_KINDS), _sum_tile(COLUMN_KINDS)
