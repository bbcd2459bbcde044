"""The fast layers of Stanford's CS231n assignments: `fast_layers`, `im2col_cython`, and the `layer_utils` on them.

The course is https://cs231n.github.io. Arrays are (N, C, H, W); float32 stays float32 where all arrays of a call have
it, as there, and everything else is float64.
"""

from .fast_layers import (
    conv_backward_fast,
    conv_backward_im2col,
    conv_backward_strides,
    conv_forward_fast,
    conv_forward_im2col,
    conv_forward_strides,
    max_pool_backward_fast,
    max_pool_backward_im2col,
    max_pool_backward_reshape,
    max_pool_forward_fast,
    max_pool_forward_im2col,
    max_pool_forward_reshape,
)
from .im2col_cython import (
    col2im_6d_cython,
    col2im_cython,
    col2im_indices,
    im2col_cython,
    im2col_indices,
)
from .layer_utils import (
    conv_bn_relu_backward,
    conv_bn_relu_forward,
    conv_relu_backward,
    conv_relu_forward,
    conv_relu_pool_backward,
    conv_relu_pool_forward,
)

__all__ = [
    "col2im_6d_cython",
    "col2im_cython",
    "col2im_indices",
    "conv_backward_fast",
    "conv_backward_im2col",
    "conv_backward_strides",
    "conv_bn_relu_backward",
    "conv_bn_relu_forward",
    "conv_forward_fast",
    "conv_forward_im2col",
    "conv_forward_strides",
    "conv_relu_backward",
    "conv_relu_forward",
    "conv_relu_pool_backward",
    "conv_relu_pool_forward",
    "im2col_cython",
    "im2col_indices",
    "max_pool_backward_fast",
    "max_pool_backward_im2col",
    "max_pool_backward_reshape",
    "max_pool_forward_fast",
    "max_pool_forward_im2col",
    "max_pool_forward_reshape",
]
