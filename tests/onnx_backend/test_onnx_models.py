"""Whole networks, against onnx's reference implementation and PyTorch."""

from __future__ import annotations

import pathlib
import warnings

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")

import graphs  # noqa: E402
from onnx.reference import ReferenceEvaluator  # noqa: E402

import jitconv.onnx  # noqa: E402

TOLERANCE = {"float32": {"rtol": 1e-4, "atol": 1e-5}, "float64": {"rtol": 1e-11, "atol": 1e-13}}


@pytest.mark.parametrize("network", [graphs.lenet, graphs.residual], ids=lambda network: network.__name__)
def test_networks_give_what_the_reference_gives(network, dtype, rng):
    model = network(rng, dtype)
    shape = [axis.dim_value for axis in model.graph.input[0].type.tensor_type.shape.dim][1:]
    image = rng.standard_normal((3, *shape)).astype(dtype)
    (expected,) = ReferenceEvaluator(model).run(None, {"image": image})
    (y,) = jitconv.onnx.run_model(model, [image])
    assert y.dtype == dtype
    np.testing.assert_allclose(y, expected, **TOLERANCE[dtype.name])


def of_opset(opset, rng):
    """Return a network that means the same in each opset."""
    g = graphs.Graph(rng, opset=opset)
    y = g.node("Conv", "x", g.weights(8, 3, 3, 3), g.weights(8), pads=[1, 1, 1, 1])
    y = g.node("BatchNormalization", y, *(g.constant(rng.uniform(1, 2, 8).astype(np.float32)) for _ in range(4)))
    y = g.node("MaxPool", g.node("Relu", y), kernel_shape=[3, 3], strides=[2, 2], pads=[0, 0, 1, 1])
    y = g.node("AveragePool", y, kernel_shape=[2, 2], auto_pad="SAME_LOWER")
    y = g.node("Flatten", g.node("Dropout", y))
    y = g.node("Gemm", y, g.weights(5, 128), g.weights(5), transB=1)
    y = g.node("LogSoftmax", y, axis=1)
    return g.model({"x": (2, 3, 8, 8)}, {y: (2, 5)})


@pytest.mark.parametrize("opset", [7, 8, 9, 10, 11, 12, 13, 14, 15, 19, 22, 24])
def test_each_opset_gives_what_the_reference_gives_for_one(opset):
    # For batch normalisation of before opset 14 the reference takes the statistics of the batch.
    model, newer = (of_opset(one, np.random.default_rng(0)) for one in (opset, 17))
    x = np.random.default_rng(1).standard_normal((2, 3, 8, 8)).astype(np.float32)
    (expected,) = ReferenceEvaluator(newer).run(None, {"x": x})
    np.testing.assert_allclose(jitconv.onnx.run_model(model, [x])[0], expected, rtol=1e-4, atol=1e-5)


def exported(torch, module, x, folder, **options):
    """Return a module of PyTorch as a model, by the exporter that needs no further package."""
    path = pathlib.Path(folder, "model.onnx")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is not the default any more
        torch.onnx.export(module, (x,), path, dynamo=False, input_names=["x"], output_names=["y"], **options)
    return onnx.load(path)


@pytest.fixture
def torch():
    return pytest.importorskip("torch")


def test_a_network_of_pytorch(torch, tmp_path):
    """Strides, groups, pooling, a residual sum and a dense layer, for a batch of any size."""
    nn = torch.nn

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Sequential(
                nn.Conv2d(3, 16, 5, stride=2, padding=2), nn.BatchNorm2d(16), nn.ReLU6(), nn.MaxPool2d(3, 2, 1)
            )
            self.deep = nn.Sequential(
                nn.Conv2d(16, 32, 1), nn.ReLU(), nn.Conv2d(32, 32, 3, padding=1, groups=32), nn.LeakyReLU(0.2),
                nn.Conv2d(32, 16, 3, padding=2, dilation=2, bias=False), nn.BatchNorm2d(16),
            )  # fmt: skip
            self.up = nn.ConvTranspose2d(16, 8, 3, stride=2, padding=1, output_padding=1)
            self.pool = nn.AvgPool2d(2, ceil_mode=True)
            self.last = nn.Sequential(nn.Dropout(), nn.Linear(8 * 8 * 8, 32), nn.Sigmoid(), nn.Linear(32, 10))

        def forward(self, x):
            x = self.stem(x)
            x = torch.relu(self.deep(x) + x)
            x = self.pool(self.up(x))
            return torch.log_softmax(self.last(x.view(x.size(0), -1)), dim=1)

    torch.manual_seed(0)
    network = Network()
    network(torch.randn(32, 3, 32, 32))  # moves the running statistics
    network.eval()
    x = torch.randn(5, 3, 32, 32)
    model = exported(torch, network, x[:2], tmp_path, dynamic_axes={"x": {0: "n"}, "y": {0: "n"}})
    with torch.no_grad():
        expected = network(x).numpy()
    (y,) = jitconv.onnx.run_model(model, [x.numpy()])
    np.testing.assert_allclose(y, expected, **TOLERANCE["float32"])


def test_a_float64_network_of_pytorch(torch, tmp_path):
    nn = torch.nn
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2), nn.Tanh(), nn.AvgPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10), nn.Softmax(dim=1),
    ).double().eval()  # fmt: skip
    x = torch.randn(3, 1, 28, 28, dtype=torch.float64)
    with torch.no_grad():
        expected = network(x).numpy()
    (y,) = jitconv.onnx.run_model(exported(torch, network, x, tmp_path), [x.numpy()])
    assert y.dtype == np.float64
    np.testing.assert_allclose(y, expected, **TOLERANCE["float64"])
