"""The suite of asv_benchmarks/ is no part of the package: its folder goes on the path here."""

from __future__ import annotations

import sys
from pathlib import Path

SUITE = Path(__file__).resolve().parent.parent.parent / "asv_benchmarks"
sys.path.insert(0, str(SUITE))
