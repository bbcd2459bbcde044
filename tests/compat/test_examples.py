"""Every file of examples/ runs and learns something."""

from __future__ import annotations

import math
import os
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent.parent
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


def run(path, *arguments):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-W", "error", str(path), *arguments]
    child = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600)
    assert child.returncode == 0, child.stderr
    return child.stdout


def test_each_code_base_has_one():
    """d2l and dezero are names of packages, which a file of the same name would hide from the examples."""
    assert [path.stem for path in EXAMPLES] == [
        "cnn_from_scratch",
        "cs231n",
        "d2l_network",
        "deep_learning_from_scratch",
        "dezero_network",
        "numpy_neuron_network",
    ]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_it_runs(path):
    pytest.importorskip("mlxtend")
    printed = run(path, "--steps", "3")
    losses = [float(number) for number in re.findall(r"loss ([\d.]+|nan|inf)", printed)]
    assert losses
    assert all(map(math.isfinite, losses))
    assert re.search(r"accuracy of \d+ test images: [\d.]+%", printed)
