"""Faults of every class, for the test that the fuzzer finds them: `fuzz.py --plant` runs this in each process."""

from __future__ import annotations

import os
import threading

import jitconv

right = {name: getattr(jitconv, name) for name in ("conv2d", "max_pool2d", "avg_pool2d", "conv2d_backward")}


def wrong_value(*arguments, **options):
    """Return what is a little too large, in one element."""
    y = right["conv2d"](*arguments, **options)
    if y.size and y.flags.writeable:
        y.flat[-1] += 0.01 * abs(y).max() + 0.01
    return y


def unclear(*arguments, **options):
    """Say nothing of the argument."""
    try:
        return right["max_pool2d"](*arguments, **options)
    except (TypeError, ValueError) as error:
        raise type(error)("something is wrong") from None


def modifying(x, *arguments, **options):
    """Write to the input."""
    y = right["avg_pool2d"](x, *arguments, **options)
    if x.flags.writeable and x.size:
        x.flat[0] += 1
    return y


def accepting(*arguments, **options):
    """Take anything."""
    try:
        return right["conv2d_backward"](*arguments, **options)
    except (TypeError, ValueError):
        return jitconv.ConvGradients(None, None, None)


jitconv.conv2d, jitconv.max_pool2d, jitconv.avg_pool2d = wrong_value, unclear, modifying
jitconv.conv2d_backward = accepting
jitconv.im2col = lambda **options: os.abort()
jitconv.plan_conv2d = lambda **options: threading.Event().wait()
