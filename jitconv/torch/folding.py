"""Weights as a convolution in use needs them: in C order and, if batch normalisation follows, multiplied by its scale.

They are made once and kept until a value of what they are made of changes. That is seen by checksums of all of it at
each call, which take a tenth of the time of making them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..kept import KeptWeights
from ..kernels.checksum import checksum
from .arrays import array, is_channels_last


def _mark(x: Tensor | None) -> bytes:
    """Return what tells the values of a tensor from others: a checksum of its memory, all of it if it is small."""
    if x is None:
        return b""
    values = array(x, is_channels_last(x))
    if values.ndim == 1:
        return values.tobytes()
    total = np.empty(1, np.int64)
    checksum(values.dtype, 1, values, values.nbytes, total)
    return total.tobytes()


class Folded:
    """The weights and the bias of the last call with this object, and their packed form."""

    def __init__(self) -> None:
        self.kept = KeptWeights()
        self._held: tuple[tuple[Any, ...], Tensor, Tensor | None] | None = None

    def __reduce__(self) -> tuple[type[Folded], tuple[()]]:
        return Folded, ()

    def parameters(
        self, weight: Tensor, bias: Tensor | None, norm: nn.BatchNorm2d | None
    ) -> tuple[Tensor, Tensor | None]:
        """Return the weights and the bias of the convolution and what follows it."""
        if norm is None and not is_channels_last(weight):
            return weight, bias
        sources = weight, bias, *(() if norm is None else _statistics(norm))
        marks = *(_mark(one) for one in sources), None if norm is None else norm.eps
        held = self._held
        if held is None or held[0] != marks:
            # Published when it is complete: another Python thread may be reading it.
            held = self._held = marks, *_fold(weight.detach(), bias, norm)
        return held[1], held[2]


def _statistics(norm: nn.BatchNorm2d) -> tuple[Tensor | None, ...]:
    return norm.weight, norm.bias, norm.running_mean, norm.running_var


def _fold(weight: Tensor, bias: Tensor | None, norm: nn.BatchNorm2d | None) -> tuple[Tensor, Tensor | None]:
    """Return weights in C order and the bias, of which nothing is shared with a parameter."""
    if norm is None:
        return weight.contiguous(), None if bias is None else bias.detach().clone()
    gamma, beta, mean, variance = (None if one is None else one.detach().double() for one in _statistics(norm))
    assert mean is not None
    assert variance is not None
    scale = torch.rsqrt(variance + norm.eps)
    if gamma is not None:
        scale = scale * gamma
    shift = (0 if bias is None else bias.detach().double()) - mean
    folded = shift * scale if beta is None else shift * scale + beta
    weights = weight.contiguous() * scale.to(weight.dtype)[:, None, None, None]
    return weights, folded.to(weight.dtype)
