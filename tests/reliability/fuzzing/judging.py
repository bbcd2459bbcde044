"""Draws a call, runs it and says what came of it."""

from __future__ import annotations

import re
import warnings
from typing import NamedTuple

import numpy as np

from . import convolution, layers, poolings
from .calls import WrongValue
from .drawing import Draw, owner_of
from .spoiling import loosen, spoil

# How often each is drawn.
MAKERS = {
    convolution.conv2d: 8,
    convolution.conv2d_backward: 6,
    convolution.conv_transpose2d: 3,
    convolution.conv_transpose2d_backward: 3,
    convolution.plan_conv2d: 2,
    convolution.im2col: 1,
    convolution.col2im: 1,
    poolings.max_pool2d: 3,
    poolings.max_pool2d_backward: 2,
    poolings.avg_pool2d: 2,
    poolings.avg_pool2d_backward: 2,
    poolings.global_pool2d: 1,
    poolings.global_pool2d_backward: 1,
    layers.layer: 5,
}
_WEIGHTED = [maker for maker, weight in MAKERS.items() for _ in range(weight)]
SPOILT, LOOSENED = 0.25, 0.15  # of all calls
# Results from this size on may find no memory.
LARGE = 10**6

# What may come of a call; the first two are right.
VALID, INVALID = "valid", "invalid"
WRONG, UNCLEAR, MODIFIED, REFUSED = "wrong value", "unclear error", "modified input", "refused though right"
CRASH, HANG = "crash", "hang"


class Verdict(NamedTuple):
    """What came of a call, and the words to it."""

    outcome: str
    words: str = ""


def drawn(seed):
    """Return the call of a seed."""
    d = Draw(seed)
    call = _WEIGHTED[d.integer(0, len(_WEIGHTED) - 1)](d)
    kind = d.rng.random()
    if kind < SPOILT and call.valid is not False:
        spoil(d, call)
    elif kind < SPOILT + LOOSENED:
        loosen(d, call)
    return call


def judge(call):
    """Run a call, and return the verdict."""
    memory = call.memory()
    before = [a.tobytes() for a in memory]
    out = call.given.get("out")
    around = _around(out) if isinstance(out, np.ndarray) else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # NumPy's, of sums that overflow
        verdict = _run(call)
    if [a.tobytes() for a in memory] != before:
        return Verdict(MODIFIED, f"after: {verdict.outcome} {verdict.words}")
    if around is not None and _around(out) != around:
        return Verdict(MODIFIED, "memory around `out`")
    return verdict


def _around(out):
    """Return the bytes of the memory in which `out` lies, but for its own."""
    owner = owner_of(out)
    if owner is out:
        return b""
    copy = owner.copy()
    view = np.ndarray(out.shape, out.dtype, copy, out.ctypes.data - owner.ctypes.data, out.strides)
    view[...] = 0
    return copy.tobytes()


def _run(call):
    try:
        result = call.run()
    except (TypeError, ValueError) as error:
        return _of_error(call, error)
    except MemoryError as error:
        large = any(_large(value) for value in call.given.values())
        return Verdict(INVALID) if large else Verdict(UNCLEAR, f"MemoryError: {error}")
    except Exception as error:  # that it is none of those is the finding
        return Verdict(UNCLEAR, f"{type(error).__name__}: {error}")
    if call.valid is False:
        return Verdict(WRONG, "accepted, though it is wrong")
    try:
        call.check(call.plain(), result)
    except WrongValue as wrong:
        return Verdict(WRONG, str(wrong))
    except MemoryError:
        if call.valid is None:  # a window of 2**31 pixels, say, which only the reference walks through
            return Verdict(VALID, "not compared")
        raise
    except Exception as error:
        if call.valid is None and "too big" in str(error):
            return Verdict(VALID, "not compared")
        if call.valid is None:
            return Verdict(WRONG, f"accepted, but the reference says {type(error).__name__}: {error}")
        raise
    return Verdict(VALID)


def _of_error(call, error):
    text = str(error)
    named = set(re.findall(r"`(\w+)", text)) & call.names()
    if type(error) not in (TypeError, ValueError) or not named or "\n" in text or len(text) > 600:
        return Verdict(UNCLEAR, f"{type(error).__name__}: {text}")
    return Verdict(REFUSED, text) if call.valid else Verdict(INVALID)


def _large(value):
    if isinstance(value, (tuple, list)):
        return any(map(_large, value))
    return isinstance(value, (int, np.integer)) and value >= LARGE
