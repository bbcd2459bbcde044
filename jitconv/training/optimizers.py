"""Optimizers: rules by which gradients change parameters. Formulas and defaults are PyTorch's."""

from __future__ import annotations

import abc
import math
from collections.abc import Mapping

import numpy as np

from .. import validate
from ..kernels import update as kernels
from ..layers.base import Array
from ..pointwise import parts
from . import checks


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

    def __init__(self, lr: float, weight_decay: float, slots: tuple[str, ...]) -> None:
        self.lr = validate.real(lr, "lr", 0.0)
        self.weight_decay = validate.real(weight_decay, "weight_decay", 0.0)
        self.steps = 0
        self._slots = slots  # the arrays kept for each parameter
        self._state: dict[str, Array] = {}

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
        pairs = []
        for name, parameter in parameters.items():
            flat = checks.updatable(parameter, name)
            pairs.append((name, parameter, flat, checks.updatable(gradients[name], f"gradient of {name}", parameter)))
        self.steps += 1
        for name, parameter, flat, gradient in pairs:
            kept = [self._kept(slot, name, parameter).reshape(-1) for slot in self._slots]
            self._step(flat, gradient, kept, parts(flat.size))

    def _kept(self, slot: str, name: str, parameter: Array) -> Array:
        key = f"{slot}.{name}"
        if key not in self._state:
            self._state[key] = np.zeros_like(parameter)
        return self._state[key]

    @abc.abstractmethod
    def _step(self, parameter: Array, gradient: Array, kept: list[Array], threads: int) -> None:
        """Change one parameter and the arrays kept for it; all flat."""

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
        steps = np.zeros((), np.int64)
        own = {"steps": steps}
        if int(np.asarray(state.get("steps", 0)).sum()):
            own |= {f"{slot}.{name}": p for slot in self._slots for name, p in parameters.items()}
        checks.same_state(state, own, "optimizer")
        self.steps = int(state["steps"])
        self._state = {name: np.array(state[name], order="C") for name in own if name != "steps"}


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
        super().__init__(lr, weight_decay, ("velocity",) if momentum else ())
        self.momentum = validate.real(momentum, "momentum", 0.0, 1.0)

    def _step(self, parameter: Array, gradient: Array, kept: list[Array], threads: int) -> None:
        kind = parameter.dtype.type
        lr, decay = kind(self.lr), kind(self.weight_decay)
        if kept:
            kernels.sgd_momentum(parameter, gradient, *kept, lr, decay, kind(self.momentum), threads)
        else:
            kernels.sgd(parameter, gradient, lr, decay, threads)


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
        super().__init__(lr, weight_decay, ("sum",))
        self.eps = validate.real(eps, "eps", 0.0)

    def _step(self, parameter: Array, gradient: Array, kept: list[Array], threads: int) -> None:
        kind = parameter.dtype.type
        kernels.adagrad(parameter, gradient, *kept, kind(self.lr), kind(self.weight_decay), kind(self.eps), threads)


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
        super().__init__(lr, weight_decay, ("square",))
        self.alpha = validate.real(alpha, "alpha", 0.0, 1.0)
        self.eps = validate.real(eps, "eps", 0.0)

    def _step(self, parameter: Array, gradient: Array, kept: list[Array], threads: int) -> None:
        kind = parameter.dtype.type
        lr, decay, eps = kind(self.lr), kind(self.weight_decay), kind(self.eps)
        alpha, rest = kind(self.alpha), kind(1.0 - self.alpha)
        kernels.rmsprop(parameter, gradient, *kept, lr, decay, alpha, rest, eps, threads)


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
        super().__init__(lr, weight_decay, ("square", "change"))
        self.rho = validate.real(rho, "rho", 0.0, 1.0)
        self.eps = validate.real(eps, "eps", 0.0)

    def _step(self, parameter: Array, gradient: Array, kept: list[Array], threads: int) -> None:
        kind = parameter.dtype.type
        lr, decay, eps = kind(self.lr), kind(self.weight_decay), kind(self.eps)
        rho, rest = kind(self.rho), kind(1.0 - self.rho)
        kernels.adadelta(parameter, gradient, *kept, lr, decay, rho, rest, eps, threads)


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
        super().__init__(lr, weight_decay, ("first", "second"))
        first, second = checks.two(betas, "betas")
        self.betas = (
            validate.real(first, "betas[0]", 0.0, 1.0, below=True),
            validate.real(second, "betas[1]", 0.0, 1.0, below=True),
        )
        self.eps = validate.real(eps, "eps", 0.0)

    def _step(self, parameter: Array, gradient: Array, kept: list[Array], threads: int) -> None:
        kind = parameter.dtype.type
        beta_1, beta_2 = self.betas
        rate = kind(self.lr / (1.0 - beta_1**self.steps))
        root = kind(math.sqrt(1.0 - beta_2**self.steps))
        decay, eps, kept_2 = kind(self.weight_decay), kind(self.eps), kind(beta_2)
        rest_1, rest_2 = kind(1.0 - beta_1), kind(1.0 - beta_2)
        kernels.adam(parameter, gradient, *kept, rate, decay, rest_1, kept_2, rest_2, root, eps, threads)
