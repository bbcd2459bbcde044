"""Calls of the convolutions, their plans, and of im2col and col2im."""

from __future__ import annotations

import numpy as np
from layouts import shape_in
from references import conv as reference
from references import pool as windows
from rounding import mixed

import jitconv

from .calls import Call, WrongValue, all_finite, close, finite_part, same_kind
from .drawing import MOST_PRODUCTS

CHANNELS = (1, 1, 1, 2, 3, 4, 5, 8, 8, 16, 17, 33, 64, 70)


def _window(d):
    """Return kernel, stride, dilation, padding and the images' sizes; they fit."""
    kernel = d.integer(1, 5), d.integer(1, 5)
    if d.chance(0.5):
        kernel = d.choose((1, 1), (3, 3), (3, 3), (5, 5))
    stride = d.choose(1, 1, 1, 2, 2, d.pair_of(1, 4))
    dilation = 1 if d.chance(0.75) else d.pair_of(1, 3)
    padding = d.choose(0, 0, 1, 1, 2, d.pair_of(0, 4), ((d.integer(0, 3), d.integer(0, 3)), (d.integer(0, 3), 0)))
    if d.chance(0.1):
        padding = "valid"
    elif d.chance(0.1):
        stride, padding = 1, "same"
    sides = reference.sides_of(padding, kernel, reference.pair(dilation))
    size = []
    for k, step, side in zip(kernel, reference.pair(dilation), sides, strict=True):
        least = (k - 1) * int(step) + 1 - sum(side)
        size.append(max(0 if d.chance(0.02) else 1, least, d.length()))
    return kernel, {"stride": stride, "dilation": dilation, "padding": padding}, size


def _groups(d):
    """Return groups, input and output channels."""
    groups = d.choose(1, 1, 1, 1, 2, 3, 4, 8, 17)
    numbers = CHANNELS if groups == 1 else (1, 2, 4, 8, 16)
    per_group = d.choose(*numbers), d.choose(*numbers)
    if groups > 1 and d.chance(0.6):  # those that have kernels of their own
        per_group = (d.choose(1, 1, 2, 4, 8, 16),) * 2
    return groups, groups * per_group[0], groups * per_group[1]


