"""Turns a right call into a wrong one, or into one that may be either."""

from __future__ import annotations

import numpy as np

from .calls import ARRAYS

HUGE = 10**5000  # more digits than Python writes
NAN, INF = float("nan"), float("inf")

PAIRS = ((), (1,), (1, 2, 3), (1, -1), (2.0, 1), np.array([1, 2]))
SIZES = (0, -1, 1.5, NAN, INF, "2", None, True, 2**31, HUGE, {}, *PAIRS)
SIDES = (-1, 1.5, NAN, "all", None, True, (1, 2, 3), ((1, 1), 1), ((1, 1), (1, -1)), 2**31, HUGE, np.ones(2), {})
WRONG = {
    "stride": SIZES,
    "dilation": SIZES,
    "kernel": (*SIZES, 10**6),
    "kernel_size": SIZES,
    "padding": SIDES,
    "output_padding": (-1, NAN, "0", (0, -1), 2**30, None),
    "groups": (0, -1, 1.0, "1", None, 10**6, True, NAN),
    "layout": ("nchw", "", None, 1, b"NCHW", ("NCHW",), NAN),
    "algorithm": ("fft", "Direct", None, 1, b"auto"),
    "activation": ("tanh", "RELU", 0, False, NAN),
    "ceil_mode": (0, 1, None, "yes", NAN),
    "count_include_pad": (0, 1, None, "yes"),
    "needs": (True, (True, True), (1, 1, 1), "all", None, {}),
    "x_shape": (None, 3, (2, 3), (2, 3, 4, 5, 6), "shape", (1, 2, -3, 4), (1, 2, 3.0, 4), (2**31 - 1,) * 4, NAN),
    "w_shape": (None, 3, (2, 3), (1, 1, -1, 1), (1, 1, 1.0, 1), (0, 1, 1, 1), (2**31 - 1,) * 4),
    "dtype": (np.int32, "half", None, 3, ">f4", "(2,", np.complex64),
    "kept": (True, {}, "kept"),
    "in_channels": (0, -1, 1.5, None, 2**31 - 1),
    "out_features": (0, NAN, "5"),
    "num_features": (0, 10**6, None),
    "p": (-0.1, 1.1, NAN, "0.5", None, True, 1j, (0.5, 0.5)),
    "seed": (-1, 1.5, "1", True, {}),
    "bias": (0, None, "yes"),
}
# May be right or wrong in some place.
ANY = (
    0, 1, 2, 3, -1, 7, 2**30, 2**31 - 1, 2**31, 10**30, NAN, INF, 1.0, True, None, "same", "valid", "NHWC", "NCHW", "",
    (1, 2), (2, 1), (0, 0), ((1, 0), (0, 2)), ((0, 1), (2, 0)), [1, 1], [[0, 1], [1, 0]], (1, 2, 3), np.int64(2),
    np.uint8(1), np.array(2), np.array([1, 2]), object(), {}, b"x", np.float32(1), np.True_, (np.int32(1), 2),
    (2**31 - 1, 1), (1, 2**31 - 1),
)  # fmt: skip


def _no_floats(d, a):
    """Return what is no array of float32 or float64."""
    with np.errstate(all="ignore"):
        kind = d.choose(np.int64, np.float16, np.complex64, object, ">f4", ">f8", bool, np.longdouble)
        whole = np.nan_to_num(np.asarray(a, np.float64), posinf=0, neginf=0)
        made = (
            lambda: a.tolist(),
            lambda: np.ma.masked_array(a),
            lambda: whole.astype(kind),
            lambda: None,
            lambda: 3.5,
            lambda: "array",
            lambda: memoryview(np.ascontiguousarray(a)),
        )
        return made[d.integer(0, len(made) - 1)]()


def _other_shape(d, a):
    """Return an array with an axis too many."""
    return a[(..., *(np.newaxis,) * d.integer(2, 3))] if a.ndim > 1 else a[np.newaxis]


def _other_dtype(d, a):
    """Return an array of the other dtype that is computed."""
    with np.errstate(all="ignore"):
        return np.asarray(a).astype(np.float32 if a.dtype == np.float64 else np.float64)


def spoil(d, call):
    """Make one argument of a right call wrong."""
    given = call.given
    arrays = [name for name in ARRAYS if isinstance(given.get(name), np.ndarray) and name != "again"]
    options = [name for name in WRONG if name in given]
    if arrays and (not options or d.chance(0.5)):
        name = d.choose(*arrays)
        a = given[name]
        ways = [_no_floats]
        if given.get("kind") not in ("Flatten", "ReLU", "Dropout"):  # which take any
            ways.append(_other_shape)
        if len([other for other in arrays if other != "argmax"]) > 1:
            ways.append(_other_dtype)
        if name == "argmax":
            ways = [_other_shape, lambda d, a: a.astype(np.int64), lambda d, a: a.tolist(), lambda d, a: np.ma.array(a)]
            if a.size and not _holds_all(given):
                ways.append(lambda d, a: np.full_like(a, np.iinfo(a.dtype).max))
        value = ways[d.integer(0, len(ways) - 1)](d, a)
        if name in ("b", "out") and value is None:  # which is right
            value = "none"
    else:
        # Also one that was not given.
        name = d.choose(*options)
        value = WRONG[name][d.integer(0, len(WRONG[name]) - 1)]
    if name == "stride" and value is None and given.keys() & {"kernel", "kernel_size"}:  # the window's own
        value = 0
    wide = name == "kernel" and isinstance(value, int) and value == 10**6
    if wide and given.get("ceil_mode"):  # a last window may be partly outside
        value = 0
    given[name] = value
    call.valid = False
    call.note += f", {name} spoilt"


def _holds_all(given):
    """Return whether the largest number of the argmax's dtype may be a pixel of the window, or of the image."""
    if "kernel" in given:
        kernel = given["kernel"]
        area = int(np.prod(kernel if isinstance(kernel, (tuple, list)) else (kernel, kernel)))
    else:
        area = int(np.prod(given["x_shape"]))
    return area > np.iinfo(given["argmax"].dtype).max


def loosen(d, call):
    """Replace one or two arguments by anything: what comes of it must be right, or refused in words."""
    given = call.given
    names = [name for name in given if name not in ("kind", "x_shape", "w_shape", "again", "dtype", "in_channels")]
    for name in d.rng.choice(names, min(len(names), d.integer(1, 2)), replace=False):
        name = str(name)
        if isinstance(given[name], np.ndarray):
            a = given[name]
            shape = tuple(d.integer(0, 5) for _ in range(d.integer(0, 5)))
            dtype = d.choose(a.dtype, a.dtype, np.float32, np.float64, np.int32)
            value = d.placed(d.rng.standard_normal(shape).astype(dtype)) if d.chance(0.7) else None
            if name == "argmax" or (value is None and name != "b"):
                continue
        else:
            value = ANY[d.integer(0, len(ANY) - 1)]
        given[name] = value
        call.note += f", {name} replaced"
    call.valid = None
