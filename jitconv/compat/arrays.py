"""What comes in and what goes out: dtypes, and attributes that are computed when somebody asks."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from .. import validate
from ..kept import fingerprint
from ..threads import get_num_threads

Array = NDArray[Any]

_FLOAT32, _FLOAT64 = validate.FLOATS


def as_array(value: Any, name: str) -> Array:
    """Return `value` as an array of real numbers, the same object if it is one.

    Parameters
    ----------
    value : array_like
        Booleans, integers or floats of any width; lists of them too.
    name : str
        What the caller calls it, for messages.

    Raises
    ------
    TypeError
        If it is a masked array, or holds anything else.
    """
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"`{name}` is a masked array, whose mask would be ignored: fill it first ({name}.filled(0))")
    try:
        a = np.asarray(value)
    except ValueError:  # a ragged list
        raise TypeError(f"`{name}` must be an array of numbers, got {type(value).__name__} of uneven lists") from None
    if a.dtype.kind not in "biuf":
        raise TypeError(f"`{name}` must be an array of real numbers, got {type(value).__name__} of dtype {a.dtype}")
    return a


def common_dtype(*arrays: Array, preserve_dtype: bool) -> np.dtype[Any]:
    """Return the dtype in which a call is computed: float32 if it is to be kept and every array has it, else float64.

    It is that of NumPy's own arithmetic on such arrays, but for float16 and for two integers.
    """
    kept = preserve_dtype and all(a.dtype == _FLOAT32 for a in arrays)
    return _FLOAT32 if kept else _FLOAT64


def converted(dtype: DTypeLike, **values: Any) -> tuple[Any, ...]:
    """Return each value as an array of `dtype`; arrays that have it are not copied.

    Parameters
    ----------
    dtype : float32 or float64
    **values : array_like
        By the names that messages give them.
    """
    return tuple(as_array(value, name).astype(dtype, copy=False) for name, value in values.items())


def floats(preserve_dtype: bool, **values: Any) -> tuple[Any, ...]:
    """Return all arrays of a call in the one dtype in which it is computed, see `common_dtype`.

    Parameters
    ----------
    preserve_dtype : bool
        Whether float32 stays float32.
    **values : array_like
        By the names that messages give them.
    """
    keep = validate.boolean(preserve_dtype, "preserve_dtype")
    arrays = [as_array(value, name) for name, value in values.items()]
    dtype = common_dtype(*arrays, preserve_dtype=keep)
    return tuple(a.astype(dtype, copy=False) for a in arrays)


def with_axes(a: Array, name: str, axes: str) -> Array:
    """Return an array that must have the axes named, such as "N, C, H, W".

    Raises
    ------
    ValueError
        If it has more or fewer.
    """
    if a.ndim != len(axes.split(", ")):
        raise ValueError(f"`{name}` must have the axes ({axes}), got shape {a.shape}")
    return a


def with_shape(a: Array, name: str, shape: tuple[int, ...]) -> Array:
    """Return an array that must have a shape.

    Raises
    ------
    ValueError
        If it has another.
    """
    if a.shape != shape:
        raise ValueError(f"`{name}` must have shape {shape}, got {a.shape}")
    return a


def learning_rate(value: Any, name: str) -> float:
    """Return a learning rate: any finite number, as in the originals."""
    return validate.real(value, name, -math.inf)


def of_forward(cache: Any, *kinds: type) -> Any:
    """Return the parts of a cache, objects of these classes, as a forward call made it.

    Raises
    ------
    ValueError
        If it is anything else.
    """
    fits = isinstance(cache, tuple) and len(cache) == len(kinds)
    if not fits or not all(isinstance(one, kind) for one, kind in zip(cache, kinds, strict=True)):
        raise ValueError(f"`cache` must be what the forward call returned, got another {type(cache).__name__}")
    return cache


class AsItWas:
    """An input that the backward pass needs as it was in the forward pass; the caller's array itself, not a copy.

    The originals keep the windows of x, which are a copy of it. What is kept here is a checksum: reading 10 MB takes
    0.3 ms on one thread, copying them some 3.
    """

    def __init__(self, a: Array, given: Any, name: str) -> None:
        self.array, self._name = np.ascontiguousarray(a), name
        self._threads = get_num_threads()
        lent = isinstance(given, np.ndarray) and np.may_share_memory(self.array, given)
        self._mark = fingerprint(self.array, self._threads) if lent else None

    def unchanged(self) -> Array:
        """Return it, C-contiguous.

        Raises
        ------
        RuntimeError
            If somebody has changed it.
        """
        if self._mark is not None and fingerprint(self.array, self._threads) != self._mark:
            raise RuntimeError(
                f"`{self._name}` was changed between the forward and the backward pass, which needs it as it was: pass "
                f"a copy of it to the forward pass"
            )
        return self.array


class WhenAsked:
    """An attribute that is computed each time somebody reads it.

    Who assigns to it, as a subclass with passes of its own does, replaces it by a plain attribute.
    """

    def __init__(self, compute: Callable[[Any], Any]) -> None:
        self._compute = compute
        self.__doc__ = compute.__doc__

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        return self if instance is None else self._compute(instance)
