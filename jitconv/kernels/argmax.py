"""Counting the entries of a uint8 argmax that point to no pixel of their window."""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .jit import inlined, step
from .pool_lanes import BYTES_SELECT, keep_rolled, place, rolled
from .simd import I1, I8, I32, I64, at, i64
from .windows import full_columns, taps_inside

BLOCK = 64  # entries that are compared at once
_BLOCK = ir.VectorType(I8, BLOCK)
_LANES = ir.Constant(_BLOCK, list(range(BLOCK)))


def _load(builder, pointer):
    return builder.load(builder.bitcast(pointer, _BLOCK.as_pointer()), align=1)


def _load_some(builder, pointer, mask):
    kinds = [_BLOCK.as_pointer(), I32, mask.type, _BLOCK]
    name = f"llvm.masked.load.v{BLOCK}i8.p0"
    function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(_BLOCK, kinds), name)
    cast = builder.bitcast(pointer, kinds[0])
    return builder.call(function, [cast, ir.Constant(I32, 1), mask, ir.Constant(_BLOCK, [0] * BLOCK)])


def _everywhere(builder, value):
    undefined = ir.Constant(_BLOCK, ir.Undefined)
    first = builder.insert_element(undefined, builder.trunc(value, I8), ir.Constant(I32, 0))
    return builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(I32, BLOCK), [0] * BLOCK))


@intrinsic
def _load_byte(typingctx, address):
    """Return the byte at an address."""

    def codegen(context, builder, signature, args):
        return builder.zext(builder.load(place(builder, args[0])), I64)

    return types.intp(types.intp), codegen


@intrinsic
def _any_outside(typingctx, entries, count, low, past):
    """Tell whether one of `count` entries is below `low` or not below `past`."""

    def codegen(context, builder, signature, args):
        entries, count, low, past = args
        entries, span = place(builder, entries), builder.sub(past, low)
        blocks = builder.sdiv(count, i64(BLOCK))
        slot = cgutils.alloca_once_value(builder, ir.Constant(_BLOCK, [0] * BLOCK))
        builder.store(ir.Constant(_BLOCK, [0] * BLOCK), slot)
        outside = cgutils.alloca_once_value(builder, i64(0))
        builder.store(i64(0), outside)

        def keep(condition):
            builder.store(builder.or_(builder.load(outside), builder.zext(condition, I64)), outside)

        def take(first):
            above = builder.sub(_load(builder, at(builder, entries, first)), _everywhere(builder, low))
            most = builder.load(slot)
            builder.store(builder.select(builder.icmp_unsigned(">", above, most), above, most), slot)

        with builder.if_else(builder.icmp_signed(">", blocks, i64(0))) as (some, few):
            with some:
                with rolled(builder, blocks) as block:
                    take(builder.mul(block.index, i64(BLOCK)))
                take(builder.sub(count, i64(BLOCK)))  # the last block, which may overlap the one before
                signature = ir.FunctionType(I8, [_BLOCK])
                name = f"llvm.vector.reduce.umax.v{BLOCK}i8"
                largest = cgutils.get_or_insert_function(builder.module, signature, name)
                keep(builder.icmp_unsigned(">=", builder.zext(builder.call(largest, [builder.load(slot)]), I64), span))
            with few:
                if BYTES_SELECT:
                    inside = builder.icmp_unsigned("<", _LANES, _everywhere(builder, count))
                    above = builder.sub(_load_some(builder, entries, inside), _everywhere(builder, low))
                    far = builder.icmp_unsigned(">=", above, _everywhere(builder, span))
                    bits = builder.bitcast(builder.and_(far, inside), I64)
                    keep(
                        builder.and_(
                            builder.icmp_unsigned("!=", bits, i64(0)), builder.icmp_signed("<", span, i64(256))
                        )
                    )
                else:
                    with rolled(builder, count) as one:
                        entry = builder.zext(builder.load(at(builder, entries, one.index)), I64)
                        keep(builder.icmp_unsigned(">=", builder.sub(entry, low), span))
        return builder.load(outside)

    return types.intp(*[types.intp] * 4), codegen


