"""Layers with a forward and a backward pass, whose arguments are named as PyTorch's.

A layer keeps parameters, gradients and what its backward pass needs; functions do the computing.
"""

from .base import Layer
from .convolution import Conv2d, ConvTranspose2d, Dense
from .normalisation import BatchNorm2d, Dropout
from .pooling import AvgPool2d, GlobalAvgPool2d, GlobalMaxPool2d, MaxPool2d
from .shape import Flatten, ReLU

__all__ = [
    "AvgPool2d",
    "BatchNorm2d",
    "Conv2d",
    "ConvTranspose2d",
    "Dense",
    "Dropout",
    "Flatten",
    "GlobalAvgPool2d",
    "GlobalMaxPool2d",
    "Layer",
    "MaxPool2d",
    "ReLU",
]
