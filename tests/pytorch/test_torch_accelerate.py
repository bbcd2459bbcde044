"""Models that are changed in place, and back."""

from __future__ import annotations

import copy
import io

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

import jitconv.torch as jt  # noqa: E402
from jitconv.torch import measure  # noqa: E402


class Custom(nn.Conv2d):
    """A class of somebody's own."""


class Net(nn.Module):
    """A model with all that is served, some things twice, and some that are not."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.body = nn.Sequential(self.first, nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 3, 3, padding=1))
        self.tied = nn.Conv2d(8, 3, 3, padding=1)
        self.tied.weight = self.body[3].weight
        self.up = nn.ConvTranspose2d(3, 3, 2, stride=2)
        self.custom = Custom(3, 4, 1)
        self.pool = nn.AdaptiveAvgPool2d(2)
        self.last = nn.Sequential(nn.AvgPool2d(2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))

    def forward(self, x):
        """Return two numbers for each image."""
        y = self.custom(self.up(self.body(x)) + self.tied(self.first(x)))
        return self.last(y) + self.pool(y).mean()


@pytest.fixture
def net():
    torch.manual_seed(0)
    return Net()


def test_what_is_changed_and_what_is_left(net):
    before = {name: (id(module), type(module)) for name, module in net.named_modules()}
    parameters, state = list(map(id, net.parameters())), copy.deepcopy(net.state_dict())
    report = jt.accelerate(net)
    assert set(report.changed) == {
        "first", "body", "body.2", "body.3", "tied", "up", "last", "last.0", "last.1",
    }  # fmt: skip
    assert report.changed["first"] == "jitconv.torch.Conv2d"
    assert set(report.left) == {"custom", "pool"}
    assert "a class of its own" in report.left["custom"]
    assert "not 1x1" in report.left["pool"]
    assert "9 modules changed" in str(report)
    assert "pool: its output is not 1x1" in str(report)
    assert {name: id(module) for name, module in net.named_modules()} == {n: i for n, (i, _) in before.items()}
    assert list(map(id, net.parameters())) == parameters
    assert net.first is net.body[0]
    assert net.tied.weight is net.body[3].weight
    assert list(net.state_dict()) == list(state)
    again = jt.accelerate(net)
    assert again.changed == {}
    assert set(again.left) == {"custom", "pool"}
    back = jt.restore(net)
    assert back.changed.keys() == report.changed.keys()
    assert back.left == {}
    assert {name: (id(module), type(module)) for name, module in net.named_modules()} == before
    assert "0 modules changed" in str(jt.restore(net))


def test_the_same_is_computed(net):
    other = copy.deepcopy(net)
    jt.accelerate(other)
    x = torch.randn(2, 3, 8, 8)
    for one in (net, other):
        one(x).square().sum().backward()
    for a, b in zip(other.parameters(), net.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=1e-5)
    for one in (net, other):
        one.eval()
    with torch.inference_mode():
        y = net(x)
        torch.testing.assert_close(other(x), y, rtol=1e-4, atol=1e-5)
    jt.restore(other)
    assert other.first.__dict__.keys() == net.first.__dict__.keys()
    with torch.inference_mode():
        assert torch.equal(other(x), y)


def test_hooks_training_and_pickles_stay(net):
    seen = []
    net.first.register_forward_hook(lambda *_: seen.append(1))
    net.body.eval()
    jt.accelerate(net)
    net(torch.randn(1, 3, 8, 8))
    assert seen == [1, 1]
    assert net.training
    assert not net.body.training
    net.first._forward_hooks.clear()
    buffer = io.BytesIO()
    torch.save(net, buffer)
    buffer.seek(0)
    loaded = torch.load(buffer, weights_only=False)
    assert type(loaded.first) is jt.Conv2d
    x = torch.randn(1, 3, 8, 8)
    torch.testing.assert_close(loaded(x), net(x))
    plain = Net()
    plain.load_state_dict(net.state_dict())
    torch.testing.assert_close(jt.restore(loaded) and loaded(x), plain(x))


def test_other_devices_dtypes_and_forwards_are_left_alone():
    half, meta, own = nn.Conv2d(3, 4, 3).half(), nn.Conv2d(3, 4, 3, device="meta"), nn.Conv2d(3, 4, 3)
    own.forward = lambda x: x
    parametrized = nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 4, 3))
    model = nn.ModuleList([half, meta, own, parametrized, nn.LazyConv2d(4, 3), nn.Conv2d(3, 4, 3).double()])
    report = jt.accelerate(model)
    assert list(report.changed) == ["5"]
    words = "float16", "meta", "forward has been replaced", "a class of its own", "a class of its own"
    for (_, why), word in zip(report.left.items(), words, strict=True):
        assert word in why


def test_the_model_itself_is_a_module():
    model = nn.Conv2d(3, 4, 3)
    assert str(jt.accelerate(model)) == "1 module changed\n  (the model): jitconv.torch.Conv2d"
    assert type(model) is jt.Conv2d


@pytest.mark.parametrize("training", [True, False])
def test_an_example_decides(net, training, monkeypatch):
    norm = nn.BatchNorm2d(2)
    model = nn.Sequential(net, nn.Dropout(0.5), nn.Unflatten(1, (2, 1, 1)), norm).train(training)
    timed = []

    def milliseconds(self):
        timed.append((self._kind, self._call.arguments[0].shape))
        slower = self._kind in (jt.MaxPool2d, nn.ConvTranspose2d)
        return 2.0 if slower else 1.0 if self._kind.__module__.startswith("jitconv") else 1.5

    monkeypatch.setattr(measure._Timed, "milliseconds", property(milliseconds))
    monkeypatch.setattr(measure, "LEAST", 0.0)
    buffers, state = copy.deepcopy(list(model.buffers())), torch.random.get_rng_state()
    report = jt.accelerate(model, torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0)))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(a, b) for a, b in zip(model.buffers(), buffers, strict=True))
    assert all(parameter.grad is None for parameter in model.parameters())
    assert report.left["0.body.2"] == "it takes 2 ms, with PyTorch 1.5 ms"
    assert type(net.body[2]) is nn.MaxPool2d
    assert report.changed["0.up"] == "jitconv.torch.ConvTranspose2d, 1 ms, with PyTorch 2 ms"
    assert (jt.Conv2d, (4, 3, 8, 8)) in timed
    assert not net.first._forward_pre_hooks
    assert "_folded" not in net.first.__dict__


def test_an_example_is_really_timed():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(inplace=True), nn.MaxPool2d(2))
    report = jt.accelerate(model, (torch.randn(2, 3, 12, 12),))
    told = [*report.changed.values(), *report.left.values()]
    assert sum(" ms, with PyTorch " in words for words in told) == 2