@intrinsic
def _matches(typingctx, entries, first, rows, columns, row):
    """Return how many of a block of entries are one of `columns` from `first` on, in `rows` rows of taps."""

    def codegen(context, builder, signature, args):
        entries, first, rows, columns, row = args
        values = _load(builder, place(builder, entries))
        none = ir.Constant(ir.VectorType(I1, BLOCK), [0] * BLOCK)
        slot = cgutils.alloca_once_value(builder, builder.bitcast(none, I64))
        builder.store(i64(0), slot)
        with rolled(builder, rows) as k, rolled(builder, columns) as column:
            tap = builder.add(builder.add(first, builder.mul(k.index, row)), column.index)
            found = builder.bitcast(builder.icmp_unsigned("==", values, _everywhere(builder, tap)), I64)
            builder.store(builder.or_(builder.load(slot), found), slot)
        count = cgutils.get_or_insert_function(builder.module, ir.FunctionType(I64, [I64]), "llvm.ctpop.i64")
        return builder.call(count, [builder.load(slot)])

    return types.intp(*[types.intp] * 5), codegen


@inlined
def _bad_entries(entries, pitch, count, k0, k1, l0, l1, kw):
    """Count the bad ones of entries `pitch` bytes apart, of windows with the taps [k0, k1) x [l0, l1) inside."""
    if k0 >= k1 or l0 >= l1:
        k0, k1, l0, l1 = 0, 1, 0, 1  # argmax of a window without any pixel is 0
    done, bad = 0, 0
    while pitch == 1 and done + BLOCK <= count:
        bad += BLOCK - _matches(entries + done, k0 * kw + l0, k1 - k0, l1 - l0, kw)
        done += BLOCK
    inverse = (65535 + kw) // kw
    while done < count:
        keep_rolled()
        tap = _load_byte(entries + done * pitch)
        k = (tap * inverse) >> 16  # tap // kw, exact for a byte
        column = tap - k * kw
        bad += not ((k0 <= k) & (k < k1) & (l0 <= column) & (column < l1))
        done += 1
    return bad


@inlined
def rows_counted(row0, row1, g):
    """Return the half-open range of output rows that the owner of the image's rows [row0, row1) counts."""
    first = 0 if row0 == 0 else (row0 + g.top + g.stride_h - 1) // g.stride_h
    return min(g.oh, first), min(g.oh, (row1 + g.top + g.stride_h - 1) // g.stride_h)


@step
def count_bad(entries, g, c, first, past):
    """Return how many entries of the output rows [first, past) of one image, (OH, OW, c), are bad."""
    bad, oh = 0, first
    full0, full1 = full_columns(g)
    while oh < past:
        k0, k1 = taps_inside(oh * g.stride_h - g.top, g.h, g.kh, g.dilation_h)
        after = oh + 1
        while after < past and taps_inside(after * g.stride_h - g.top, g.h, g.kh, g.dilation_h) == (k0, k1):
            after += 1
        begin, rows = entries + oh * g.ow * c, after - oh
        fine = k0 < k1 and not _any_outside(begin, rows * g.ow * c, k0 * g.kw, k1 * g.kw)
        for ow in range(g.ow):
            if fine and full0 <= ow < full1:
                continue
            l0, l1 = taps_inside(ow * g.stride_w - g.left, g.w, g.kw, g.dilation_w)
            # The entries of a column of a plane at once, those of a pixel's channels one row after the other.
            count, pitch = (rows, g.ow) if c == 1 else (c, 1)
            for row in range(1 if c == 1 else rows):
                bad += _bad_entries(begin + (row * g.ow + ow) * c, pitch, count, k0, k1, l0, l1, g.kw)
        oh = after
    return bad
