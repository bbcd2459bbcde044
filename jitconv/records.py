"""What kernels read beside the arrays: records of sizes, tables of offsets, and the layout of scratch."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .kernels.simd import ALIGNMENT

Int64 = NDArray[np.int64]


def record(dtype: np.dtype[Any], values: dict[str, int]) -> NDArray[Any]:
    """Return the one-element array of a geometry's dtype that holds `values`, which must name every field."""
    made = np.zeros(1, dtype)
    for name in dtype.names or ():
        made[name] = values[name]
    return made


def aligned(size: int) -> int:
    """Round up to whole cache lines."""
    return -(-size // ALIGNMENT) * ALIGNMENT


class Scratch:
    """Lays out a thread's scratch, region after region."""

    def __init__(self) -> None:
        self.size = 0

    def add(self, size: int) -> int:
        """Reserve a region and return where it starts."""
        start = self.size
        self.size += aligned(size)
        return start


class Tables:
    """Collects tables of int64 into one array; each is known by where it starts."""

    def __init__(self, reserved: int) -> None:
        self._parts: list[Int64] = [np.zeros(reserved, np.int64)]
        self._size = reserved

    def add(self, values: Any) -> int:
        """Append a table and return its index."""
        start = self._size
        self._parts.append(np.ascontiguousarray(values, dtype=np.int64).ravel())
        self._size += self._parts[-1].size
        return start

    def array(self) -> Int64:
        """Return all tables as one array."""
        return np.concatenate(self._parts)
