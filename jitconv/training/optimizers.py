"""Optimizers: rules by which gradients change parameters. Formulas and defaults are PyTorch's."""

from __future__ import annotations

import abc
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from .. import validate
from ..cost import threads_for
from ..kernels import update as kernels
from ..kernels.jit import WORKERS, Worker, address_of
from ..kernels.pointwise import BLOCK
from ..layers.base import Array
from . import checks

ELEMENT_CYCLES = 1.5  # of one thread for an element of each array that a rule reads


class _Updates(NamedTuple):
    """What one launch updates: all parameters of one dtype."""

    dtype: np.dtype[Any]
    table: Array  # as `kernels.update` reads it
    cycles: float  # 0 where parameters share memory: one thread takes them in their order

    @classmethod
    def of(cls, dtype: np.dtype[Any], updated: list[list[Array]]) -> _Updates:
        """List parameters, each with its gradient and its arrays of state."""
        table = np.zeros((len(updated), kernels.COLUMNS), np.int64)
        for row, arrays in zip(table, updated, strict=True):
            row[: len(arrays)] = [*map(address_of, arrays)]
            row[kernels.SIZE] = arrays[0].size
        table[:, kernels.PAST] = np.cumsum(-(-table[:, kernels.SIZE] // BLOCK))
        begins = np.sort(table[:, 0])
        ends = np.sort(table[:, 0] + table[:, kernels.SIZE] * dtype.itemsize)
        elements = 0 if (ends[:-1] > begins[1:]).any() else sum(a.size for arrays in updated for a in arrays)
        return cls(dtype, table, elements * ELEMENT_CYCLES)


def _look(a: Array) -> tuple[Any, ...]:
    """Return what can change in an array object, and was checked."""
    return a.shape, a.dtype, a.strides, a.flags.writeable


class Optimizer(abc.ABC):
    """What every optimizer has.

    Attributes
    ----------
    lr : float
        The learning rate; may be changed between steps.
    weight_decay : float
        This times the parameter is added to the gradient.
    steps : int
        Updates made so far.
    """

    def __init__(self, lr: float, weight_decay: float, kernel: Worker, slots: tuple[str, ...]) -> None:
        self.lr = lr
        self.weight_decay = validate.real(weight_decay, "weight_decay", 0.0)
        self.steps = 0
        self._kernel = kernel.name  # not itself: an optimizer can be copied and pickled
        self._slots = slots  # the arrays kept for each parameter
        self._state: dict[str, Array] = {}
        self._checked: tuple[list[str], list[Array], list[tuple[Any, ...]]] | None = None
        self._updates: list[_Updates] = []

    @property
    def lr(self) -> float:
        """The learning rate."""
        return self._lr

    @lr.setter
    def lr(self, rate: float) -> None:
        self._lr = validate.real(rate, "lr", 0.0)

    def update(self, parameters: Mapping[str, Array], gradients: Mapping[str, Array]) -> None:
        """Change every parameter in place by one step.

        Parameters
        ----------
        parameters, gradients : dict of arrays under the same names
            Those of a layer or a network, always the same network.

        Raises
        ------
        TypeError, ValueError
            If an array cannot be updated in place, or a gradient does not fit its parameter.
        """
        checks.same_names(parameters, gradients)
        arrays = [a for name, parameter in parameters.items() for a in (parameter, gradients[name])]
        if not self._is_checked(list(parameters), arrays):
            self._updates = self._check(parameters, gradients)
            self._checked = list(parameters), arrays, [*map(_look, arrays)]
        step = self.steps + 1
        scalars = self._scalars(step)
        # All that may fail for want of memory comes before the first change.
        given = [np.array(scalars, updates.dtype) for updates in self._updates]
        for (dtype, table, cycles), numbers in zip(self._updates, given, strict=True):
            self.kernel(dtype, threads_for(cycles), table, numbers, len(table))
        self.steps = step

    @property
    def kernel(self) -> Worker:
        """The kernel that makes the updates."""
        return WORKERS[self._kernel]

    def __getstate__(self) -> dict[str, Any]:
        """Leave out addresses: the arrays of a copy lie elsewhere."""
        return self.__dict__ | {"_checked": None, "_updates": []}

    def _is_checked(self, names: list[str], arrays: list[Array]) -> bool:
        """Return whether these are the arrays of the last step: with twelve of them 3 us, and 60 to check them."""
        if self._checked is None:
            return False
        names_before, before, looks = self._checked
        return (
            names == names_before
            and all(a is b for a, b in zip(arrays, before, strict=True))
            and [*map(_look, arrays)] == looks
        )

    def _check(self, parameters: Mapping[str, Array], gradients: Mapping[str, Array]) -> list[_Updates]:
        pairs = []
        for name, parameter in parameters.items():
            flat = checks.updatable(parameter, name)
            pairs.append((name, parameter, flat, checks.updatable(gradients[name], f"gradient of {name}", parameter)))
            for slot in self._slots:
                checks.same_parameter(parameter, name, self._state.get(f"{slot}.{name}"))
        updated: dict[np.dtype[Any], list[list[Array]]] = {}
        state = self._state.copy()
        for name, parameter, flat, gradient in pairs:
            kept = [state.setdefault(f"{slot}.{name}", np.zeros_like(parameter)) for slot in self._slots]
            updated.setdefault(flat.dtype, []).append([flat, gradient, *kept])
        made = [_Updates.of(dtype, rows) for dtype, rows in updated.items()]
        self._state = state
        return made

    @abc.abstractmethod
    def _scalars(self, step: int) -> list[float]:
        """Return the scalars that the kernel takes at a step, the first of which is 1."""

    def state(self) -> dict[str, Array]:
        """Return copies of what must be saved to go on exactly: `steps`, and arrays for each parameter."""
        return {"steps": np.array(self.steps, np.int64)} | {name: a.copy() for name, a in self._state.items()}

    def load_state(self, state: Mapping[str, Array], parameters: Mapping[str, Array]) -> None:
        """Go on from a saved state.

        Parameters
        ----------
        state : dict of arrays
            As `state` returned it.
        parameters : dict of arrays
            The parameters that it belongs to.

        Raises
        ------
        ValueError
            If the state is not that of this optimizer and these parameters; then nothing is changed.
        """
        checks.kind_of(state, "state", Mapping, "a dict of arrays")
        checks.kind_of(parameters, "parameters", Mapping, "a dict of arrays")
        own = {"steps": np.zeros((), np.int64)}
        checks.same_state({name: a for name, a in state.items() if name == "steps"}, own, "optimizer")
        steps = int(state["steps"])
        checks.not_negative(steps)
        if steps:
            own |= {f"{slot}.{name}": p for slot in self._slots for name, p in parameters.items()}
        checks.same_state(state, own, "optimizer")
        self.steps = steps
        self._state = {name: np.array(state[name], order="C") for name in own if name != "steps"}
        self._checked = None


class SGD(Optimizer):
    """Stochastic gradient descent, with momentum if asked for.

    v = momentum * v + g, then parameter -= lr * v: ``torch.optim.SGD`` with dampening 0, which differs from
    Sutskever et al., "On the importance of initialization and momentum in deep learning" (2013), in that lr
    is no part of v.

    Parameters
    ----------
    lr : float
    momentum : float from 0 to 1
    weight_decay : float

    Raises
    ------
    TypeError, ValueError
        If an argument is not a number in its range.
    """

    def __init__(self, lr: float = 1e-3, momentum: float = 0.0, weight_decay: float = 0.0) -> None:
        self.momentum = validate.real(momentum, "momentum", 0.0, 1.0)
        if self.momentum:
            super().__init__(lr, weight_decay, kernels.sgd_momentum, ("velocity",))
        else:
            super().__init__(lr, weight_decay, kernels.sgd, ())

    def _scalars(self, step: int) -> list[float]:
        return [self.lr, self.weight_decay, self.momentum][: 3 if self._slots else 2]


class AdaGrad(Optimizer):
    """Steps divided by the root of the sum of squared gradients so far.

    Duchi, Hazan and Singer, "Adaptive subgradient methods" (2011); ``torch.optim.Adagrad``.

    Parameters
    ----------
    lr : float
    weight_decay : float
    eps : float
        Added to the root.

    Raises
    ------
    TypeError, ValueError
        If an argument is not a number in its range.
    """

    def __init__(self, lr: float = 1e-2, weight_decay: float = 0.0, eps: float = 1e-10) -> None:
        super().__init__(lr, weight_decay, kernels.adagrad, ("sum",))
        self.eps = validate.real(eps, "eps", 0.0)

    def _scalars(self, step: int) -> list[float]:
        return [self.lr, self.weight_decay, self.eps]


class RMSProp(Optimizer):
    """Steps divided by the root of the running mean of squared gradients.

    Tieleman and Hinton, "Neural networks for machine learning", lecture 6.5 (2012); ``torch.optim.RMSprop``,
    which adds eps to the root, not under it.

    Parameters
    ----------
    lr : float
    alpha : float from 0 to 1
        What is kept of the running mean at each step.
    eps : float
        Added to the root.
    weight_decay : float

    Raises
    ------
    TypeError, ValueError
        If an argument is not a number in its range.
    """

    def __init__(self, lr: float = 1e-2, alpha: float = 0.99, eps: float = 1e-8, weight_decay: float = 0.0) -> None:
        super().__init__(lr, weight_decay, kernels.rmsprop, ("square",))
        self.alpha = validate.real(alpha, "alpha", 0.0, 1.0)
        self.eps = validate.real(eps, "eps", 0.0)

    def _scalars(self, step: int) -> list[float]:
        return [self.lr, self.weight_decay, self.alpha, 1.0 - self.alpha, self.eps]


class Adadelta(Optimizer):
    """Steps of the running size of earlier steps, divided by that of the gradients.

    Zeiler, "ADADELTA: an adaptive learning rate method" (2012), algorithm 1; ``torch.optim.Adadelta``.

    Parameters
    ----------
    lr : float
    rho : float from 0 to 1
        What is kept of both running means at each step.
    eps : float
        Added under both roots.
    weight_decay : float

    Raises
    ------
    TypeError, ValueError
        If an argument is not a number in its range.
    """

    def __init__(self, lr: float = 1.0, rho: float = 0.9, eps: float = 1e-6, weight_decay: float = 0.0) -> None:
        super().__init__(lr, weight_decay, kernels.adadelta, ("square", "change"))
        self.rho = validate.real(rho, "rho", 0.0, 1.0)
        self.eps = validate.real(eps, "eps", 0.0)

    def _scalars(self, step: int) -> list[float]:
        return [self.lr, self.weight_decay, self.rho, 1.0 - self.rho, self.eps]


class Adam(Optimizer):
    """Steps along the running mean of the gradient, divided by the root of that of its square.

    Kingma and Ba, "Adam: a method for stochastic optimization" (2015), algorithm 1; ``torch.optim.Adam``.

    Parameters
    ----------
    lr : float
    betas : pair of floats from 0 to 1, 1 excluded
        What is kept of the two running means at each step.
    eps : float
        Added to the root.
    weight_decay : float

    Raises
    ------
    TypeError, ValueError
        If an argument is not a number in its range.
    """

    def __init__(
        self,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(lr, weight_decay, kernels.adam, ("first", "second"))
        first, second = checks.two(betas, "betas")
        self.betas = (
            validate.real(first, "betas[0]", 0.0, 1.0, below=True),
            validate.real(second, "betas[1]", 0.0, 1.0, below=True),
        )
        self.eps = validate.real(eps, "eps", 0.0)

    def _scalars(self, step: int) -> list[float]:
        beta_1, beta_2 = self.betas
        rate = self.lr / (1.0 - beta_1**step)
        root = math.sqrt(1.0 - beta_2**step)
        return [rate, self.weight_decay, 1.0 - beta_1, beta_2, 1.0 - beta_2, root, self.eps]
