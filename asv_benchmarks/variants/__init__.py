"""Everyone who computes the same layers: jitconv and what it is compared with, by name."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

import numpy as np

from .problems import PASSES, POOLS, Array, Call, Conv, Pool

__all__ = ["IMPLEMENTATIONS", "PASSES", "POOLS", "Call", "Conv", "Missing", "Pool", "calls", "check", "has_time_for"]

# Name: the module, and what its functions take after layer and arrays. An option of None is the number of threads.
_OPTIONS = {
    "jitconv": ("jitconv_variant", ("NCHW", None)),
    "jitconv NHWC": ("jitconv_variant", ("NHWC", None)),
    "NumPy": ("book_numpy", ()),
    "NumPy loops": ("naive_numpy", ()),
    "Cython": ("cython_variant", (True, None)),
    "Cython naive": ("cython_variant", (False, None)),
    "PyTorch": ("torch_variant", (False, None)),
    "PyTorch channels_last": ("torch_variant", (True, None)),
}
IMPLEMENTATIONS = tuple(_OPTIONS)
# Those that call NumPy for each output take about 10 us for it: a second for this many.
NAIVE = ("NumPy loops", "Cython naive")
NAIVE_OUTPUTS = 110_000
TOLERANCE = {"float32": 1e-4, "float64": 1e-10}


class Missing(NotImplementedError):
    """An implementation that cannot be imported here, or has no time for a layer; asv skips it."""


def calls(implementation: str, layer: Conv | Pool, dtype: str, threads: int) -> dict[str, Call]:
    """Return a call of each pass of a layer."""
    name, options = _OPTIONS[implementation]
    try:
        module = import_module(f".{name}", __package__)
    except ImportError as error:
        raise Missing(f"{implementation}: {error}") from error
    make: Callable[..., dict[str, Call]] = module.convolution if isinstance(layer, Conv) else module.pooling
    return make(layer, layer.arrays(dtype), *(threads if option is None else option for option in options))


def has_time_for(implementation: str, layer: Conv | Pool) -> bool:
    """Return whether a call takes at most about a second."""
    return implementation not in NAIVE or np.prod(layer.outputs) <= NAIVE_OUTPUTS


def check(implementation: str, layer: Conv | Pool, dtype: str, each: str, threads: int) -> None:
    """Compute a pass of a layer's first image, and compare it with the NumPy of books in float64.

    Raises
    ------
    ValueError
        If a number differs by more than rounding: the benchmark fails then, and is not skipped.
    """
    one = layer._replace(n=1)
    found: tuple[Array, ...] = _result(implementation, one, dtype, each, threads)
    for got, right in zip(found, _result("NumPy", one, dtype, each, threads, wide=True), strict=True):
        error = np.abs(got - right).max() / np.abs(right).max()
        if got.dtype != dtype or got.shape != right.shape or not error <= TOLERANCE[dtype]:
            raise ValueError(f"{implementation} is wrong: {each} of {layer}: {got.dtype} {got.shape}, {error:.1e}")


def _result(
    implementation: str, layer: Conv | Pool, dtype: str, each: str, threads: int, wide: bool = False
) -> tuple[Array, ...]:
    if not wide:
        call = calls(implementation, layer, dtype, threads)[each]
        return call.read(call.run())
    module = import_module(".book_numpy", __package__)
    arrays = {name: a.astype(np.float64) for name, a in layer.arrays(dtype).items()}
    make = module.convolution if isinstance(layer, Conv) else module.pooling
    call = make(layer, arrays)[each]
    return call.read(call.run())
