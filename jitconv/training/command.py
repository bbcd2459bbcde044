"""What ``jitconv train`` does, once its arguments are known to be well formed."""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import pathlib
import time
from collections.abc import Callable
from typing import Any

from .. import threads
from ..ahead import compile_all
from . import checkpoint, data, plot, rehearsal, replacing, zoo
from .checkpoint import Checkpoint, CheckpointError
from .data import DataError, Dataset
from .job import Job, RankedJob
from .optimizers import SGD, Adadelta, AdaGrad, Adam, Optimizer, RMSProp
from .progress import Progress, StopRequest
from .trainer import TEST_BATCH, Epoch, Step, Trainer

DEFAULTS: dict[str, Any] = {
    "model": "simple_convnet",
    "data": None,
    "epochs": 12,
    "batch_size": 100,
    "optimizer": "adam",
    "seed": 0,
    "dtype": "float32",
}

# The learning rates are PyTorch's defaults but for sgd and rmsprop, whose (0.001, 0.01) do worse here.
OPTIMIZERS: dict[str, tuple[Callable[[float], Optimizer], float]] = {
    "sgd": (lambda lr: SGD(lr, momentum=0.9), 0.01),
    "adagrad": (AdaGrad, 0.01),
    "rmsprop": (RMSProp, 0.001),
    "adadelta": (Adadelta, 1.0),
    "adam": (Adam, 0.001),
}

_FIXED = ("model", "dtype", "optimizer", "seed")  # a resumed training cannot change them
_IMAGES = (".png", ".svg", ".pdf")


class CommandError(Exception):
    """Ends the command with one line on stderr."""

    def __init__(self, message: str, status: int = 2) -> None:
        super().__init__(message)
        self.status = status


def _wrong(argument: str, message: object) -> CommandError:
    return CommandError(f"argument {argument}: {message}")


def _epochs(number: int) -> str:
    return f"{number} epoch{'s' * (number != 1)}"


def train(arguments: argparse.Namespace) -> int:
    """Run ``jitconv train``, and return its exit status.

    Raises
    ------
    CommandError
        If an argument, the data or a file does not fit; before the training starts wherever it can be known.
    ImportError
        If a package that training needs is not installed.
    """
    job = RankedJob() if arguments.data_parallel else Job()
    return job.run(lambda: _train(arguments, job))


def _train(arguments: argparse.Namespace, job: Job) -> int:
    options, saved = job.of_first(lambda: _prepared(arguments))
    if arguments.data:
        options["data"] = os.path.abspath(arguments.data)  # a rank's own
    dataset = _dataset(options)
    trainer = _trainer(options, dataset, saved, job)
    used = arguments.threads or job.threads()
    with threads.num_threads(used) if used else contextlib.nullcontext():
        return _run(arguments, options, dataset, trainer, job)


def _prepared(arguments: argparse.Namespace) -> tuple[dict[str, Any], Checkpoint | None]:
    """Return what is to be done, and the training to go on with, if all that can be known now fits."""
    available = threads.available_threads()
    if arguments.threads is not None and arguments.threads > available:
        raise _wrong(
            "--threads",
            f"must be at most {available}, the threads that Numba has here, got {arguments.threads}",
        )
    _check_files(arguments)
    Progress.check()
    if arguments.plot:
        plot.check()
    saved = _resumed(arguments)
    return _options(arguments, saved), saved


def _check_files(arguments: argparse.Namespace) -> None:
    """Refuse an output that could not be written, or would replace an input, before hours of training."""
    for name in ("data", "save", "resume", "plot"):
        given = getattr(arguments, name)
        if given == "":
            raise _wrong(f"--{name}", "the name is empty")
        if given is not None and ("\0" in given or (name != "data" and not _is_text(given))):
            raise _wrong(f"--{name}", f"the name {given!a} is not plain text")
    if arguments.plot and not arguments.plot.lower().endswith(_IMAGES):
        raise _wrong("--plot", f"the file's name must end in {', '.join(_IMAGES)}, got {arguments.plot!r}")
    used: dict[str, str] = {}
    for name in ("data", "resume", "save", "plot"):
        path = getattr(arguments, name)
        if path is None:
            continue
        target = os.path.realpath(path)
        other = used.setdefault(target, name)
        if name in ("save", "plot"):
            if other != name and (other, name) != ("resume", "save"):
                raise _wrong(f"--{name}", f"{path} is also the file of --{other}")
            _check_writable(f"--{name}", pathlib.Path(target))


