"""Print the table of scratch memory in README.md: what the passes of some layers ask for, in MiB.

    python asv_benchmarks/memory_table.py [--dtype float32|float64] [--layout NCHW|NHWC] [--threads N] [--uses]

Each pass runs once, and the sizes are noted that it asks `workspace.scratch` for: packed or transformed weights,
strips, transformed tiles and partial sums, of all threads together. `kept` is what stays with the Python thread after
the three passes: of each use the largest size that is not above KEPT_BYTES. `--uses` prints it use by use.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

from plan_choice import LAYERS, PASSES, calls

import jitconv
from jitconv import workspace

NAMES = (
    "vgg_cifar_1", "vgg_cifar_2", "vgg_cifar_4", "vgg_cifar_8", "alexnet_2", "resnet50_28_3x3_s2", "resnet50_14_3x3",
)  # fmt: skip
ALGORITHMS = ("auto", "direct")
MIB = 1024 * 1024


def asked(call: Callable[[], object]) -> dict[str, int]:
    """Return the largest size of each use that a call asks for."""
    sizes: dict[str, int] = {}
    scratch = workspace.scratch

    def noted(size: int, use: str) -> object:
        sizes[use] = max(size, sizes.get(use, 0))
        return scratch(size, use)

    workspace.scratch = noted
    try:
        call()
    finally:
        workspace.scratch = scratch
    return sizes


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float32")
    parser.add_argument("--layout", choices=("NCHW", "NHWC"), default="NCHW")
    parser.add_argument("--threads", type=int, default=jitconv.get_num_threads())
    parser.add_argument("--uses", action="store_true")
    options = parser.parse_args()
    jitconv.set_num_threads(options.threads)
    print("| layer | x, w, y | algorithm | forward | backward-data | backward-weights | kept |")
    print("|---|---|---|---|---|---|---|")
    item = 4 if options.dtype == "float32" else 8
    for name in NAMES:
        n, c, h, w, f, kernel, stride, padding = LAYERS[name]
        oh, ow = ((size + 2 * padding - kernel) // stride + 1 for size in (h, w))
        arrays = ", ".join(
            f"{size * item / MIB:.1f}" for size in (n * c * h * w, f * c * kernel * kernel, n * f * oh * ow)
        )
        layer = f"{n} images, {c} of {h}x{w} to {f}, {kernel}x{kernel}" + (f", stride {stride}" if stride > 1 else "")
        for algorithm in ALGORITHMS:
            made = calls(LAYERS[name], options.dtype, options.layout, algorithm)
            found = [asked(made[each]) for each in PASSES]
            kept: dict[str, int] = {}
            for sizes in found:
                for use, size in sizes.items():
                    if size <= workspace.KEPT_BYTES:
                        kept[use] = max(size, kept.get(use, 0))
            totals = " | ".join(f"{sum(sizes.values()) / MIB:.1f}" for sizes in [*found, kept])
            print(f"| {layer} | {arrays} | {algorithm} | {totals} |", flush=True)
            if options.uses:
                print("  " + ", ".join(f"{use} {size / MIB:.2f}" for use, size in kept.items()))


if __name__ == "__main__":
    main()
