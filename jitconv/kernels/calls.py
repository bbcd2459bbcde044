"""Calling code at an address, in the floating-point mode of the thread that asked for it.

The mode is how a thread rounds and whether it flushes subnormal numbers to zero. A thread has that of the thread that
made it, and anybody may change its own: `torch.set_flush_denormal` does, and so does loading a library that was linked
with -ffast-math. The threads of a pool then compute otherwise than the one that launches them, and results would depend
on who computes what.
"""

from __future__ import annotations

import contextlib
import platform

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .simd import I32, I64, POINTER

_MACHINE = platform.machine().lower()
_X86, _ARM = _MACHINE in ("x86_64", "amd64"), _MACHINE in ("aarch64", "arm64")
_STATUS = 0x3F  # of MXCSR: what has happened, no part of the mode


def _mxcsr(builder, name, word):
    function = ir.FunctionType(ir.VoidType(), [POINTER])
    declared = cgutils.get_or_insert_function(builder.module, function, f"llvm.x86.sse.{name}")
    builder.call(declared, [builder.bitcast(word, POINTER)])


def _read_mxcsr(builder):
    word = cgutils.alloca_once(builder, I32)
    _mxcsr(builder, "stmxcsr", word)
    return builder.load(word)


def _read(builder):
    """Return the mode of this thread; 0 on a machine where it is not known how to find it."""
    if _X86:
        return builder.zext(builder.and_(_read_mxcsr(builder), ir.Constant(I32, ~_STATUS)), I64)
    if _ARM:
        function = ir.FunctionType(I64, [])
        return builder.call(cgutils.get_or_insert_function(builder.module, function, "llvm.aarch64.get.fpcr"), [])
    return ir.Constant(I64, 0)


def _write(builder, mode):
    if _X86:
        status = builder.and_(_read_mxcsr(builder), ir.Constant(I32, _STATUS))
        word = cgutils.alloca_once_value(builder, builder.or_(builder.trunc(mode, I32), status))
        _mxcsr(builder, "ldmxcsr", word)
    if _ARM:
        function = ir.FunctionType(ir.VoidType(), [I64])
        builder.call(cgutils.get_or_insert_function(builder.module, function, "llvm.aarch64.set.fpcr"), [mode])


@contextlib.contextmanager
def _in_mode(builder, mode):
    """Emit what is emitted in a `with` block so that it runs in a mode; then the thread has its own again."""
    own = _read(builder)
    differs = builder.icmp_unsigned("!=", own, mode)
    with builder.if_then(differs, likely=False):
        _write(builder, mode)
    yield
    with builder.if_then(differs, likely=False):
        _write(builder, own)


def _call_worker(builder, address, arguments, thread, threads):
    function = ir.FunctionType(ir.VoidType(), [I64.as_pointer()] * 2 + [I64] * 2)
    table = builder.inttoptr(arguments, I64.as_pointer())
    builder.call(builder.inttoptr(address, function.as_pointer()), [table, table, thread, threads])


@intrinsic
def float_mode(typingctx):
    """Return the floating-point mode of this thread."""

    def codegen(context, builder, signature, args):
        return _read(builder)

    return types.int64(), codegen


@intrinsic
def set_float_mode(typingctx, mode):
    """Give this thread a mode that `float_mode` returned."""

    def codegen(context, builder, signature, args):
        _write(builder, args[0])
        return context.get_dummy_value()

    return types.void(types.int64), codegen


@intrinsic
def call(typingctx, address, arguments, thread, threads):
    """Call the worker at an address."""

    def codegen(context, builder, signature, args):
        _call_worker(builder, *args)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 4), codegen


@intrinsic
def call_in_mode(typingctx, mode, address, arguments, thread, threads):
    """Call the worker at an address in a floating-point mode."""

    def codegen(context, builder, signature, args):
        with _in_mode(builder, args[0]):
            _call_worker(builder, *args[1:])
        return context.get_dummy_value()

    return types.void(*[types.intp] * 5), codegen


@intrinsic
def number(typingctx, address):
    """Return what the function at an address returns, an int of C."""

    def codegen(context, builder, signature, args):
        function = builder.inttoptr(args[0], ir.FunctionType(I32, []).as_pointer())
        return builder.sext(builder.call(function, []), I64)

    return types.int64(types.int64), codegen
