"""Memory: nothing is copied that need not be, and results have the memory format that PyTorch would give them."""

from __future__ import annotations

import itertools

import pytest

torch = pytest.importorskip("torch")

import jitconv.torch.functional as F  # noqa: E402
from jitconv.torch.arrays import array, is_channels_last, tensor  # noqa: E402

T = torch.nn.functional
SHAPES = [
    (2, 3, 4, 5),
    (1, 3, 4, 5),
    (2, 1, 4, 5),
    (2, 3, 1, 1),
    (1, 1, 4, 4),
    (1, 3, 1, 1),
    (2, 1, 1, 1),
    (1, 1, 1, 1),
]


def forms(x):
    """Yield a tensor in memory of many kinds."""
    yield x
    yield x.to(memory_format=torch.channels_last)
    yield x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    yield x.transpose(2, 3).contiguous().transpose(2, 3)
    yield torch.stack([x, x], dim=-1)[..., 0]
    yield x.flip(1)[:, :, ::1]
    yield x[:1].expand(x.shape)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_format_is_the_one_that_pytorch_sees(shape):
    for x in forms(torch.randn(shape)):
        pooled = T.max_pool2d(x, 1)  # PyTorch asks the input for its format
        assert F.max_pool2d(x, 1).stride() == pooled.stride()
        assert T.avg_pool2d(x, 1).stride() == F.avg_pool2d(x, 1).stride()
        for y in (F.adaptive_avg_pool2d(x, 1), F.adaptive_max_pool2d(x, 1)):
            assert y.shape[2:] == (1, 1)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_format_of_a_convolution_is_that_of_images_or_weights(shape):
    for x, w in itertools.product(forms(torch.randn(shape)), forms(torch.randn(6, shape[1], 3, 3))):
        expected, y = T.conv2d(x, w, padding=1), F.conv2d(x, w, padding=1)
        assert y.stride() == expected.stride()
        torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-4)
        w = w.transpose(0, 1)
        expected, y = T.conv_transpose2d(x, w.contiguous(), padding=1), F.conv_transpose2d(x, w.contiguous(), padding=1)
        torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-4)


def test_gradients_have_the_format_of_the_result(generator):
    for last in (False, True):
        x = generator(2, 4, 6, 6, channels_last=last, gradient=True)
        w = generator(8, 4, 3, 3, gradient=True)
        for y in (F.conv2d(x, w), F.max_pool2d(x, 2), F.avg_pool2d(x, 2)):
            (dx,) = torch.autograd.grad(y, [x], generator(*y.shape, channels_last=not last))
            assert is_channels_last(dx) == last


def test_nothing_is_copied(generator):
    x = generator(2, 4, 6, 6)
    assert array(x).ctypes.data == x.data_ptr()
    last = generator(2, 4, 6, 6, channels_last=True)
    a = array(last, True)
    assert a.ctypes.data == last.data_ptr()
    assert a.flags.c_contiguous
    assert tensor(a, True).data_ptr() == last.data_ptr()
    assert tensor(a, True).stride() == last.stride()


def test_results_are_no_views_and_may_be_changed_in_place(generator):
    x, w = generator(2, 4, 6, 6, channels_last=True), generator(8, 4, 3, 3)
    with torch.no_grad():
        y = F.conv2d(x, w)
    y.requires_grad_()
    assert not y._is_view()
    (y * 2).relu_().sum().backward()


def test_one_image_without_the_batch_axis(generator):
    x, w, b = generator(4, 7, 6), generator(8, 4, 3, 3), generator(8)
    torch.testing.assert_close(F.conv2d(x, w, b), T.conv2d(x, w, b))
    w = w.transpose(0, 1).contiguous()
    torch.testing.assert_close(F.conv_transpose2d(x, w), T.conv_transpose2d(x, w))
    for name, options in (("max_pool2d", (2,)), ("avg_pool2d", (2,)), ("adaptive_avg_pool2d", (1,))):
        for image in (x, x.permute(0, 2, 1), x.flatten(1).t().contiguous().t().view(4, 7, 6)):
            a, b = getattr(F, name)(image, *options), getattr(T, name)(image, *options)
            torch.testing.assert_close(a, b, check_stride=True)


def test_an_empty_batch(generator):
    x, w = generator(0, 4, 6, 6, gradient=True), generator(8, 4, 3, 3, gradient=True)
    y = F.conv2d(x, w)
    y.sum().backward()
    assert y.shape == (0, 8, 4, 4)
    assert x.grad.shape == x.shape
    assert not w.grad.any()


def test_negated_and_expanded_tensors(generator):
    x = torch.view_as_complex(generator(2, 4, 6, 6, 2)).conj().imag
    w = generator(8, 4, 3, 3)
    assert x.is_neg()
    torch.testing.assert_close(F.conv2d(x, w), T.conv2d(x, w))
    y = F.conv2d(x, w.requires_grad_())
    y.sum().backward()  # its gradient is one number with strides of zero
    torch.testing.assert_close(w.grad, torch.autograd.grad(T.conv2d(x, w).sum(), [w])[0])


@pytest.mark.parametrize("name", ["max_pool2d", "adaptive_max_pool2d"])
def test_indices_are_pytorchs(name, generator):
    for last in (False, True):
        x = generator(2, 3, 9, 8, channels_last=last).round()  # with equal pixels
        windows = [(3, 2, 1), (2,), (3, 1, 1, 2), (3, 2, 1, 1, True)] if name == "max_pool2d" else [(1,)]
        for window in windows:
            for a, b in zip(
                getattr(F, name)(x, *window, return_indices=True),
                getattr(T, name)(x, *window, return_indices=True),
                strict=True,
            ):
                assert torch.equal(a, b)
                assert a.dtype == b.dtype
