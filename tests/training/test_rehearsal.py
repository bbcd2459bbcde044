"""What a training step is found to run, without running it."""

from __future__ import annotations

import numpy as np
import pytest

from jitconv.kernels.jit import Worker
from jitconv.layers import BatchNorm2d, Conv2d, Dense, Dropout, Flatten, MaxPool2d, ReLU
from jitconv.training import SGD, Adam, Sequential, Trainer, data, rehearsal, trainer, warming, zoo


def network():
    """Return layers with all that a step may change: parameters, running statistics and a count of batches."""
    layers = [Conv2d(2, 8, 3, seed=0), BatchNorm2d(8), ReLU(), MaxPool2d(2), Flatten(), Dropout(0.5, seed=0)]
    return Sequential([*layers, Dense(72, 3, seed=0)])


@pytest.fixture
def batch(rng):
    return rng.standard_normal((10, 2, 8, 8)).astype(np.float32), rng.integers(0, 3, 10)


def held(model, optimizer):
    """Return the bytes of all that a step changes, but gradients, which each backward pass overwrites."""
    return {name: a.tobytes() for name, a in (model.state() | optimizer.state()).items()}


@pytest.mark.parametrize("make", [lambda: SGD(0.1, 0.9), Adam])
def test_nothing_changes(make, batch):
    model, optimizer = network(), make()
    for _ in range(2):
        before = held(model, optimizer)
        assert rehearsal.step(model, optimizer, *batch)
        assert held(model, optimizer) == before
        Trainer(model, optimizer).step(*batch)


def test_it_is_what_runs(batch, monkeypatch):
    model, optimizer = network(), Adam()
    found = {worker.name for worker, char in rehearsal.step(model, optimizer, *batch) if char == "f"}
    used, address = set(), Worker.address

    def noted(self, dtype):
        used.add(self.name)
        return address(self, dtype)

    monkeypatch.setattr(Worker, "address", noted)
    logits = model.forward(batch[0])
    model.backward(np.ones_like(logits))
    optimizer.update(model.parameters, model.gradients)
    used |= {"pointwise.softmax_cross_entropy"}
    used |= found & {"correlate.correlate", "pack.pack", "max_pooling.argmax_pool_nhwc"}  # bound before, as small calls
    assert found == used


def test_a_whole_training_is_known_before(rng, monkeypatch):
    """With a smaller last batch and test images; nothing changes, and no packed weights are kept that are none."""
    x, labels = rng.standard_normal((37, 3, 32, 32)).astype(np.float32), np.arange(37) % 10
    dataset = data.Dataset(x, labels, x[:23], labels[:23], 10)
    model, optimizer = zoo.vgg_cifar(seed=0), Adam()
    before = held(model, optimizer)
    jobs = rehearsal.training(model, optimizer, dataset, 12, trainer.TEST_BATCH)
    assert held(model, optimizer) == before
    assert model.training
    used, address = set(), Worker.address

    def noted(self, dtype):
        used.add((self.name, dtype.char))
        return address(self, dtype)

    monkeypatch.setattr(Worker, "address", noted)
    trained = Trainer(model, optimizer)
    trained.fit(x, labels, epochs=1, batch_size=12, test=(x[:23], labels[:23]))
    assert used
    assert used <= {(worker.name, char) for worker, char in jobs}
    logits = trained.predict(x[:23])
    plain = zoo.vgg_cifar(seed=1)
    plain.load_state(model.state())
    np.testing.assert_array_equal(Trainer(plain, Adam()).predict(x[:23]), logits)


def test_the_first_step_compiles_and_no_other(batch, monkeypatch):
    calls = []
    monkeypatch.setattr(trainer, "compile_all", lambda jobs: calls.append([worker.name for worker, _ in jobs]))
    trained = Trainer(network(), SGD(0.1))
    for _ in range(3):
        trained.step(*batch)
    assert len(calls) == 1
    assert {"update.sgd", "batchnorm.moments_nhwc", "pointwise.dropout_apply"} <= {*calls[0]}


def test_a_step_is_the_same_after_it(batch, monkeypatch):
    rehearsed, plain = Trainer(network(), Adam()), Trainer(network(), Adam())
    first = rehearsed.step(*batch)
    monkeypatch.setattr(trainer, "compile_all", lambda jobs: None)
    monkeypatch.setattr(rehearsal, "step", lambda *arguments: [])
    assert plain.step(*batch) == first
    assert held(plain.model, plain.optimizer) == held(rehearsed.model, rehearsed.optimizer)


def test_layers_of_others_are_left_alone(batch):
    class Mine(ReLU):
        def forward(self, x):
            pytest.fail("called")

    assert rehearsal.step(Sequential([*network().layers, Mine()]), SGD(), *batch) == []
    assert rehearsal.step(Sequential([Sequential([Mine()])]), SGD(), *batch) == []


def test_what_does_not_fit_is_for_the_step_to_say(batch):
    x, labels = batch
    assert rehearsal.step(network(), SGD(), x, labels + 7)
    with pytest.raises(ValueError, match="`labels` must lie from 0 to 2"):
        Trainer(network(), SGD()).step(x, labels + 7)
    with pytest.raises(ValueError, match="`w` has 2 input channels, but `x` has 1"):
        Trainer(network(), SGD()).step(x[:, :1], labels)


def test_shape_and_dtype_of_a_result(monkeypatch, dtype):
    model = zoo.lenet(seed=0, dtype=dtype).eval()
    monkeypatch.setattr(Worker, "address", lambda *_: pytest.fail("a kernel runs"))
    y = rehearsal.result(model, np.zeros((5, 1, 28, 28), dtype))
    assert (y.shape, y.dtype) == ((5, 10), dtype)
    with pytest.raises(ValueError, match="`w` has 1 input channels, but `x` has 2"):
        rehearsal.result(model, np.zeros((5, 2, 28, 28), dtype))


def test_a_result_of_layers_of_others_is_computed(batch):
    class Mine(ReLU):
        def forward(self, x):
            return x.sum(axis=(1, 2, 3))

    x, _ = batch
    np.testing.assert_array_equal(rehearsal.result(Sequential([Mine()]), x), x.sum(axis=(1, 2, 3)))


@pytest.mark.parametrize("name", ["lenet", "vgg_cifar"])
def test_jobs_of_a_model(name, dtype, layout):
    names = {worker.name for worker, char in warming.model_jobs(name, dtype.name, layout) if char == dtype.char}
    assert {"update.sgd", "update.adam", "correlate.correlate", "weights.correlate_weights"} <= names
    assert {"dense.dense_forward", "dense.dense_gradient"} <= names
    assert ("relayout.transpose_images" in names) == (layout == "NCHW")  # inside it is NHWC
    assert ("global_pooling.global_avg_backward_nhwc" in names) == (name == "vgg_cifar")
    assert "depthwise.groups_of_1_nchw" not in names


def test_input_shapes():
    assert zoo.input_shape("vgg_cifar") == (3, 32, 32)
