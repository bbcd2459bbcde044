"""Calls whose arrays no memory holds; prints as JSON what each raises. test_absurd_sizes.py starts this.

The process may take only little more memory than it has: a call that allocated anything large would raise for that.
"""

from __future__ import annotations

import json
import resource
import sys

import numpy as np

import jitconv
from jitconv import layers

ROOM = 64 << 20


def zeros(*shape, dtype=np.float32):
    return np.zeros(shape, dtype)


PIXEL, WEIGHT = zeros(1, 1, 1, 1), zeros(1, 1, 1, 1)
FOUR = zeros(1, 1, 2, 2)
SPARSE = {"stride": 2**15, "output_padding": 2**15 - 1}

# Beyond 2**62 bytes, beyond any memory, and beyond what is counted.
CALLS = {
    "conv2d, beyond 2**62": lambda: jitconv.conv2d(PIXEL, WEIGHT, padding=2**30),
    "conv2d": lambda: jitconv.conv2d(PIXEL, WEIGHT, padding=2**26),
    "conv2d, kernel": lambda: jitconv.conv2d(PIXEL, zeros(1, 1, 2**11, 2**10), padding=2**11),
    "conv2d_backward": lambda: jitconv.conv2d_backward(PIXEL, zeros(1, 1, 1024, 1024), WEIGHT, stride=1024),
    "conv_transpose2d, beyond 2**62": lambda: jitconv.conv_transpose2d(FOUR, WEIGHT, stride=2**30),
    "conv_transpose2d": lambda: jitconv.conv_transpose2d(zeros(1, 1, 1024, 1024), WEIGHT, stride=512),
    "conv_transpose2d, kinds of pixels": lambda: jitconv.conv_transpose2d(FOUR, WEIGHT, **SPARSE),
    "max_pool2d_backward, beyond 2**62": lambda: jitconv.max_pool2d_backward(
        zeros(1, 2, 1, 1), zeros(1, 2, 1, 1, dtype=np.uint8), (1, 2, 2**30, 2**30), 1, stride=2**30
    ),
    "max_pool2d_backward": lambda: jitconv.max_pool2d_backward(
        PIXEL, zeros(1, 1, 1, 1, dtype=np.uint8), (1, 1, 2**26, 2**26), 1, stride=2**26
    ),
    "max_pool2d_backward, window": lambda: jitconv.max_pool2d_backward(
        PIXEL, zeros(1, 1, 1, 1, dtype=np.uint64), (1, 1, 2**17, 2**17), 2**17
    ),
    "avg_pool2d_backward": lambda: jitconv.avg_pool2d_backward(PIXEL, (1, 1, 2**26, 2**26), 1, stride=2**26),
    "global_avg_pool2d_backward": lambda: jitconv.global_avg_pool2d_backward(PIXEL, (1, 1, 2**26, 2**26)),
    "global_max_pool2d_backward": lambda: jitconv.global_max_pool2d_backward(
        PIXEL, zeros(1, 1, 1, 1, dtype=np.uint64), (1, 1, 2**26, 2**26)
    ),
    "im2col": lambda: jitconv.im2col(PIXEL, 2**13, padding=2**13),
    "im2col, beyond 2**62": lambda: jitconv.im2col(PIXEL, 2**16, padding=2**16),
    "col2im, beyond 2**62": lambda: jitconv.col2im(zeros(1, 2), (1, 2, 2**30, 2**30), 1, stride=2**30),
    "col2im": lambda: jitconv.col2im(zeros(1, 1), (1, 1, 2**26, 2**26), 1, stride=2**26),
    "plan_conv2d, beyond 2**62": lambda: jitconv.plan_conv2d((1, 2, 2**30, 2**30), (1, 2, 3, 3)),
    "plan_conv2d, weights": lambda: jitconv.plan_conv2d((1, 2**30, 1, 1), (2**31 - 1, 2**30, 1, 1)),
    "plan_conv2d, kinds of pixels": lambda: jitconv.plan_conv2d((1, 1, 2**20, 2**20), (1, 1, 3, 3), stride=2**20 - 3),
    "Conv2d, beyond 2**62": lambda: layers.Conv2d(2**30, 2**30, 3),
    "Conv2d": lambda: layers.Conv2d(2**20, 2**20, 3),
    "ConvTranspose2d, beyond 2**62": lambda: layers.ConvTranspose2d(2**31 - 1, 2**31 - 1, 1),
    "ConvTranspose2d": lambda: layers.ConvTranspose2d(2**20, 2**20, 3),
    "Dense, beyond 2**62": lambda: layers.Dense(2**31 - 1, 2**31 - 1),
    "Dense": lambda: layers.Dense(2**20, 2**20),
    "BatchNorm2d": lambda: layers.BatchNorm2d(2**30),
}


def main():
    with open("/proc/self/statm") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + ROOM, resource.getrlimit(resource.RLIMIT_AS)[1]))
    found = {}
    for name, call in CALLS.items():
        print(name, file=sys.stderr, flush=True)
        found[name] = None
        try:
            call()
        except (ValueError, MemoryError) as error:
            found[name] = type(error).__name__, str(error)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
