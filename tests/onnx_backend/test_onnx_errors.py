"""Models that are refused, and inputs that are."""

from __future__ import annotations

import re

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")

import graphs  # noqa: E402
from onnx import TensorProto, helper  # noqa: E402

import jitconv.onnx  # noqa: E402
from jitconv.onnx import UnsupportedModelError  # noqa: E402


def array(*shape, dtype=np.float32):
    return np.ones(shape, dtype)


def with_element(model, element):
    """Return a model whose values are all of another type."""
    for info in (*model.graph.input, *model.graph.output):
        info.type.tensor_type.elem_type = element
    for tensor in model.graph.initializer:
        tensor.CopyFrom(helper.make_tensor(tensor.name, element, tensor.dims, [1] * int(np.prod(tensor.dims))))
    return model


def conv(**attributes):
    return graphs.single("Conv", (1, 3, 8, 8), array(4, 3, 3, 3), **attributes)


def trained_dropout():
    return graphs.single("Dropout", (1, 3), array(), np.array(True), opset=13)


def dropout_of_input():
    nodes = [helper.make_node("Dropout", ["x", "", "t"], ["y"], name="single")]
    inputs = [graphs.info("x", shape=[2]), graphs.info("t", TensorProto.BOOL, [])]
    return graphs.model(helper.make_graph(nodes, "g", inputs, [graphs.info("y", shape=[2])]), 13)


def unnamed():
    model = graphs.single("Cos", (2, 3))
    model.graph.node[0].ClearField("name")
    return model


def foreign():
    model = graphs.single("Relu", (1, 3))
    model.graph.node[0].domain = "com.example"
    model.opset_import.append(helper.make_opsetid("com.example", 1))
    return model


def with_function():
    model = foreign()
    body = [helper.make_node("Relu", ["a"], ["b"])]
    function = helper.make_function("com.example", "Relu", ["a"], ["b"], body, [helper.make_opsetid("", 17)])
    model.functions.append(function)
    return model


def sparse():
    model = graphs.single("Relu", (1, 3))
    values = helper.make_tensor("s", TensorProto.FLOAT, [1], [1.0])
    indices = helper.make_tensor("i", TensorProto.INT64, [1], [0])
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [3]))
    return model


def sequence():
    nodes = [helper.make_node("Identity", ["x"], ["y"], name="single")]
    infos = [helper.make_tensor_sequence_value_info(name, TensorProto.FLOAT, None) for name in "xy"]
    return graphs.model(helper.make_graph(nodes, "g", infos[:1], infos[1:]))


def unused_input():
    model = graphs.single("Relu", (1, 3))
    model.graph.input.append(graphs.info("other", TensorProto.FLOAT16, [1]))
    return model


def batch_norm(version, **attributes):
    return graphs.single("BatchNormalization", (2, 3, 4, 4), *[array(3)] * 4, opset=version, **attributes)


