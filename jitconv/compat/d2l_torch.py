"""What `d2l` needs on tensors of PyTorch, with gradients. Imported only where a tensor comes in."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np

from ..conv import conv2d, conv2d_backward, conv_transpose2d, conv_transpose2d_backward
from ..pool import avg_pool2d, avg_pool2d_backward, max_pool2d
from .arrays import Array, as_array
from .ties import max_pool2d_backward

torch: Any = importlib.import_module("torch")


def _array(tensor: Any) -> Array:
    """Return a tensor's numbers, which may be on another device, as an array; it may share the memory."""
    return np.asarray(tensor.detach().cpu().numpy())


def _tensor(array: Array, like: Any) -> Any:
    return torch.from_numpy(np.ascontiguousarray(array)).to(like.device)


def _of_array(value: Any, name: str) -> Any:
    """Return what is no tensor as one, float32 if it is, else float64."""
    a = as_array(value, name)
    return torch.from_numpy(np.array(a, np.float32 if a.dtype == np.float32 else np.float64))


_once: Any = torch.autograd.function.once_differentiable


def _gradients(backward: Any) -> Any:
    """Return the backward pass of an operation with weights, from jitconv's function for it."""

    def run(ctx: Any, dy: Any) -> Any:
        x, w = ctx.saved_tensors
        gradients = backward(_array(dy), _array(x), _array(w), needs=(*ctx.needs_input_grad, False))
        return tuple(None if one is None else _tensor(one, x) for one in gradients[:2])

    return staticmethod(_once(run))


class _Correlate(torch.autograd.Function):  # type: ignore[misc]
    """`conv2d` of x (C, H, W) with w (F, C, KH, KW)."""

    @staticmethod
    def forward(ctx: Any, x: Any, w: Any) -> Any:
        ctx.save_for_backward(x, w)
        return _tensor(conv2d(_array(x), _array(w)), x)

    backward = _gradients(conv2d_backward)


class _Spread(torch.autograd.Function):  # type: ignore[misc]
    """`conv_transpose2d` of x (C, H, W) with w (C, F, KH, KW)."""

    @staticmethod
    def forward(ctx: Any, x: Any, w: Any) -> Any:
        ctx.save_for_backward(x, w)
        return _tensor(conv_transpose2d(_array(x), _array(w)), x)

    backward = _gradients(conv_transpose2d_backward)


def _pool_gradient(ctx: Any, dy: Any) -> Any:
    (x,) = ctx.saved_tensors
    if ctx.mode == "max":
        dx = max_pool2d_backward(_array(dy), _array(x), ctx.size, stride=1, ties="split")
    else:
        dx = avg_pool2d_backward(_array(dy), tuple(x.shape), ctx.size, stride=1)
    return _tensor(dx, dy), None, None


class _Pool(torch.autograd.Function):  # type: ignore[misc]
    """Pooling of x (C, H, W) at stride 1; equal pixels of a window share the gradient, as in PyTorch's `max()`."""

    @staticmethod
    def forward(ctx: Any, x: Any, size: tuple[int, int], mode: str) -> Any:
        ctx.save_for_backward(x)
        ctx.size, ctx.mode = size, mode
        pool = max_pool2d if mode == "max" else avg_pool2d
        return _tensor(pool(_array(x), size, stride=1), x)

    backward = staticmethod(_once(_pool_gradient))


class TensorOperations:
    """The operations of `d2l` on tensors."""

    correlate = staticmethod(_Correlate.apply)
    spread = staticmethod(_Spread.apply)
    pool = staticmethod(_Pool.apply)
    matmul = staticmethod(torch.matmul)
    zeros_like = staticmethod(torch.zeros_like)

    @staticmethod
    def inputs(**values: Any) -> tuple[Any, ...]:
        """Return tensors in the dtype in which they are computed."""
        tensors = []
        for name, value in values.items():
            tensor = value if isinstance(value, torch.Tensor) else _of_array(value, name)
            if tensor.is_complex():
                raise TypeError(f"`{name}` must be a tensor of real numbers, got {tensor.dtype}")
            if tensor.layout != torch.strided or tensor.is_meta:
                raise TypeError(f"`{name}` must be a tensor that holds its numbers one by one, got {tensor.layout}")
            tensors.append(tensor)
        single = all(tensor.dtype == torch.float32 for tensor in tensors)
        return tuple(tensor.to(torch.float32 if single else torch.float64) for tensor in tensors)

    @staticmethod
    def result(y: Any, preserve_dtype: bool, *given: Any) -> Any:
        """Return a result in the dtype in which it is handed back."""
        dtypes = [getattr(value, "dtype", None) for value in given]
        return y if preserve_dtype and torch.float64 in dtypes else y.to(torch.get_default_dtype())
