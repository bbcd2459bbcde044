"""What every layer has."""

from __future__ import annotations

import abc
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .. import validate

Array = NDArray[Any]
Seed = int | np.random.Generator | None


class Part(NamedTuple):
    """What the batch is of a larger one, whose other parts other processes compute at the same time."""

    first: int  # the number in the whole batch of this part's first image
    add_up: Callable[[Array], None]  # overwrites an array of float64 with its sum over all parts, which all call alike


class Layer(abc.ABC):
    """A step of a network: `forward`, then `backward`.

    Attributes
    ----------
    training : bool
        Set by `train` and `eval`; only BatchNorm2d and Dropout behave differently.
    needs_input_gradient : bool
        False: `backward` returns None instead of dx. The first layer of a network needs none.
    part : Part or None
        None: the batch is whole. Set by a `Trainer` with a communicator for the time of a step; only BatchNorm2d and
        Dropout look at it.
    """

    part: Part | None = None

    def __init__(self) -> None:
        self.training = True
        self.needs_input_gradient = True
        self._parameters: dict[str, Array] = {}
        self._gradients: dict[str, Array] = {}
        self._buffers: dict[str, Array] = {}
        self._saved: Any = None

    @property
    def parameters(self) -> dict[str, Array]:
        """The arrays that training changes, by name."""
        return self._parameters

    @property
    def gradients(self) -> dict[str, Array]:
        """The gradients of `parameters`, under the same names.

        `backward` overwrites them (it does not add to them), in the same arrays from step to step.
        """
        return self._gradients

    @property
    def buffers(self) -> dict[str, Array]:
        """The arrays that are saved with the parameters but not trained, by name."""
        return self._buffers

    @abc.abstractmethod
    def forward(self, x: Array) -> Array:
        """Return the output, and keep what `backward` needs: x itself or the output, not copies."""

    @abc.abstractmethod
    def backward(self, dy: Array) -> Array | None:
        """Fill `gradients` and return dx, from the gradient of the last `forward`'s output.

        Raises
        ------
        RuntimeError
            If `forward` has not been called.
        """

    def __call__(self, x: Array) -> Array:
        """Return ``forward(x)``."""
        return self.forward(x)

    def train(self, mode: bool = True) -> Layer:
        """Behave as in training, or, with False, as in use. Return the layer."""
        self.training = validate.boolean(mode, "mode")
        return self

    def eval(self) -> Layer:
        """Behave as in use. Return the layer."""
        return self.train(False)

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy or a pickle holds: all but what the last `forward` kept for `backward`."""
        return self.__dict__ | {"_saved": None}

    def _restore(self) -> Any:
        return validate.after_forward(self._saved, type(self).__name__)

    def _add_parameter(self, name: str, value: Array) -> None:
        self._parameters[name] = value
        self._gradients[name] = np.zeros_like(value)

    def move_gradient(self, name: str, room: Array) -> None:
        """Let `backward` fill `room` from now on, an array of the gradient's shape and dtype."""
        np.copyto(room, self._gradients[name])
        self._gradients[name] = room

    def _store_gradient(self, name: str, value: Array | None) -> None:
        if value is not None:
            np.copyto(self._gradients[name], value)


class ImageLayer(Layer):
    """A layer whose input has the axes that its `layout` says; a network may run it in the other."""

    def __init__(self, layout: str) -> None:
        super().__init__()
        self._layout = validate.layout(layout)

    @property
    def layout(self) -> str:
        """The axes of x and y: "NCHW" or "NHWC"."""
        return self._layout

    def forward(self, x: Array) -> Array:
        """Return the output for x, whose axes are those of `layout`."""
        return self.forward_in(self._layout, x)

    @abc.abstractmethod
    def forward_in(self, layout: str, x: Array) -> Array:
        """As `forward`, for axes as `layout` says; `backward` follows."""


def he_normal(shape: tuple[int, ...], fan_in: float, dtype: np.dtype[Any], seed: Seed) -> Array:
    """Return normal numbers of variance 2 / fan_in.

    He et al., "Delving deep into rectifiers" (2015), equation 10; ``torch.nn.init.kaiming_normal_``. They are
    drawn in float64, so that both dtypes start from the same weights.
    """
    rng = validate.generator(seed, "seed")
    validate.fits_in_memory(shape, np.dtype(np.float64), "weight")
    numbers = rng.standard_normal(shape)
    return (numbers * math.sqrt(2.0 / fan_in)).astype(dtype)
