"""Dense layers: what their kernels are given."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import threads, workspace
from .cost import threads_for
from .kernels import dense
from .kernels.bias import bias_gradient
from .kernels.simd import VECTOR_BYTES
from .kernels.tile import MAX_VECTORS, SPARE_BYTES
from .records import Int64, aligned, record

Array = NDArray[Any]


def _threads(rows: int, columns: int, k: int, itemsize: int) -> int:
    return threads_for(rows * columns * k * itemsize / VECTOR_BYTES)


def forward(x: Array, w: Array, b: Array | None, relu: bool) -> Array:
    """Return x (N, C) times the transpose of w (F, C), plus b (F,), and with ReLU if asked for."""
    (rows, features), outputs = x.shape, len(w)
    y = workspace.result((rows, outputs), w.dtype)
    if y.size:
        used = _threads(rows, outputs, features, w.itemsize)
        values = {"rows": rows, "features": features, "outputs": outputs, "relu": int(relu)}
        made = record(dense.FORWARD, values)
        scratch = workspace.scratch(used * dense.FORWARD_SCRATCH, "strips")
        dense.dense_forward(w.dtype, used, x, w, 0 if b is None else b, y, made, scratch)
    return y


@functools.lru_cache(maxsize=64)
def _gradient(
    rows: int, columns: int, k: int, a_row: int, a_step: int, itemsize: int, parts: int
) -> tuple[NDArray[Any], Int64, int]:
    """Return the record, the tables and a thread's bytes of scratch of a gradient."""
    padded = k * VECTOR_BYTES if columns * itemsize < VECTOR_BYTES else 0
    scratch = aligned(MAX_VECTORS * VECTOR_BYTES + SPARE_BYTES + padded)
    made = record(
        dense.GRADIENT,
        {
            "rows": rows, "columns": columns, "k": k, "a_row": a_row, "a_step": a_step, "parts": parts,
            "scratch": scratch,
        },
    )  # fmt: skip
    tables = np.concatenate([np.arange(rows) * a_row, np.arange(rows) * columns * itemsize])
    return made, tables.astype(np.int64), scratch


def _product(a: Array, b: Array, c: Array, transposed: bool) -> None:
    """Overwrite c with a times b, or with the transpose of a times b."""
    size = c.itemsize
    (k, columns), rows = b.shape, len(c)
    a_row, a_step = (size, rows * size) if transposed else (k * size, size)
    used = _threads(rows, columns, k, size)
    runs = max(1, columns * size // (MAX_VECTORS * VECTOR_BYTES))
    # Enough units for the threads to end together.
    parts = max(1, min(rows // 8, -(-4 * threads.available_threads() // runs)))
    made, tables, scratch = _gradient(rows, columns, k, a_row, a_step, size, parts)
    own = workspace.scratch(used * scratch, "strips")
    dense.dense_gradient(c.dtype, used, a, b, c, made, tables, own)


def backward(dy: Array, x: Array, w: Array, dw: Array, db: Array | None, needs_dx: bool) -> Array | None:
    """Overwrite dw (F, C) and db (F,), and return the gradient of x, if it is needed.  dy (N, F), x (N, C)."""
    if not len(x):
        dw[...] = 0
        if db is not None:
            db[...] = 0
        return np.empty_like(x) if needs_dx else None
    _product(dy, x, dw, True)
    if db is not None:
        bias_gradient(dy.dtype, threads_for(dy.size), dy, False, 1, len(w), len(x), db)
    if not needs_dx:
        return None
    dx = workspace.result(x.shape, x.dtype)
    _product(dy, w, dx, False)
    return dx
