"""Checks of what training takes; those that layers and functions share are in `jitconv.validate`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..layers.base import Array
from ..validate import contiguous, floats, integer


def labels(value: Any, name: str, images: int, classes: int) -> Array:
    """Return one class number for each image, as int64."""
    a = np.asarray(value)
    if a.dtype.kind not in "iu":
        raise TypeError(f"`{name}` must be integers, the class of each image, got dtype {a.dtype}")
    if a.shape != (images,):
        raise ValueError(f"`{name}` must have shape ({images},), one class for each image, got {a.shape}")
    if images and not 0 <= int(a.min()) <= int(a.max()) < classes:
        raise ValueError(f"`{name}` must lie from 0 to {classes - 1} ({classes} classes), got {a.min()} to {a.max()}")
    return contiguous(a.astype(np.int64, copy=False))


def array_of_length(value: Any, name: str, length: int) -> Array:
    """Return an array with `length` elements along its first axis, one for each image."""
    a = np.asarray(value)
    if a.ndim < 1 or len(a) != length:
        raise ValueError(f"`{name}` must have {length} elements, one for each image, got shape {a.shape}")
    return a


def not_empty(count: int, name: str) -> None:
    """Refuse a mean over no images."""
    if not count:
        raise ValueError(f"`{name}` holds no images: the mean over them is undefined")


def two(value: Any, name: str) -> tuple[Any, Any]:
    """Return a pair of anything."""
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        raise ValueError(f"`{name}` must be a pair, got {value!r}")
    return value[0], value[1]


def updatable(value: Any, name: str, like: Array | None = None) -> Array:
    """Return a parameter, or a gradient of the shape and dtype of `like`, as a flat view."""
    floats(value, name)  # only for its checks: what it returns may be a copy
    a: Array = value
    if like is not None and (a.shape != like.shape or a.dtype != like.dtype):
        raise ValueError(
            f"`{name}` must have the shape and dtype of its parameter, {like.shape} {like.dtype}, "
            f"got {a.shape} {a.dtype}"
        )
    if not (a.flags.c_contiguous and a.flags.aligned and a.flags.writeable):
        raise ValueError(f"`{name}` must be a writable, C-contiguous array: it is updated in place")
    return a.reshape(-1)


def same_parameter(parameter: Array, name: str, state: Array | None) -> None:
    """Refuse a parameter that is not as it was at the optimizer's steps before, which left `state`."""
    if state is not None and (parameter.shape != state.shape or parameter.dtype != state.dtype):
        raise ValueError(
            f"`{name}` is {parameter.shape} {parameter.dtype}, but was {state.shape} {state.dtype} at the steps before"
        )


def layers(value: Any, kind: type[Any]) -> list[Any]:
    """Return a list of layers, which must be objects of the class `kind`."""
    if not isinstance(value, (list, tuple)):
        raise TypeError(f"`layers` must be a list of layers, got {type(value).__name__}")
    for index, layer in enumerate(value):
        if not isinstance(layer, kind):
            raise TypeError(f"`layers`[{index}] must be a layer, got {type(layer).__name__}")
    return list(value)


def same_state(state: Mapping[str, Any], own: Mapping[str, Array], what: str) -> None:
    """Refuse saved arrays whose names, shapes or dtypes are not those of the arrays they are copied into."""
    missing, unknown = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    if missing or unknown:
        parts = [("lacks", missing)] * bool(missing) + [("also has", unknown)] * bool(unknown)
        words = " and ".join(f"{word} {', '.join(map(repr, names))}" for word, names in parts)
        raise ValueError(f"`state` does not fit this {what}: it {words}")
    for name, array in own.items():
        given = np.asarray(state[name])
        if given.shape != array.shape or given.dtype != array.dtype:
            raise ValueError(
                f"`state` does not fit this {what}: {name!r} is {given.shape} {given.dtype}, "
                f"expected {array.shape} {array.dtype}"
            )


def image_shape(value: Any, name: str) -> tuple[int, int, int]:
    """Return the (channels, height, width) of an image."""
    if not isinstance(value, (tuple, list)) or len(value) != 3:
        raise ValueError(f"`{name}` must be (channels, height, width), got {value!r}")
    channels, h, w = (integer(size, name, 1) for size in value)
    return channels, h, w


def shape(value: Any, name: str) -> tuple[int, ...]:
    """Return the shape of an array."""
    if not isinstance(value, (tuple, list)):
        raise TypeError(f"`{name}` must be a tuple of sizes, got {value!r}")
    return tuple(integer(size, name, 0) for size in value)


def image_fits(h: int, w: int, model: str, given: tuple[int, ...]) -> None:
    """Refuse images that a model's convolutions and poolings reduce to nothing."""
    if h < 1 or w < 1:
        raise ValueError(f"`input_shape` {given} is too small for {model}: nothing is left after its layers")
