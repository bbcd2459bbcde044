"""Every check of every argument, and, with `scalars`, the only place that words an error.

Each function takes a value and the name of the argument that it came in, and returns the value in the one
form that the rest of the library uses, or raises TypeError (wrong type) or ValueError (wrong value).
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from . import limits, shapes
from .scalars import FLOATS as FLOATS
from .scalars import boolean as boolean
from .scalars import choice as choice
from .scalars import float_dtype as float_dtype
from .scalars import generator as generator
from .scalars import integer as integer
from .scalars import pair as pair
from .scalars import real as real
from .scalars import shown as shown
from .shapes import Activation, Padding, Pair

Array = NDArray[Any]
MOST_HUNG_OVER = 2**20  # rows or columns that poolings go through one by one
LARGEST = 2**62  # bytes: beyond this no index or size is computed


def padding(value: Any, kernel: Pair, stride: Pair, dilation: Pair, *, words: bool = True) -> Padding:
    """Return any form of `padding` as ((top, bottom), (left, right)).

    An int, a pair (vertical, horizontal), two pairs, or, where `words`, "valid" and "same" (stride 1 only).
    """
    if isinstance(value, str) and words:
        if value == "valid":
            return (0, 0), (0, 0)
        if value == "same":
            if stride != (1, 1):
                raise ValueError(f"`padding`='same' needs stride 1, got stride {stride}")
            return shapes.same_padding(kernel[0], dilation[0]), shapes.same_padding(kernel[1], dilation[1])
    forms = "an int, a pair, ((top, bottom), (left, right))" + (', "same" or "valid"' if words else "")
    if isinstance(value, str):
        raise ValueError(f"`padding` must be {forms}, got {shown(value)}")
    if isinstance(value, (tuple, list)):
        if len(value) != 2:
            raise ValueError(f"`padding` must be {forms}, got {shown(value)}")
        nested = [isinstance(side, (tuple, list)) for side in value]
        if all(nested):
            return pair(value[0], "padding", 0), pair(value[1], "padding", 0)
        if any(nested):
            raise ValueError(f"`padding` must be {forms}, got {shown(value)}")
    vertical, horizontal = pair(value, "padding", 0)
    return (vertical, vertical), (horizontal, horizontal)


def layout(value: Any) -> str:
    """Return the layout word."""
    return str(choice(value, "layout", ("NCHW", "NHWC")))


def _floats(value: Any, name: str) -> Array:
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"`{name}` is a masked array, whose mask would be ignored: fill it first ({name}.filled(0))")
    if not isinstance(value, np.ndarray):
        raise TypeError(f"`{name}` must be a NumPy array of float32 or float64, got {type(value).__name__}")
    if value.dtype not in FLOATS:
        raise TypeError(
            f"`{name}` has dtype {value.dtype}, but only float32 and float64 are computed: "
            f"convert it, for example with {name}.astype(np.float32)"
        )
    return value


def _writable_alias(a: Array) -> Array:
    """Return the same memory as an array without the read-only flag, which would compile every kernel anew.

    Kernels never write to an input. Who hands a result to the caller that lies in the same memory must not make it of
    this one: see `unaliased`.
    """
    if not a.size:
        return np.empty(a.shape, a.dtype)
    memory: Any = (ctypes.c_byte * a.nbytes).from_address(a.ctypes.data)
    memory.owner = a  # lives as long as the alias does
    return np.ndarray(a.shape, a.dtype, memoryview(memory))


def contiguous(a: Array) -> Array:
    """Return `a` as a kernel takes it: C-contiguous, aligned, plain ndarray; a copy only where it has to be."""
    a = np.require(a, requirements=("C", "A"))
    if type(a) is not np.ndarray:
        a = a.view(np.ndarray)
    return a if a.flags.writeable else _writable_alias(a)


class Batch(NamedTuple):
    """An activation with its batch axis: the array, its sizes, and whether the caller gave no batch axis."""

    array: Array
    sizes: Activation
    single: bool

    def back(self, a: Array) -> Array:
        """Return a result without the batch axis if the caller gave none."""
        return a[0] if self.single else a


def activation(value: Any, name: str, layout: str, dtype: np.dtype[Any] | None = None) -> Batch:
    """Return a (N, C, H, W) or (N, H, W, C) array, also where the batch axis is missing."""
    a = _floats(value, name)
    if a.ndim not in (3, 4):
        single = layout[1:]
        raise ValueError(
            f"`{name}` must have the axes {layout} or, for one image, {single}, "
            f"got {a.ndim} dimension{'s' if a.ndim != 1 else ''} {a.shape}"
        )
    if dtype is not None and a.dtype != dtype:
        raise TypeError(f"`{name}` has dtype {a.dtype}, but the other arrays have {dtype}: convert one of them")
    batch = contiguous(a if a.ndim == 4 else a[np.newaxis])
    return Batch(batch, Activation.of(batch.shape, layout), a.ndim == 3)


def like_output(
    value: Any, name: str, layout: str, dtype: np.dtype[Any] | None, sizes: Activation, single: bool
) -> Array:
    """Return a gradient of an output (`dy`) whose sizes are known, as a four-dimensional array."""
    batch = activation(value, name, layout, dtype)
    expected = sizes.shape(layout)
    if batch.array.shape != expected or batch.single != single:
        shape = expected[1:] if single else expected
        raise ValueError(f"`{name}` must have the shape of the output, {shape}, got {np.shape(value)}")
    return batch.array


def array(value: Any, name: str, shape: tuple[int | None, ...], dtype: np.dtype[Any] | None, why: str = "") -> Array:
    """Return a float array of `shape` (None: any size on that axis) and `dtype` (None: either float)."""
    a = _floats(value, name)
    if a.ndim != len(shape) or any(want is not None and want != got for want, got in zip(shape, a.shape, strict=True)):
        sizes = ["any" if size is None else str(size) for size in shape]
        wanted = f"({', '.join(sizes)}{',' * (len(sizes) == 1)})"
        raise ValueError(f"`{name}` must have shape {wanted}{why and ' ' + why}, got {a.shape}")
    if dtype is not None and a.dtype != dtype:
        raise TypeError(f"`{name}` has dtype {a.dtype}, but the other arrays have {dtype}: convert one of them")
    return contiguous(a)


def shape4(value: Any, name: str, layout: str, *, batched: bool = False) -> tuple[Activation, bool]:
    """Return the sizes in a shape of four ints or, unless `batched`, three, and whether the batch axis is missing."""
    if not isinstance(value, (tuple, list)) or len(value) not in ((4,) if batched else (3, 4)):
        axes = layout if batched else f"{layout} or {layout[1:]}"
        raise ValueError(f"`{name}` must be a tuple of the sizes {axes}, got {shown(value)}")
    sizes = tuple(integer(size, name, 0) for size in value)
    array_fits(sizes, name)
    single = len(sizes) == 3
    return Activation.of((1, *sizes) if single else sizes, layout), single


def _overlaps_itself(a: Array) -> bool:
    """Return whether elements of an array may share memory, as those of a broadcast array do."""
    extent = a.itemsize
    for step, length in sorted((abs(step), length) for step, length in zip(a.strides, a.shape, strict=True)):
        if length > 1 and step < extent:
            return a.size > 0
        extent += step * (length - 1)
    return False


def output(
    value: Any, name: str, shape: tuple[int, ...], dtype: np.dtype[Any], inputs: Sequence[Array | None]
) -> Array:
    """Return the caller's array for a result, which must fit and share no memory with an input."""
    if not isinstance(value, np.ndarray) or isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"`{name}` must be a NumPy array, got {type(value).__name__}")
    if value.dtype != dtype:
        raise TypeError(f"`{name}` has dtype {value.dtype}, but the result has {dtype}")
    if value.shape != shape:
        raise ValueError(f"`{name}` must have shape {shape}, got {value.shape}")
    if not value.flags.writeable:
        raise ValueError(f"`{name}` is read-only")
    if _overlaps_itself(value):
        raise ValueError(f"`{name}` overlaps itself: some of its elements lie in the same memory")
    if any(one is not None and np.may_share_memory(value, one) for one in inputs):
        raise ValueError(f"`{name}` shares memory with an input")
    return value


