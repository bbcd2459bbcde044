"""What a network will do, as a table: one trial step of a copy tells."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

import numpy as np

from .. import plan, workspace
from ..layers import Conv2d, ConvTranspose2d, Dense
from ..layers.base import Array, Layer
from ..threads import get_num_threads, num_threads
from .steps import Step

_HEAD = ("layers", "output", "parameters", "MFLOP", "fused", "algorithm: forward, backward-data, backward-weights")
_MIB = 2**20


class Network(Protocol):
    """What is asked of a `Sequential`."""

    @property
    def parameters(self) -> Mapping[str, Array]: ...
    @property
    def buffers(self) -> Mapping[str, Array]: ...
    def run(self, x: Array, observe: Callable[[Step, Array, Array], None] | None = None) -> Array: ...
    def backward(self, dy: Array) -> Array | None: ...


class _Trial(NamedTuple):
    """What one step of a network has shown; memory in bytes."""

    rows: list[tuple[str, ...]]
    flops: int
    activations: int  # their gradients and the batch included
    scratch: int


def summary(model: Network, x_shape: tuple[int, ...]) -> str:
    """Return the table of a network for batches of a shape, and the memory of a training step."""
    own = list(model.parameters.values())
    dtype = own[0].dtype if own else np.dtype(np.float32)
    trial = _in_thread(copy.deepcopy(model), np.zeros(x_shape, dtype))
    widths = [max(len(row[i]) for row in (_HEAD, *trial.rows)) for i in range(len(_HEAD))]
    right = (2, 3)
    lines = []
    for row in (_HEAD, *trial.rows):
        cells = enumerate(zip(row, widths, strict=True))
        lines.append("  ".join(cell.rjust(width) if i in right else cell.ljust(width) for i, (cell, width) in cells))
    lines.insert(1, "  ".join("-" * width for width in widths))
    parameters = sum(a.nbytes for a in own)
    state = 2 * parameters + sum(a.nbytes for a in model.buffers.values())
    total = state + trial.activations + trial.scratch
    lines += [
        "",
        f"{sum(a.size for a in own):,} parameters, {trial.flops / 1e9:.3g} GFLOP in a forward pass",
        f"peak memory of a step: {total / _MIB:.1f} MiB (parameters and gradients {state / _MIB:.1f}, activations and "
        f"their gradients {trial.activations / _MIB:.1f}, scratch {trial.scratch / _MIB:.1f}), the optimizer's apart",
    ]
    return "\n".join(line.rstrip() for line in lines)


def _in_thread(model: Network, x: Array) -> _Trial:
    """Return what a step of the network shows, in a Python thread that has no scratch yet."""
    found: list[_Trial] = []
    failed: list[BaseException] = []
    threads = get_num_threads()

    def run() -> None:
        try:
            with num_threads(threads):
                found.append(_try(model, x))
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return found[0]


def _try(model: Network, x: Array) -> _Trial:
    seen: list[tuple[Step, tuple[int, ...], int]] = []
    small = 0

    def observe(step: Step, x: Array, y: Array) -> None:
        nonlocal small
        seen.append((step, y.shape, sum(_flops(layer, x) for layer in step.layers)))
        small += y.nbytes if y.nbytes < workspace.ALIGNED_BYTES else 0

    y = model.run(x, observe)
    model.backward(np.zeros_like(y))
    memory = x.nbytes + small + workspace.arena_of(model).bytes
    rows = [_row(*one) for one in seen]
    return _Trial(rows, sum(flops for _, _, flops in seen), memory, workspace.scratch_bytes())


def _row(step: Step, shape: tuple[int, ...], flops: int) -> tuple[str, ...]:
    parameters = sum(a.size for layer in step.layers for a in layer.parameters.values())
    return (
        " + ".join(type(layer).__name__ for layer in step.layers) or "(layout)",
        str(shape),
        f"{parameters:,}" if parameters else "",
        f"{flops / 1e6:,.1f}" if flops else "",
        str(step),
        ", ".join(_algorithms(layer) for layer in step.layers if isinstance(layer, Conv2d)),
    )


def _flops(layer: Layer, x: Array) -> int:
    """Return the products and sums of a layer's forward pass."""
    if isinstance(layer, Conv2d):
        return layer.problem().flops
    if isinstance(layer, ConvTranspose2d):
        return 2 * x.size * int(layer.weight[0].size)
    return 2 * len(x) * int(layer.weight.size) if isinstance(layer, Dense) else 0


def _algorithms(layer: Conv2d) -> str:
    """Return the algorithms of the passes that the last step took; one name where they are the same."""
    problem, threads = layer.problem(), get_num_threads()
    if not problem.n:
        return ""
    algorithm = plan.resolve(problem, layer.options.algorithm)
    makers = [plan.plan_forward, plan.plan_backward_data, plan.plan_backward_weights]
    if not layer.needs_input_gradient:
        makers.pop(1)
    names = [make(problem, algorithm, threads).algorithm for make in makers]
    return names[0] if len(set(names)) == 1 else ", ".join(names)
