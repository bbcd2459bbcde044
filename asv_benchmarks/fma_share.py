"""Print how much of the CPU's peak of fused multiply-adds (FMA) convolutions reach: 3x3 layers of 64 and more channels.

    python asv_benchmarks/fma_share.py [--dtype float32 float64] [--layout NCHW NHWC] [--threads 1 2] [--only NAME ...]

The peak is what a loop of FMAs on registers alone reaches, on the same threads; it is run in turn with the layers, so
that a drift of the machine hits all. A time is the lower quartile of calls that allocate their result; all that a call
does counts, packing or transforming weights and moving pixels too. A product and its sum are two operations.

direct: the peak of each row, GFLOP/s and the share of peak by all products that the definition of a convolution has,
those with padding included (`all`), and by those done (`done`). Where a plan computes the borders of an image apart, it
does no products with padding: then `all` may pass 100%, and `done` counts the products with pixels only. Otherwise they
are multiplied like any other pixel, and both are the same. What a tile computes beyond its image or channels counts
nowhere.

winograd: GFLOP/s as for direct's `all`, to compare, and the share of peak by the products it does: points of a
transformed tile x tiles x C x F. The transforms take time, but their operations are not counted.

It ends with an error if direct's `done` is below `--least` (80%).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

import numpy as np
from numba import carray, types
from numba.core import cgutils
from numba.extending import intrinsic
from plan_choice import LAYERS, PASSES, alternating, calls

import jitconv
from jitconv.kernels.jit import worker
from jitconv.kernels.simd import ALIGNMENT, POINTER, REGISTERS, VECTOR_BYTES, Vector, at
from jitconv.problem import ConvProblem
from jitconv.winograd import WinogradPass, form_of
from jitconv.winograd_weights import WinogradWeights
from jitconv.workspace import aligned_empty

NAMES = ("vgg_cifar_2", "vgg_cifar_4", "vgg_cifar_6", "resnet50_14_3x3")

# Sums that do not wait for each other: 4 cycles of latency and two FMAs a cycle need 8. The rest of the registers are
# for the two factors.
SUMS = 24 if REGISTERS == 32 else 12
STEPS = 500_000
BLOCK = -(-(SUMS + 2) * VECTOR_BYTES // ALIGNMENT) * ALIGNMENT


@intrinsic
def _multiply_add(typingctx, block, steps, like):
    """Take sum = sum * x + y so many times, for SUMS vectors from an address on, behind which x and y lie."""

    def codegen(context, builder, signature, args):
        vector = Vector(builder, signature.args[2])
        block = builder.inttoptr(args[0], POINTER)
        places = [at(builder, block, i * VECTOR_BYTES) for i in range(SUMS + 2)]
        x, y = vector.load(places[SUMS]), vector.load(places[SUMS + 1])
        sums = [cgutils.alloca_once_value(builder, vector.load(place)) for place in places[:SUMS]]
        with cgutils.for_range(builder, args[1]):
            for total in sums:
                builder.store(vector.fma(builder.load(total), x, y), total)
        for total, place in zip(sums, places, strict=False):
            vector.store(builder.load(total), place)
        return context.get_dummy_value()

    return types.void(types.intp, types.intp, like), codegen


@worker
def fma_loop(like, arguments, thread, threads):
    """Run the loop; arguments: a block of BLOCK bytes for each thread, and the steps."""
    blocks, steps = carray(arguments, 2)
    _multiply_add(blocks + thread * BLOCK, steps, carray(like, 1))


def peak_call(dtype: str, threads: int) -> tuple[Callable[[], object], float]:
    """Return a call of the loop and its operations."""
    kind = np.dtype(dtype)
    blocks = aligned_empty((threads, BLOCK // kind.itemsize), kind)
    blocks[...] = 0.5  # sum / 2 + 1/2 stays of the order of 1
    lanes = VECTOR_BYTES // kind.itemsize
    return lambda: fma_loop(kind, threads, blocks, STEPS), 2.0 * threads * SUMS * lanes * STEPS


def inside(p: ConvProblem) -> float:
    """Return the share of a convolution's products that are with pixels, not with padding."""
    share = 1.0
    axes = zip((p.h, p.w), p.output_size, p.kernel, p.stride, p.padding, p.dilation, strict=True)
    for size, out, kernel, stride, (before, _), dilation in axes:
        pixel = np.add.outer(np.arange(out) * stride - before, np.arange(kernel) * dilation)
        share *= float(((pixel >= 0) & (pixel < size)).mean())
    return share


