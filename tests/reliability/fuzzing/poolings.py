"""Calls of the poolings."""

from __future__ import annotations

import numpy as np
from layouts import shape_in
from references import pool as reference

from .calls import Call, WrongValue, close, equal, finite_part, same_kind


class _Pooling:
    """The sizes of a pooling that fit."""

    def __init__(self, d, dilated):
        while True:
            kernel = d.choose(2, 2, 3, 3, d.pair_of(1, 5), (d.integer(1, 18), d.integer(1, 18)))
            kh, kw = reference.pair(kernel)
            padding = d.choose(0, 0, 0, d.integer(0, min(kh, kw) // 2), (d.integer(0, kh // 2), d.integer(0, kw // 2)))
            if d.chance(0.15):
                padding = (d.integer(0, kh // 2), d.integer(0, kh // 2)), (d.integer(0, kw // 2), d.integer(0, kw // 2))
            self.options = {"stride": d.choose(None, 1, 2, 2, d.pair_of(1, 4)), "padding": padding}
            if dilated and d.chance(0.2):
                self.options["dilation"] = d.pair_of(1, 3)
            if d.chance(0.4):
                self.options["ceil_mode"] = d.chance(0.6)
            self.kernel, self.layout, self.dtype = kernel, d.choose("NCHW", "NHWC"), d.dtype()
            n, c = d.images(), d.choose(1, 2, 3, 7, 16, 17, 33) if d.chance(0.97) else 0
            size = d.length(), d.length()
            self.nchw = (c, *size) if n is None else (n, c, *size)
            whole = (n or 1, c, *size)
            # A window may span more than the image, but not more than the image with its padding.
            dilation = reference.pair(self.options.get("dilation", 1))
            spans = zip(size, (kh, kw), reference.sides_of(padding), dilation, strict=True)
            if any((k - 1) * int(step) + 1 > length + sum(side) for length, k, side, step in spans):
                continue
            self.windows = reference.Windows.of(whole, kernel, **self.options)
            self.out = len(self.windows.rows), len(self.windows.columns)
            if min(self.out) > 0 and (n or 1) * max(c, 1) * self.out[0] * self.out[1] * kh * kw < 300_000:
                break
        if self.layout == "NHWC" or d.chance(0.5):
            self.options["layout"] = self.layout

    def images(self, size):
        """Return a shape in the layout."""
        return tuple(shape_in((*self.nchw[:-2], *size), self.layout))


def _whole(a, given):
    """Return images as (N, C, H, W)."""
    batch = a[np.newaxis] if a.ndim == 3 else a
    return np.asarray(batch.transpose(0, 3, 1, 2) if given.get("layout") == "NHWC" else batch)


def _given_shape(given):
    """Return x_shape as (N, C, H, W)."""
    shape = tuple(given["x_shape"])
    shape = (1, *shape) if len(shape) == 3 else shape
    return (shape[0], shape[3], *shape[1:3]) if given.get("layout") == "NHWC" else shape


def _back(a, given, single):
    """Return (N, C, H, W) as it was given."""
    a = a.transpose(0, 2, 3, 1) if given.get("layout") == "NHWC" else a
    return a[0] if single else a


def _options(given, *names):
    return {name: given[name] for name in ("stride", "padding", "dilation", "ceil_mode", *names) if name in given}


def _check_max(given, result):
    x = given["x"]
    y, argmax = result if isinstance(result, tuple) else (result, None)
    expected, offsets = reference.max_pool2d(_whole(x, given), given["kernel"], **_options(given))
    equal("y", y, _back(expected, given, x.ndim == 3), x.dtype)
    if argmax is not None:
        right = _back(offsets, given, x.ndim == 3)
        kh, kw = reference.pair(given["kernel"])
        same_kind("argmax", argmax, right.shape, np.min_scalar_type(int(kh) * int(kw) - 1))
        if not np.array_equal(argmax, right):
            raise WrongValue("argmax is wrong")


def max_pool2d(d):
    """Draw a call of max_pool2d, with or without argmax."""
    p = _Pooling(d, True)
    name = d.choose("max_pool2d", "max_pool2d_with_argmax")
    given = {"x": d.array(p.images(p.nchw[-2:]), p.dtype), "kernel": p.kernel, **p.options}
    return Call(name, given, _check_max, True, d.threads())


def _check_max_backward(given, dx):
    dy, single = given["dy"], len(given["x_shape"]) == 3
    argmax = _whole(given["argmax"], given)
    options = _options(given)
    expected, magnitude = (
        _back(reference.max_pool2d_backward(a, argmax, _given_shape(given), given["kernel"], **options), given, single)
        for a in (_whole(dy, given), finite_part(_whole(dy, given)))
    )
    kh, kw = reference.pair(given["kernel"])
    close("dx", dx, expected, magnitude, int(kh) * int(kw), dy.dtype)


def max_pool2d_backward(d):
    """Draw a call of max_pool2d_backward, of an argmax that points to pixels."""
    p = _Pooling(d, True)
    x = d.values(p.images(p.nchw[-2:]), p.dtype)
    kh, kw = reference.pair(p.kernel)
    x_options = {name: value for name, value in p.options.items() if name != "layout"}
    _, offsets = reference.max_pool2d(_whole(x, p.options), p.kernel, **x_options)
    argmax = _back(offsets, p.options, x.ndim == 3).astype(np.min_scalar_type(int(kh) * int(kw) - 1))
    given = {
        "dy": d.array(p.images(p.out), p.dtype),
        "argmax": d.placed(np.ascontiguousarray(argmax)),
        "x_shape": x.shape,
        "kernel": p.kernel,
        **p.options,
    }
    return Call("max_pool2d_backward", given, _check_max_backward, True, d.threads())


def _check_avg(given, y):
    x, options = given["x"], _options(given, "count_include_pad")
    expected, magnitude = (
        _back(reference.avg_pool2d(a, given["kernel"], **options), given, x.ndim == 3)
        for a in (_whole(x, given), finite_part(_whole(x, given)))
    )
    kh, kw = reference.pair(given["kernel"])
    close("y", y, expected, magnitude, int(kh) * int(kw), x.dtype)


def avg_pool2d(d):
    """Draw a call of avg_pool2d."""
    p = _Pooling(d, False)
    given = {"x": d.array(p.images(p.nchw[-2:]), p.dtype), "kernel": p.kernel, **p.options}
    if d.chance(0.4):
        given["count_include_pad"] = d.chance(0.5)
    return Call("avg_pool2d", given, _check_avg, True, d.threads())


def _check_avg_backward(given, dx):
    dy, single, options = given["dy"], len(given["x_shape"]) == 3, _options(given, "count_include_pad")
    expected, magnitude = (
        _back(reference.avg_pool2d_backward(a, _given_shape(given), given["kernel"], **options), given, single)
        for a in (_whole(dy, given), finite_part(_whole(dy, given)))
    )
    kh, kw = reference.pair(given["kernel"])
    close("dx", dx, expected, magnitude, int(kh) * int(kw), dy.dtype)


def avg_pool2d_backward(d):
    """Draw a call of avg_pool2d_backward."""
    p = _Pooling(d, False)
    given = {
        "dy": d.array(p.images(p.out), p.dtype),
        "x_shape": p.images(p.nchw[-2:]),
        "kernel": p.kernel,
        **p.options,
    }
    if d.chance(0.4):
        given["count_include_pad"] = d.chance(0.5)
    return Call("avg_pool2d_backward", given, _check_avg_backward, True, d.threads())


def _check_global(given, result):
    x = given["x"]
    pixels = _whole(x, given).astype(np.float64)
    flat = pixels.reshape(*pixels.shape[:2], pixels.shape[2] * pixels.shape[3])
    if isinstance(result, tuple):
        y, argmax = result
        right = flat.max(-1)[..., np.newaxis, np.newaxis]
        hits = (flat == right[..., 0]) | (np.isnan(flat) & np.isnan(right[..., 0]))
        offsets = _back(hits.argmax(-1)[..., np.newaxis, np.newaxis], given, x.ndim == 3)
        equal("y", y, _back(right, given, x.ndim == 3), x.dtype)
        same_kind("argmax", argmax, offsets.shape, np.min_scalar_type(flat.shape[-1] - 1))
        if not np.array_equal(argmax, offsets):
            raise WrongValue("argmax is wrong")
        return
    with np.errstate(all="ignore"):
        expected, magnitude = (
            _back((a.sum(-1) / a.shape[-1])[..., np.newaxis, np.newaxis], given, x.ndim == 3)
            for a in (flat, finite_part(flat))
        )
    close("y", result, expected, magnitude, flat.shape[-1], x.dtype)


def global_pool2d(d):
    """Draw a call of global_avg_pool2d or global_max_pool2d."""
    p = _Pooling(d, False)
    name = d.choose("global_avg_pool2d", "global_max_pool2d")
    given = {"x": d.array(p.images(p.nchw[-2:]), p.dtype), "layout": p.layout}
    return Call(name, given, _check_global, True, d.threads())


def _check_global_backward(given, dx):
    dy, shape, single = _whole(given["dy"], given).astype(np.float64), _given_shape(given), len(given["x_shape"]) == 3
    expected = np.zeros((*shape[:2], shape[2] * shape[3]))
    if "argmax" in given:
        places = _whole(given["argmax"], given).astype(np.int64)[..., 0]
        np.put_along_axis(expected, places, dy[..., 0], -1)
    else:
        expected += dy[..., 0] / (shape[2] * shape[3])
    expected = _back(expected.reshape(shape), given, single)
    close("dx", dx, expected, finite_part(expected), 1, given["dy"].dtype)


def global_pool2d_backward(d):
    """Draw a call of global_avg_pool2d_backward or global_max_pool2d_backward."""
    p = _Pooling(d, False)
    name = d.choose("global_avg_pool2d_backward", "global_max_pool2d_backward")
    h, w = p.nchw[-2:]
    given = {"dy": d.array(p.images((1, 1)), p.dtype), "x_shape": p.images((h, w)), "layout": p.layout}
    if "max" in name:
        places = d.rng.integers(0, h * w, p.images((1, 1)))
        given["argmax"] = d.placed(places.astype(np.min_scalar_type(h * w - 1)))
    return Call(name, given, _check_global_backward, True, d.threads())
