"""Random numbers, sizes, values and arrays of every memory layout, all from one seed."""

from __future__ import annotations

import numpy as np
from views import VIEWS

MOST_PRODUCTS = 400_000  # of one call, so that the reference takes milliseconds


def owner_of(a):
    """Return the array whose memory another one is a view of."""
    while isinstance(a.base, np.ndarray):
        a = a.base
    return a


def in_the_middle(a):
    """Return a copy of `a` that lies in a longer array."""
    memory = np.full(a.size + 33, 77, a.dtype)
    view = memory[16 : 16 + a.size].reshape(a.shape)
    view[...] = a
    return view


def broadcast(a):
    """Return an array of which all entries of the first axis are the first one, in the same memory."""
    return np.broadcast_to(a[:1].copy(), a.shape) if a.ndim and len(a) else a


class Draw:
    """Draws from one seed."""

    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)

    def chance(self, share):
        """Return True with a probability."""
        return bool(self.rng.random() < share)

    def choose(self, *options):
        """Return one of the options."""
        return options[self.rng.integers(len(options))]

    def integer(self, low, high):
        """Return a whole number from `low` to `high`."""
        return int(self.rng.integers(low, high + 1))

    def length(self):
        """Return the pixels of an axis: mostly few."""
        return self.integer(1, 12) if self.chance(0.85) else self.integer(13, 40)

    def images(self):
        """Return how many images there are: None for one without its axis."""
        return self.choose(None, 1, 1, 2, 2, 3, 5) if self.chance(0.97) else 0

    def dtype(self):
        """Return a dtype that is computed."""
        return np.dtype(self.choose(np.float32, np.float32, np.float64))

    def values(self, shape, dtype, *, finite=False):
        """Return an array: normal numbers, whole ones, some that are no numbers, or at the ends of the range."""
        limits = np.finfo(dtype)
        kind = self.rng.random()
        a = self.rng.standard_normal(shape)
        if kind < 0.6:
            pass
        elif kind < 0.75:
            a = np.round(a)
        elif kind < 0.85:
            a = a * float(limits.smallest_normal) * self.choose(0.01, 1.0, 100.0)
        elif kind < 0.9:
            a = a * float(np.sqrt(limits.max)) * self.choose(1e-4, 1.0)
        elif not finite and a.size:
            places = self.rng.integers(0, a.size, self.integer(1, 4))
            a.flat[places] = self.choose(np.nan, np.inf, -np.inf, -0.0)
        with np.errstate(over="ignore", under="ignore"):
            return a.astype(dtype)

    def placed(self, a):
        """Return the values in some memory: with other strides, read-only, unaligned, or those of one entry for all."""
        if self.chance(0.5):
            return a
        views = [*VIEWS.values(), in_the_middle, *([broadcast] if a.dtype.kind == "f" else [])]
        view = views[self.rng.integers(len(views))]
        return view(a) if a.ndim else a

    def array(self, shape, dtype, *, finite=False):
        """Return an array of some values in some memory."""
        return self.placed(self.values(shape, dtype, finite=finite))

    def pair_of(self, low, high):
        """Return a whole number, or a pair of them."""
        one, two = self.integer(low, high), self.integer(low, high)
        return self.choose(one, one, (one, two), [one, two], np.int64(one))

    def threads(self):
        """Return a number of threads, None for the default."""
        return self.choose(None, 1, 2, 3, 4)
