"""Print how fast pooling is, beside PyTorch and beside a copy of as many bytes.

    python asv_benchmarks/pooling.py [--dtype float32] [--rounds 15] [--calls 5] [--threads 2] [--only NAME]

Each row is one pass: `max` with argmax, average and global pooling, forward and backward. PyTorch's time is that of
its faster memory format, in milliseconds; the next two columns are how many times faster jitconv is in NCHW and NHWC.
The last two are its share of the bandwidth of a copy that reads and writes as many bytes between two arrays, cut into
one part for each thread; the bytes are those of the activations and gradients that a pass reads and writes, argmax not
counted. Everyone runs in turn, `--calls` calls in a row, and a figure is the median over the rounds of the fastest
call.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

import jitconv

try:
    import torch
except ImportError:
    torch = None

Call = Callable[[], object]


class Case(NamedTuple):
    """The shape of x in NCHW and the window; a kernel of 0 is the whole image."""

    x: tuple[int, int, int, int]
    kernel: int
    stride: int = 0
    padding: int = 0

    def __str__(self) -> str:
        window = f"{self.kernel}x{self.kernel}/{self.stride} padding {self.padding}" if self.kernel else "global"
        return f"{'x'.join(map(str, self.x))} {window}"


CASES = (
    Case((64, 64, 32, 32), 2, 2),
    Case((8, 64, 112, 112), 3, 2, 1),
    Case((16, 64, 28, 28), 3, 1, 1),
    Case((32, 512, 14, 14), 0),
)


class Pass(NamedTuple):
    """One row of the table: the calls of PyTorch in both memory formats and of jitconv in both layouts."""

    name: str
    torch: list[Call]
    ours: list[Call]
    moved: int


def formats(a: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return an NCHW array in both layouts."""
    return a, np.ascontiguousarray(a.transpose(0, 2, 3, 1))


def tensors(a: np.ndarray) -> list[torch.Tensor]:
    """Return an NCHW array as tensors of both memory formats."""
    made = torch.from_numpy(a)
    return [made, made.to(memory_format=torch.channels_last)]


def window_passes(case: Case, x: np.ndarray, dy: np.ndarray) -> Iterator[Pass]:
    """Yield the four passes over sliding windows."""
    layouts, aten, moved = ("NCHW", "NHWC"), torch.ops.aten, x.nbytes + dy.nbytes
    kernel, options = case.kernel, {"stride": case.stride, "padding": case.padding}
    square = [kernel] * 2, [case.stride] * 2, [case.padding] * 2
    xs, dys = formats(x), formats(dy)
    argmax = [
        jitconv.max_pool2d_with_argmax(a, kernel, layout=b, **options)[1] for a, b in zip(xs, layouts, strict=True)
    ]
    torch_x, torch_dy = tensors(x), tensors(dy)
    indices = [aten.max_pool2d_with_indices(a, *square)[1] for a in torch_x]

    def both(function: Callable[..., object], *arrays: tuple[object, ...]) -> list[Call]:
        each = zip(*arrays, layouts, strict=True)
        return [functools.partial(function, *given, kernel, layout=layout, **options) for *given, layout in each]

    shapes = tuple(a.shape for a in xs)
    yield Pass(
        "max forward",
        [functools.partial(aten.max_pool2d_with_indices, a, *square) for a in torch_x],
        both(jitconv.max_pool2d_with_argmax, xs),
        moved,
    )
    backward = aten.max_pool2d_with_indices_backward
    yield Pass(
        "max backward",
        [
            functools.partial(backward, b, a, *square, [1, 1], False, i)
            for a, b, i in zip(torch_x, torch_dy, indices, strict=True)
        ],
        both(jitconv.max_pool2d_backward, dys, tuple(argmax), shapes),
        moved,
    )
    yield Pass(
        "average forward",
        [functools.partial(aten.avg_pool2d, a, *square) for a in torch_x],
        both(jitconv.avg_pool2d, xs),
        moved,
    )
    yield Pass(
        "average backward",
        [
            functools.partial(aten.avg_pool2d_backward, b, a, *square, False, True, None)
            for a, b in zip(torch_x, torch_dy, strict=True)
        ],
        both(jitconv.avg_pool2d_backward, dys, shapes),
        moved,
    )


