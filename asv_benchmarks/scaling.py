"""Predict data-parallel training on 2 to 1,024 nodes from a cost model, and hold it against runs on this machine.

    python asv_benchmarks/scaling.py [--plot FILE]            # the tables of docs/scaling.md, and their curves
    python asv_benchmarks/scaling.py --measure                # what a core of this machine computes: SECONDS
    python asv_benchmarks/scaling.py --run 1 2 4 [--save F]   # start so many ranks with mpiexec, predict them, compare
    python asv_benchmarks/scaling.py --measured F             # compare once more, from the file

The model is `scaling_model.py`; docs/scaling.md explains it. Options change each of its parameters.
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import pathlib
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import scaling_model as model_of
from scaling_model import Block, Link, Node, Row, Settings, Work

import jitconv
from jitconv.ahead import cores
from jitconv.kernels.jit import recording
from jitconv.layers import Conv2d, Dense, Layer
from jitconv.training import SGD, Sequential, Trainer, zoo
from jitconv.training.losses import softmax_cross_entropy

MODELS = ("simple_convnet", "vgg_cifar", "vgg11")
BATCHES = {"simple_convnet": 100, "vgg_cifar": 64, "vgg11": 16}  # images for each core
IMAGES = 8192  # of all nodes together, where they share a batch
NODES = tuple(2**i for i in range(11))

# Line rates, less what headers take, and the usual latency of a small message of MPI.
SLOW, FAST = "10 Gb Ethernet", "100 Gb InfiniBand"
LINKS = {
    SLOW: Link(latency=30e-6, bandwidth=1.17e9),
    FAST: Link(latency=1.5e-6, bandwidth=12.0e9),
}
MIB = 2**20
SUMS = (8, 4 * MIB)  # bytes of the arrays that ranks sum to learn their link's latency and bandwidth


# A node, if no option says otherwise: the threads of its rank share the images of a batch without loss.
NODE = Node(cores=16, memory_bandwidth=100e9)


class Seconds(NamedTuple):
    """What a network takes on one core: `Work` without what follows from its layers."""

    step: float
    forward: float
    backward: float
    update: float


# Printed by --measure: one thread of a CPU with AVX-512 and one 512-bit FMA a cycle (Zen 4), float32.
SECONDS = {
    "simple_convnet": Seconds(step=243e-6, forward=10.1e-6, backward=14.2e-6, update=107e-6),
    "vgg_cifar": Seconds(step=3.39e-3, forward=408e-6, backward=925e-6, update=574e-6),
    "vgg11": Seconds(step=91.8e-3, forward=21.2e-3, backward=52.8e-3, update=41.4e-3),
}


def _flops(layer: Layer, x_shape: tuple[int, ...]) -> float:
    """Return the products and sums of a layer's forward pass."""
    if isinstance(layer, Conv2d):
        return float(layer.problem().flops)
    return 2.0 * x_shape[0] * layer.weight.size if isinstance(layer, Dense) else 0.0


class _Zeros(np.random.Generator):
    """Draws zeros: for networks whose weights are of no account, of vgg11 132 million."""

    def standard_normal(self, size: Any = None, *_: Any, **__: Any) -> Any:
        """Return zeros."""
        return np.zeros(size)


@functools.cache
def shape_of(name: str) -> tuple[list[Block], float]:
    """Return the blocks of a network's gradients, as backward fills them, and the bytes that an image moves.

    Nothing is computed. A layer reads its input and writes its output; backward does as much for each of the two
    gradients.
    """
    images = 2
    blocks: list[Block] = []
    moved = 0

    def observe(step: Any, x: Any, y: Any) -> None:
        nonlocal moved
        moved += x.nbytes + y.nbytes
        size = sum(gradient.nbytes for layer in step.layers for gradient in layer.gradients.values())
        if size:
            flops = sum(_flops(layer, x.shape) for layer in step.layers) / images
            blocks.append(Block(size, flops * (2 if blocks else 1)))  # the first layer needs no gradient of its input

    model = zoo.MODELS[name](seed=_Zeros(np.random.PCG64(0)))
    with recording():
        model.run(np.zeros((images, *zoo.input_shape(name)), np.float32), observe)
    return blocks[::-1], 3 * moved / images


