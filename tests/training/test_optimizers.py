"""Optimizers against their formulas, written out, and against PyTorch's."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from jitconv import num_threads
from jitconv.cost import SMALL
from jitconv.training import SGD, Adadelta, AdaGrad, Adam, RMSProp


def sgd(p, g, s, t, lr=0.1):
    return p - lr * g


def momentum(p, g, s, t, lr=0.1, keep=0.8):
    s["v"] = keep * s.get("v", 0) + g
    return p - lr * s["v"]


def adagrad(p, g, s, t, lr=0.1, eps=1e-6):
    s["sum"] = s.get("sum", 0) + g**2
    return p - lr * g / (np.sqrt(s["sum"]) + eps)


def rmsprop(p, g, s, t, lr=0.1, alpha=0.9, eps=1e-6):
    s["square"] = alpha * s.get("square", 0) + (1 - alpha) * g**2
    return p - lr * g / (np.sqrt(s["square"]) + eps)


def adadelta(p, g, s, t, lr=0.5, rho=0.8, eps=1e-4):
    s["square"] = rho * s.get("square", 0) + (1 - rho) * g**2
    delta = np.sqrt(s.get("change", 0) + eps) / np.sqrt(s["square"] + eps) * g
    s["change"] = rho * s.get("change", 0) + (1 - rho) * delta**2
    return p - lr * delta


def adam(p, g, s, t, lr=0.1, b1=0.8, b2=0.95, eps=1e-6):
    s["m"] = b1 * s.get("m", 0) + (1 - b1) * g
    s["v"] = b2 * s.get("v", 0) + (1 - b2) * g**2
    return p - lr * (s["m"] / (1 - b1**t)) / (np.sqrt(s["v"] / (1 - b2**t)) + eps)


# Name: the optimizer, its formula, and PyTorch's class with the arguments that make it the same.
CASES = {
    "sgd": (lambda **o: SGD(0.1, **o), sgd, "SGD", {"lr": 0.1}),
    "momentum": (lambda **o: SGD(0.1, 0.8, **o), momentum, "SGD", {"lr": 0.1, "momentum": 0.8}),
    "adagrad": (lambda **o: AdaGrad(0.1, eps=1e-6, **o), adagrad, "Adagrad", {"lr": 0.1, "eps": 1e-6}),
    "rmsprop": (
        lambda **o: RMSProp(0.1, 0.9, 1e-6, **o),
        rmsprop,
        "RMSprop",
        {"lr": 0.1, "alpha": 0.9, "eps": 1e-6},
    ),
    "adadelta": (
        lambda **o: Adadelta(0.5, 0.8, 1e-4, **o),
        adadelta,
        "Adadelta",
        {"lr": 0.5, "rho": 0.8, "eps": 1e-4},
    ),
    "adam": (
        lambda **o: Adam(0.1, (0.8, 0.95), 1e-6, **o),
        adam,
        "Adam",
        {"lr": 0.1, "betas": (0.8, 0.95), "eps": 1e-6},
    ),
}
STEPS = 4


@pytest.fixture(params=CASES)
def case(request):
    """Return a case of the table."""
    return CASES[request.param]


def run(make, start, gradients, decay=0.0):
    """Return the parameter, and the optimizer, after a step with each gradient."""
    optimizer = make(weight_decay=decay)
    parameters, held = {"w": start.copy()}, {"w": np.empty_like(start)}
    for gradient in gradients:
        held["w"][...] = gradient
        optimizer.update(parameters, held)
    return parameters["w"], optimizer


@pytest.mark.parametrize("shape", [(3, 4), (int(SMALL) + 1237,), (0,)], ids=str)
def test_steps_follow_the_formula(case, shape, rng):
    make, formula, _, _ = case
    start = rng.standard_normal(shape)
    gradients = rng.standard_normal((STEPS, *shape))
    with num_threads(1):
        one, _ = run(make, start, gradients, 0.02)
    with num_threads(2):
        two, optimizer = run(make, start, gradients, 0.02)
    assert one.tobytes() == two.tobytes()
    assert optimizer.steps == STEPS
    expected, state = start, {}
    for t, gradient in enumerate(gradients, 1):
        expected = formula(expected, gradient + 0.02 * expected, state, t)
    assert_allclose(one, expected, rtol=1e-12, atol=1e-14)


def test_steps_are_those_of_pytorch(case, rng):
    torch = pytest.importorskip("torch")
    make, _, name, options = case
    start, gradients = rng.standard_normal(50), rng.standard_normal((STEPS, 50))
    parameter = torch.tensor(start, requires_grad=True)
    theirs = getattr(torch.optim, name)([parameter], weight_decay=0.02, **options)
    for gradient in gradients:
        parameter.grad = torch.tensor(gradient)
        theirs.step()
    ours, _ = run(make, start, gradients, 0.02)
    assert_allclose(ours, parameter.detach().numpy(), rtol=1e-10, atol=1e-12)


def test_defaults_are_those_of_pytorch():
    torch = pytest.importorskip("torch")
    for ours, name in ((SGD(), "SGD"), (AdaGrad(), "Adagrad"), (RMSProp(), "RMSprop"), (Adam(), "Adam")):
        theirs = getattr(torch.optim, name)([torch.zeros(1)]).defaults
        for option in ("lr", "momentum", "weight_decay", "eps", "alpha", "betas"):
            if hasattr(ours, option):
                assert getattr(ours, option) == theirs[option], (name, option)
    theirs = torch.optim.Adadelta([torch.zeros(1)]).defaults
    assert (Adadelta().lr, Adadelta().rho, Adadelta().eps) == (theirs["lr"], theirs["rho"], theirs["eps"])


def test_float32_stays_float32(case, rng):
    """A scalar of float64 in a kernel would change the last bits, or the state's dtype."""
    make, formula, _, _ = case
    start = rng.standard_normal(1000).astype(np.float32)
    gradients = rng.standard_normal((STEPS, 1000)).astype(np.float32)
    got, optimizer = run(make, start, gradients)
    expected, state = start.astype(np.float64), {}
    for t, gradient in enumerate(gradients, 1):
        expected = formula(expected, gradient.astype(np.float64), state, t)
    assert got.dtype == np.float32
    assert all(a.dtype == np.float32 for name, a in optimizer.state().items() if name != "steps")
    assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


