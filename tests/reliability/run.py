"""Try everything that docs/reliability.md promises, and print a table of what was tried and what held.

    python tests/reliability/run.py             all of it
    python tests/reliability/run.py --short     what fits into a few minutes, as CI does

It needs the packages of the extra `test`; what needs PyTorch, ONNX or a threading layer that is not here is listed as
not tried. It exits with 1 if anything did not hold.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import pytest

HERE = pathlib.Path(__file__).resolve().parent
TESTS = HERE.parent
FUZZING_SECONDS = {"full": 600, "short": 30}
# What is promised, and the tests of it.
PROMISES = {
    "threading layers: 8 Python threads x 200 calls, choice, settings": ("reliability/test_threading_layers.py",),
    "forks: every start method, cold and warm, every layer, servers": (
        "reliability/test_forks.py",
        "pytorch/test_torch_surroundings.py",
    ),
    "compile cache: 16 cold processes, damage, read-only, versions, CPUs": ("reliability/test_cache.py",),
    "bounds: every load and store of every kernel, huge sizes, no memory": (
        "reliability/test_bounds.py",
        "reliability/test_index_arithmetic.py",
        "reliability/test_huge_arrays.py",
        "reliability/test_absurd_sizes.py",
        "reliability/test_memory_errors.py",
        "test_guards.py",
    ),
    "bad input: wrong calls and commands with a clear error, odd arrays": (
        "reliability/test_wrong_calls.py",
        "reliability/test_wrong_commands.py",
        "reliability/test_odd_arrays.py",
        "test_errors.py",
    ),
    "fuzzing: the fuzzer finds planted faults; what it found stays mended": (
        "reliability/test_fuzz.py",
        "reliability/test_findings.py",
    ),
    "same bits: threads, repeats, layers, Python threads, forks": ("reliability/test_bits.py",),
    "independent suites: ONNX backend tests, PyTorch's OpInfo": ("onnx_backend", "pytorch/test_torch_opinfo.py"),
    "long runs: killed, resumed, 2,000 steps, Ctrl-C": (
        "reliability/test_long_runs.py",
        "reliability/test_ctrl_c.py",
    ),
    "extremes: subnormals, overflow, infinities, ties, signed zeros": ("reliability/test_extremes.py",),
}


class Counts:
    """What pytest reports, by promise: cases tried and held, and why tests were not run."""

    def __init__(self) -> None:
        self.tried = dict.fromkeys(PROMISES, 0)
        self.held = dict.fromkeys(PROMISES, 0)
        self.skipped: dict[str, int] = {}
        self.broken: list[str] = []

    def _promise(self, path: str) -> str:
        name = pathlib.Path(path).resolve().relative_to(TESTS).as_posix()
        return next(promise for promise, paths in PROMISES.items() if name.startswith(paths))

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.broken.append(report.nodeid)
        elif report.skipped:
            self._skip(report)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.skipped:
            self._skip(report)
        elif report.when == "call" or report.failed:
            # A test of many cases says how many: record_property("tried", ...).
            cases = dict(report.user_properties).get("tried", 1)
            promise = self._promise(str(TESTS.parent / report.nodeid.partition("::")[0]))
            self.tried[promise] += int(str(cases))
            self.held[promise] += int(str(cases)) * report.passed

    def _skip(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        reason = str(report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr)
        self.skipped[reason] = self.skipped.get(reason, 0) + 1


def fuzz(seconds: int) -> tuple[int, int]:
    """Run the fuzzer, and return how many calls it tried and how many of them held."""
    with tempfile.TemporaryDirectory() as folder:
        found = pathlib.Path(folder) / "found.json"
        subprocess.run([sys.executable, HERE / "fuzz.py", "--seconds", str(seconds), "--json", found], check=False)
        content = json.loads(found.read_text(encoding="utf-8")) if found.exists() else {"calls": 1, "findings": [{}]}
    return content["calls"], content["calls"] - len(content["findings"])


def main() -> int:
    """Run it, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--paths", action="store_true", help="print the tests that it runs, and run none")
    options = parser.parse_args()
    paths = [str(TESTS / name) for names in PROMISES.values() for name in names]
    if options.paths:
        print("\n".join(paths))
        return 0
    form = "short" if options.short else "full"
    os.environ["JITCONV_RELIABILITY"] = form
    start = time.monotonic()
    counts = Counts()
    cores = ("-n", "auto", "--dist", "worksteal")
    status = pytest.main(["-q", *cores, "--rootdir", str(TESTS.parent), "-p", "no:cacheprovider", *paths], [counts])
    seconds = FUZZING_SECONDS[form]
    fuzzed = f"fuzzing: random calls for {seconds} s against float64"
    counts.tried[fuzzed], counts.held[fuzzed] = fuzz(seconds)
    width = max(map(len, counts.tried))
    print(f"\n{'what was tried (' + form + ' form)':{width}}  {'tried':>8}  {'held':>8}")
    for promise, tried in counts.tried.items():
        held = counts.held[promise]
        note = "" if held == tried > 0 else "  <- did not hold" if tried else "  <- not tried"
        print(f"{promise:{width}}  {tried:8,}  {held:8,}{note}")
    for reason, number in counts.skipped.items():
        print(f"not tried: {number} test{'s' * (number > 1)}: {reason}")
    print(f"{time.monotonic() - start:.0f} s")
    return int(bool(status) or counts.held != counts.tried or bool(counts.broken))


if __name__ == "__main__":
    sys.exit(main())
