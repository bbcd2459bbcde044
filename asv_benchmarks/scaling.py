"""Predict data-parallel training on 2 to 1,024 nodes from a cost model, and hold it against runs on this machine.

    python asv_benchmarks/scaling.py [--plot FILE]            # tables and curves; options change all parameters
    python asv_benchmarks/scaling.py --measure                # what a core of this machine computes: SECONDS below
    python asv_benchmarks/scaling.py --run 1 2 4 [--save F]   # start so many ranks with mpiexec, predict them, compare
    python asv_benchmarks/scaling.py --measured F             # compare once more, from the file

With `--document docs/scaling.md` the tables are written there, between their marks. The model is `scaling_model.py`,
explained in that document; what it is told of networks comes from `scaling_work.py`, runs from `scaling_runs.py`.
"""

from __future__ import annotations

import argparse
import json
import pathlib
from collections.abc import Callable, Mapping, Sequence

import scaling_model as model_of
import scaling_runs
from scaling_model import Link, Node, Row, Settings, Work
from scaling_runs import milliseconds, three_digits
from scaling_work import BATCHES, MIB, Seconds, measure, measure_memory, work_of

from jitconv.ahead import cores

MODELS = tuple(BATCHES)
COLORS = dict(zip(MODELS, ("#1f5fa8", "#d1661a", "#2f8f4e"), strict=True))
IMAGES = 8192  # of all nodes together, where they share a batch
NODES = tuple(2**i for i in range(11))

# Line rates, less what headers take, and the usual latency of a small message of MPI.
ETHERNET, INFINIBAND = "10 GbE", "IB"
LINKS = {ETHERNET: Link(latency=30e-6, bandwidth=1.17e9), INFINIBAND: Link(latency=1.5e-6, bandwidth=12.0e9)}

# A node, if no option says otherwise: the threads of its rank share the images of a batch without loss.
NODE = Node(cores=16, memory_bandwidth=100e9)

# Printed by --measure: CPU time of one thread of a CPU with AVX-512 (Zen 5), float32.
SECONDS = {
    "simple_convnet": Seconds(step=243e-6, forward=10.1e-6, backward=14.2e-6, update=107e-6),
    "vgg_cifar": Seconds(step=3.39e-3, forward=408e-6, backward=925e-6, update=574e-6),
    "vgg11": Seconds(step=91.8e-3, forward=21.2e-3, backward=52.8e-3, update=41.4e-3),
}

Curves = Mapping[str, Sequence[Row]]  # by network and link


def predictions(options: argparse.Namespace, node: Node, settings: Settings) -> tuple[str, Curves, Curves]:
    """Return the tables, and the curves of weak and of strong scaling."""
    links = dict(LINKS)
    if options.latency is not None or options.bandwidth is not None:
        latency, bandwidth = links[ETHERNET]
        latency = latency if options.latency is None else options.latency * 1e-6
        links = {"link": Link(latency, bandwidth if options.bandwidth is None else options.bandwidth * 1e9)}
    works: dict[str, Work] = {}
    for name in options.model:
        seconds = SECONDS[name]
        if options.seconds is not None:
            seconds = Seconds(0.0, options.seconds / 3, options.seconds * 2 / 3, 0.0)
        works[name] = model_of.faster(work_of(name, seconds), node.cores)
    batches = {name: options.batch or BATCHES[name] * node.cores for name in works}
    pairs = [(name, label) for name in works for label in links]
    weak = {
        f"{name}, {label}": model_of.weak_scaling(works[name], batches[name], NODES, links[label], node, settings)
        for name, label in pairs
    }
    strong = {
        f"{name}, {label}": model_of.strong_scaling(works[name], IMAGES, NODES, links[label], node, settings)
        for name, label in pairs
    }
    parts = (
        _networks(works, batches),
        "**Weak scaling**: each node has its own images, as many as above. Images a second, and how much that is of\n"
        "what as many nodes do without adding up gradients:",
        _table(weak, options.nodes),
        f"**Strong scaling**: all nodes together have {IMAGES:,} images.",
        _table(strong, options.nodes),
    )
    return "\n\n".join(parts), weak, strong


