"""What ``jitconv warmup`` does."""

from __future__ import annotations

import argparse
import itertools
import textwrap
import time

import numpy as np
from numba.core import config

from .. import ahead
from ..kernels.cache import cache_folder
from ..kernels.jit import Job
from . import rehearsal, zoo
from .command import DEFAULTS, CommandError
from .optimizers import Adam

# Images for which kernels are looked up have at most so many rows and columns: larger ones take the same kernels, but
# vgg11 at 224x224 takes 10 s and 3 GB to be made.
MOST_PIXELS = 64


def warmup(arguments: argparse.Namespace) -> int:
    """Run ``jitconv warmup``, and return its exit status.

    Raises
    ------
    CommandError
        If what is compiled could not be kept.
    """
    if config.DISABLE_JIT:
        raise CommandError("NUMBA_DISABLE_JIT is set: nothing is compiled", status=1)
    dtypes = ("float32", "float64") if arguments.dtype == ahead.BOTH else (arguments.dtype,)
    layouts = ("NCHW", "NHWC") if arguments.layout == ahead.BOTH else (arguments.layout,)
    start = time.perf_counter()
    try:
        if arguments.model:
            options = itertools.product(arguments.model, dtypes, layouts)
            wanted = (job for option in options for job in model_jobs(*option))
            compiled = ahead.compile_kept(dict.fromkeys(wanted))
        else:
            compiled = ahead.warmup(arguments.dtype, arguments.layout)
    except OSError as error:
        raise CommandError(f"nothing can be kept: {error}", status=1) from None
    seconds = time.perf_counter() - start
    print(_report(compiled, seconds))
    return 0


def model_jobs(name: str, dtype: str, layout: str) -> list[Job]:
    """Return the workers for training and using a network of the zoo, with any optimizer."""
    channels, h, w = zoo.input_shape(name)
    h, w = min(h, MOST_PIXELS), min(w, MOST_PIXELS)
    model = zoo.MODELS[name](dtype=dtype, layout=layout, seed=0, input_shape=(channels, h, w))
    image, images = (channels, h, w) if layout == "NCHW" else (h, w, channels), DEFAULTS["batch_size"]
    x, labels = np.zeros((images, *image), dtype), np.zeros(images, np.int64)
    jobs = rehearsal.step(model, Adam(), x, labels)
    jobs += rehearsal.inference(model, x) + rehearsal.inference(model, x[:1])
    updates = [one for key, one in ahead.every_worker().items() if key.startswith("update.")]
    return jobs + [(worker, np.dtype(dtype).char) for worker in updates]


def _report(compiled: list[str], seconds: float) -> str:
    kept = f"kept in {cache_folder()}"
    if not compiled:
        return f"nothing to compile: all is {kept}"
    lines = [f"compiled {len(compiled)} kernels in {seconds:.1f} s on {ahead.cores()} cores"]
    for dtype in ("float32", "float64"):
        names = [one.split()[0].partition(".")[2] for one in compiled if one.endswith(dtype)]
        if names:
            lines.append(textwrap.fill(f"{dtype}: {', '.join(sorted(names))}", 100, subsequent_indent="    "))
    return "\n".join([*lines, kept])