def fits_in_memory(shape: Sequence[int], dtype: np.dtype[Any], name: str) -> None:
    """Refuse a result whose size in bytes has no meaning, before anything is allocated."""
    size = dtype.itemsize
    for length in shape:
        size *= length
    if size > LARGEST:
        raise ValueError(f"`{name}` would have shape {tuple(shape)}, {size} bytes: too large")


def array_fits(shape: tuple[int, ...], name: str) -> None:
    """Refuse a shape that no array has."""
    if math.prod(shape) * FLOATS[1].itemsize > LARGEST:
        raise ValueError(f"`{name}` is too large for an array: {shape}")


def convolution_fits(y: tuple[int, ...], image: Activation, padding: Padding, dtype: np.dtype[Any]) -> None:
    """Refuse images without pixels, and a result or a padded image whose size in bytes has no meaning."""
    image_with_pixels(image, "x")
    fits_in_memory(y, dtype, "y")
    h, w = image.h + sum(padding[0]), image.w + sum(padding[1])
    size = image.c * h * w * dtype.itemsize
    if size > LARGEST:
        raise ValueError(f"`padding` {padding} makes images of {h}x{w} pixels, {size} bytes each: too large")


def output_sizes_positive(sizes: Activation, image: Activation, kernel: Pair, padding: Padding, dilation: Pair) -> None:
    """Refuse a kernel that does not fit into the padded image."""
    if sizes.h < 1 or sizes.w < 1:
        spans = shapes.extent(kernel[0], dilation[0]), shapes.extent(kernel[1], dilation[1])
        padded = image.h + sum(padding[0]), image.w + sum(padding[1])
        raise ValueError(
            f"`kernel` spans {spans[0]}x{spans[1]} pixels (dilation {dilation}), "
            f"more than the padded image of `x`, {padded[0]}x{padded[1]}"
        )


