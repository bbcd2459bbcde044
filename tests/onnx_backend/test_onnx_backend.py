"""The backend itself: how it is called, what it keeps, and that a run changes nothing."""

from __future__ import annotations

import subprocess
import sys
import threading
import types
import typing

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")

import graphs  # noqa: E402
from onnx import TensorProto, helper  # noqa: E402
from onnx.backend.base import Backend, BackendRep  # noqa: E402

import jitconv  # noqa: E402
import jitconv.onnx  # noqa: E402
import jitconv.onnx.convolution  # noqa: E402
import jitconv.onnx.elements  # noqa: E402


def network(rng, dtype=np.float32):
    """Return a model with two convolutions, whose weights are worth keeping, and its images."""
    g = graphs.Graph(rng, dtype)
    y = g.node("Relu", g.node("Conv", "x", g.weights(64, 16, 3, 3), g.weights(64), pads=[1, 1, 1, 1]))
    y = g.node("Conv", y, g.weights(64, 64, 3, 3), pads=[1, 1, 1, 1])
    return g.model({"x": ("N", 16, 20, 20)}, {y: ("N", 64, 20, 20)}), rng.standard_normal((2, 16, 20, 20)).astype(dtype)


def names_of(model):
    return [one.name for one in model.graph.input], [one.name for one in model.graph.output]


def test_inputs_in_order_by_name_and_alone_are_the_same(rng):
    model, x = network(rng)
    prepared = jitconv.onnx.prepare(model)
    assert isinstance(prepared, BackendRep)
    assert issubclass(jitconv.onnx.Backend, Backend)
    assert (list(prepared.inputs), list(prepared.outputs)) == names_of(model)
    (expected,) = prepared.run([x])
    for inputs in ((x,), {"x": x}, x):
        np.testing.assert_array_equal(prepared.run(inputs)[0], expected)
    np.testing.assert_array_equal(jitconv.onnx.run_model(model, [x], "CPU")[0], expected)
    np.testing.assert_array_equal(jitconv.onnx.Backend.run_model(model, {"x": x})[0], expected)


def test_a_run_gives_what_the_functions_give(dtype, rng):
    model, x = network(rng, dtype)
    w0, b0, w1 = (onnx.numpy_helper.to_array(one) for one in model.graph.initializer)
    kept = jitconv.KeptWeights(), jitconv.KeptWeights()
    y = jitconv.conv2d(x, w0, b0, padding=1, activation="relu", kept=kept[0])
    y = jitconv.conv2d(y, w1, padding=1, kept=kept[1])
    np.testing.assert_array_equal(jitconv.onnx.run_model(model, [x])[0], y)


def test_repeated_runs_give_the_same_bits_in_memory_of_their_own(rng):
    model, x = network(rng)
    prepared = jitconv.onnx.prepare(model)
    (first,) = prepared.run([x])
    saved = first.copy()
    for _ in range(5):
        (again,) = prepared.run([x])
        assert again.tobytes() == saved.tobytes()
        assert not np.may_share_memory(first, again)
        again[...] = np.nan
    np.testing.assert_array_equal(first, saved)


def test_neither_inputs_nor_the_model_change(rng):
    model, x = network(rng)
    before, saved = model.SerializeToString(deterministic=True), x.copy()
    x.flags.writeable = False
    prepared = jitconv.onnx.prepare(model)
    (y,) = prepared.run([x])
    np.testing.assert_array_equal(x, saved)
    assert model.SerializeToString(deterministic=True) == before
    # Weights are copied: a change of the model afterwards is not seen.
    for tensor in model.graph.initializer:
        tensor.raw_data = bytes(len(tensor.raw_data))
    np.testing.assert_array_equal(prepared.run([x])[0], y)
    np.testing.assert_array_equal(prepared.run([np.asfortranarray(saved)])[0], y)


