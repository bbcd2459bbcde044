"""Arrays over memory at an address: a worker gets its arrays as int64 addresses, and its sizes as int64."""

from __future__ import annotations

from numba import carray, types
from numba.extending import intrinsic

from .jit import inlined


@intrinsic
def _float_pointer(typingctx, address, like):
    def codegen(context, builder, signature, args):
        return builder.inttoptr(args[0], context.get_value_type(like))

    return like(types.int64, like), codegen


def _pointer_to(element):
    """Make the intrinsic that returns an address as a pointer to `element`."""
    pointer = types.CPointer(element)

    @intrinsic
    def pointer_at(typingctx, address):
        def codegen(context, builder, signature, args):
            return builder.inttoptr(args[0], context.get_value_type(pointer))

        return pointer(types.int64), codegen

    return pointer_at


uint8_pointer, uint64_pointer, _int64_pointer, _float64_pointer = map(
    _pointer_to, (types.uint8, types.uint64, types.int64, types.float64)
)


@inlined
def floats(address, shape, like):
    """Return the array at an address; `like` is the pointer that carries the worker's dtype."""
    return carray(_float_pointer(address, like), shape)


@inlined
def uint8s(address, shape):
    """Return the array of uint8 at an address."""
    return carray(uint8_pointer(address), shape)


@inlined
def uint64s(address, shape):
    """Return the array of uint64 at an address."""
    return carray(uint64_pointer(address), shape)


@inlined
def int64s(address, shape):
    """Return the array of int64 at an address."""
    return carray(_int64_pointer(address), shape)


@inlined
def float64s(address, shape):
    """Return the array of float64 at an address."""
    return carray(_float64_pointer(address), shape)
