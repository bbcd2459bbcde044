"""Draw the README's chart of speed-ups and write the table beside it, from the newest results of asv.

    python asv_benchmarks/chart.py            after `dashboard.py readme` or `dashboard.py full`
    python asv_benchmarks/chart.py --check    fail if a number in the README is off by more than 30%

The numbers are those of the benchmarks `ratios`, upside down: above 1, jitconv is faster. A cell of the table is a
geometric mean over layers with the lowest and the highest in brackets. `--check` passes over cells that the newest
results do not have whole.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import statistics
import sys
from ast import literal_eval
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from variants import NAIVE, has_time_for  # noqa: E402
from variants.layers import CONVOLUTIONS, LAYERS, POOLINGS, is_first  # noqa: E402

OTHERS = ("NumPy", "Cython naive", "Cython", "PyTorch")
DTYPES = ("float32", "float64")
COLOURS = {"NumPy": "#0072b2", "Cython": "#d55e00", "PyTorch": "#009e73"}
# Benchmark, its name, the pass.
CONVOLUTION = (
    ("Forward", "forward", "forward"),
    ("BackwardData", "backward-data", "backward_data"),
    ("BackwardWeights", "backward-weights", "backward_weights"),
)
POOLING = (
    ("MaxForward", "max forward", "max_forward"),
    ("MaxBackward", "max backward", "max_backward"),
    ("AverageForward", "average forward", "average_forward"),
    ("AverageBackward", "average backward", "average_backward"),
)
BEGIN, END = "<!-- benchmarks: written by asv_benchmarks/chart.py -->", "<!-- benchmarks: end -->"
MOST = 1.3


class Case(NamedTuple):
    """One ratio."""

    benchmark: str
    over: str
    layer: str
    dtype: str


Speedups = dict[Case, float]


def layers(names: tuple[str, ...]) -> list[str]:
    """Return the layers of the means; single images are another matter, that of `small_calls`."""
    return [name for name in names if not name.startswith("one image")]


def cases(benchmark: str, each: str, over: str, dtype: str) -> list[Case]:
    """Return the ratios that a cell of the table is the mean of."""
    names = CONVOLUTIONS if benchmark in [name for name, *_ in CONVOLUTION] else POOLINGS
    found = []
    for name in layers(names):
        one = LAYERS[name]._replace(n=1) if over in NAIVE else LAYERS[name]
        if has_time_for(over, one) and not is_first(one, each):
            found.append(Case(benchmark, over, name, dtype))
    return found


def read(folder: Path) -> tuple[Speedups, str]:
    """Return the newest speed-ups, and the commit and machine they are of."""
    newest: tuple[float, Speedups, str] = (-1.0, {}, "")
    for path in folder.glob("*/*.json"):
        if path.name in ("machine.json", "benchmarks.json"):
            continue
        content = json.loads(path.read_text(encoding="utf-8"))
        found: Speedups = {}
        started = -1.0
        for name, row in content["results"].items():
            if not name.startswith("ratios.") or name.startswith("ratios.TrainingStep"):
                continue
            entry = dict(zip(content["result_columns"], row, strict=False))
            combinations = itertools.product(*([literal_eval(value) for value in values] for values in entry["params"]))
            for combination, value in zip(combinations, entry["result"] or [], strict=False):
                if value is not None and math.isfinite(value):
                    found[Case(name.split(".")[1], *combination)] = 1 / value
            started = max(started, entry.get("started_at") or 0)
        if found and started > newest[0]:
            newest = started, found, f"commit {content['commit_hash'][:7]}"
    return newest[1:]


def rounded(value: float) -> str:
    """Return a number with two digits."""
    return f"{float(f'{value:.2g}'):g}"


def cells(speedups: Speedups) -> dict[tuple[str, str, str], list[float] | None]:
    """Return the speed-ups of each cell by pass, other and dtype; None where some are missing."""
    found: dict[tuple[str, str, str], list[float] | None] = {}
    for (benchmark, _, each), over, dtype in itertools.product((*CONVOLUTION, *POOLING), OTHERS, DTYPES):
        wanted = cases(benchmark, each, over, dtype)
        whole = wanted and all(case in speedups for case in wanted)
        found[benchmark, over, dtype] = [speedups[case] for case in wanted] if whole else None
    return found


def table(speedups: Speedups) -> list[str]:
    """Return the lines of the table."""
    found = cells(speedups)
    lines = ["| | " + " | ".join(f"{over}, {dtype}" for over in OTHERS for dtype in DTYPES) + " |"]
    lines.append("|---" * (1 + len(OTHERS) * len(DTYPES)) + "|")
    for kind, rows in (("convolution", CONVOLUTION), ("pooling", POOLING)):
        for benchmark, name, _ in rows:
            row = [f"{kind}, {name}" if kind == "convolution" else f"{name.split()[0]} pooling, {name.split()[1]}"]
            for over, dtype in itertools.product(OTHERS, DTYPES):
                values = found[benchmark, over, dtype]
                if values is None:
                    row.append("-")
                else:
                    mean = statistics.geometric_mean(values)
                    row.append(f"{rounded(mean)} ({rounded(min(values))} to {rounded(max(values))})")
            lines.append("| " + " | ".join(row) + " |")
    return lines


def losses(speedups: Speedups) -> list[str]:
    """Return a line for each pass and other that lists the layers on which jitconv is slower."""
    lines = []
    for (benchmark, name, each), over, dtype in itertools.product((*CONVOLUTION, *POOLING), OTHERS, DTYPES):
        slower = [
            f"{case.layer} {rounded(speedups[case])}"
            for case in cases(benchmark, each, over, dtype)
            if speedups.get(case, 1.0) < 1
        ]
        if slower:
            kind = "pooling" if (benchmark, name, each) in POOLING else "convolution"
            lines.append(f"- {over}, {dtype}, {kind} {name}: {'; '.join(slower)}")
    return lines


def draw(speedups: Speedups, path: Path) -> None:
    """Draw each layer's speed-ups of float32: a panel for each pass, the poolings in one."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rows = layers(CONVOLUTIONS)[::-1]
    pools = [(benchmark, name, layer) for benchmark, name, _ in POOLING for layer in layers(POOLINGS)][::-1]
    figure, axes = plt.subplots(1, 4, figsize=(15, 5.4), layout="constrained", width_ratios=(1, 1, 1, 1.1))
    panels = [
        (f"convolution, {name}", rows, [(benchmark, layer) for layer in rows]) for benchmark, name, _ in CONVOLUTION
    ]
    labels = [f"{name}, {layer.replace(', stride ', '/')}" for _, name, layer in pools]
    panels.append(("pooling", labels, [(benchmark, layer) for benchmark, _, layer in pools]))
    for axis, (title, names, keys), i in zip(axes, panels, range(4), strict=True):
        for over, colour in COLOURS.items():
            points = [
                (speedups[case], y)
                for y, (benchmark, layer) in enumerate(keys)
                if (case := Case(benchmark, over, layer, "float32")) in speedups
            ]
            axis.scatter(*zip(*points, strict=True), color=colour, s=28, label=f"over {over}", zorder=3)
        axis.axvline(1, color="#555555", linewidth=1)
        axis.set_xscale("log")
        axis.set_title(title, fontsize=11)
        axis.set_yticks(range(len(names)), names if i in (0, 3) else [""] * len(names), fontsize=9)
        axis.set_ylim(-0.7, len(names) - 0.3)
        axis.grid(color="#dddddd", linewidth=0.6)
        axis.xaxis.set_major_formatter(matplotlib.ticker.FormatStrFormatter("%g"))
        axis.spines[["top", "right"]].set_visible(False)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=3, fontsize=10, frameon=False)
    figure.supxlabel("times as fast as the other (float32, NCHW; right of 1: jitconv is faster)", fontsize=10)
    figure.savefig(path, dpi=100, facecolor="white", pil_kwargs={"optimize": True})