def test_outputs_share_memory_with_nothing():
    nodes = [
        helper.make_node("Identity", ["x"], ["same"]),
        helper.make_node("Reshape", ["same", "shape"], ["flat"]),
        helper.make_node("Identity", ["c"], ["constant"]),
        helper.make_node("Relu", ["x"], ["y"]),
        helper.make_node("Identity", ["y"], ["twice"]),
        helper.make_node("Dropout", ["twice"], ["dropped", "mask"]),
        helper.make_node("Transpose", ["y"], ["turned"], perm=[1, 0]),
        helper.make_node("Sum", ["y"], ["alone"]),
        helper.make_node("Clip", ["y"], ["unclipped"]),
    ]
    outputs = ["same", "flat", "constant", "y", "twice", "dropped", "mask", "turned", "alone", "unclipped", "x", "c"]
    constants = [
        onnx.numpy_helper.from_array(np.array([6]), "shape"),
        onnx.numpy_helper.from_array(np.ones(2, np.float32), "c"),
    ]
    infos = [graphs.info(name, TensorProto.BOOL if name == "mask" else TensorProto.FLOAT) for name in outputs]
    infos[-1] = graphs.info("c", shape=[2])
    graph = helper.make_graph(nodes, "g", [graphs.info("x", shape=[2, 3])], infos, constants)
    prepared = jitconv.onnx.prepare(graphs.model(graph))
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    arrays = [x, *prepared.run([x]), *prepared.run([x])]
    for index, a in enumerate(arrays):
        for other in arrays[index + 1 :]:
            assert not np.may_share_memory(a, other)
    first, second = arrays[1 : 1 + len(outputs)], arrays[1 + len(outputs) :]
    by_name = dict(zip(outputs, second, strict=True))
    np.testing.assert_array_equal(by_name["turned"], x.T)
    np.testing.assert_array_equal(by_name["flat"], x.ravel())
    assert by_name["mask"].all()
    for a in first:
        a[...] = 0
    for a, b in zip(prepared.run([x]), second, strict=True):
        np.testing.assert_array_equal(a, b)


class Counted(jitconv.KeptWeights):
    """Counts how often weights are packed."""

    made: typing.ClassVar[list[Counted]] = []

    def __init__(self):
        super().__init__()
        self.packings = 0
        self.made.append(self)

    def packed(self, call, packing, *rest):
        def into(*arguments):
            self.packings += 1
            packing.into(*arguments)

        return super().packed(call, types.SimpleNamespace(bytes=packing.bytes, into=into), *rest)


@pytest.fixture
def kept(monkeypatch):
    """Return the list of the kept weights that are made."""
    monkeypatch.setattr(Counted, "made", [])
    monkeypatch.setattr(jitconv.onnx.convolution, "KeptWeights", Counted)
    return Counted.made


def test_weights_of_the_model_are_packed_once(kept, rng):
    model, x = network(rng)
    prepared = jitconv.onnx.prepare(model)
    for _ in range(3):
        prepared.run([x])
    assert [one.packings for one in kept] == [1, 1]


def test_weights_that_are_inputs_are_not_kept(kept, rng):
    g = graphs.Graph(rng)
    y = g.node("Conv", "x", "w")
    model = g.model({"x": (1, 16, 9, 9), "w": (64, 16, 3, 3)}, {y: (1, 64, 7, 7)})
    x, w = (rng.standard_normal(shape).astype(np.float32) for shape in ((1, 16, 9, 9), (64, 16, 3, 3)))
    (y,) = jitconv.onnx.run_model(model, [x, w])
    np.testing.assert_array_equal(y, jitconv.conv2d(x, w))
    assert kept == []


def test_a_relu_is_computed_by_its_convolution_unless_the_sum_is_needed(monkeypatch, rng):
    calls, relu = [], jitconv.onnx.elements.pointwise.relu
    monkeypatch.setattr(jitconv.onnx.elements.pointwise, "relu", lambda x: calls.append(x) or relu(x))
    w = rng.standard_normal((4, 3, 3, 3)).astype(np.float32)
    x = rng.standard_normal((1, 3, 8, 8)).astype(np.float32)
    plain = jitconv.conv2d(x, w)
    for outputs, separate in ((["y"], 0), (["s", "y"], 1), (["t", "y"], 1)):
        nodes = [helper.make_node("Conv", ["x", "w"], ["s"]), helper.make_node("Relu", ["s"], ["y"])]
        if "t" in outputs:
            nodes.append(helper.make_node("Tanh", ["s"], ["t"]))
        infos = [graphs.info(name) for name in outputs]
        weights = [onnx.numpy_helper.from_array(w, "w")]
        model = graphs.model(helper.make_graph(nodes, "g", [graphs.info("x", shape=x.shape)], infos, weights))
        calls.clear()
        results = dict(zip(outputs, jitconv.onnx.run_model(model, [x]), strict=True))
        assert len(calls) == separate
        np.testing.assert_array_equal(results["y"], np.maximum(plain, 0))
        if "s" in results:
            np.testing.assert_array_equal(results["s"], plain)


def test_two_threads_may_run_one_representation(rng):
    model, _ = network(rng)
    prepared = jitconv.onnx.prepare(model)
    images = [rng.standard_normal((n, 16, 20, 20)).astype(np.float32) for n in (1, 3)]
    expected = [prepared.run([x])[0] for x in images]
    fresh = jitconv.onnx.prepare(model)
    start, wrong = threading.Barrier(2), []

    def work(x, y):
        start.wait(timeout=60)
        wrong.extend(True for _ in range(20) if fresh.run([x])[0].tobytes() != y.tobytes())

    threads = [threading.Thread(target=work, args=pair) for pair in zip(images, expected, strict=True)]
    for one in threads:
        one.start()
    for one in threads:
        one.join(timeout=120)
        assert not one.is_alive()
    assert wrong == []


