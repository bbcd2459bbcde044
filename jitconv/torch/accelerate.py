"""Changing the modules of a model to jitconv's, and back."""

from __future__ import annotations

import dataclasses
from typing import Any

from torch import nn

from . import checks
from .measure import Faster, measure
from .modules import AdaptiveAvgPool2d, AdaptiveMaxPool2d, AvgPool2d, Conv2d, ConvTranspose2d, MaxPool2d, Twin
from .sequential import Sequential

_TWINS: tuple[type[Twin], ...] = (
    Conv2d, ConvTranspose2d, MaxPool2d, AvgPool2d, AdaptiveAvgPool2d, AdaptiveMaxPool2d, Sequential,
)  # fmt: skip
TWIN_OF: dict[type[nn.Module], type[Twin]] = {twin.original(): twin for twin in _TWINS}
ORIGINAL_OF: dict[type[nn.Module], type[nn.Module]] = {twin: original for original, twin in TWIN_OF.items()}


@dataclasses.dataclass(frozen=True)
class Report:
    """What `accelerate` or `restore` did; ``print`` it to read it.

    Attributes
    ----------
    changed : dict of str to str
        Names of modules and what they have become.
    left : dict of str to str
        Names of modules that convolve or pool and were left alone, and why.
    """

    changed: dict[str, str]
    left: dict[str, str]

    def __str__(self) -> str:
        lines = [f"{len(self.changed)} module{'s' if len(self.changed) != 1 else ''} changed"]
        lines += [f"  {name or '(the model)'}: {what}" for name, what in self.changed.items()]
        if self.left:
            lines += [f"{len(self.left)} left alone"]
            lines += [f"  {name or '(the model)'}: {why}" for name, why in self.left.items()]
        return "\n".join(lines)


_FAMILIES = tuple(twin.original() for twin in _TWINS if twin is not Sequential)


def _why_not(module: nn.Module) -> str | None:
    """Return why a module is left alone; an empty text if it neither convolves nor pools, None if it is changed."""
    kind = type(module)
    twin = TWIN_OF.get(kind)
    if twin is None:
        if isinstance(module, Twin) or not isinstance(module, _FAMILIES):
            return ""
        return f"{kind.__module__}.{kind.__qualname__} is a class of its own"
    if "forward" in module.__dict__:
        return "its forward has been replaced"
    for name, parameter in module.named_parameters(recurse=False):
        problem = checks.refusal(parameter)
        if problem:
            return f"{name}: {problem}"
    return twin.refuses(module)


def accelerate(model: nn.Module, example: Any = None) -> Report:
    """Let jitconv compute a model's convolutions and poolings, in place.

    The modules become those of `jitconv.torch`: same objects, parameters, hooks and state, another class. What jitconv
    does not serve is left alone: other devices and dtypes than float32 and float64 on the CPU, and subclasses.
    `restore` undoes it.

    Parameters
    ----------
    model : torch.nn.Module
    example : tensor or tuple, optional
        The arguments of a call of the model. If given, each module is timed once on what it gets in such a call, with
        PyTorch's class and with jitconv's: forward and backward if it is in training, forward if not. What is slower
        with jitconv is left alone. The call leaves the model's buffers and the random numbers as they were.

    Returns
    -------
    Report
        What was changed, and what was left alone and why.

    Raises
    ------
    TypeError
        If `model` is no torch.nn.Module.
    """
    checks.module(model)
    times: dict[nn.Module, Faster] = {}
    if example is not None:
        wanted = {module: TWIN_OF[type(module)] for module in model.modules() if _why_not(module) is None}
        single = {module: twin for module, twin in wanted.items() if twin is not Sequential}
        times = measure(model, example if isinstance(example, tuple) else (example,), single)
    changed, left = {}, {}
    for name, module in model.named_modules():
        why = _why_not(module)
        if why is None and module in times and not times[module].gains:
            why = f"it takes {times[module]}"
        if why:
            left[name] = why
        elif why is None:
            module.__class__ = TWIN_OF[type(module)]
            suffix = f", {times[module]}" if module in times else ""
            changed[name] = f"jitconv.torch.{type(module).__name__}{suffix}"
    return Report(changed, left)


def restore(model: nn.Module) -> Report:
    """Give a model's modules PyTorch's classes back, in place: what `accelerate` changed, and modules made as such.

    Parameters
    ----------
    model : torch.nn.Module

    Returns
    -------
    Report
        What was changed, and subclasses of jitconv's modules, which are left alone.

    Raises
    ------
    TypeError
        If `model` is no torch.nn.Module.
    """
    checks.module(model)
    changed, left = {}, {}
    for name, module in model.named_modules():
        kind = type(module)
        if kind in ORIGINAL_OF:
            module.__class__ = ORIGINAL_OF[kind]
            module.__dict__.pop("_folded", None)
            changed[name] = f"torch.nn.{type(module).__name__}"
        elif isinstance(module, Twin):
            left[name] = f"{kind.__module__}.{kind.__qualname__} is a class of its own"
    return Report(changed, left)
