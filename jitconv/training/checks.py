"""Checks of what training takes; those that layers and functions share are in `jitconv.validate`."""

from __future__ import annotations

import json
import math
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..layers.base import Array
from ..validate import batch, contiguous, floats, integer, shown


def plain(value: Any, name: str) -> Array:
    """Return anything that NumPy makes an array of as one."""
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"`{name}` is a masked array, whose mask would be ignored: fill it first ({name}.filled(0))")
    try:
        return np.asarray(value)
    except ValueError:  # a ragged list
        raise ValueError(f"`{name}` must be an array, got {type(value).__name__} of uneven lists") from None


def labels(value: Any, name: str, images: int, classes: float = math.inf) -> Array:
    """Return one class number for each image, as int64."""
    a = plain(value, name)
    if a.dtype.kind not in "iu":
        raise TypeError(f"`{name}` must be integers, the class of each image, got dtype {a.dtype}")
    if a.shape != (images,):
        raise ValueError(f"`{name}` must have shape ({images},), one class for each image, got {a.shape}")
    if images and not 0 <= int(a.min()) <= int(a.max()) < min(classes, 2**63):
        limit = f"from 0 to {classes - 1} ({classes} classes)" if classes < math.inf else "from 0 on"
        raise ValueError(f"`{name}` must lie {limit}, got {a.min()} to {a.max()}")
    return contiguous(a.astype(np.int64, copy=False))


def kind_of(value: Any, name: str, kind: type, what: str) -> None:
    """Refuse what is no object of a class."""
    if not isinstance(value, kind):
        raise TypeError(f"`{name}` must be {what}, got {type(value).__name__}")


def function(value: Any, name: str) -> None:
    """Refuse what is neither a function nor None."""
    if value is not None and not callable(value):
        raise TypeError(f"`{name}` must be a function or None, got {shown(value)}")


def path(value: Any, name: str) -> pathlib.Path:
    """Return the path of a file or a folder, which need not be there."""
    if not isinstance(value, (str, os.PathLike)) or not isinstance(os.fspath(value), str):
        raise TypeError(f"`{name}` must be a path, got {shown(value)}")
    if "\0" in os.fspath(value):
        raise ValueError(f"`{name}` must be a path without null characters, got {shown(value)}")
    return pathlib.Path(value)


def not_empty(count: int, name: str) -> None:
    """Refuse a mean over no images."""
    if not count:
        raise ValueError(f"`{name}` holds no images: the mean over them is undefined")


def two(value: Any, name: str) -> tuple[Any, Any]:
    """Return a pair of anything."""
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        raise ValueError(f"`{name}` must be a pair, got {shown(value)}")
    return value[0], value[1]


def same_names(parameters: Any, gradients: Any) -> None:
    """Refuse what are no dictionaries, or parameters without gradients."""
    for value, name in ((parameters, "parameters"), (gradients, "gradients")):
        kind_of(value, name, Mapping, "a dict of arrays")
    missing = sorted(map(str, parameters.keys() - gradients.keys()))
    if missing:
        raise ValueError(f"`gradients` lacks {', '.join(map(repr, missing))}")


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
    kind_of(state, "state", Mapping, "a dict of arrays")
    missing, unknown = sorted(own.keys() - state.keys()), sorted(map(str, state.keys() - own.keys()))
    if missing or unknown:
        parts = [("lacks", missing)] * bool(missing) + [("also has", unknown)] * bool(unknown)
        words = " and ".join(f"{word} {', '.join(map(repr, names))}" for word, names in parts)
        raise ValueError(f"`state` does not fit this {what}: it {words}")
    for name, array in own.items():
        given = plain(state[name], "state")
        if given.shape != array.shape or given.dtype != array.dtype:
            raise ValueError(
                f"`state` does not fit this {what}: {name!r} is {given.shape} {given.dtype}, "
                f"expected {array.shape} {array.dtype}"
            )


def json_options(value: Any) -> dict[str, Any]:
    """Return options that a file of weights can hold, None as none."""
    if value is None:
        return {}
    kind_of(value, "options", Mapping, "a dict")
    try:
        json.dumps(dict(value), sort_keys=True)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"`options` must hold what JSON can: {error}") from None
    return dict(value)


def test_images(value: Any) -> None:
    """Refuse what are no images with their labels, or none of them."""
    x, classes = two(value, "test")
    images = len(batch(x, "test[0]"))
    not_empty(images, "test[0]")
    labels(classes, "test[1]", images)


def not_negative(steps: int) -> None:
    """Refuse the state of an optimizer that has made fewer steps than none."""
    if steps < 0:
        raise ValueError(f"`state` does not fit this optimizer: 'steps' is {steps}")


def image_shape(value: Any, name: str) -> tuple[int, int, int]:
    """Return the (channels, height, width) of an image."""
    if not isinstance(value, (tuple, list)) or len(value) != 3:
        raise ValueError(f"`{name}` must be (channels, height, width), got {shown(value)}")
    channels, h, w = (integer(size, name, 1) for size in value)
    return channels, h, w


def shape(value: Any, name: str) -> tuple[int, ...]:
    """Return the shape of an array."""
    if not isinstance(value, (tuple, list)):
        raise TypeError(f"`{name}` must be a tuple of sizes, got {shown(value)}")
    return tuple(integer(size, name, 0) for size in value)


def features_fit(features: int, given: tuple[int, ...]) -> None:
    """Refuse images of which more features are left than a dense layer takes."""
    if features >= 2**31:
        raise ValueError(f"`input_shape` {given} leaves {features} features: too large")


def image_fits(h: int, w: int, model: str, given: tuple[int, ...]) -> None:
    """Refuse images that a model's convolutions and poolings reduce to nothing."""
    if h < 1 or w < 1:
        raise ValueError(f"`input_shape` {given} is too small for {model}: nothing is left after its layers")
