"""Fixtures of the tests of training."""

from __future__ import annotations

import pytest

from jitconv.training import data


@pytest.fixture(scope="session")
def digits():
    """Return the bundled digits, read once: they are text."""
    return data.digits()