def network(rng, sizes=(5, 0, 3000, int(SMALL) + 7, 1024)):
    """Return parameters of two dtypes, and their gradients."""
    kinds = {f"{i}": (size, np.float64 if i % 3 == 1 else np.float32) for i, size in enumerate(sizes)}
    return tuple({name: rng.standard_normal(n).astype(kind) for name, (n, kind) in kinds.items()} for _ in range(2))


def test_all_parameters_at_once_are_each_by_itself(case, rng):
    make, _, _, _ = case
    parameters, gradients = network(rng)
    alone = {name: p.copy() for name, p in parameters.items()}
    threaded = {name: p.copy() for name, p in parameters.items()}
    together, shared, apart = (
        make(weight_decay=0.02),
        make(weight_decay=0.02),
        {name: make(weight_decay=0.02) for name in alone},
    )
    for _ in range(STEPS):
        with num_threads(1):
            together.update(parameters, gradients)
            for name, p in alone.items():
                apart[name].update({name: p}, {name: gradients[name]})
        with num_threads(2):
            shared.update(threaded, gradients)
    for name, p in parameters.items():
        assert p.tobytes() == alone[name].tobytes() == threaded[name].tobytes()


def test_other_arrays_are_noticed(case, rng):
    """What is kept from step to step is not used for other arrays, nor for arrays that changed."""
    make, _, _, _ = case
    optimizer, start = make(), rng.standard_normal((2, 3))
    parameters, gradients = {"w": start.copy()}, {"w": np.ones((2, 3))}
    optimizer.update(parameters, gradients)
    old = parameters["w"].copy()
    parameters["w"] = (other := old.copy())
    optimizer.update(parameters, gradients)
    assert not np.array_equal(other, old)
    now = other.copy()
    gradients["w"] = np.zeros((2, 3))
    gradients["w"].flags.writeable = False
    with pytest.raises(ValueError, match="`gradient of w` must be a writable"):
        optimizer.update(parameters, gradients)
    gradients["w"] = np.ones((3, 2))
    with pytest.raises(ValueError, match="`gradient of w` must have the shape and dtype of its parameter"):
        optimizer.update(parameters, gradients)
    gradients["w"] = gradients["w"].reshape(2, 3)
    optimizer.update(parameters, gradients)
    assert not np.array_equal(other, now)
    other.flags.writeable = False
    with pytest.raises(ValueError, match="`w` must be a writable"):
        optimizer.update(parameters, gradients)
    with pytest.raises(ValueError, match="`gradients` lacks 'w'"):
        optimizer.update(parameters, {})
    assert optimizer.steps == 3


