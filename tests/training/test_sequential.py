"""Sequential: names, the backward pass through all layers, state."""

from __future__ import annotations

import numpy as np
import pytest
from gradients import numerical_gradient
from numpy.testing import assert_allclose, assert_array_equal

from jitconv import num_threads
from jitconv.layers import BatchNorm2d, Conv2d, Dense, Dropout, Flatten, MaxPool2d, ReLU
from jitconv.training import Adam, Sequential, Trainer, softmax_cross_entropy


def small_network(seed=0, dtype=np.float64):
    rng = np.random.default_rng(seed)
    return Sequential(
        [
            Conv2d(1, 3, 3, activation="relu", dtype=dtype, seed=rng),
            MaxPool2d(2),
            Sequential([BatchNorm2d(3, dtype=dtype), ReLU()]),
            Flatten(),
            Dropout(0.2, seed=rng),
            Dense(12, 4, dtype=dtype, seed=rng),
        ]
    )


NAMES = {"0.weight", "0.bias", "2.0.weight", "2.0.bias", "5.weight", "5.bias"}
BUFFERS = {"2.0.running_mean", "2.0.running_var", "2.0.num_batches_tracked", "4.key", "4.batches"}


def test_names():
    model = small_network()
    assert model.parameters.keys() == model.gradients.keys() == NAMES
    assert model.buffers.keys() == BUFFERS
    assert model.state().keys() == NAMES | BUFFERS
    assert model.parameters["2.0.bias"] is model.layers[2].layers[0].parameters["bias"]


def test_gradients_of_a_loss_are_the_numerical_ones(rng):
    model = small_network()
    x, labels = rng.standard_normal((3, 1, 6, 6)), np.array([0, 3, 1])

    def loss():
        model.buffers["4.batches"][...] = 0
        return softmax_cross_entropy(model(x), labels).value

    loss()
    dx = model.backward(softmax_cross_entropy(model.layers[-1]._saved[1], labels).dlogits)
    gradients = {name: gradient.copy() for name, gradient in model.gradients.items()}
    assert_allclose(dx, numerical_gradient(loss, x), rtol=1e-5, atol=1e-8)
    for name, parameter in model.parameters.items():
        assert_allclose(gradients[name], numerical_gradient(loss, parameter), rtol=1e-5, atol=1e-8)


def test_without_an_input_gradient_the_rest_is_the_same(rng):
    x = rng.standard_normal((3, 1, 6, 6))
    dy = rng.standard_normal((3, 4))
    model, other = small_network(), small_network()
    other.needs_input_gradient = False
    other.layers.insert(0, ReLU())  # has no parameters: its backward pass is not needed at all
    model(np.maximum(x, 0))
    other(x)
    assert model.backward(dy) is not None
    assert other.backward(dy) is None
    for one, two in zip(model.gradients.values(), other.gradients.values(), strict=True):
        assert_array_equal(one, two)
    assert not other.layers[1].needs_input_gradient
    assert other.layers[-1].needs_input_gradient
    other.needs_input_gradient = True
    assert not other.backward(dy)[x <= 0].any()


def test_backward_before_forward():
    with pytest.raises(RuntimeError, match=r"Sequential.backward was called before Sequential.forward"):
        small_network().backward(np.ones((3, 4)))


def test_train_and_eval_reach_every_layer(rng):
    model = small_network()
    x = rng.standard_normal((3, 1, 6, 6))
    model(x)
    assert model.eval() is model
    assert not model.layers[2].layers[0].training
    assert_array_equal(model(x), model(x))
    model.train()
    assert model.layers[4].training
    assert not np.array_equal(model(x), model(x))


def test_state_round_trip(rng):
    model, other = small_network(0), small_network(1)
    x = rng.standard_normal((3, 1, 6, 6))
    model(x)
    state = model.state()
    arrays = other.parameters
    other.load_state(state)
    for name, array in other.parameters.items():
        assert array is arrays[name]  # in place
    assert_array_equal(model.eval()(x), other.eval()(x))
    assert_array_equal(model.train()(x), other.train()(x))
    state["0.weight"][...] = 0  # a copy
    assert model.parameters["0.weight"].any()


def test_load_state_refuses_what_does_not_fit():
    model = small_network()
    before = model.state()
    without = {name: array for name, array in before.items() if name != "0.bias"}
    with pytest.raises(ValueError, match=r"does not fit this network: it lacks '0.bias' and also has 'x'"):
        model.load_state(without | {"x": np.zeros(1)})
    with pytest.raises(ValueError, match=r"'0.weight' is \(2,\) float64, expected \(3, 1, 3, 3\) float64"):
        model.load_state(before | {"0.weight": np.zeros(2), "5.bias": np.ones(4)})
    with pytest.raises(ValueError, match=r"'5.bias' is \(4,\) float32, expected \(4,\) float64"):
        model.load_state(before | {"5.bias": np.zeros(4, np.float32), "0.bias": np.ones(3)})
    for name, array in model.state().items():
        assert_array_equal(array, before[name])


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (ReLU(), "`layers` must be a list of layers, got ReLU"),
        ([ReLU(), np.sin], r"`layers`\[1\] must be a layer"),
    ],
)
def test_errors_of_the_constructor(layers, message):
    with pytest.raises(TypeError, match=message):
        Sequential(layers)


def test_training_gives_the_same_bits_for_any_number_of_threads(rng):
    """Large enough for two threads everywhere: 64 images, 32 channels, dense weights of 25,000."""
    x, labels = rng.standard_normal((64, 1, 30, 30)), rng.integers(0, 10, 64)
    states = []
    for n in (1, 2):
        stream = np.random.default_rng(0)
        layers = [
            Conv2d(1, 32, 3, dtype=np.float64, seed=stream),
            BatchNorm2d(32, dtype=np.float64),
            ReLU(),
            MaxPool2d(2),
            Flatten(),
            Dropout(0.3, seed=stream),
            Dense(32 * 14 * 14, 10, dtype=np.float64, seed=stream),
        ]
        trainer = Trainer(Sequential(layers, needs_input_gradient=False), Adam())
        with num_threads(n):
            losses = [trainer.step(x, labels) for _ in range(3)]
        states.append({"losses": np.array(losses)} | trainer.model.state() | trainer.optimizer.state())
    for name, array in states[0].items():
        assert array.tobytes() == states[1][name].tobytes(), name
