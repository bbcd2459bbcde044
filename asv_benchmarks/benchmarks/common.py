"""What the benchmarks share: threads, layers, and how a call is made ready to be timed.

Modules import this one first: it fixes everyone's threads before NumPy is loaded.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

CPUS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
THREADS = min(int(os.environ.get("JITCONV_BENCH_THREADS", "2")), CPUS)
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"):
    os.environ[_name] = str(THREADS)
os.environ["NUMBA_NUM_THREADS"] = str(CPUS)  # the most that thread scaling may use; calls are told THREADS
os.environ["JITCONV_QUIET"] = "1"
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from functools import lru_cache  # noqa: E402

from variants import IMPLEMENTATIONS, Call, Missing, calls, check, has_time_for  # noqa: E402
from variants.layers import CONVOLUTIONS, LAYERS, POOLINGS, is_first  # noqa: E402

__all__ = ["CONVOLUTIONS", "IMPLEMENTATIONS", "POOLINGS"]

DTYPES = ("float32", "float64")


@lru_cache(maxsize=1)
def ready(implementation: str, name: str, dtype: str, each: str, threads: int = THREADS) -> Call:
    """Return a call that has been checked, compiled and run once.

    asv runs setup before every sample: only the first time does anything.

    Raises
    ------
    NotImplementedError
        If the implementation is missing here or too slow for the layer: asv skips the benchmark.
    """
    layer = LAYERS[name]
    if not has_time_for(implementation, layer):
        raise Missing(f"{implementation} takes too long for {name}")
    if is_first(layer, each):
        raise Missing("a first layer needs no gradient of its input")
    check(implementation, layer, dtype, each, threads)
    call = calls(implementation, layer, dtype, threads)[each]
    call.run()
    return call


class Timed:
    """One pass or direction; all who compute it are values of the first parameter, so that one graph shows them."""

    each = ""
    param_names = ("implementation", "layer", "dtype")
    rounds = 1
    repeat = (5, 20, 0.5)
    timeout = 120

    def setup(self, implementation: str, layer: str, dtype: str) -> None:
        """Compile, check and warm up; nothing of it is timed."""
        self.run = ready(implementation, layer, dtype, self.each).run
