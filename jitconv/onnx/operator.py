"""An operator of ONNX as the backend runs it."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, NamedTuple

from .node import DTYPES, FLOATS, Array, Node, element_word, listed

# Takes the inputs of a node, None for one that is left out, and returns its output, or a tuple of them.
Run = Callable[..., Any]


class Operator(NamedTuple):
    """An operator of ONNX.

    `make` reads the attributes of a node, and refuses it or returns what runs it. `versions` are the opsets whose
    definitions of the operator it follows. `elements` is what the first input may hold; `images` says that it has
    the axes (N, C, H, W). The first output of a `view` may share memory with the first input.
    """

    make: Callable[[Node], Run]
    versions: tuple[int, ...]
    elements: Collection[int] = FLOATS
    images: bool = False
    view: bool = False

    def prepare(self, node: Node) -> Run:
        """Return what runs this node."""
        if node.version not in self.versions:
            known = ", ".join(map(str, self.versions))
            node.refuse(f"the model means version {node.version} of the operator, and only {known} are served")
        for index, (name, value) in enumerate(zip(node.inputs, node.values, strict=True)):
            if name:
                self._check_element(node, name, value.element, DTYPES if index else self.elements)
        if self.images:
            shape = node.values[0].shape
            if shape is not None and len(shape) != 4:
                node.refuse(f"`{node.inputs[0]}` has {len(shape)} axes, and only images (N, C, H, W) are served")
        run = self.make(node)
        return _on_images(run) if self.images and node.values[0].shape is None else run

    @staticmethod
    def _check_element(node: Node, name: str, element: int | None, allowed: Collection[int]) -> None:
        if element is None:
            node.refuse(f"the type of `{name}` is not known, and only tensors are served")
        if element not in allowed:
            node.refuse(f"`{name}` is {element_word(element)}, and only {listed(allowed)} are served")


def _on_images(run: Run) -> Run:
    """Return the same for images of which the model does not say that they are some."""

    def checked(x: Array, *rest: Array | None) -> Any:
        if x.ndim != 4:
            raise ValueError(f"the first input must have the axes (N, C, H, W), got the shape {x.shape}")
        return run(x, *rest)

    return checked
