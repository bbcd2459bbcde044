"""Networks ready to train.

Each function takes ``dtype``, ``seed`` and

- ``input_shape``: (channels, height, width) of an image, whatever the layout;
- ``classes``: how many logits;
- ``layout``: "NCHW" or "NHWC", the axes of the batch that `forward` takes;
- ``algorithm``: of the convolutions, as in `jitconv.conv2d`;

and returns a `Sequential` of He-initialised layers that computes no gradient of its input. ReLU is part of
the convolution or dense layer before it.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import DTypeLike

from .. import shapes, validate
from ..layers import Conv2d, Dense, Dropout, Flatten, GlobalAvgPool2d, MaxPool2d
from ..layers.base import Layer, Seed
from . import checks
from .sequential import Sequential

Size: TypeAlias = tuple[int, int, int]  # channels, height, width


class _Conv(NamedTuple):
    channels: int
    kernel: int
    padding: int = 0

    def output(self, size: Size) -> Size:
        _, h, w = size
        side = self.padding, self.padding
        return (
            self.channels,
            shapes.conv_output_size(h, self.kernel, 1, side, 1),
            shapes.conv_output_size(w, self.kernel, 1, side, 1),
        )


class _Pool(NamedTuple):
    """The largest of 2 x 2."""

    def output(self, size: Size) -> Size:
        return size[0], size[1] // 2, size[2] // 2


class _Global(NamedTuple):
    """The mean of each channel."""

    def output(self, size: Size) -> Size:
        return size[0], 1, 1


_Feature: TypeAlias = _Conv | _Pool | _Global


class _Network(NamedTuple):
    features: Sequence[_Feature]
    hidden: Sequence[int] = ()


def _repeat(*blocks: Sequence[int]) -> list[_Feature]:
    """Return 3x3 convolutions of the channels in each block, a pooling after each block."""
    features: list[_Feature] = []
    for block in blocks:
        features += [*(_Conv(channels, 3, 1) for channels in block), _Pool()]
    return features


_NETWORKS = {
    "simple_convnet": _Network([_Conv(30, 5), _Pool()], hidden=[100]),
    "deep_convnet": _Network(
        [*_repeat([16, 16]), _Conv(32, 3, 1), _Conv(32, 3, 2), _Pool(), *_repeat([64, 64])], hidden=[50]
    ),
    "vgg_cifar": _Network([*_repeat([64, 64], [128, 128], [256, 256]), _Global()]),
    "vgg11": _Network(_repeat([64], [128], [256, 256], [512, 512], [512, 512]), hidden=[4096, 4096]),
    "lenet": _Network([_Conv(6, 5, 2), _Pool(), _Conv(16, 5), _Pool()], hidden=[120, 84]),
}


def _features_size(name: str, size: Size) -> Size:
    given = size
    for feature in _NETWORKS[name].features:
        size = feature.output(size)
        checks.image_fits(*size[1:], name, given)
    return size


def fits(name: str, input_shape: Size) -> bool:
    """Return whether the network `name` takes images of (channels, height, width)."""
    try:
        _features_size(name, input_shape)
    except ValueError:
        return False
    return True


def input_shape(name: str) -> Size:
    """Return the (channels, height, width) that the network `name` takes unless it is told otherwise."""
    shape: Size = inspect.signature(MODELS[name]).parameters["input_shape"].default
    return shape


def _build(
    name: str,
    dtype: DTypeLike,
    seed: Seed,
    input_shape: Size,
    classes: int,
    layout: str,
    algorithm: str,
    dropout: float = 0.0,
) -> Sequential:
    network = _NETWORKS[name]
    size = checks.image_shape(input_shape, "input_shape")
    classes = validate.integer(classes, "classes", 1)
    dropout = validate.real(dropout, "dropout", 0.0, 1.0)
    features = math.prod(_features_size(name, size))
    checks.features_fit(features, size)
    rng = validate.generator(seed, "seed")  # the layers draw from one stream, in turn
    layers: list[Layer] = []
    channels = size[0]
    for feature in network.features:
        if isinstance(feature, _Conv):
            layers.append(
                Conv2d(
                    channels,
                    feature.channels,
                    feature.kernel,
                    padding=feature.padding,
                    layout=layout,
                    activation="relu",
                    algorithm=algorithm,
                    dtype=dtype,
                    seed=rng,
                )
            )
            channels = feature.channels
        else:
            layers.append(MaxPool2d(2, layout=layout) if isinstance(feature, _Pool) else GlobalAvgPool2d(layout=layout))
    layers.append(Flatten())
    for hidden in network.hidden:
        layers.append(Dense(features, hidden, activation="relu", dtype=dtype, seed=rng))
        features = hidden
        if dropout:
            layers.append(Dropout(dropout, seed=rng))
    layers.append(Dense(features, classes, dtype=dtype, seed=rng))
    return Sequential(layers, needs_input_gradient=False)


def simple_convnet(
    *,
    dtype: DTypeLike = np.float32,
    seed: Seed = None,
    input_shape: Size = (1, 28, 28),
    classes: int = 10,
    layout: str = "NCHW",
    algorithm: str = "auto",
) -> Sequential:
    """Return a convolution of 30 5x5 kernels, a pooling and two dense layers.

    The network of Saitoh, "Deep Learning from Scratch" (2019), chapter 7.
    """
    return _build("simple_convnet", dtype, seed, input_shape, classes, layout, algorithm)


def deep_convnet(
    *,
    dtype: DTypeLike = np.float32,
    seed: Seed = None,
    input_shape: Size = (1, 28, 28),
    classes: int = 10,
    layout: str = "NCHW",
    algorithm: str = "auto",
    dropout: float = 0.5,
) -> Sequential:
    """Return six 3x3 convolutions, a pooling after each two, and two dense layers.

    The network of Saitoh, "Deep Learning from Scratch" (2019), chapter 8, but for one of its two dropouts: that
    of the logits is left out. With it, 12 epochs of Adam on the bundled digits ended at 97.5, 97.9, 97.3 and
    96.0% for the seeds 0 to 3; without it, at 97.8, 97.5, 98.0 and 97.6%.
    """
    return _build("deep_convnet", dtype, seed, input_shape, classes, layout, algorithm, dropout)


def vgg_cifar(
    *,
    dtype: DTypeLike = np.float32,
    seed: Seed = None,
    input_shape: Size = (3, 32, 32),
    classes: int = 10,
    layout: str = "NCHW",
    algorithm: str = "auto",
) -> Sequential:
    """Return six 3x3 convolutions of 64, 128 and 256 channels, the mean of each channel and a dense layer.

    The pattern of Simonyan and Zisserman, "Very deep convolutional networks for large-scale image
    recognition" (2015), cut down to 32x32 images.
    """
    return _build("vgg_cifar", dtype, seed, input_shape, classes, layout, algorithm)


def vgg11(
    *,
    dtype: DTypeLike = np.float32,
    seed: Seed = None,
    input_shape: Size = (3, 224, 224),
    classes: int = 1000,
    layout: str = "NCHW",
    algorithm: str = "auto",
    dropout: float = 0.5,
) -> Sequential:
    """Return eight 3x3 convolutions and three dense layers.

    Configuration A of Simonyan and Zisserman, "Very deep convolutional networks for large-scale image
    recognition" (2015). It is ``torchvision.models.vgg11`` without the adaptive pooling to 7x7, which changes
    nothing at 224x224: for other sizes (from 32x32) the first dense layer takes the features as they are.
    """
    return _build("vgg11", dtype, seed, input_shape, classes, layout, algorithm, dropout)


def lenet(
    *,
    dtype: DTypeLike = np.float32,
    seed: Seed = None,
    input_shape: Size = (1, 28, 28),
    classes: int = 10,
    layout: str = "NCHW",
    algorithm: str = "auto",
) -> Sequential:
    """Return LeNet-5, with ReLU, max pooling and softmax in place of its sigmoids, averages and distances.

    LeCun et al., "Gradient-based learning applied to document recognition" (1998), figure 2. The first
    convolution pads 28x28 images to the 32x32 of the paper.
    """
    return _build("lenet", dtype, seed, input_shape, classes, layout, algorithm)


MODELS: dict[str, Callable[..., Sequential]] = {
    function.__name__: function for function in (simple_convnet, deep_convnet, vgg_cifar, vgg11, lenet)
}
