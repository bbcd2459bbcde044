"""How far a computed sum of products may lie from the exact one."""

from __future__ import annotations

import numpy as np

SAFETY = 4.0
WINOGRAD = 8.0  # its error is some 8 times that of a plain sum; "auto" may choose it


def mixed(magnitude, layout="NCHW"):
    """Return the magnitude by which Winograd's error goes: its transforms mix the pixels of a tile, or of a kernel."""
    if magnitude.ndim < 3:
        return magnitude
    axes = (-2, -1) if layout == "NCHW" else (-3, -2)
    return np.broadcast_to(magnitude.max(axis=axes, keepdims=True), magnitude.shape)


def assert_within_rounding(actual, expected, magnitude, terms, slack=1.0):
    """Assert that `actual` equals `expected` but for the rounding of a sum of `terms` products.

    `magnitude` is the same sum over absolute values. The rounding errors of one sum are independent and of
    either sign, so they add up like a random walk, to about sqrt(terms) * eps / 2 * magnitude in any order
    (Higham and Mary, "A new approach to probabilistic rounding error analysis", 2019). SAFETY allows for the
    worst element of a whole array, `slack` for an algorithm that is known to be less exact. A product dropped,
    repeated or misplaced changes a sum by about magnitude / terms, which is more for every size that the tests use.
    """
    assert actual.shape == expected.shape
    assert np.isfinite(actual).all()
    limit = slack * SAFETY * np.finfo(actual.dtype).eps * np.sqrt(terms) * magnitude
    wrong = np.argwhere(np.abs(actual - expected) > limit)
    where = tuple(map(int, wrong[0])) if len(wrong) else ()
    first = f"{actual[where]} instead of {expected[where]} at {where}" if where else ""
    assert not len(wrong), f"{len(wrong)} of {actual.size} elements are wrong, the first: {first}"
