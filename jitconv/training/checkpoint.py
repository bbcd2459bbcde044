"""Saving a training to a safetensors file, and going on from it exactly.

The tensors are the network's parameters and buffers under their own names ("0.weight"), the optimizer's state
under "optimizer." and the losses so far as "history.step_losses"; the metadata hold the rest as JSON. The
same training gives the same file, byte for byte.
"""

from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from ..layers.base import Array
from . import checks
from .extras import needs_extra
from .replacing import replacing
from .sequential import Sequential
from .trainer import Epoch, Trainer

_KEY = "jitconv"  # of the metadata
_OPTIMIZER = "optimizer."
_LOSSES = "history.step_losses"


class CheckpointError(ValueError):
    """A file of weights is missing or damaged, or belongs to something else; the message names it."""


class Checkpoint(NamedTuple):
    """What a file holds."""

    model: dict[str, Array]
    optimizer: dict[str, Array]
    step_losses: list[float]
    options: dict[str, Any]
    progress: dict[str, Any]  # where the training stands, see `_checked_progress`

    def restore(self, trainer: Trainer) -> None:
        """Put a trainer, its network and its optimizer into the saved state.

        Raises
        ------
        ValueError
            If the file is of another network or optimizer; then nothing is changed.
        """
        model = _sequential(trainer)
        checks.same_state(self.model, model.parameters | model.buffers, "network")
        trainer.optimizer.load_state(self.optimizer, model.parameters)
        model.load_state(self.model)
        for name in ("epoch", "position", "images", "loss_sum"):
            setattr(trainer, name, self.progress[name])
        trainer.step_losses = list(self.step_losses)
        trainer.history = [Epoch(number, loss, accuracy, None) for number, loss, accuracy in self.progress["history"]]


def _sequential(trainer: Trainer) -> Sequential:
    checks.kind_of(trainer, "trainer", Trainer, "a Trainer")
    if not isinstance(trainer.model, Sequential):
        raise TypeError(f"`trainer` must be of a Sequential network, got one of {type(trainer.model).__name__}")
    return trainer.model


def check() -> None:
    """Raise ImportError now, not later, if safetensors is missing."""
    with needs_extra("safetensors", "checkpoints"):
        import safetensors.numpy  # noqa: F401


def save(path: str | pathlib.Path, trainer: Trainer, options: Mapping[str, Any] | None = None) -> None:
    """Write a training to a file, whole or not at all, see `replacing`.

    Parameters
    ----------
    path : path
        The file; one of this name is replaced.
    trainer : Trainer
        Of a `Sequential`.
    options : dict, optional
        Anything that JSON can hold, to be found again in `Checkpoint.options`.

    Raises
    ------
    ImportError
        If safetensors is not installed.
    OSError
        If the file cannot be written.
    """
    with needs_extra("safetensors", "checkpoints"):
        from safetensors import SafetensorError
        from safetensors.numpy import save_file

    path = checks.path(path, "path")
    model = _sequential(trainer)
    tensors = model.parameters | model.buffers
    tensors |= {f"{_OPTIMIZER}{name}": array for name, array in trainer.optimizer.state().items()}
    tensors[_LOSSES] = np.asarray(trainer.step_losses, np.float64)
    # The speed is left out: it differs from run to run.
    progress = {
        "epoch": trainer.epoch,
        "position": trainer.position,
        "images": trainer.images,
        "loss_sum": trainer.loss_sum,
        "history": [epoch[:3] for epoch in trainer.history],
    }
    content = json.dumps({"options": checks.json_options(options), "progress": progress}, sort_keys=True)
    try:
        with replacing(path) as part:
            save_file({name: np.asarray(a, order="C") for name, a in tensors.items()}, part, {_KEY: content})
    except SafetensorError as error:
        raise OSError(f"{path}: {error}") from None


def load(path: str | pathlib.Path) -> Checkpoint:
    """Read a file that `save` wrote.

    Raises
    ------
    CheckpointError
        If the file is missing, damaged or of another kind.
    ImportError
        If safetensors is not installed.
    """
    with needs_extra("safetensors", "checkpoints"):
        from safetensors import SafetensorError, safe_open

    if not os.path.isfile(checks.path(path, "path")):
        raise CheckpointError(f"{path}: no such file; expected one that `jitconv train --save` wrote")
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except (SafetensorError, OSError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: expected a safetensors file, but it cannot be read: {error}") from None
    try:
        content = json.loads(metadata[_KEY])
        options, progress = dict(content["options"]), _checked_progress(content["progress"])
        step_losses = [float(loss) for loss in tensors.pop(_LOSSES)]
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError):
        raise CheckpointError(f"{path}: a safetensors file, but not one that `jitconv train --save` wrote") from None
    optimizer = {n.removeprefix(_OPTIMIZER): a for n, a in tensors.items() if n.startswith(_OPTIMIZER)}
    model = {name: a for name, a in tensors.items() if not name.startswith(_OPTIMIZER)}
    return Checkpoint(model, optimizer, step_losses, options, progress)


def _checked_progress(progress: Any) -> dict[str, Any]:
    epoch, position, images = (int(progress[name]) for name in ("epoch", "position", "images"))
    if min(epoch, position, images) < 0 or position > images or len(progress["history"]) != epoch:
        raise ValueError
    return {
        "epoch": epoch,
        "position": position,
        "images": images,
        "loss_sum": float(progress["loss_sum"]),
        "history": [
            (int(number), float(loss), None if accuracy is None else float(accuracy))
            for number, loss, accuracy in progress["history"]
        ],
    }
