"""What runs for a convolution, and why: shapes in, a frozen plan out.  Pure Python, nothing is computed.

A pass is cut into strips (rows of one image, or whole images) whose scratch stays in a core's L2, and the strips
into units that the threads share evenly. `direct.py`, `planes.py`, `winograd.py` and `winograd_weights.py` find the
best cut of their algorithms by the cost model of `cost.py`; here the algorithms are compared.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import threading
from collections.abc import Callable, Iterator

from . import (
    depthwise,
    depthwise_planes,
    direct,
    planes,
    planes_data,
    planes_weights,
    validate,
    winograd,
    winograd_weights,
)
from .cost import NOMINAL_THREADS, SMALL, PassPlan, packed_cycles
from .kernels.transforms import Form
from .problem import ConvProblem, Correlation, WeightGradient
from .threads import available_threads
from .winograd import WinogradPass
from .winograd_weights import WinogradWeights

ALGORITHMS = ("auto", "direct", "im2col", *winograd.ALGORITHMS)

# "auto" leaves direct for a gain that the model's error leaves over (asv_benchmarks/plan_choice.py).
MARGIN = 0.95

# What `resolve` makes of "auto" where the packed weights are kept.
AUTO_KEPT = "auto, kept weights"

Costed = tuple[float, PassPlan]

_local = threading.local()


@contextlib.contextmanager
def without_winograd() -> Iterator[None]:
    """Keep "auto" from choosing Winograd inside a `with` block, in this Python thread: for direct's rounding.

    The environment variable ``JITCONV_WINOGRAD=0`` does it for a process.
    """
    before = getattr(_local, "without_winograd", False)
    _local.without_winograd = True
    try:
        yield
    finally:
        _local.without_winograd = before


def resolve(p: ConvProblem, algorithm: str, kept: bool = False) -> str:
    """Return `algorithm`, or "direct" for an "auto" that may not choose Winograd.

    `kept`: the weights are packed already, which counts for Winograd.
    """
    if algorithm in winograd.ALGORITHMS:
        validate.winograd_fits(algorithm, winograd.form_of(p, algorithm) is not None)
    if algorithm != "auto":
        return algorithm
    if winograd.form_of(p, "winograd") is None or getattr(_local, "without_winograd", False):
        return "direct"
    if os.environ.get("JITCONV_WINOGRAD") == "0":
        return "direct"
    return AUTO_KEPT if kept else "auto"


@dataclasses.dataclass(frozen=True)
class ConvPlan:
    """What `conv2d` and `conv2d_backward` do for one problem, pass by pass."""

    problem: ConvProblem
    forward: PassPlan
    backward_data: PassPlan
    backward_weights: PassPlan

    @classmethod
    def of(cls, problem: ConvProblem, algorithm: str, n_threads: int) -> ConvPlan:
        """Return the plans of all passes; those of one image where there is none, and so nothing to run."""
        p = problem if problem.n else dataclasses.replace(problem, n=1)
        makers = plan_forward, plan_backward_data, plan_backward_weights
        return cls(problem, *(make(p, algorithm, n_threads) for make in makers))

    @property
    def algorithm(self) -> str:
        """The algorithm of the forward pass."""
        return self.forward.algorithm

    def __str__(self) -> str:
        p = self.problem
        lines = [
            f"conv2d {p.layout} {p.dtype}: ({p.n}, {p.c}, {p.h}, {p.w}) * ({p.f}, {p.c // p.groups}, "
            f"{p.kernel[0]}, {p.kernel[1]}), {p.flops / 1e9:.2f} GFLOP a pass"
        ]
        lines += [f"  {name:17s} {getattr(self, name)}" for name in ("forward", "backward_data", "backward_weights")]
        return "\n".join(lines)


def _cycles(costed: Costed, kept: bool) -> float:
    """Return the cycles of a plan for the nominal threads; `kept`: without the packing of weights."""
    cycles, plan = costed
    return cycles - packed_cycles(plan.packed) / NOMINAL_THREADS if kept else cycles


def _choose(algorithm: str, plans: Callable[[int, str], Costed | None], n_threads: int) -> PassPlan:
    """Return the plan of the algorithm asked for or, for "auto", of Winograd where it is clearly cheaper.

    `plans` makes a plan for so many threads and an algorithm, None if the pass has none. Results must not depend on the
    threads, so the choice is made for a fixed number. Work that is too small to share gets one thread, whatever their
    number is.
    """
    if algorithm in ("auto", AUTO_KEPT):
        plain, fast = plans(NOMINAL_THREADS, "direct"), plans(NOMINAL_THREADS, "winograd")
        kept = algorithm == AUTO_KEPT
        gains = plain and fast and _cycles(fast, kept) < MARGIN * _cycles(plain, kept)
        algorithm = "winograd" if gains else "direct"
    alone = plans(1, algorithm)
    if alone is None:
        algorithm, alone = "direct", plans(1, "direct")
    shared = alone if alone and alone[0] <= SMALL else plans(n_threads, algorithm)
    assert shared  # direct has a plan for every pass
    return shared[1]


def _correlation_plans(
    make: Callable[[bool], Correlation],
    pass_of: Callable[[Form], WinogradPass | None],
    problem: ConvProblem,
    sums: depthwise.Sums | None,
    spread: planes_data.PlanesData | None = None,
) -> Callable[[int, str], Costed | None]:
    """Return the plans of forward or backward-data, for `_choose`."""

    def direct_plan(count: int) -> Costed:
        alike = planes.Planes.of(make(False))
        ways: list[Callable[[int], Costed]] = [functools.partial(direct.plan_correlation, make, "direct")]
        if alike:
            ways.append(functools.partial(planes.plan_planes, alike))
        if spread:
            ways.append(functools.partial(planes_data.plan_planes_data, spread))
        return min(ways, key=lambda way: way(NOMINAL_THREADS)[0])(count)

    def plans(count: int, name: str) -> Costed | None:
        if sums and depthwise_planes.serves(problem):
            return depthwise_planes.plan(problem, problem.n * problem.c, count)
        if sums:
            return depthwise.plan_sums(sums, count)
        if name == "direct":
            return direct_plan(count)
        if name not in winograd.ALGORITHMS:
            return direct.plan_correlation(make, name, count)
        form = winograd.form_of(problem, name)
        each = pass_of(form) if form else None
        return winograd.plan_pass(each, name, count) if each else None

    return plans


@functools.lru_cache(maxsize=1024)
def plan_forward(problem: ConvProblem, algorithm: str, n_threads: int) -> PassPlan:
    """Return the plan of the forward pass; `algorithm` has been through `resolve`."""
    make = functools.partial(Correlation.forward, problem)
    sums = depthwise.Sums.forward(problem) if depthwise.runs(problem, algorithm) else None
    plans = _correlation_plans(make, functools.partial(WinogradPass.forward, problem), problem, sums)
    return _choose(algorithm, plans, n_threads)


def settled_forward(p: ConvProblem, algorithm: str) -> str | None:
    """Return the algorithm of a forward pass that runs on one thread without Winograd, whatever the settings.

    None if threads may share it, or if Winograd computes it or is what "auto" would choose were it allowed.
    """
    if algorithm in winograd.ALGORITHMS:
        return None
    if algorithm == "auto" and not winograd.form_of(p, "winograd"):
        algorithm = "direct"
    chosen = plan_forward(p, algorithm, available_threads())
    return chosen.algorithm if chosen.threads == 1 and chosen.algorithm not in winograd.ALGORITHMS else None


@functools.lru_cache(maxsize=1024)
def plan_backward_data(problem: ConvProblem, algorithm: str, n_threads: int) -> PassPlan:
    """Return the plan of the gradient of the input; `algorithm` has been through `resolve`."""
    make = functools.partial(Correlation.backward_data, problem)
    sums = depthwise.Sums.backward_data(problem) if depthwise.runs(problem, algorithm) else None
    spread = planes_data.PlanesData.of(problem)
    plans = _correlation_plans(make, functools.partial(WinogradPass.backward_data, problem), problem, sums, spread)
    return _choose(algorithm, plans, n_threads)


@functools.lru_cache(maxsize=1024)
def plan_backward_weights(problem: ConvProblem, algorithm: str, n_threads: int) -> PassPlan:
    """Return the plan of the gradient of the weights; `algorithm` has been through `resolve`."""

    def direct_plan(count: int) -> Costed:
        alike = planes_weights.PlanesWeights.of(problem)
        plain = direct.plan_weights(WeightGradient(problem, False), NOMINAL_THREADS)
        if alike and planes_weights.plan_planes_weights(alike, NOMINAL_THREADS)[0] < plain[0]:
            return planes_weights.plan_planes_weights(alike, count)
        return direct.plan_weights(WeightGradient(problem, False), count)

    def plans(count: int, name: str) -> Costed | None:
        if depthwise.runs(problem, name):
            if depthwise_planes.serves_weights(problem):
                return depthwise_planes.plan(problem, problem.c, count)
            return depthwise.plan_weights(problem, count)
        if name == "direct":
            return direct_plan(count)
        if name not in winograd.ALGORITHMS:
            return direct.plan_weights(WeightGradient(problem, name == "im2col"), count)
        form = winograd.form_of(problem, name)
        return winograd_weights.plan_weights(WinogradWeights(problem, form), name, count) if form else None

    return _choose(algorithm, plans, n_threads)
