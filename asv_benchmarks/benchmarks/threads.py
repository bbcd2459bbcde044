"""Thread scaling, and a record of the threads that everyone has in all other benchmarks."""

from __future__ import annotations

from .common import CPUS, THREADS, Missing, ready  # isort: skip
import os

__all__ = ["Scaling", "Used"]

COUNTS = (1, 2, 4, 8, 16)


class Scaling:
    """A layer on more and more threads."""

    params = (("jitconv", "jitconv NHWC", "Cython", "PyTorch"), ("vgg_cifar_2", "resnet50_14_3x3"), COUNTS)
    param_names = ("implementation", "layer", "threads")
    rounds = 1
    repeat = (5, 20, 0.5)
    timeout = 120

    def setup(self, implementation: str, layer: str, threads: int) -> None:
        """Compile, check and warm up."""
        if threads > CPUS:
            raise Missing(f"{CPUS} CPUs")
        self.run = {each: ready(implementation, layer, "float32", each, threads).run for each in ("forward",)}

    def time_forward(self, implementation: str, layer: str, threads: int) -> None:
        self.run["forward"]()


class Used:
    """How many threads each library was given."""

    params = ("jitconv", "NumPy", "Cython", "PyTorch")
    param_names = ("implementation",)
    unit = "threads"

    def track_threads(self, implementation: str) -> int:
        if implementation == "NumPy":
            return int(os.environ["OPENBLAS_NUM_THREADS"])
        if implementation == "Cython":
            return THREADS
        ready(implementation, "one image, 6 to 16", "float32", "forward")
        if implementation == "jitconv":
            import jitconv

            return jitconv.get_num_threads()
        import torch

        return torch.get_num_threads()

    def setup(self, implementation: str) -> None:
        """Skip who is missing."""
        ready(implementation, "one image, 6 to 16", "float32", "forward")
