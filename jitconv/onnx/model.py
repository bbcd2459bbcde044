"""Reading a model: every node is checked, and made a step or, where it depends on no input, computed at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, numpy_helper

from .node import DTYPES, Node, Value, element_word, listed
from .operator import Operator
from .operators import OPERATORS
from .program import Input, Program, Step, named_errors
from .refusal import UnsupportedModelError

OUR_DOMAINS = ("", "ai.onnx")


def read(model: ModelProto) -> Program:
    """Return what runs a model.

    Raises
    ------
    TypeError, ValueError, onnx.checker.ValidationError
        If it is no valid model.
    UnsupportedModelError
        If something in it is not served.
    """
    if not isinstance(model, ModelProto):
        raise TypeError(f"`model` must be an onnx.ModelProto, as onnx.load returns it, got {type(model).__name__}")
    for tensor in model.graph.initializer:
        if onnx.external_data_helper.uses_external_data(tensor):
            raise ValueError(f"the data of `{tensor.name}` is in another file: load it with onnx.load")
    onnx.checker.check_model(model)
    if model.functions:
        raise UnsupportedModelError("functions of a model are not served: put in their nodes with onnx.inliner")
    if model.graph.sparse_initializer:
        raise UnsupportedModelError("sparse initializers are not served")
    opset = max((one.version for one in model.opset_import if one.domain in OUR_DOMAINS), default=0)
    reader = Reader(opset, _known(model), [one.name for one in model.graph.output])
    reader.add(model.graph.node)
    return reader.program(_inputs(model.graph))


def _known(model: ModelProto) -> dict[str, Value]:
    """Return what can be known of values without running anything."""
    graph = onnx.shape_inference.infer_shapes(model, check_type=True, data_prop=True).graph
    known = {one.name: _value(one) for one in (*graph.value_info, *graph.output, *graph.input)}
    return known | {one.name: _initial_value(one) for one in model.graph.initializer}


def _initial_value(tensor: TensorProto) -> Value:
    """Return an initializer; a copy, for kernels take no read-only memory as it is."""
    return Value(tensor.data_type, tuple(tensor.dims), np.array(numpy_helper.to_array(tensor)))


def _value(info: ValueInfoProto) -> Value:
    if not info.type.HasField("tensor_type"):
        return Value()
    tensor = info.type.tensor_type
    shape = None
    if tensor.HasField("shape"):
        shape = tuple(axis.dim_value if axis.HasField("dim_value") else None for axis in tensor.shape.dim)
    return Value(tensor.elem_type or None, shape)


def _inputs(graph: GraphProto) -> list[Input]:
    """Return what a model takes: its inputs but for those that have a value already."""
    constants = {one.name for one in graph.initializer}
    return [_input(one) for one in graph.input if one.name not in constants]


def _input(info: ValueInfoProto) -> Input:
    value = _value(info)
    if value.element not in DTYPES:
        kind = "no tensor" if value.element is None else element_word(value.element)
        raise UnsupportedModelError(f"input `{info.name}` is {kind}, and only {listed(DTYPES)} are served")
    axes = info.type.tensor_type.shape.dim
    shape = tuple(axis.dim_value if axis.HasField("dim_value") else axis.dim_param or None for axis in axes)
    return Input(info.name, DTYPES[value.element], shape)


class Reader:
    """Makes the steps of a graph.

    Parameters
    ----------
    opset : int
        The version of ONNX's operators that the nodes mean.
    known : mapping of str to Value
        What is known of inputs, of constants and of what nodes compute.
    outputs : sequence of str
    """

    def __init__(self, opset: int, known: Mapping[str, Value], outputs: Sequence[str]) -> None:
        self._opset, self._known, self._outputs = opset, dict(known), tuple(outputs)
        self._constants = {name: value.constant for name, value in known.items() if value.constant is not None}
        self._steps: list[Step] = []
        self._memory: dict[str, str] = {}  # of what may be a view: the name of the value whose memory it has

    def add(self, nodes: Sequence[NodeProto]) -> None:
        """Read the nodes, which are in an order in which they may run, or refuse one of them."""
        readers = _readers(nodes, self._outputs)
        computed: set[int] = set()  # nodes that the one before them computes as well
        for index, proto in enumerate(nodes):
            if index in computed:
                continue
            operator, node = self._operator(proto)
            behind = _relu_behind(proto, readers)
            if behind is not None:
                place, follower = behind
                relu, rectified = self._operator(follower)
                relu.prepare(rectified)  # refuses it if it must
                computed.add(place)
                node.activation, node.outputs = "relu", rectified.outputs
            self._add(operator, node)

    def _operator(self, proto: NodeProto) -> tuple[Operator, Node]:
        """Return a node with its operator, or refuse it."""
        known = proto.domain in OUR_DOMAINS and proto.op_type in OPERATORS
        version = onnx.defs.get_schema(proto.op_type, self._opset, "").since_version if known else 0
        node = Node(proto, version, [self._known.get(name, Value()) for name in proto.input])
        if not known:
            domain = "" if proto.domain in OUR_DOMAINS else f" of the domain {proto.domain!r}"
            node.refuse(f"the operator{domain} is not served, only {', '.join(OPERATORS)}")
        return OPERATORS[proto.op_type], node

    def _add(self, operator: Operator, node: Node) -> None:
        with named_errors(str(node)):
            step = Step(str(node), operator.prepare(node), node.inputs, node.outputs)
        if all(name in self._constants for name in node.inputs if name):
            for name, made in step.results(self._constants).items():
                self._constants[name], self._known[name] = made, Value.of(made)
            return
        self._steps.append(step)
        if operator.view:
            self._memory[node.outputs[0]] = self._memory.get(node.inputs[0], node.inputs[0])

    def program(self, inputs: Sequence[Input]) -> Program:
        """Return what runs the nodes."""
        used = {name for step in self._steps for name in step.inputs} | set(self._outputs)
        constants = {name: a for name, a in self._constants.items() if name in used}
        taken = {one.name for one in inputs} | constants.keys()
        shared = set()
        for name in self._outputs:
            memory = self._memory.get(name, name)
            if memory in taken:
                shared.add(name)
            taken.add(memory)
        return Program(inputs, constants, self._steps, self._outputs, shared)


Readers = Mapping[str, list[tuple[int, NodeProto | None]]]


def _readers(nodes: Sequence[NodeProto], outputs: Sequence[str]) -> Readers:
    """Return who reads each value: nodes with their places, and None for the caller."""
    readers: dict[str, list[tuple[int, NodeProto | None]]] = {}
    for index, node in enumerate(nodes):
        for name in node.input:
            readers.setdefault(name, []).append((index, node))
    for name in outputs:
        readers.setdefault(name, []).append((-1, None))
    return readers


def _relu_behind(proto: NodeProto, readers: Readers) -> tuple[int, NodeProto] | None:
    """Return a Relu that is all that reads a Conv, with its place."""
    found = readers.get(proto.output[0], []) if proto.op_type == "Conv" else []
    if len(found) != 1:
        return None
    ((place, follower),) = found
    return (place, follower) if follower is not None and follower.op_type == "Relu" else None
