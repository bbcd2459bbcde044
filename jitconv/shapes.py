"""Shape arithmetic, once, as pure functions of ints.

The formulas are those of PyTorch's documentation of Conv2d, ConvTranspose2d, MaxPool2d and AvgPool2d.
"""

from __future__ import annotations

from typing import NamedTuple

Pair = tuple[int, int]
Padding = tuple[Pair, Pair]  # ((top, bottom), (left, right))


def extent(kernel: int, dilation: int) -> int:
    """Return how many pixels a dilated kernel spans."""
    return (kernel - 1) * dilation + 1


def conv_output_size(size: int, kernel: int, stride: int, padding: Pair, dilation: int) -> int:
    """Return the output pixels of a convolution along one axis; below 1 when the kernel does not fit."""
    return (size + padding[0] + padding[1] - extent(kernel, dilation)) // stride + 1


def conv_transpose_output_size(
    size: int, kernel: int, stride: int, padding: Pair, output_padding: int, dilation: int
) -> int:
    """Return the output pixels of a transposed convolution along one axis; below 1 when nothing is left."""
    return (size - 1) * stride - padding[0] - padding[1] + extent(kernel, dilation) + output_padding


def pool_output_size(size: int, kernel: int, stride: int, padding: Pair, dilation: int, ceil_mode: bool) -> int:
    """Return the output pixels of a pooling along one axis.

    With `ceil_mode` a last, partial window counts, unless it would start in the padding at the far end.
    """
    span = size + padding[0] + padding[1] - extent(kernel, dilation)
    if not ceil_mode:
        return span // stride + 1
    count = -(-span // stride) + 1
    return count - 1 if (count - 1) * stride >= size + padding[0] else count


def same_padding(kernel: int, dilation: int) -> Pair:
    """Return the padding that keeps the size at stride 1; an odd pixel goes to the far end, as in PyTorch."""
    total = extent(kernel, dilation) - 1
    return total // 2, total - total // 2


class Activation(NamedTuple):
    """The sizes of a batch of images, whatever its layout."""

    n: int
    c: int
    h: int
    w: int

    @classmethod
    def of(cls, shape: tuple[int, ...], layout: str) -> Activation:
        """Read a four-dimensional shape in `layout`."""
        if layout == "NCHW":
            n, c, h, w = shape
        else:
            n, h, w, c = shape
        return cls(n, c, h, w)

    def shape(self, layout: str) -> tuple[int, int, int, int]:
        """Return the array shape in `layout`."""
        return (self.n, self.c, self.h, self.w) if layout == "NCHW" else (self.n, self.h, self.w, self.c)