def floats(value: Any, name: str, dtype: np.dtype[Any] | None = None) -> Array:
    """Return a float array of any shape and of `dtype` (None: either float), as a kernel takes it."""
    return contiguous(unaliased(value, name, dtype))


def unaliased(value: Any, name: str, dtype: np.dtype[Any] | None = None) -> Array:
    """Return a float array of `dtype` (None: either float) as it is: a view of it can be no more than read."""
    a = _floats(value, name)
    if dtype is not None and a.dtype != dtype:
        raise TypeError(f"`{name}` has dtype {a.dtype}, but the other arrays have {dtype}: convert one of them")
    return a


def batch(value: Any, name: str) -> Array:
    """Return a float array with a batch axis and at least one more, as it is: `unaliased`."""
    a = _floats(value, name)
    if a.ndim < 2:
        raise ValueError(f"`{name}` must have a batch axis and at least one more, got shape {a.shape}")
    return a


def divides(groups: int, channels: int, name: str) -> None:
    """Refuse a number of channels that does not split into `groups` equal parts."""
    if channels % groups:
        raise ValueError(f"`{name}` must be a multiple of `groups`, got {channels} and groups={groups}")


def channels(shape: tuple[int, ...], expected: int, layout: str) -> Activation:
    """Return the sizes of an activation, which must have `expected` channels."""
    sizes = Activation.of(shape, layout)
    if sizes.c != expected:
        raise ValueError(f"`x` has {sizes.c} channels in {layout} {shape}, but the layer has {expected}")
    return sizes


