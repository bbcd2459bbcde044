"""A picture of a training: loss, accuracy and the first layer's filters."""

from __future__ import annotations

import math
import pathlib
from typing import Any

import numpy as np

from ..layers import Conv2d
from ..layers.base import Array
from .extras import needs_extra
from .sequential import Sequential
from .trainer import Trainer

MOST_FILTERS = 64
MOST_COLUMNS = 16
WIDTH, CURVES_HEIGHT, TITLE_HEIGHT = 11.0, 4.0, 0.6  # inches
_INK, _GREY, _BLUE, _PALE_BLUE, _ORANGE = "#22272e", "#8a929c", "#1f5fa8", "#a9c6e8", "#d1661a"


def check() -> None:
    """Raise ImportError now, not later, if matplotlib is missing."""
    with needs_extra("matplotlib", "plots"):
        import matplotlib.figure  # noqa: F401


def draw(path: str | pathlib.Path, trainer: Trainer, *, title: str = "") -> None:
    """Draw a training into an image file.

    Parameters
    ----------
    path : path
        The file; its suffix decides the format.
    trainer : Trainer
    title : str
        Above everything.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    OSError
        If the file cannot be written.
    """
    with needs_extra("matplotlib", "plots"):
        from matplotlib.figure import Figure
        from matplotlib.layout_engine import ConstrainedLayoutEngine

    # A Figure of its own draws without a display, and leaves the caller's pyplot alone.
    filters = _filters(trainer)
    heights = [CURVES_HEIGHT]
    if filters is not None:
        rows, columns = _mosaic(filters).shape[:2]
        heights.append(min(CURVES_HEIGHT, 0.9 * WIDTH * rows / columns) + TITLE_HEIGHT)
    figure = Figure(figsize=(WIDTH, sum(heights) + TITLE_HEIGHT), facecolor="white")
    figure.set_layout_engine(ConstrainedLayoutEngine(w_pad=0.15, h_pad=0.1))
    if title:
        figure.suptitle(title, fontsize=14, color=_INK, fontweight="bold")
    parts = figure.subfigures(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0]
    for part in parts:
        part.set_facecolor("none")
    loss, accuracy = parts[0].subplots(1, 2)
    _draw_loss(loss, trainer)
    _draw_accuracy(accuracy, trainer)
    if filters is not None:
        _draw_filters(parts[1], filters)
    figure.savefig(path, dpi=150)


def _style(axes: Any, title: str) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_title(title, fontsize=12, color=_INK, loc="left")
    axes.set_xlabel("epoch", color=_INK)
    axes.grid(axis="y", color="#e3e6ea", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(_GREY)
    axes.tick_params(colors=_INK, labelsize=10)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _draw_loss(axes: Any, trainer: Trainer) -> None:
    """Draw the loss of each step, pale, and the mean of each epoch over it."""
    _style(axes, "loss on the training images")
    steps = np.asarray(trainer.step_losses)
    if not len(steps):
        return
    epochs = [epoch.number for epoch in trainer.history]
    last = trainer.epoch + trainer.position / max(trainer.images, 1)
    position = np.arange(1, len(steps) + 1) * (last / len(steps))
    axes.plot(position, steps, color=_PALE_BLUE, linewidth=0.9, label="each step")
    if epochs:
        # The mean over an epoch stands at its middle: it is of the network as it was during the epoch.
        axes.plot(
            np.array(epochs) - 0.5,
            [epoch.loss for epoch in trainer.history],
            color=_BLUE,
            linewidth=2.0,
            marker="o",
            markersize=4,
            label="mean of the epoch",
        )
    positive = steps[steps > 0]
    if len(positive) and positive.max() > 20 * np.median(positive):
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=0)
    axes.set_xlim(left=0)
    axes.legend(frameon=False, labelcolor=_INK)


def _draw_accuracy(axes: Any, trainer: Trainer) -> None:
    from matplotlib.ticker import PercentFormatter

    _style(axes, "accuracy on the test images")
    points = [(epoch.number, epoch.accuracy) for epoch in trainer.history if epoch.accuracy is not None]
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=None))
    if not points:
        return
    numbers, shares = zip(*points, strict=True)
    axes.plot(numbers, shares, color=_ORANGE, linewidth=2.0, marker="o", markersize=4, clip_on=False)
    axes.annotate(
        f"{shares[-1]:.1%}",
        (numbers[-1], shares[-1]),
        xytext=(4, 8),
        textcoords="offset points",
        ha="right",
        color=_ORANGE,
        fontweight="bold",
    )
    low = min(shares)
    axes.set_ylim(max(0.0, low - 0.15 * (1.0 - low) - 0.005), 1.0)
    axes.set_xlim(left=min(1, numbers[0]))


def _filters(trainer: Trainer) -> Array | None:
    """Return the weights of the first convolution, (F, C, KH, KW), or None if there is none."""
    layers = trainer.model.layers if isinstance(trainer.model, Sequential) else []
    return next((layer.weight for layer in layers if isinstance(layer, Conv2d)), None)


def _grid(filters: Array) -> tuple[int, int, int]:
    """Return (count, rows, columns) of the filters that are shown: as few rows as fit, equally long."""
    count = min(len(filters), MOST_FILTERS)
    rows = math.ceil(count / MOST_COLUMNS)
    return count, rows, math.ceil(count / rows)


def _mosaic(filters: Array) -> Array:
    """Return the filters side by side, (height, width, 1 or 3 channels), with NaN between them."""
    count, rows, columns = _grid(filters)
    channels, height, width = filters.shape[1:]
    shown = channels if channels == 3 else 1
    mosaic = np.full((rows * (height + 1) - 1, columns * (width + 1) - 1, shown), np.nan)
    for index in range(count):
        top, left = index // columns * (height + 1), index % columns * (width + 1)
        mosaic[top : top + height, left : left + width] = filters[index, :shown].transpose(1, 2, 0)
    return mosaic


def _draw_filters(figure: Any, filters: Array) -> None:
    """Draw filters of three channels in colour, others from blue (below 0) to red."""
    count, _, _ = _grid(filters)
    channels, height, width = filters.shape[1:]
    number = f"{count} of {len(filters)}" if count < len(filters) else str(count)
    what = "" if channels in (1, 3) else ", channel 0"
    axes = figure.subplots()
    axes.set_title(
        f"filters of the first layer ({number}, {height}x{width}{what})", fontsize=12, color=_INK, loc="left"
    )
    axes.set_axis_off()
    mosaic = _mosaic(filters)
    largest = float(np.nanmax(np.abs(mosaic))) or 1.0
    if channels == 3:
        # Zero is mid-grey; what lies between the filters stays white.
        axes.imshow(np.nan_to_num(0.5 + mosaic / (2 * largest), nan=1.0), interpolation="nearest")
        return
    image = axes.imshow(mosaic[..., 0], cmap="RdBu_r", vmin=-largest, vmax=largest, interpolation="nearest")
    bar = figure.colorbar(image, ax=axes, shrink=0.9, aspect=12, pad=0.02)
    bar.outline.set_visible(False)
    bar.ax.tick_params(colors=_INK, labelsize=9, length=0)
