"""Stand-in for the layers of numpy_neuron_network (yizt), in modules of the original's names.

The functions here are those of `layers`, which `clayers` has too; `layers_v2` and `modules` are where the original has
them. Feature maps are (N, C, H, W), kernels (C, D, k1, k2) with C channels in and D out.
"""

from .layers import (
    avg_pooling_backward,
    avg_pooling_forward,
    conv_backward,
    conv_forward,
    fc_backward,
    fc_forward,
    flatten_backward,
    flatten_forward,
    global_avg_pooling_backward,
    global_avg_pooling_forward,
    global_max_pooling_backward,
    global_max_pooling_forward,
    max_pooling_backward,
    max_pooling_forward,
)
from .modules import BaseModule, Conv2D, GlobalAvgPooling2D, MaxPooling2D

__all__ = [
    "BaseModule",
    "Conv2D",
    "GlobalAvgPooling2D",
    "MaxPooling2D",
    "avg_pooling_backward",
    "avg_pooling_forward",
    "conv_backward",
    "conv_forward",
    "fc_backward",
    "fc_forward",
    "flatten_backward",
    "flatten_forward",
    "global_avg_pooling_backward",
    "global_avg_pooling_forward",
    "global_max_pooling_backward",
    "global_max_pooling_forward",
    "max_pooling_backward",
    "max_pooling_forward",
]
