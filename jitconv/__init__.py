"""Fast CNN layers for NumPy: convolution and pooling, forward and backward, compiled by Numba."""

from .conv import (
    ConvGradients,
    conv2d,
    conv2d_backward,
    conv_transpose2d,
    conv_transpose2d_backward,
    plan_conv2d,
)
from .plan import ConvPlan, without_winograd
from .threads import get_num_threads, num_threads, set_num_threads
from .version import __version__

__all__ = [
    "ConvGradients",
    "ConvPlan",
    "__version__",
    "conv2d",
    "conv2d_backward",
    "conv_transpose2d",
    "conv_transpose2d_backward",
    "get_num_threads",
    "num_threads",
    "plan_conv2d",
    "set_num_threads",
    "without_winograd",
]
