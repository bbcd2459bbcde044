"""A call that has been drawn: what runs, what it must return, and how it may be spoilt."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import re
from collections.abc import Callable
from typing import Any

import numpy as np
from rounding import SAFETY, WINOGRAD

import jitconv

from .drawing import owner_of

RESULTS = {"x", "y", "dx", "columns", "kernel"}  # what a message may name besides arguments


TRANSFORMED = 64  # the largest number of Winograd's output transforms, along both axes
FEW_PRODUCTS = 250  # as `TOLERANCE` in tests/test_winograd.py
ARRAYS = ("x", "w", "b", "dy", "columns", "argmax", "out", "again")
PARAMETERS = ("w", "b", "weight", "bias")  # of layers


def plain(value):
    """Return a whole number of NumPy's as one of Python's, those inside of tuples and lists too."""
    if isinstance(value, (tuple, list)):
        return tuple(map(plain, value))
    if isinstance(value, np.integer) or (isinstance(value, np.ndarray) and not value.ndim and value.dtype.kind in "iu"):
        return int(value)
    return value


class WrongValue(Exception):
    """A result is not what it must be."""


@dataclasses.dataclass
class Call:
    """One call.

    `valid`: True if it must return, False if it must be refused, None if either will do. `check` takes the arguments
    and the result, and raises WrongValue. `function` is that of `jitconv` with this name where none is given.
    """

    name: str
    given: dict[str, Any]
    check: Callable[[dict[str, Any], Any], None]
    valid: bool | None = True
    threads: int | None = None
    function: Callable[..., Any] | None = None
    note: str = ""

    def run(self):
        """Return the result."""
        with jitconv.num_threads(self.threads) if self.threads else contextlib.nullcontext():
            return (self.function or getattr(jitconv, self.name))(**self.given)

    def arrays(self):
        """Return the arrays among the arguments."""
        return {name: value for name, value in self.given.items() if isinstance(value, np.ndarray)}

    def memory(self):
        """Return the memory in which the arrays lie that must not change."""
        return [owner_of(a) for name, a in self.arrays().items() if name != "out"]

    def names(self):
        """Return the names that a message may use."""
        public = getattr(jitconv, self.name, None)
        return {*self.given, *RESULTS, *(inspect.signature(public).parameters if public else PARAMETERS)}

    def plain(self):
        """Return the arguments as the references take them: whole numbers of NumPy's as Python's."""
        return {name: value if name in ARRAYS else plain(value) for name, value in self.given.items()}

    def __str__(self):
        options = ", ".join(f"{name}={_shown(value)}" for name, value in self.given.items())
        return f"{self.name}({options}), threads {self.threads}{self.note}"


def _shown(value):
    if not isinstance(value, np.ndarray):
        return re.sub(" at 0x[0-9a-f]+", "", repr(value))[:80]
    flags = "" if value.flags.c_contiguous and value.flags.writeable else f", strides {value.strides}"
    unusual = "" if not value.size or value.dtype.kind != "f" or np.isfinite(value).all() else ", not finite"
    return f"<{type(value).__name__} {value.shape} {value.dtype}{flags}{unusual}>"


def same_kind(name, actual, shape, dtype):
    """Raise WrongValue unless a result is a plain array of a shape and a dtype."""
    if type(actual) is not np.ndarray:
        raise WrongValue(f"{name} is a {type(actual).__name__}")
    if actual.shape != tuple(shape) or actual.dtype != dtype:
        raise WrongValue(f"{name} is {actual.shape} {actual.dtype} instead of {tuple(shape)} {dtype}")


def close(name, actual, expected, magnitude, terms, dtype, *, slack=1.0, transformed=False, spreads=False):
    """Raise WrongValue unless a result is right but for rounding; see `rounding.assert_within_rounding`.

    What is no number in `expected` must be none in the result. `spreads`: it may be none elsewhere, too. Sums that come
    near the largest number may overflow on the way. Below the smallest normal number every product has an absolute
    error, which Winograd (`transformed`) multiplies by the numbers of its transforms; they also set its error where
    there are few products, see `docs/numerics.md`.
    """
    same_kind(name, actual, expected.shape, dtype)
    limits = np.finfo(dtype)
    with np.errstate(all="ignore"):
        far = magnitude > float(limits.max) / 1e5
        lost = ~np.isfinite(expected) & np.isfinite(actual) & ~far
        factor, least = slack * SAFETY * np.sqrt(terms), float(limits.smallest_normal)
        if transformed:
            factor, least = max(WINOGRAD * factor, FEW_PRODUCTS), TRANSFORMED * least
        limit = factor * float(limits.eps) * (magnitude + least)
        off = ~(np.abs(actual.astype(np.float64) - expected) <= limit) & np.isfinite(expected) & ~far
    if spreads:
        off &= np.isfinite(actual)
    for wrong, what in ((lost, "lost NaN or infinity"), (off, "wrong")):
        if wrong.any():
            at = tuple(map(int, np.argwhere(wrong)[0]))
            first = f"{actual[at]!r} instead of {expected[at]!r}, within {limit[at]:g}"
            raise WrongValue(f"{name}: {int(wrong.sum())} of {wrong.size} {what}, the first at {at}: {first}")


def equal(name, actual, expected, dtype):
    """Raise WrongValue unless a result is exactly right; NaN equals NaN, and 0 equals -0."""
    same_kind(name, actual, expected.shape, dtype)
    with np.errstate(over="ignore"):
        right = expected.astype(dtype)
    wrong = ~((actual == right) | (np.isnan(actual) & np.isnan(right)))
    if wrong.any():
        at = tuple(map(int, np.argwhere(wrong)[0]))
        raise WrongValue(f"{name}: {int(wrong.sum())} of {wrong.size} wrong, the first at {at}: {actual[at]!r}")


def finite_part(a):
    """Return the absolute values of an array in float64, 0 for what is no number."""
    return np.abs(np.nan_to_num(np.asarray(a, np.float64), nan=0.0, posinf=0.0, neginf=0.0))


def all_finite(*arrays):
    """Return whether all arrays hold numbers only."""
    return all(a is None or np.isfinite(a).all() for a in arrays)
