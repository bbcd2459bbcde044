"""Pooling in both directions, on a batch; max pooling forward keeps its argmax."""

from .common import DTYPES, IMPLEMENTATIONS, POOLINGS, Timed

__all__ = ["AverageBackward", "AverageForward", "MaxBackward", "MaxForward"]


class _Direction(Timed):
    params = (IMPLEMENTATIONS, POOLINGS, DTYPES)

    def time_call(self, implementation: str, layer: str, dtype: str) -> None:
        self.run()


class MaxForward(_Direction):
    """With argmax."""

    each = "max_forward"


class MaxBackward(_Direction):
    """From the argmax."""

    each = "max_backward"


class AverageForward(_Direction):
    """Padding counts."""

    each = "average_forward"


class AverageBackward(_Direction):
    """Padding counts."""

    each = "average_backward"
