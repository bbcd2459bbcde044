"""A network as a list of layers."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from .. import validate, workspace
from ..layers.base import Array, Layer
from ..workspace import Arena
from . import checks
from .steps import Step, steps_of
from .summary import summary


def _memory(step: Step, following: Step | None, arena: Arena, outer: Arena | None) -> Arena | None:
    """Return where a step's result may lie: nobody knows what other layers do with arrays, their own or given ones."""
    if not step.known:
        return None
    if following is None:
        return outer  # the caller's
    return arena if following.known else None


class Sequential(Layer):
    """Layers one after the other; itself a layer.

    Parameters
    ----------
    layers : list of Layer
    needs_input_gradient : bool
        False: `backward` returns None, and stops at the first layer that has parameters without computing its
        dx. The attribute of this name may be changed at any time; it decides for the layers inside.

    Attributes
    ----------
    layers : list of Layer
    parameters, gradients, buffers : dict
        Those of all layers, under names like "0.weight": the layer's index, then its own name.
    """

    def __init__(self, layers: Sequence[Layer], *, needs_input_gradient: bool = True) -> None:
        super().__init__()
        self.layers: list[Layer] = checks.layers(layers, Layer)
        self.needs_input_gradient = validate.boolean(needs_input_gradient, "needs_input_gradient")

    @property
    def parameters(self) -> dict[str, Array]:
        """The arrays that training changes, by name."""
        return {f"{i}.{name}": a for i, layer in enumerate(self.layers) for name, a in layer.parameters.items()}

    @property
    def gradients(self) -> dict[str, Array]:
        """The gradients of `parameters`, under the same names."""
        return {f"{i}.{name}": a for i, layer in enumerate(self.layers) for name, a in layer.gradients.items()}

    @property
    def buffers(self) -> dict[str, Array]:
        """The arrays that are saved with the parameters but not trained, by name."""
        return {f"{i}.{name}": a for i, layer in enumerate(self.layers) for name, a in layer.buffers.items()}

    def forward(self, x: Array) -> Array:
        """Return the output of the last layer.

        What the layers inside return lies in memory that the next `forward` uses again.
        """
        return self.run(x)

    def run(self, x: Array, observe: Callable[[Step, Array, Array], None] | None = None) -> Array:
        """As `forward`; `observe` is called with each step, its input and its output."""
        validate.unaliased(x, "x")
        steps = steps_of(self.layers, Sequential, np.ndim(x) == 4)
        arena, outer = workspace.arena_of(self), workspace.arena_in_use()
        arena.reset()
        given, self._saved = x, None  # what a forward pass that fails leaves serves no backward pass
        for step, following in itertools.zip_longest(steps, steps[1:]):
            with workspace.reusing(_memory(step, following, arena, outer)):
                before, x = x, step.forward(x)
            if observe is not None:
                observe(step, before, x)
        self._saved = steps
        return x.copy() if arena.owns(x) and x is not given else x

    def backward(self, dy: Array) -> Array | None:
        """Fill every layer's gradients and return dx."""
        return self.run_back(dy)

    def run_back(self, dy: Array, observe: Callable[[Step], None] | None = None) -> Array | None:
        """As `backward`; `observe` is called with each step as soon as its layers' gradients are complete."""
        steps: list[Step] = self._restore()
        validate.unaliased(dy, "dy")
        first = next((index for index, step in enumerate(steps) if step.trained), len(steps))
        arena, outer = workspace.arena_of(self), workspace.arena_in_use()
        gradient: Array | None = dy
        for index in reversed(range(len(steps))):
            if gradient is None or (index < first and not self.needs_input_gradient):
                return None
            steps[index].need_input_gradient(self.needs_input_gradient or index > first)
            following = steps[index - 1] if index else None
            with workspace.reusing(_memory(steps[index], following, arena, outer)):
                before, gradient = gradient, steps[index].backward(gradient)
            if observe is not None:
                observe(steps[index])
            if gradient is None or not np.may_share_memory(before, gradient):
                arena.release(before)
        return gradient.copy() if gradient is not None and arena.owns(gradient) else gradient

    def train(self, mode: bool = True) -> Sequential:
        """Behave as in training, or, with False, as in use. Return the network."""
        super().train(mode)
        for layer in self.layers:
            layer.train(mode)
        return self

    def summary(self, x_shape: tuple[int, ...]) -> None:
        """Print what the network does with batches of a shape: its layers, and what was decided about them.

        For each step the layers that run as one, the shape of the result as it lies inside, parameters, the products
        and sums of the forward pass, and the algorithms of convolutions; then the memory that a training step takes.
        One step of a copy is run to find out.

        Parameters
        ----------
        x_shape : tuple of int
            The shape of a batch, as `forward` takes it.

        Raises
        ------
        TypeError, ValueError
            If the shape does not fit the network.
        """
        sizes = checks.shape(x_shape, "x_shape")
        validate.array_fits(sizes, "x_shape")
        print(summary(self, sizes))

    def state(self) -> dict[str, Array]:
        """Return copies of all parameters and buffers, by name."""
        return {name: a.copy() for name, a in (self.parameters | self.buffers).items()}

    def load_state(self, state: Mapping[str, Array]) -> None:
        """Copy saved parameters and buffers into those of this network.

        Raises
        ------
        ValueError
            If a name, a shape or a dtype differs; then nothing is copied.
        """
        own = self.parameters | self.buffers
        checks.same_state(state, own, "network")
        for name, array in own.items():
            np.copyto(array, state[name])
