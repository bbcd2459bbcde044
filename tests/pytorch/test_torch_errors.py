"""What is wrong is refused, in words that name the argument and the rule."""

from __future__ import annotations

import subprocess
import sys

import pytest

torch = pytest.importorskip("torch")

import jitconv.torch as jt  # noqa: E402
import jitconv.torch.functional as F  # noqa: E402

X, W = torch.zeros(2, 4, 6, 6), torch.zeros(8, 4, 3, 3)

CASES = {
    "an array": (lambda: F.conv2d(X.numpy(), W), TypeError, "`input` must be a torch.Tensor"),
    "half": (lambda: F.conv2d(X.half(), W.half()), TypeError, "`input` is not served.*float32 and float64"),
    "two dtypes": (lambda: F.conv2d(X, W.double()), TypeError, "`weight` is not served.*float64"),
    "a device": (lambda: F.max_pool2d(X.to("meta"), 2), TypeError, "`input` is not served.*meta"),
    "sparse": (lambda: F.conv2d(X.to_sparse(), W), TypeError, "`input` is not served.*strided"),
    "axes": (lambda: F.conv2d(X[0, 0], W), ValueError, "`input` must have the axes"),
    "pooling axes": (lambda: F.avg_pool2d(X[0, 0], 2), ValueError, "`input` must have the axes"),
    "weight axes": (lambda: F.conv2d(X, W[0]), ValueError, "`weight` must have the axes"),
    "channels": (lambda: F.conv2d(X[:, :3], W), ValueError, "`weight` has 4 input channels, but `input` has 3"),
    "groups": (lambda: F.conv2d(X, W, groups=3), ValueError, "`groups` must divide"),
    "bias": (lambda: F.conv2d(X, W, torch.zeros(4)), ValueError, "`bias` must have shape"),
    "stride": (lambda: F.conv2d(X, W, stride=0), ValueError, "`stride` must be"),
    "stride type": (lambda: F.conv2d(X, W, stride=1.5), TypeError, "`stride` must be"),
    "stride pair": (lambda: F.conv2d(X, W, stride=[1, 2, 3]), ValueError, "`stride` must be"),
    "padding": (lambda: F.conv2d(X, W, padding=-1), ValueError, "`padding` must be"),
    "a word": (lambda: F.conv2d(X, W, padding="all"), ValueError, "`padding` must be"),
    "same": (lambda: F.conv2d(X, W, padding="same", stride=2), ValueError, "`padding`='same' needs stride 1"),
    "kernel": (lambda: F.conv2d(X, W, dilation=4), ValueError, "`weight` spans 9x9"),
    "transposed channels": (lambda: F.conv_transpose2d(X, W), ValueError, "`weight` has 8 input channels"),
    "transposed axes": (lambda: F.conv_transpose2d(X, W[0]), ValueError, "`weight` must have the axes"),
    "output padding": (
        lambda: F.conv_transpose2d(X, W[:4], output_padding=1), ValueError, "`output_padding` must be less",
    ),
    "pool padding": (lambda: F.max_pool2d(X, 2, padding=2), ValueError, "`padding` must be at most half"),
    "pool kernel": (lambda: F.max_pool2d(X, 9), ValueError, "`kernel_size` spans 9x9"),
    "no pixels": (lambda: F.avg_pool2d(X[:, :, :0], 2), ValueError, "`input` has images of 0x6"),
    "ceil mode": (lambda: F.max_pool2d(X, 2, ceil_mode=1), TypeError, "`ceil_mode` must be True or False"),
    "divisor": (lambda: F.avg_pool2d(X, 2, divisor_override=0), ValueError, "`divisor_override` must not be zero"),
    "divisor type": (lambda: F.avg_pool2d(X, 2, divisor_override=0.5), TypeError, "`divisor_override` must be"),
    "adaptive": (lambda: F.adaptive_avg_pool2d(X, 2), ValueError, "`output_size` must be 1"),
    "no model": (lambda: jt.accelerate(X), TypeError, "`model` must be a torch.nn.Module"),
    "no model to restore": (lambda: jt.restore([]), TypeError, "`model` must be a torch.nn.Module"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_it_is_refused(case):
    call, kind, words = CASES[case]
    with pytest.raises(kind, match=words):
        call()


def test_without_pytorch_it_says_what_to_install():
    code = "import sys; sys.modules['torch'] = None; import jitconv.torch"
    child = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=False)
    assert child.returncode == 1
    assert "ImportError: jitconv.torch needs PyTorch: pip install torch" in child.stderr
