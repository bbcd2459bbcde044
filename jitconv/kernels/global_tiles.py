"""Reductions over whole images, by explicit vectors: of a run of a plane, and of groups of channels over all pixels."""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .pool_lanes import MINUS_INF, Lanes, place, rolled
from .simd import I1, I32, I64, VECTOR_BYTES, at, i64

VECTORS = 4  # side by side: so many sums or maxima hide the latency of the next
BLOCK = 128  # terms of one sum, before it is added to that of the blocks
PIXELS_AHEAD = (
    8  # channels of the pixels after next are fetched ahead: no hardware prefetcher follows 256 of 2048 bytes
)

DOUBLE = ir.DoubleType()


def _slots(builder, value, count):
    slots = [cgutils.alloca_once_value(builder, value) for _ in range(count)]
    for slot in slots:
        builder.store(value, slot)
    return slots


def _as_doubles(builder, lanes, value):
    """Return a vector as vectors of float64, whole ones."""
    if lanes.itemsize == 8:
        return [value]
    half = lanes.lanes // 2
    parts = []
    for part in (0, 1):
        mask = ir.Constant(ir.VectorType(I32, half), [part * half + i for i in range(half)])
        parts.append(builder.shuffle_vector(value, value, mask))
    return [builder.fpext(part, ir.VectorType(DOUBLE, half)) for part in parts]


