"""Compare the algorithm that a plan chooses with the fastest of all, pass by pass, and print what the choice loses.

    python asv_benchmarks/plan_choice.py [--layout NCHW|NHWC] [--dtype float32|float64] [--threads N] [--only NAME ...]

The layers are those of real networks and some between them. Each is timed with every algorithm it has, the algorithms
taking turns, so that a drift of the machine hits all of them; a time is the lower quartile of its calls. It ends with
an error if a choice loses more than `--most` (15%) of its pass.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable

import numpy as np
from variants.layers import CONVOLUTIONS
from variants.layers import LAYERS as LAYERS_OF_NETWORKS

import jitconv

# [N, C, H, W, F, kernel, stride, padding]: of the layers of networks those of 3x3 and 5x5, and some between them.
LAYERS = {
    **{name: tuple(LAYERS_OF_NETWORKS[name]) for name in CONVOLUTIONS if LAYERS_OF_NETWORKS[name].kernel in (3, 5)},
    "one image, 8 channels": (1, 8, 28, 28, 8, 3, 1, 1),
    "one image, 32 channels": (1, 32, 14, 14, 32, 3, 1, 1),
    "one image, 64 channels": (1, 64, 32, 32, 64, 3, 1, 1),
    "one image, 512 channels": (1, 512, 7, 7, 512, 3, 1, 1),
    "few channels": (16, 4, 64, 64, 8, 3, 1, 1),
    "few filters": (8, 64, 64, 64, 3, 3, 1, 1),
    "stride 2, first": (8, 3, 112, 112, 32, 3, 2, 1),
    "stride 2, 32 channels": (8, 32, 56, 56, 64, 3, 2, 1),
    "5x5, 16 channels": (32, 16, 14, 14, 32, 5, 1, 2),
}
ALGORITHMS = ("direct", "im2col", "winograd")
PASSES = ("forward", "backward_data", "backward_weights")


def calls(shape: tuple[int, ...], dtype: str, layout: str, algorithm: str) -> dict[str, Callable[[], object]]:
    """Return a call of each pass."""
    n, c, h, w, f, kernel, stride, padding = shape
    rng = np.random.default_rng(0)
    oh, ow = ((size + 2 * padding - kernel) // stride + 1 for size in (h, w))
    x = rng.standard_normal((n, c, h, w) if layout == "NCHW" else (n, h, w, c)).astype(dtype)
    dy = rng.standard_normal((n, f, oh, ow) if layout == "NCHW" else (n, oh, ow, f)).astype(dtype)
    weights, bias = rng.standard_normal((f, c, kernel, kernel)).astype(dtype), rng.standard_normal(f).astype(dtype)
    options = {"stride": stride, "padding": padding, "layout": layout, "algorithm": algorithm}

    def backward(*needs: bool) -> Callable[[], object]:
        return lambda: jitconv.conv2d_backward(dy, x, weights, needs=needs, **options)

    return {
        "forward": lambda: jitconv.conv2d(x, weights, bias, **options),
        "backward_data": backward(True, False, False),
        "backward_weights": backward(False, True, True),
    }


def alternating(candidates: dict[str, Callable[[], object]], seconds: float) -> dict[str, float]:
    """Return a time of each candidate, taking turns."""
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for call in candidates.values():
        call()
    start = time.perf_counter()
    while time.perf_counter() - start < seconds * len(candidates) or len(times[next(iter(times))]) < 8:
        for name, call in candidates.items():
            call()  # the caches as they are after itself, not after another algorithm
            begin = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - begin)
    return {name: statistics.quantiles(values, n=4)[0] for name, values in times.items()}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layout", choices=("NCHW", "NHWC"), default="NHWC")
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float32")
    parser.add_argument("--threads", type=int, default=jitconv.get_num_threads())
    parser.add_argument("--only", nargs="*", choices=LAYERS)
    parser.add_argument("--seconds", type=float, default=0.1, help="of each algorithm and pass")
    parser.add_argument("--most", type=float, default=0.15, help="what a choice may lose")
    options = parser.parse_args()
    jitconv.set_num_threads(options.threads)
    print(f"{'layer':24s} {'pass':17s} {'chosen':9s} {'loses':>6s}   ms: {', '.join(ALGORITHMS)}")
    bad = 0
    for layer in options.only or LAYERS:
        shape = LAYERS[layer]
        n, c, h, w, f, kernel, stride, padding = shape
        x_shape = (n, c, h, w) if options.layout == "NCHW" else (n, h, w, c)
        names = [name for name in ALGORITHMS if name != "winograd" or (kernel, stride) in ((3, 1), (3, 2), (5, 1))]
        plan = jitconv.plan_conv2d(
            x_shape, (f, c, kernel, kernel), options.dtype, stride=stride, padding=padding, layout=options.layout
        )
        made = {name: calls(shape, options.dtype, options.layout, name) for name in names}
        for each in PASSES:
            times = alternating({name: made[name][each] for name in names}, options.seconds)
            chosen = getattr(plan, each).algorithm
            loss = times[chosen] / min(times.values()) - 1
            bad += loss > options.most
            row = ", ".join(f"{times[name] * 1e3:.3f}" if name in times else "-" for name in ALGORITHMS)
            print(f"{layer:24s} {each:17s} {chosen:9s} {loss:6.0%}   {row}{'   <' * (loss > options.most)}", flush=True)
    if bad:
        sys.exit(f"{bad} choices lose more than {options.most:.0%}")


if __name__ == "__main__":
    main()
