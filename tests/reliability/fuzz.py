"""Random calls of jitconv, right and wrong, in processes of their own: `python tests/reliability/fuzz.py --help`.

What is right is compared with the float64 references of the tests, what is wrong must be refused in words that name an
argument, and no array that is given may change. A call is drawn from its seed alone: `--one SEED` repeats it.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import pathlib
import queue
import runpy
import subprocess
import sys
import tempfile
import threading
import time

HANGS_AFTER = 60.0  # seconds for one call
PATIENCE = 5  # times as long, when a call is given a second chance
STARTS_WITHIN = 300.0  # seconds for a process
CALLS_PER_CHILD = 2000  # a fresh process now and then
THREADS = 4  # that a process has, whatever the machine: calls use one to all of them
ADDRESS_SPACE = 16 * 2**30  # bytes: a call that asks for more gets a MemoryError
FOLDER = pathlib.Path(__file__).resolve().parent


def parser():
    """Return the parser of the command line."""
    made = argparse.ArgumentParser(description="Random calls of jitconv, compared with references in float64.")
    made.add_argument("--seconds", type=float, default=600.0, help="how long (default: 600)")
    made.add_argument("--cases", type=int, help="how many calls, instead of a time")
    made.add_argument("--seed", type=int, default=0, help="of the first call; each has the next (default: 0)")
    made.add_argument("--one", type=int, metavar="SEED", help="the call of this seed alone, described")
    made.add_argument("--json", metavar="FILE", help="where to put counts and findings")
    made.add_argument("--plant", metavar="FILE", help="Python code that each process runs first: a fault to be found")
    made.add_argument("--hang", type=float, default=HANGS_AFTER, help="seconds after which a call hangs (default: 60)")
    made.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    return made


def serve(plant):
    """Run the calls whose seeds come on stdin, and answer each with a line."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a call prints is no answer
    sys.path.insert(0, str(FOLDER.parent))
    from fuzzing import judging

    _bound_memory()
    if plant:
        runpy.run_path(plant)
    print(json.dumps("ready"), file=answers, flush=True)
    for line in sys.stdin:
        call = judging.drawn(int(line))
        verdict = judging.judge(call)
        bad = verdict.outcome not in (judging.VALID, judging.INVALID)
        answer = verdict._asdict() | {"name": call.name, "call": str(call) if bad else ""}
        print(json.dumps(answer), file=answers, flush=True)


def _bound_memory():
    try:
        import resource
    except ImportError:  # not on Windows
        return
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))


class Child:
    """A process that runs calls."""

    def __init__(self, plant):
        self.calls = 0
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (open as long as the process)
        command = [sys.executable, "-X", "faulthandler", str(FOLDER / "fuzz.py"), "--child"]
        self._process = subprocess.Popen(
            [*command, *(["--plant", plant] if plant else [])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env=os.environ | {"NUMBA_NUM_THREADS": str(THREADS), "JITCONV_QUIET": "1"},
        )
        self._answers = queue.Queue()
        threading.Thread(target=self._listen, daemon=True).start()
        if self._answers.get(timeout=STARTS_WITHIN) is None:
            raise RuntimeError(self._crashed()["words"])

    def _listen(self):
        for line in self._process.stdout:
            self._answers.put(json.loads(line))
        self._answers.put(None)

    def ask(self, seed, seconds):
        """Return what came of a call; a process that crashed or hangs is ended."""
        self.calls += 1
        try:
            self._process.stdin.write(f"{seed}\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            return self._crashed()
        try:
            answer = self._answers.get(timeout=seconds)
        except queue.Empty:
            self.end()
            return {"outcome": "hang", "words": f"no answer after {seconds:g} s", "name": "", "call": ""}
        return self._crashed() if answer is None else answer

    def _crashed(self):
        status = self._process.wait()
        self._errors.seek(0)
        words = self._errors.read().decode(errors="replace")[-2000:]
        self.end()
        return {"outcome": "crash", "words": f"exit status {status} {words}", "name": "", "call": ""}

    def end(self):
        """End the process."""
        self._process.kill()
        self._process.wait()
        self._process.stdin.close()


def fuzz(options):
    """Run calls until the time or the number is up; return the counts and the findings."""
    counts, names, findings = collections.Counter(), collections.Counter(), []
    child, start, seed = None, time.monotonic(), options.seed if options.one is None else options.one
    last = None if options.cases is None else seed + options.cases
    if options.one is not None:
        last = seed + 1
    try:
        while seed != last and (last is not None or time.monotonic() - start < options.seconds):
            if child is None:
                child = Child(options.plant)
            answer = child.ask(seed, options.hang)
            if answer["outcome"] == "hang":  # or the kernels of this call are being compiled, on a busy machine
                child = Child(options.plant)
                answer = child.ask(seed, PATIENCE * options.hang)
            counts[answer["outcome"]] += 1
            names[answer["name"]] += 1
            if answer["outcome"] not in ("valid", "invalid"):
                findings.append(answer | {"seed": seed, "after": child.calls - 1})
                print(_described(findings[-1]), flush=True)
            if answer["outcome"] in ("crash", "hang") or child.calls >= CALLS_PER_CHILD:
                child.end()
                child = None
            seed += 1
    finally:
        if child is not None:
            child.end()
    seconds = time.monotonic() - start
    total = sum(counts.values())
    return {
        "calls": total,
        "valid": counts["valid"],
        "invalid": counts["invalid"],
        "findings": findings,
        "seconds": seconds,
        "rate": total / max(seconds, 1e-9),
        "names": dict(names),
    }


def _described(finding):
    lines = [f"{finding['outcome']}: {finding['words']}", f"    {finding['call']}" if finding["call"] else ""]
    lines.append(f"    to repeat: python tests/reliability/fuzz.py --one {finding['seed']}")
    if finding["outcome"] == "crash" and finding["after"]:
        first = finding["seed"] - finding["after"]
        lines.append(f"    or, with the calls before: --seed {first} --cases {finding['after'] + 1}")
    return "\n".join(line for line in lines if line)


def main(arguments=None):
    """Return the exit status: 1 if anything was found."""
    options = parser().parse_args(arguments)
    if options.child:
        serve(options.plant)
        return 0
    result = fuzz(options)
    if options.json:
        pathlib.Path(options.json).write_text(json.dumps(result, indent=1))
    print(
        f"{result['calls']} calls, {result['valid']} valid, {result['invalid']} invalid, "
        f"{len(result['findings'])} findings, {result['rate']:.1f} calls/s, seeds from {options.seed}"
    )
    return 1 if result["findings"] else 0


if __name__ == "__main__":
    sys.exit(main())