# What is refused, and words of the message.
UNSUPPORTED = {
    "operator": (lambda: graphs.single("Sin", (2, 3)), r"Sin node `single`: the operator is not served, only Add, "),
    "unnamed": (unnamed, "Cos node of `y`: the operator is not served"),
    "domain": (foreign, r"Relu node `single`: the operator of the domain 'com.example' is not served"),
    "function": (with_function, "functions of a model are not served"),
    "sparse": (sparse, "sparse initializers are not served"),
    "sequence": (sequence, "Identity node `single`: the type of `x` is not known, and only tensors are served"),
    "input": (unused_input, "input `other` is float16, and only float32, float64, int64 and bool are served"),
    "float16": (
        lambda: with_element(conv(), TensorProto.FLOAT16),
        "Conv node `single`: `x` is float16, and only float32 and float64 are served",
    ),
    "bfloat16": (
        lambda: with_element(graphs.single("Relu", (2, 3)), TensorProto.BFLOAT16),
        "Relu node `single`: `x` is bfloat16, and only float32 and float64 are served",
    ),
    "integer": (
        lambda: with_element(graphs.single("MaxPool", (1, 1, 4, 4), kernel_shape=[2, 2]), TensorProto.UINT8),
        "MaxPool node `single`: `x` is uint8, and only float32 and float64 are served",
    ),
    "int64": (
        lambda: with_element(graphs.single("Add", (2,), array(2)), TensorProto.INT64),
        "Add node `single`: `x` is int64, and only float32 and float64 are served",
    ),
    "1-D": (
        lambda: graphs.single("Conv", (1, 3, 8), array(4, 3, 3)),
        r"Conv node `single`: `x` has 3 axes, and only images \(N, C, H, W\) are served",
    ),
    "3-D": (
        lambda: graphs.single("MaxPool", (1, 3, 8, 8, 8), kernel_shape=[2, 2, 2]),
        r"MaxPool node `single`: `x` has 5 axes, and only images \(N, C, H, W\) are served",
    ),
    "1-D weights": (
        lambda: graphs.reshaped("Conv", array(4, 3, 3)),
        "Conv node `single`: `w0` has 3 axes, and only the weights of 2-D images, 4, are served",
    ),
    "1-D kernel": (
        lambda: graphs.reshaped("MaxPool", kernel_shape=[2]),
        "MaxPool node `single`: `kernel_shape` has 1 values, and only the 2 of a window in 2-D images are served",
    ),
    "1-D padding": (
        lambda: graphs.reshaped("MaxPool", kernel_shape=[2, 2], pads=[1, 1]),
        "MaxPool node `single`: `pads` has 2 values, and only the 4 of a window in 2-D images are served",
    ),
    "version": (
        lambda: graphs.single("Add", (2,), array(2), opset=1),
        "Add node `single`: the model means version 1 of the operator, and only 6, 7, 13, 14 are served",
    ),
    "axis": (
        lambda: graphs.single("Add", (2, 3), array(2), opset=6, broadcast=1, axis=0),
        "Add node `single`: broadcasting along an `axis`, .* is not served",
    ),
    "trained dropout": (trained_dropout, "Dropout node `single`: training is not served: `training_mode` must be"),
    "dropout of an input": (dropout_of_input, "Dropout node `single`: training is not served: `training_mode` must"),
    "old dropout": (
        lambda: graphs.single("Dropout", (2,), opset=6),
        "Dropout node `single`: training is not served: `is_test` must be 1",
    ),
    "trained statistics": (
        lambda: batch_norm(15, training_mode=1, outputs=3),
        "BatchNormalization node `single`: training is not served: there must be one output",
    ),
    "old statistics": (
        lambda: batch_norm(6),
        "BatchNormalization node `single`: training is not served: `is_test` must be 1",
    ),
    "statistics of pixels": (
        lambda: batch_norm(7, spatial=0),
        "BatchNormalization node `single`: statistics of each pixel, `spatial=0`, are not served",
    ),
}


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_what_is_not_served_is_refused_by_name(name):
    make, words = UNSUPPORTED[name]
    model = make()
    with pytest.raises(UnsupportedModelError, match=words):
        jitconv.onnx.prepare(model)
    assert not jitconv.onnx.is_compatible(model)


@pytest.mark.parametrize("device", ["CUDA", "CUDA:1", "cpu", "", None])
def test_only_the_cpu_is_served(device):
    model, words = conv(), f"`device` must be 'CPU', got {device!r}"
    assert not jitconv.onnx.supports_device(device)
    assert not jitconv.onnx.is_compatible(model, device)
    with pytest.raises(UnsupportedModelError, match=words):
        jitconv.onnx.prepare(model, device)
    with pytest.raises(UnsupportedModelError, match=words):
        jitconv.onnx.run_node(helper.make_node("Relu", ["x"], ["y"]), [array(2)], device)
    for served in ("CPU", "CPU:0"):
        assert jitconv.onnx.supports_device(served)
        assert jitconv.onnx.is_compatible(model, served)


