"""Reading a model: every node is checked, and made a step or, where it depends on no input, computed at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import onnx
from onnx import GraphProto, ModelProto, NodeProto, ValueInfoProto

from .node import DTYPES, Node, Value, element_word, listed, tensor_array
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
    onnx.checker.check_model(model)
    if model.functions:
        raise UnsupportedModelError("functions of a model are not served: put in their nodes with onnx.inliner")
    if model.graph.sparse_initializer:
        raise UnsupportedModelError("sparse initializers are not served")
    check_operators(model.graph.node)
    opset = max((one.version for one in model.opset_import if one.domain in OUR_DOMAINS), default=0)
    reader = Reader(opset, _known(model), [one.name for one in model.graph.output])
    reader.add(model.graph.node)
    return reader.program(_inputs(model.graph))


def check_operators(nodes: Iterable[NodeProto]) -> None:
    """Refuse nodes whose operator is not served, and strides below 1.

    onnx 1.20 and older divides by the strides when it infers shapes: zero would end the process.
    """
    for proto in nodes:
        node = Node(proto, 0, ())
        if proto.domain not in OUR_DOMAINS:
            node.refuse(f"the operator of the domain {proto.domain!r} is not served")
        if proto.op_type not in OPERATORS:
            node.refuse(f"the operator is not served, only {', '.join(OPERATORS)}")
        strides = node.attribute("strides", ())
        if min(strides, default=1) < 1:
            raise ValueError(f"{node}: `strides` must be at least 1, got {strides}")


def _known(model: ModelProto) -> dict[str, Value]:
    """Return what can be known of values without running anything."""
    graph = onnx.shape_inference.infer_shapes(model, check_type=True, data_prop=True).graph
    known = {one.name: _value(one) for one in (*graph.value_info, *graph.output, *graph.input)}
    initial = {one.name: Value(one.data_type, tuple(one.dims), tensor_array(one)) for one in model.graph.initializer}
    return known | initial


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
        """Read the nodes, whose operators are served, in an order in which they may run."""
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
        """Return a node with its operator."""
        version = onnx.defs.get_schema(proto.op_type, self._opset, "").since_version
        return OPERATORS[proto.op_type], Node(proto, version, [self._known.get(name, Value()) for name in proto.input])

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
