"""What the tiles of pooling add to `simd.Vector`: lanes that step through a row, part vectors, entries of argmax."""

from __future__ import annotations

import contextlib

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .simd import FEATURES, I8, I32, I64, POINTER, VECTOR_BYTES, Vector, i64

# With AVX-512 a masked load costs what a whole one costs, so that one tile serves whole and part vectors: half the code
# to compile. Elsewhere each tile is emitted twice, because LLVM takes masks of SSE apart into branches.
MASKS_ARE_FREE = VECTOR_BYTES == 64

# Masks of AVX-512BW select bytes too: an entry of argmax stays a byte. Elsewhere it is as wide as a lane.
BYTES_SELECT = "avx512bw" in FEATURES and VECTOR_BYTES == 64

MINUS_INF = float("-inf")


class Lanes(Vector):
    """Emits what a tile of pooling does with one vector.

    A mask may be None: all lanes. `argmax`: the Numba type of the address of argmax, a pointer or none.
    """

    def __init__(self, builder, array_type, argmax=types.none):
        super().__init__(builder, array_type)
        self.integer = ir.IntType(8 * self.itemsize)
        self.places = ir.VectorType(self.integer, self.lanes)  # columns of an image and the like, modulo 2**32
        self.lane = ir.Constant(self.places, list(range(self.lanes)))
        self.has_argmax = isinstance(argmax, types.CPointer)
        self.entry = ir.IntType(argmax.dtype.bitwidth) if self.has_argmax else I8
        wide = self.integer if self.entry.width > 8 or not BYTES_SELECT else I8
        self.taps = ir.VectorType(wide, self.lanes)

    def fill(self, value):
        """Return a constant vector."""
        return ir.Constant(self.type, [value] * self.lanes)

    def splat(self, value, kind):
        """Return a vector of integers with an int64 in every lane."""
        if isinstance(value, int):
            return ir.Constant(kind, [value] * kind.count)
        if kind.element.width < 64:
            value = self.builder.trunc(value, kind.element)
        return self._splat(value, kind)

    def every(self, value):
        """Return a vector with a floating-point value in every lane."""
        return self._splat(value, self.type)

    def columns(self, first, step):
        """Return the columns first, first + step, ..."""
        return self.builder.add(
            self.splat(first, self.places), self.builder.mul(self.lane, self.splat(step, self.places))
        )

    def inside(self, columns, width):
        """Return the mask of the columns that an axis of this width has."""
        return self.builder.icmp_unsigned("<", columns, self.splat(width, self.places))

    def first_lanes(self, count):
        """Return the mask of the first lanes."""
        return self.inside(self.lane, count)

    def _call(self, name, kind, result, arguments):
        signature = ir.FunctionType(result, [argument.type for argument in arguments])
        element = "f" if isinstance(kind.element, (ir.FloatType, ir.DoubleType)) else "i"
        width = kind.element.width if element == "i" else 8 * self.itemsize
        full = f"llvm.masked.{name}.v{kind.count}{element}{width}"
        full += f".v{kind.count}p0" if name in ("gather", "scatter") else ".p0"
        return self.builder.call(cgutils.get_or_insert_function(self.builder.module, signature, full), arguments)

    def read(self, pointer, mask, otherwise):
        """Load a vector, with the constant `otherwise` in the lanes that the mask leaves out."""
        if mask is None:
            return self.load(pointer)
        cast = self.builder.bitcast(pointer, self.type.as_pointer())
        arguments = [cast, ir.Constant(I32, self.itemsize), mask, self.fill(otherwise)]
        return self._call("load", self.type, self.type, arguments)

    def read_entries(self, pointer, mask):
        """Load entries of argmax, as they lie in memory."""
        kind = ir.VectorType(self.entry, self.lanes)
        cast = self.builder.bitcast(pointer, kind.as_pointer())
        size = self.entry.width // 8
        if mask is None:
            return self.builder.load(cast, align=size)
        arguments = [cast, ir.Constant(I32, size), mask, ir.Constant(kind, [0] * self.lanes)]
        return self._call("load", kind, kind, arguments)

    def _pointers(self, pointer, columns):
        """Return the places of columns that are in the row at `pointer`."""
        wide = ir.VectorType(I64, self.lanes)
        offsets = columns if self.places == wide else self.builder.sext(columns, wide)
        offsets = self.builder.mul(offsets, self.splat(self.itemsize, wide))
        start = self.splat(self.builder.ptrtoint(pointer, I64), wide)
        places = ir.VectorType(self.scalar.as_pointer(), self.lanes)
        return self.builder.inttoptr(self.builder.add(start, offsets), places)

    def gather(self, pointer, columns, mask, otherwise):
        """Load columns of the row at `pointer`."""
        arguments = [self._pointers(pointer, columns), ir.Constant(I32, self.itemsize), mask, self.fill(otherwise)]
        return self._call("gather", self.type, self.type, arguments)

    def scatter(self, value, pointer, columns, mask):
        """Store to columns of the row at `pointer`."""
        arguments = [value, self._pointers(pointer, columns), ir.Constant(I32, self.itemsize), mask]
        self._call("scatter", self.type, ir.VoidType(), arguments)

    def halves(self, x, y):
        """Return the even and the odd lanes of x followed by y."""
        both = [ir.Constant(ir.VectorType(I32, self.lanes), list(range(odd, 2 * self.lanes, 2))) for odd in (0, 1)]
        return [self.builder.shuffle_vector(x, y, lanes) for lanes in both]

    def beats(self, value, best):
        """Return where `value` replaces the earlier `best`: it is larger, or the first NaN."""
        larger = self.builder.fcmp_unordered(">", value, best)
        return self.builder.and_(larger, self.builder.fcmp_ordered("ord", best, best))

    def challenge(self, champion, value, tap):
        """Let `value` with the vector of taps `tap` challenge the earlier (value, taps), and return the winner."""
        wins = self.beats(value, champion[0])
        best = self.builder.select(wins, value, champion[0])
        return best, self.builder.select(wins, tap, champion[1]) if self.has_argmax else champion[1]

    def write(self, value, pointer, whole, mask, stream=None):
        """Store a vector: all of it if `whole`, else the lanes of the mask. `stream`: past the caches if not zero."""
        with self.builder.if_else(whole) as (then, otherwise):
            with then:
                if stream is None:
                    self.store(value, pointer)
                else:
                    with self.builder.if_else(self.builder.icmp_signed("!=", stream, i64(0))) as (past, through):
                        with past:
                            self.stream(value, pointer)
                        with through:
                            self.store(value, pointer)
            with otherwise:
                self.store_masked(value, pointer, mask)

    def write_entries(self, taps, pointer, whole, mask):
        """Store entries of argmax."""
        kind = ir.VectorType(self.entry, self.lanes)
        if self.taps.element.width > self.entry.width:
            taps = self.builder.trunc(taps, kind)
        elif self.taps.element.width < self.entry.width:
            taps = self.builder.zext(taps, kind)
        cast = self.builder.bitcast(pointer, kind.as_pointer())
        size = self.entry.width // 8
        with self.builder.if_else(whole) as (then, otherwise):
            with then:
                self.builder.store(taps, cast, align=size)
            with otherwise:
                self._call("store", kind, ir.VoidType(), [taps, cast, ir.Constant(I32, size), mask])


