"""jitconv train --data-parallel: what is told, saved and resumed, and how a job ends when a rank fails."""

from __future__ import annotations

import os
import pathlib
import platform
import signal
import subprocess
import sys

import numpy as np
import pytest
from launching import TIMEOUT, environment
from numpy.testing import assert_allclose
from safetensors.numpy import load_file

from jitconv.cli import main
from jitconv.training import checkpoint

HERE = pathlib.Path(__file__).parent


@pytest.fixture
def images(tmp_path):
    """Return the path of 62 images of 8x8 pixels, 12 of them to test on: class 1 is brighter on the left."""
    rng = np.random.default_rng(0)
    y = np.arange(62) % 2
    x = rng.uniform(0, 1, (62, 8, 8)) + y[:, None, None] * (np.arange(8) < 4)
    np.savez(tmp_path / "images.npz", x=x, y=y)
    return tmp_path / "images.npz"


@pytest.fixture
def train(launch, images):
    """Return a function that runs the command in a number of ranks."""

    def run(ranks, *arguments, before=("-m", "jitconv"), data=images):
        given = ("--data", data) if data else ()
        return launch(ranks, *before, "train", "--data-parallel", *given, *arguments)

    return run


def close(path, other):
    """Assert that two files hold the same training within rounding, in float64: Adam makes much of tiny gradients."""
    one, two = load_file(path), load_file(other)
    assert one.keys() == two.keys()
    for name, a in one.items():
        assert_allclose(a, two[name], rtol=1e-6, atol=1e-9, err_msg=name)
    progress = [checkpoint.load(file).progress for file in (path, other)]
    assert_allclose(*[[epoch[1:] for epoch in one.pop("history")] for one in progress], rtol=1e-6)
    assert_allclose(*[one.pop("loss_sum") for one in progress], rtol=1e-6)
    assert progress[0] == progress[1]


def test_ranks_train_the_network_that_one_process_trains(train, tmp_path, images, capsys):
    """deep_convnet, which has dropout: two epochs in two ranks, and two more in four; then one process."""
    save, plot = tmp_path / "ranks", tmp_path / "plot.png"
    network = ("--model", "deep_convnet", "--dtype", "float64")
    first = train(2, *network, "--epochs", 2, "--batch-size", 12, "--save", save)
    assert (first.returncode, first.stderr) == (0, "")
    lines = first.stdout.splitlines()
    assert len(lines) == 6
    assert lines[0].startswith("deep_convnet, ")
    assert lines[1].startswith("adam, lr 0.001, batches of 24, 12 on each of 2 ranks, seed 0, ")
    assert lines[1].endswith((" thread on each", " threads on each"))
    assert [line[:9] for line in lines[2:4]] == ["epoch 1/2", "epoch 2/2"]
    assert lines[4].startswith("test accuracy ")
    assert lines[5] == f"saved to {save}"
    more = ("--resume", save, "--batch-size", 6, "--epochs", 2, "--save", save, "--plot", plot)
    second = train(4, *more, data=None)
    assert (second.returncode, second.stderr) == (0, "")
    assert plot.stat().st_size
    alone = ["train", *network, "--data", str(images), "--batch-size", "24", "--epochs", "4"]
    assert main([*alone, "--save", str(tmp_path / "alone")]) == 0
    close(save, tmp_path / "alone")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["alone", "images.npz", "plot.png", "ranks"]


