"""Arrays of more than 2**31 and 2**32 bytes and, in the full form, elements: for real."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from forms import FULL

from jitconv import limits
from jitconv.pooling import Pooling
from jitconv.shapes import Activation


def available():
    """Return the bytes of memory that are free or can be made so."""
    with open("/proc/meminfo") as file:
        return next(1024 * int(line.split()[1]) for line in file if line.startswith("MemAvailable"))


def run(*sizes):
    script = pathlib.Path(__file__).with_name("huge_arrays.py")
    child = subprocess.run(
        [sys.executable, "-P", "-X", "faulthandler", str(script), *map(str, sizes)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        timeout=3600,
        check=False,
    )
    assert child.returncode == 0, f"{child.stdout}{child.stderr[-4000:]}"


linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere zeros that are read take memory")


@linux
def test_images_of_more_than_2_to_the_32_bytes():
    run(23_300)  # each of more than 2**31 bytes, both of more than 2**32


@linux
@pytest.mark.skipif(not FULL, reason="takes minutes: JITCONV_RELIABILITY=full")
def test_images_of_more_than_2_to_the_32_elements():
    if available() < 20 << 30:
        pytest.skip("needs 20 GB of memory")
    run(46_400, 33_000)  # 17 GB that are read, and gradients of 4.4 GB that are written


def test_sides_that_a_pooling_does_not_count_are_refused():
    with pytest.raises(ValueError, match=r"`x` has images of 1x2147483648 pixels, but sides must be below 2\*\*31"):
        Pooling.of(Activation(1, 1, 1, 2**31), "x", 1, 1, 0)
    Pooling.of(Activation(1, 1, 2**31 - 1, 2**31 - 1), "x", 1, 1, 0)


def test_images_whose_largest_pixel_is_not_counted_are_refused():
    image, single = Activation(1, 2, 2**16, 2**16), np.dtype(np.float32)
    with pytest.raises(ValueError, match=r"in NHWC those of float32 must have less than 2\*\*32: use NCHW"):
        limits.whole_image(image, "x", False, single)
    limits.whole_image(image, "x", True, single)
    limits.whole_image(image, "x", False, np.dtype(np.float64))
