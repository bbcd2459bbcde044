"""Print the table of rounding errors in docs/numerics.md.

    python asv_benchmarks/error_table.py

Each error is that of a 3x3 convolution of normally distributed data against the same sum in long double (float64 for
float32), over the largest output; the mean is a root mean square.
"""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

import jitconv

CHANNELS = (16, 64, 256, 512)
SIZE = 12


def exact(x, w, kind):
    """Return the convolution in a wider type."""
    padded = np.pad(x.astype(kind), ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = sliding_window_view(padded, (3, 3), (2, 3)).transpose(0, 2, 3, 1, 4, 5)
    rows = windows.reshape(-1, x.shape[1] * 9)
    flat = w.astype(kind).reshape(w.shape[0], -1)
    return (rows @ flat.T).reshape(1, SIZE, SIZE, -1).transpose(0, 3, 1, 2)


def main():
    """Print one row for each dtype and number of channels."""
    names = ("direct", "im2col", "winograd_2x2", "winograd")
    print("| dtype | channels | " + " | ".join(f"{name}, max | rms" for name in names) + " |")
    print("|---" * (2 + 2 * len(names)) + "|")
    rng = np.random.default_rng(0)
    for dtype, kind in ((np.float32, np.float64), (np.float64, np.longdouble)):
        for channels in CHANNELS:
            x = rng.standard_normal((1, channels, SIZE, SIZE)).astype(dtype)
            w = rng.standard_normal((32, channels, 3, 3)).astype(dtype)
            right = exact(x, w, kind)
            cells = []
            for name in names:
                error = jitconv.conv2d(x, w, padding=1, algorithm=name) - right
                error /= np.abs(right).max()
                cells += [f"{float(np.abs(error).max()):.1e}", f"{float(np.sqrt((error**2).mean())):.1e}"]
            print(f"| {np.dtype(dtype)} | {channels} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
