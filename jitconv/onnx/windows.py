"""The window of a convolution or a pooling as ONNX describes it, and the sizes that follow from it."""

from __future__ import annotations

from typing import Any, NamedTuple

from .. import shapes
from ..shapes import Padding, Pair
from .node import Node


class Window(NamedTuple):
    """The attributes that all operators with a window have."""

    kernel: Pair | None  # None: that of the weights
    stride: Pair
    dilation: Pair
    pads: Padding
    auto_pad: str

    @classmethod
    def of(cls, node: Node) -> Window:
        """Read the attributes of a node."""
        auto_pad = node.attribute("auto_pad", "NOTSET")
        if auto_pad not in ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"):
            node.refuse(f"`auto_pad` is {auto_pad!r}, which is none of ONNX's words")
        kernel = None if node.attribute("kernel_shape") is None else node.pair("kernel_shape")
        pads = node.padding() if auto_pad == "NOTSET" else ((0, 0), (0, 0))
        return cls(kernel, node.pair("strides"), node.pair("dilations"), pads, auto_pad)

    @property
    def same(self) -> bool:
        """Whether the padding follows from the size of the images."""
        return self.auto_pad.startswith("SAME")

    def kernel_of(self, weights: tuple[Any, ...]) -> Pair:
        """Return the kernel of weights of this shape, which must be that of the attribute."""
        kernel = (weights[2], weights[3]) if len(weights) == 4 else None
        if kernel is None or (self.kernel is not None and kernel != self.kernel):
            wanted = "(F, C, KH, KW)" if self.kernel is None else f"a kernel of {self.kernel}, as `kernel_shape` says"
            raise ValueError(f"the weights must have {wanted}, got the shape {weights}")
        return kernel

    def padding(self, size: Pair, kernel: Pair) -> Padding:
        """Return the padding of images of this size."""
        if not self.same:
            return self.pads
        rows, columns = (self._same(*axis) for axis in zip(size, kernel, self.stride, self.dilation, strict=True))
        return rows, columns

    def _same(self, size: int, kernel: int, stride: int, dilation: int) -> Pair:
        """Return the padding along one axis with which every stride-th pixel has a window."""
        windows = -(-size // stride)
        total = max(0, (windows - 1) * stride + shapes.extent(kernel, dilation) - size)
        return self.halves(total)

    def halves(self, total: int) -> Pair:
        """Return a padding as that of both ends: with SAME_UPPER the odd pixel is at the far end, else at the near."""
        near = total // 2 if self.auto_pad == "SAME_UPPER" else total - total // 2
        return near, total - near