def emit_masked(builder, kind, inside, emit):
    """Emit `emit(kind, masked)`: with masks or, where `inside` is not zero and they cost, without."""
    if MASKS_ARE_FREE or kind.step == 0:
        emit(kind, True)
        return
    with builder.if_else(builder.icmp_signed("!=", inside, i64(0))) as (then, otherwise):
        with then:
            emit(kind, False)
        with otherwise:
            emit(kind, True)


def place(builder, address):
    """Return an int64 as a pointer to bytes."""
    return builder.inttoptr(address, POINTER)


def times(builder, value, count):
    """Return an int64 times a constant."""
    return i64(0) if count == 0 else value if count == 1 else builder.mul(value, i64(count))


def _hold(builder):
    held = builder.asm(ir.FunctionType(ir.VoidType(), []), "", "", [], True)
    held.attributes.add("convergent")


@intrinsic
def keep_rolled(typingctx):
    """Keep LLVM from unrolling the loop around it, or making vectors of it: for loops that are short."""

    def codegen(context, builder, signature, args):
        _hold(builder)
        return context.get_dummy_value()

    return types.void(), codegen


@contextlib.contextmanager
def rolled(builder, count):
    """As `cgutils.for_range`, but LLVM does not unroll the loop.

    It would, eight times and with a rest, all the short loops of a tile: twice the code, and slower. An empty `asm`
    that may not be duplicated under other conditions keeps it from that.
    """
    with cgutils.for_range(builder, count) as loop:
        _hold(builder)
        yield loop
