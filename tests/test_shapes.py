"""Shape arithmetic, against values worked out by hand and against PyTorch."""

from __future__ import annotations

import itertools

import pytest

from jitconv import shapes


@pytest.mark.parametrize(("kernel", "dilation", "expected"), [(1, 1, 1), (3, 1, 3), (3, 2, 5), (1, 9, 1), (4, 3, 10)])
def test_extent(kernel, dilation, expected):
    assert shapes.extent(kernel, dilation) == expected


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "padding", "dilation", "expected"),
    [
        (28, 5, 1, (0, 0), 1, 24),
        (224, 7, 2, (3, 3), 1, 112),
        (7, 3, 2, (1, 1), 1, 4),
        (8, 3, 2, (1, 0), 1, 4),
        (9, 3, 1, (2, 2), 2, 9),
        (1, 1, 5, (0, 0), 1, 1),
        (2, 5, 1, (2, 2), 1, 2),
        (2, 3, 1, (0, 0), 1, 0),
        (1, 5, 2, (0, 0), 1, -1),
    ],
)
def test_conv_output_size(size, kernel, stride, padding, dilation, expected):
    assert shapes.conv_output_size(size, kernel, stride, padding, dilation) == expected


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "padding", "output_padding", "dilation", "expected"),
    [
        (7, 2, 2, (0, 0), 0, 1, 14),
        (7, 4, 2, (1, 1), 0, 1, 14),
        (7, 3, 2, (1, 1), 1, 1, 14),
        (5, 3, 1, (2, 1), 0, 2, 6),
        (1, 1, 1, (1, 0), 0, 1, 0),
    ],
)
def test_conv_transpose_output_size(size, kernel, stride, padding, output_padding, dilation, expected):
    got = shapes.conv_transpose_output_size(size, kernel, stride, padding, output_padding, dilation)
    assert got == expected


def test_transposed_size_undoes_the_convolution():
    sizes = itertools.product(range(1, 9), (1, 2, 3, 4), (1, 2, 3), ((0, 0), (1, 0), (2, 2)), (1, 2))
    for size, kernel, stride, padding, dilation in sizes:
        out = shapes.conv_output_size(size, kernel, stride, padding, dilation)
        rest = (size + sum(padding) - shapes.extent(kernel, dilation)) % stride
        assert shapes.conv_transpose_output_size(out, kernel, stride, padding, rest, dilation) == size


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "padding", "ceil_mode", "expected"),
    [
        (7, 2, 2, (0, 0), False, 3),
        (7, 2, 2, (0, 0), True, 4),
        (6, 2, 2, (0, 0), True, 3),
        (5, 3, 2, (1, 1), False, 3),
        (4, 1, 3, (0, 0), True, 2),
        (4, 2, 4, (1, 1), True, 2),  # a third window would start in the padding at the end
        (3, 2, 3, (0, 0), True, 1),
        (3, 2, 3, (0, 1), True, 1),  # ... and so would a second one here
    ],
)
def test_pool_output_size(size, kernel, stride, padding, ceil_mode, expected):
    assert shapes.pool_output_size(size, kernel, stride, padding, 1, ceil_mode) == expected


@pytest.mark.parametrize(
    ("kernel", "dilation", "expected"), [(1, 1, (0, 0)), (3, 1, (1, 1)), (2, 1, (0, 1)), (4, 3, (4, 5))]
)
def test_same_padding_keeps_the_size(kernel, dilation, expected):
    assert shapes.same_padding(kernel, dilation) == expected
    assert shapes.conv_output_size(11, kernel, 1, expected, dilation) == 11


def test_pooling_sizes_are_those_of_pytorch():
    torch = pytest.importorskip("torch")
    for size, kernel, stride, padding, dilation, ceil_mode in itertools.product(
        range(1, 8), (1, 2, 3), (1, 2, 3, 4), (0, 1), (1, 2), (False, True)
    ):
        expected = shapes.pool_output_size(size, kernel, stride, (padding, padding), dilation, ceil_mode)
        if 2 * padding > kernel or expected < 1:
            continue
        y = torch.nn.functional.max_pool1d(
            torch.zeros(1, 1, size), kernel, stride, padding, dilation, ceil_mode=ceil_mode
        )
        assert y.shape[-1] == expected, (size, kernel, stride, padding, dilation, ceil_mode)


def test_activation_sizes_in_either_layout():
    assert shapes.Activation.of((2, 3, 4, 5), "NCHW") == (2, 3, 4, 5)
    assert shapes.Activation.of((2, 4, 5, 3), "NHWC") == (2, 3, 4, 5)
    assert shapes.Activation(2, 3, 4, 5).shape("NCHW") == (2, 3, 4, 5)
    assert shapes.Activation(2, 3, 4, 5).shape("NHWC") == (2, 4, 5, 3)
