"""Print what small calls cost: LeNet-like layers on one image, beside PyTorch if it is installed.

    python asv_benchmarks/small_calls.py [--rounds 15] [--calls 300] [--threads 2] [--only NAME]

Arrays of jitconv are NumPy's in each layout. PyTorch gets tensors made beforehand, under `torch.inference_mode`; its
column is the fastest of both memory formats on one thread and on `--threads`. Everyone runs in turn, `--calls` calls
a round, and each figure is the median over the rounds, in microseconds. The ratio is the slower layout of jitconv
over PyTorch.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

import jitconv

try:
    import torch
except ImportError:
    torch = None


class Case(NamedTuple):
    """A layer: the shape of x in NCHW and of w (none for max pooling, 2x2), and the padding."""

    name: str
    x: tuple[int, int, int, int]
    w: tuple[int, int, int, int] | None
    padding: int = 0


CASES = (
    Case("conv 28x28, 1 to 6, 5x5 pad 2", (1, 1, 28, 28), (6, 1, 5, 5), 2),
    Case("conv 14x14, 6 to 16, 5x5", (1, 6, 14, 14), (16, 6, 5, 5)),
    Case("conv 28x28, 1 to 30, 5x5", (1, 1, 28, 28), (30, 1, 5, 5)),
    Case("conv 14x14, 16 to 16, 3x3 pad 1", (1, 16, 14, 14), (16, 16, 3, 3), 1),
    Case("conv 5x5, 16 to 120, 5x5", (1, 16, 5, 5), (120, 16, 5, 5)),
    Case("max pool 28x28, 6 channels", (1, 6, 28, 28), None),
    Case("max pool 10x10, 16 channels", (1, 16, 10, 10), None),
)


def ours(case: Case, layout: str) -> Callable[[], object]:
    """Return a call of jitconv, on the threads that are set."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal(case.x, np.float32)
    if layout == "NHWC":
        x = np.ascontiguousarray(x.transpose(0, 2, 3, 1))
    if case.w is None:
        return lambda: jitconv.max_pool2d(x, 2, layout=layout)
    w, b = rng.standard_normal(case.w, np.float32), rng.standard_normal(case.w[0], np.float32)
    return lambda: jitconv.conv2d(x, w, b, padding=case.padding, layout=layout)


def theirs(case: Case, channels_last: bool) -> Callable[[], object]:
    """Return a call of PyTorch."""
    form = torch.channels_last if channels_last else torch.contiguous_format
    x = torch.randn(case.x).contiguous(memory_format=form)
    if case.w is None:
        return lambda: torch.nn.functional.max_pool2d(x, 2)
    w, b = torch.randn(case.w).contiguous(memory_format=form), torch.randn(case.w[0])
    return lambda: torch.nn.functional.conv2d(x, w, b, padding=case.padding)


def microseconds(call: Callable[[], object], calls: int) -> float:
    """Return the mean time of a call after a few that warm up."""
    for _ in range(5):
        call()
    start = time.perf_counter()
    for _ in range(calls):
        call()
    return (time.perf_counter() - start) / calls * 1e6


def measure(case: Case, rounds: int, calls: int, threads: int) -> dict[str, float]:
    """Return the median time of everyone who runs the case."""
    runs = {layout: functools.partial(microseconds, ours(case, layout), calls) for layout in ("NCHW", "NHWC")}
    if torch is not None:

        def on(count: int, call: Callable[[], object]) -> float:
            torch.set_num_threads(count)
            with torch.inference_mode():
                return microseconds(call, calls)

        for form in (False, True):
            for count in sorted({1, threads}):
                runs[f"torch {form} {count}"] = functools.partial(on, count, theirs(case, form))
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            times[name].append(run())
    return {name: statistics.median(values) for name, values in times.items()}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--calls", type=int, default=300, help="calls in a round")
    parser.add_argument("--threads", type=int, default=2, help="threads of jitconv, and the most of PyTorch")
    parser.add_argument("--only", default="", help="run the cases whose name contains this")
    arguments = parser.parse_args()
    jitconv.set_num_threads(arguments.threads)
    print("| layer, one image | NCHW | NHWC | PyTorch | ratio |")
    print("|---|---|---|---|---|")
    for case in CASES:
        if arguments.only not in case.name:
            continue
        times = measure(case, arguments.rounds, arguments.calls, arguments.threads)
        torchs = [value for name, value in times.items() if name.startswith("torch")]
        best = f"{min(torchs):.1f}" if torchs else "-"
        ratio = f"{max(times['NCHW'], times['NHWC']) / min(torchs):.2f}" if torchs else "-"
        print(f"| {case.name} | {times['NCHW']:.1f} | {times['NHWC']:.1f} | {best} | {ratio} |", flush=True)


if __name__ == "__main__":
    main()