def work_of(name: str, seconds: Seconds) -> Work:
    """Return what a step of a network takes on a node."""
    blocks, traffic = shape_of(name)
    return Work(*seconds, traffic, tuple(blocks))


# What is measured.


def batch_of(name: str, images: int, seed: int = 0) -> tuple[Any, Any]:
    """Return images and classes that a network takes."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((images, *zoo.input_shape(name)), dtype=np.float32)
    return x, rng.integers(0, 10, images)


def quartile(times: Sequence[float]) -> float:
    """Return the lower quartile: others use the machine now and then."""
    return float(np.quantile(times, 0.25))


def passes(model: Sequential, optimizer: SGD, x: Any, labels: Any, seconds: float) -> tuple[float, float, float]:
    """Return the times of forward with the loss, of backward and of the optimizer, of this thread's CPU."""
    times: list[tuple[float, float, float]] = []
    Trainer(model, optimizer).step(x, labels)
    while len(times) < 5 or sum(map(sum, times)) < seconds:
        begin = time.thread_time()
        _, dlogits = softmax_cross_entropy(model.forward(x), labels)
        middle = time.thread_time()
        model.backward(dlogits)
        end = time.thread_time()
        optimizer.update(model.parameters, model.gradients)
        times.append((middle - begin, end - middle, time.thread_time() - end))
    forward, backward, update = zip(*times, strict=True)
    return quartile(forward), quartile(backward), quartile(update)


