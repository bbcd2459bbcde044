"""The part of the bounds checks that runs beside the kernels: it decides over every single access.

Compiled code calls these functions before each load and store (`instrumentation.py` makes it do so). An access must lie
wholly inside one of the regions of the launch, and a store inside one that may be written. What does not is noted and
not made: the code gets the address of a spare place, a length of zero or an empty mask. Regions that are written also
know, byte by byte, which part of the launch wrote and read them: parts are what threads run, so a byte that one of them
writes belongs to no other.

All state is in arrays at fixed addresses, because Numba would freeze an array that a compiled function names.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import carray, cfunc, njit, types
from numba.extending import intrinsic

REGIONS, FAULTS = 4096, 64  # the most regions of a launch, and the faults of which all is noted
START, STOP, WRITABLE, WRITERS, READERS = range(5)  # columns of a region; the last two: addresses of bytes, 0 for none
ACTIVE, COUNT, LAST, PART, FOUND, ACCESSES = range(6)  # fields of the state
SITE, ADDRESS, SIZE, KIND, THREAD, FIRST = range(6)  # columns of a fault
OUTSIDE, READ_ONLY, MISALIGNED, SHARED, LOCAL = range(5)  # kinds of faults
MANY = 255  # more than one part has read a byte

state = np.zeros(8, np.int64)
regions = np.zeros((REGIONS, 5), np.int64)
faults = np.zeros((FAULTS, 6), np.int64)
spare = np.zeros(256, np.uint8)

_STATE, _REGIONS, _FAULTS = state.ctypes.data, regions.ctypes.data, faults.ctypes.data
_SPARE = spare.ctypes.data + -spare.ctypes.data % 64


def _pointer_to(element):
    pointer = types.CPointer(element)

    @intrinsic
    def pointer_at(typingctx, address):
        def codegen(context, builder, signature, args):
            return builder.inttoptr(args[0], context.get_value_type(pointer))

        return pointer(types.int64), codegen

    return pointer_at


_int64_pointer, _uint8_pointer = _pointer_to(types.int64), _pointer_to(types.uint8)


@njit
def _note(kind, site, address, size):
    now = carray(_int64_pointer(_STATE), 8)
    if now[FOUND] < FAULTS:
        fault = carray(_int64_pointer(_FAULTS), (FAULTS, 6))[now[FOUND]]
        fault[SITE], fault[ADDRESS], fault[SIZE] = site, address, size
        fault[KIND], fault[THREAD] = kind, now[PART]
    now[FOUND] += 1


@njit
def _inside(region, address, size, write):
    return region[START] <= address and address + size <= region[STOP] and (not write or region[WRITABLE] != 0)


@njit
def _region_of(address, size, site):
    """Return which region an access lies in; -1, and a note, if it lies in none."""
    now, table = carray(_int64_pointer(_STATE), 8), carray(_int64_pointer(_REGIONS), (REGIONS, 5))
    write = site & 1 != 0
    if _inside(table[now[LAST]], address, size, write):
        return now[LAST]
    kind = OUTSIDE
    for place in range(now[COUNT]):
        if _inside(table[place], address, size, write):
            now[LAST] = place
            return place
        if _inside(table[place], address, size, False):
            kind = READ_ONLY
    _note(kind, site, address, size)
    return -1


@njit
def _mark(region, address, size, site):
    """Note that this part has touched some bytes of a region that is written."""
    now = carray(_int64_pointer(_STATE), 8)
    part = np.uint8(now[PART] + 1)
    writers = carray(_uint8_pointer(region[WRITERS]), region[STOP] - region[START])
    readers = carray(_uint8_pointer(region[READERS]), region[STOP] - region[START])
    shared = False
    for byte in range(address - region[START], address - region[START] + size):
        shared |= writers[byte] != 0 and writers[byte] != part
        if site & 1:
            shared |= readers[byte] != 0 and readers[byte] != part
            writers[byte] = part
        else:
            readers[byte] = part if readers[byte] == 0 or readers[byte] == part else MANY
    if shared:
        _note(SHARED, site, address, size)


@njit
def _allowed(address, size, align, site):
    """Return whether an access may be made."""
    now = carray(_int64_pointer(_STATE), 8)
    if now[ACTIVE] == 0 or size == 0:
        return True
    now[ACCESSES] += 1
    if align > 1 and address % align != 0:
        _note(MISALIGNED, site, address, size)
        return False
    place = _region_of(address, size, site)
    if place < 0:
        return False
    region = carray(_int64_pointer(_REGIONS), (REGIONS, 5))[place]
    if region[WRITERS] != 0:
        _mark(region, address, size, site)
    return True


@cfunc(types.int64(*[types.int64] * 4))
def _place(address, size, align, site):
    """Return where a load or store goes: to its address, or to the spare place."""
    return address if _allowed(address, size, align, site) else _SPARE


@cfunc(types.int64(*[types.int64] * 3))
def _length(address, size, site):
    """Return how many bytes are copied or filled: all or none."""
    return size if _allowed(address, size, 1, site) else 0


@cfunc(types.int64(*[types.int64] * 4))
def _lanes(address, size, mask, site):
    """Return the mask of a masked access of elements of `size` bytes, without the lanes that must not be touched."""
    kept = mask
    for lane in range(64):
        if mask >> lane & 1 and not _allowed(address + lane * size, size, 1, site):
            kept &= ~(1 << lane)
    return kept


@cfunc(types.int64(*[types.int64] * 5))
def _local(address, size, base, extent, site):
    """As `_place` for an access to a variable of the function, of `extent` bytes from `base`."""
    now = carray(_int64_pointer(_STATE), 8)
    if now[ACTIVE] == 0 or (base <= address and address + size <= base + extent):
        return address
    _note(LOCAL, site, address, size)
    return _SPARE


class Functions(NamedTuple):
    """Addresses of what compiled code calls."""

    place: int
    length: int
    lanes: int
    local: int


FUNCTIONS = Functions(_place.address, _length.address, _lanes.address, _local.address)
