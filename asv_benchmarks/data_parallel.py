"""Print the share of a data-parallel training step that is spent on communication.

    mpiexec -n 2 python -m mpi4py asv_benchmarks/data_parallel.py [--rounds 9] [--steps 4] [--threads 1]
        [--batch 50] [--bucket BYTES ...]

The networks are simple_convnet (1x28x28) and vgg_cifar (3x32x32), batches of `--batch` images in each rank, float32,
Adam; images are drawn at random. "with" begins the sum of a bucket as soon as its gradients are complete, "without"
begins all sums after the backward pass, "loss alone" sums no gradients: what it waits, it waits for the slower rank.
They take turns, `--steps` steps a round. Figures are of the first rank, in milliseconds, means over the fastest quarter
of all steps: the whole step, the time in calls of MPI while the backward pass runs, the time waiting for sums after it,
and the share that both have of the step.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from mpi4py import MPI

import jitconv
from jitconv.training import Adam, Trainer, zoo
from jitconv.training.gradient_sum import BUCKET_BYTES, GradientSum

NETWORKS = {"simple_convnet": (1, 28, 28), "vgg_cifar": (3, 32, 32)}


class Timed(GradientSum):
    """A sum that notes the seconds spent in it."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.calls = self.waiting = 0.0

    def begin(self, memory: np.ndarray) -> None:
        self.calls += seconds_of(lambda: super(Timed, self).begin(memory))

    def completed(self, step: Any) -> None:
        begun = self.calls
        self.calls = begun + seconds_of(lambda: super(Timed, self).completed(step))

    def wait(self) -> None:
        begun = self.calls
        self.waiting += seconds_of(super().wait)
        self.calls = begun  # those that `wait` begins are part of it


# What is summed, and when.
WITH, WITHOUT, LOSS = "with", "without", "loss alone"


def seconds_of(run: Callable[[], Any]) -> float:
    """Return how long a function takes."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


class Side:
    """A network and a batch: the step that is timed."""

    def __init__(self, network: str, batch: int, bucket: int, mode: str) -> None:
        shape, rng = NETWORKS[network], np.random.default_rng(MPI.COMM_WORLD.rank)
        self.x, self.labels = rng.random((batch, *shape), dtype=np.float32), rng.integers(0, 10, batch)
        self.trainer = Trainer(zoo.MODELS[network](seed=0), Adam(), MPI.COMM_WORLD)
        self.trainer.step(self.x, self.labels)  # compiles, and shares out the weights
        parallel = self.trainer._parallel
        self.sum = Timed(self.trainer.model, parallel.ranks, bucket_bytes=bucket, overlap=mode == WITH)
        self.buckets = len(self.sum.buckets)
        if mode == LOSS:
            self.sum.buckets.clear()
        parallel._gradients = self.sum

    def steps(self, count: int) -> list[tuple[float, float, float]]:
        """Return the milliseconds of each step, of calls of MPI in its backward pass, and of waiting after it."""
        found = []
        for _ in range(1 + count):
            self.sum.calls = self.sum.waiting = 0.0
            whole = seconds_of(lambda: self.trainer.step(self.x, self.labels))
            found.append((1000 * whole, 1000 * self.sum.calls, 1000 * self.sum.waiting))
        return found[1:]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int, default=4, help="steps in a round")
    parser.add_argument("--threads", type=int, default=1, help="threads of each rank")
    parser.add_argument("--batch", type=int, default=50, help="images in each rank")
    parser.add_argument("--bucket", type=int, nargs="+", default=[BUCKET_BYTES], help="bytes of a bucket")
    arguments = parser.parse_args()
    jitconv.set_num_threads(arguments.threads)
    say = print if MPI.COMM_WORLD.rank == 0 else lambda *words, **options: None
    say(f"{MPI.COMM_WORLD.size} ranks of {arguments.threads} threads, {arguments.batch} images in each")
    say("| network | gradients | buckets | overlap | step, ms | calls | waiting | share |")
    say("|---|---|---|---|---|---|---|---|")
    for network in NETWORKS:
        sides = {
            (bucket, mode): Side(network, arguments.batch, bucket, mode)
            for bucket in arguments.bucket
            for mode in (WITH, WITHOUT, LOSS)
        }
        times = {key: [] for key in sides}
        for _ in range(arguments.rounds):
            for key, side in sides.items():
                times[key] += side.steps(arguments.steps)
        for (bucket, mode), side in sides.items():
            fastest = sorted(times[bucket, mode])[: -(-len(times[bucket, mode]) // 4)]
            whole, calls, waiting = np.mean(fastest, axis=0)
            size = sum(a.nbytes for a in side.trainer.model.gradients.values()) / 2**20
            say(
                f"| {network} | {size:.2f} MiB | {side.buckets} of {bucket / 2**20:g} MiB | "
                f"{mode} | {whole:.1f} | {calls:.2f} | {waiting:.2f} | "
                f"{(calls + waiting) / whole:.1%} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
