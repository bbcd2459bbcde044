"""A node as its operator sees it: what it is called, its attributes, and what is known of its inputs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, NoReturn

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, external_data_helper, helper, numpy_helper

from .. import validate
from ..shapes import Pair
from .refusal import UnsupportedModelError

Array = NDArray[Any]

# What arithmetic is done in, and what values may hold: shapes are int64, masks bool.
FLOATS: dict[int, np.dtype[Any]] = {TensorProto.FLOAT: np.dtype(np.float32), TensorProto.DOUBLE: np.dtype(np.float64)}
DTYPES: dict[int, np.dtype[Any]] = {
    **FLOATS,
    TensorProto.INT64: np.dtype(np.int64),
    TensorProto.BOOL: np.dtype(np.bool_),
}


def element_word(element: int) -> str:
    """Return the name of a dtype of ONNX, as NumPy has it where both have it."""
    return DTYPES[element].name if element in DTYPES else str(TensorProto.DataType.Name(element)).lower()


def listed(elements: Iterable[int]) -> str:
    """Return dtypes of ONNX as a list in words."""
    *most, last = map(element_word, elements)
    return f"{', '.join(most)} and {last}"


def tensor_array(tensor: TensorProto) -> Array:
    """Return the elements of a tensor; a copy, for kernels take no read-only memory as it is."""
    if external_data_helper.uses_external_data(tensor):
        raise ValueError(f"the data of `{tensor.name}` is in another file: load it with onnx.load")
    return np.array(numpy_helper.to_array(tensor))


class Value(NamedTuple):
    """What is known of a value before anything runs; None is what is not."""

    element: int | None = None  # onnx.TensorProto.DataType
    shape: tuple[int | None, ...] | None = None
    constant: Array | None = None

    @classmethod
    def of(cls, a: Array) -> Value:
        """Return what is known of a constant."""
        return cls(helper.np_dtype_to_tensor_dtype(a.dtype), a.shape, a)


class Node:
    """A node of a graph.

    Parameters
    ----------
    proto : onnx.NodeProto
    version : int
        That of its operator: the opset that defined it as the model means it.
    values : sequence of Value
        Of the inputs; those that are left out are not looked at.
    """

    def __init__(self, proto: NodeProto, version: int, values: Sequence[Value]) -> None:
        self.operator = proto.op_type
        self.version = version
        self.inputs, self.outputs = tuple(proto.input), tuple(proto.output)
        self.values = tuple(values)
        self.activation: str | None = None  # of a Conv: of the node behind it, which it computes as well
        self._name = proto.name
        self._attributes = {one.name: helper.get_attribute_value(one) for one in proto.attribute}

    def __str__(self) -> str:
        called = f"`{self._name}`" if self._name else f"of `{self.outputs[0]}`"
        return f"{self.operator} node {called}"

    def refuse(self, why: str) -> NoReturn:
        """Raise an UnsupportedModelError that names the node."""
        raise UnsupportedModelError(f"{self}: {why}")

    def attribute(self, name: str, default: Any = None) -> Any:
        """Return an attribute; words as str, and sequences as tuples."""
        value = self._attributes.get(name, default)
        if isinstance(value, bytes):
            return value.decode()
        return tuple(value) if isinstance(value, list) else value

    def pair(self, name: str, default: int = 1) -> Pair:
        """Return an attribute of one integer for rows and one for columns, each at least the default."""
        value = self._of_length(name, 2, self.attribute(name, (default, default)))
        return validate.pair(value, name, default)

    def padding(self) -> tuple[Pair, Pair]:
        """Return `pads`, in ONNX (top, left, bottom, right), as ((top, bottom), (left, right))."""
        pads = self._of_length("pads", 4, self.attribute("pads", (0, 0, 0, 0)))
        return validate.pair(pads[0::2], "pads", 0), validate.pair(pads[1::2], "pads", 0)

    def _of_length(self, name: str, length: int, value: tuple[int, ...]) -> tuple[int, ...]:
        if len(value) != length:
            self.refuse(f"`{name}` has {len(value)} values, and only the {length} of a window in 2-D images are served")
        return value

    def given(self, index: int) -> bool:
        """Return whether there is such an input."""
        return index < len(self.inputs) and bool(self.inputs[index])

    def constant(self, index: int) -> Array | None:
        """Return an input that does not depend on those of the model; None if it does, or is left out."""
        return self.values[index].constant if self.given(index) else None
