"""Start of a process: the import, and the first convolution, with kernels on disk (warm) and without (cold).

Each sample is a new process. `NumPy` is its import, the least that any of these can take.
"""

from __future__ import annotations

from .common import Missing  # isort: skip
import importlib.util
import subprocess
import sys
from pathlib import Path

__all__ = ["Cold", "Warm"]

IMPORTS = {"jitconv": "jitconv", "NumPy": "numpy", "PyTorch": "torch"}
FIRST_CALL = {
    "jitconv": "jitconv.conv2d(numpy.ones((8, 16, 28, 28)), numpy.ones((16, 16, 3, 3)), padding=1)",
    "PyTorch": "torch.nn.functional.conv2d(torch.ones((8, 16, 28, 28)), torch.ones((16, 16, 3, 3)), padding=1)",
}


def statement(implementation: str, call: bool) -> str:
    """Return an import, and the first convolution after it."""
    if not (found := importlib.util.find_spec(IMPORTS[implementation])):
        raise Missing(f"{implementation} is not installed")
    # asv takes its path to the checkout from the environment of what it starts.
    lines = ["import sys", f"sys.path.append({str(Path(found.origin).parent.parent)!r})", "import numpy"]
    lines.append(f"import {IMPORTS[implementation]}")
    if call:
        lines.append(FIRST_CALL[implementation])
    return "\n".join(lines)


class Warm:
    """With the kernels of an earlier process on disk."""

    params = tuple(IMPORTS)
    param_names = ("implementation",)
    rounds = 1
    number = 1
    repeat = 3
    warmup_time = 0
    timeout = 300

    def setup(self, implementation: str) -> None:
        """Let another process compile."""
        statement(implementation, False)
        if implementation == "jitconv":
            subprocess.run([sys.executable, "-c", statement(implementation, True)], check=True)

    def timeraw_import(self, implementation: str) -> str:
        return statement(implementation, False)

    def timeraw_first_call(self, implementation: str) -> str:
        return statement(implementation, implementation in FIRST_CALL)


class Cold:
    """With an empty directory for kernels: all that the first convolution needs is compiled."""

    rounds = 1
    number = 1
    repeat = 1
    warmup_time = 0
    timeout = 600

    def timeraw_first_call(self) -> str:
        return "\n".join(
            (
                "import os, tempfile",
                "with tempfile.TemporaryDirectory() as folder:",
                "    os.environ['NUMBA_CACHE_DIR'] = folder",
                *(f"    {line}" for line in statement("jitconv", True).splitlines()),
            )
        )
