"""`torch.nn.Sequential` whose convolutions take along what follows them: batch normalisation, ReLU and pooling."""

from __future__ import annotations

import functools
import itertools
from typing import Any

from torch import Tensor, nn
from torch.nn.modules import module as hooks

from . import checks, functional, fusion
from .direct import goes_direct
from .modules import Conv2d, MaxPool2d, Twin, serves


def _alone(module: nn.Module) -> bool:
    """Return whether nobody looks at what goes into a module or comes out of it."""
    watching = module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks
    return not any(watching) and "forward" not in module.__dict__


def _folds(conv: Conv2d, norm: nn.Module, x: Tensor) -> bool:
    """Return whether batch normalisation is a fixed scale and shift here, and no gradient is wanted."""
    return (
        type(norm) is nn.BatchNorm2d
        and not (conv.training or norm.training)
        and norm.running_mean is not None
        and norm.num_features == conv.out_channels
        and checks.refusal(conv.weight, norm.running_mean, norm.running_var, norm.weight, norm.bias) is None
        and goes_direct(x, conv.weight, conv.bias, norm.weight, norm.bias)
    )


def _is_square(pool: nn.Module) -> bool:
    """Return whether a module is the 2x2 max pooling that a convolution can take along."""
    if type(pool) not in (MaxPool2d, nn.MaxPool2d) or pool.return_indices or pool.ceil_mode:
        return False
    sizes = pool.kernel_size, pool.stride, pool.padding, pool.dilation
    return [tuple(checks.pair(size, "window", 0)) for size in sizes] == [(2, 2), (2, 2), (0, 0), (1, 1)]


class Sequential(Twin, nn.Sequential):
    """`torch.nn.Sequential`; a convolution (`jitconv.torch.Conv2d`) computes what follows it in the same pass.

    These are ReLU; in channels_last also 2x2 max pooling after ReLU; and after `eval`, where no gradient is recorded,
    batch normalisation before it, whose statistics are multiplied into the weights. Whether it does is decided at each
    call. Modules that are called by themselves, or that have hooks, compute by themselves.
    """

    def forward(self, input: Any) -> Any:
        """Return what the last module makes of it."""
        modules = list(self)
        while modules:
            taken = 0
            if type(modules[0]) is Conv2d:
                input, taken = _convolve(modules[0], modules[1:4], input)
            if not taken:
                input, taken = modules[0](input), 1
            modules = modules[taken:]
        return input


def _convolve(conv: Conv2d, followers: list[nn.Module], x: Any) -> tuple[Any, int]:
    """Return the result of a convolution with as many of its followers as go with it, and how many modules it is of.

    If none of them does, nothing is computed: x and 0.
    """
    if hooks._has_any_global_hook() or not _alone(conv) or not serves(x, conv.weight, conv.bias) or x.dim() != 4:
        return x, 0
    near = list(itertools.takewhile(_alone, followers))
    norm = near.pop(0) if near and _folds(conv, near[0], x) else None
    relu = bool(near) and type(near[0]) is nn.ReLU
    pools = relu and _is_square(near[1]) if len(near) > 1 else False
    if norm is None and not relu:
        return x, 0
    images, weight, bias = conv.padded(x)
    pools = pools and fusion.takes_pooling(images, weight, conv.groups)
    window = conv.stride, conv.own_padding(), conv.dilation, conv.groups
    use = functools.partial(conv.in_use, norm)
    y = functional.run_conv2d(images, weight, bias, *window, use=use, relu=relu, pools=pools)
    return y, 1 + (norm is not None) + relu + pools
