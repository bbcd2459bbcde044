"""Twins of PyTorch's modules: subclasses with the same constructors, parameters and state, computed by jitconv.

What jitconv does not serve (other devices and dtypes, autocast, transforms of `torch.func`) a twin leaves to the class
that it is derived from, so that a model may move between devices.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from . import checks, functional
from .direct import in_transform
from .folding import Folded, InUse


def serves(x: Any, *parameters: Tensor | None) -> bool:
    """Return whether jitconv computes with these tensors here and now."""
    return (
        isinstance(x, Tensor)
        and checks.refusal(x, *parameters) is None
        and not torch.is_autocast_enabled("cpu")
        and not in_transform()
    )


class Twin(nn.Module):
    """What the twins share; it has no parameters and no state that is saved."""

    @classmethod
    def original(cls) -> type[nn.Module]:
        """Return PyTorch's class."""
        return next(kind for kind in cls.__mro__ if kind.__module__.startswith("torch."))

    @classmethod
    def refuses(cls, module: nn.Module) -> str | None:
        """Return why jitconv does not compute a module of PyTorch's class, None if it does."""
        return None


class Conv2d(Twin, nn.Conv2d):
    """`torch.nn.Conv2d`, computed by jitconv.

    After `eval`, and where no gradient is recorded, the packed weights are kept from call to call
    (`jitconv.KeptWeights`); a change of the weight, in place or not, is noticed.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Return the convolution of (N, C, H, W) or (C, H, W) images."""
        if not serves(input, self.weight, self.bias):
            return super().forward(input)
        window = self.stride, self.own_padding(), self.dilation, self.groups
        return functional.run_conv2d(*self.padded(input), *window, use=self.in_use)

    def in_use(self, norm: nn.BatchNorm2d | None = None) -> InUse:
        """Return the weights and the bias, with those of a normalisation that follows, and where they are kept."""
        if self.training:
            return InUse(self.weight, self.bias, None)
        folded: Folded = self.__dict__.setdefault("_folded", Folded())
        return folded.parameters(self.weight, self.bias, norm)

    def train(self, mode: bool = True) -> Any:
        """Behave as in training, or, with False, as in use; training gives the memory of packed weights back."""
        if mode:
            self.__dict__.pop("_folded", None)
        return super().train(mode)

    def padded(self, input: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return the images, padded where the padding is not of zeros, and the parameters."""
        if self.padding_mode != "zeros":
            input = pad(input, self._reversed_padding_repeated_twice, mode=self.padding_mode)
        return input, self.weight, self.bias

    def own_padding(self) -> Any:
        """Return the padding of zeros that the convolution is to add."""
        return self.padding if self.padding_mode == "zeros" else 0


class ConvTranspose2d(Twin, nn.ConvTranspose2d):
    """`torch.nn.ConvTranspose2d`, computed by jitconv."""

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Return the transposed convolution of (N, C, H, W) or (C, H, W) images."""
        if self.padding_mode != "zeros" or not serves(input, self.weight, self.bias):
            return super().forward(input, output_size)
        extra = self._output_padding(input, output_size, self.stride, self.padding, self.kernel_size, 2, self.dilation)
        window = self.stride, self.padding, tuple(extra), self.groups, self.dilation
        return functional.conv_transpose2d(input, self.weight, self.bias, *window)


class MaxPool2d(Twin, nn.MaxPool2d):
    """`torch.nn.MaxPool2d`, computed by jitconv."""

    def forward(self, input: Tensor) -> Any:
        """Return the largest pixel of each window, with its index if asked for."""
        if not serves(input):
            return super().forward(input)
        window = self.kernel_size, self.stride, self.padding, self.dilation
        return functional.max_pool2d(input, *window, self.ceil_mode, self.return_indices)


class AvgPool2d(Twin, nn.AvgPool2d):
    """`torch.nn.AvgPool2d`, computed by jitconv."""

    def forward(self, input: Tensor) -> Tensor:
        """Return the average of each window."""
        if not serves(input):
            return super().forward(input)
        window = self.kernel_size, self.stride, self.padding
        return functional.avg_pool2d(input, *window, self.ceil_mode, self.count_include_pad, self.divisor_override)


class AdaptiveAvgPool2d(Twin, nn.AdaptiveAvgPool2d):
    """`torch.nn.AdaptiveAvgPool2d`; jitconv computes it where the output is 1x1."""

    @classmethod
    def refuses(cls, module: Any) -> str | None:
        """Return why other outputs are left to PyTorch."""
        return None if checks.is_single_pixel(module.output_size) else "its output is not 1x1"

    def forward(self, input: Tensor) -> Tensor:
        """Return the average of each cell."""
        if not checks.is_single_pixel(self.output_size) or not serves(input):
            return super().forward(input)
        return functional.adaptive_avg_pool2d(input, 1)


class AdaptiveMaxPool2d(Twin, nn.AdaptiveMaxPool2d):
    """`torch.nn.AdaptiveMaxPool2d`; jitconv computes it where the output is 1x1."""

    @classmethod
    def refuses(cls, module: Any) -> str | None:
        """Return why other outputs are left to PyTorch."""
        return None if checks.is_single_pixel(module.output_size) else "its output is not 1x1"

    def forward(self, input: Tensor) -> Any:
        """Return the largest pixel of each cell, with its index if asked for."""
        if not checks.is_single_pixel(self.output_size) or not serves(input):
            return super().forward(input)
        return functional.adaptive_max_pool2d(input, 1, self.return_indices)