def one_line(done):
    """Return the only line on stderr, MPI's own apart."""
    lines = [line for line in done.stderr.splitlines() if line.startswith("jitconv")]
    assert len(lines) == 1, done.stderr
    assert "Traceback" not in done.stderr
    return lines[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--model", "resnet"), "argument --model: invalid choice: 'resnet' (choose from "),
        (("--save", "none/a"), "argument --save: the folder "),
        (("--model", "vgg11"), "argument --model: vgg11 takes larger images than the 8x8 pixels of the data"),
    ],
)
def test_what_all_ranks_find_wrong_is_told_once(train, arguments, message):
    done = train(2, *arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith(f"jitconv train: error: {message}")


def test_a_loss_that_is_not_finite_is_told_once(train, tmp_path):
    done = train(2, "--optimizer", "sgd", "--lr", "1e30", "--batch-size", 6, "--save", tmp_path / "w")
    assert done.returncode == 1
    assert one_line(done).startswith("jitconv train: error: the loss became ")
    assert not (tmp_path / "w").exists()


def test_an_unreadable_shard_ends_the_job(mpiexec, images, tmp_path):
    """Each rank has a file of its own; the second's is cut."""
    whole = images.read_bytes()
    (tmp_path / "0.npz").write_bytes(whole)
    (tmp_path / "1.npz").write_bytes(whole[: len(whole) // 2])
    command = [sys.executable, "-m", "jitconv", "train", "--data-parallel", "--save", str(tmp_path / "w")]
    numbered = 'exec "$@" --data "$FOLDER/${PMI_RANK:-$OMPI_COMM_WORLD_RANK}.npz"'
    done = subprocess.run(
        [*mpiexec(2), "sh", "-c", numbered, "sh", *command],
        capture_output=True, text=True, timeout=TIMEOUT, env=environment() | {"FOLDER": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 2
    assert one_line(done).startswith(
        f"jitconv train: error: rank 1 of 2 on {platform.node()}: argument --data: {tmp_path}/1.npz: expected an .npz "
        "file with arrays x and y, but it cannot be read: "
    )
    assert not (tmp_path / "w").exists()


@pytest.mark.parametrize(
    ("fault", "status", "message"),
    [
        ("exhaust", 1, "rank 1 of 2 on {node}: MemoryError: no room (failing.py, line "),
        ("crash", 1, "rank 1 of 2 on {node}: ZeroDivisionError: a fault of two lines (failing.py, line "),
    ],
)
def test_an_error_in_one_rank_ends_the_job(train, tmp_path, fault, status, message):
    save = tmp_path / "w"
    done = train(2, "--batch-size", 12, "--save", save, before=(HERE / "failing.py", fault, 1, 5))
    assert done.returncode == status
    assert one_line(done).startswith(f"jitconv train: error: {message.format(node=platform.node())}")
    assert checkpoint.load(save).progress["epoch"] == 1


@pytest.mark.parametrize("rank", [0, 2])
def test_a_killed_rank_ends_the_job(train, tmp_path, rank):
    """The process above it tells, and mpiexec ends the other ranks; the last checkpoint is whole."""
    save = tmp_path / "w"
    done = train(4, "--batch-size", 6, "--save", save, before=(HERE / "failing.py", "kill", rank, 5))
    assert done.returncode != 0
    assert one_line(done) == (
        f"jitconv train: error: rank {rank} of 4 on {platform.node()}: ended by signal 9 (Killed), "
        "as by the system when memory is out"
    )
    assert checkpoint.load(save).progress["epoch"] == 1


def test_ctrl_c_at_mpiexec_saves(mpiexec, images, tmp_path):
    save = tmp_path / "w"
    command = [*mpiexec(2), sys.executable, "-m", "jitconv", "train", "--data-parallel", "--data", str(images)]
    with subprocess.Popen(
        [*command, "--epochs", "100000", "--batch-size", "2", "--save", str(save)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(), start_new_session=True,
    ) as job:  # fmt: skip
        try:
            while not job.stdout.readline().startswith("epoch "):
                assert job.poll() is None
            job.send_signal(signal.SIGINT)
            out, err = job.communicate(timeout=TIMEOUT)
        finally:
            job.kill()
    last = out.splitlines()[-1]
    assert last.startswith("stopped ")
    assert last.endswith(f"; saved to {save}, to go on: jitconv train --resume {save}")
    assert err.count("stopping after this step") == 1
    assert checkpoint.load(save).progress["epoch"] >= 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, 'several ranks need mpi4py, which is missing: pip install "jitconv[mpi]"'),
        ("raise RuntimeError('none')", "several ranks need an MPI library: pip install mpich (none)"),
    ],
)
def test_what_is_missing_is_told(tmp_path, content, message):
    """Without mpi4py, and with it but no library of MPI: packages of that name that fail to be imported."""
    (tmp_path / "mpi4py").mkdir()
    (tmp_path / "mpi4py" / "__init__.py").touch()
    if content is not None:
        (tmp_path / "mpi4py" / "MPI.py").write_text(content)
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-m", "jitconv", "train", "--data-parallel"]
    own = environment() | {"PYTHONPATH": path}
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, env=own)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"jitconv train: error: {message}\n")