def test_an_invalid_model_is_refused():
    with pytest.raises(TypeError, match=r"`model` must be an onnx\.ModelProto, as .*, got str"):
        jitconv.onnx.prepare("model.onnx")
    model = conv()
    del model.graph.node[0].input[1:]
    with pytest.raises(onnx.checker.ValidationError):
        jitconv.onnx.prepare(model)


@pytest.mark.parametrize("place", ["initializer", "constant"])
def test_data_in_another_file_must_have_been_loaded(place, tmp_path, monkeypatch):
    model = conv()
    weights = model.graph.initializer[0]
    if place == "constant":
        model.graph.node.insert(0, helper.make_node("Constant", [], ["w0"], value=weights))
        del model.graph.initializer[:]
        weights = model.graph.node[0].attribute[0].t
    onnx.external_data_helper.set_external_data(weights, "weights.bin")
    (tmp_path / "weights.bin").write_bytes(weights.raw_data)
    weights.ClearField("raw_data")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"the data of `w0` is in another file: load it with onnx\.load"):
        jitconv.onnx.prepare(model)


@pytest.mark.parametrize(
    ("attributes", "words"),
    [
        ({"strides": [0, 1]}, r"Conv node `single`: `strides` must be at least 1, got \(0, 1\)"),
        ({"dilations": [1, 0]}, "Conv node `single`: `dilations` must be an integer of at least 1, got 0"),
        ({"pads": [0, 0, -1, 0]}, "Conv node `single`: `pads` must be an integer of at least 0, got -1"),
        (
            {"kernel_shape": [5, 5]},
            r"Conv node `single`: the weights must have a kernel of \(5, 5\)",
        ),
    ],
    ids=str,
)
def test_wrong_attributes_name_the_node(attributes, words):
    model = conv()
    for name, value in attributes.items():
        model.graph.node[0].attribute.append(helper.make_attribute(name, value))
    with pytest.raises(ValueError, match=words):
        jitconv.onnx.prepare(model)


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ((1, 5, 8, 8), "Conv node `single`: `w` has 3 input channels, but `x` has 5"),
        ((1, 3, 2, 8), "Conv node `single`: `kernel` spans 3x3 pixels"),
        (
            (1, 3, 8),
            r"Conv node `single`: the first input must have the axes .*, got the shape \(1, 3, 8\)",
        ),
    ],
    ids=str,
)
def test_what_is_found_in_a_run_names_the_node(shape, words):
    prepared = jitconv.onnx.prepare(graphs.reshaped("Conv", array(4, 3, 3, 3)))
    with pytest.raises(ValueError, match=words):
        prepared.run([array(*shape).ravel(), np.array(shape)])
    assert prepared.run([array(192), np.array([1, 3, 8, 8])])[0].shape == (1, 4, 6, 6)


@pytest.mark.parametrize(
    ("operator", "other"),
    [
        ("Reshape", [4, 4]),
        ("Unsqueeze", [2**62]),
        ("ReduceMean", [5]),
        ("Gather", [9]),
        ("Squeeze", [1]),
    ],
)
def test_numbers_that_no_operator_takes_name_the_node(operator, other):
    nodes = [helper.make_node(operator, ["x", "other"], ["y"], name="single")]
    inputs = [graphs.info("x", shape=["a", "b"]), graphs.info("other", TensorProto.INT64, ["k"])]
    prepared = jitconv.onnx.prepare(
        graphs.model(helper.make_graph(nodes, "g", inputs, [graphs.info("y", shape=["n"])]), 18)
    )
    with pytest.raises(ValueError, match=f"{operator} node `single`: "):
        prepared.run([array(2, 3), np.array(other)])


@pytest.mark.parametrize("operator", ["MaxPool", "AveragePool"])
@pytest.mark.parametrize("attributes", [{}, {"dilations": [2, 2]}, {"pads": [2, 2, 2, 2], "kernel_shape": [3, 9]}])
def test_a_window_larger_than_the_image_names_the_node(operator, attributes):
    model = graphs.reshaped(operator, opset=22, **{"kernel_shape": [3, 3], **attributes})
    with pytest.raises(ValueError, match=f"{operator} node `single`: `kernel` spans"):
        jitconv.onnx.run_model(model, [array(4), np.array([1, 1, 2, 2])])


