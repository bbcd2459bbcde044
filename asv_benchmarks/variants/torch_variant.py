"""PyTorch in both memory formats. The passes are its operators; nothing here requires a gradient."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch

from .problems import Array, Call, Conv, Pool

aten = torch.ops.aten


def _tensors(arrays: dict[str, Array], channels_last: bool) -> dict[str, torch.Tensor]:
    made = {name: torch.from_numpy(a) for name, a in arrays.items()}
    if channels_last:
        made = {name: t.to(memory_format=torch.channels_last) if t.ndim == 4 else t for name, t in made.items()}
    return made


def _read(result: object) -> tuple[Array, ...]:
    results = result if isinstance(result, tuple | list) else (result,)
    return tuple(np.ascontiguousarray(t.numpy()) for t in results if t is not None)


def convolution(layer: Conv, arrays: dict[str, Array], channels_last: bool, threads: int) -> dict[str, Call]:
    """Return a call of each pass."""
    torch.set_num_threads(threads)
    given = _tensors(arrays, channels_last)
    x, w, b, dy = (given[name] for name in ("x", "w", "b", "dy"))
    step = [layer.stride] * 2, [layer.padding] * 2

    def backward(*needs: bool) -> Call:
        rest = [1, 1], False, [0, 0], 1, list(needs)
        return Call(partial(aten.convolution_backward, dy, x, w, [layer.f], *step, *rest), _read)

    return {
        "forward": Call(partial(torch.nn.functional.conv2d, x, w, b, *step), _read),
        "backward_data": backward(True, False, False),
        "backward_weights": backward(False, True, True),
    }


def pooling(layer: Pool, arrays: dict[str, Array], channels_last: bool, threads: int) -> dict[str, Call]:
    """Return a call of each direction."""
    torch.set_num_threads(threads)
    given = _tensors(arrays, channels_last)
    x, dy = given["x"], given["dy"]
    if not layer.kernel:
        pool = partial(torch.nn.functional.adaptive_max_pool2d, x, 1, return_indices=True)
        return {
            "max_forward": Call(pool, lambda result: _read(result)[:1]),
            "max_backward": Call(partial(aten.adaptive_max_pool2d_backward, dy, x, pool()[1]), _read),
            "average_forward": Call(partial(torch.mean, x, (2, 3), keepdim=True), _read),
            "average_backward": Call(partial(aten._adaptive_avg_pool2d_backward, dy, x), _read),
        }
    window = [layer.kernel] * 2, [layer.stride] * 2, [layer.padding] * 2
    pool = partial(aten.max_pool2d_with_indices, x, *window)
    back = partial(aten.max_pool2d_with_indices_backward, dy, x, *window, [1, 1], False, pool()[1])
    return {
        "max_forward": Call(pool, lambda result: _read(result)[:1]),
        "max_backward": Call(back, _read),
        "average_forward": Call(partial(aten.avg_pool2d, x, *window), _read),
        "average_backward": Call(partial(aten.avg_pool2d_backward, dy, x, *window, False, True, None), _read),
    }
