"""The one door to Numba's options: no other module names one."""

from __future__ import annotations

import hashlib
import pathlib
from collections.abc import Callable
from typing import Any

from numba import njit
from numba.core import config
from numba.core.caching import FunctionCache

from ..version import __version__

# `contract` lets a product and a sum become one fused operation; it assumes nothing about NaN, inf or order.
_OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": {"contract"}}


def _fingerprint() -> str:
    digest = hashlib.sha256(__version__.encode())
    for path in sorted(pathlib.Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


FINGERPRINT = _fingerprint()


class _KernelCache(FunctionCache):  # type: ignore[misc]
    """Numba's on-disk cache, keyed by the text of every kernel module as well.

    Numba's own key knows a function's bytecode but not its callees or intrinsics: without this a changed
    tile would leave old machine code in use.
    """

    def _index_key(self, sig: Any, codegen: Any) -> Any:
        return (*super()._index_key(sig, codegen), FINGERPRINT)


def kernel(*, parallel: bool = False) -> Callable[[Callable[..., Any]], Any]:
    """Compile a function that Python calls: no GIL, NumPy's error model, kept on disk."""

    def decorate(function: Callable[..., Any]) -> Any:
        dispatcher = njit(parallel=parallel, cache=True, **_OPTIONS)(function)
        if not config.DISABLE_JIT:
            dispatcher._cache = _KernelCache(function)
        return dispatcher

    return decorate


def step(function: Callable[..., Any]) -> Any:
    """Compile a function that only kernels call; its code becomes part of theirs."""
    return njit(**_OPTIONS)(function)
