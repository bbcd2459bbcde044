"""Each operator: PyTorch's own checks of its gradients and of its registration."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

import jitconv.torch.functional as F  # noqa: E402
from jitconv.torch import convolution, fusion, global_pooling, pooling  # noqa: E402

OPERATORS = {
    name: one
    for module in (convolution, fusion, global_pooling, pooling)
    for name, one in vars(module).items()
    if type(one).__name__ == "Operator"
}

# Arguments of `conv2d` after the weights and the bias: stride, padding, dilation, groups.
CONVOLUTIONS = [(1, 1, 1, 1), (2, 0, 1, 2), (2, 1, 2, 1), (1, "same", 2, 2), ((2, 3), (0, 1), 1, 1)]
# Of `conv_transpose2d`: stride, padding, output_padding, groups, dilation. The last: more than padding takes off.
TRANSPOSED = [(1, 1, 0, 1, 1), (2, 1, 1, 2, 1), (1, 1, 1, 1, 2), (2, 1, 2, 2, 3), (2, 0, 2, 1, 3)]
POOLINGS = [
    (F.max_pool2d, (2,)),
    (F.max_pool2d, (3, 2, 1, 1, True)),
    (F.max_pool2d, (2, 1, 0, 2)),
    (F.avg_pool2d, (3, 2, 1)),
    (F.avg_pool2d, (3, 2, 1, True, False)),
    (F.avg_pool2d, (3, 2, 1, True, True, 5)),
    (F.avg_pool2d, (2, 2, 0, False, True, -3)),
    (F.adaptive_avg_pool2d, (1,)),
    (F.adaptive_max_pool2d, (1,)),
    (F.global_max_pool2d, ()),
]


def check_gradients(function, inputs):
    assert torch.autograd.gradcheck(function, inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(function, inputs, fast_mode=True)


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("options", CONVOLUTIONS, ids=str)
def test_gradients_of_conv2d(options, channels_last, generator):
    groups = options[3]
    x = generator(2, 4, 5, 6, channels_last=channels_last, gradient=True)
    w, b = generator(6, 4 // groups, 3, 3, gradient=True), generator(6, gradient=True)
    check_gradients(lambda *tensors: F.conv2d(*tensors, *options), (x, w, b))


@pytest.mark.parametrize("options", TRANSPOSED, ids=str)
def test_gradients_of_conv_transpose2d(options, generator):
    x = generator(2, 4, 5, 4, gradient=True)
    w, b = generator(4, 3, 3, 3, gradient=True), generator(3 * options[3], gradient=True)
    check_gradients(lambda *tensors: F.conv_transpose2d(*tensors, *options), (x, w, b))


@pytest.mark.parametrize(("function", "options"), POOLINGS, ids=lambda one: getattr(one, "__name__", str(one)))
def test_gradients_of_pooling(function, options, generator):
    check_gradients(lambda x: function(x, *options), (generator(2, 3, 7, 6, gradient=True),))


@pytest.mark.parametrize(("pools", "channels_last"), [(False, False), (False, True), (True, True)])
def test_gradients_of_what_is_fused(pools, channels_last, generator):
    x = generator(2, 4, 6, 6, channels_last=channels_last, gradient=True)
    w, b = generator(6, 4, 3, 3, gradient=True), generator(6, gradient=True)

    def function(*tensors):
        return F.run_conv2d(*tensors, 1, 1, 1, 1, relu=True, pools=pools)

    def plain(*tensors):
        y = torch.relu(torch.nn.functional.conv2d(*tensors, 1, 1))
        return torch.nn.functional.max_pool2d(y, 2) if pools else y

    torch.testing.assert_close(function(x, w, b), plain(x, w, b))
    check_gradients(function, (x, w, b))


def test_only_needed_gradients_are_computed(generator, monkeypatch):
    computed = []
    backward = convolution.conv.conv2d_backward
    monkeypatch.setattr(convolution.conv, "conv2d_backward", lambda *a, **k: computed.append("dw") or backward(*a, **k))
    fused = convolution.fused.conv2d_backward

    def noted(*arguments, needs_dx, **options):
        computed.append("all" if needs_dx else "dw and db")
        return fused(*arguments, needs_dx=needs_dx, **options)

    monkeypatch.setattr(convolution.fused, "conv2d_backward", noted)
    for needs, expected in (((1, 0, 0), []), ((0, 1, 1), ["dw and db"]), ((0, 0, 1), []), ((1, 1, 1), ["all"])):
        shapes = (2, 4, 6, 6), (6, 4, 3, 3), (6,)
        tensors = [generator(*shape, gradient=bool(need)) for shape, need in zip(shapes, needs, strict=True)]
        F.conv2d(*tensors).sum().backward()
        assert [one.grad is not None for one in tensors] == [bool(need) for need in needs]
        assert computed == expected
        computed.clear()


WINDOW = (1, 1), (1, 1, 1, 1), (1, 1), 1
POOL = (3, 3), (2, 2), (1, 1)


def samples(generator, channels_last):
    """Yield the operators by name, with arguments."""
    x = generator(2, 4, 6, 6, channels_last=channels_last, gradient=True)
    w, b = generator(6, 4, 3, 3, gradient=True), generator(6, gradient=True)
    dy = generator(2, 6, 6, 6, channels_last=channels_last, gradient=True)
    small = generator(2, 4, 3, 3, channels_last=channels_last, gradient=True)
    pixel = generator(2, 4, 1, 1, gradient=True)
    yield "conv2d", (x, w, b, *WINDOW, None)
    yield "conv2d", (x, w, None, *WINDOW, not channels_last)
    yield "conv_transpose2d", (dy, w, generator(4, gradient=True), *WINDOW[:2], (0, 0), *WINDOW[2:], None)
    yield "conv2d_weight", (x, dy, (3, 3), *WINDOW, True, channels_last)
    yield "conv2d_backward", (dy.detach(), None, None, x.detach(), w.detach(), *WINDOW, channels_last, True, True)
    y = F.run_conv2d(x, w, b, 1, 1, 1, 1, relu=True).detach()
    yield "conv2d_backward", (dy.detach(), y, None, x.detach(), w.detach(), *WINDOW, channels_last, False, False)
    yield "conv2d_relu", (x, w, b, *WINDOW)
    if channels_last:
        yield "conv2d_relu_pool", (x, w, b, *WINDOW)
    yield "max_pool2d", (x, *POOL, (1, 1), False)
    _, argmax = pooling.max_pool2d(x.detach(), *POOL, (1, 1), False)
    yield "max_pool2d_backward", (small, argmax, (2, 4, 6, 6), *POOL, (1, 1), False, channels_last)
    yield "max_pool2d", (generator(1, 2, 20, 20, gradient=True), (17, 17), (1, 1), (0, 0), (1, 1), False)
    yield "avg_pool2d", (x, *POOL, True, False)
    yield "avg_pool2d_backward", (small, (2, 4, 6, 6), *POOL, False, True, channels_last)
    yield "global_avg_pool2d", (x,)
    yield "global_avg_pool2d_backward", (pixel, (2, 4, 6, 6), channels_last)
    yield "global_max_pool2d", (x,)
    _, indices = global_pooling.global_max_pool2d(x.detach())
    yield "global_max_pool2d_backward", (pixel, indices, (2, 4, 6, 6), channels_last)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("channels_last", [False, True])
def test_operators_are_registered_as_pytorch_wants_them(generator, channels_last):
    checked = set()
    for name, arguments in samples(generator, channels_last):
        torch.library.opcheck(OPERATORS[name].registered, arguments)
        checked.add(name)
    assert checked == set(OPERATORS) - (set() if channels_last else {"conv2d_relu_pool"})


def test_past_the_dispatcher_and_through_it_is_the_same(generator):
    for name, arguments in samples(generator, True):
        operator = OPERATORS[name]
        direct, dispatched = operator(*arguments), operator.registered(*arguments)
        if isinstance(direct, torch.Tensor):
            direct, dispatched = (direct,), (dispatched,)
        for a, b in zip(direct, dispatched, strict=True):
            assert torch.equal(a, b)
            assert a.stride() == b.stride()
            assert a.requires_grad == b.requires_grad
            assert not a._is_view()


def test_a_gradient_in_one_step_has_no_gradient(generator):
    x, w = generator(1, 2, 4, 4, gradient=True), generator(3, 2, 3, 3)
    dy = generator(1, 3, 4, 4)
    dx, _, _ = convolution.conv2d_backward(dy, None, None, x, w, *WINDOW, False, True, True)
    with pytest.raises(RuntimeError, match="create_graph"):
        dx.sum().backward()
