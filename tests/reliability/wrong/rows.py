"""What a row of the tables is, and how rows are made."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np

X = np.ones((2, 4, 8, 9), np.float32)
W = np.ones((6, 4, 3, 3), np.float32)
B = np.ones(6, np.float32)
DY = np.ones((2, 6, 6, 7), np.float32)


class InFolder(str):
    """The name of a file among those that `files.py` makes; a row's call gets its path."""


@dataclasses.dataclass(frozen=True)
class Wrong:
    """A call that must be refused.

    `target` is the public name that the row is about, `message` how the refusal starts; "{folder}" in it is where the
    files are.
    """

    target: str
    call: Callable[..., Any]
    given: dict[str, Any]
    error: type[Exception]
    message: str

    def __str__(self) -> str:
        return f"{self.target}: {self.message}"

    def arguments(self, folder: os.PathLike[str]) -> dict[str, Any]:
        """Return the arguments, with the paths of files in their places."""
        return {
            name: str(pathlib.Path(folder) / value) if isinstance(value, InFolder) else value
            for name, value in self.given.items()
        }


def rows(target, call, base, *changes):
    """Return a row for each (what differs from the arguments `base`, exception, how its message starts)."""
    return [Wrong(target, call, base | changed, error, message) for changed, error, message in changes]


def not_floats(name, right, only="but only float32 and float64 are computed"):
    """Return the changes that put something else in the place of a float array."""
    kinds = [np.int64, np.uint8, np.bool_, np.float16, np.complex64, np.dtype(">f4"), np.dtype(object)]
    return [
        ({name: right.tolist()}, TypeError, f"`{name}` must be a NumPy array of float32 or float64, got list"),
        ({name: 1.5}, TypeError, f"`{name}` must be a NumPy array of float32 or float64, got float"),
        ({name: "image"}, TypeError, f"`{name}` must be a NumPy array of float32 or float64, got str"),
        ({name: np.ma.masked_array(right)}, TypeError, f"`{name}` is a masked array, whose mask would be ignored"),
        *(({name: right.astype(kind)}, TypeError, f"`{name}` has dtype {np.dtype(kind)}, {only}") for kind in kinds),
    ]


def no_array(name, right):
    """Return the changes that put what holds no real numbers in the place of what a stand-in makes an array of."""
    return [
        ({name: None}, TypeError, f"`{name}` must be an array of real numbers, got NoneType"),
        ({name: "image"}, TypeError, f"`{name}` must be an array of real numbers, got str"),
        ({name: right.astype(complex)}, TypeError, f"`{name}` must be an array of real numbers, got ndarray of dtype"),
        ({name: [[1, 2], [3]]}, TypeError, f"`{name}` must be an array of numbers, got list of uneven lists"),
        ({name: np.ma.masked_array(right)}, TypeError, f"`{name}` is a masked array, whose mask would be ignored"),
    ]


def after(make, x, method="backward"):
    """Return a function that makes an object, runs its forward pass, and calls one of its methods."""

    def call(**given):
        made = make()
        made.forward(x)
        return getattr(made, method)(**given)

    return call
