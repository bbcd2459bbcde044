"""The cost model of docs/scaling.md: closed forms, limits and what must grow with what."""

from __future__ import annotations

import itertools
import json
import math
import pathlib
import sys

import pytest

# The scripts of asv_benchmarks/ are no part of the package.
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent.parent / "asv_benchmarks"))

import scaling
import scaling_runs
import scaling_work
from scaling_model import (
    ALGORITHMS,
    Block,
    Bucket,
    Link,
    Node,
    Settings,
    Work,
    allreduce_seconds,
    buckets_of,
    slowdown,
    step_of,
    strong_scaling,
    weak_scaling,
)

DOCUMENT = pathlib.Path(__file__).resolve().parent.parent.parent / "docs" / "scaling.md"
NODES = tuple(2**i for i in range(11))
LINK = Link(latency=1e-5, bandwidth=1e9)
NODE = Node(cores=2, memory_bandwidth=2e10)
IDEAL = Link(0.0, math.inf), Node(1, math.inf)
BLOCKS = (Block(8_000_000, 1e6), Block(2_000_000, 4e6), Block(400_000, 5e6))
WORK = Work(step=1e-4, forward=5e-4, backward=1e-3, update=2e-3, traffic=1e6, blocks=BLOCKS)


@pytest.fixture(params=ALGORITHMS)
def algorithm(request):
    """Return each way to sum arrays."""
    return request.param


def test_one_rank_sends_nothing(algorithm):
    assert allreduce_seconds(1e9, 1, LINK, NODE, algorithm) == 0
    step = step_of(WORK, 10, 1, LINK, NODE, Settings(algorithm))
    assert step.communication == step.waiting == 0
    assert step.total == pytest.approx(1e-4 + 10 * 1.5e-3 + 2e-3)


def test_closed_forms():
    fast = Node(1, math.inf)
    # 1 GB over 1 GB/s: two ranks swap halves twice; of four each moves three quarters twice.
    assert allreduce_seconds(1e9, 2, Link(0, 1e9), fast, "rabenseifner") == pytest.approx(1.0)
    assert allreduce_seconds(1e9, 4, Link(0, 1e9), fast, "ring") == pytest.approx(1.5)
    # Latency alone: 2 log2(8) and 2 (8 - 1) messages.
    assert allreduce_seconds(0, 8, LINK, fast, "rabenseifner") == pytest.approx(6e-5)
    assert allreduce_seconds(0, 8, LINK, fast, "ring") == pytest.approx(14e-5)
    # Sums alone: memory moves three times half of 1 GB at 20 GB/s.
    assert allreduce_seconds(1e9, 2, Link(0, math.inf), NODE, "ring") == pytest.approx(0.075)
    # Six ranks are four, and two that hand over their array first and get the sum last.
    four = allreduce_seconds(1e6, 4, LINK, NODE)
    assert allreduce_seconds(1e6, 6, LINK, NODE) == pytest.approx(four + 2e-5 + 2e-3 + 3e6 / 2e10)


def test_two_ranks_are_the_same_in_both():
    assert allreduce_seconds(1e6, 2, LINK, NODE, "ring") == allreduce_seconds(1e6, 2, LINK, NODE, "rabenseifner")


def test_it_grows_with_ranks_and_bytes_and_latency(algorithm):
    times = [allreduce_seconds(1e7, p, LINK, NODE, algorithm) for p in NODES]
    assert times == sorted(times)
    assert allreduce_seconds(2e7, 8, LINK, NODE, algorithm) > times[3]
    assert allreduce_seconds(1e7, 8, LINK._replace(latency=2e-5), NODE, algorithm) > times[3]
    assert allreduce_seconds(1e7, 8, LINK._replace(bandwidth=2e9), NODE, algorithm) < times[3]


def test_bandwidth_has_a_limit(algorithm):
    """However many ranks there are, each moves less than twice the array."""
    link, node = Link(0.0, 1e9), Node(1, math.inf)
    assert allreduce_seconds(1e9, 2**20, link, node, algorithm) == pytest.approx(2.0, rel=1e-5)


@pytest.mark.parametrize(("ranks", "name"), [(0, "ranks"), (2, "algorithm")])
def test_other_arguments_are_refused(ranks, name):
    with pytest.raises(ValueError, match=name):
        allreduce_seconds(1.0, ranks, LINK, NODE, "rabenseifner" if ranks < 1 else "tree")