def winograd_operations(p: ConvProblem, name: str) -> float:
    """Return the operations of a pass's products by Winograd."""
    form = form_of(p, "winograd")
    each = {
        "forward": lambda: WinogradPass.forward(p, form),
        "backward_data": lambda: WinogradPass.backward_data(p, form),
        "backward_weights": lambda: WinogradWeights(p, form),
    }[name]()
    return 2.0 * each.points * p.n * each.tile_rows * each.tile_cols * p.c * p.f


def main() -> None:
    """Print the table."""
    most = jitconv.get_num_threads()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dtype", nargs="+", choices=("float32", "float64"), default=["float32", "float64"])
    parser.add_argument("--layout", nargs="+", choices=("NCHW", "NHWC"), default=["NCHW", "NHWC"])
    parser.add_argument("--threads", nargs="+", type=int, default=sorted({1, most}))
    parser.add_argument("--only", nargs="+", choices=NAMES, default=NAMES)
    parser.add_argument("--seconds", type=float, default=0.1, help="of each algorithm and pass")
    parser.add_argument("--least", type=float, default=0.8, help="share of peak that direct must reach")
    options = parser.parse_args()
    print("| layer | pass | layout | dtype | threads | peak | direct | all | done | winograd | done |")
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    low: list[float] = []
    peaks: dict[tuple[str, int], float] = {}
    for dtype, threads in ((dtype, threads) for dtype in options.dtype for threads in options.threads):
        jitconv.set_num_threads(threads)
        peak, peak_operations = peak_call(dtype, threads)
        for name, layout in ((name, layout) for name in options.only for layout in options.layout):
            n, c, h, w, f, kernel, stride, padding = LAYERS[name]
            plan = jitconv.plan_conv2d(
                (n, c, h, w) if layout == "NCHW" else (n, h, w, c), (f, c, kernel, kernel), dtype, stride=stride,
                padding=padding, layout=layout, algorithm="direct",
            )  # fmt: skip
            p = plan.problem
            made = {algorithm: calls(LAYERS[name], dtype, layout, algorithm) for algorithm in ("direct", "winograd")}
            for each in PASSES:
                candidates = {algorithm: call[each] for algorithm, call in made.items()}
                times = alternating({"peak": peak, **candidates}, options.seconds)
                top = peak_operations / times["peak"]
                direct, winograd = p.flops / times["direct"], p.flops / times["winograd"]
                done = direct / top * (inside(p) if getattr(plan, each).borders else 1.0)
                products = winograd_operations(p, each) / times["winograd"] / top
                low.append(done)
                peaks[dtype, threads] = max(top, peaks.get((dtype, threads), 0.0))
                print(
                    f"| {name} | {each} | {layout} | {dtype} | {threads} | {top / 1e9:.0f} | {direct / 1e9:.0f} "
                    f"| {direct / top:.0%} | {done:.0%} | {winograd / 1e9:.0f} | {products:.0%} |",
                    flush=True,
                )
    print()
    for (dtype, threads), top in peaks.items():
        print(f"peak of {dtype} on {threads} threads: {top / 1e9:.1f} GFLOP/s")
    print(f"direct, done: {min(low):.0%} to {max(low):.0%} of peak")
    if min(low) < options.least:
        sys.exit(f"{sum(share < options.least for share in low)} rows are below {options.least:.0%}")


if __name__ == "__main__":
    main()
