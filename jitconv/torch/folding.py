"""Weights as a convolution in use needs them: in C order and, if batch normalisation follows, multiplied by its scale.

They are made once, packed once, and kept until a value of what they are made of changes. That is seen by a checksum of
all of it at each call. PyTorch's own counters of changes do not see those that are made through ``.data`` or NumPy.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..kept import KeptWeights, fingerprint
from ..threads import get_num_threads
from .arrays import Array, array, is_channels_last
from .team import torch_threads


class _Unchanging(KeptWeights):
    """Packed weights that nobody else can change: they need no checksum of their own."""

    def _mark(self, w: Array, b: Array | None, threads: int) -> tuple[bytes, bytes]:
        return b"", b""


class InUse(NamedTuple):
    """The weights and the bias that a convolution is given, and where they are kept packed."""

    weight: Tensor
    bias: Tensor | None
    kept: KeptWeights | None


class Folded:
    """What the last call with this object was given, for the next one. Python threads may share it."""

    def __init__(self) -> None:
        self._kept = KeptWeights()
        self._held: tuple[tuple[Any, ...], InUse] | None = None

    def __reduce__(self) -> tuple[type[Folded], tuple[()]]:
        return Folded, ()  # a copy makes its own

    def parameters(self, weight: Tensor, bias: Tensor | None, norm: nn.BatchNorm2d | None) -> InUse:
        """Return the weights and the bias of a convolution and the normalisation that may follow it."""
        if norm is None and not is_channels_last(weight):
            return InUse(weight, bias, self._kept)
        marks = _checksum(weight), *map(_bytes, (bias, *_statistics(norm))), None if norm is None else norm.eps
        held = self._held
        if held is None or held[0] != marks:
            made = _fold(weight.detach(), bias, norm)
            # Published when it is complete: another Python thread may be reading it.
            held = self._held = marks, InUse(*made, _Unchanging())
        return held[1]


def _checksum(weight: Tensor) -> bytes:
    values = array(weight, is_channels_last(weight))
    with torch_threads():
        return fingerprint(values, get_num_threads())


def _bytes(x: Tensor | None) -> bytes | None:
    return None if x is None else array(x).tobytes()


def _statistics(norm: nn.BatchNorm2d | None) -> tuple[Tensor | None, ...]:
    return () if norm is None else (norm.weight, norm.bias, norm.running_mean, norm.running_var)


def _fold(weight: Tensor, bias: Tensor | None, norm: nn.BatchNorm2d | None) -> tuple[Tensor, Tensor | None]:
    """Return weights in C order and the bias, of which nothing is shared with a parameter."""
    with torch.no_grad():
        if norm is None:
            return weight.contiguous(), None if bias is None else bias.clone()
        gamma, beta, mean, variance = (None if one is None else one.double() for one in _statistics(norm))
        assert mean is not None
        assert variance is not None
        scale = torch.rsqrt(variance + norm.eps)
        if gamma is not None:
            scale = scale * gamma
        shift = -mean * scale if bias is None else (bias.double() - mean) * scale
        if beta is not None:
            shift = shift + beta
        return weight.contiguous() * scale.to(weight.dtype)[:, None, None, None], shift.to(weight.dtype)
