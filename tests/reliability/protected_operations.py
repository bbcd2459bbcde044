"""Run what is not a convolution with a protected page against every array; test_bounds.py starts this.

Here the code is the optimised code that users run. Each drawn call runs once as usual, which compiles what it needs,
and once between pages: the process dies at the first byte that is touched outside, and the last line printed names the
call.
"""

from __future__ import annotations

import os
import sys

import bounded_operations
import numpy as np
from fences import Protected, allocating_in, placed
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

numbers = bounded_operations.numbers


def run(operation, side, examples):
    """Run an operation with drawn arguments."""

    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=bool(os.environ.get("CI")),
        suppress_health_check=list(HealthCheck),
    )
    @given(st.data())
    def twice(data):
        drawn = []

        def draw(strategy):
            drawn.append(data.draw(strategy))
            return drawn[-1]

        dtypes = st.sampled_from((np.dtype(np.float32), np.dtype(np.float64)))
        operation(draw, dtypes)
        print(operation.__name__, side, drawn, flush=True)
        again, fence = iter(drawn), Protected(side)
        bounded_operations.numbers = lambda dtype, *shape: placed(fence, numbers(dtype, *shape))
        try:
            with allocating_in(fence):
                operation(lambda strategy: next(again), dtypes)
        finally:
            bounded_operations.numbers = numbers

    twice()


def main():
    for operation in bounded_operations.FAMILIES["pooling"] + bounded_operations.FAMILIES["rest"]:
        for side in ("start", "end"):
            run(operation, side, int(sys.argv[1]))


if __name__ == "__main__":
    main()
