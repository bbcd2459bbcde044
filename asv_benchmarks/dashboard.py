"""Run the benchmarks with asv, and show them as pages.

    python asv_benchmarks/dashboard.py quick              a part of them, in a few minutes, and the dashboard
    python asv_benchmarks/dashboard.py full               all of them, and the dashboard
    python asv_benchmarks/dashboard.py readme             what the README's chart and table show, and write both
    python asv_benchmarks/dashboard.py compare A B        two commits; fails if B is slower
    python asv_benchmarks/dashboard.py history RANGE      many commits (`v0.1..main`), and the dashboard
    python asv_benchmarks/dashboard.py publish            the dashboard again, from results that are there
    python asv_benchmarks/dashboard.py check              import the benchmarks, and run none

It needs `pip install ".[bench]"`; PyTorch takes part if it is installed. quick, full and readme measure the checkout,
with the Python that runs this, and keep results under the commit that is checked out: the package must have no changes
besides (`--changed` measures them all the same, under that commit's name). compare and history build each commit in an
environment of their own. `--no-open` publishes without opening a browser; other options go to `asv run` or
`asv continuous`.

compare runs jitconv's own benchmarks of `quick`, in rounds that alternate between the commits, and fails where the
median of B is more than 1.25 times that of A and the samples differ significantly. A shared machine varies by a tenth.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
FACTOR = 1.25
JITCONV = r"'jitconv( NHWC)?', '(vgg_cifar_2|simple_convnet|2x2, stride 2)', 'float32'"
QUICK = (
    r"^convolution\..*'vgg_cifar_2', 'float32'",
    r"^convolution\.Forward.*'one image, 6 to 16', 'float32'",
    r"^pooling\.MaxForward.*'2x2, stride 2', 'float32'",
    r"^ratios\..*\('(NumPy|Cython|PyTorch)', 'vgg_cifar_2', 'float32'",
    r"^ratios\.Max.*\('(NumPy|Cython|PyTorch)', '2x2, stride 2', 'float32'",
    r"^training\..*'simple_convnet', 'float32'",
    r"^small_calls.*'(conv 28x28|max)",
    r"^(startup\.Warm\.timeraw_first_call|threads\.Used|memory\.Growth.*vgg_cifar_2)",
)
README = (r"^ratios\.(Forward|Backward|Max|Average).*\('(NumPy|Cython|Cython naive|PyTorch)', '(?!one image)",)
COMPARED = (rf"^(convolution|pooling)\..*\({JITCONV}", r"^training\.Step.*\('jitconv', 'simple_convnet', 'float32'")


def asv(*arguments: str, quiet: bool = False, **environment: str) -> int:
    """Run asv in its folder, and return how it ended."""
    if importlib.util.find_spec("asv") is None:
        sys.exit('asv is not installed: pip install ".[bench]"')
    given = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "ASV_PYTHONPATH")}
    output = subprocess.DEVNULL if quiet else None
    command = [sys.executable, "-m", "asv", *arguments]
    return subprocess.run(command, cwd=HERE, env=given | environment, stdout=output).returncode


def git(*arguments: str) -> str:
    """Return what git prints."""
    return subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()


def know_machine() -> None:
    """Let asv note what this machine is; it asks otherwise."""
    if not (Path.home() / ".asv-machine.json").exists():
        asv("machine", "--yes", quiet=True)  # it prints questions and answers them itself


def build_cython() -> None:
    """Install the Cython variant into this Python, unless it is there or cannot be built."""
    if subprocess.run([sys.executable, HERE / "cython_variant" / "install.py"]).returncode:
        print("The Cython variant was not built: its benchmarks are skipped.", flush=True)


def measure(patterns: tuple[str, ...], changed: bool, rest: list[str]) -> int:
    """Run benchmarks of the checkout, and keep their results under its commit."""
    if not changed and git("status", "--porcelain", "--", "jitconv"):
        sys.exit("jitconv/ has changes that are not committed: commit them, or add --changed")
    know_machine()
    build_cython()
    chosen = [option for pattern in patterns for option in ("--bench", pattern)]
    return asv(
        "run", "--python=same", "--set-commit-hash", git("rev-parse", "HEAD"), *chosen, *rest, ASV_PYTHONPATH=str(ROOT)
    )


def publish(show: bool) -> int:
    """Write the pages, and serve them in a browser until Ctrl-C."""
    failed = asv("publish", "--no-pull")
    if failed or not show:
        return failed
    return asv("preview", "--browser")


def main() -> int:
    """Run a command, and return how it ended."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("quick", "full", "readme", "compare", "history", "publish", "check"))
    parser.add_argument("commits", nargs="*")
    parser.add_argument("--no-open", action="store_true")
    parser.add_argument("--changed", action="store_true")
    parser.add_argument("--bench", action="append", help="for compare and full: benchmarks that match this alone")
    parser.add_argument("--factor", type=float, default=FACTOR)
    options, rest = parser.parse_known_args()
    if len(options.commits) != {"compare": 2, "history": 1}.get(options.command, 0):
        parser.error("compare takes two commits, history a range, the others none")
    if options.commits and git("rev-parse", "--is-shallow-repository") == "true":
        sys.exit("this clone is shallow and has no history: git fetch --unshallow")
    if options.command == "check":
        return asv("check", "--python=same", ASV_PYTHONPATH=str(ROOT))
    if options.command == "compare":
        know_machine()
        chosen = [option for pattern in options.bench or COMPARED for option in ("--bench", pattern)]
        factor = ("--factor", str(options.factor))
        rounds = ("--interleave-rounds", "--attribute", "rounds=4")
        return asv("continuous", *factor, "--split", *rounds, *chosen, *rest, *options.commits)
    failed = 0
    if options.command == "history":
        know_machine()
        failed = asv("run", "--skip-existing", *rest, *options.commits)
    elif options.command != "publish":
        patterns = {"quick": QUICK, "readme": README}.get(options.command, tuple(options.bench or ()))
        failed = measure(patterns, options.changed, rest)
        if options.command == "readme" and not failed:
            return subprocess.run([sys.executable, HERE / "chart.py"]).returncode
    return publish(not options.no_open) or failed


if __name__ == "__main__":
    sys.exit(main())