def two_inputs():
    g = graphs.Graph(None)
    g.node("Add", "a", "b")
    return g.model({"a": ("N", 3), "b": ("N", 1)}, {"v0": ("N", 3)})


@pytest.mark.parametrize(
    ("inputs", "error", "words"),
    [
        ([array(2, 3)], ValueError, "the model takes 2 inputs, `a`, `b`, got 1"),
        (array(2, 3), ValueError, "the model takes 2 inputs, `a`, `b`, got 1"),
        ([array(2, 3), array(2, 1), array(1)], ValueError, "the model takes 2 inputs, `a`, `b`, got 3"),
        ({"a": array(2, 3)}, ValueError, "input `b` is missing; the model takes `a`, `b`"),
        ({"a": array(2, 3), "b": array(2, 1), "c": array(1)}, ValueError, "`c` is no input of the model, which takes"),
        ([array(2, 3), [[1.0], [1.0]]], TypeError, "input `b` must be a NumPy array, got list"),
        ([array(2, 3), np.ma.masked_array(array(2, 1))], TypeError, "input `b` must be a NumPy array, got MaskedArray"),
        ([array(2, 3), array(2, 1, dtype=np.float64)], TypeError, "input `b` has dtype float64, but .* takes float32"),
        ([array(2, 3, dtype=">f4"), array(2, 1)], TypeError, "input `a` has dtype >f4, but the model takes float32"),
        ([array(2, 3, dtype=np.float16), array(2, 1)], TypeError, "input `a` has dtype float16"),
        ([array(2, 4), array(2, 1)], ValueError, r"input `a` must have the shape \(2, 3\), got \(2, 4\)"),
        ([array(3), array(2, 1)], ValueError, r"input `a` must have the shape \(N, 3\), got \(3,\)"),
        ([array(2, 3), array(4, 1)], ValueError, r"input `b` must have the shape \(2, 1\), got \(4, 1\)"),
        (None, TypeError, "`inputs` must be a sequence or a mapping of arrays, got NoneType"),
        ("ab", TypeError, "`inputs` must be a sequence or a mapping of arrays, got str"),
    ],
    ids=str,
)
def test_wrong_inputs_are_refused_by_name(inputs, error, words):
    prepared = jitconv.onnx.prepare(two_inputs())
    with pytest.raises(error, match=words):
        prepared.run(inputs)


def test_the_wrong_inputs_of_a_node_are_refused():
    node = helper.make_node("Conv", ["x", "w"], ["y"])
    with pytest.raises(ValueError, match=re.escape("the model takes 2 inputs, `x`, `w`, got 1")):
        jitconv.onnx.run_node(node, [array(1, 3, 8, 8)])
    for dtype in (">f4", "datetime64[D]", object):
        with pytest.raises(TypeError, match=f"input `x` has dtype {re.escape(str(np.dtype(dtype)))}, and only floats"):
            jitconv.onnx.run_node(node, [np.zeros((1, 3, 8, 8), dtype), array(4, 3, 3, 3)])
    with pytest.raises(UnsupportedModelError, match="Conv node of `y`: `x` is float16"):
        jitconv.onnx.run_node(node, [array(1, 3, 8, 8, dtype=np.float16), array(4, 3, 3, 3)])
    with pytest.raises(ValueError, match="Conv node of `y`: `w` has 2 input channels, but `x` has 3"):
        jitconv.onnx.run_node(node, [array(1, 3, 8, 8), array(4, 2, 3, 3)])
    with pytest.raises(onnx.checker.ValidationError):
        jitconv.onnx.run_node(helper.make_node("Conv", ["x"], ["y"]), [array(1, 3, 8, 8)])
