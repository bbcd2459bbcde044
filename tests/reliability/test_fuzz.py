"""The fuzzer: a short run finds nothing, and it finds what is planted."""

from __future__ import annotations

import collections
import json
import pathlib
import subprocess
import sys

import pytest
from fuzzing import judging

HERE = pathlib.Path(__file__).resolve().parent
CASES = 500
PLANTED = 532  # from here on, 40 seeds hold a call of each function with a fault, but for that which hangs


def fuzz(tmp_path, *arguments):
    """Run the fuzzer; return its exit status, what it prints, and its counts."""
    counts = tmp_path / "counts.json"
    child = subprocess.run(
        [sys.executable, str(HERE / "fuzz.py"), "--json", str(counts), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert counts.exists(), child.stderr
    return child.returncode, child.stdout, json.loads(counts.read_text())


def test_a_short_run_finds_nothing(tmp_path):
    status, out, counts = fuzz(tmp_path, "--cases", CASES, "--seed", 2_000_000)
    assert status == 0, out
    assert counts["calls"] == counts["valid"] + counts["invalid"] == CASES
    assert counts["valid"] > CASES * 0.5
    assert counts["invalid"] > CASES * 0.25
    assert f"{CASES} calls, {counts['valid']} valid, {counts['invalid']} invalid, 0 findings" in out
    public = {name for name in counts["names"] if not name.startswith("layers.")}
    assert {"conv2d", "conv2d_backward", "conv_transpose2d", "max_pool2d", "avg_pool2d", "plan_conv2d"} <= public
    assert sum(count for name, count in counts["names"].items() if name.startswith("layers.")) > 20


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """Return the result of a run with a fault of every class."""
    arguments = "--cases", 40, "--seed", PLANTED, "--plant", HERE / "faults.py"
    return fuzz(tmp_path_factory.mktemp("planted"), *arguments)


@pytest.mark.parametrize(
    ("name", "outcome"),
    [
        ("conv2d", judging.WRONG),
        ("max_pool2d", judging.UNCLEAR),
        ("avg_pool2d", judging.MODIFIED),
        ("conv2d_backward", judging.WRONG),
        ("im2col", judging.CRASH),
    ],
)
def test_a_planted_fault_is_found(planted, name, outcome):
    status, out, counts = planted
    assert status == 1
    found = {(judging.drawn(one["seed"]).name, one["outcome"]) for one in counts["findings"]}
    assert (name, outcome) in found
    seed = next(
        one["seed"]
        for one in counts["findings"]
        if one["outcome"] == outcome and judging.drawn(one["seed"]).name == name
    )
    assert f"to repeat: python tests/reliability/fuzz.py --one {seed}" in out


def test_a_call_that_hangs_is_found_and_ended(tmp_path):
    seed = next(seed for seed in range(1000) if judging.drawn(seed).name == "plan_conv2d")
    status, out, counts = fuzz(tmp_path, "--one", seed, "--hang", 0.5, "--plant", HERE / "faults.py")
    assert status == 1
    assert [one["outcome"] for one in counts["findings"]] == [judging.HANG]
    assert "hang: no answer after 2.5 s" in out


def test_what_is_not_planted_is_right(planted):
    _, _, counts = planted
    wrong = {"conv2d", "max_pool2d", "avg_pool2d", "conv2d_backward", "im2col"}
    assert {judging.drawn(one["seed"]).name for one in counts["findings"]} <= wrong
    assert counts["valid"] + counts["invalid"] > 20


def test_one_call_can_be_repeated(planted, tmp_path):
    _, _, counts = planted
    finding = next(one for one in counts["findings"] if one["outcome"] == judging.WRONG)
    status, out, again = fuzz(tmp_path, "--one", finding["seed"], "--plant", HERE / "faults.py")
    assert status == 1
    assert again["calls"] == 1
    assert again["findings"][0]["words"] == finding["words"]
    assert finding["call"] in out
    assert fuzz(tmp_path, "--one", finding["seed"])[0] == 0  # without the fault


def test_a_call_follows_from_its_seed():
    for seed in range(40):
        one, two = judging.drawn(seed), judging.drawn(seed)
        assert str(one) == str(two)
        for name, a in one.arrays().items():
            if a.dtype.char in "Og":  # addresses, and bytes that nobody sets
                continue
            assert a.tobytes() == two.given[name].tobytes()


def test_every_kind_of_call_is_drawn_right_and_wrong():
    drawn = collections.Counter((call.name, call.valid) for call in map(judging.drawn, range(1500)))
    names = {name for name, _ in drawn}
    assert {name for name, valid in drawn if valid} >= names - {"layers.Flatten"}
    assert {name for name, valid in drawn if valid is False} == names
