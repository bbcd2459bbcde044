"""Checks of numbers, pairs, words, dtypes and seeds, and how a message quotes a value; `validate` has them too."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from .shapes import Pair

FLOATS = (np.dtype(np.float32), np.dtype(np.float64))
MOST_SHOWN = 200  # characters of a value in a message


def shown(value: Any) -> str:
    """Return a value as a message quotes it: on one line, cut where it is long."""
    if isinstance(value, np.ndarray) and value.ndim:
        return f"an array of shape {value.shape}"
    try:
        text = " ".join(repr(value).split())
    except Exception:  # whatever a stranger's __repr__ raises; an int of more than 4300 digits has none
        return f"one of type {type(value).__name__} that cannot be shown"
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}..."


def integer(value: Any, name: str, minimum: int) -> int:
    """Return `value` as an int of at least `minimum`."""
    try:
        number = None if isinstance(value, (bool, np.bool_)) else operator.index(value)
    except TypeError:
        number = None
    if number is None or number < minimum:
        kind = TypeError if number is None else ValueError
        raise kind(f"`{name}` must be an integer of at least {minimum}, got {shown(value)}")
    if number >= 2**31:
        raise ValueError(f"`{name}` must be below 2**31, got {shown(value)}")
    return number


def boolean(value: Any, name: str) -> bool:
    """Return `value`, which must be True or False."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"`{name}` must be True or False, got {shown(value)}")
    return bool(value)


def pair(value: Any, name: str, minimum: int = 1) -> Pair:
    """Return an int or a pair of ints as (vertical, horizontal)."""
    if isinstance(value, (tuple, list)):
        if len(value) != 2:
            raise ValueError(f"`{name}` must be an int or a pair of ints, got {shown(value)}")
        return integer(value[0], name, minimum), integer(value[1], name, minimum)
    number = integer(value, name, minimum)
    return number, number


def choice(value: Any, name: str, allowed: Sequence[Any]) -> Any:
    """Return `value`, which must be one of `allowed`."""
    if not any(value is one or (isinstance(value, str) and value == one) for one in allowed):
        raise ValueError(f"`{name}` must be one of {', '.join(map(repr, allowed))}, got {shown(value)}")
    return value


def float_dtype(value: Any, name: str = "dtype") -> np.dtype[Any]:
    """Return `value` as one of the two dtypes that are computed."""
    try:
        dtype: np.dtype[Any] | None = None if value is None else np.dtype(value)
    except (TypeError, ValueError, SyntaxError):  # all that NumPy says of a dtype that is none
        dtype = None
    if dtype is None or dtype not in FLOATS:
        raise TypeError(f"`{name}` must be float32 or float64, got {shown(value)}")
    return dtype


def real(value: Any, name: str, minimum: float, maximum: float = math.inf, *, below: bool = False) -> float:
    """Return a finite number from `minimum` to `maximum` (`below`: and less than `maximum`) as a float."""
    limits = f" of at least {minimum:g}" if maximum == math.inf else f" from {minimum:g} to {maximum:g}"
    end = f", {maximum:g} excluded" if below else ""
    rule = f"`{name}` must be a finite number{limits if minimum > -math.inf else ''}{end}, got {shown(value)}"
    number = _number(value)
    if number is None:
        raise TypeError(rule)
    if not math.isfinite(number) or not minimum <= number <= maximum or (below and number == maximum):
        raise ValueError(rule)
    return number


def _number(value: Any) -> float | None:
    """Return a real number as a float, infinite where it is too large for one; None for anything else."""
    if isinstance(value, (bool, complex, str, bytes, bytearray)):
        return None
    if isinstance(value, (np.ndarray, np.generic)) and (value.ndim or value.dtype.kind not in "iuf"):
        return None
    try:
        return float(value)
    except OverflowError:
        return math.inf
    except (TypeError, ValueError, RuntimeError):  # the last from tensors of several elements
        return None


def generator(value: Any, name: str) -> np.random.Generator:
    """Return the generator of random numbers that a seed, another generator or None stands for."""
    try:
        if not isinstance(value, (bool, np.bool_, str)):
            return np.random.default_rng(value)
        kind: type[Exception] = TypeError
    except (TypeError, ValueError) as error:
        kind = type(error)
    rule = "must be an integer of at least 0, a numpy.random.Generator or None"
    raise kind(f"`{name}` {rule}, got {shown(value)}")
