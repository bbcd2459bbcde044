"""Sizes that no memory holds raise before anything is allocated, in words."""

from __future__ import annotations

import json
import os
import pathlib
import re
import subprocess
import sys

import pytest

# MemoryError is NumPy's: it names the shape and the bytes.
MEMORY = ("MemoryError", "Unable to allocate")
LARGE = ("ValueError", r"would have shape \(.*\), \d+ bytes: too large")
NO_ARRAY = ("ValueError", r"`x_shape` is too large for an array: \(")
RAISED = {
    "conv2d, beyond 2**62": LARGE,
    "conv2d": MEMORY,
    "conv2d, kernel": ("ValueError", "`w` has kernels of 2048x1024 pixels, but at most 1048576 are computed"),
    "conv2d_backward": ("ValueError", r"`stride` \(1024, 1024\) cuts images .* into 1024x1024 kinds"),
    "conv_transpose2d, beyond 2**62": LARGE,
    "conv_transpose2d": MEMORY,
    "conv_transpose2d, kinds of pixels": ("ValueError", r"`stride` \(32768, 32768\) cuts images .* into 32768x32768"),
    "max_pool2d_backward, beyond 2**62": NO_ARRAY,
    "max_pool2d_backward": MEMORY,
    "max_pool2d_backward, window": ("ValueError", r"`kernel` has 131072x131072 pixels, .* less than 2\*\*32"),
    "avg_pool2d_backward": MEMORY,
    "global_avg_pool2d_backward": MEMORY,
    "global_max_pool2d_backward": MEMORY,
    "im2col": MEMORY,
    "im2col, beyond 2**62": LARGE,
    "col2im, beyond 2**62": NO_ARRAY,
    "col2im": MEMORY,
    "plan_conv2d, beyond 2**62": NO_ARRAY,
    "plan_conv2d, weights": ("ValueError", "`w_shape` is too large for an array"),
    "plan_conv2d, kinds of pixels": ("ValueError", r"`stride` \(1048573, 1048573\) cuts images"),
    "Conv2d, beyond 2**62": ("ValueError", "`weight` would have shape"),
    "Conv2d": MEMORY,
    "ConvTranspose2d, beyond 2**62": ("ValueError", "`weight` would have shape"),
    "ConvTranspose2d": MEMORY,
    "Dense, beyond 2**62": ("ValueError", "`weight` would have shape"),
    "Dense": MEMORY,
    "BatchNorm2d": MEMORY,
}


@pytest.fixture(scope="module")
def found():
    script = pathlib.Path(__file__).with_name("absurd_sizes.py")
    child = subprocess.run(
        [sys.executable, "-P", str(script)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert child.returncode == 0, child.stderr[-4000:]
    return json.loads(child.stdout)


pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is limited as Linux does it")


def test_every_call_is_expected(found):
    assert found.keys() == RAISED.keys()


@pytest.mark.parametrize("name", RAISED)
def test_absurd_sizes_raise_before_anything_is_allocated(name, found):
    assert found[name] is not None, "it returned"
    kind, message = RAISED[name]
    assert found[name][0] == kind
    assert re.search(message, found[name][1])
