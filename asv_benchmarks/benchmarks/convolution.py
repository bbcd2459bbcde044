"""Each pass of a convolution, on a batch."""

from .common import CONVOLUTIONS, DTYPES, IMPLEMENTATIONS, Timed

__all__ = ["BackwardData", "BackwardWeights", "Forward"]


class _Pass(Timed):
    params = (IMPLEMENTATIONS, CONVOLUTIONS, DTYPES)

    def time_call(self, implementation: str, layer: str, dtype: str) -> None:
        self.run()


class Forward(_Pass):
    """With bias."""

    each = "forward"


class BackwardData(_Pass):
    """The gradient of the input."""

    each = "backward_data"


class BackwardWeights(_Pass):
    """The gradients of weights and bias."""

    each = "backward_weights"
