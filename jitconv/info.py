"""What ``jitconv info`` shows."""

from __future__ import annotations

import os
import platform

import llvmlite
import numba
import numpy as np
from numba import threading_layer
from numba.core import config

from . import threads
from .kernels.cache import cache_folder, cache_problem
from .kernels.simd import CPU_NAME, FEATURES, VECTOR_BYTES
from .kernels.tile import TILES
from .version import __version__

# Those that decide over speed here, of the many that LLVM knows.
_VECTOR_FEATURES = ("sse2", "sse4.2", "avx", "fma", "avx2", "avx512f", "avx512vl", "avx512dq", "neon", "sve")


def info() -> str:
    """Return the versions and what was found out about this machine, one fact a line."""
    features = " ".join(name for name in _VECTOR_FEATURES if name in FEATURES) or "none"
    tiles = {
        dtype: ", ".join(f"{rows} x {vectors * VECTOR_BYTES // size} lanes" for vectors, rows in TILES.items())
        for dtype, size in (("float32", 4), ("float64", 8))
    }
    facts = {
        "jitconv": __version__,
        "python": f"{platform.python_version()} ({platform.system()} {platform.machine()})",
        "numpy": np.__version__,
        "numba": numba.__version__,
        "llvmlite": llvmlite.__version__,
        "cpu": f"{CPU_NAME}, {os.cpu_count()} logical",
        "vector features": f"{features} (vectors of {8 * VECTOR_BYTES} bits)",
        **{f"tile {dtype}": f"{words} (rows x lanes)" for dtype, words in tiles.items()},
        "threads": f"{threads.get_num_threads()} of {threads.available_threads()}",
        "threading layer": _threading_layer(),
        "cache": _cache(),
    }
    width = max(map(len, facts))
    return "\n".join(f"{name:{width}}  {fact}" for name, fact in facts.items())


def _threading_layer() -> str:
    """Start Numba's threads, for it decides only then."""
    if config.DISABLE_JIT:
        return "none: NUMBA_DISABLE_JIT is set"
    numba.get_num_threads()
    return str(threading_layer())


def _cache() -> str:
    if config.DISABLE_JIT:
        return "none: NUMBA_DISABLE_JIT is set"
    folder, problem = cache_folder(), cache_problem()
    if problem is None:
        return f"{folder} (can be written)"
    words = f"{problem}; every process compiles anew"
    return f"{folder} ({words})" if folder else f"none: {words}"