def _output(kernel, options, size):
    stride, dilation = reference.pair(options["stride"]), reference.pair(options["dilation"])
    sides = reference.sides_of(options["padding"], kernel, dilation)
    axes = zip(size, kernel, stride, sides, dilation, strict=True)
    return [(length + sum(side) - (k - 1) * step - 1) // s + 1 for length, k, s, side, step in axes]


def _small_enough(n, groups, c, f, kernel, out, most=MOST_PRODUCTS):
    return (n or 1) * f * (c // groups) * kernel[0] * kernel[1] * out[0] * out[1] <= most


class _Problem:
    """The sizes of a convolution that fit."""

    def __init__(self, d):
        most = MOST_PRODUCTS * (8 if d.chance(0.15) else 1)
        while True:
            self.kernel, self.options, self.size = _window(d)
            self.n, (self.groups, self.c, self.f) = d.images(), _groups(d)
            self.out = _output(self.kernel, self.options, self.size)
            if min(self.out) > 0 and _small_enough(self.n, self.groups, self.c, self.f, self.kernel, self.out, most):
                break
        self.dtype, self.layout = d.dtype(), d.choose("NCHW", "NHWC")
        self.algorithm = d.choose("auto", "auto", "direct", "direct", "im2col", "winograd", "winograd_2x2")
        if self.groups > 1 or d.chance(0.3):
            self.options["groups"] = self.groups
        if self.layout == "NHWC" or d.chance(0.5):
            self.options["layout"] = self.layout

    def images(self, channels, size):
        """Return the shape of images in the layout."""
        shape = (channels, *size) if self.n is None else (self.n, channels, *size)
        return shape_in(shape, self.layout)

    @property
    def unpadded(self):
        """Whether there is no padding."""
        return self.options["padding"] in (0, "valid")

    @property
    def weights(self):
        """The shape of the weights."""
        return self.f, self.c // self.groups, *self.kernel

    def named(self, d):
        """Return the algorithm as an option, and whether the call is valid: None where Winograd may not fit."""
        if min(self.size) < 1:
            return {}, False  # images without pixels
        if self.algorithm == "auto" and d.chance(0.5):
            return {}, True
        return {"algorithm": self.algorithm}, None if self.algorithm.startswith("winograd") else True


def _plain(given, *names):
    """Return the options that the reference takes."""
    taken = "stride", "padding", "dilation", "groups", "layout", *names
    return {name: given[name] for name in taken if name in given}


def _may_be_winograd(given):
    kernel, algorithm = given["w"].shape[2:], given.get("algorithm", "auto")
    return algorithm not in ("direct", "im2col") and tuple(kernel) in ((3, 3), (5, 5))


def _sums(given, results, function, terms, magnitudes, dtype):
    """Compare results with the same sums in float64."""
    fast = _may_be_winograd(given)
    layout = given.get("layout", "NCHW")
    for name, actual in results.items():
        if actual is None:
            continue
        expected, magnitude = function[name], magnitudes[name]
        if fast:
            magnitude = mixed(magnitude, "NCHW" if name == "dw" else layout)
        spreads = fast and not all_finite(*(a for a in given.values() if isinstance(a, np.ndarray)))
        close(name, actual, expected, magnitude, terms[name], dtype, transformed=fast, spreads=spreads)


def _terms(w, y_pixels):
    f, c, kh, kw = w.shape
    return {"y": c * kh * kw + 1, "dx": max(f, c) * kh * kw, "dw": max(1, y_pixels), "db": max(1, y_pixels)}


def check_conv2d(given, y):
    """Compare a result of conv2d, or two with kept weights."""
    results, weights = (y, (given["w"], given["again"])) if "again" in given else ((y,), (given["w"],))
    for one, w in zip(results, weights, strict=True):
        x, b = given["x"], given.get("b")
        options = _plain(given, "activation")
        expected = reference.conv2d(x, w, b, **options)
        bias = None if b is None else finite_part(b)
        magnitude = reference.conv2d(finite_part(x), finite_part(w), bias, **_plain(given))
        _sums(given, {"y": one}, {"y": expected}, _terms(w, 1), {"y": magnitude}, x.dtype)
        if given.get("out") is not None and one is not given["out"]:
            raise WrongValue("the result is not `out`")


def _with_kept(again, **given):
    """Call conv2d twice with the same kept weights: the second time with others."""
    first = jitconv.conv2d(**given)
    return first, jitconv.conv2d(**given | {"w": again})


def _out(d, shape, dtype):
    """Return an array for a result, the memory around it not zero."""
    a = np.full(shape, 7, dtype)
    if d.chance(0.5):
        return a
    larger = np.full([2 * size + 1 for size in shape], 7, dtype)
    return larger[tuple(slice(1, None, 2) for _ in shape)]


def conv2d(d):
    """Draw a call of conv2d."""
    p = _Problem(d)
    named, valid = p.named(d)
    # Whether a weight that is no number is multiplied by the zeros of the padding is not defined.
    unpadded = p.unpadded and p.algorithm in ("direct", "im2col")
    given = {
        "x": d.array(p.images(p.c, p.size), p.dtype),
        "w": d.array(p.weights, p.dtype, finite=not unpadded),
        **p.options,
        **named,
    }
    if d.chance(0.7):
        given["b"] = d.array((p.f,), p.dtype)
    if d.chance(0.3):
        given["activation"] = d.choose("relu", None)
    function = None
    if d.chance(0.15):
        given["out"] = _out(d, p.images(p.f, p.out), p.dtype)
    elif d.chance(0.2):
        given |= {"kept": jitconv.KeptWeights(), "again": d.array(p.weights, p.dtype, finite=True)}
        function = _with_kept
    return Call("conv2d", given, check_conv2d, valid, d.threads(), function)


def _image_count(given, a):
    return 1 if a.ndim == 3 else len(a)


def check_conv2d_backward(given, gradients):
    """Compare the results of conv2d_backward."""
    x, w, dy, options = given["x"], given["w"], given["dy"], _plain(given)
    expected = reference.conv2d_backward(dy, x, w, **options)
    magnitudes = reference.conv2d_backward(finite_part(dy), finite_part(x), finite_part(w), **options)
    _gradients(given, gradients, expected, magnitudes, dy.size // max(1, w.shape[0]))


def _gradients(given, gradients, expected, magnitudes, pixels):
    names = ("dx", "dw", "db")
    for name, needed in zip(names, given.get("needs", (True,) * 3), strict=True):
        if (getattr(gradients, name) is None) == needed:
            raise WrongValue(f"{name} is {'missing' if needed else 'there, though not needed'}")
    results = gradients._asdict()
    terms = _terms(given["w"], pixels)
    right, sizes = dict(zip(names, expected, strict=True)), dict(zip(names, magnitudes, strict=True))
    _sums(given, results, right, terms, sizes, given["x"].dtype)


def conv2d_backward(d):
    """Draw a call of conv2d_backward."""
    p = _Problem(d)
    named, valid = p.named(d)
    given = {
        "dy": d.array(p.images(p.f, p.out), p.dtype, finite=not p.unpadded),
        "x": d.array(p.images(p.c, p.size), p.dtype),
        "w": d.array(p.weights, p.dtype, finite=True),
        **p.options,
        **named,
    }
    if d.chance(0.3):
        given["needs"] = tuple(d.chance(0.5) for _ in range(3))
    return Call("conv2d_backward", given, check_conv2d_backward, valid, d.threads())


def _transposed(d):
    """Return the problem whose backward-data is a transposed convolution, and the options of that."""
    while True:
        p = _Problem(d)
        if not isinstance(p.options["padding"], str) and min(p.size) > 0:
            break
    stride, dilation = reference.pair(p.options["stride"]), reference.pair(p.options["dilation"])
    sides = reference.sides_of(p.options["padding"], p.kernel, dilation)
    axes = zip(p.out, p.kernel, stride, sides, dilation, strict=True)
    size = [(o - 1) * s - sum(side) + (k - 1) * step + 1 for o, k, s, side, step in axes]
    extra = [d.integer(0, max(int(s), int(step)) - 1) for s, step in zip(stride, dilation, strict=True)]
    if d.chance(0.5):
        extra = [0, 0]
    if any(extra) or d.chance(0.3):
        p.options["output_padding"] = tuple(extra)
    return p, [length + more for length, more in zip(size, extra, strict=True)]


def check_conv_transpose2d(given, y):
    """Compare a result of conv_transpose2d."""
    x, w, b = given["x"], given["w"], given.get("b")
    options = _plain(given, "output_padding")
    expected = reference.conv_transpose2d(x, w, b, **options)
    bias = None if b is None else finite_part(b)
    magnitude = reference.conv_transpose2d(finite_part(x), finite_part(w), bias, **options)
    terms = {"y": w.shape[0] * w.shape[2] * w.shape[3] + 1}
    _sums(given, {"y": y}, {"y": expected}, terms, {"y": magnitude}, x.dtype)


def conv_transpose2d(d):
    """Draw a call of conv_transpose2d."""
    p, size = _transposed(d)
    given = {
        "x": d.array(p.images(p.f, p.out), p.dtype),
        "w": d.array(p.weights, p.dtype, finite=True),
        **p.options,
    }
    if d.chance(0.6):
        given["b"] = d.array((p.c,), p.dtype)
    return Call("conv_transpose2d", given, check_conv_transpose2d, min(size) > 0, d.threads())


def check_conv_transpose2d_backward(given, gradients):
    """Compare the results of conv_transpose2d_backward."""
    x, w, dy, options = given["x"], given["w"], given["dy"], _plain(given, "output_padding")
    expected = reference.conv_transpose2d_backward(dy, x, w, **options)
    magnitudes = reference.conv_transpose2d_backward(finite_part(dy), finite_part(x), finite_part(w), **options)
    _gradients(given, gradients, expected, magnitudes, dy.size)


def conv_transpose2d_backward(d):
    """Draw a call of conv_transpose2d_backward."""
    while True:
        p, size = _transposed(d)
        if min(size) > 0:
            break
    given = {
        "dy": d.array(p.images(p.c, size), p.dtype),
        "x": d.array(p.images(p.f, p.out), p.dtype, finite=not p.unpadded),
        "w": d.array(p.weights, p.dtype, finite=True),
        **p.options,
    }
    if d.chance(0.3):
        given["needs"] = [d.chance(0.5) for _ in range(3)]
    return Call("conv_transpose2d_backward", given, check_conv_transpose2d_backward, True, d.threads())


def _check_plan(given, plan):
    text = str(plan)
    if "forward" not in text or plan.problem.f != given["w_shape"][0]:
        raise WrongValue(f"the plan does not fit: {text}")
    algorithm = given.get("algorithm", "auto")
    if algorithm != "auto" and plan.algorithm not in (algorithm, "direct"):
        raise WrongValue(f"{plan.algorithm} instead of {algorithm}")


def plan_conv2d(d):
    """Draw a call of plan_conv2d."""
    p = _Problem(d)
    named, valid = p.named(d)
    given = {
        "x_shape": tuple(p.images(p.c, p.size)),
        "w_shape": p.weights,
        "dtype": d.choose(p.dtype, p.dtype.name, p.dtype.type),
        **p.options,
        **named,
    }
    return Call("plan_conv2d", given, _check_plan, valid, d.threads())


def _check_im2col(given, columns):
    x = given["x"][np.newaxis] if given["x"].ndim == 3 else given["x"]
    expected = windows.im2col(x, given["kernel"], **_of_columns(given))
    if not np.array_equal(columns, expected.astype(x.dtype), equal_nan=True):
        raise WrongValue("im2col is wrong")
    same_kind("columns", columns, expected.shape, x.dtype)


def _of_columns(given):
    options = {name: given[name] for name in ("stride", "padding", "dilation") if name in given}
    kernel, dilation = reference.pair(given["kernel"]), reference.pair(options.get("dilation", 1))
    options["padding"] = reference.sides_of(options.get("padding", 0), kernel, dilation)
    return options


def _columns_problem(d):
    while True:
        kernel, options, size = _window(d)
        n, c, out = d.images(), d.choose(1, 1, 2, 3, 5), _output(kernel, options, size)
        fits = min(out) > 0 and min(size) > 0
        if fits and _small_enough(n, 1, c, 1, kernel, out):
            return kernel, options, (c, *size) if n is None else (n, c, *size), out


def im2col(d):
    """Draw a call of im2col."""
    kernel, options, shape, _ = _columns_problem(d)
    given = {"x": d.array(shape, d.dtype()), "kernel": kernel, **options}
    return Call("im2col", given, _check_im2col, True, d.threads())


def _check_col2im(given, x):
    shape = given["x_shape"] if len(given["x_shape"]) == 4 else (1, *given["x_shape"])
    options, columns = _of_columns(given), given["columns"]
    expected = windows.col2im(columns, shape, given["kernel"], **options).reshape(given["x_shape"])
    magnitude = windows.col2im(finite_part(columns), shape, given["kernel"], **options).reshape(given["x_shape"])
    kernel = reference.pair(given["kernel"])
    close("x", x, expected, magnitude, kernel[0] * kernel[1], columns.dtype)


def col2im(d):
    """Draw a call of col2im."""
    kernel, options, shape, out = _columns_problem(d)
    n, c = (1, shape[0]) if len(shape) == 3 else shape[:2]
    rows = n * out[0] * out[1], c * kernel[0] * kernel[1]
    given = {"columns": d.array(rows, d.dtype()), "x_shape": shape, "kernel": kernel, **options}
    return Call("col2im", given, _check_col2im, True, d.threads())
