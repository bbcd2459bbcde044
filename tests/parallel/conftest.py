"""Starting ranks, where there is MPI: mpi4py, a library for it, and mpiexec."""

from __future__ import annotations

import importlib.util
import pathlib
import shutil
import subprocess
import sys

import pytest
from launching import TIMEOUT, environment


@pytest.fixture(scope="session")
def mpiexec():
    """Return a function that begins a command line with mpiexec for a number of ranks."""
    beside = pathlib.Path(sys.executable).with_name("mpiexec")
    found = str(beside) if beside.exists() else shutil.which("mpiexec")
    if importlib.util.find_spec("mpi4py") is None or found is None:
        pytest.skip('needs pip install "jitconv[mpi]" mpich')

    def begin(ranks):
        return [found, "-n", str(ranks)]

    return begin


@pytest.fixture(scope="session")
def launch(mpiexec):
    """Return a function that runs Python in a number of ranks: a `CompletedProcess`, with its output as text."""

    def run(ranks, *arguments, **options):
        command = [*mpiexec(ranks), sys.executable, *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, env=environment(), **options)

    return run
