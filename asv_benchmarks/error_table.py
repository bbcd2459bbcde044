"""Print the tables of rounding errors in docs/numerics.md.

    python asv_benchmarks/error_table.py

The data are normally distributed, images of 12x12 pixels, kernels padded to keep their size (at stride 2 to halve it).
Forward has 32 kernels over so many channels; backward-data 32 channels under so many kernels; backward-weights 64
channels, 32 kernels and so many images. An error is the difference from the same sum in a wider type (float64 for
float32, long double for float64), divided by the largest magnitude of the result; of all elements the table gives the
largest error and the root mean square. Long double must be wider than float64, as it is on x86.
"""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

import jitconv

# Column, algorithm, kernel size, stride.
COLUMNS = (
    ("direct", "direct", 3, 1),
    ("im2col", "im2col", 3, 1),
    ("winograd_2x2", "winograd_2x2", 3, 1),
    ("winograd", "winograd", 3, 1),
    ("winograd, 5x5", "winograd", 5, 1),
    ("winograd, stride 2", "winograd", 3, 2),
)
CHANNELS = (16, 64, 128, 256, 512)
KERNELS = (64, 512)
IMAGES = (4, 64)
SIZE = 12
WIDER = {"float32": np.float64, "float64": np.longdouble}


def windows(x, kernel, stride, before, after):
    """Return (N, C, OH, OW, KH, KW) of x (N, C, H, W) with so many rows and columns of zeros around it."""
    padded = np.pad(x, ((0, 0), (0, 0), (before, after), (before, after)))
    return sliding_window_view(padded, (kernel, kernel), (2, 3))[:, :, ::stride, ::stride]


def forward(x, w, stride, padding):
    """Return the convolution."""
    seen = windows(x, w.shape[2], stride, padding, padding).transpose(0, 2, 3, 1, 4, 5)
    rows = seen.reshape(-1, w[0].size) @ w.reshape(len(w), -1).T
    return rows.reshape(*seen.shape[:3], -1).transpose(0, 3, 1, 2)


def backward_data(dy, w, stride, padding):
    """Return the gradient of the input: the forward pass of dy, with zeros between its pixels."""
    size = SIZE + 2 * padding - w.shape[2] + 1
    spread = np.zeros((*dy.shape[:2], size, size), dy.dtype)
    spread[:, :, ::stride, ::stride] = dy
    return forward(spread, w.swapaxes(0, 1)[:, :, ::-1, ::-1], 1, w.shape[2] - 1 - padding)


def backward_weights(dy, x, w, stride, padding):
    """Return the gradient of the weights."""
    seen = windows(x, w.shape[2], stride, padding, padding).transpose(0, 2, 3, 1, 4, 5)
    return (dy.transpose(1, 0, 2, 3).reshape(len(w), -1) @ seen.reshape(-1, w[0].size)).reshape(w.shape)


def arrays(dtype, n, c, f, kernel, stride, rng):
    """Return x, w and dy."""
    x = rng.standard_normal((n, c, SIZE, SIZE)).astype(dtype)
    w = rng.standard_normal((f, c, kernel, kernel)).astype(dtype)
    return x, w, rng.standard_normal((n, f, SIZE // stride, SIZE // stride)).astype(dtype)


def errors(each, dtype, count, column):
    """Return the largest error of a pass and the root mean square; `count`: what its sums are over."""
    _, algorithm, kernel, stride = column
    sizes = {"forward": (1, count, 32), "backward-data": (1, 32, count), "backward-weights": (count, 64, 32)}[each]
    x, w, dy = arrays(dtype, *sizes, kernel, stride, np.random.default_rng(0))
    wide = [a.astype(WIDER[dtype]) for a in (x, w, dy)]
    padding = kernel // 2
    options = {"stride": stride, "padding": padding, "algorithm": algorithm}
    if each == "forward":
        got, right = jitconv.conv2d(x, w, **options), forward(wide[0], wide[1], stride, padding)
    elif each == "backward-data":
        got = jitconv.conv2d_backward(dy, x, w, needs=(True, False, False), **options).dx
        right = backward_data(wide[2], wide[1], stride, padding)
    else:
        got = jitconv.conv2d_backward(dy, x, w, needs=(False, True, False), **options).dw
        right = backward_weights(wide[2], wide[0], wide[1], stride, padding)
    error = (got - right) / np.abs(right).max()
    return float(np.abs(error).max()), float(np.sqrt((error**2).mean()))


def table(first, rows):
    """Print a table; `rows` are the cells of the first columns, the pass, the dtype and the count."""
    print("| " + " | ".join((*first, *(f"{name}, max | rms" for name, *_ in COLUMNS))) + " |")
    print("|---" * (len(first) + 2 * len(COLUMNS)) + "|")
    for cells, *case in rows:
        found = [f"{value:.1e}" for column in COLUMNS for value in errors(*case, column)]
        print("| " + " | ".join([*cells, *found]) + " |", flush=True)
    print()


def main():
    """Print the table of forward and that of backward."""
    if np.finfo(np.longdouble).eps >= np.finfo(np.float64).eps:
        raise SystemExit("long double is no wider than float64 here: the errors of float64 cannot be measured")
    table(
        ("dtype", "channels"),
        [((dtype, str(count)), "forward", dtype, count) for dtype in WIDER for count in CHANNELS],
    )
    backward = [("backward-data", "kernels", count) for count in KERNELS]
    backward += [("backward-weights", "images", count) for count in IMAGES]
    table(
        ("pass", "dtype", "sums over"),
        [((each, dtype, f"{count} {of}"), each, dtype, count) for each, of, count in backward for dtype in WIDER],
    )


if __name__ == "__main__":
    main()
