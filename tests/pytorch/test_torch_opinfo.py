"""PyTorch's own samples: values, gradients, and arguments that are wrong."""

from __future__ import annotations

import importlib.util
import sys
import types
import unittest
import warnings

import pytest

torch = pytest.importorskip("torch")

import jitconv.torch.functional as F  # noqa: E402

NAMES = ("conv2d", "conv_transpose2d", "max_pool2d", "avg_pool2d")
TOLERANCE = {torch.float32: {"rtol": 1e-4, "atol": 1e-4}, torch.float64: {"rtol": 1e-9, "atol": 1e-9}}


@pytest.fixture(scope="module")
def infos():
    """Return the private records of PyTorch's operators by name."""
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if importlib.util.find_spec("expecttest") is None:
            # PyTorch's tests are derived from its TestCase; none of them runs here.
            patch.setitem(sys.modules, "expecttest", types.SimpleNamespace(TestCase=unittest.TestCase))
        module = pytest.importorskip("torch.testing._internal.common_methods_invocations")
    prefix = "nn.functional."
    return {info.name.removeprefix(prefix): info for info in module.op_db if info.name.startswith(prefix)}


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_values_and_gradients_of_pytorchs_samples(name, dtype, infos):
    ours, theirs = getattr(F, name), getattr(torch.nn.functional, name)
    used = 0
    for sample in infos[name].sample_inputs("cpu", dtype, requires_grad=True):
        tensors = [one for one in (sample.input, *sample.args) if isinstance(one, torch.Tensor)]
        expected = theirs(sample.input, *sample.args, **sample.kwargs)
        y = ours(sample.input, *sample.args, **sample.kwargs)
        both = zip(y, expected, strict=True) if isinstance(expected, tuple) else [(y, expected)]
        for a, b in both:
            torch.testing.assert_close(a, b, **TOLERANCE[dtype], check_stride=True)
        y, expected = (one[0] if isinstance(one, tuple) else one for one in (y, expected))
        dy = torch.linspace(-1, 1, expected.numel(), dtype=dtype).view(expected.shape)
        wanted = [one for one in tensors if one.requires_grad]
        for a, b in zip(torch.autograd.grad(y, wanted, dy), torch.autograd.grad(expected, wanted, dy), strict=True):
            torch.testing.assert_close(a, b, **TOLERANCE[dtype])
        used += 1
    assert used >= 5


@pytest.mark.parametrize("name", NAMES)
def test_pytorchs_wrong_arguments_are_refused(name, infos):
    info = infos[name]
    for error in info.error_inputs("cpu") if info.error_inputs_func else ():
        sample = error.sample_input
        with pytest.raises((ValueError, TypeError), match="`"):
            getattr(F, name)(sample.input, *sample.args, **sample.kwargs)
