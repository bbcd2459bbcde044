"""Models for the tests, node by node."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

ELEMENT = {np.dtype(np.float32): TensorProto.FLOAT, np.dtype(np.float64): TensorProto.DOUBLE}


class Graph:
    """Collects the nodes and the weights of a model; values are named by numbers."""

    def __init__(self, rng, dtype=np.float32, opset=17):
        self.rng, self.dtype, self.opset = rng, np.dtype(dtype), opset
        self.nodes, self.initializers = [], []

    def name(self):
        return f"v{len(self.nodes) + len(self.initializers)}"

    def constant(self, array):
        """Add an initializer and return its name."""
        name = self.name()
        self.initializers.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def weights(self, *shape):
        """Add random weights whose products keep the scale of what they are multiplied with."""
        scale = 1 / np.sqrt(max(1, np.prod(shape[1:])))
        return self.constant((self.rng.standard_normal(shape) * scale).astype(self.dtype))

    def node(self, operator, *inputs, outputs=1, **attributes):
        """Add a node and return the name of its output, or of its outputs."""
        name = self.name()
        names = [name] if outputs == 1 else [f"{name}_{index}" for index in range(outputs)]
        self.nodes.append(helper.make_node(operator, inputs, names, **attributes))
        return name if outputs == 1 else names

    def model(self, inputs, outputs):
        """Return the model for inputs and outputs {name: shape}."""
        infos = [
            helper.make_tensor_value_info(name, ELEMENT[self.dtype], shape)
            for values in (inputs, outputs)
            for name, shape in values.items()
        ]
        graph = helper.make_graph(self.nodes, "graph", infos[: len(inputs)], infos[len(inputs) :], self.initializers)
        made = model(graph, self.opset)
        onnx.checker.check_model(made, full_check=True)
        return made


def model(graph, opset=17):
    """Return a model of a graph; what outputs lack of a shape, which they must have, is worked out."""
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    known = {one.name: one for one in onnx.shape_inference.infer_shapes(made).graph.output}
    for output in made.graph.output:
        if output.type.HasField("tensor_type") and not output.type.tensor_type.HasField("shape"):
            output.type.tensor_type.shape.CopyFrom(known[output.name].type.tensor_type.shape)
    return made


def info(name, element=TensorProto.FLOAT, shape=None):
    """Return what a model says of an input or an output."""
    return helper.make_tensor_value_info(name, element, shape)


def single(operator, shape, *weights, dtype=np.float32, opset=17, outputs=1, **attributes):
    """Return a model of one node, `x` of this shape to `y`, with these arrays as its other inputs."""
    element = ELEMENT[np.dtype(dtype)]
    names = [f"w{index}" for index in range(len(weights))]
    made = ["y", *(f"y{index}" for index in range(1, outputs))]
    node = helper.make_node(operator, ["x", *names], made, name="single", **attributes)
    kinds = [element, *[TensorProto.INT64] * (outputs - 1)]
    initializers = [numpy_helper.from_array(a, name) for a, name in zip(weights, names, strict=True)]
    infos = [info(name, kind) for name, kind in zip(made, kinds, strict=True)]
    return model(helper.make_graph([node], "graph", [info("x", element, shape)], infos, initializers), opset)


def reshaped(operator, *weights, opset=17, **attributes):
    """As `single`, for an `x` in a `shape` that is known in a run only."""
    names = [f"w{index}" for index in range(len(weights))]
    nodes = [
        helper.make_node("Reshape", ["x", "shape"], ["image"]),
        helper.make_node(operator, ["image", *names], ["y"], name="single", **attributes),
    ]
    inputs = [info("x", shape=["n"]), info("shape", TensorProto.INT64, ["k"])]
    initializers = [numpy_helper.from_array(a, name) for a, name in zip(weights, names, strict=True)]
    return model(helper.make_graph(nodes, "graph", inputs, [info("y", shape=[None] * 4)], initializers), opset)


def lenet(rng, dtype=np.float32, batch="N"):
    """Return a network in the style of LeNet-5 for `image` of 28x28 pixels, and its output's name."""
    g = Graph(rng, dtype)
    y = g.node("Conv", "image", g.weights(6, 1, 5, 5), g.weights(6), pads=[2, 2, 2, 2])
    y = g.node("MaxPool", g.node("Relu", y), kernel_shape=[2, 2], strides=[2, 2])
    y = g.node("Conv", y, g.weights(16, 6, 5, 5), g.weights(16))
    y = g.node("AveragePool", g.node("Tanh", y), kernel_shape=[2, 2], strides=[2, 2])
    y = g.node("Reshape", y, g.constant(np.array([0, -1])))
    y = g.node("Relu", g.node("Gemm", y, g.weights(120, 400), g.weights(120), transB=1))
    y = g.node("Dropout", y)
    y = g.node("Gemm", y, g.weights(120, 10), g.weights(10), alpha=0.5, beta=2.0)
    y = g.node("Softmax", y)
    return g.model({"image": (batch, 1, 28, 28)}, {y: (batch, 10)})


def residual(rng, dtype=np.float32, channels=16):
    """Return a residual block with a projection, global pooling and a dense layer, for `image` of 15x13 pixels."""
    g = Graph(rng, dtype)

    def normalised(y):
        statistics = g.weights(2 * channels), g.weights(2 * channels), g.weights(2 * channels)
        variance = g.constant(rng.uniform(0.5, 2, 2 * channels).astype(dtype))
        return g.node("BatchNormalization", y, *statistics, variance, epsilon=1e-3)

    main = g.node("Conv", "image", g.weights(2 * channels, channels, 3, 3), pads=[1, 1, 1, 1], strides=[2, 2])
    main = g.node("Relu", normalised(main))
    main = normalised(g.node("Conv", main, g.weights(2 * channels, 2 * channels, 3, 3), auto_pad="SAME_UPPER"))
    side = normalised(g.node("Conv", "image", g.weights(2 * channels, channels, 1, 1), strides=[2, 2]))
    y = g.node("Relu", g.node("Add", main, side))
    y = g.node("Flatten", g.node("GlobalAveragePool", y))
    y = g.node("Add", g.node("MatMul", y, g.weights(2 * channels, 5)), g.weights(5))
    return g.model({"image": ("N", channels, 15, 13)}, {y: ("N", 5)})