def _is_text(name: str) -> bool:
    """Return whether a name can be printed, and given to libraries that take UTF-8."""
    return name.encode(errors="ignore") == name.encode(errors="surrogatepass")


def _check_writable(argument: str, path: pathlib.Path) -> None:
    if os.path.isdir(path):  # pathlib's raises where a name is too long
        raise _wrong(argument, f"{path} is a folder, expected a file")
    if not os.path.isdir(path.parent):
        raise _wrong(argument, f"the folder {path.parent} does not exist")
    try:
        replacing.check_writable(path)
    except OSError as error:
        raise _wrong(argument, f"{path} cannot be written: {error.strerror}") from None


def _resumed(arguments: argparse.Namespace) -> Checkpoint | None:
    if arguments.save or arguments.resume:
        checkpoint.check()
    if not arguments.resume:
        return None
    try:
        saved = checkpoint.load(arguments.resume)
    except CheckpointError as error:
        raise _wrong("--resume", error) from None
    if not _plausible(saved.options):
        raise _wrong("--resume", f"{arguments.resume}: not a file that `jitconv train --save` of this version wrote")
    for name in _FIXED:
        given = getattr(arguments, name)
        if given is not None and given != saved.options[name]:
            raise _wrong(
                f"--{name}",
                f"{arguments.resume} holds a training with --{name} {saved.options[name]}, got {given}",
            )
    return saved


def _plausible(options: dict[str, Any]) -> bool:
    """Return whether the options in a file are such that `_options` could have made them."""
    return (
        options.keys() == {*DEFAULTS, "lr"}
        and options["model"] in tuple(zoo.MODELS)
        and options["optimizer"] in tuple(OPTIMIZERS)
        and options["dtype"] in ("float32", "float64")
        and (options["data"] is None or isinstance(options["data"], str))
        and isinstance(options["lr"], float)
        and 0 < options["lr"] < math.inf
        and all(type(options[name]) is int and 0 <= options[name] < 2**31 for name in ("epochs", "batch_size", "seed"))
        and options["batch_size"] > 0
    )


def _options(arguments: argparse.Namespace, saved: Checkpoint | None) -> dict[str, Any]:
    """Return what this run does: what is given, else what the file says, else the default.

    `epochs` is the number at which the training ends.
    """
    given = {name: getattr(arguments, name) for name in (*DEFAULTS, "lr") if getattr(arguments, name) is not None}
    if arguments.data:
        given["data"] = os.path.abspath(arguments.data)
    options = (saved.options if saved else DEFAULTS) | given
    options.setdefault("lr", OPTIMIZERS[options["optimizer"]][1])
    if saved:
        done = saved.progress["epoch"]
        if "epochs" in given:
            options["epochs"] = done + given["epochs"]
        elif options["epochs"] <= done:
            raise _wrong(
                "--epochs",
                f"{arguments.resume} has finished {_epochs(done)}, as planned; --epochs N trains N more",
            )
    return options


def _dataset(options: dict[str, Any]) -> Dataset:
    try:
        return data.load(options["data"], options["dtype"])
    except DataError as error:
        raise _wrong("--data", error) from None


def _trainer(options: dict[str, Any], dataset: Dataset, saved: Checkpoint | None, job: Job) -> Trainer:
    name, shape = options["model"], dataset.image_shape
    if not zoo.fits(name, shape):
        fitting = ", ".join(one for one in zoo.MODELS if zoo.fits(one, shape)) or "none"
        raise _wrong(
            "--model",
            f"{name} takes larger images than the {shape[1]}x{shape[2]} pixels of the data; models that fit: {fitting}",
        )
    model = zoo.MODELS[name](dtype=options["dtype"], seed=options["seed"], input_shape=shape, classes=dataset.classes)
    trainer = Trainer(model, OPTIMIZERS[options["optimizer"]][0](options["lr"]), job.communicator)
    if saved:
        try:
            saved.restore(trainer)
        except ValueError as error:
            raise _wrong("--resume", f"it does not fit {name} and the data: {error}") from None
        if trainer.position and trainer.images != len(dataset.x):
            raise _wrong(
                "--data",
                f"the epoch to go on with is of {trainer.images} images, but there are {len(dataset.x)}",
            )
    return trainer


def _save(path: str | None, trainer: Trainer, options: dict[str, Any]) -> None:
    if path:
        try:
            checkpoint.save(path, trainer, options)
        except OSError as error:
            raise CommandError(f"argument --save: {path} could not be written: {error}", status=1) from None


