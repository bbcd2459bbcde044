"""The twins of PyTorch's modules: alike in all but who computes."""

from __future__ import annotations

import copy
import io

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

import jitconv.torch as jt  # noqa: E402
from jitconv.torch import functional  # noqa: E402

CASES = {
    "conv": ("Conv2d", (4, 6, 3), {"padding": 1}),
    "conv, groups": ("Conv2d", (4, 6, (3, 1)), {"stride": 2, "groups": 2, "bias": False}),
    "conv, same": ("Conv2d", (4, 6, 4), {"padding": "same", "dilation": 2}),
    "conv, reflect": ("Conv2d", (4, 6, 3), {"padding": 1, "padding_mode": "reflect"}),
    "conv, circular, same": ("Conv2d", (4, 6, 3), {"padding": "same", "padding_mode": "circular"}),
    "conv, replicate": ("Conv2d", (4, 6, 3), {"padding": (1, 2), "padding_mode": "replicate"}),
    "transposed": ("ConvTranspose2d", (4, 6, 3), {"stride": 2, "padding": 1, "output_padding": 1}),
    "transposed, groups": ("ConvTranspose2d", (4, 6, 3), {"groups": 2, "bias": False, "dilation": 2}),
    "max": ("MaxPool2d", (3,), {"stride": 2, "padding": 1, "ceil_mode": True}),
    "max, indices": ("MaxPool2d", (2,), {"return_indices": True}),
    "average": ("AvgPool2d", (3,), {"stride": 2, "padding": 1, "count_include_pad": False}),
    "average, divisor": ("AvgPool2d", (2,), {"divisor_override": 3}),
    "adaptive": ("AdaptiveAvgPool2d", (1,), {}),
    "adaptive, pair": ("AdaptiveAvgPool2d", ((1, 1),), {}),
    "adaptive, 2x2": ("AdaptiveAvgPool2d", (2,), {}),
    "adaptive max": ("AdaptiveMaxPool2d", (1,), {"return_indices": True}),
}


def both(case, dtype=torch.float64):
    """Return PyTorch's module and the twin, from the same seed."""
    name, arguments, options = CASES[case]
    made = []
    for package in (nn, jt):
        torch.manual_seed(0)
        made.append(getattr(package, name)(*arguments, **options).to(dtype))
    return made


def first(y):
    return y[0] if isinstance(y, tuple) else y


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("case", CASES)
def test_values_and_gradients_are_pytorchs(case, dtype, generator):
    theirs, ours = both(case, dtype)
    images, results = generator(2, 4, 8, 7, dtype=dtype, channels_last=True), []
    for module in (theirs, ours):
        x = images.clone().requires_grad_()
        y = module(x)
        first(y).square().sum().backward()
        results.append([y, x.grad, *(parameter.grad for parameter in module.parameters())])
    tolerance = {"rtol": 1e-4, "atol": 1e-4} if dtype == torch.float32 else {}
    torch.testing.assert_close(*results, **tolerance)
    with torch.no_grad():
        torch.testing.assert_close(ours.eval()(x), theirs.eval()(x), **tolerance)


@pytest.mark.parametrize("case", CASES)
def test_state_repr_and_class_are_pytorchs(case):
    theirs, ours = both(case)
    assert isinstance(ours, type(theirs))
    assert repr(ours) == repr(theirs)
    for name, value in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[name], value)
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.add_(1)
    theirs.load_state_dict(ours.state_dict())
    ours.load_state_dict(theirs.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))


def test_computed_by_jitconv(generator, monkeypatch):
    calls = []
    run = functional.run_conv2d
    monkeypatch.setattr(functional, "run_conv2d", lambda *a, **k: calls.append(1) or run(*a, **k))
    module = jt.Conv2d(4, 6, 3).double()
    x = generator(2, 4, 8, 8)
    module(x)
    assert calls == [1]
    module.half()(x.half())  # this and what follows is PyTorch's
    module.double()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert module(x).dtype == nn.Conv2d(4, 6, 3).double()(x).dtype
        assert module.float()(x.float()).dtype == torch.bfloat16
    module.to("meta")(x.float().to("meta"))
    assert calls == [1]


