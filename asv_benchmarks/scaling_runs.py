"""Runs of some ranks on this machine, and what the cost model predicts for them. Also run by each of the ranks:

mpiexec -n 2 python asv_benchmarks/scaling_runs.py MODEL --batch 64 --steps 20 --threads 1

"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import scaling_model as model_of
from scaling_model import Link, Node, Settings, Work
from scaling_work import MIB, batch_of, shape_of

import jitconv
from jitconv.training import SGD, Trainer, zoo

SUMS = (8, 4 * MIB)  # bytes of the arrays that ranks sum, to learn their link's latency and bandwidth
HEAD = "| network | ranks | images | alone, predicted | measured | step, predicted | measured | images/s | scaling |"


def start(name: str, ranks: int, batch: int, steps: int, threads: int, mpiexec: Sequence[str]) -> dict[str, Any]:
    """Return what the first of so many ranks prints."""
    options = ["--batch", str(batch), "--steps", str(steps), "--threads", str(threads)]
    command = [*mpiexec, "-n", str(ranks), sys.executable, __file__, name, *options]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def link_of(run: dict[str, Any], node: Node) -> Link:
    """Return the link that explains the times of a small and a large allreduce of a run."""
    rounds = 2 * math.log2(run["ranks"])
    (_, small), (size, large) = sorted((int(size), seconds) for size, seconds in run["allreduce"].items())
    share = (run["ranks"] - 1) / run["ranks"] * size
    moving = max(large - small - 3 * share / node.memory_bandwidth, 1e-9)
    return Link(small / rounds, 2 * share / moving)


def table(runs: Sequence[dict[str, Any]], node: Node, settings: Settings) -> str:
    """Return predicted and measured steps side by side.

    The prediction knows what one rank takes, the cores, and how long sums of arrays take.

    Raises
    ------
    ValueError
        If a network was not run on one rank.
    """
    lines = [HEAD, "|---|" + "---|" * 8]
    for name in dict.fromkeys(run["model"] for run in runs):
        mine = sorted((run for run in runs if run["model"] == name), key=lambda run: run["ranks"])
        first = mine[0]
        if first["ranks"] != 1:
            raise ValueError(f"{name} must be run on one rank as well, from which the others are predicted")
        blocks, traffic = shape_of(name)
        whole = first["alone"] / first["batch"]
        # Two thirds of the products are those of backward.
        work = Work(0.0, whole / 3, whole * 2 / 3, 0.0, traffic, tuple(blocks))
        for run in mine:
            ranks, batch = run["ranks"], run["batch"]
            link = link_of(run, node) if ranks > 1 else Link(0.0, math.inf)
            slower = model_of.slowdown(work, node, ranks, run["threads"])
            step = model_of.step_of(work, batch, ranks, link, node, settings, slower)
            rate = ranks * batch / run["together"]
            times = (step.compute, run["alone"], step.total, run["together"])
            lines.append(
                f"| {name} | {ranks} | {ranks * batch} | {' | '.join(map(milliseconds, times))} "
                f"| {three_digits(rate)} | {rate * first['together'] / first['batch']:.2f} |"
            )
    return "\n".join(lines)


def milliseconds(seconds: float) -> str:
    """Return a time with its unit."""
    return f"{three_digits(seconds * 1e3)} ms"


def three_digits(number: float) -> str:
    """Return a number with the three digits that count."""
    if not number:
        return "0"
    digits = 2 - math.floor(math.log10(abs(number)))
    return f"{round(number, digits):,.{max(digits, 0)}f}"


def rank(options: argparse.Namespace) -> None:
    """Time steps of a rank by itself and with the others, and sums of arrays; the first rank prints them as JSON."""
    from mpi4py import MPI

    comm = MPI.COMM_WORLD
    jitconv.set_num_threads(options.threads)
    x, labels = batch_of(options.model, options.batch, comm.rank)

    def slowest(call: Callable[[], object]) -> float:
        """Return the median over the steps of the time of the slowest rank."""
        times = np.empty(options.steps)
        for _ in range(2):
            call()
        for i in range(options.steps):
            comm.Barrier()
            begin = time.perf_counter()
            call()
            times[i] = time.perf_counter() - begin
        comm.Allreduce(MPI.IN_PLACE, times, MPI.MAX)
        return float(np.median(times))

    alone = Trainer(zoo.MODELS[options.model](seed=0), SGD(0.001, 0.9))
    together = Trainer(zoo.MODELS[options.model](seed=0), SGD(0.001, 0.9), communicator=comm)
    arrays = {size: np.zeros(size // 4, np.float32) for size in SUMS}
    found = {
        "model": options.model,
        "ranks": comm.size,
        "threads": options.threads,
        "batch": options.batch,
        "alone": slowest(lambda: alone.step(x, labels)),
        "together": slowest(lambda: together.step(x, labels)),
        "allreduce": {size: slowest(lambda a=a: comm.Allreduce(MPI.IN_PLACE, a)) for size, a in arrays.items()},
    }
    if comm.rank == 0:
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=list(zoo.MODELS))
    for option in ("--batch", "--steps", "--threads"):
        parser.add_argument(option, type=int, required=True)
    rank(parser.parse_args())
