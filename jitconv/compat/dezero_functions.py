"""DeZero's Function classes for convolution and pooling, on jitconv's kernels. Needs DeZero.

`backward` is built of these functions again, so that gradients have gradients.
"""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np

from .. import validate
from ..conv import conv2d_backward
from ..pool import avg_pool2d_backward, max_pool2d_backward, max_pool2d_with_argmax
from ..shapes import Pair
from . import dezero as on_arrays
from .arrays import Array, converted, floats, with_axes
from .naming import argument_names

Function: Any = importlib.import_module("dezero").Function

Size = int | Pair
_named = argument_names(w="W", padding="pad", kernel="kernel_size", dy="gy")


class Conv2d(Function):  # type: ignore[misc]
    """Convolution: `dezero.conv2d` with a bias that may be None."""

    def __init__(self, stride: Size = 1, pad: Size = 0) -> None:
        super().__init__()
        self.stride, self.pad = validate.pair(stride, "stride"), validate.pair(pad, "pad", 0)

    def forward(self, x: Array, W: Array, b: Array | None) -> Any:
        """Return the result for arrays."""
        return on_arrays.conv2d(x, W, b, self.stride, self.pad)

    def backward(self, gy: Any) -> Any:
        """Return the gradients of x, W and b."""
        x, W, b = self.inputs
        gx = deconv2d(gy, W, None, self.stride, self.pad, x.shape[2:])
        return gx, Conv2DGradW(self)(x, gy), None if b.data is None else gy.sum(axis=(0, 2, 3))


class Deconv2d(Function):  # type: ignore[misc]
    """Transposed convolution: `dezero.deconv2d` with a bias that may be None."""

    def __init__(self, stride: Size = 1, pad: Size = 0, outsize: Size | None = None) -> None:
        super().__init__()
        self.stride, self.pad = validate.pair(stride, "stride"), validate.pair(pad, "pad", 0)
        self.outsize = outsize

    def forward(self, x: Array, W: Array, b: Array | None) -> Any:
        """Return the result for arrays."""
        return on_arrays.deconv2d(x, W, b, self.stride, self.pad, self.outsize)

    def backward(self, gy: Any) -> Any:
        """Return the gradients of x, W and b."""
        x, W, b = self.inputs
        gx = conv2d(gy, W, None, self.stride, self.pad)
        return gx, Conv2DGradW(self)(gy, x), None if b.data is None else gy.sum(axis=(0, 2, 3))


class Conv2DGradW(Function):  # type: ignore[misc]
    """The gradient of a convolution for its weights.

    Parameters
    ----------
    conv2d : Conv2d or Deconv2d
        After its call.
    """

    def __init__(self, conv2d: Any) -> None:
        super().__init__()
        self.kernel_size = tuple(conv2d.inputs[1].shape[2:])
        self.stride, self.pad = conv2d.stride, conv2d.pad

    @_named
    def forward(self, x: Array, gy: Array) -> Any:
        """Return the gradient (OC, C, KH, KW) for arrays."""
        x, gy = floats(True, x=x, gy=gy)
        w = np.zeros((gy.shape[1], x.shape[1], *self.kernel_size), x.dtype)
        options = {"stride": self.stride, "padding": self.pad}
        return conv2d_backward(gy, x, w, needs=(False, True, False), **options).dw

    def backward(self, ggW: Any) -> Any:
        """Return the gradients of x and gy."""
        x, gy = self.inputs
        gx = deconv2d(gy, ggW, None, self.stride, self.pad, x.shape[2:])
        return gx, conv2d(x, ggW, None, self.stride, self.pad)


class Pooling(Function):  # type: ignore[misc]
    """Max pooling: `dezero.pooling`.

    Attributes
    ----------
    indexes : array
        Of the largest pixel in each window, which the backward pass follows.
    """

    def __init__(self, kernel_size: Size, stride: Size = 1, pad: Size = 0, *, strict: bool = False) -> None:
        super().__init__()
        self.kernel_size, self.stride, self.pad = kernel_size, stride, pad
        self.strict = validate.boolean(strict, "strict")
        self.indexes: Any = None

    @_named
    def forward(self, x: Array) -> Array:
        """Return the result for an array."""
        (x,) = floats(True, x=x)
        x, pad = on_arrays.pooled_on(with_axes(x, "x", "N, C, H, W"), self.pad, self.strict)
        y, self.indexes = max_pool2d_with_argmax(x, self.kernel_size, stride=self.stride, padding=pad)
        return y

    def backward(self, gy: Any) -> Any:
        """Return the gradient of x."""
        return Pooling2DGrad(self)(gy)


class Pooling2DGrad(Function):  # type: ignore[misc]
    """The gradient of a Pooling."""

    def __init__(self, mpool2d: Any) -> None:
        super().__init__()
        self.mpool2d, self.indexes = mpool2d, mpool2d.indexes
        self.kernel_size, self.stride, self.pad = mpool2d.kernel_size, mpool2d.stride, mpool2d.pad
        self.input_shape, self.dtype = mpool2d.inputs[0].shape, mpool2d.inputs[0].dtype

    @_named
    def forward(self, gy: Array) -> Array:
        """Return the gradient (N, C, H, W) for an array, in the dtype of the Pooling's."""
        (gy,) = converted(np.float32 if self.dtype == np.float32 else np.float64, gy=gy)
        n, c, h, w = self.input_shape
        if not self.mpool2d.strict:
            shape, options = (n, c, h, w), {"stride": self.stride, "padding": self.pad}
            return max_pool2d_backward(gy, self.indexes, shape, self.kernel_size, **options)
        ph, pw = validate.pair(self.pad, "pad", 0)
        shape = n, c, h + 2 * ph, w + 2 * pw
        gx = max_pool2d_backward(gy, self.indexes, shape, self.kernel_size, stride=self.stride)
        return np.ascontiguousarray(gx[:, :, ph : ph + h, pw : pw + w])

    def backward(self, ggx: Any) -> Any:
        """Return the gradient of gy."""
        return Pooling2DWithIndexes(self.mpool2d)(ggx)


