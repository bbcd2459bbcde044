"""jitconv in both layouts."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

import jitconv

from .problems import Array, Call, Conv, Pool


def _laid(a: Array, layout: str) -> Array:
    """Return an NCHW array in a layout."""
    return np.ascontiguousarray(a.transpose(0, 2, 3, 1)) if layout == "NHWC" and a.ndim == 4 else a


def _reader(layout: str, first: bool = False) -> Callable[[object], tuple[Array, ...]]:
    """Return what reads images of a layout; `first`: all but the first of a tuple is something else."""

    def read(result: object) -> tuple[Array, ...]:
        results = (result[0],) if first else (result,)
        return tuple(a.transpose(0, 3, 1, 2) if layout == "NHWC" else a for a in results)

    return read


def convolution(layer: Conv, arrays: dict[str, Array], layout: str, threads: int) -> dict[str, Call]:
    """Return a call of each pass."""
    jitconv.set_num_threads(threads)
    x, dy, w, b = _laid(arrays["x"], layout), _laid(arrays["dy"], layout), arrays["w"], arrays["b"]
    options = {"stride": layer.stride, "padding": layer.padding, "layout": layout}
    back = partial(jitconv.conv2d_backward, dy, x, w, **options)
    return {
        "forward": Call(partial(jitconv.conv2d, x, w, b, **options), _reader(layout)),
        "backward_data": Call(partial(back, needs=(True, False, False)), _reader(layout, first=True)),
        "backward_weights": Call(partial(back, needs=(False, True, True)), lambda result: (result.dw, result.db)),
    }


def pooling(layer: Pool, arrays: dict[str, Array], layout: str, threads: int) -> dict[str, Call]:
    """Return a call of each direction; max pooling forward keeps its argmax, as the others do."""
    jitconv.set_num_threads(threads)
    x, dy = _laid(arrays["x"], layout), _laid(arrays["dy"], layout)
    if layer.kernel:
        options = {"stride": layer.stride, "padding": layer.padding, "layout": layout}
        pool = partial(jitconv.max_pool2d_with_argmax, x, layer.kernel, **options)
        calls = (
            partial(jitconv.max_pool2d_backward, dy, pool()[1], x.shape, layer.kernel, **options),
            partial(jitconv.avg_pool2d, x, layer.kernel, **options),
            partial(jitconv.avg_pool2d_backward, dy, x.shape, layer.kernel, **options),
        )
    else:
        pool = partial(jitconv.global_max_pool2d, x, layout=layout)
        calls = (
            partial(jitconv.global_max_pool2d_backward, dy, pool()[1], x.shape, layout=layout),
            partial(jitconv.global_avg_pool2d, x, layout=layout),
            partial(jitconv.global_avg_pool2d_backward, dy, x.shape, layout=layout),
        )
    names = ("max_backward", "average_forward", "average_backward")
    return {
        "max_forward": Call(pool, _reader(layout, first=True)),
        **{name: Call(call, _reader(layout)) for name, call in zip(names, calls, strict=True)},
    }
