"""The layers that everyone computes, their arrays, and how the result of a call is compared."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

Array = np.ndarray
PASSES = ("forward", "backward_data", "backward_weights")
POOLS = ("max_forward", "max_backward", "average_forward", "average_backward")


class Call(NamedTuple):
    """What is timed, and how to read its result as NumPy arrays in NCHW."""

    run: Callable[[], object]
    read: Callable[[object], tuple[Array, ...]]


class Conv(NamedTuple):
    """A convolution layer with square kernels."""

    n: int
    c: int
    h: int
    w: int
    f: int
    kernel: int
    stride: int
    padding: int

    @property
    def outputs(self) -> tuple[int, int, int, int]:
        """The shape of y."""
        h, w = ((size + 2 * self.padding - self.kernel) // self.stride + 1 for size in (self.h, self.w))
        return self.n, self.f, h, w

    def arrays(self, dtype: str) -> dict[str, Array]:
        """Return x, w, b and dy in NCHW."""
        rng = np.random.default_rng(0)
        shapes = {
            "x": (self.n, self.c, self.h, self.w),
            "w": (self.f, self.c, self.kernel, self.kernel),
            "b": (self.f,),
            "dy": self.outputs,
        }
        return {name: rng.standard_normal(shape).astype(dtype) for name, shape in shapes.items()}


class Pool(NamedTuple):
    """Pooling in square windows; a kernel of 0 is the whole image."""

    n: int
    c: int
    h: int
    w: int
    kernel: int
    stride: int = 1
    padding: int = 0

    @property
    def outputs(self) -> tuple[int, int, int, int]:
        """The shape of y."""
        if not self.kernel:
            return self.n, self.c, 1, 1
        h, w = ((size + 2 * self.padding - self.kernel) // self.stride + 1 for size in (self.h, self.w))
        return self.n, self.c, h, w

    @property
    def window(self) -> tuple[int, int, int]:
        """Kernel, stride and padding, for those who have no global pooling of their own."""
        return (self.kernel, self.stride, self.padding) if self.kernel else (self.h, 1, 0)

    def arrays(self, dtype: str) -> dict[str, Array]:
        """Return x and dy in NCHW."""
        rng = np.random.default_rng(0)
        return {
            "x": rng.standard_normal((self.n, self.c, self.h, self.w)).astype(dtype),
            "dy": rng.standard_normal(self.outputs).astype(dtype),
        }


def as_tuple(result: object) -> tuple[Array, ...]:
    """Return a result that is NumPy's in NCHW as a tuple."""
    return result if isinstance(result, tuple) else (result,)


def padded(x: Array, padding: int, value: float = 0.0) -> Array:
    """Return x (N, C, H, W) with so many rows and columns around it."""
    if not padding:
        return x
    sides = ((0, 0), (0, 0), (padding, padding), (padding, padding))
    return np.pad(x, sides, constant_values=value)


def cropped(x: Array, padding: int) -> Array:
    """Return x without its padding."""
    return x[:, :, padding:-padding, padding:-padding] if padding else x
