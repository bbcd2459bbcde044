"""Convolution and pooling in Cython: `loops` is typed throughout, `naive` calls NumPy for each output."""