def test_buckets():
    assert buckets_of(BLOCKS, 1) == [Bucket(8_000_000, 0.1), Bucket(2_000_000, 0.5), Bucket(400_000, 1.0)]
    assert buckets_of(BLOCKS, 9_000_000) == [Bucket(10_000_000, 0.5), Bucket(400_000, 1.0)]
    assert buckets_of(BLOCKS, 10**9) == [Bucket(10_400_000, 1.0)]
    assert buckets_of((), 1) == []
    assert WORK.gradient_bytes == 10_400_000


@pytest.mark.parametrize("ranks", [2, 8, 1024])
def test_overlap_lies_between_its_limits(ranks):
    apart = step_of(WORK, 10, ranks, LINK, NODE, Settings(overlap=False))
    over = step_of(WORK, 10, ranks, LINK, NODE, Settings(overlap=True, bucket_bytes=1))
    assert apart.waiting == pytest.approx(apart.communication)
    assert over.waiting < over.communication
    assert over.total > max(over.compute, over.communication)
    # What is hidden is no more than backward.
    assert over.communication - over.waiting <= 10 * WORK.backward


def test_overlap_of_two_buckets_by_hand():
    # Forward 10 s, backward 10 s; the buckets are ready at 12 and 20 s, and take 4 and 2 s: 16 and 22 s.
    work = Work(0.0, 1.0, 1.0, 5.0, 0.0, (Block(4, 2.0), Block(2, 8.0)))
    step = step_of(work, 10, 2, Link(0.0, 1.0), Node(1, math.inf), Settings(bucket_bytes=1))
    assert step.compute == pytest.approx(25.0)
    assert step.communication == pytest.approx(6.0)
    assert step.waiting == pytest.approx(2.0)
    assert step.total == pytest.approx(27.0)


def test_a_perfect_network_costs_nothing(algorithm):
    for row in weak_scaling(WORK, 64, NODES, *IDEAL, Settings(algorithm)):
        assert row.efficiency == pytest.approx(1.0)
        assert row.images_per_second == pytest.approx(row.nodes * 64 / (1e-4 + 64 * 1.5e-3 + 2e-3))


def test_weak_scaling(algorithm):
    rows = weak_scaling(WORK, 64, NODES, LINK, NODE, Settings(algorithm))
    efficiencies = [row.efficiency for row in rows]
    assert efficiencies[0] == 1
    assert efficiencies == sorted(efficiencies, reverse=True)
    assert {row.batch for row in rows} == {64}


def test_strong_scaling():
    rows = strong_scaling(WORK, 256, NODES, LINK, NODE)
    assert [row.nodes for row in rows] == [p for p in NODES if p <= 256]
    assert [row.batch for row in rows] == [256 // row.nodes for row in rows]
    assert rows[0].efficiency == 1
    assert all(a.efficiency > b.efficiency for a, b in itertools.pairwise(rows))
    alone = rows[0].images_per_second
    for row in rows:
        assert row.images_per_second == pytest.approx(alone * row.nodes * row.efficiency)
    uneven = strong_scaling(WORK, 256, (3,), *IDEAL)[0]
    assert uneven.batch == 86


def test_without_a_cost_of_each_step_a_perfect_network_shares_without_loss():
    work = WORK._replace(step=0.0, update=0.0)
    assert all(row.efficiency == pytest.approx(1.0) for row in strong_scaling(work, 1024, NODES, *IDEAL))


def test_ranks_of_a_node_share_its_cores_and_its_memory():
    assert slowdown(WORK, NODE, 1, 2) == 1
    assert slowdown(WORK, NODE, 2, 1) == 1
    assert slowdown(WORK, NODE, 4, 1) == 2
    # 3 MB in 1.5 ms are 2 GB/s a rank.
    hungry = WORK._replace(traffic=3e6)
    assert slowdown(hungry, Node(64, 4e9), 2, 1) == pytest.approx(1.0)
    assert slowdown(hungry, Node(64, 4e9), 6, 1) == pytest.approx(3.0)


@pytest.mark.parametrize(
    ("name", "parameters", "last"),
    [("simple_convnet", 433_890, 1_010), ("vgg_cifar", 1_147_978, 2_570), ("vgg11", 132_863_336, 4_097_000)],
)
def test_gradients_of_the_networks(name, parameters, last):
    blocks, traffic = scaling_work.shape_of(name)
    assert sum(block.bytes for block in blocks) == 4 * parameters
    assert blocks[0].bytes == 4 * last  # those of the last layer are there first
    assert all(block.flops > 0 for block in blocks)
    assert traffic > 0


def test_numbers_of_three_digits():
    assert [scaling_runs.three_digits(number) for number in (0, 0.01234, 1.0, 99.96, 1234, 31_693_101)] == [
        "0", "0.0123", "1.00", "100.0", "1,230", "31,700,000"
    ]  # fmt: skip


def test_products_of_a_network():
    # simple_convnet: 30 kernels of 5x5 on 24x24 pixels, 4320 to 100, 100 to 10; two gradients but for the first layer.
    blocks, _ = scaling_work.shape_of("simple_convnet")
    assert [block.flops for block in blocks] == [2 * 2 * 100 * 10, 2 * 2 * 4320 * 100, 2 * 24 * 24 * 25 * 30]


def run(monkeypatch, *options):
    monkeypatch.setattr("sys.argv", ["scaling.py", *map(str, options)])
    scaling.main()


def test_the_document_is_what_would_be_written(monkeypatch, tmp_path):
    text = DOCUMENT.read_text(encoding="utf-8")
    document = tmp_path / "scaling.md"
    document.write_text(scaling.between(text, "predictions", lambda _: "old"), encoding="utf-8")
    run(monkeypatch, "--document", document)
    assert document.read_text(encoding="utf-8") == text


def test_a_document_without_marks_is_refused(monkeypatch, tmp_path):
    (document := tmp_path / "other.md").write_text("# Other\n")
    with pytest.raises(ValueError, match="the document has no marks for predictions"):
        run(monkeypatch, "--model", "vgg_cifar", "--document", document)
    assert document.read_text() == "# Other\n"


def test_tables_and_plot(capsys, monkeypatch, tmp_path):
    pytest.importorskip("matplotlib")
    path = tmp_path / "scaling.png"
    run(monkeypatch, "--plot", path, "--model", "vgg_cifar", "--nodes", 1, 1024)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" | ")[0] for line in lines if line.startswith("| 1")] == ["| 1", "| 1,024"] * 2
    assert sum(line.startswith("| vgg_cifar | 4.6 MB |") for line in lines) == 1
    content = path.read_bytes()
    assert content.startswith(b"\x89PNG")
    assert len(content) < 100_000


