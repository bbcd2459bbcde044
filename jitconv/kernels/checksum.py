"""A checksum of an array's bytes, to notice that weights have changed."""

from __future__ import annotations

from llvmlite import ir
from numba import carray, types
from numba.core import cgutils
from numba.extending import intrinsic

from .jit import worker
from .simd import I64, POINTER, at, i64, load_i64, store_i64

_LANES, _SUMS = 8, 8
BLOCK_BYTES = 8 * _LANES * _SUMS
# Odd, so that multiplying loses nothing: any change of a single word changes the sum. Two of them, so that no two words
# of an array weigh the same, and exchanging them is seen: from block to block, and from lane to lane.
_FACTOR, _LANE_FACTOR = 0x9E3779B97F4A7C15 - (1 << 64), 0xC2B2AE3D27D4EB4F - (1 << 64)


@intrinsic
def _blocks(typingctx, address, blocks):
    """Return a polynomial over the words of so many blocks, each lane for itself, then over the lanes."""

    def codegen(context, builder, signature, args):
        kind = ir.VectorType(I64, _LANES)
        factor = ir.Constant(kind, [_FACTOR] * _LANES)
        slots = [cgutils.alloca_once_value(builder, ir.Constant(kind, [0] * _LANES)) for _ in range(_SUMS)]
        source = builder.inttoptr(args[0], POINTER)
        with cgutils.for_range(builder, args[1]) as block:
            base = at(builder, source, builder.mul(block.index, i64(BLOCK_BYTES)))
            for i, slot in enumerate(slots):
                word = builder.load(builder.bitcast(at(builder, base, i * 8 * _LANES), kind.as_pointer()), align=1)
                builder.store(builder.add(builder.mul(builder.load(slot), factor), word), slot)
        total = i64(0)
        for slot in slots:
            values = builder.load(slot)
            for lane in range(_LANES):
                value = builder.extract_element(values, ir.Constant(ir.IntType(32), lane))
                total = builder.add(builder.mul(total, i64(_LANE_FACTOR)), value)
        return total

    return types.intp(types.intp, types.intp), codegen


@worker
def checksum(like, arguments, thread, threads):
    """Overwrite sums[thread] with the checksum of a thread's share of an array.

    Arguments: the array, its bytes, sums (int64, one for each thread). The last bytes, no whole block, are the last
    thread's, word by word; an array of float32 may end with half a word.
    """
    source, size, sums = carray(arguments, 3)
    blocks = size // BLOCK_BYTES
    begin, end = thread * blocks // threads, (thread + 1) * blocks // threads
    total = _blocks(source + begin * BLOCK_BYTES, end - begin)
    if thread == threads - 1:
        first = blocks * BLOCK_BYTES
        for place in range(first, size // 8 * 8, 8):
            total = total * _FACTOR + load_i64(source + place)
        if size % 8 and size >= 8:
            total = total * _FACTOR + load_i64(source + size - 8)
    store_i64(sums + 8 * thread, total)
