"""A graph that has been read: what it takes, its constants, and steps that run one after the other."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from .node import Array
from .operator import Run


class Input(NamedTuple):
    """An input of a model; an axis of any length is a name or None."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int | str | None, ...]

    def check(self, given: Array, named: dict[str, int]) -> None:
        """Refuse an array that the model does not take; `named` are the lengths of axes with a name so far."""
        if given.dtype != self.dtype:
            raise TypeError(f"input `{self.name}` has dtype {given.dtype}, but the model takes {self.dtype}")
        wanted = self.shape
        if len(given.shape) == len(wanted):
            for axis, length in zip(wanted, given.shape, strict=True):
                if isinstance(axis, str):
                    named.setdefault(axis, length)
            wanted = tuple(named[axis] if isinstance(axis, str) else axis for axis in wanted)
            if all(axis in (None, length) for axis, length in zip(wanted, given.shape, strict=True)):
                return
        axes = ", ".join("any" if axis is None else str(axis) for axis in wanted)
        raise ValueError(f"input `{self.name}` must have the shape ({axes}), got {given.shape}")


@contextlib.contextmanager
def named_errors(node: str) -> Iterator[None]:
    """Let the message of an error inside name the node."""
    try:
        yield
    except (TypeError, ValueError, IndexError, ArithmeticError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"{node}: {error}") from error


class Step(NamedTuple):
    """A node that is ready to run. `spent` are the values that nothing needs after it."""

    name: str
    run: Run
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    spent: tuple[str, ...] = ()

    def results(self, values: Mapping[str, Array]) -> dict[str, Array]:
        """Return the outputs by name."""
        with named_errors(self.name), np.errstate(all="ignore"):  # infinity and NaN are values
            made = self.run(*(values[name] if name else None for name in self.inputs))
        arrays = made if isinstance(made, tuple) else (made,)
        return {name: np.asarray(one) for name, one in zip(self.outputs, arrays, strict=False) if name}


class Program:
    """A graph in the order in which it runs. Nothing of it changes in a run, so Python threads may share it.

    Parameters
    ----------
    inputs : sequence of Input
    constants : mapping of str to ndarray
        The values that depend on no input.
    steps : sequence of Step
    outputs : sequence of str
    shared : set of str
        Outputs whose memory may be that of an input, a constant or another output.
    """

    def __init__(
        self,
        inputs: Sequence[Input],
        constants: Mapping[str, Array],
        steps: Sequence[Step],
        outputs: Sequence[str],
        shared: Collection[str],
    ) -> None:
        self.inputs, self.outputs = tuple(inputs), tuple(outputs)
        self._constants, self._shared = dict(constants), frozenset(shared)
        self.steps = _with_spent(steps, self.outputs)

    def run(self, given: Mapping[str, Array]) -> tuple[Array, ...]:
        """Return the outputs, in memory of their own, for inputs that have been checked."""
        values = {**self._constants, **given}
        for step in self.steps:
            values.update(step.results(values))
            for name in step.spent:
                del values[name]
        return tuple(values[name].copy() if name in self._shared else values[name] for name in self.outputs)


def _with_spent(steps: Sequence[Step], outputs: Sequence[str]) -> tuple[Step, ...]:
    """Return the steps with the values that each lets go: what steps made, and what none after it takes."""
    made = {name for step in steps for name in step.outputs if name}
    needed, last = set(outputs), []
    for step in reversed(steps):
        spent = {name for name in (*step.inputs, *step.outputs) if name in made and name not in needed}
        needed |= spent
        last.append(step._replace(spent=tuple(sorted(spent))))
    return tuple(reversed(last))
