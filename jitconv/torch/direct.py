"""Whether PyTorch's dispatcher has anything to do for a call but to forward it to the kernels."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.jit as tracing
from torch import Tensor
from torch.autograd import forward_ad
from torch.compiler import is_compiling

_PLAIN = (torch.Tensor, torch.nn.Parameter)

try:  # Names of PyTorch's own: where they are missing, every call is dispatched.
    from torch._C import _len_torch_dispatch_stack as _modes
    from torch._C._functorch import maybe_current_level as _level

    _KNOWN = hasattr(forward_ad, "_current_level")
except ImportError:
    _KNOWN = False


def in_transform() -> bool:
    """Return whether a transform of `torch.func` (vmap, grad, ...) is under way, or a forward-mode gradient."""
    return _KNOWN and not is_compiling() and (_level() is not None or forward_ad._current_level >= 0)


def plain(tensors: Iterable[Tensor]) -> bool:
    """Return whether nothing traces, transforms or replaces what is computed from these tensors."""
    if is_compiling() or not _KNOWN or _modes() or in_transform() or tracing.is_tracing():
        return False
    return all(type(one) in _PLAIN for one in tensors)


def recorded(tensors: Iterable[Tensor]) -> bool:
    """Return whether a gradient may be wanted for one of these tensors."""
    return torch.is_grad_enabled() and any(one.requires_grad for one in tensors)


def goes_direct(*tensors: Tensor | None) -> bool:
    """Return whether a call may go to the kernels alone: nothing else is done, and no gradient is wanted."""
    given = [one for one in tensors if one is not None]
    return plain(given) and not recorded(given)
