"""The command jitconv train: every message, training on small files, stopping and going on."""

from __future__ import annotations

import signal
import subprocess
import sys

import numba
import numpy as np
import pytest
from matplotlib.image import imread
from safetensors.numpy import load_file, save_file

from jitconv.cli import main
from jitconv.training import Adam, Trainer, checkpoint, zoo


@pytest.fixture
def images(tmp_path):
    """Return the path of 60 images of 8x8 pixels, 12 of them to test on: class 1 is brighter on the left."""
    rng = np.random.default_rng(0)
    y = np.arange(60) % 2
    x = rng.uniform(0, 1, (60, 8, 8)) + y[:, None, None] * (np.arange(8) < 4)
    np.savez(tmp_path / "images.npz", x=x, y=y)
    return str(tmp_path / "images.npz")


@pytest.fixture
def run(images, capsys):
    """Return a function that runs ``jitconv train`` on the small images: status, stdout, stderr."""

    def run_train(*arguments, data=images):
        given = ["train", *(("--data", data) if data else ()), *map(str, arguments)]
        try:
            status = main([*given, "--batch-size", "12"] if "--batch-size" not in given else given)
        except SystemExit as end:
            status = end.code
        output = capsys.readouterr()
        return status, output.out, output.err

    return run_train


def test_train(run, tmp_path):
    save, plot = tmp_path / "weights.safetensors", tmp_path / "plot.png"
    status, out, err = run("--epochs", 3, "--save", save, "--plot", plot)
    assert status == 0
    lines = out.splitlines()
    assert lines[0] == ("simple_convnet, 13,082 parameters, float32; 48 images to train on, 12 to test on, 2 classes")
    assert lines[1].startswith("adam, lr 0.001, batches of 12, seed 0, ")
    for number, line in enumerate(lines[2:5], 1):
        assert line.startswith(f"epoch {number}/3  loss ")
        assert "  test accuracy " in line
        assert line.endswith(" images/s")
    assert lines[5].startswith("test accuracy ")
    assert lines[6:] == [f"saved to {save}", f"plot in {plot}"]
    assert load_file(save)["0.weight"].shape == (30, 1, 5, 5)
    assert imread(plot).ndim == 3
    assert "Traceback" not in err


def test_it_learns(run):
    _, out, _ = run("--epochs", 15, "--lr", "0.003")
    assert "test accuracy 100.0% after 15 epochs" in out


@pytest.mark.parametrize("optimizer", ["sgd", "adagrad", "rmsprop", "adadelta", "adam"])
def test_every_optimizer_lowers_the_loss(run, tmp_path, optimizer):
    save = tmp_path / "w.safetensors"
    assert run("--epochs", 4, "--optimizer", optimizer, "--save", save)[0] == 0
    losses = [loss for _, loss, _ in checkpoint.load(save).progress["history"]]
    assert losses[-1] < losses[0]


def test_same_seed_same_bits_whatever_the_threads(run, tmp_path):
    names = {"one": ("--threads", 1), "two": ("--threads", 2), "other": ("--seed", 1)}
    for name, options in names.items():
        assert run("--epochs", 2, "--save", tmp_path / name, *options)[0] == 0
    one, two, other = ((tmp_path / name).read_bytes() for name in names)
    assert one == two
    assert one != other


@pytest.mark.parametrize("model", ["simple_convnet", "deep_convnet"])
def test_two_epochs_and_two_more_are_four(run, tmp_path, model):
    assert run("--model", model, "--epochs", 4, "--save", tmp_path / "whole")[0] == 0
    assert run("--model", model, "--epochs", 2, "--save", tmp_path / "half")[0] == 0
    resumed = "--resume", tmp_path / "half", "--save", tmp_path / "half"
    assert run("--epochs", 2, *resumed, data=None)[0] == 0  # the data are those of the file
    assert (tmp_path / "whole").read_bytes() == (tmp_path / "half").read_bytes()


