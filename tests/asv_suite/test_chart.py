"""The README's chart and table come from the results of asv, and `--check` notices when they do not."""

from __future__ import annotations

import itertools
import json

import chart
import pytest

README = f"# jitconv\n\n{chart.BEGIN}\n{chart.END}\n\nMore.\n"


def write_results(folder, over_factor=1.0, started=1, commit="a" * 40, benchmarks=None):
    """Write results in which jitconv takes half of everyone's time, of PyTorch's 1.25 times as much."""
    results = {}
    for benchmark, _, _ in (*chart.CONVOLUTION, *chart.POOLING):
        if benchmarks and benchmark not in benchmarks:
            continue
        names = chart.CONVOLUTIONS if (benchmark, *_rest(benchmark)) in chart.CONVOLUTION else chart.POOLINGS
        params = [list(map(repr, values)) for values in (chart.OTHERS, names, chart.DTYPES)]
        values = [over_factor * (1.25 if "PyTorch" in over else 0.5) for over, *_ in itertools.product(*params)]
        results[f"ratios.{benchmark}.track_ratio"] = [values, params, "1", started]
    (folder / "machine").mkdir(parents=True, exist_ok=True)
    content = {"commit_hash": commit, "results": results}
    content["result_columns"] = ["result", "params", "version", "started_at"]
    (folder / "machine" / f"{commit[:8]}-env.json").write_text(json.dumps(content))
    (folder / "machine" / "machine.json").write_text("{}")


def _rest(benchmark):
    return next(row[1:] for row in (*chart.CONVOLUTION, *chart.POOLING) if row[0] == benchmark)


@pytest.fixture
def place(tmp_path, monkeypatch):
    (tmp_path / "README.md").write_text(README)

    def run(*options):
        given = ["chart.py", "--results", str(tmp_path / "results"), "--readme", str(tmp_path / "README.md"), *options]
        monkeypatch.setattr("sys.argv", given)
        return chart.main()

    return tmp_path, run


def test_it_writes_chart_and_table(place):
    folder, run = place
    write_results(folder / "results")
    assert run() == 0
    text = (folder / "README.md").read_text()
    assert text.startswith("# jitconv")
    assert text.endswith("More.\n")
    assert text.count("| 2 (2 to 2)") == 7 * 6
    assert text.count("| 0.8 (0.8 to 0.8)") == 7 * 2
    assert "- PyTorch, float32, convolution forward: simple_convnet 0.8;" in text
    image = (folder / "docs" / "benchmarks.png").read_bytes()
    assert image.startswith(b"\x89PNG")
    assert len(image) < 300_000
    before = text
    assert run() == 0
    assert (folder / "README.md").read_text() == before
    assert run("--check") == 0


def test_check_lists_what_has_changed(place, capsys):
    folder, run = place
    write_results(folder / "results")
    run()
    write_results(folder / "results", 1.2, 2, "b" * 40)
    assert run("--check") == 0
    write_results(folder / "results", 1.4, 3, "c" * 40, benchmarks=["Forward"])
    capsys.readouterr()
    assert run("--check") == 1
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 8
    assert lines[0] == "Forward, NumPy, float32: the README has 2, the newest results 1.4"


def test_check_without_numbers_or_results_fails(place, capsys):
    folder, run = place
    assert run("--check") == 1
    assert "no ratios" in capsys.readouterr().err
    write_results(folder / "results")
    assert run("--check") == 1
    assert "no number" in capsys.readouterr().out
