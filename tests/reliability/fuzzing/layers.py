"""Layers: a forward and a backward pass each."""

from __future__ import annotations

import numpy as np
from layouts import from_layout, shape_in, to_layout
from references import conv as reference
from references import pool as pool_reference
from rounding import mixed

from jitconv import layers

from .calls import Call, WrongValue, close, finite_part, same_kind

DRAWN = ("Conv2d", "ConvTranspose2d", "Dense", "MaxPool2d", "AvgPool2d", "GlobalAvgPool2d", "GlobalMaxPool2d")
DRAWN += ("ReLU", "Flatten", "BatchNorm2d", "Dropout")


def _passes(kind, x, dy, **options):
    """Return what a layer makes of x and dy, and the layer."""
    layer = getattr(layers, kind)(**options)
    y = layer.forward(x)
    return y, layer.backward(dy), layer


def _sums(kind, results, magnitudes, terms, dtype, **how):
    for name, (actual, expected) in results.items():
        close(f"{kind}: {name}", actual, expected, magnitudes[name], terms, dtype, **how)


def _check_conv(given, result):
    y, dx, layer = result
    x, dy, kind, layout = given["x"], given["dy"], given["kind"], given["layout"]
    spread = kind == "ConvTranspose2d"
    forward, backward = (
        (reference.conv_transpose2d, reference.conv_transpose2d_backward)
        if spread
        else (reference.conv2d, reference.conv2d_backward)
    )
    names = ("stride", "padding", "dilation", "groups", *(("output_padding",) if spread else ()))
    options = {name: given[name] for name in names if name in given} | {"layout": layout}
    w, b = layer.weight, layer.bias
    expected = forward(x, w, b, **options)
    magnitude = forward(finite_part(x), finite_part(w), None if b is None else finite_part(b), **options)
    if given.get("activation") == "relu":
        expected, dy = np.where(expected < 0, 0.0, expected), np.where(y > 0, dy, 0)
    gradients = backward(dy, x, w, **options)
    sizes = backward(finite_part(dy), finite_part(x), finite_part(w), **options)
    results = {"y": (y, expected), "dx": (dx, gradients[0]), "dw": (layer.gradients["weight"], gradients[1])}
    magnitudes = {"y": magnitude, "dx": sizes[0], "dw": sizes[1]}
    if b is not None:
        results["db"] = layer.gradients["bias"], gradients[2]
        magnitudes["db"] = sizes[2]
    fast = given["kernel_size"] in (3, 5, (3, 3), (5, 5))
    if fast:
        magnitudes = {name: mixed(size, "NCHW" if name == "dw" else layout) for name, size in magnitudes.items()}
    terms = max(dy.size, w.size)
    _sums(kind, results, magnitudes, terms, x.dtype, transformed=fast)


