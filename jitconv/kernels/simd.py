"""Vector operations as Numba intrinsics: explicit vector IR, so nothing hangs on the auto-vectoriser.

Addresses are int64 and offsets are in bytes. The width follows the CPU features that Numba compiles for, which
are part of its cache key: a cached kernel of another width is never loaded.
"""

from __future__ import annotations

import platform

from llvmlite import ir
from numba import from_dtype, types
from numba.core import cgutils
from numba.core.registry import cpu_target
from numba.extending import intrinsic

_, CPU_NAME, _FEATURES = cpu_target.target_context.codegen().magic_tuple()
FEATURES = frozenset(word[1:] for word in _FEATURES.split(",") if word.startswith("+"))

if {"avx512f", "avx512vl", "avx512dq"} <= FEATURES:
    VECTOR_BYTES, REGISTERS = 64, 32
elif {"avx2", "fma"} <= FEATURES:
    VECTOR_BYTES, REGISTERS = 32, 16
else:
    VECTOR_BYTES, REGISTERS = 16, 32 if platform.machine() in ("aarch64", "arm64") else 16

ALIGNMENT = 64  # bytes: a cache line, and the widest vector

I1, I8, I32, I64 = ir.IntType(1), ir.IntType(8), ir.IntType(32), ir.IntType(64)
POINTER = I8.as_pointer()


def i64(n):
    """Return a constant index."""
    return ir.Constant(I64, n)


def at(builder, base, offset):
    """Return `base` plus an offset in bytes (an int or a value)."""
    return builder.gep(base, [i64(offset) if isinstance(offset, int) else offset])


def cases(builder, number, places):
    """Yield each of `places` with the builder in the code for when `number` is it; behind them, emission goes on.

    Yielded too: the block behind them all. What a case emits may end with a branch there, or falls through to it.
    """
    end = builder.append_basic_block("chosen")
    choose = builder.switch(number, end)
    for place in places:
        block = builder.append_basic_block(f"case{place}")
        choose.add_case(i64(place), block)
        builder.position_at_end(block)
        yield place, end
        if not builder.block.is_terminated:
            builder.branch(end)
    builder.position_at_end(end)


def scalar_of(array_type):
    """Return (LLVM type, item size, lanes of one vector) for the elements of a Numba array type."""
    kind, itemsize = (ir.FloatType(), 4) if array_type.dtype == types.float32 else (ir.DoubleType(), 8)
    return kind, itemsize, VECTOR_BYTES // itemsize


def record_at(dtype):
    """Return an intrinsic that reads the record of this NumPy dtype at an address."""
    record = from_dtype(dtype)

    @intrinsic
    def at_address(typingctx, address):
        def codegen(context, builder, signature, args):
            return builder.inttoptr(args[0], context.get_value_type(record))

        return record(types.intp), codegen

    return at_address