def _introduce(options: dict[str, Any], dataset: Dataset, trainer: Trainer, job: Job) -> None:
    parameters = sum(array.size for array in trainer.model.parameters.values())
    batch, used = options["batch_size"], threads.get_num_threads()
    batches, each = f"batches of {batch}", f"{used} threads"
    if job.communicator is not None:
        batches = f"batches of {batch * job.size}, {batch} on each of {job.size} ranks"
        each = f"{used} thread{'s' * (used != 1)} on each"
    print(
        f"{options['model']}, {parameters:,} parameters, {options['dtype']}; "
        f"{len(dataset.x):,} images to train on, {len(dataset.x_test):,} to test on, "
        f"{dataset.classes} classes\n"
        f"{options['optimizer']}, lr {options['lr']:g}, {batches}, seed {options['seed']}, {each}",
        flush=True,
    )


def _run(arguments: argparse.Namespace, options: dict[str, Any], dataset: Dataset, trainer: Trainer, job: Job) -> int:
    progress = Progress(options["epochs"], len(dataset.x), trainer.position)
    stop = StopRequest(tells=job.first)
    if job.first:
        _introduce(options, dataset, trainer, job)

    def on_step(step: Step) -> None:
        if job.first:
            progress.step(step)
        if not math.isfinite(step.loss):
            raise CommandError(
                f"the loss became {step.loss} in epoch {step.epoch}: try a lower --lr than {options['lr']:g}",
                status=1,
            )
        obey()

    def on_epoch(epoch: Epoch) -> None:
        if job.first:
            progress.epoch(epoch)
            _save(arguments.save, trainer, options)
        obey()

    def obey() -> None:
        if job.any(stop.asked):
            raise KeyboardInterrupt

    if job.communicator is None:  # else the first rank of each node compiles, at the first step
        # Before Ctrl-C is taken for a wish to stop after a step: compiling can be stopped at once.
        jobs = rehearsal.training(trainer.model, trainer.optimizer, dataset, options["batch_size"], TEST_BATCH)
        compile_all(jobs, apart=True)
    start = time.perf_counter()
    try:
        with progress, stop:
            trainer.fit(
                dataset.x,
                dataset.labels,
                epochs=options["epochs"] - trainer.epoch,
                batch_size=options["batch_size"],
                seed=options["seed"],
                test=(dataset.x_test, dataset.labels_test),
                on_step=on_step,
                on_epoch=on_epoch,
                on_test_batch=obey if job.communicator is None else None,  # ranks may have unlike numbers of them
            )
    except KeyboardInterrupt:
        if job.size > 1 and stop.forced:
            raise  # this rank alone stands in the middle of a step
        trainer.average_statistics()
        return _interrupted(arguments, options, dataset, trainer, stop) if job.first else 130
    if not job.first:
        return 0
    seconds = time.perf_counter() - start
    accuracy = trainer.history[-1].accuracy
    print(f"test accuracy {accuracy:.1%} after {_epochs(trainer.epoch)}, {seconds:.1f} s")
    if arguments.save:
        print(f"saved to {arguments.save}")
    _plot(arguments.plot, options, trainer)
    return 0


def _interrupted(
    arguments: argparse.Namespace,
    options: dict[str, Any],
    dataset: Dataset,
    trainer: Trainer,
    stop: StopRequest,
) -> int:
    where = f"stopped in epoch {trainer.epoch + 1}, after {trainer.position:,} of {len(dataset.x):,} images"
    if not trainer.position:
        where = f"stopped after {_epochs(trainer.epoch)}"
    if stop.forced:
        print(f"{where}; not saved, since a step was cut short")
    elif arguments.save:
        _save(arguments.save, trainer, options)
        print(f"{where}; saved to {arguments.save}, to go on: jitconv train --resume {arguments.save}")
    else:
        print(f"{where}; not saved, since there was no --save")
    _plot(arguments.plot, options, trainer)
    return 130


def _plot(path: str | None, options: dict[str, Any], trainer: Trainer) -> None:
    if not path:
        return
    try:
        plot.draw(path, trainer, title=f"{options['model']}, {options['optimizer']}, lr {options['lr']:g}")
    except OSError as error:
        raise CommandError(f"argument --plot: {path} could not be written: {error}", status=1) from None
    print(f"plot in {path}")