def test_a_parameter_that_became_another(rng):
    optimizer = Adam()
    optimizer.update({"w": np.ones(3)}, {"w": np.ones(3)})
    with pytest.raises(ValueError, match=r"`w` is \(40,\) float64, but was \(3,\) float64 at the steps before"):
        optimizer.update({"w": np.ones(40)}, {"w": np.ones(40)})


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))], ids=["copy", "pickle"])
def test_a_copy_updates_its_own_arrays(case, copied, rng):
    make, _, _, _ = case
    held = make(), {"w": rng.standard_normal(9)}, {"w": np.ones(9)}
    held[0].update(*held[1:])
    before = held[1]["w"].copy()
    optimizer, parameters, gradients = copied(held)
    optimizer.update(parameters, gradients)
    assert_array_equal(held[1]["w"], before)
    assert not np.array_equal(parameters["w"], before)


def test_parameters_that_share_memory(rng):
    """One after the other, as by themselves; two threads would mix the steps."""
    w, g = rng.standard_normal(int(SMALL)), rng.standard_normal(int(SMALL))
    expected = w.copy()
    SGD(0.1).update({"a": w, "b": w}, {"a": g, "b": 2 * g})
    for gradient in (g, 2 * g):
        SGD(0.1).update({"a": expected}, {"a": gradient})
    assert w.tobytes() == expected.tobytes()


def test_a_saved_state_goes_on_exactly(case, rng):
    make, _, _, _ = case
    start, gradients = rng.standard_normal(30), rng.standard_normal((STEPS, 30))
    whole, _ = run(make, start, gradients)
    half, optimizer = run(make, start, gradients[:2])
    state = optimizer.state()
    other = make()
    other.load_state(state, {"w": half})
    for array in state.values():
        array[...] = 7  # copies
    for gradient in gradients[2:]:
        other.update({"w": half}, {"w": gradient})
    assert_array_equal(half, whole)


def test_a_state_before_the_first_step(case):
    make, _, _, _ = case
    other = make()
    other.load_state(make().state(), {"w": np.zeros(3)})
    assert other.steps == 0


def test_a_state_that_does_not_fit(rng):
    parameters = {"w": rng.standard_normal(3)}
    adam_state = run(CASES["adam"][0], parameters["w"], np.ones((1, 3)))[1].state()
    with pytest.raises(ValueError, match=r"does not fit this optimizer: it lacks 'sum.w' and also has 'first.w'"):
        AdaGrad().load_state(adam_state, parameters)
    with pytest.raises(ValueError, match=r"'first.w' is \(3,\) float64, expected \(4,\) float64"):
        Adam().load_state(adam_state, {"w": np.zeros(4)})
    with pytest.raises(ValueError, match="it lacks 'steps'"):
        Adam().load_state({}, parameters)


@pytest.mark.parametrize(
    ("parameter", "gradient", "error", "message"),
    [
        (
            np.zeros((4, 4))[:, ::2],
            np.zeros((4, 2)),
            ValueError,
            "`w` must be a writable, C-contiguous array",
        ),
        (
            np.zeros(3),
            np.zeros(4),
            ValueError,
            r"`gradient of w` must have the shape and dtype of its parameter",
        ),
        (np.zeros(3), np.zeros(3, np.float32), ValueError, r"\(3,\) float64, got \(3,\) float32"),
        (np.zeros(3, int), np.zeros(3), TypeError, "`w` has dtype int64"),
    ],
)
def test_arrays_that_cannot_be_updated(parameter, gradient, error, message):
    optimizer = SGD()
    with pytest.raises(error, match=message):
        optimizer.update({"w": parameter}, {"w": gradient})
    assert optimizer.steps == 0


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: SGD(-1), ValueError, "`lr` must be a finite number of at least 0, got -1"),
        (lambda: SGD("fast"), TypeError, "`lr` must be a finite number of at least 0, got 'fast'"),
        (lambda: SGD(np.nan), ValueError, "`lr` must be a finite number"),
        (lambda: SGD(0.1, 1.5), ValueError, "`momentum` must be a finite number from 0 to 1, got 1.5"),
        (
            lambda: SGD(0.1, weight_decay=-1),
            ValueError,
            "`weight_decay` must be a finite number of at least 0",
        ),
        (lambda: Adam(betas=0.9), ValueError, "`betas` must be a pair, got 0.9"),
        (
            lambda: Adam(betas=(0.9, 1)),
            ValueError,
            r"`betas\[1\]` must be a finite number from 0 to 1, 1 excluded",
        ),
        (lambda: RMSProp(alpha=2), ValueError, "`alpha` must be a finite number from 0 to 1, got 2"),
        (lambda: Adadelta(eps=-1), ValueError, "`eps` must be a finite number of at least 0, got -1"),
    ],
)
def test_errors_of_constructors(make, error, message):
    with pytest.raises(error, match=message):
        make()
