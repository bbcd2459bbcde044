"""Timing the modules of a model on what they get in one call of it, with PyTorch's class and with jitconv's."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

ROUNDS = 5
# Seconds of calls in a round: shorter ones are repeated.
LEAST = 2e-3


class Faster(NamedTuple):
    """Milliseconds of a module with PyTorch's class and with jitconv's."""

    torch: float
    jitconv: float

    @property
    def gains(self) -> bool:
        """Whether jitconv is faster."""
        return self.jitconv < self.torch

    def __str__(self) -> str:
        return f"{self.jitconv:.3g} ms, with PyTorch {self.torch:.3g} ms"


@contextlib.contextmanager
def _unchanged(model: nn.Module) -> Iterator[None]:
    """Put the buffers of a model and the random numbers back after a `with` block."""
    buffers = [(buffer, buffer.detach().clone()) for buffer in model.buffers()]
    with torch.random.fork_rng(devices=[]):
        try:
            yield
        finally:
            with torch.no_grad():
                for buffer, before in buffers:
                    buffer.copy_(before)


class _Call(NamedTuple):
    arguments: tuple[Any, ...]
    options: dict[str, Any]

    @classmethod
    def of(cls, arguments: tuple[Any, ...], options: dict[str, Any]) -> _Call:
        """Return a call on tensors of their own, of which gradients can be taken."""

        def leaf(one: Any) -> Any:
            return one.detach().requires_grad_(one.requires_grad) if isinstance(one, Tensor) else one

        return cls(tuple(map(leaf, arguments)), {name: leaf(one) for name, one in options.items()})

    def run(self, module: nn.Module) -> None:
        """Make the call without the module's hooks and, if it is in training, take the gradients."""
        with torch.set_grad_enabled(module.training):
            y = type(module).forward(module, *self.arguments, **self.options)
        y = y[0] if isinstance(y, tuple) else y
        if module.training and y.requires_grad:
            given = (*self.arguments, *self.options.values(), *module.parameters())
            wanted = [one for one in given if isinstance(one, Tensor) and one.requires_grad]
            torch.autograd.grad(y, wanted, torch.ones_like(y))


def _calls(model: nn.Module, example: tuple[Any, ...], modules: Mapping[nn.Module, Any]) -> dict[nn.Module, _Call]:
    """Return the first call of each module in a call of the model."""
    seen: dict[nn.Module, _Call] = {}

    def note(module: nn.Module, arguments: tuple[Any, ...], options: dict[str, Any]) -> None:
        seen.setdefault(module, _Call.of(arguments, options))

    handles = [module.register_forward_pre_hook(note, with_kwargs=True) for module in modules]
    try:
        with _unchanged(model), torch.set_grad_enabled(model.training):
            model(*example)
    finally:
        for handle in handles:
            handle.remove()
    return seen


@contextlib.contextmanager
def _of_class(module: nn.Module, kind: type[nn.Module]) -> Iterator[None]:
    before = type(module)
    module.__class__ = kind
    try:
        yield
    finally:
        module.__class__ = before


class _Timed:
    """The times of a module of some class."""

    def __init__(self, module: nn.Module, kind: type[nn.Module], call: _Call) -> None:
        self._module, self._kind, self._call = module, kind, call
        self._seconds: list[float] = []
        self._count = 1
        self.run()  # compiles what has to be
        self._seconds.clear()
        self.run()
        self._count = max(1, round(LEAST / self._seconds.pop()))

    def run(self) -> None:
        """Time some calls in a row."""
        with _of_class(self._module, self._kind):
            start = time.perf_counter()
            for _ in range(self._count):
                self._call.run(self._module)
            self._seconds.append((time.perf_counter() - start) / self._count)

    @property
    def milliseconds(self) -> float:
        """The median time of a call."""
        return 1e3 * statistics.median(self._seconds)


def measure(
    model: nn.Module, example: tuple[Any, ...], twins: Mapping[nn.Module, type[nn.Module]]
) -> dict[nn.Module, Faster]:
    """Return the times of the modules that a call of the model reaches, medians over some rounds in turn."""
    found = {}
    for module, call in _calls(model, example, twins).items():
        both = [_Timed(module, kind, call) for kind in (type(module), twins[module])]
        for _ in range(ROUNDS):
            for one in both:
                one.run()
        found[module] = Faster(both[0].milliseconds, both[1].milliseconds)
        module.__dict__.pop("_folded", None)
    return found