def _conv(d, kind):
    groups, kernel = d.choose(1, 1, 1, 2, 4), d.choose(1, 3, 3, 5, (2, 3))
    channels, outputs = groups * d.integer(1, 9), groups * d.integer(1, 9)
    layout, dtype, n = d.choose("NCHW", "NHWC"), d.dtype(), d.choose(1, 2, 3)
    stride, padding, dilation = d.choose(1, 1, 2), d.integer(0, 2), d.choose(1, 1, 1, 2)
    extent = (max(reference.pair(kernel)) - 1) * dilation + 1
    size = d.integer(extent, extent + 9), d.integer(extent, extent + 9)
    options = {
        "in_channels": channels, "out_channels": outputs, "kernel_size": kernel, "stride": stride, "padding": padding,
        "dilation": dilation, "groups": groups, "bias": d.chance(0.7), "layout": layout, "dtype": dtype,
        "seed": d.integer(0, 9),
    }  # fmt: skip
    kh, kw = reference.pair(kernel)
    if kind == "ConvTranspose2d" and min(size) <= 2 * padding:
        size = size[0] + 2 * padding, size[1] + 2 * padding
    if kind == "Conv2d":
        options["activation"] = d.choose(None, "relu")
        out = [(s + 2 * padding - (k - 1) * dilation - 1) // stride + 1 for s, k in zip(size, (kh, kw), strict=True)]
    else:
        out = [(s - 1) * stride - 2 * padding + (k - 1) * dilation + 1 for s, k in zip(size, (kh, kw), strict=True)]
    x = d.values(shape_in((n, channels, *size), layout), dtype, finite=True)
    dy = d.values(shape_in((n, outputs, *out), layout), dtype, finite=True)
    return options | {"x": d.placed(x), "dy": d.placed(dy)}, _check_conv, min(out) > 0


def _check_dense(given, result):
    y, dx, layer = result
    x, dy, dtype = given["x"].astype(np.float64), given["dy"], given["x"].dtype
    w, b = layer.weight.astype(np.float64), layer.bias
    expected = x @ w.T + (0 if b is None else b.astype(np.float64))
    if given["activation"] == "relu":
        expected, dy = np.where(expected < 0, 0.0, expected), np.where(y > 0, dy, 0)
    dy = dy.astype(np.float64)
    results = {"y": (y, expected), "dx": (dx, dy @ w), "dw": (layer.gradients["weight"], dy.T @ x)}
    ax, ady, aw = map(finite_part, (x, dy, w))
    magnitudes = {"y": ax @ aw.T, "dx": ady @ aw, "dw": ady.T @ ax}
    if b is not None:
        results["db"], magnitudes["db"] = (layer.gradients["bias"], dy.sum(0)), ady.sum(0)
    _sums("Dense", results, magnitudes, max(x.shape) + max(w.shape), dtype)


def _dense(d, kind):
    n, inputs, outputs, dtype = d.integer(0, 9), d.integer(1, 70), d.integer(1, 40), d.dtype()
    options = {
        "in_features": inputs, "out_features": outputs, "bias": d.chance(0.7), "activation": d.choose(None, "relu"),
        "dtype": dtype, "seed": d.integer(0, 9),
    }  # fmt: skip
    x, dy = d.values((n, inputs), dtype, finite=True), d.values((n, outputs), dtype, finite=True)
    return options | {"x": d.placed(x), "dy": d.placed(dy)}, _check_dense, True


def _check_pool(given, result):
    y, dx, _ = result
    x, kind, layout = given["x"], given["kind"], given["layout"]
    images = from_layout(x, layout)
    kernel, stride = (images.shape[2:], 1) if "kernel_size" not in given else (given["kernel_size"], given["stride"])
    dy = from_layout(given["dy"], layout)
    if "Max" in kind:
        expected, offsets = pool_reference.max_pool2d(images, kernel, stride=stride)
        gradient = pool_reference.max_pool2d_backward(dy, offsets, images.shape, kernel, stride=stride)
        magnitude = np.zeros_like(expected)
    else:
        expected = pool_reference.avg_pool2d(images, kernel, stride=stride)
        gradient = pool_reference.avg_pool2d_backward(dy, images.shape, kernel, stride=stride)
        magnitude = pool_reference.avg_pool2d(finite_part(images), kernel, stride=stride)
    results = {"y": (y, to_layout(expected, layout)), "dx": (dx, to_layout(gradient, layout))}
    most = np.full(gradient.shape, np.abs(dy).max(initial=0) * max(1, dy.size))
    magnitudes = {"y": to_layout(magnitude, layout), "dx": to_layout(most, layout)}
    _sums(kind, results, magnitudes, images.shape[2] * images.shape[3], x.dtype)


def _pool(d, kind):
    layout, dtype, n, c = d.choose("NCHW", "NHWC"), d.dtype(), d.choose(1, 2), d.choose(1, 3, 16, 17)
    size = d.integer(3, 12), d.integer(3, 12)
    options, out = {"layout": layout}, (1, 1)
    if "Global" not in kind:
        kernel, stride = d.integer(1, 3), d.integer(1, 3)
        options |= {"kernel_size": kernel, "stride": stride}
        out = (size[0] - kernel) // stride + 1, (size[1] - kernel) // stride + 1
    x = d.values(shape_in((n, c, *size), layout), dtype, finite=True)
    dy = d.values(shape_in((n, c, *out), layout), dtype, finite=True)
    return options | {"x": d.placed(x), "dy": d.placed(dy)}, _check_pool, True


def _exactly(kind, name, actual, expected):
    same_kind(f"{kind}: {name}", actual, expected.shape, expected.dtype)
    if not np.array_equal(actual, expected, equal_nan=True):
        raise WrongValue(f"{kind}: {name} is wrong")


def _check_elements(given, result):
    y, dx, _ = result
    x, dy, kind = np.asarray(given["x"]), np.asarray(given["dy"]), given["kind"]
    if kind == "ReLU":
        _exactly(kind, "y", y, np.where(x < 0, 0, x).astype(x.dtype))
        _exactly(kind, "dx", dx, np.where(y <= 0, 0, dy).astype(x.dtype))
    elif kind == "Flatten":
        _exactly(kind, "y", y, x.reshape(len(x), -1 if len(x) else x[:0].size))
        _exactly(kind, "dx", dx, dy.reshape(x.shape))
    else:
        kept = y != 0
        scale = x.dtype.type(1.0 / (1.0 - given["p"]) if given["p"] < 1 else 0)
        _exactly(kind, "y", y, np.where(kept, x * scale, 0).astype(x.dtype))
        _exactly(kind, "dx", dx, np.where(kept, dy * scale, 0).astype(x.dtype))


def _elements(d, kind):
    dtype = d.dtype()
    shape = tuple(d.integer(1, 7) for _ in range(d.integer(2, 4)))
    x, dy = d.values(shape, dtype, finite=kind == "Dropout"), d.values(shape, dtype, finite=kind == "Dropout")
    options = {}
    if kind == "Dropout":
        x, dy = np.ones_like(x), np.ones_like(dy)
        options = {"p": d.choose(0.0, 0.25, 0.5, 1.0), "seed": d.integer(0, 9)}
    if kind == "Flatten":
        dy = dy.reshape(shape[0], -1)
    return options | {"x": d.placed(x), "dy": d.placed(dy)}, _check_elements, True


def _check_norm(given, result):
    y, dx, layer = result
    layout, dtype = given["layout"], given["x"].dtype
    x, dy = (from_layout(np.asarray(given[name]), layout).astype(np.float64) for name in ("x", "dy"))
    axes, count = (0, 2, 3), x.size // x.shape[1]
    mean, var = x.mean(axes, keepdims=True), x.var(axes, keepdims=True)
    inverse = 1 / np.sqrt(var + 1e-5)
    right = (x - mean) * inverse
    gradient = inverse * (dy - dy.mean(axes, keepdims=True) - right * (dy * right).mean(axes, keepdims=True))
    size = np.abs(dy).max(initial=0) * np.ones_like(x) * inverse
    results = {
        "y": (y, to_layout(right, layout)),
        "dx": (dx, to_layout(gradient, layout)),
        "dw": (layer.gradients["weight"], (dy * right).sum(axes)),
        "db": (layer.gradients["bias"], dy.sum(axes)),
    }
    largest = np.abs(dy).max(initial=0) * count * np.ones(x.shape[1])
    magnitudes = {
        "y": to_layout(np.ones_like(x) * (np.abs(x).max() * inverse + np.abs(right).max()), layout),
        "dx": to_layout(size * (1 + np.abs(right).max()) ** 2, layout),
        "dw": largest * np.abs(right).max(initial=1),
        "db": largest,
    }
    _sums("BatchNorm2d", results, magnitudes, count, dtype, slack=4.0)


def _norm(d, kind):
    layout, dtype, c = d.choose("NCHW", "NHWC"), d.dtype(), d.choose(1, 3, 16, 33)
    shape = shape_in((d.integer(2, 4), c, d.integer(1, 8), d.integer(1, 8)), layout)
    x, dy = (d.rng.standard_normal(shape).astype(dtype) for _ in range(2))
    return (
        {"num_features": c, "layout": layout, "dtype": dtype, "x": d.placed(x), "dy": d.placed(dy)},
        _check_norm,
        True,
    )


_MAKERS = {
    "Conv2d": _conv, "ConvTranspose2d": _conv, "Dense": _dense, "ReLU": _elements, "Flatten": _elements,
    "Dropout": _elements, "BatchNorm2d": _norm,
}  # fmt: skip


def layer(d):
    """Draw the two passes of a layer."""
    kind = d.choose(*DRAWN)
    given, check, valid = _MAKERS.get(kind, _pool)(d, kind)
    return Call(f"layers.{kind}", {"kind": kind, **given}, check, valid, d.threads(), _passes)
