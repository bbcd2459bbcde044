"""A pooling whose arguments have been checked."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from . import cost, limits, shapes, validate
from .kernels.windows import Window
from .shapes import Activation
from .signatures import Seen, signature

Size = int | tuple[int, int]
PaddingSizes = int | tuple[int, int] | tuple[tuple[int, int], tuple[int, int]]


def offset_dtype(positions: int) -> np.dtype[Any]:
    """Return the smallest unsigned integer that numbers so many positions."""
    return np.min_scalar_type(positions - 1)


class Pooling(NamedTuple):
    """The window of a pooling and the sizes of its result."""

    window: Window
    output: Activation

    @classmethod
    def of(
        cls,
        image: Activation,
        name: str,
        kernel: Size,
        stride: Size | None,
        padding: PaddingSizes,
        dilation: Size = 1,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
    ) -> Pooling:
        """Return the pooling of these images; `name` is that of the argument that gave their shape."""
        flags = ceil_mode, count_include_pad
        key = signature((), (kernel, stride, padding, dilation, *image)) if set(map(type, flags)) == {bool} else None
        key = key and (key, flags)
        made = _seen.get(key)
        if made is None:
            made = cls._checked(image, name, kernel, stride, padding, dilation, *flags)
            _seen.add(key, made)
        return made

    @classmethod
    def _checked(
        cls,
        image: Activation,
        name: str,
        kernel: Size,
        stride: Size | None,
        padding: PaddingSizes,
        dilation: Size,
        ceil_mode: bool,
        count_include_pad: bool,
    ) -> Pooling:
        kernel = validate.pair(kernel, "kernel")
        stride = kernel if stride is None else validate.pair(stride, "stride")
        dilation = validate.pair(dilation, "dilation")
        sides = validate.pool_padding(padding, kernel, stride, dilation)
        ceil_mode = validate.boolean(ceil_mode, "ceil_mode")
        count_include_pad = validate.boolean(count_include_pad, "count_include_pad")
        validate.image_with_pixels(image, name)
        limits.window(image, kernel, name)
        sizes = (
            shapes.pool_output_size(*axis, ceil_mode)
            for axis in zip((image.h, image.w), kernel, stride, sides, dilation, strict=True)
        )
        output = Activation(image.n, image.c, *sizes)
        validate.output_sizes_positive(output, image, kernel, sides, dilation)
        validate.pool_window(kernel, image, sides)
        window = Window.of((image.h, image.w), (output.h, output.w), kernel, stride, sides, dilation, count_include_pad)
        return cls(window, output)

    @property
    def argmax_dtype(self) -> np.dtype[Any]:
        return offset_dtype(self.window.kh * self.window.kw)

    @property
    def kernel_dtype(self) -> np.dtype[Any]:
        """The dtype of argmax in the kernels: one for common windows and one for all others."""
        return np.dtype(np.uint8 if self.argmax_dtype == np.uint8 else np.uint64)

    @property
    def windows_over_a_pixel(self) -> int:
        """The most windows that cover one pixel."""
        g = self.window
        return -(-g.kh // g.stride_h) * -(-g.kw // g.stride_w)

    @property
    def taps(self) -> int:
        """Pixels of all windows, about one cycle each."""
        return math.prod(self.output) * self.window.kh * self.window.kw

    @property
    def small(self) -> bool:
        """Whether one thread does it, whatever their number is."""
        return self.taps <= cost.SMALL

    @property
    def threads(self) -> int:
        """The threads that share it."""
        return cost.threads_for(self.taps)


# Poolings whose arguments have been checked: all checks and sizes take 12 us.
_seen: Seen[Pooling] = Seen()