def test_a_node_runs_alone(dtype, rng):
    x, w, b = (rng.standard_normal(shape).astype(dtype) for shape in ((2, 3, 8, 8), (4, 3, 3, 3), (4,)))
    saved = x.copy()
    node = helper.make_node("Conv", ["x", "w", "b"], ["y"], pads=[1, 1, 1, 1])
    expected = jitconv.conv2d(x, w, b, padding=1)
    for inputs in ([x, w, b], {"b": b, "w": w, "x": x}):
        (y,) = jitconv.onnx.run_node(node, inputs)
        np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)
    left_out = helper.make_node("Clip", ["x", "", "high"], ["y"])
    (y,) = jitconv.onnx.run_node(left_out, [x, np.array(0.5, dtype)])
    np.testing.assert_array_equal(y, np.minimum(x, dtype.type(0.5)))
    (y,) = jitconv.onnx.run_node(helper.make_node("Identity", ["x"], ["y"]), x)
    assert not np.may_share_memory(x, y)
    np.testing.assert_array_equal(x, saved)


def test_the_version_of_a_node_decides_what_it_means(rng):
    x = rng.standard_normal((2, 3, 4)).astype(np.float32)
    node = helper.make_node("Softmax", ["x"], ["y"], axis=1)
    (old,) = jitconv.onnx.run_node(node, [x], opset_version=11)
    (new,) = jitconv.onnx.run_node(node, [x], opset_version=13)
    np.testing.assert_allclose(old.sum(axis=(1, 2)), 1, rtol=1e-5)
    np.testing.assert_allclose(new.sum(axis=1), 1, rtol=1e-5)


def test_values_that_no_input_reaches_are_computed_once(rng):
    """A shape that an exporter computes, and weights that a node makes."""
    g = graphs.Graph(rng)
    weights = g.node("ConstantOfShape", g.constant(np.array([8, 3, 3, 3])), value=helper.make_tensor("", 1, [1], [0.5]))
    y = g.node("Conv", "x", weights)
    batch = g.node("Gather", g.node("Shape", y), g.node("Constant", value_int=0))
    axes = g.constant(np.array([0]))
    rest = g.node("Constant", value_ints=[-1])
    shape = g.node("Concat", g.node("Unsqueeze", batch, axes), rest, axis=0)
    y = g.node("Reshape", y, shape)
    prepared = jitconv.onnx.prepare(g.model({"x": ("N", 3, 4, 4)}, {y: ("N", None)}))
    x = rng.standard_normal((2, 3, 4, 4)).astype(np.float32)
    expected = jitconv.conv2d(x, np.full((8, 3, 3, 3), 0.5, np.float32)).reshape(2, -1)
    np.testing.assert_allclose(prepared.run([x])[0], expected, rtol=1e-6, atol=1e-6)
    made = {step.name.split()[0] for step in prepared._program.steps}
    assert made == {"Conv", "Shape", "Gather", "Unsqueeze", "Concat", "Reshape"}


def test_an_initializer_may_stand_among_the_inputs(rng):
    """As in models of before 2019."""
    model, x = network(rng)
    expected = jitconv.onnx.run_model(model, [x])
    for tensor in model.graph.initializer:
        model.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    prepared = jitconv.onnx.prepare(model)
    assert prepared.inputs == ("x",)
    np.testing.assert_array_equal(prepared.run([x]), expected)


def test_infinity_and_nan_go_through_without_a_warning():
    g = graphs.Graph(None)
    y = g.node("Div", g.node("Sub", "x", "x"), g.node("Relu", "x"))
    y = g.node("LogSoftmax", g.node("Sigmoid", g.node("Mul", y, "x")))
    x = np.array([[np.inf, -np.inf, np.nan, 0, -3e38, 3e38]], np.float32)
    (y,) = jitconv.onnx.run_model(g.model({"x": (1, 6)}, {y: (1, 6)}), [x])
    assert np.isnan(y).all()


def test_without_onnx_the_message_says_what_to_install():
    code = "import sys; sys.modules['onnx'] = None; import jitconv; import jitconv.onnx"
    child = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True)
    assert child.returncode == 1
    assert 'ImportError: jitconv.onnx needs onnx, which is missing: pip install "jitconv[onnx]"' in child.stderr
