"""The functions of numpy_neuron_network's Cython module `clayers`; they are those of `layers`."""

from .layers import conv_forward, max_pooling_backward, max_pooling_forward

__all__ = ["conv_forward", "max_pooling_backward", "max_pooling_forward"]
