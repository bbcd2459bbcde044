"""Wrong lines for the command `jitconv`; `files.py` makes the files that they name."""

from __future__ import annotations

import os
from typing import NamedTuple

from jitconv.training.data import MNIST_FILES

FOLDER = "{folder}"


class Line(NamedTuple):
    """What follows `jitconv`, "{folder}" standing for the folder of files, and how the one line on stderr starts."""

    arguments: list[str]
    message: str

    def __str__(self) -> str:
        return f"{' '.join(self.arguments)!a}"[:90]

    def given(self, folder: os.PathLike[str]) -> list[str]:
        """Return the arguments with the folder in its place."""
        return [one.replace(FOLDER, str(folder)) for one in self.arguments]


def _train(*arguments, message, data="images.npz"):
    named = ["--data", f"{FOLDER}/{data}"] if data else []
    return Line(["train", *named, *arguments], f"jitconv train: error: {message}")


def _options(name, *values, rule):
    return [_train(name, value, message=f"argument {name}: {rule.format(value)}") for value in values]


INTEGER = "must be an integer from {} to 2147483647, got '{{}}'"
RATE = "must be a finite number above 0, got '{}'"
NO_NPZ = "expected an .npz file with arrays x and y, but it"
NOT_OURS = "a safetensors file, but not one that `jitconv train --save` wrote"
ANOTHER = "not a file that `jitconv train --save` of this version wrote"


def _data(name, rest):
    return _train(message=f"argument --data: {FOLDER}/{name}{rest}", data=name.partition("/")[0])


def _resume(name, rest):
    return _train("--resume", f"{FOLDER}/{name}", message=f"argument --resume: {FOLDER}/{name}: {rest}")