def _halve(builder, value, count):
    """Return the lower and the upper half of a vector's lanes, both as its lower lanes."""
    undefined = ir.Constant(value.type, ir.Undefined)
    mask = [count // 2 + i if i < count // 2 else i for i in range(value.type.count)]
    return value, builder.shuffle_vector(value, undefined, ir.Constant(ir.VectorType(I32, value.type.count), mask))


def _reduce(builder, value, combine):
    count = value.type.count
    while count > 1:
        value = combine(*_halve(builder, value, count))
        count //= 2
    return builder.extract_element(value, ir.Constant(I32, 0))


def _each_vector(builder, lanes, pointer, count, otherwise, use):
    """Call `use` with every vector of a run and its number from 0 to VECTORS - 1: groups of so many, then the rest."""
    group = lanes.lanes * VECTORS
    groups = builder.sdiv(count, i64(group))
    with rolled(builder, groups) as one:
        start = at(builder, pointer, builder.mul(one.index, i64(VECTORS * lanes.bytes)))
        use([lanes.load(at(builder, start, number * lanes.bytes)) for number in range(VECTORS)])
    done = builder.mul(groups, i64(group))
    rest = builder.sdiv(builder.add(builder.sub(count, done), i64(lanes.lanes - 1)), i64(lanes.lanes))
    with rolled(builder, rest) as one:
        first = builder.add(done, builder.mul(one.index, i64(lanes.lanes)))
        mask = lanes.inside(lanes.columns(first, i64(1)), count)
        use([lanes.read(at(builder, pointer, builder.mul(first, i64(lanes.itemsize))), mask, otherwise)])


@intrinsic
def run_sum(typingctx, address, count, like):
    """Return the sum of a run, in float64."""

    def codegen(context, builder, signature, args):
        lanes = Lanes(builder, signature.args[-1])
        kind = ir.VectorType(DOUBLE, VECTOR_BYTES // 8)
        each = 8 // lanes.itemsize
        slots = _slots(builder, ir.Constant(kind, [0.0] * kind.count), VECTORS * each)

        def add(values):
            parts = [part for value in values for part in _as_doubles(builder, lanes, value)]
            for slot, part in zip(slots, parts, strict=False):
                builder.store(builder.fadd(builder.load(slot), part), slot)

        _each_vector(builder, lanes, place(builder, args[0]), args[1], 0.0, add)
        totals = [builder.load(slot) for slot in slots]
        while len(totals) > 1:
            totals = [builder.fadd(*totals[i : i + 2]) for i in range(0, len(totals), 2)]
        return _reduce(builder, totals[0], builder.fadd)

    return types.float64(types.intp, types.intp, like), codegen


@intrinsic
def run_max(typingctx, address, count, like):
    """Return the largest element of a run, or NaN if there is one."""

    def codegen(context, builder, signature, args):
        lanes = Lanes(builder, signature.args[-1])
        slots = _slots(builder, lanes.fill(MINUS_INF), VECTORS)
        masks = ir.VectorType(I1, lanes.lanes)
        nans = _slots(builder, ir.Constant(masks, [0] * lanes.lanes), 1)[0]

        def larger(x, y):
            return builder.select(builder.fcmp_ordered(">", x, y), x, y)

        def take(values):
            for slot, value in zip(slots, values, strict=False):
                builder.store(larger(value, builder.load(slot)), slot)
            for i in range(0, len(values), 2):  # one comparison finds a NaN in either of two
                found = builder.fcmp_unordered("uno", values[i], values[min(i + 1, len(values) - 1)])
                builder.store(builder.or_(builder.load(nans), found), nans)

        _each_vector(builder, lanes, place(builder, args[0]), args[1], MINUS_INF, take)
        best = [builder.load(slot) for slot in slots]
        while len(best) > 1:
            best = [larger(*best[i : i + 2]) for i in range(0, len(best), 2)]
        bits = builder.bitcast(builder.load(nans), ir.IntType(lanes.lanes))
        some = builder.icmp_unsigned("!=", bits, ir.Constant(bits.type, 0))
        return builder.select(some, ir.Constant(lanes.scalar, float("nan")), _reduce(builder, best[0], larger))

    return like.dtype(types.intp, types.intp, like), codegen


@intrinsic
def first_of(typingctx, address, count, value, like):
    """Return the place of the first element that is `value` or NaN; `count` if there is none."""

    def codegen(context, builder, signature, args):
        lanes = Lanes(builder, signature.args[-1])
        pointer, count = place(builder, args[0]), args[1]
        wanted = lanes.every(args[2])
        place_in = _slots(builder, count, 1)[0]
        vectors = builder.sdiv(builder.add(count, i64(lanes.lanes - 1)), i64(lanes.lanes))
        with cgutils.for_range(builder, vectors) as vector:
            first = builder.mul(vector.index, i64(lanes.lanes))
            mask = lanes.inside(lanes.columns(first, i64(1)), count)
            values = lanes.read(at(builder, pointer, builder.mul(first, i64(lanes.itemsize))), mask, MINUS_INF)
            same = builder.or_(
                builder.fcmp_ordered("==", values, wanted), builder.fcmp_unordered("uno", values, values)
            )
            bits = builder.bitcast(builder.and_(same, mask), ir.IntType(lanes.lanes))
            with builder.if_then(builder.icmp_unsigned("!=", bits, ir.Constant(bits.type, 0))):
                lane = builder.cttz(builder.zext(bits, I64), ir.Constant(I1, 1))
                builder.store(builder.add(first, lane), place_in)
                vector.do_break()
        return builder.load(place_in)

    return types.intp(types.intp, types.intp, like.dtype, like), codegen


def _channel_groups(builder, lanes, channels, emit):
    """Emit, for groups of VECTORS vectors of channels and then for one and one: emit(first channel, vectors, mask)."""
    group = lanes.lanes * VECTORS
    groups = builder.sdiv(channels, i64(group))
    with rolled(builder, groups) as one:
        emit(builder.mul(one.index, i64(group)), VECTORS, None)
    done = builder.mul(groups, i64(group))
    rest = builder.sdiv(builder.add(builder.sub(channels, done), i64(lanes.lanes - 1)), i64(lanes.lanes))
    with rolled(builder, rest) as one:
        first = builder.add(done, builder.mul(one.index, i64(lanes.lanes)))
        emit(first, 1, lanes.inside(lanes.columns(first, i64(1)), channels))


def _pixel(builder, lanes, pointer, vectors, mask, otherwise):
    """Return the vectors of a pixel."""
    values = []
    for number in range(vectors):
        here = at(builder, pointer, number * lanes.bytes)
        values.append(lanes.read(here, mask, otherwise))
    return values


@intrinsic
def channel_means(typingctx, x, pitch, pixels, channels, y, like):
    """Overwrite y (channels,) with the means of pixels that lie `pitch` bytes apart."""

    def codegen(context, builder, signature, args):
        x, pitch, pixels, channels, y, _ = args
        lanes = Lanes(builder, signature.args[-1])
        x, y = place(builder, x), place(builder, y)
        kind = ir.VectorType(DOUBLE, VECTOR_BYTES // 8)
        zero = ir.Constant(kind, [0.0] * kind.count)
        each = 8 // lanes.itemsize
        by = builder.sitofp(pixels, DOUBLE)
        divisor = builder.insert_element(ir.Constant(kind, ir.Undefined), by, ir.Constant(I32, 0))
        same = ir.Constant(ir.VectorType(I32, kind.count), [0] * kind.count)
        divisor = builder.shuffle_vector(divisor, divisor, same)
        blocks = builder.sdiv(builder.add(pixels, i64(BLOCK - 1)), i64(BLOCK))

        def emit(first, vectors, mask):
            offset = builder.mul(first, i64(lanes.itemsize))
            totals, sums = _slots(builder, zero, vectors * each), _slots(builder, zero, vectors * each)
            with rolled(builder, blocks) as block:
                begin = builder.mul(block.index, i64(BLOCK))
                rest = builder.sub(pixels, begin)
                count = builder.select(builder.icmp_signed("<", rest, i64(BLOCK)), rest, i64(BLOCK))
                for slot in sums:
                    builder.store(zero, slot)
                with rolled(builder, count) as pixel:
                    where = builder.add(offset, builder.mul(builder.add(begin, pixel.index), pitch))
                    values = _pixel(builder, lanes, at(builder, x, where), vectors, mask, 0.0)
                    parts = [part for value in values for part in _as_doubles(builder, lanes, value)]
                    for slot, part in zip(sums, parts, strict=True):
                        builder.store(builder.fadd(builder.load(slot), part), slot)
                for total, slot in zip(totals, sums, strict=True):
                    builder.store(builder.fadd(builder.load(total), builder.load(slot)), total)
            means = [builder.fdiv(builder.load(total), divisor) for total in totals]
            for number in range(vectors):
                parts = means[number * each : (number + 1) * each]
                value = parts[0]
                if each == 2:
                    narrow = ir.VectorType(lanes.scalar, lanes.lanes // 2)
                    joined = ir.Constant(ir.VectorType(I32, lanes.lanes), list(range(lanes.lanes)))
                    value = builder.shuffle_vector(*(builder.fptrunc(part, narrow) for part in parts), joined)
                to = at(builder, at(builder, y, offset), number * lanes.bytes)
                if mask is None:
                    lanes.store(value, to)
                else:
                    lanes.store_masked(value, to, mask)

        _channel_groups(builder, lanes, channels, emit)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 5, like), codegen


@intrinsic
def channel_maxima(typingctx, x, pitch, pixels, channels, y, index, like):
    """Overwrite y (channels,) with the maxima of pixels `pitch` bytes apart, and index, uint64, with their places."""

    def codegen(context, builder, signature, args):
        x, pitch, pixels, channels, y, index, _ = args
        lanes = Lanes(builder, signature.args[-1], types.CPointer(types.uint64))
        x, y, index = (place(builder, address) for address in (x, y, index))

        def emit(first, vectors, mask):
            offset = builder.mul(first, i64(lanes.itemsize))
            best = _slots(builder, lanes.fill(MINUS_INF), vectors)
            found = _slots(builder, lanes.splat(0, lanes.taps), vectors)
            with rolled(builder, pixels) as pixel:
                where = at(builder, x, builder.add(offset, builder.mul(pixel.index, pitch)))
                values = _pixel(builder, lanes, where, vectors, mask, MINUS_INF)
                number = lanes.splat(pixel.index, lanes.taps)
                for value, *slots in zip(values, best, found, strict=True):
                    state = lanes.challenge([builder.load(slot) for slot in slots], value, number)
                    for slot, new in zip(slots, state, strict=True):
                        builder.store(new, slot)
            entries = builder.mul(first, i64(8))
            for number in range(vectors):
                whole = ir.Constant(I1, mask is None)
                some = lanes.first_lanes(i64(lanes.lanes)) if mask is None else mask
                lanes.write(
                    builder.load(best[number]), at(builder, at(builder, y, offset), number * lanes.bytes), whole, some
                )
                to = at(builder, at(builder, index, entries), 8 * number * lanes.lanes)
                lanes.write_entries(builder.load(found[number]), to, whole, some)

        _channel_groups(builder, lanes, channels, emit)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 6, like), codegen