def write(readme: Path, lines: list[str]) -> None:
    """Put lines between the markers."""
    text = readme.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        sys.exit(f"{readme} has no markers: {BEGIN} and {END}")
    readme.write_text("\n".join([before + BEGIN, *lines, END + after]), encoding="utf-8")


def numbers(readme: Path) -> dict[tuple[str, str, str], float]:
    """Return the means of the README's table by pass, other and dtype."""
    part = readme.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in part.splitlines() if line.startswith("| ")]
    found = {}
    for (benchmark, _, _), row in zip((*CONVOLUTION, *POOLING), rows[1:], strict=False):
        for (over, dtype), cell in zip(itertools.product(OTHERS, DTYPES), row[1:], strict=True):
            if cell != "-":
                found[benchmark, over, dtype] = float(cell.split()[0])
    return found


def check(readme: Path, speedups: Speedups) -> list[str]:
    """Return what is wrong with the README's numbers."""
    now, wrong, compared = cells(speedups), [], 0
    for key, value in numbers(readme).items():
        if (values := now[key]) is None:
            continue
        compared += 1
        mean = statistics.geometric_mean(values)
        if max(mean / value, value / mean) > MOST:
            wrong.append(f"{', '.join(key)}: the README has {value:g}, the newest results {rounded(mean)}")
    if not compared:
        wrong.append("no number of the README is in the newest results: run `dashboard.py readme`")
    return wrong


def main() -> int:
    """Write the chart and the table, or check them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--results", type=Path, default=HERE / "results")
    parser.add_argument("--readme", type=Path, default=HERE.parent / "README.md")
    options = parser.parse_args()
    speedups, source = read(options.results)
    if not speedups:
        print(f"no ratios in {options.results}: run `dashboard.py readme`", file=sys.stderr)
        return 1
    if options.check:
        wrong = check(options.readme, speedups)
        print("\n".join(wrong) or f"The README agrees with the results of {source}.")
        return bool(wrong)
    chart = options.readme.parent / "docs" / "benchmarks.png"
    chart.parent.mkdir(exist_ok=True)
    draw(speedups, chart)
    slower = losses(speedups)
    lines = ["", "![Speed-up over NumPy, Cython and PyTorch for each layer and pass](docs/benchmarks.png)", ""]
    lines += table(speedups)
    if slower:
        lines += ["", "Slower than the other (times as fast):", "", *slower]
    write(options.readme, [*lines, ""])
    print(f"Wrote {chart} and the table in {options.readme} from {source}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
