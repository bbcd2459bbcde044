"""An operator: registered with PyTorch, and called past its dispatcher where nothing would notice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .direct import plain, recorded

Prepare = Callable[[Any, tuple[Any, ...], Any], None]
Gradients = Callable[..., Any]


class Operator:
    """A function of tensors with a gradient, ``torch.ops.jitconv.<name>``.

    The dispatcher takes 30 us for a call of a custom operator, and 220 us if a gradient is recorded and taken; past it
    they are 3 and 95 us.

    Parameters
    ----------
    schema : str
        Its name, arguments and results in PyTorch's notation.
    run : callable
        Computes it by kernels alone.
    fake : callable
        Returns empty results from tensors without memory.
    prepare, gradients : callable
        ``setup_context(ctx, inputs, output)`` and ``backward(ctx, *dy)``, as in `torch.autograd.Function`.
    """

    def __init__(
        self, schema: str, run: Callable[..., Any], *, fake: Callable[..., Any], prepare: Prepare, gradients: Gradients
    ) -> None:
        name, _, arguments = schema.partition("(")
        self._run = run
        self.registered = torch.library.custom_op(
            f"jitconv::{name}", run, mutates_args=(), device_types="cpu", schema=f"({arguments}"
        )
        self.registered.register_fake(fake)
        self.registered.register_autograd(gradients, setup_context=prepare)

        def forward(ctx: Any, *arguments: Any) -> Any:
            made = run(*arguments)
            prepare(ctx, arguments, made)
            return made

        methods = {"forward": staticmethod(forward), "backward": staticmethod(gradients)}
        self._function: Any = type(name, (torch.autograd.Function,), methods)

    def __call__(self, *arguments: Any) -> Any:
        """Compute it; all arguments must be given."""
        tensors = [one for one in arguments if isinstance(one, Tensor)]
        if not plain(tensors):
            return self.registered(*arguments)
        if recorded(tensors):
            return self._function.apply(*arguments)
        return self._run(*arguments)
