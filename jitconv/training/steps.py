"""What a network runs: its layers, in the layout that is fastest, some of them as one."""

from __future__ import annotations

import abc
from collections.abc import Sequence

from ..layers import (
    AvgPool2d,
    BatchNorm2d,
    Conv2d,
    ConvTranspose2d,
    Dense,
    Dropout,
    Flatten,
    GlobalAvgPool2d,
    GlobalMaxPool2d,
    MaxPool2d,
    ReLU,
)
from ..layers.base import Array, ImageLayer, Layer
from ..relayout import relayout

# Layers that may run in either layout, those that make it worth while to change it, and all whose memory is known to
# be used by nobody else. A class derived from one of them may do anything.
_IMAGE_LAYERS = (Conv2d, ConvTranspose2d, MaxPool2d, AvgPool2d, GlobalAvgPool2d, GlobalMaxPool2d, BatchNorm2d)
_CONVOLUTIONS = (Conv2d, ConvTranspose2d)
KNOWN = (*_IMAGE_LAYERS, ReLU, Flatten, Dense, Dropout)


class Step(abc.ABC):
    """Some layers that run as one.

    Attributes
    ----------
    layers : tuple of Layer
        Empty for a change of layout.
    """

    layers: tuple[Layer, ...] = ()

    @property
    def known(self) -> bool:
        """Whether it keeps no array beyond the network's next `forward`, and shows none to anybody."""
        return all(type(layer) in KNOWN for layer in self.layers)

    @property
    def trained(self) -> bool:
        """Whether there are parameters."""
        return any(layer.parameters for layer in self.layers)

    def need_input_gradient(self, needed: bool) -> None:
        """Say whether `backward` is to return a gradient."""
        for layer in self.layers:
            layer.needs_input_gradient = needed

    @abc.abstractmethod
    def forward(self, x: Array) -> Array:
        """Return the output."""

    @abc.abstractmethod
    def backward(self, dy: Array) -> Array | None:
        """Fill the gradients and return that of the input."""

    @abc.abstractmethod
    def __str__(self) -> str:
        """Say what is fused or changed, in a word or two."""


class Relayout(Step):
    """The change to another layout."""

    def __init__(self, target: str) -> None:
        self._target = target
        self._source = "NCHW" if target == "NHWC" else "NHWC"

    def forward(self, x: Array) -> Array:
        """Return x in the target layout."""
        return relayout(x, self._target)

    def backward(self, dy: Array) -> Array | None:
        """Return dy in the layout before."""
        return relayout(dy, self._source)

    def __str__(self) -> str:
        return f"to {self._target}"


class Single(Step):
    """One layer, in its own layout or in another."""

    def __init__(self, layer: Layer, layout: str | None = None) -> None:
        self.layers = (layer,)
        self._layer = layer
        self._layout = layout

    def forward(self, x: Array) -> Array:
        """Return the layer's output."""
        if self._layout is not None and isinstance(self._layer, ImageLayer):
            return self._layer.forward_in(self._layout, x)
        return self._layer.forward(x)

    def backward(self, dy: Array) -> Array | None:
        """Return the layer's gradient."""
        return self._layer.backward(dy)

    def __str__(self) -> str:
        return "ReLU" if getattr(self._layer, "activation", None) else ""


class Rectified(Step):
    """A convolution or a normalisation, with the ReLU that follows it."""

    def __init__(self, first: Conv2d | BatchNorm2d, followers: Sequence[Layer], layout: str) -> None:
        self.layers = (first, *followers)
        self._first = first
        self._layout = layout

    def forward(self, x: Array) -> Array:
        """Return the output of ReLU."""
        return self._first.forward_with(self._layout, x, "relu")

    def backward(self, dy: Array) -> Array | None:
        """Return the gradient of the first layer's input."""
        return self._first.backward(dy)

    def __str__(self) -> str:
        return "ReLU"


class Pooled(Step):
    """A convolution in NHWC, with the ReLU, its own or a layer, and the 2x2 max pooling that follow it."""

    def __init__(self, convolution: Conv2d, followers: Sequence[Layer]) -> None:
        self.layers = (convolution, *followers)
        self._convolution = convolution

    def forward(self, x: Array) -> Array:
        """Return the pooled output."""
        return self._convolution.forward_pooled(x)

    def backward(self, dy: Array) -> Array | None:
        """Return the gradient of the convolution's input."""
        return self._convolution.backward(dy)

    def __str__(self) -> str:
        return "ReLU, pooling"


def leaves_of(layers: Sequence[Layer], container: type[Layer]) -> list[Layer]:
    """Return the layers, those of containers in place of the containers."""
    found: list[Layer] = []
    for layer in layers:
        inner = getattr(layer, "layers", None) if type(layer) is container else None
        found += [layer] if inner is None else leaves_of(inner, container)
    return found


def steps_of(layers: Sequence[Layer], container: type[Layer], images: bool = True) -> list[Step]:
    """Return the steps of a network's layers, those of containers inside it among them.

    `images`: for a batch of images. For one image without its batch axis, say, every layer is a step.
    """
    leaves = leaves_of(layers, container)
    return _arrange(leaves) if images else [Single(layer) for layer in leaves]


def _arrange(layers: Sequence[Layer]) -> list[Step]:
    """Return the steps that compute what the layers compute one after another.

    Layers for NCHW with a convolution among them run in NHWC, between two changes of layout. A convolution takes along
    the ReLU and the 2x2 max pooling that follow it, a normalisation the ReLU.
    """
    steps: list[Step] = []
    begin = 0
    while begin < len(layers):
        end = _end_of_run(layers, begin)
        run = layers[begin:end]
        if not run:
            steps.append(Single(layers[begin]))
            begin += 1
            continue
        declared = next((layer.layout for layer in run if isinstance(layer, ImageLayer)), "NHWC")
        changed = declared == "NCHW" and any(isinstance(layer, _CONVOLUTIONS) for layer in run)
        inside = "NHWC" if changed else declared
        steps += [Relayout("NHWC"), *_fused(run, inside), Relayout("NCHW")] if changed else _fused(run, inside)
        begin = end
    return steps


def _end_of_run(layers: Sequence[Layer], begin: int) -> int:
    """Return where the layers of images from `begin` on end: all of one layout."""
    layout, end = None, begin
    while end < len(layers):
        layer = layers[end]
        if type(layer) in _IMAGE_LAYERS and isinstance(layer, ImageLayer):
            if layout not in (None, layer.layout):
                break
            layout = layer.layout
        elif type(layer) is not ReLU or layout is None:
            break
        end += 1
    return end


def _fused(run: Sequence[Layer], layout: str) -> list[Step]:
    """Return the steps of layers of images, whose activations lie in `layout`."""
    steps: list[Step] = []
    at = 0
    while at < len(run):
        first, rest = run[at], run[at + 1 :]
        followers: list[Layer] = []
        if isinstance(first, (Conv2d, BatchNorm2d)):
            rectified = isinstance(first, Conv2d) and first.activation == "relu"
            if not rectified and rest and isinstance(rest[0], ReLU):
                rectified, followers = True, [rest[0]]
            if rectified and isinstance(first, Conv2d) and first.takes_pooling and layout == "NHWC":
                pool = rest[len(followers)] if len(rest) > len(followers) else None
                if isinstance(pool, MaxPool2d) and pool.of_squares:
                    followers.append(pool)
                    steps.append(Pooled(first, followers))
                    at += 1 + len(followers)
                    continue
            if followers:
                steps.append(Rectified(first, followers, layout))
                at += 1 + len(followers)
                continue
        steps.append(Single(first, layout))
        at += 1
    return steps