def enough_to_normalise(count: int) -> None:
    """Refuse a variance estimated from fewer than two values."""
    if count < 2:
        raise ValueError(
            f"`x` has {count} value{'s' * (count != 1)} for each channel, but training needs at least 2: "
            f"their variance is undefined"
        )


def after_forward(saved: Any, layer: str) -> Any:
    """Return what a forward pass saved for the backward pass."""
    if saved is None:
        raise RuntimeError(f"{layer}.backward was called before {layer}.forward")
    return saved


def conv_weights_shape(value: Any, name: str, channels: int, groups: Any, of: str) -> tuple[int, Pair]:
    """Return the output channels and kernel of a weights shape (F, C/groups, KH, KW) that fits `channels`."""
    groups = integer(groups, "groups", 1)
    if not isinstance(value, (tuple, list)) or len(value) != 4:
        raise ValueError(f"`{name}` must have the axes (F, C/groups, KH, KW), got {shown(value)}")
    f, c, kh, kw = sizes = tuple(integer(size, name, 0) for size in value)
    array_fits(sizes, name)
    if channels % groups:
        raise ValueError(f"`groups` must divide the channels of `{of}`, got {groups} for {channels}")
    if f % groups:
        raise ValueError(f"`groups` must divide the output channels of `{name}`, got {groups} for {f}")
    if c * groups != channels:
        raise ValueError(f"`{name}` has {c} input channels, but `{of}` has {channels} (groups={groups})")
    if min(f, c, kh, kw) < 1:
        raise ValueError(f"`{name}` must have at least one channel and one tap, got shape {tuple(value)}")
    limits.kernel((kh, kw), name)
    return f, (kh, kw)


def conv_weights(value: Any, channels: int, groups: Any, dtype: np.dtype[Any]) -> Array:
    """Return the weights of a convolution, (F, C/groups, KH, KW)."""
    a = _floats(value, "w")
    conv_weights_shape(a.shape, "w", channels, groups, "x")
    return array(a, "w", (None,) * 4, dtype)


def conv_transpose_weights(value: Any, channels: int, groups: Any, dtype: np.dtype[Any]) -> Array:
    """Return the weights of a transposed convolution, (C, F/groups, KH, KW)."""
    a = _floats(value, "w")
    groups = integer(groups, "groups", 1)
    if a.ndim != 4:
        raise ValueError(f"`w` must have the axes (C, F/groups, KH, KW), got {a.shape}")
    if channels % groups:
        raise ValueError(f"`groups` must divide the channels of `x`, got {groups} for {channels}")
    if a.shape[0] != channels:
        raise ValueError(f"`w` has {a.shape[0]} input channels, but `x` has {channels}")
    if min(a.shape) < 1:
        raise ValueError(f"`w` must have at least one channel and one tap, got shape {a.shape}")
    limits.kernel(a.shape[2:], "w")
    return array(a, "w", (None,) * 4, dtype)


def output_padding(value: Any, stride: Pair, dilation: Pair) -> Pair:
    """Return an output padding as a pair, which must be below the stride or below the dilation, as in PyTorch."""
    sides = pair(value, "output_padding", 0)
    if any(extra >= max(s, d) for extra, s, d in zip(sides, stride, dilation, strict=True)):
        raise ValueError(
            f"`output_padding` must be less than `stride` or `dilation`, got {sides} "
            f"with stride {stride} and dilation {dilation}"
        )
    return sides


def transposed_sizes_positive(sizes: Sequence[int], image: Activation, padding: Padding) -> None:
    """Refuse a transposed convolution of which nothing is left, or that has no input."""
    if min(image.h, image.w) < 1:
        raise ValueError(f"`x` has no pixels: its images are {image.h}x{image.w}")
    if min(sizes) < 1:
        raise ValueError(f"`padding` {padding} leaves nothing of the output, which would be {sizes[0]}x{sizes[1]}")