LINES = [
    *_options("--epochs", "0", "-1", "1.5", "two", "", "nan", "99999999999", rule=INTEGER.format(1)),
    *_options("--batch-size", "0", "-100", "1e3", "2147483648", rule=INTEGER.format(1)),
    *_options("--seed", "-1", "0.5", "seed", rule=INTEGER.format(0)),
    *_options("--threads", "0", "-2", "all", "1.0", rule=INTEGER.format(1)),
    *_options("--lr", "0", "-0.1", "nan", "inf", "1e400", "fast", "0,1", "1j", rule=RATE),
    *_options("--model", "resnet", "Simple_Convnet", "", rule="invalid choice: '{}' (choose from "),
    *_options("--optimizer", "adamw", "SGD", rule="invalid choice: '{}' (choose from "),
    *_options("--dtype", "float16", "int32", "f4", rule="invalid choice: '{}' (choose from "),
    *(
        Line(["train", name], f"jitconv train: error: argument {name}: expected one argument")
        for name in ("--data", "--epochs", "--lr", "--save", "--resume", "--plot", "--model")
    ),
    _train("--threads", "100000", message="argument --threads: must be at most "),
    *(_train(name, "", message=f"argument {name}: the name is empty") for name in ("--save", "--resume", "--plot")),
    _train("--data", "", message="argument --data: the name is empty", data=None),
    *(
        _train(name, "a\0b.png", message=f"argument {name}: the name 'a\\x00b.png' is not plain text")
        for name in ("--save", "--resume", "--plot", "--data")
    ),
    *(
        _train(name, "\udcff.png", message=f"argument {name}: the name '\\udcff.png' is not plain text")
        for name in ("--save", "--resume", "--plot")
    ),
    _train(
        "--plot", "plot.txt", message="argument --plot: the file's name must end in .png, .svg, .pdf, got 'plot.txt'"
    ),
    _train("--plot", "plot", message="argument --plot: the file's name must end in .png, .svg, .pdf, got 'plot'"),
    _train("--save", FOLDER, message=f"argument --save: {FOLDER} is a folder, expected a file"),
    _train("--save", f"{FOLDER}/none/w", message=f"argument --save: the folder {FOLDER}/none does not exist"),
    _train("--save", f"{FOLDER}/one.npz/w", message=f"argument --save: the folder {FOLDER}/one.npz does not exist"),
    _train("--plot", f"{FOLDER}/none/p.png", message=f"argument --plot: the folder {FOLDER}/none does not exist"),
    _train("--save", "a" * 300, message="argument --save: "),
    _train(
        "--save", f"{FOLDER}/images.npz", message=f"argument --save: {FOLDER}/images.npz is also the file of --data"
    ),
    _train("--save", "a.png", "--plot", "a.png", message="argument --plot: a.png is also the file of --save"),
    _train("--save", "/dev/null/w", message="argument --save: the folder /dev/null does not exist"),
    _data("missing.npz", ": expected a folder of MNIST or CIFAR-10 files, or an .npz file, but there is none"),
    _data("nothing", ": expected the four files of MNIST"),
    *(_data(f"{name}.npz", f": {NO_NPZ} cannot be read") for name in ("empty", "text", "cut", "encrypted", "objects")),
    _data("weights.safetensors", f": {NO_NPZ} cannot be read"),
    _data("one.npz", f": {NO_NPZ} is a single array"),
    _data("no_labels.npz", ": expected an array `y`, but the file holds x"),
    _data("nan.npz", ": `x` holds NaN or infinity"),
    _data("large.npz", ": `x` holds numbers that are too large for float32"),
    _data("many_labels.npz", ": labels must be integers from 0, fewer than there are images"),
    _data("no_images.npz", ": there are no images to train on"),
    *(
        _data(f"{name}/{MNIST_FILES[0]}", ": expected ")
        for name in ("mnist_cut", "mnist_long", "mnist_absurd", "mnist_no_pixels", "mnist_labels", "mnist_short")
    ),
    _data(f"mnist_gz/{MNIST_FILES[0]}.gz", ": expected 347892350895 bytes of images"),
    _data(f"mnist_missing/{MNIST_FILES[1]}", ": no such file (nor with .gz)"),
    _data("cifar_garbage/data_batch_1", ": expected a Python batch of CIFAR-10, but it cannot be read"),
    _data("cifar_command/data_batch_1", ": expected a Python batch of CIFAR-10, but it cannot be read: it asks for"),
    _resume("missing", "no such file; expected one that `jitconv train --save` wrote"),
    _resume("nothing", "no such file; expected one that `jitconv train --save` wrote"),
    _resume("images.npz", "expected a safetensors file, but it cannot be read"),
    *(
        _resume(f"{name}.safetensors", "expected a safetensors file, but it cannot be read")
        for name in ("empty", "text", "cut", "absurd")
    ),
    *(_resume(f"{name}.safetensors", NOT_OURS) for name in ("others", "deep", "infinite", "position")),
    *(_resume(f"{name}.safetensors", ANOTHER) for name in ("list_model", "huge_seed", "nan_rate", "no_options")),
    _train(
        "--resume",
        f"{FOLDER}/negative.safetensors",
        message="argument --resume: it does not fit simple_convnet and the data: `state` does not fit this optimizer",
    ),
    *(
        _train(
            "--resume",
            f"{FOLDER}/weights.safetensors",
            name,
            value,
            message=f"argument {name}: {FOLDER}/weights.safetensors holds a training with {name} {held}, got {value}",
        )
        for name, value, held in (
            ("--model", "lenet", "simple_convnet"),
            ("--dtype", "float64", "float32"),
            ("--optimizer", "sgd", "adam"),
            ("--seed", "3", "0"),
        )
    ),
    _train("--model", "vgg11", message="argument --model: vgg11 takes larger images than the 8x8 pixels of the data"),
    Line([], "jitconv: error: the following arguments are required: COMMAND"),
    Line(["learn"], "jitconv: error: argument COMMAND: invalid choice: 'learn' (choose from "),
    Line(["train", "--epoch", "3"], "jitconv: error: unrecognized arguments: --epoch 3"),
    Line(["train", "--two\nlines"], "jitconv: error: unrecognized arguments: --two lines"),
    Line(["train", "images.npz"], "jitconv: error: unrecognized arguments: images.npz"),
    Line(["info", "--all"], "jitconv: error: unrecognized arguments: --all"),
    Line(["info", "cpu"], "jitconv: error: unrecognized arguments: cpu"),
    *(
        Line(
            ["warmup", name, value], f"jitconv warmup: error: argument {name}: invalid choice: '{value}' (choose from "
        )
        for name, value in (
            ("--dtype", "float16"),
            ("--dtype", ""),
            ("--layout", "CHW"),
            ("--layout", "nchw"),
            ("--model", "resnet"),
        )
    ),
    Line(["warmup", "--model"], "jitconv warmup: error: argument --model: expected at least one argument"),
    Line(
        ["warmup", "--model", "lenet", "alexnet"],
        "jitconv warmup: error: argument --model: invalid choice: 'alexnet' (choose from ",
    ),
    Line(["warmup", "--lr", "1"], "jitconv: error: unrecognized arguments: --lr 1"),
]

# A few more times in a process of its own.
IN_A_PROCESS = [LINES[0], LINES[-1], *(line for line in LINES if "encrypted" in str(line) or "deep" in str(line))]