def test_options_change_the_parameters(capsys, monkeypatch):
    def efficiency(*options):
        run(monkeypatch, "--model", "vgg_cifar", "--batch", 512, *options)
        line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("| 64 |"))
        return int(line.partition("(")[2].partition("%")[0])

    slow = ["--bandwidth", "0.1", "--latency", "50"]
    base = efficiency(*slow)
    assert 0 < base < 90
    assert efficiency("--bandwidth", "1", "--latency", "50") > base
    assert efficiency(*slow, "--no-overlap") < base
    assert efficiency(*slow, "--batch", "2048") > base
    assert efficiency(*slow, "--algorithm", "ring") < base
    assert efficiency(*slow, "--cores", "32") < base
    assert efficiency(*slow, "--seconds", "0.1") > base


def test_a_run_is_held_against_its_prediction(capsys, monkeypatch, tmp_path):
    """Sums as fast as the model has them: the link is found again, and so is the step."""
    node = Node(2, 1e10)
    link = Link(5e-6, 2e9)
    runs = []
    for ranks in (1, 2):
        sums = {count: allreduce_seconds(count, ranks, link, node) for count in scaling_runs.SUMS}
        found = {"model": "vgg_cifar", "ranks": ranks, "threads": 1, "batch": 64, "alone": 0.1, "together": 0.1}
        runs.append(found | {"allreduce": sums})
    found = scaling_runs.link_of(json.loads(json.dumps(runs[1])), node)
    assert found.latency == pytest.approx(link.latency, rel=0.01)
    assert found.bandwidth == pytest.approx(link.bandwidth, rel=0.01)
    path = tmp_path / "runs.json"
    path.write_text(json.dumps(runs))
    monkeypatch.setattr(scaling, "measure_memory", lambda threads: node.memory_bandwidth)
    run(monkeypatch, "--measured", path, "--cores", 2)
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| vgg_cifar")]
    assert len(rows) == 2
    assert rows[0] == "| vgg_cifar | 1 | 64 | 100 ms | 100 ms | 100 ms | 100 ms | 640 | 1.00 |"
    assert rows[1].startswith("| vgg_cifar | 2 | 128 | ")


def test_a_run_of_one_rank_is_needed():
    with pytest.raises(ValueError, match="vgg_cifar must be run on one rank as well"):
        scaling_runs.table([{"model": "vgg_cifar", "ranks": 2}], NODE, Settings())