class Vector:
    """Emits operations on one vector type."""

    def __init__(self, builder, array_type):
        self.builder = builder
        self.scalar, self.itemsize, self.lanes = scalar_of(array_type)
        self.type = ir.VectorType(self.scalar, self.lanes)
        self.bytes = VECTOR_BYTES
        self.zero = ir.Constant(self.type, [0.0] * self.lanes)
        name = f"llvm.fmuladd.v{self.lanes}f{8 * self.itemsize}"
        signature = ir.FunctionType(self.type, [self.type] * 3)
        self._fma = cgutils.get_or_insert_function(builder.module, signature, name)

    def load(self, pointer, align=None):
        """Load a vector; `align` defaults to one element."""
        cast = self.builder.bitcast(pointer, self.type.as_pointer())
        return self.builder.load(cast, align=align or self.itemsize)

    def store(self, value, pointer, align=None):
        """Store a vector; `align` defaults to one element."""
        cast = self.builder.bitcast(pointer, self.type.as_pointer())
        self.builder.store(value, cast, align=align or self.itemsize)

    def stream(self, value, pointer):
        """Store a vector to an aligned place, past the caches: the line is not read first.  See `fence`."""
        cast = self.builder.bitcast(pointer, self.type.as_pointer())
        done = self.builder.store(value, cast, align=self.bytes)
        done.set_metadata("nontemporal", self.builder.module.add_metadata([ir.Constant(I32, 1)]))

    def broadcast(self, pointer):
        """Load one element into every lane."""
        undefined = ir.Constant(self.type, ir.Undefined)
        element = self.builder.load(self.builder.bitcast(pointer, self.scalar.as_pointer()), align=self.itemsize)
        first = self.builder.insert_element(undefined, element, ir.Constant(I32, 0))
        lanes = ir.Constant(ir.VectorType(I32, self.lanes), [0] * self.lanes)
        return self.builder.shuffle_vector(first, undefined, lanes)

    def spread(self, x, width, j):
        """Return lane `j` of every `width` lanes in all of these lanes."""
        if width == 1:
            return x
        mask = [lane - lane % width + j for lane in range(self.lanes)]
        return self.builder.shuffle_vector(x, x, ir.Constant(ir.VectorType(I32, self.lanes), mask))

    def fma(self, x, y, z):
        """Return x * y + z, fused where the CPU fuses: without FMA a fused result would be a library call."""
        return self.builder.call(self._fma, [x, y, z])

    def relu(self, x):
        """Return x where it is not below zero: NaN stays NaN."""
        return self.builder.select(self.builder.fcmp_ordered("<", x, self.zero), self.zero, x)

    def lanes_between(self, first, past):
        """Return the mask of the lanes from `first` to `past`, which may lie outside the vector."""
        if VECTOR_BYTES == 64:  # AVX-512: a mask is a register of bits
            return self._bits_between(first, past)
        kind = ir.VectorType(I64, self.lanes)
        place = ir.Constant(kind, list(range(self.lanes)))
        wanted = [self._splat(value, kind) for value in (first, past)]
        after = self.builder.icmp_signed(">=", place, wanted[0])
        return self.builder.and_(after, self.builder.icmp_signed("<", place, wanted[1]))

    def _bits_between(self, first, past):
        """Return `lanes_between` as bits, which the scalar units make, made by the scalar units."""
        builder = self.builder

        def power(lane):
            lane = builder.select(builder.icmp_signed("<", lane, i64(0)), i64(0), lane)
            lane = builder.select(builder.icmp_signed("<", lane, i64(self.lanes)), lane, i64(self.lanes))
            return builder.shl(i64(1), lane)

        after, before = power(first), power(past)
        bits = builder.sub(before, after)
        bits = builder.select(builder.icmp_signed("<", bits, i64(0)), i64(0), bits)
        return builder.bitcast(builder.trunc(bits, ir.IntType(self.lanes)), ir.VectorType(I1, self.lanes))

    def _splat(self, value, kind):
        first = self.builder.insert_element(ir.Constant(kind, ir.Undefined), value, ir.Constant(I32, 0))
        lanes = ir.Constant(ir.VectorType(I32, kind.count), [0] * kind.count)
        return self.builder.shuffle_vector(first, ir.Constant(kind, ir.Undefined), lanes)

    def _masked(self, name, result, arguments):
        kind = f"v{self.lanes}f{8 * self.itemsize}"
        signature = ir.FunctionType(result, [argument.type for argument in arguments])
        function = cgutils.get_or_insert_function(self.builder.module, signature, f"llvm.masked.{name}.{kind}.p0")
        return self.builder.call(function, arguments)

    def load_masked(self, pointer, mask):
        """Load the lanes of the mask, zero elsewhere; no byte of another lane is touched."""
        cast = self.builder.bitcast(pointer, self.type.as_pointer())
        return self._masked("load", self.type, [cast, ir.Constant(I32, self.itemsize), mask, self.zero])

    def store_masked(self, value, pointer, mask):
        """Store the lanes of the mask; no byte of another lane is touched."""
        cast = self.builder.bitcast(pointer, self.type.as_pointer())
        self._masked("store", ir.VoidType(), [value, cast, ir.Constant(I32, self.itemsize), mask])

    def interleave(self, x, y, half):
        """Return the lanes of the lower or upper half of x and y, alternating."""
        base = self.lanes // 2 * half
        mask = [lane for i in range(self.lanes // 2) for lane in (base + i, self.lanes + base + i)]
        return self.builder.shuffle_vector(x, y, ir.Constant(ir.VectorType(I32, self.lanes), mask))


@intrinsic
def copy_bytes(typingctx, target, source, count):
    """Copy `count` bytes between addresses that do not overlap."""

    def codegen(context, builder, signature, args):
        target, source, count = args
        cgutils.raw_memcpy(
            builder, builder.inttoptr(target, POINTER), builder.inttoptr(source, POINTER), count, 1, align=1
        )
        return context.get_dummy_value()

    return types.void(types.intp, types.intp, types.intp), codegen


def emit_prefetch(builder, pointer, near=2):
    """Emit the fetch of the line at an address, which may be any: to L2, with 3 to L1."""
    signature = ir.FunctionType(ir.VoidType(), [POINTER, I32, I32, I32])
    function = cgutils.get_or_insert_function(builder.module, signature, "llvm.prefetch.p0")
    builder.call(function, [pointer, *(ir.Constant(I32, value) for value in (0, near, 1))])


@intrinsic
def prefetch(typingctx, address):
    """Fetch the line at an address, which may be any, to L2."""

    def codegen(context, builder, signature, args):
        emit_prefetch(builder, builder.inttoptr(args[0], POINTER))
        return context.get_dummy_value()

    return types.void(types.intp), codegen


@intrinsic
def copy_vector(typingctx, target, source, like):
    """Copy one vector."""

    def codegen(context, builder, signature, args):
        target, source, _ = args
        vector = Vector(builder, signature.args[2])
        vector.store(vector.load(builder.inttoptr(source, POINTER)), builder.inttoptr(target, POINTER))
        return context.get_dummy_value()

    return types.void(types.intp, types.intp, like), codegen


@intrinsic
def add_vector(typingctx, target, source, like):
    """Add one vector to another."""

    def codegen(context, builder, signature, args):
        target, source, _ = args
        vector = Vector(builder, signature.args[2])
        target = builder.inttoptr(target, POINTER)
        total = builder.fadd(vector.load(target), vector.load(builder.inttoptr(source, POINTER)))
        vector.store(total, target)
        return context.get_dummy_value()

    return types.void(types.intp, types.intp, like), codegen


@intrinsic
def fence(typingctx):
    """Let other threads see what was streamed before what follows."""

    def codegen(context, builder, signature, args):
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.void(), codegen


@intrinsic
def zero_bytes(typingctx, target, count):
    """Set `count` bytes to zero, which is 0.0 in every float type."""

    def codegen(context, builder, signature, args):
        target, count = args
        cgutils.memset(builder, builder.inttoptr(target, POINTER), count, 0)
        return context.get_dummy_value()

    return types.void(types.intp, types.intp), codegen


@intrinsic
def load_i64(typingctx, address):
    """Return the int64 at an address."""

    def codegen(context, builder, signature, args):
        return builder.load(builder.inttoptr(args[0], I64.as_pointer()))

    return types.intp(types.intp), codegen


@intrinsic
def store_i64(typingctx, address, value):
    """Store an int64 at an address."""

    def codegen(context, builder, signature, args):
        builder.store(args[1], builder.inttoptr(args[0], I64.as_pointer()))
        return context.get_dummy_value()

    return types.void(types.intp, types.intp), codegen


@intrinsic
def load(typingctx, address, like):
    """Return the element at an address; `like` is an array of its dtype."""

    def codegen(context, builder, signature, args):
        scalar, itemsize, _ = scalar_of(signature.args[1])
        return builder.load(builder.inttoptr(args[0], scalar.as_pointer()), align=itemsize)

    return like.dtype(types.intp, like), codegen


@intrinsic
def store(typingctx, address, value, like):
    """Store an element at an address; `like` is an array of its dtype."""

    def codegen(context, builder, signature, args):
        scalar, itemsize, _ = scalar_of(signature.args[2])
        builder.store(args[1], builder.inttoptr(args[0], scalar.as_pointer()), align=itemsize)
        return context.get_dummy_value()

    return types.void(types.intp, like.dtype, like), codegen


def _transposition(builder, like, source, rows, target, columns, stored=None, stream=False):
    """Emit the transposition of a square, rows at offsets in bytes; of the columns all are stored, or so many.

    A butterfly of log2(lanes) interleaving stages in registers: row i of a stage pairs with row i + lanes/2.
    """
    vector = Vector(builder, like)
    n = vector.lanes
    values = [vector.load(at(builder, source, rows(i))) for i in range(n)]
    for _ in range(n.bit_length() - 1):
        pairs = [(values[i], values[i + n // 2]) for i in range(n // 2)]
        values = [vector.interleave(x, y, half) for x, y in pairs for half in (0, 1)]
    for i, value in enumerate(values):
        if stored is None:
            (vector.stream if stream else vector.store)(value, at(builder, target, columns(i)))
            continue
        with builder.if_then(builder.icmp_signed("<", i64(i), stored)):
            vector.store(value, at(builder, target, columns(i)))


def _evenly(builder, pitch):
    return lambda i: builder.mul(pitch, i64(i))


def _table(builder, address):
    entries = builder.inttoptr(address, I64.as_pointer())
    return lambda i: builder.load(builder.gep(entries, [i64(i)]))


@intrinsic
def transpose_block(typingctx, source, source_pitch, target, target_pitch, like):
    """Transpose a square of one vector's lanes between rows that lie a pitch of bytes apart."""

    def codegen(context, builder, signature, args):
        source, source_pitch, target, target_pitch, _ = args
        source, target = builder.inttoptr(source, POINTER), builder.inttoptr(target, POINTER)
        rows, columns = _evenly(builder, source_pitch), _evenly(builder, target_pitch)
        _transposition(builder, signature.args[4], source, rows, target, columns)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 4, like), codegen


@intrinsic
def transpose_stream(typingctx, source, source_pitch, target, target_pitch, like):
    """As `transpose_block`, to aligned rows and past the caches."""

    def codegen(context, builder, signature, args):
        source, source_pitch, target, target_pitch, _ = args
        source, target = builder.inttoptr(source, POINTER), builder.inttoptr(target, POINTER)
        rows, columns = _evenly(builder, source_pitch), _evenly(builder, target_pitch)
        _transposition(builder, signature.args[4], source, rows, target, columns, stream=True)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 4, like), codegen


@intrinsic
def transpose_scatter(typingctx, source, source_pitch, target, offsets, like):
    """Transpose a square of one vector's lanes into rows at the int64 offsets (bytes) of a table."""

    def codegen(context, builder, signature, args):
        source, source_pitch, target, offsets, _ = args
        source, target = builder.inttoptr(source, POINTER), builder.inttoptr(target, POINTER)
        rows, columns = _evenly(builder, source_pitch), _table(builder, offsets)
        _transposition(builder, signature.args[4], source, rows, target, columns)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 4, like), codegen


@intrinsic
def transpose_scatter_some(typingctx, source, source_pitch, target, offsets, columns, like):
    """As `transpose_scatter`, storing the first `columns` columns only."""

    def codegen(context, builder, signature, args):
        source, source_pitch, target, offsets, columns, _ = args
        source, target = builder.inttoptr(source, POINTER), builder.inttoptr(target, POINTER)
        rows, places = _evenly(builder, source_pitch), _table(builder, offsets)
        _transposition(builder, signature.args[5], source, rows, target, places, columns)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 5, like), codegen


@intrinsic
def add_rows(typingctx, source, pitch, rows, target, like):
    """Add `rows` vectors that lie `pitch` bytes apart to the vector at `target`: four sums, then theirs."""

    def codegen(context, builder, signature, args):
        source, pitch, rows, target, _ = args
        vector = Vector(builder, signature.args[4])
        source, target = builder.inttoptr(source, POINTER), builder.inttoptr(target, POINTER)
        slot = [cgutils.alloca_once_value(builder, vector.zero) for _ in range(4)]

        def add(index, row):
            value = vector.load(at(builder, source, builder.mul(row, pitch)))
            builder.store(builder.fadd(builder.load(slot[index]), value), slot[index])

        quads = builder.sdiv(rows, i64(4))
        with cgutils.for_range(builder, quads) as quad:
            for index in range(4):
                add(index, builder.add(builder.mul(quad.index, i64(4)), i64(index)))
        with cgutils.for_range(builder, rows, builder.mul(quads, i64(4))) as rest:
            add(0, rest.index)
        first, second, third, fourth = (builder.load(one) for one in slot)
        total = builder.fadd(builder.fadd(first, second), builder.fadd(third, fourth))
        vector.store(builder.fadd(vector.load(target), total), target)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 4, like), codegen