def measure(name: str, seconds: float) -> Seconds:
    """Return what a network takes on a core: a line through the times of a small batch and of its own."""
    model, optimizer = zoo.MODELS[name](seed=0), SGD(0.001, 0.9)
    large, small = BATCHES[name], max(1, BATCHES[name] // 8)
    with jitconv.num_threads(1):
        found = [passes(model, optimizer, *batch_of(name, images), seconds) for images in (small, large)]
    slopes = [(b - a) / (large - small) for a, b in zip(found[0][:2], found[1][:2], strict=True)]
    step = sum(found[1][:2]) - large * sum(slopes)
    return Seconds(max(step, 0.0), *slopes, found[1][2])


def measure_memory(threads: int, size: int = 256 * MIB, rounds: int = 9) -> float:
    """Return the bytes a second that so many threads read and write together when each copies an array."""
    arrays = [(np.ones(size // 8), np.zeros(size // 8)) for _ in range(threads)]
    times = []
    for _ in range(rounds):
        running = [threading.Thread(target=np.copyto, args=(b, a)) for a, b in arrays]
        begin = time.perf_counter()
        for thread in running:
            thread.start()
        for thread in running:
            thread.join()
        times.append(time.perf_counter() - begin)
    return 2 * size * threads / quartile(times)


# A rank of an MPI job, started by --run.


def rank_worker(options: argparse.Namespace) -> None:
    """Time the steps of a rank by itself and with the others, and sums of arrays; the first rank prints it as JSON."""
    from mpi4py import MPI

    comm = MPI.COMM_WORLD
    jitconv.set_num_threads(options.threads)
    (name,) = options.model
    x, labels = batch_of(name, options.batch or BATCHES[name], comm.rank)

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

    alone = Trainer(zoo.MODELS[name](seed=0), SGD(0.001, 0.9))
    together = Trainer(zoo.MODELS[name](seed=0), SGD(0.001, 0.9), communicator=comm)
    arrays = {size: np.zeros(size // 4, np.float32) for size in SUMS}
    found = {
        "model": name,
        "ranks": comm.size,
        "threads": options.threads,
        "batch": len(x),
        "alone": slowest(lambda: alone.step(x, labels)),
        "together": slowest(lambda: together.step(x, labels)),
        "allreduce": {size: slowest(lambda a=a: comm.Allreduce(MPI.IN_PLACE, a)) for size, a in arrays.items()},
    }
    if comm.rank == 0:
        print(json.dumps(found), flush=True)


def start(name: str, ranks: int, options: argparse.Namespace) -> dict[str, Any]:
    """Return what an MPI job of so many ranks prints."""
    command = [*options.mpiexec.split(), "-n", str(ranks), sys.executable, __file__, "--rank-worker", "--model", name]
    command += ["--threads", str(options.threads), "--steps", str(options.steps)]
    command += ["--batch", str(options.batch)] if options.batch else []
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


def compare(runs: Sequence[dict[str, Any]], node: Node, settings: Settings) -> None:
    """Print predicted and measured steps side by side.

    The prediction knows what one rank takes alone, the cores, and how long sums of arrays take.
    """
    print("| model | ranks | images | alone, predicted | measured | step, predicted | measured | images/s | scaling |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name in dict.fromkeys(run["model"] for run in runs):
        mine = sorted((run for run in runs if run["model"] == name), key=lambda run: run["ranks"])
        first = next((run for run in mine if run["ranks"] == 1), None)
        if first is None:
            sys.exit(f"{name}: a run of 1 rank is needed, from which the others are predicted")
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
            print(
                f"| {name} | {ranks} | {ranks * batch} | {_ms(step.compute)} | {_ms(run['alone'])} "
                f"| {_ms(step.total)} | {_ms(run['together'])} | {rate:,.0f} "
                f"| {rate * first['together'] / first['batch']:.2f} |"
            )


# What is printed and drawn.


def _ms(seconds: float) -> str:
    return f"{_three(seconds * 1e3)} ms"


def _three(number: float) -> str:
    """Return a number with three digits that count."""
    if not number:
        return "0"
    digits = 2 - math.floor(math.log10(abs(number)))
    return f"{round(number, digits):,.{max(digits, 0)}f}"


def _rate(row: Row) -> str:
    return f"{_three(row.images_per_second)} ({row.efficiency:.0%})"


def print_networks(works: dict[str, Work], batches: dict[str, int]) -> None:
    """Print what of the networks decides."""
    print("| network | gradients | an image | the rest of a step | images a node |")
    print("|---|---|---|---|---|")
    for name, work in works.items():
        print(
            f"| {name} | {work.gradient_bytes / 1e6:.1f} MB | {_ms(work.forward + work.backward)} "
            f"| {_ms(work.step + work.update)} | {batches[name]:,} |"
        )


def print_curves(title: str, curves: dict[str, list[Row]], nodes: Sequence[int]) -> None:
    """Print images a second, and how much of the ideal they are, for each number of nodes."""
    print(f"\n{title}\n\n| nodes | {' | '.join(curves)} |")
    print("|---|" + "---|" * len(curves))
    for n in nodes:
        rows = [next((row for row in curve if row.nodes == n), None) for curve in curves.values()]
        print(f"| {n:,} | " + " | ".join("" if row is None else _rate(row) for row in rows) + " |")


def draw(path: pathlib.Path, weak: dict[str, list[Row]], strong: dict[str, list[Row]]) -> None:
    """Draw the share of the ideal images/s over the nodes: a panel for each way to scale, a colour for each network."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    figure = Figure(figsize=(10, 4), layout="constrained")
    colors = dict(zip(MODELS, ("#1f5fa8", "#d1661a", "#2f8f4e"), strict=True))
    panels = (("weak scaling", weak), (f"strong scaling, {IMAGES:,} images", strong))
    for axes, (title, curves) in zip(figure.subplots(1, 2, sharey=True), panels, strict=True):
        for label, rows in curves.items():
            style = "--" if label.endswith(SLOW) else "-"
            points = [(row.nodes, row.efficiency) for row in rows]
            axes.plot(*zip(*points, strict=True), style, color=colors[label.split(",")[0]], linewidth=1.8, label=label)
        axes.set_xscale("log", base=2)
        axes.set_xticks(NODES[::2], [f"{n:,}" for n in NODES[::2]])
        axes.set_xlabel("nodes")
        axes.set_title(title, loc="left", fontsize=11)
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axes.set_ylim(0, 1.05)
        axes.grid(color="#e3e6ea", linewidth=0.8)
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[0].set_ylabel("images/s, of as many nodes without a network")
    figure.axes[0].legend(frameon=False, fontsize=8, loc="lower left")
    figure.savefig(path, dpi=90, pil_kwargs={"optimize": True})


def predict(options: argparse.Namespace, node: Node, settings: Settings) -> None:
    """Print the tables, and draw the curves if there is a file for them."""
    links = dict(LINKS)
    if options.latency is not None or options.bandwidth is not None:
        base = LINKS[SLOW]
        latency = base.latency if options.latency is None else options.latency * 1e-6
        links = {"this link": Link(latency, base.bandwidth if options.bandwidth is None else options.bandwidth * 1e9)}
    works: dict[str, Work] = {}
    for name in options.model:
        seconds = SECONDS[name]
        if options.seconds is not None:
            seconds = Seconds(0.0, options.seconds / 3, options.seconds * 2 / 3, 0.0)
        works[name] = model_of.faster(work_of(name, seconds), node.cores)
    batches = {name: options.batch or BATCHES[name] * node.cores for name in works}
    weak, strong = (
        {
            f"{name}, {label}": scaled(work, images, NODES, link, node, settings)
            for name, work in works.items()
            for label, link in links.items()
            for images in [batches[name] if scaled is model_of.weak_scaling else IMAGES]
        }
        for scaled in (model_of.weak_scaling, model_of.strong_scaling)
    )
    print_networks(works, batches)
    print_curves("Weak scaling: each node has its images.", weak, options.nodes)
    print_curves(f"Strong scaling: all nodes together have {IMAGES:,} images.", strong, options.nodes)
    if options.plot:
        draw(options.plot, weak, strong)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--batch", type=int, help="images of each node, or of each rank of --run")
    parser.add_argument("--seconds", type=float, metavar="S", help="in which a core computes an image")
    parser.add_argument("--cores", type=int, help="of a node")
    parser.add_argument("--nodes", nargs="+", type=int, choices=NODES, default=NODES[1:], help="rows of the tables")
    parser.add_argument("--latency", type=float, metavar="US", help="microseconds of a message")
    parser.add_argument("--bandwidth", type=float, metavar="GB/S", help="of a link, in each direction")
    parser.add_argument("--memory-bandwidth", type=float, metavar="GB/S", help="of a node")
    parser.add_argument("--algorithm", choices=model_of.ALGORITHMS, default="rabenseifner")
    parser.add_argument("--bucket-mib", type=float, default=model_of.DEFAULT.bucket_bytes / MIB)
    parser.add_argument("--no-overlap", action="store_true", help="sum after backward")
    parser.add_argument("--plot", type=pathlib.Path, metavar="FILE")
    parser.add_argument("--measure", action="store_true")
    parser.add_argument("--run", nargs="+", type=int, metavar="RANKS")
    parser.add_argument("--measured", type=pathlib.Path, metavar="FILE")
    parser.add_argument("--save", type=pathlib.Path, metavar="FILE", help="what --run measures, for --measured")
    parser.add_argument("--mpiexec", default="mpiexec", help="the command, with options if there are any")
    parser.add_argument("--threads", type=int, default=1, help="of each rank")
    parser.add_argument("--steps", type=int, default=20, help="of each rank")
    parser.add_argument("--rank-worker", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    """Do what the options say."""
    options = _options()
    if options.rank_worker:
        rank_worker(options)
        return
    if options.measure:
        for name in options.model:
            times = ", ".join(f"{key}={value:.3g}" for key, value in measure(name, 3.0)._asdict().items())
            print(f'    "{name}": Seconds({times}),', flush=True)
        return
    here = bool(options.run or options.measured)
    node = Node(cores(), measure_memory(cores())) if here else NODE
    if options.cores:
        node = node._replace(cores=options.cores)
    if options.memory_bandwidth:
        node = node._replace(memory_bandwidth=options.memory_bandwidth * 1e9)
    settings = Settings(options.algorithm, not options.no_overlap, int(options.bucket_mib * MIB))
    if options.run:
        runs = [start(name, ranks, options) for name in options.model for ranks in options.run]
        if options.save:
            options.save.write_text(json.dumps(runs, indent=1))
        compare(runs, node, settings)
    elif options.measured:
        compare(json.loads(options.measured.read_text()), node, settings)
    else:
        predict(options, node, settings)


if __name__ == "__main__":
    main()
