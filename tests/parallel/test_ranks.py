"""Training in 2 and 4 ranks of MPI: what comes out is what one process computes, and the same bits every time."""

from __future__ import annotations

import numpy as np
import pytest
import scenarios
from numpy.testing import assert_allclose, assert_array_equal
from scenarios import BATCH, CLASSES, IMAGES, digest

from jitconv.layers.base import Part
from jitconv.training import SGD, Adam, Trainer, checkpoint, softmax_cross_entropy
from jitconv.training.ranks import share_of

EQUAL = ("plain", "synchronised", "synchronised_nhwc", "foreign", "stepwise", "resumed", "handed_over")


def parted(arrays):
    """Return the arrays of each scenario, by its name."""
    found = {}
    for name, a in arrays.items():
        scenario, _, own = name.partition("/")
        found.setdefault(scenario, {})[own] = a
    return found


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """Return what one process computes of every scenario, and the folder of its checkpoints."""
    folder = tmp_path_factory.mktemp("alone")
    return {one.__name__: one(None, folder) for one in scenarios.SCENARIOS if one.__name__ in EQUAL}, folder


@pytest.fixture(scope="module", params=[2, 4])
def ranks(request, launch, alone, tmp_path_factory):
    """Return what each rank computes of every scenario, in two runs, and the folder of the first's checkpoints."""
    runs = []
    for _ in range(2):
        folder = tmp_path_factory.mktemp("ranks")
        (folder / "stopped").write_bytes((alone[1] / "stopped").read_bytes())
        done = launch(request.param, "-m", "mpi4py", scenarios.__file__, folder)
        assert done.returncode == 0, done.stderr
        assert not done.stderr
        runs.append([parted(np.load(folder / f"{rank}.npz")) for rank in range(request.param)])
        folders = folder
    return runs, folders


@pytest.mark.parametrize("scenario", EQUAL)
def test_ranks_compute_what_one_process_does(ranks, alone, scenario):
    (run, _), _ = ranks
    expected = alone[0][scenario]
    for rank in run:
        assert rank[scenario].keys() == expected.keys()
        for name, a in expected.items():
            got = rank[scenario][name]
            assert got.dtype == a.dtype
            # Sums in another order, over some 5 steps: each rounds to 1e-7 of the largest terms, and Adam divides small
            # gradients by small roots.
            tolerance = {"rtol": 2e-3, "atol": 2e-5} if a.dtype == np.float32 else {"rtol": 1e-6, "atol": 1e-9}
            assert_allclose(got, a, **tolerance, err_msg=name)


def test_all_ranks_have_the_same(ranks):
    (run, _), _ = ranks
    for scenario in (*EQUAL, "local", "untracked", "drifting", "disagreeing"):
        assert len({digest(rank[scenario]) for rank in run}) == 1, scenario


def test_the_same_bits_from_run_to_run(ranks):
    one, two = ranks[0]
    for first, second in zip(one, two, strict=True):
        for scenario in set(first) - {"shares"}:  # whose weights are drawn anew
            assert digest(first[scenario]) == digest(second[scenario]), scenario


def test_one_process_goes_on_with_what_ranks_began(ranks, alone):
    _, folder = ranks
    trainer = Trainer(scenarios.normalised(), Adam(0.01))
    checkpoint.load(folder / "handed over").restore(trainer)
    assert (trainer.epoch, trainer.position) == (1, BATCH)
    for name, a in scenarios.fitted(trainer, None, epochs=1).items():
        assert_allclose(a, alone[0]["resumed"][name], rtol=1e-6, atol=1e-9, err_msg=name)


def parts_of(batch, size):
    return [slice(*share_of(len(batch), rank, size)[:2]) for rank in range(size)]


