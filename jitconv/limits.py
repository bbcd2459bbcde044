"""Sizes beyond which nothing is computed, for a plan or a kernel would count too far: checked before any is made."""

from __future__ import annotations

from typing import Any

import numpy as np

from .shapes import Activation, Pair

MOST_TAPS = 2**20  # pixels of a convolution's kernel: each is an entry in a plan
MOST_PHASES = 2**18  # kinds of pixels into which a stride cuts the gradient of an input: each is as well


def kernel(sizes: tuple[int, ...], name: str) -> None:
    """Refuse a convolution's kernel of so many pixels that its plan would take more memory than its weights."""
    if sizes[0] * sizes[1] > MOST_TAPS:
        raise ValueError(f"`{name}` has kernels of {sizes[0]}x{sizes[1]} pixels, but at most {MOST_TAPS} are computed")


def phases(stride: Pair, sizes: Pair) -> None:
    """Refuse a stride that leaves most pixels of a transposed convolution's result without a like."""
    rows, columns = (min(axis) for axis in zip(stride, sizes, strict=True))
    if rows * columns > MOST_PHASES:
        raise ValueError(
            f"`stride` {stride} cuts images of {sizes[0]}x{sizes[1]} pixels into {rows}x{columns} kinds that different "
            f"taps reach, but at most {MOST_PHASES} are computed"
        )


def window(image: Activation, sizes: Pair, name: str) -> None:
    """Refuse a pooling whose kernels would count the columns of an image or the pixels of a window beyond 32 bits."""
    if max(image.h, image.w) >= 2**31:
        raise ValueError(f"`{name}` has images of {image.h}x{image.w} pixels, but sides must be below 2**31")
    if sizes[0] * sizes[1] >= 2**32:
        raise ValueError(f"`kernel` has {sizes[0]}x{sizes[1]} pixels, but a window must have less than 2**32")


def whole_image(image: Activation, name: str, planes: bool, dtype: np.dtype[Any]) -> None:
    """Refuse images of more pixels than a kernel counts, beside their channels: with integers as wide as elements."""
    bits = 8 * dtype.itemsize
    if not planes and image.h * image.w >= 2**bits:
        raise ValueError(
            f"`{name}` has images of {image.h}x{image.w} pixels, but in NHWC those of {dtype} must have less than "
            f"2**{bits}: use NCHW"
        )
