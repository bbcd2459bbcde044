"""Memory that forward needs beside its arrays: im2col, of the whole batch in NumPy, against direct."""

from __future__ import annotations

from .common import LAYERS, THREADS, Missing, calls  # isort: skip
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

from variants import Conv

__all__ = ["Growth", "Process"]

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def resident(name: str) -> int:
    """Return a figure of the process in bytes: VmRSS (now) or VmHWM (the peak)."""
    return int(re.search(rf"{name}:\s+(\d+) kB", STATUS.read_text()).group(1)) * 1024


class _Forward:
    """float32 in NCHW."""

    params = (
        ("jitconv direct", "jitconv im2col", "jitconv winograd", "NumPy", "Cython", "PyTorch"),
        ("vgg_cifar_2", "alexnet_2"),
    )
    param_names = ("implementation", "layer")
    timeout = 120

    def setup(self, implementation: str, layer: str) -> None:
        """Compile on one image, so that memory that is kept has not been asked for yet."""
        problem = LAYERS[layer]
        self.run = self.made(implementation, problem)
        self.made(implementation, problem._replace(n=1))()

    def made(self, implementation: str, problem: Conv) -> Callable[[], object]:
        """Return the call."""
        name, _, algorithm = implementation.partition(" ")
        run = calls(name, problem, "float32", THREADS)["forward"].run
        return partial(run, algorithm=algorithm) if algorithm else run


class Process(_Forward):
    """The peak of the whole process, with its imports and arrays."""

    def peakmem_forward(self, implementation: str, layer: str) -> None:
        self.run()


class Growth(_Forward):
    """How far above what the process had before the peak of a call is: its result counts, its arguments do not."""

    unit = "bytes"

    def setup(self, implementation: str, layer: str) -> None:
        """Skip where the peak cannot be reset."""
        if not CLEAR.exists():
            raise Missing("only Linux tells the peak of a call")
        super().setup(implementation, layer)

    def track_forward(self, implementation: str, layer: str) -> int:
        before = resident("VmRSS")
        CLEAR.write_text("5")  # the peak starts anew
        self.result = self.run()
        return resident("VmHWM") - before