# PyTorch loads its rules for forward-mode gradients with `torch.jit.script`.
@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")
def test_transforms_are_left_to_pytorch(generator):
    module, images = jt.Conv2d(4, 6, 3).double(), generator(5, 2, 4, 8, 8)
    torch.testing.assert_close(torch.vmap(module)(images), torch.stack([module(one) for one in images]))
    w = module.weight.detach()
    for function in (module, lambda x: functional.conv2d(x, w), lambda x: functional.max_pool2d(x, 2)):
        (dx,) = torch.autograd.functional.vjp(lambda x, f=function: f(x).sum(), images[0])[1:]
        torch.testing.assert_close(torch.func.grad(lambda x, f=function: f(x).sum())(images[0]), dx)
        # Each of them is linear near its argument, up to the bias.
        y, tangent = torch.func.jvp(function, (images[0],), (images[0],))
        with torch.autograd.forward_ad.dual_level(), torch.no_grad():
            dual = function(torch.autograd.forward_ad.make_dual(images[0], images[0]))
            torch.testing.assert_close(torch.autograd.forward_ad.unpack_dual(dual).tangent, tangent)
        torch.testing.assert_close(y, function(images[0]))
        shift = module.bias[:, None, None] if function is module else 0
        torch.testing.assert_close(tangent, y - shift)


def test_wrong_input_is_refused_as_by_the_functions(generator):
    with pytest.raises(ValueError, match="`weight` has 4 input channels, but `input` has 3"):
        jt.Conv2d(4, 6, 3).double()(generator(2, 3, 8, 8))


def test_output_size_of_a_transposed_convolution(generator):
    torch.manual_seed(0)
    theirs = nn.ConvTranspose2d(4, 6, 3, stride=2).double()
    ours = jt.ConvTranspose2d(4, 6, 3, stride=2).double()
    ours.load_state_dict(theirs.state_dict())
    x = generator(2, 4, 5, 5)
    torch.testing.assert_close(ours(x, output_size=[12, 11]), theirs(x, output_size=[12, 11]))
    with pytest.raises(ValueError, match="output"):
        ours(x, output_size=[30, 30])


def changes(module):
    """Yield the weights' changes that an inference must see, after each is made."""
    with torch.no_grad():
        module.weight.mul_(1.5)
        yield "in place"
        module.weight.data = torch.randn_like(module.weight)
        yield "data"
        module.weight.data[0, 0, 0, 0] += 1
        yield "an element of data"
        module.weight.numpy()[1] *= 2
        yield "through NumPy"
        module.weight = nn.Parameter(torch.randn_like(module.weight))
        yield "another parameter"
        module.load_state_dict({name: torch.randn_like(one) for name, one in module.state_dict().items()})
        yield "state_dict"
        module.to(memory_format=torch.channels_last)
        yield "memory format"
        module.weight.data[2] -= 1
        yield "in place in channels_last"


@pytest.mark.parametrize("channels_last", [False, True])
def test_kept_weights_are_never_stale(channels_last, generator):
    module = jt.Conv2d(32, 32, 3, padding=1).to(memory_format=torch.channels_last if channels_last else None).eval()
    x = generator(1, 32, 12, 12, dtype=torch.float32, channels_last=channels_last)
    with torch.no_grad():
        module(x)
        for change in changes(module):
            expected = nn.functional.conv2d(x, module.weight, module.bias, padding=1)
            torch.testing.assert_close(module(x), expected, rtol=1e-3, atol=1e-3, msg=change)
    assert "_folded" in module.__dict__
    assert "_folded" not in module.train().__dict__


def test_copies_and_pickles(generator):
    module = jt.Conv2d(4, 6, 3).double().eval()
    x = generator(2, 4, 8, 8)
    with torch.inference_mode():
        y = module(x)
    buffer = io.BytesIO()
    torch.save(module, buffer)
    buffer.seek(0)
    for other in (copy.deepcopy(module), torch.load(buffer, weights_only=False)):
        assert type(other) is jt.Conv2d
        assert other.weight.data_ptr() != module.weight.data_ptr()
        torch.testing.assert_close(other(x), y)


def test_hooks_run(generator):
    module, seen = jt.MaxPool2d(2), []
    module.register_forward_pre_hook(lambda module, arguments: seen.append(arguments[0].shape))
    module.register_forward_hook(lambda module, arguments, y: seen.append(y.shape))
    module.register_full_backward_hook(lambda module, dx, dy: seen.append(dx[0].shape))
    module(generator(1, 2, 4, 4, gradient=True)).sum().backward()
    assert seen == [(1, 2, 4, 4), (1, 2, 2, 2), (1, 2, 4, 4)]