def emulated(size, model_of, tracked=True):
    """Return the network after training whose ranks are copies in this process, each with statistics of its own."""
    x, labels, _ = scenarios.images()
    models, optimizer = [model_of() for _ in range(size)], SGD(0.05)
    for epoch in range(2 if tracked else 1):
        order = np.random.default_rng((1 if tracked else 0, epoch)).permutation(IMAGES)
        for start in range(0, IMAGES, BATCH):
            batch = order[start : start + BATCH]
            for model, part in zip(models, parts_of(batch, size), strict=True):
                own = batch[part]
                for layer in (*model.layers, *model.layers[4].layers):
                    layer.part = Part(part.start, None)
                logits = model.forward(x[own])
                model.backward(softmax_cross_entropy(logits, labels[own], total=len(batch)).dlogits)
            for name, gradient in models[0].gradients.items():
                gradient[...] = sum(model.gradients[name].copy() for model in models)
            optimizer.update(models[0].parameters, models[0].gradients)
            for model in models[1:]:
                for name, a in model.parameters.items():
                    a[...] = models[0].parameters[name]
        for name in models[0].buffers:
            if "running" in name:
                mean = np.mean([model.buffers[name] for model in models], axis=0)
                for model in models:
                    model.buffers[name][...] = mean
            elif "tracked" in name:
                for model in models[1:]:
                    model.buffers[name][...] = models[0].buffers[name]
    return models[0].state()


def test_local_statistics(ranks):
    (run, _), _ = ranks
    expected = emulated(len(run), lambda: scenarios.normalised(sync=False))
    for name, a in expected.items():
        assert_allclose(run[0]["local"][name], a, rtol=1e-6, atol=1e-9, err_msg=name)
    assert not np.allclose(run[0]["local"]["1.running_var"], run[0]["synchronised"]["1.running_var"], rtol=1e-3)


def test_local_statistics_that_nobody_keeps(ranks):
    (run, _), _ = ranks

    def model():
        made = scenarios.normalised(sync=False)
        made.layers[1] = scenarios.BatchNorm2d(8, track_running_stats=False, dtype=np.float64)
        return made

    for name, a in emulated(len(run), model, tracked=False).items():
        assert_allclose(run[0]["untracked"][name], a, rtol=1e-6, atol=1e-9, err_msg=name)


def test_each_rank_reads_its_own_images(ranks):
    (run, _), _ = ranks
    x, _, _ = scenarios.images()
    order = np.random.default_rng((0, 0)).permutation(IMAGES)
    for step, start in enumerate(range(0, IMAGES, BATCH)):
        seen = [rank["shares"][f"own.{step}"] for rank in run]
        batch = order[start : start + BATCH]
        assert [len(part) for part in seen] == [len(batch[part]) for part in parts_of(batch, len(run))]
        assert_array_equal(np.concatenate(seen), x[batch])
    assert not len(seen[-1]) or len(run) == 2


def test_the_first_rank_decides_the_weights(ranks):
    (run, _), _ = ranks
    weights = [rank["shares"]["own.weight"] for rank in run]
    assert weights[0].shape == (CLASSES, 128)
    for other in weights[1:]:
        assert_array_equal(weights[0], other)


def test_threads_share_the_cores(ranks):
    import os

    import numba

    (run, _), _ = ranks
    cores, most = len(os.sched_getaffinity(0)), numba.config.NUMBA_DEFAULT_NUM_THREADS
    for rank in run:
        assert set(rank["shares"]["own.threads"]) == {min(most, max(1, cores // len(run)))}
        assert set(rank["shares"]["asked.threads"]) == {min(most, 2)}


def test_one_rank_compiles_what_is_kept(ranks):
    (run, _), _ = ranks
    first, *others = (list(rank["compiling"]["calls"]) for rank in run)
    kept, jobs, again, unkept = first
    assert (kept, again) == (0, 0)
    assert jobs == unkept > 5
    assert all(calls == [0, 0, jobs] for calls in others)


def test_ranks_that_do_not_agree(ranks):
    (run, _), _ = ranks
    *words, checksum, network = run[0]["disagreeing"]["told"]
    assert words == [
        "the ranks do not agree on seed: rank 1 has 7, rank 0 0",
        "the ranks do not agree on batch_size: rank 1 has 5, rank 0 6",
        "the ranks do not agree on the images: rank 1 has (50, 2, 8, 8) float32, rank 0 (50, 2, 8, 8) float64",
    ]
    assert checksum.startswith("the ranks do not agree on the checksum of the labels: rank 1 has ")
    assert "the ranks do not agree on the network: rank 1 has " in network
    assert "(4, 128) float64" in network
