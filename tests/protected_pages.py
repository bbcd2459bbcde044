"""Run the table of convolutions with a protected page against every array; test_guards.py starts this.

The process dies at the first byte that is touched outside an array; the last line printed names the case.
"""

from __future__ import annotations

import itertools

import numpy as np
from cases import CONV_CASES, SAMPLE, TRANSPOSED_CASES
from fences import Protected, allocating_in, placed
from test_guards import ALGORITHMS, all_passes


def run(case, side, **options):
    """Run all passes of a case once as usual, which compiles what it needs, and once between pages."""
    for dtype, layout in itertools.product((np.float32, np.float64), ("NCHW", "NHWC")):
        print(case, side, options, dtype.__name__, layout, flush=True)
        rng = np.random.default_rng(0)
        arrays = *case.arrays(rng, dtype, layout), case.gradient(rng, dtype, layout)
        chosen = {"layout": layout, **options, **case.options}
        all_passes(case, *arrays, **chosen)
        fence = Protected(side)
        with allocating_in(fence):
            all_passes(case, *(placed(fence, a) for a in arrays), **chosen)


def main():
    for algorithm in ALGORITHMS:
        for case in CONV_CASES:
            run(case, "end", algorithm=algorithm)
        for case in SAMPLE:
            run(case, "start", algorithm=algorithm)
    for case in TRANSPOSED_CASES:
        run(case, "end")


if __name__ == "__main__":
    main()
