"""The reference of the other tests, against PyTorch: two independent opinions of what a convolution is."""

from __future__ import annotations

import numpy as np
import pytest
from cases import CONV_CASES, TRANSPOSED_CASES
from numpy.testing import assert_allclose
from references import conv as reference

torch = pytest.importorskip("torch")


def _leaf(a):
    return None if a is None else torch.from_numpy(np.ascontiguousarray(a)).requires_grad_()


def _assert_same(expected, tensor):
    assert_allclose(expected, tensor.detach().numpy(), rtol=1e-10, atol=1e-10)


def _assert_gradients(y, dy, leaves, gradients):
    y.backward(torch.from_numpy(dy))
    for leaf, gradient in zip(leaves, gradients, strict=True):
        if leaf is not None:
            _assert_same(gradient, leaf.grad)


@pytest.mark.parametrize("case", CONV_CASES, ids=str)
def test_conv2d(case, rng):
    x, w, b = case.arrays(rng, np.float64)
    dy = case.gradient(rng, np.float64)
    leaves = [_leaf(a) for a in (x, w, b)]
    dilation = reference.pair(case.dilation)
    (top, bottom), (left, right) = reference.sides_of(case.padding, case.kernel, dilation)
    padded = torch.nn.functional.pad(leaves[0], (left, right, top, bottom))
    y = torch.nn.functional.conv2d(padded, *leaves[1:], case.stride, 0, dilation, case.groups)
    _assert_same(reference.conv2d(x, w, b, **case.options), y)
    _assert_gradients(y, dy, leaves, reference.conv2d_backward(dy, x, w, **case.options))


@pytest.mark.parametrize("case", TRANSPOSED_CASES, ids=str)
def test_conv_transpose2d(case, rng):
    x, w, b = case.arrays(rng, np.float64)
    dy = case.gradient(rng, np.float64)
    leaves = [_leaf(a) for a in (x, w, b)]
    dilation, extra = reference.pair(case.dilation), reference.pair(case.output_padding)
    (top, bottom), (left, right) = reference.sides_of(case.padding, case.kernel, dilation)
    whole = torch.nn.functional.conv_transpose2d(*leaves, case.stride, 0, extra, case.groups, dilation)
    y = whole[..., top : whole.shape[-2] - bottom, left : whole.shape[-1] - right]
    _assert_same(reference.conv_transpose2d(x, w, b, **case.options), y)
    _assert_gradients(y, dy, leaves, reference.conv_transpose2d_backward(dy, x, w, **case.options))
