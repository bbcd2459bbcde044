"""Pooling layers."""

from __future__ import annotations

from typing import Any

from .. import validate
from ..pool import (
    avg_pool2d,
    avg_pool2d_backward,
    global_avg_pool2d,
    global_avg_pool2d_backward,
    global_max_pool2d,
    global_max_pool2d_backward,
    max_pool2d_backward,
    max_pool2d_with_argmax,
)
from .base import Array, ImageLayer


class MaxPool2d(ImageLayer):
    """The largest element of each window.

    Parameters
    ----------
    kernel_size : int or pair
    stride : int or pair, optional
        `kernel_size` by default.
    padding, dilation, ceil_mode
        As in `jitconv.max_pool2d`.
    return_indices : False
        `jitconv.max_pool2d_with_argmax` returns them.
    layout : {"NCHW", "NHWC"}
        The axes of x and y.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit.
    """

    def __init__(
        self,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] | None = None,
        padding: Any = 0,
        dilation: int | tuple[int, int] = 1,
        return_indices: bool = False,
        ceil_mode: bool = False,
        *,
        layout: str = "NCHW",
    ) -> None:
        super().__init__(layout)
        validate.choice(return_indices, "return_indices", (False,))
        self._kernel = validate.pair(kernel_size, "kernel_size")
        strides = self._kernel if stride is None else validate.pair(stride, "stride")
        dilations = validate.pair(dilation, "dilation")
        self._options: dict[str, Any] = {
            "stride": strides,
            "padding": validate.pool_padding(padding, self._kernel, strides, dilations),
            "dilation": dilations,
            "ceil_mode": validate.boolean(ceil_mode, "ceil_mode"),
        }

    def forward_in(self, layout: str, x: Array) -> Array:
        """Return the pooled x."""
        y, argmax = max_pool2d_with_argmax(x, self._kernel, layout=layout, **self._options)
        self._saved = argmax, x.shape, layout, y.dtype
        return y

    def backward(self, dy: Array) -> Array | None:
        """Return dx."""
        argmax, x_shape, layout, dtype = self._restore()
        validate.unaliased(dy, "dy", dtype)
        if not self.needs_input_gradient:
            return None
        return max_pool2d_backward(dy, argmax, x_shape, self._kernel, layout=layout, **self._options)

    @property
    def of_squares(self) -> bool:
        """Whether it takes the largest of each 2x2 pixels: what a convolution can do as it stores them."""
        options = {"stride": (2, 2), "padding": ((0, 0), (0, 0)), "dilation": (1, 1), "ceil_mode": False}
        return self._kernel == (2, 2) and self._options == options


class AvgPool2d(ImageLayer):
    """The mean of each window.

    Parameters
    ----------
    kernel_size : int or pair
    stride : int or pair, optional
        `kernel_size` by default.
    padding, ceil_mode, count_include_pad
        As in `jitconv.avg_pool2d`.
    divisor_override : None
        What PyTorch has besides is refused.
    layout : {"NCHW", "NHWC"}
        The axes of x and y.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit.
    """

    def __init__(
        self,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] | None = None,
        padding: Any = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: None = None,
        *,
        layout: str = "NCHW",
    ) -> None:
        super().__init__(layout)
        validate.choice(divisor_override, "divisor_override", (None,))
        self._kernel = validate.pair(kernel_size, "kernel_size")
        strides = self._kernel if stride is None else validate.pair(stride, "stride")
        self._options: dict[str, Any] = {
            "stride": strides,
            "padding": validate.pool_padding(padding, self._kernel, strides, (1, 1)),
            "ceil_mode": validate.boolean(ceil_mode, "ceil_mode"),
            "count_include_pad": validate.boolean(count_include_pad, "count_include_pad"),
        }

    def forward_in(self, layout: str, x: Array) -> Array:
        """Return the pooled x."""
        y = avg_pool2d(x, self._kernel, layout=layout, **self._options)
        self._saved = x.shape, layout, y.dtype
        return y

    def backward(self, dy: Array) -> Array | None:
        """Return dx."""
        x_shape, layout, dtype = self._restore()
        validate.unaliased(dy, "dy", dtype)
        if not self.needs_input_gradient:
            return None
        return avg_pool2d_backward(dy, x_shape, self._kernel, layout=layout, **self._options)


class GlobalAvgPool2d(ImageLayer):
    """The mean of each channel of each image; H and W become 1.

    Parameters
    ----------
    layout : {"NCHW", "NHWC"}
        The axes of x and y.
    """

    def __init__(self, *, layout: str = "NCHW") -> None:
        super().__init__(layout)

    def forward_in(self, layout: str, x: Array) -> Array:
        """Return the pooled x."""
        y = global_avg_pool2d(x, layout=layout)
        self._saved = x.shape, layout, y.dtype
        return y

    def backward(self, dy: Array) -> Array | None:
        """Return dx."""
        x_shape, layout, dtype = self._restore()
        validate.unaliased(dy, "dy", dtype)
        if not self.needs_input_gradient:
            return None
        return global_avg_pool2d_backward(dy, x_shape, layout=layout)


class GlobalMaxPool2d(ImageLayer):
    """The largest element of each channel of each image; H and W become 1.

    Parameters
    ----------
    layout : {"NCHW", "NHWC"}
        The axes of x and y.
    """

    def __init__(self, *, layout: str = "NCHW") -> None:
        super().__init__(layout)

    def forward_in(self, layout: str, x: Array) -> Array:
        """Return the pooled x."""
        y, argmax = global_max_pool2d(x, layout=layout)
        self._saved = argmax, x.shape, layout, y.dtype
        return y

    def backward(self, dy: Array) -> Array | None:
        """Return dx."""
        argmax, x_shape, layout, dtype = self._restore()
        validate.unaliased(dy, "dy", dtype)
        if not self.needs_input_gradient:
            return None
        return global_max_pool2d_backward(dy, argmax, x_shape, layout=layout)