def pool_padding(value: Any, kernel: Pair, stride: Pair, dilation: Pair) -> Padding:
    """Return the padding of a pooling, on each side at most half the kernel, as in PyTorch."""
    sides = padding(value, kernel, stride, dilation, words=False)
    if max(sides[0]) > kernel[0] // 2 or max(sides[1]) > kernel[1] // 2:
        raise ValueError(
            f"`padding` of a pooling must be at most half the kernel on each side, {kernel[0] // 2} above and below "
            f"and {kernel[1] // 2} left and right of a {kernel[0]}x{kernel[1]} kernel, got {shown(value)}"
        )
    return sides


def pool_window(kernel: Pair, image: Activation, padding: Padding) -> None:
    """Refuse a window that `ceil_mode` would let hang over the image by millions of pixels: kernels step through it."""
    padded = image.h + sum(padding[0]), image.w + sum(padding[1])
    if any(k > max(MOST_HUNG_OVER, size) for k, size in zip(kernel, padded, strict=True)):
        raise ValueError(
            f"`kernel` {kernel} is larger than the padded image, {padded[0]}x{padded[1]}, "
            f"and than {MOST_HUNG_OVER} pixels"
        )


def image_with_pixels(image: Activation, name: str) -> None:
    """Refuse images without pixels; no images and no channels are fine."""
    if image.h < 1 or image.w < 1:
        raise ValueError(f"`{name}` has images of {image.h}x{image.w} pixels, but at least one pixel is needed")


def argmax(value: Any, name: str, layout: str, dtype: np.dtype[Any], sizes: Activation, single: bool) -> Array:
    """Return the argmax of a pooling whose result has `sizes`, as a four-dimensional array."""
    if not isinstance(value, np.ndarray) or isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"`{name}` must be a NumPy array of {dtype}, got {type(value).__name__}")
    if value.dtype != dtype:
        raise TypeError(
            f"`{name}` has dtype {value.dtype}, but the offsets in this window have {dtype}: "
            "pass the argmax of the forward call"
        )
    expected = sizes.shape(layout)
    shape = expected[1:] if single else expected
    if value.shape != shape:
        raise ValueError(f"`{name}` must have the shape of the output, {shape}, got {value.shape}")
    return contiguous(value).reshape(expected)


def argmax_entries(bad: int, name: str, source: str) -> None:
    """Refuse an argmax in which a kernel found `bad` entries that point to no pixel."""
    if bad:
        raise ValueError(
            f"`{name}` holds {bad} offset{'s' if bad != 1 else ''} outside the window or in the padding: pass the "
            f"argmax that {source} returned, with the same sizes and options"
        )


def winograd_fits(algorithm: str, fits: bool) -> None:
    """Refuse Winograd for a convolution that it does not compute."""
    if not fits:
        kernels = "a 3x3 kernel of stride 1" + (" or 2, or 5x5 of stride 1" if algorithm == "winograd" else "")
        raise ValueError(f"`algorithm`={algorithm!r} needs {kernels}, dilation 1 and groups of 8 channels or more")


def instance(value: Any, name: str, kind: type) -> None:
    """Refuse what is no object of a public class."""
    if not isinstance(value, kind):
        raise TypeError(f"`{name}` must be a jitconv.{kind.__name__}, got {type(value).__name__}")


def needs(value: Any) -> tuple[bool, bool, bool]:
    """Return which of dx, dw and db to compute."""
    if not isinstance(value, (tuple, list)) or len(value) != 3:
        raise ValueError(f"`needs` must be three booleans, for dx, dw and db, got {shown(value)}")
    dx, dw, db = (boolean(one, "needs") for one in value)
    return dx, dw, db


def thread_count(value: Any, available: int) -> int:
    """Return a number of threads."""
    n = integer(value, "n", 1)
    if n > available:
        raise ValueError(f"`n` must be at most {available}, the threads that Numba was started with, got {n}")
    return n
