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
PIXELS = 4  # pixels whose channels are added up before their sum goes to memory

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


def _over_channels(builder, lanes, count, channels, use):
    """Emit `use(vector, pixels, mask)` for each vector of channels, of PIXELS pixels if that is `count`, or of one."""
    whole = builder.sdiv(channels, i64(lanes.lanes))

    def emit(pixels):
        with rolled(builder, whole) as vector:
            use(vector.index, pixels, None)
        done = builder.mul(whole, i64(lanes.lanes))
        with builder.if_then(builder.icmp_signed("<", done, channels)):
            use(whole, pixels, lanes.inside(lanes.columns(done, i64(1)), channels))

    with builder.if_else(builder.icmp_signed("==", count, i64(PIXELS))) as (several, one):
        with several:
            emit(PIXELS)
        with one:
            emit(1)


@intrinsic
def add_pixels(typingctx, x, pitch, count, channels, sums, like):
    """Add PIXELS pixels that lie `pitch` bytes apart, or one, to the float64 sums of their channels, whole vectors."""

    def codegen(context, builder, signature, args):
        x, pitch, count, channels, sums, _ = args
        lanes = Lanes(builder, signature.args[-1])
        x, sums = place(builder, x), place(builder, sums)
        kind = ir.VectorType(DOUBLE, VECTOR_BYTES // 8)

        def add(vector, pixels, mask):
            start = at(builder, x, builder.mul(vector, i64(lanes.bytes)))
            values = [lanes.read(at(builder, start, builder.mul(pitch, i64(i))), mask, 0.0) for i in range(pixels)]
            parts = [_as_doubles(builder, lanes, value) for value in values]
            while len(parts) > 1:
                parts = [
                    [builder.fadd(one, other) for one, other in zip(*parts[i : i + 2], strict=True)]
                    for i in range(0, len(parts), 2)
                ]
            to = at(builder, sums, builder.mul(vector, i64(8 * lanes.lanes)))
            for number, part in enumerate(parts[0]):
                slot = builder.bitcast(at(builder, to, number * VECTOR_BYTES), kind.as_pointer())
                builder.store(builder.fadd(builder.load(slot, align=8), part), slot, align=8)

        _over_channels(builder, lanes, count, channels, add)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 5, like), codegen


@intrinsic
def challenge_pixels(typingctx, x, pitch, number, count, channels, best, found, like):
    """Let PIXELS pixels that lie `pitch` bytes apart, or one, challenge the largest of their channels so far.

    `number`: of the first of them, which `found` gets where they win. `best` and `found` have whole vectors, `found` of
    integers as wide as an element.
    """

    def codegen(context, builder, signature, args):
        x, pitch, number, count, channels, best, found, _ = args
        lanes = Lanes(builder, signature.args[-1], types.CPointer(types.uint64))
        x, best, found = (place(builder, address) for address in (x, best, found))

        def challenge(vector, pixels, mask):
            offset = builder.mul(vector, i64(lanes.bytes))
            places = builder.bitcast(at(builder, found, offset), lanes.taps.as_pointer())
            state = lanes.load(at(builder, best, offset)), builder.load(places, align=lanes.itemsize)
            start = at(builder, x, offset)
            for i in range(pixels):
                value = lanes.read(at(builder, start, builder.mul(pitch, i64(i))), mask, MINUS_INF)
                state = lanes.challenge(state, value, lanes.splat(builder.add(number, i64(i)), lanes.taps))
            lanes.store(state[0], at(builder, best, offset))
            builder.store(state[1], places, align=lanes.itemsize)

        _over_channels(builder, lanes, count, channels, challenge)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 7, like), codegen


@intrinsic
def load_place(typingctx, found, channel, like):
    """Return one entry of `found` of `challenge_pixels`."""

    def codegen(context, builder, signature, args):
        lanes = Lanes(builder, signature.args[-1])
        pointer = builder.bitcast(place(builder, args[0]), lanes.integer.as_pointer())
        value = builder.load(builder.gep(pointer, [args[1]]), align=lanes.itemsize)
        return builder.zext(value, I64) if lanes.itemsize < 8 else value

    return types.intp(types.intp, types.intp, like), codegen
