"""Fast CNN layers for NumPy: convolution and pooling, forward and backward, compiled by Numba."""

from .ahead import warmup
from .columns import col2im, im2col
from .conv import (
    ConvGradients,
    conv2d,
    conv2d_backward,
    conv_transpose2d,
    conv_transpose2d_backward,
    plan_conv2d,
)
from .kept import KeptWeights
from .plan import ConvPlan, without_winograd
from .pool import (
    avg_pool2d,
    avg_pool2d_backward,
    global_avg_pool2d,
    global_avg_pool2d_backward,
    global_max_pool2d,
    global_max_pool2d_backward,
    max_pool2d,
    max_pool2d_backward,
    max_pool2d_with_argmax,
)
from .threads import get_num_threads, num_threads, set_num_threads
from .version import __version__

__all__ = [
    "ConvGradients",
    "ConvPlan",
    "KeptWeights",
    "__version__",
    "avg_pool2d",
    "avg_pool2d_backward",
    "col2im",
    "conv2d",
    "conv2d_backward",
    "conv_transpose2d",
    "conv_transpose2d_backward",
    "get_num_threads",
    "global_avg_pool2d",
    "global_avg_pool2d_backward",
    "global_max_pool2d",
    "global_max_pool2d_backward",
    "im2col",
    "max_pool2d",
    "max_pool2d_backward",
    "max_pool2d_with_argmax",
    "num_threads",
    "plan_conv2d",
    "set_num_threads",
    "warmup",
    "without_winograd",
]
