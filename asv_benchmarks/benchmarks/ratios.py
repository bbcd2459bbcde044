"""jitconv's time over everybody else's: lower is better, so a rise is a regression.

Both run in turn inside one benchmark. jitconv has NCHW, as NumPy and Cython do; of PyTorch's memory formats the faster
counts. With `NumPy loops` and `Cython naive` both sides compute the first image of the batch alone.
"""

from __future__ import annotations

from .common import CONVOLUTIONS, DTYPES, LAYERS, POOLINGS, THREADS, calls, check, has_time_for, is_first  # isort: skip
import statistics
import time
from collections.abc import Callable

from variants import NAIVE, Call, Missing

from .networks import NETWORKS, checked_steps

__all__ = [
    "AverageBackward",
    "AverageForward",
    "BackwardData",
    "BackwardWeights",
    "Forward",
    "MaxBackward",
    "MaxForward",
    "TrainingStep",
]  # fmt: skip

OTHERS = {
    "NumPy": ("NumPy",),
    "NumPy loops": ("NumPy loops",),
    "Cython": ("Cython",),
    "Cython naive": ("Cython naive",),
    "PyTorch": ("PyTorch", "PyTorch channels_last"),
}
# OpenBLAS's threads spin for about 25 ms after their work, OpenMP's for some: nobody runs beside the others' threads.
PAUSE = 0.04
SECONDS = 0.5
BURST = 0.01


def burst(run: Callable[[], object], count: int) -> float:
    """Return the median time of some calls in a row, after one that is not counted unless it is the only one."""
    if count > 1:
        run()
    times = []
    for _ in range(count):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def ratio(ours: Callable[[], object], others: dict[str, Callable[[], object]]) -> float:
    """Return the median over rounds of our time over that of the fastest of the others; everyone has run before."""
    runs = {"": ours, **others}
    counts = {name: min(50, max(1, int(BURST / max(burst(run, 1), 1e-7)))) for name, run in runs.items()}
    times: dict[str, list[float]] = {name: [] for name in runs}
    start = time.perf_counter()
    while len(times[""]) < 3 or time.perf_counter() - start < SECONDS * len(runs):
        for name, run in runs.items():
            time.sleep(PAUSE)
            times[name].append(burst(run, counts[name]))
    fastest = min(others, key=lambda name: statistics.median(times[name]))
    shares = [mine / theirs for mine, theirs in zip(times[""], times[fastest], strict=True)]
    return float(f"{statistics.median(shares):.4g}")


class _Ratio:
    each = ""
    param_names = ("over", "layer", "dtype")
    timeout = 300
    unit = "of the other's time"

    def setup(self, over: str, layer: str, dtype: str) -> None:
        """Compile, check and warm up."""
        problem = LAYERS[layer]
        if is_first(problem, self.each):
            raise Missing("a first layer needs no gradient of its input")
        if over in NAIVE:
            problem = problem._replace(n=1)
            if not has_time_for(over, problem):
                raise Missing(f"{over} takes too long for {layer}")
        self.calls: dict[str, Call] = {}
        for name in ("jitconv", *OTHERS[over]):
            check(name, problem, dtype, self.each, THREADS)
            self.calls[name] = calls(name, problem, dtype, THREADS)[self.each]
            self.calls[name].run()

    def track_ratio(self, over: str, layer: str, dtype: str) -> float:
        ours, *others = self.calls
        return ratio(self.calls[ours].run, {name: self.calls[name].run for name in others})


class _Convolution(_Ratio):
    params = (tuple(OTHERS), CONVOLUTIONS, DTYPES)


class _Pooling(_Ratio):
    params = (tuple(OTHERS), POOLINGS, DTYPES)


class Forward(_Convolution):
    """Convolution with bias."""

    each = "forward"


class BackwardData(_Convolution):
    """The gradient of a convolution's input."""

    each = "backward_data"


class BackwardWeights(_Convolution):
    """The gradients of a convolution's weights and bias."""

    each = "backward_weights"


class MaxForward(_Pooling):
    """Max pooling with argmax."""

    each = "max_forward"


class MaxBackward(_Pooling):
    """Max pooling's gradient."""

    each = "max_backward"


class AverageForward(_Pooling):
    """Average pooling."""

    each = "average_forward"


class AverageBackward(_Pooling):
    """Average pooling's gradient."""

    each = "average_backward"


class TrainingStep:
    """Forward, loss, backward and SGD of a batch."""

    params = (("NumPy", "PyTorch"), tuple(NETWORKS), DTYPES)
    param_names = ("over", "network", "dtype")
    timeout = 600
    unit = "of the other's time"

    def setup(self, over: str, network: str, dtype: str) -> None:
        """Compile and warm up."""
        self.steps = {name: checked_steps(name, network, dtype, THREADS) for name in ("jitconv", *OTHERS[over])}

    def track_ratio(self, over: str, network: str, dtype: str) -> float:
        ours, *others = self.steps
        return ratio(self.steps[ours], {name: self.steps[name] for name in others})