def _networks(works: Mapping[str, Work], batches: Mapping[str, int]) -> str:
    lines = ["| network | gradients | an image | the rest of a step | images of a node |", "|---|---|---|---|---|"]
    for name, work in works.items():
        times = f"{milliseconds(work.forward + work.backward)} | {milliseconds(work.step + work.update)}"
        lines.append(f"| {name} | {work.gradient_bytes / 1e6:.1f} MB | {times} | {batches[name]:,} |")
    return "\n".join(lines)


def _table(curves: Curves, nodes: Sequence[int]) -> str:
    lines = [f"| nodes | {' | '.join(curves)} |", "|---|" + "---|" * len(curves)]
    for n in nodes:
        rows = [next(row for row in curve if row.nodes == n) for curve in curves.values()]
        cells = [f"{three_digits(row.images_per_second)} ({row.efficiency:.0%})" for row in rows]
        lines.append(f"| {n:,} | {' | '.join(cells)} |")
    return "\n".join(lines)


def draw(path: pathlib.Path, weak: Curves, strong: Curves) -> None:
    """Draw the share of the ideal images/s over the nodes: a panel for each way to scale, a colour for each network."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    figure = Figure(figsize=(10, 4), layout="constrained")
    panels = (("weak scaling", weak), (f"strong scaling, {IMAGES:,} images", strong))
    for axes, (title, curves) in zip(figure.subplots(1, 2, sharey=True), panels, strict=True):
        for label, rows in curves.items():
            style, color = "--" if label.endswith(ETHERNET) else "-", COLORS[label.split(",")[0]]
            nodes, efficiencies = [row.nodes for row in rows], [row.efficiency for row in rows]
            axes.plot(nodes, efficiencies, style, color=color, linewidth=1.8, label=label)
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


def between(text: str, what: str, replace: Callable[[str], str]) -> str:
    """Return a document in which what stands between two marks is replaced."""
    begin, end = f"<!-- {what}: written by asv_benchmarks/scaling.py -->\n\n", f"\n\n<!-- {what}: end -->"
    before, found, rest = text.partition(begin)
    inside, ended, after = rest.partition(end)
    if not found or not ended:
        raise ValueError(f"the document has no marks for {what}")
    return before + begin + replace(inside) + end + after


def publish(text: str, what: str, document: pathlib.Path | None) -> None:
    """Print a text, and write it into the document if there is one."""
    print(text)
    if document:
        changed = between(document.read_text(encoding="utf-8"), what, lambda _: text)
        document.write_text(changed, encoding="utf-8")


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
    parser.add_argument("--algorithm", choices=model_of.ALGORITHMS, default=model_of.DEFAULT.algorithm)
    parser.add_argument("--bucket-mib", type=float, default=model_of.DEFAULT.bucket_bytes / MIB)
    parser.add_argument("--no-overlap", action="store_true", help="sum after backward")
    parser.add_argument("--plot", type=pathlib.Path, metavar="FILE")
    parser.add_argument("--document", type=pathlib.Path, metavar="FILE")
    parser.add_argument("--measure", action="store_true")
    parser.add_argument("--run", nargs="+", type=int, metavar="RANKS")
    parser.add_argument("--measured", type=pathlib.Path, metavar="FILE")
    parser.add_argument("--save", type=pathlib.Path, metavar="FILE", help="what --run measures, for --measured")
    parser.add_argument("--mpiexec", default="mpiexec", help="the command, with options if there are any")
    parser.add_argument("--threads", type=int, default=1, help="of each rank of --run")
    parser.add_argument("--steps", type=int, default=20, help="of each rank of --run")
    return parser.parse_args()


def _run(options: argparse.Namespace) -> list[dict[str, object]]:
    runs = [
        scaling_runs.start(
            name, ranks, options.batch or BATCHES[name], options.steps, options.threads, options.mpiexec.split()
        )
        for name in options.model
        for ranks in options.run
    ]
    if options.save:
        options.save.write_text(json.dumps(runs, indent=1))
    return runs


def main() -> None:
    """Do what the options say."""
    options = _options()
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
    if here:
        runs = _run(options) if options.run else json.loads(options.measured.read_text())
        publish(scaling_runs.table(runs, node, settings), "runs", options.document)
        return
    text, weak, strong = predictions(options, node, settings)
    publish(text, "predictions", options.document)
    if options.plot:
        draw(options.plot, weak, strong)


if __name__ == "__main__":
    main()
