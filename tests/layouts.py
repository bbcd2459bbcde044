"""Arrays from one layout to the other."""

from __future__ import annotations

import numpy as np


def to_layout(a, layout):
    """Return an NCHW or CHW array in `layout`."""
    return np.ascontiguousarray(np.moveaxis(a, -3, -1)) if layout == "NHWC" else a


def from_layout(a, layout):
    """Return an array in `layout` as NCHW or CHW."""
    return np.moveaxis(a, -1, -3) if layout == "NHWC" else a


def shape_in(shape, layout):
    """Return an NCHW or CHW shape in `layout`."""
    return (*shape[:-3], *shape[-2:], shape[-3]) if layout == "NHWC" else shape
