"""Threads: kernels that an operator calls run on PyTorch's own, as many as ``torch.get_num_threads()``.

PyTorch's OpenMP threads spin for some milliseconds after each of its operators. A second pool on the same cores waits
for them: a convolution and a ReLU in turn, 64 images with 64 channels of 32x32 pixels on two threads, took 16.2 ms with
Numba's pool and 10.2 ms on PyTorch's threads.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import pathlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch

from ..kernels.jit import carried_by
from ..threads import available_threads, get_num_threads, num_threads


class OpenMP(NamedTuple):
    """What `carried_by` takes, of the OpenMP library that PyTorch is linked with."""

    team: Any
    thread: int
    threads: int


@functools.cache
def openmp() -> OpenMP | None:
    """Return PyTorch's OpenMP; None where it has none with the entry points of GCC's (LLVM's has them on Linux)."""
    path = pathlib.Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"
    try:
        # A symbol is looked up in what the library is linked with as well.
        library = ctypes.CDLL(str(path))
        start = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint)
        parallel = start(("GOMP_parallel", library))
        numbering = (library.omp_get_thread_num, library.omp_get_num_threads)
        thread, threads = (int(ctypes.cast(one, ctypes.c_void_p).value or 0) for one in numbering)
    except (OSError, AttributeError):
        return None

    def team(function: int, pointer: int, wanted: int) -> None:
        parallel(function, pointer, wanted, 0)

    return OpenMP(team, thread, threads)


_AS_THEY_ARE: contextlib.AbstractContextManager[None] = contextlib.nullcontext()


def torch_threads() -> contextlib.AbstractContextManager[None]:
    """Let jitconv's calls inside a `with` block use PyTorch's threads, in this Python thread."""
    wanted = min(torch.get_num_threads(), available_threads())
    found = openmp() if wanted > 1 else None
    if wanted != get_num_threads():
        return _on(found, wanted)
    return _AS_THEY_ARE if found is None else carried_by(*found)


@contextlib.contextmanager
def _on(found: OpenMP | None, wanted: int) -> Iterator[None]:
    with num_threads(wanted), _AS_THEY_ARE if found is None else carried_by(*found):
        yield
