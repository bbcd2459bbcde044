"""Training steps: forward, softmax cross-entropy, backward and SGD of a batch that is in memory."""

from __future__ import annotations

from .common import DTYPES, THREADS  # isort: skip
from collections.abc import Callable
from functools import lru_cache

from .networks import NETWORKS, TRAINERS, checked_steps

__all__ = ["Step"]


@lru_cache(maxsize=1)
def ready(implementation: str, network: str, dtype: str) -> Callable[[], float]:
    """Return a step that has run; asv runs setup before every sample."""
    return checked_steps(implementation, network, dtype, THREADS)


class Step:
    """One step of the same network, from the same weights."""

    params = (TRAINERS, tuple(NETWORKS), DTYPES)
    param_names = ("implementation", "network", "dtype")
    rounds = 1
    repeat = (5, 20, 1.0)
    timeout = 300

    def setup(self, implementation: str, network: str, dtype: str) -> None:
        """Compile, check and warm up."""
        self.step = ready(implementation, network, dtype)

    def time_step(self, implementation: str, network: str, dtype: str) -> None:
        self.step()
