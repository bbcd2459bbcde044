"""Sequences in which a convolution takes along what follows it."""

from __future__ import annotations

import copy

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

import jitconv.torch as jt  # noqa: E402
from jitconv.torch import convolution, fusion  # noqa: E402


def layers():
    """Return layers of which some go together."""
    return [
        nn.Conv2d(3, 16, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 16, 3, padding=1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 16, 3, padding=1, padding_mode="reflect"),
        nn.BatchNorm2d(16, affine=False),
        nn.Conv2d(16, 8, 1),
        nn.ReLU(),
        nn.MaxPool2d(3, 1, padding=1),
    ]


@pytest.fixture(params=[torch.contiguous_format, torch.channels_last], ids=["contiguous", "channels_last"])
def models(request):
    """Return a model of PyTorch and its accelerated copy."""
    torch.manual_seed(0)
    model = nn.Sequential(*layers()).double().to(memory_format=request.param)
    for module in model:
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-1, 1)
            module.running_var.uniform_(0.5, 2)
    accelerated = copy.deepcopy(model)
    jt.accelerate(accelerated)
    return model, accelerated, request.param


@pytest.fixture
def passes(monkeypatch):
    """Return a list of what has been computed in one pass."""
    seen = []

    def note(module, name, word):
        run = getattr(module, name)

        def noted(*arguments, **options):
            seen.append(word + (" relu" if options.get("relu") else ""))
            return run(*arguments, **options)

        monkeypatch.setattr(module, name, noted)

    note(convolution, "run_conv2d", "conv")
    note(fusion, "run_relu_pool", "conv relu pool")
    return seen


def test_training_is_pytorchs(models, generator):
    model, accelerated, memory_format = models
    for _ in range(2):
        x = generator(2, 3, 16, 16).to(memory_format=memory_format)
        for one in (model, accelerated):
            one.zero_grad()
            one(x).square().sum().backward()
        for a, b in zip(accelerated.parameters(), model.parameters(), strict=True):
            torch.testing.assert_close(a.grad, b.grad)
    for a, b in zip(accelerated.buffers(), model.buffers(), strict=True):
        torch.testing.assert_close(a, b)


def test_inference_is_pytorchs_and_in_one_pass(models, generator, passes):
    model, accelerated, memory_format = models
    x = generator(2, 3, 16, 16).to(memory_format=memory_format)
    model.eval(), accelerated.eval()
    with torch.no_grad():
        y = accelerated(x)
        torch.testing.assert_close(y, model(x), check_stride=True)
    last = memory_format == torch.channels_last
    assert passes == (["conv relu pool"] * 2 if last else ["conv relu"] * 2) + ["conv", "conv relu"]
    passes.clear()
    torch.testing.assert_close(accelerated(x), y)  # with gradients
    assert passes == []


def test_folded_statistics_are_never_stale(models, generator):
    model, accelerated, memory_format = models
    x = generator(2, 3, 16, 16).to(memory_format=memory_format)
    model.eval(), accelerated.eval()

    def change(one, step):
        conv, norm = one[3], one[4]
        sources = conv.weight, norm.weight, norm.bias, norm.running_mean, norm.running_var, one[7].weight, one[7].bias
        with torch.no_grad():
            if step < len(sources):
                sources[step].add_(0.25)
            else:
                norm.eps = 0.5

    with torch.inference_mode():
        for step in range(8):
            change(model, step), change(accelerated, step)
            torch.testing.assert_close(accelerated(x), model(x))


def seen_at(model, place, x):
    """Return what a hook of one module gets, and what comes out at the end."""
    seen = []
    handle = model[place].register_forward_hook(lambda module, arguments, y: seen.append(y.clone()))
    seen.append(model(x))
    handle.remove()
    return seen


def test_who_looks_in_between_sees_what_pytorch_shows(models, generator):
    model, accelerated, memory_format = models
    x = generator(2, 3, 16, 16).to(memory_format=memory_format)
    model.eval(), accelerated.eval()
    with torch.no_grad():
        for end in range(1, 13):
            torch.testing.assert_close(accelerated[:end](x), model[:end](x))
        for place in range(12):
            seen = [seen_at(one, place, x) for one in (accelerated, model)]
            torch.testing.assert_close(*seen)
        everything = []
        handle = nn.modules.module.register_module_forward_hook(lambda module, *_: everything.append(type(module)))
        accelerated(x)
        handle.remove()
        assert len(everything) == 13


def test_training_statistics_and_frozen_weights(models, generator):
    model, accelerated, memory_format = models
    for one in (model, accelerated):
        one.eval()
        one[4].train()
        one[0].weight.requires_grad_(False)
    x = generator(2, 3, 16, 16).to(memory_format=memory_format)
    with torch.no_grad():
        torch.testing.assert_close(accelerated(x), model(x))
    for one in (model, accelerated):
        one(x).sum().backward()
    for a, b in zip(accelerated.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)


def test_wrong_sizes_are_refused_as_by_the_modules(generator):
    model = jt.Sequential(jt.Conv2d(3, 8, 3), nn.BatchNorm2d(9), nn.ReLU()).double().eval()
    with torch.no_grad(), pytest.raises(RuntimeError):
        model(generator(1, 3, 8, 8))
    with torch.no_grad(), pytest.raises(ValueError, match="expected 4D"):
        jt.Sequential(jt.Conv2d(3, 8, 3), nn.BatchNorm2d(8)).double().eval()(generator(3, 8, 8))
