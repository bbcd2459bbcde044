"""How the tests start ranks."""

from __future__ import annotations

import os

TIMEOUT = 300  # seconds: against hanging


def environment():
    """Return the environment of ranks: one thread of NumPy's in each, and Numba's own number of them."""
    own = {name: value for name, value in os.environ.items() if name != "NUMBA_NUM_THREADS"}
    return own | {"OPENBLAS_NUM_THREADS": "1", "JITCONV_QUIET": "1"}
