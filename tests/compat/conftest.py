"""What the tests of all stand-ins share."""

from __future__ import annotations

import numpy as np
import pytest


@pytest.fixture
def tied(rng):
    """Return a function that makes arrays of few values, so that many windows hold their largest more than once."""
    return lambda *shape: rng.integers(0, 3, shape).astype(np.float64)
