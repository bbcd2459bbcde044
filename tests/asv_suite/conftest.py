"""The suite of asv_benchmarks/ is no part of the package: its folder goes on the path here."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import jitconv

SUITE = Path(__file__).resolve().parent.parent.parent / "asv_benchmarks"
sys.path.insert(0, str(SUITE))


@pytest.fixture(autouse=True)
def threads_as_before():
    """Undo what the variants set for the process: the numbers of threads."""
    threads, torch = jitconv.get_num_threads(), sys.modules.get("torch")
    torch_threads = torch.get_num_threads() if torch else None
    yield
    jitconv.set_num_threads(threads)
    if torch:
        torch.set_num_threads(torch_threads)
