"""Print how much faster the book's two networks train when only the import of their convolution and pooling changes.

    python asv_benchmarks/compat_steps.py [--rounds 9] [--steps 3] [--threads N] [--network simple|deep]

The networks are those of `examples/deep_learning_from_scratch.py`, batches of 100 images of 1x28x28, float64, Adam;
their other layers are NumPy in both. "NumPy" is the plain model of the book's layers in `tests/compat/models`: windows
as rows of a matrix, one product. A step is forward, loss, backward and the optimizer. Both sides take turns, `--steps`
steps a round; a figure is the lower quartile over the rounds, in milliseconds.
"""

from __future__ import annotations

import argparse
import importlib.util
import pathlib
import sys
import time
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np

import jitconv

ROOT = pathlib.Path(__file__).parent.parent


def loaded(path: pathlib.Path, name: str) -> ModuleType:
    """Return the module in a file, under a name of its own."""
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def timed(layer: Any, times: list[float]) -> None:
    """Let a layer note how long its passes take."""

    def noting(run: Callable[[np.ndarray], np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
        def noted(a: np.ndarray) -> np.ndarray:
            start = time.perf_counter()
            result = run(a)
            times.append(time.perf_counter() - start)
            return result

        return noted

    layer.forward, layer.backward = noting(layer.forward), noting(layer.backward)


class Side:
    """A network, its optimizer and a batch: the step that is timed."""

    def __init__(self, example: ModuleType, network: str) -> None:
        rng = np.random.default_rng(0)
        self.network, self.optimizer = example.NETWORKS[network](rng), example.Adam()
        self.x, self.t = rng.random((example.BATCH, 1, 28, 28)), rng.integers(0, 10, example.BATCH)
        self.of_layers: list[float] = []
        for layer in self.network.layers:
            if isinstance(layer, (example.Convolution, example.Pooling)):
                timed(layer, self.of_layers)

    def steps(self, count: int) -> tuple[float, float]:
        """Return the milliseconds of a step, and of its convolutions and poolings alone."""
        self.of_layers.clear()
        start = time.perf_counter()
        for _ in range(count):
            self.optimizer.update(self.network.params, self.network.gradient(self.x, self.t))
        return 1000 * (time.perf_counter() - start) / count, 1000 * sum(self.of_layers) / count


def sides(network: str) -> tuple[Side, Side]:
    """Return the network with the layers of the NumPy model and with those of `jitconv.compat`."""
    path = ROOT / "examples" / "deep_learning_from_scratch.py"
    plain, fast = loaded(path, "plain"), loaded(path, "fast")
    model = loaded(ROOT / "tests" / "compat" / "models" / "deep_learning_from_scratch.py", "model")
    plain.Convolution, plain.Pooling = model.Convolution, model.Pooling
    return Side(plain, network), Side(fast, network)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int, default=3, help="steps in a round")
    parser.add_argument("--threads", type=int, default=jitconv.get_num_threads(), help="threads of jitconv")
    parser.add_argument("--network", choices=("simple", "deep"), help="default: both")
    arguments = parser.parse_args()
    jitconv.set_num_threads(arguments.threads)
    print("| network | step: NumPy | jitconv | ratio | conv and pool: NumPy | jitconv | ratio | others |")
    print("|---|---|---|---|---|---|---|---|")
    for network in ("simple", "deep") if arguments.network is None else (arguments.network,):
        both = sides(network)
        for side in both:
            side.steps(2)
        times = np.array([[side.steps(arguments.steps) for side in both] for _ in range(arguments.rounds)])
        (plain, plain_layers), (fast, fast_layers) = np.quantile(times, 0.25, axis=0)
        print(
            f"| {network} | {plain:.1f} | {fast:.1f} | {plain / fast:.1f} | {plain_layers:.1f} | {fast_layers:.2f} | "
            f"{plain_layers / fast_layers:.1f} | {fast - fast_layers:.1f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