def global_passes(x: np.ndarray, dy: np.ndarray) -> Iterator[Pass]:
    """Yield the four passes over whole images."""
    layouts, functional = ("NCHW", "NHWC"), torch.nn.functional
    xs, dys = formats(x), formats(dy)
    torch_x, torch_dy = tensors(x), tensors(dy)
    argmax = [jitconv.global_max_pool2d(a, layout=b)[1] for a, b in zip(xs, layouts, strict=True)]
    indices = [functional.adaptive_max_pool2d(a, 1, return_indices=True)[1] for a in torch_x]
    aten = torch.ops.aten

    def both(function: Callable[..., object], *arrays: tuple[object, ...]) -> list[Call]:
        return [
            functools.partial(function, *given, layout=layout) for *given, layout in zip(*arrays, layouts, strict=True)
        ]

    shapes = tuple(a.shape for a in xs)
    yield Pass(
        "max forward",
        [functools.partial(functional.adaptive_max_pool2d, a, 1, return_indices=True) for a in torch_x],
        both(jitconv.global_max_pool2d, xs),
        x.nbytes,
    )
    yield Pass(
        "max backward",
        [
            functools.partial(aten.adaptive_max_pool2d_backward, b, a, i)
            for a, b, i in zip(torch_x, torch_dy, indices, strict=True)
        ],
        both(jitconv.global_max_pool2d_backward, dys, tuple(argmax), shapes),
        x.nbytes,
    )
    yield Pass(
        "average forward",
        [functools.partial(torch.mean, a, (2, 3), keepdim=True) for a in torch_x],
        both(jitconv.global_avg_pool2d, xs),
        x.nbytes,
    )
    yield Pass(
        "average backward",
        [functools.partial(aten._adaptive_avg_pool2d_backward, b, a) for a, b in zip(torch_x, torch_dy, strict=True)],
        both(jitconv.global_avg_pool2d_backward, dys, shapes),
        x.nbytes,
    )


def copier(moved: int, threads: int, pool: ThreadPoolExecutor) -> Call:
    """Return a copy that reads and writes `moved` bytes together, by all threads."""
    source, target = np.ones(moved // 2, np.uint8), np.empty(moved // 2, np.uint8)
    cuts = [moved // 2 * part // threads for part in range(threads + 1)]
    parts = [(target[a:b], source[a:b]) for a, b in itertools.pairwise(cuts)]

    def copy() -> None:
        others = [pool.submit(np.copyto, *part) for part in parts[1:]]
        np.copyto(*parts[0])
        for other in others:
            other.result()

    return copy


def fastest(call: Call, calls: int) -> float:
    """Return the time of the fastest of some calls in a row, in milliseconds."""
    times = []
    for _ in range(calls):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times) * 1e3


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float32")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--calls", type=int, default=5, help="calls in a row")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", default="", help="run the rows whose name contains this")
    arguments = parser.parse_args()
    if torch is None:
        sys.exit("This table compares with PyTorch, which is not installed: pip install torch")
    jitconv.set_num_threads(arguments.threads)
    torch.set_num_threads(arguments.threads)
    torch.set_grad_enabled(False)
    rng = np.random.default_rng(0)
    print("| pass | PyTorch, ms | NCHW | NHWC | of a copy, NCHW | NHWC |")
    print("|---|---|---|---|---|---|")
    with ThreadPoolExecutor(arguments.threads) as pool:
        for case in CASES:
            x = rng.standard_normal(case.x).astype(arguments.dtype)
            size = (case.x[2] + 2 * case.padding - case.kernel) // case.stride + 1 if case.kernel else 1
            dy = rng.standard_normal((*case.x[:2], size, size)).astype(arguments.dtype)
            for each in window_passes(case, x, dy) if case.kernel else global_passes(x, dy):
                name = f"{case} {each.name}"
                if arguments.only not in name:
                    continue
                calls = [*each.torch, *each.ours, copier(each.moved, arguments.threads, pool)]
                times: list[list[float]] = [[] for _ in calls]
                for _ in range(arguments.rounds):
                    for call, mine in zip(calls, times, strict=True):
                        mine.append(fastest(call, arguments.calls))
                *torchs, nchw, nhwc, copy = (statistics.median(mine) for mine in times)
                best = min(torchs)
                ratios = " | ".join(f"{value:.2f}" for value in (best / nchw, best / nhwc, copy / nchw, copy / nhwc))
                print(f"| {name} | {best:.2f} | {ratios} |", flush=True)


if __name__ == "__main__":
    main()