class Pooling2DWithIndexes(Function):  # type: ignore[misc]
    """The pixels that a Pooling took, of other images of the same shape."""

    def __init__(self, mpool2d: Any) -> None:
        super().__init__()
        self.mpool2d, self.indexes = mpool2d, mpool2d.indexes

    def forward(self, x: Array) -> Any:
        """Return the pixels (N, C, OH, OW) for an array; zero for what lies in the padding."""
        (x,) = floats(True, x=x)
        pool = self.mpool2d
        (ph, pw), (sh, sw) = validate.pair(pool.pad, "pad", 0), validate.pair(pool.stride, "stride")
        padded = np.pad(x, ((0, 0), (0, 0), (ph, ph), (pw, pw)))
        oh, ow = self.indexes.shape[2:]
        down, across = np.divmod(self.indexes.astype(np.int64), validate.pair(pool.kernel_size, "kernel_size")[1])
        rows = down + sh * np.arange(oh)[:, np.newaxis]
        n, c = (np.arange(size).reshape(-1, *(1,) * ones) for size, ones in zip(x.shape[:2], (3, 2), strict=True))
        return padded[n, c, rows, across + sw * np.arange(ow)]

    def backward(self, gy: Any) -> Any:
        """Return the gradient of x."""
        return Pooling2DGrad(self.mpool2d)(gy)


class AveragePooling(Function):  # type: ignore[misc]
    """Average pooling: `dezero.average_pooling`."""

    def __init__(self, kernel_size: Size, stride: Size = 1, pad: Size = 0) -> None:
        super().__init__()
        self.kernel_size, self.stride, self.pad = kernel_size, stride, pad
        self.input_shape: Any = None

    def forward(self, x: Array) -> Any:
        """Return the result for an array."""
        self.input_shape = x.shape
        return on_arrays.average_pooling(x, self.kernel_size, self.stride, self.pad)

    def backward(self, gy: Any) -> Any:
        """Return the gradient of x."""
        return _AveragePoolingGrad(self)(gy)


class _AveragePoolingGrad(Function):  # type: ignore[misc]
    """The gradient of an AveragePooling."""

    def __init__(self, pool: AveragePooling) -> None:
        super().__init__()
        self.pool = pool

    @_named
    def forward(self, gy: Array) -> Array:
        (gy,) = floats(True, gy=gy)
        pool = self.pool
        return avg_pool2d_backward(gy, pool.input_shape, pool.kernel_size, stride=pool.stride, padding=pool.pad)

    def backward(self, ggx: Any) -> Any:
        return average_pooling(ggx, self.pool.kernel_size, self.pool.stride, self.pool.pad)


class Im2col(Function):  # type: ignore[misc]
    """The windows of images: `dezero.im2col`."""

    def __init__(self, kernel_size: Size, stride: Size, pad: Size, to_matrix: bool) -> None:
        super().__init__()
        self.input_shape: Any = None
        self.options = kernel_size, stride, pad, to_matrix

    def forward(self, x: Array) -> Any:
        """Return the result for an array."""
        self.input_shape = x.shape
        return on_arrays.im2col(x, *self.options)

    def backward(self, gy: Any) -> Any:
        """Return the gradient of x."""
        return col2im(gy, self.input_shape, *self.options)


class Col2im(Function):  # type: ignore[misc]
    """The images of windows: `dezero.col2im`."""

    def __init__(self, input_shape: Any, kernel_size: Size, stride: Size, pad: Size, to_matrix: bool) -> None:
        super().__init__()
        self.input_shape = input_shape
        self.options = kernel_size, stride, pad, to_matrix

    def forward(self, x: Array) -> Any:
        """Return the result for an array."""
        return on_arrays.col2im(x, self.input_shape, *self.options)

    def backward(self, gy: Any) -> Any:
        """Return the gradient of x."""
        return im2col(gy, *self.options)


def conv2d(x: Any, W: Any, b: Any = None, stride: Size = 1, pad: Size = 0) -> Any:
    """`dezero.conv2d` of Variables, or of arrays as Variables."""
    return Conv2d(stride, pad)(x, W, b)


def deconv2d(x: Any, W: Any, b: Any = None, stride: Size = 1, pad: Size = 0, outsize: Any = None) -> Any:
    """`dezero.deconv2d` of Variables, or of arrays as Variables."""
    return Deconv2d(stride, pad, outsize)(x, W, b)


def pooling(x: Any, kernel_size: Size, stride: Size = 1, pad: Size = 0) -> Any:
    """`dezero.pooling` of Variables, or of arrays as Variables."""
    return Pooling(kernel_size, stride, pad)(x)


def average_pooling(x: Any, kernel_size: Size, stride: Size = 1, pad: Size = 0) -> Any:
    """`dezero.average_pooling` of Variables, or of arrays as Variables."""
    return AveragePooling(kernel_size, stride, pad)(x)


def im2col(x: Any, kernel_size: Size, stride: Size = 1, pad: Size = 0, to_matrix: bool = True) -> Any:
    """`dezero.im2col` of Variables, or of arrays as Variables."""
    return Im2col(kernel_size, stride, pad, to_matrix)(x)


def col2im(x: Any, input_shape: Any, kernel_size: Size, stride: Size = 1, pad: Size = 0, to_matrix: bool = True) -> Any:
    """`dezero.col2im` of Variables, or of arrays as Variables."""
    return Col2im(input_shape, kernel_size, stride, pad, to_matrix)(x)