def interrupting(monkeypatch, number, interrupt):
    """Call `interrupt` after step `number`, inside Trainer.step."""
    steps, step = [], Trainer.step

    def interrupted(self, x, labels):
        loss = step(self, x, labels)
        steps.append(loss)
        if len(steps) == number:
            interrupt()
        return loss

    monkeypatch.setattr(Trainer, "step", interrupted)


def raise_interrupt():
    raise KeyboardInterrupt


@pytest.fixture
def ctrl_c_raises():
    """SIGINT as Python has it by itself: a shell that runs the tests in the background lets it be ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c_raises")
def test_ctrl_c_saves_and_goes_on_exactly(run, tmp_path, monkeypatch):
    assert run("--epochs", 3, "--save", tmp_path / "whole")[0] == 0
    save = tmp_path / "stopped"
    with monkeypatch.context() as patch:
        interrupting(patch, 6, lambda: signal.raise_signal(signal.SIGINT))
        status, out, err = run("--epochs", 3, "--save", save)
    assert status == 130
    assert "stopping after this step (Ctrl-C again: at once, without saving)" in err
    assert out.splitlines()[-1] == (
        f"stopped in epoch 2, after 24 of 48 images; saved to {save}, to go on: jitconv train --resume {save}"
    )
    status, out, _ = run("--resume", save, "--save", save, data=None)  # the epochs that were planned
    assert status == 0
    assert "after 3 epochs" in out
    assert save.read_bytes() == (tmp_path / "whole").read_bytes()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_interrupt_from_within_a_step_saves(run, tmp_path, monkeypatch):
    save = tmp_path / "stopped"
    interrupting(monkeypatch, 5, raise_interrupt)
    status, out, _ = run("--epochs", 3, "--save", save)
    assert status == 130
    assert f"stopped after 1 epoch; saved to {save}" in out
    assert checkpoint.load(save).progress["epoch"] == 1


def test_a_second_ctrl_c_stops_at_once_and_saves_nothing_more(run, tmp_path, monkeypatch):
    save = tmp_path / "stopped"

    def twice():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    interrupting(monkeypatch, 6, twice)
    status, out, _ = run("--epochs", 3, "--save", save)
    assert status == 130
    assert "stopped in epoch 2, after 12 of 48 images; not saved, since a step was cut short" in out
    assert checkpoint.load(save).progress["position"] == 0  # as after the first epoch


def test_ctrl_c_without_save(run, monkeypatch):
    interrupting(monkeypatch, 1, raise_interrupt)
    status, out, _ = run()
    assert status == 130
    assert "not saved, since there was no --save" in out


def test_ctrl_c_before_the_training(run, monkeypatch):
    monkeypatch.setattr("jitconv.training.data.load", lambda *arguments: raise_interrupt())
    assert run() == (130, "", "jitconv train: stopped\n")


def test_a_loss_that_is_not_finite_ends_the_training(run, tmp_path):
    save = tmp_path / "w.safetensors"
    status, _, err = run("--optimizer", "sgd", "--lr", "1e30", "--save", save)
    assert status == 1
    assert err.startswith("jitconv train: error: the loss became ")
    assert "try a lower --lr than 1e+30" in err
    assert not save.exists()


def one_line(result):
    status, out, err = result
    assert status == 2
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("jitconv train: error: ")
    return err.removeprefix("jitconv train: error: ").rstrip()


RULE = "must be an integer from {} to 2147483647, got {!r}"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--epochs", "0"], f"argument --epochs: {RULE.format(1, '0')}"),
        (["--epochs", "two"], f"argument --epochs: {RULE.format(1, 'two')}"),
        (["--batch-size", "-1"], f"argument --batch-size: {RULE.format(1, '-1')}"),
        (["--seed", "-3"], f"argument --seed: {RULE.format(0, '-3')}"),
        (["--threads", "0"], f"argument --threads: {RULE.format(1, '0')}"),
        (["--lr", "nan"], "argument --lr: must be a finite number above 0, got 'nan'"),
        (["--lr", "0"], "argument --lr: must be a finite number above 0, got '0'"),
        (["--lr", "inf"], "argument --lr: must be a finite number above 0, got 'inf'"),
        (["--lr", "fast"], "argument --lr: must be a finite number above 0, got 'fast'"),
        (["--plot", "p.txt"], "argument --plot: the file's name must end in .png, .svg, .pdf, got 'p.txt'"),
        (["--save", ""], "argument --save: the name is empty"),
    ],
)
def test_wrong_arguments(run, arguments, message):
    assert one_line(run(*arguments)) == message


def test_unknown_arguments(run):
    assert run("--epoch", 3) == (2, "", "jitconv: error: unrecognized arguments: --epoch 3\n")


@pytest.mark.parametrize("argument", ["--model", "--optimizer", "--dtype"])
def test_wrong_choices(run, argument):
    assert one_line(run(argument, "resnet")).startswith(f"argument {argument}: invalid choice: 'resnet' (choose from ")


def test_too_many_threads(run):
    most = numba.config.NUMBA_NUM_THREADS
    message = f"argument --threads: must be at most {most}, the threads that Numba has here, got {most + 97}"
    assert one_line(run("--threads", most + 97)) == message


def test_files_are_checked_before_the_training(run, tmp_path, images, monkeypatch):
    monkeypatch.setattr(Trainer, "step", lambda *arguments: pytest.fail("training began"))
    nowhere = tmp_path / "none"
    for argument in ("--save", "--plot"):
        message = one_line(run(argument, nowhere / "a.png"))
        assert message == f"argument {argument}: the folder {nowhere} does not exist"
        below_a_file = f"{images}/a.png"
        assert one_line(run(argument, below_a_file)) == f"argument {argument}: the folder {images} does not exist"
    (tmp_path / "folder.png").mkdir()
    folder = tmp_path / "folder.png"
    for argument in ("--save", "--plot"):
        assert one_line(run(argument, folder)) == f"argument {argument}: {folder} is a folder, expected a file"
    assert one_line(run("--save", images)) == f"argument --save: {images} is also the file of --data"
    same = tmp_path / "a.png"
    assert one_line(run("--save", same, "--plot", same)) == f"argument --plot: {same} is also the file of --save"

    def read_only(*arguments, **options):
        raise PermissionError(13, "Permission denied")

    too_long = tmp_path / ("a" * 300)
    assert one_line(run("--save", too_long)).endswith("a cannot be written: File name too long")
    monkeypatch.setattr("pathlib.Path.mkdir", read_only)
    message = f"argument --save: {tmp_path}/a cannot be written: Permission denied"
    assert one_line(run("--save", tmp_path / "a")) == message


def test_data_that_are_not_there(run, tmp_path):
    message = one_line(run(data=str(tmp_path / "none")))
    assert message.startswith(f"argument --data: {tmp_path}/none: expected a folder of MNIST or CIFAR-10 files")
    (tmp_path / "cut.npz").write_bytes(b"PK")
    assert "cut.npz: expected an .npz file with arrays x and y" in one_line(run(data=str(tmp_path / "cut.npz")))


def test_a_network_that_does_not_fit_the_data(run):
    message = one_line(run("--model", "vgg11"))
    assert message == (
        "argument --model: vgg11 takes larger images than the 8x8 pixels of the data; "
        "models that fit: simple_convnet, deep_convnet, vgg_cifar"
    )


@pytest.fixture
def saved(run, tmp_path):
    """Return the path of a training of one epoch."""
    path = tmp_path / "saved.safetensors"
    assert run("--epochs", 1, "--save", path)[0] == 0
    return path


@pytest.mark.parametrize(
    ("arguments", "held"),
    [
        (("--model", "lenet"), "--model simple_convnet, got lenet"),
        (("--dtype", "float64"), "--dtype float32, got float64"),
        (("--optimizer", "sgd"), "--optimizer adam, got sgd"),
        (("--seed", 5), "--seed 0, got 5"),
    ],
)
def test_resuming_another_training(run, saved, arguments, held):
    message = one_line(run("--resume", saved, *arguments))
    assert message == f"argument {arguments[0]}: {saved} holds a training with {held}"


def test_resuming_a_finished_training(run, saved):
    message = f"argument --epochs: {saved} has finished 1 epoch, as planned; --epochs N trains N more"
    assert one_line(run("--resume", saved)) == message


def test_resuming_with_another_rate_and_batch(run, saved):
    status, out, _ = run("--resume", saved, "--epochs", 1, "--lr", "0.5", "--batch-size", "6")
    assert status == 0
    assert "adam, lr 0.5, batches of 6" in out


def test_resuming_with_other_data(run, saved, tmp_path):
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "other.npz", x=rng.uniform(0, 1, (30, 3, 8, 8)), y=np.arange(30) % 3)
    message = one_line(run("--resume", saved, "--epochs", 1, data=str(tmp_path / "other.npz")))
    assert message.startswith("argument --resume: it does not fit simple_convnet and the data: ")
    assert "'0.weight' is (30, 1, 5, 5) float32, expected (30, 3, 5, 5) float32" in message


def test_resuming_an_epoch_with_fewer_images(run, tmp_path, monkeypatch):
    save = tmp_path / "stopped"
    with monkeypatch.context() as patch:
        interrupting(patch, 2, lambda: signal.raise_signal(signal.SIGINT))
        run("--save", save)
    np.savez(tmp_path / "fewer.npz", x=np.zeros((30, 8, 8)), y=np.arange(30) % 2)
    message = one_line(run("--resume", save, data=str(tmp_path / "fewer.npz")))
    assert message == "argument --data: the epoch to go on with is of 48 images, but there are 24"


def test_resuming_what_is_no_checkpoint(run, tmp_path, images):
    missing = tmp_path / "none"
    expected = "no such file; expected one that `jitconv train --save` wrote"
    assert one_line(run("--resume", missing)) == f"argument --resume: {missing}: {expected}"
    assert one_line(run("--resume", images)).startswith(
        f"argument --resume: {images}: expected a safetensors file, but it cannot be read: "
    )
    other = tmp_path / "other.safetensors"
    save_file({"weight": np.zeros(3)}, other)
    message = one_line(run("--resume", other))
    assert message.endswith("a safetensors file, but not one that `jitconv train --save` wrote")


def test_resuming_options_of_another_version(run, saved):
    loaded = checkpoint.load(saved)
    trainer = Trainer(zoo.simple_convnet(input_shape=(1, 8, 8), classes=2), Adam())
    loaded.restore(trainer)
    for change in ({"model": "resnet"}, {"lr": "high"}, {"batch_size": 0}, {"data": 3}, {"more": 1}):
        checkpoint.save(saved, trainer, loaded.options | change)
        message = one_line(run("--resume", saved))
        assert message.endswith("not a file that `jitconv train --save` of this version wrote")


@pytest.mark.parametrize(
    ("package", "arguments"),
    [
        ("tqdm", ()),
        ("safetensors", ("--save", "w.safetensors")),
        ("matplotlib", ("--plot", "p.png")),
        ("mlxtend", ()),
    ],
)
def test_packages_that_are_missing(run, monkeypatch, tmp_path, package, arguments):
    monkeypatch.chdir(tmp_path)
    for name in [name for name in sys.modules if name.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    message = one_line(run(*arguments, data=None))
    assert message.endswith(f'need {package}, which is missing: pip install "jitconv[train]"')


def test_training_imports_without_the_extra():
    """Base dependencies only: what `--save`, `--plot` and the bar need is not imported before it is used."""
    code = (
        "import sys\n"
        "for name in ('tqdm', 'safetensors', 'matplotlib', 'mlxtend'): sys.modules[name] = None\n"
        "from jitconv.training import SGD, Trainer, zoo\n"
        "import jitconv.cli\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
