"""What a call costs: LeNet-like layers on one image, the mean of many calls in a row."""

from __future__ import annotations

from .common import IMPLEMENTATIONS, LAYERS, ready  # isort: skip
import statistics
import time

from variants import Conv, Pool

__all__ = ["Call"]

CASES: dict[str, Conv | Pool] = {
    "conv 28x28, 1 to 6, 5x5": Conv(1, 1, 28, 28, 6, 5, 1, 2),
    "conv 14x14, 16 to 16, 3x3": Conv(1, 16, 14, 14, 16, 3, 1, 1),
    "max pooling 28x28, 6 channels": Pool(1, 6, 28, 28, 2, 2),
}
SECONDS = 0.01
ROUNDS = 15


class Call:
    """Microseconds a call, the median of some rounds."""

    params = (IMPLEMENTATIONS, tuple(CASES))
    param_names = ("implementation", "layer")
    unit = "us"
    timeout = 120

    def setup(self, implementation: str, layer: str) -> None:
        """Compile, check and warm up."""
        LAYERS[layer] = CASES[layer]
        self.run = ready(implementation, layer, "float32", "forward" if layer.startswith("conv") else "max_forward").run

    def track_call(self, implementation: str, layer: str) -> float:
        start = time.perf_counter()
        for _ in range(5):
            self.run()
        count = max(1, int(SECONDS / (time.perf_counter() - start) * 5))
        times = []
        for _ in range(ROUNDS):
            start = time.perf_counter()
            for _ in range(count):
                self.run()
            times.append((time.perf_counter() - start) / count)
        return round(statistics.median(times) * 1e6, 2)
