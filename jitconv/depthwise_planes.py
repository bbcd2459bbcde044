"""Depthwise convolution over planes: when it serves, and what its kernels read."""

from __future__ import annotations

from typing import Any, NamedTuple

from numpy.typing import NDArray

from . import workspace
from .cost import UNIT, PassPlan, array_cycles
from .kept import KeptWeights
from .kernels import depthwise_planes
from .kernels.depthwise_planes import HEIGHTS, SIDE
from .kernels.simd import VECTOR_BYTES
from .problem import ConvProblem
from .records import Scratch, record

Array = NDArray[Any]


# Lanes that must be pixels: of rows of 28 all but 4 of 32 are, and the kernels are 1.3 times as fast as with channels
# as lanes; of rows of 7 they are 7 of 16, and it takes twice as long.
FILLED = 0.8
# Bytes of a plane of which the gradient of the weights takes a column of vectors at a time: it stays in a first-level
# cache. 112x112 pixels take 1.3 times as long as transposed.
PLANE_BYTES = 32 * 1024


def serves(p: ConvProblem) -> bool:
    """Return whether these kernels are the fastest for a depthwise convolution: 3x3 of stride 1 in NCHW, full rows."""
    lanes = VECTOR_BYTES // p.itemsize
    full = all(width >= FILLED * lanes * -(-width // lanes) for width in (p.w, p.output.w))
    alike = p.groups == p.c and p.stride == p.dilation == (1, 1) and p.kernel == (SIDE, SIDE)
    return p.layout == "NCHW" and alike and full


def serves_weights(p: ConvProblem) -> bool:
    """As `serves`, for backward-weights."""
    return serves(p) and p.h * p.w * p.itemsize <= PLANE_BYTES


def _scratch(p: ConvProblem) -> int:
    """Return the bytes of a thread's scratch: sums, a row of zeros and the addresses of rows."""
    scratch = Scratch()
    scratch.add(2 * (p.kernel[0] ** 2 + 1) * VECTOR_BYTES)
    scratch.add(max(p.w, p.output.w) * p.itemsize)
    scratch.add(8 * (max(p.h, p.output.h) + p.kernel[0] - 1))
    return scratch.size


def plan(p: ConvProblem, units: int, n_threads: int) -> tuple[float, PassPlan]:
    """Return the cost in cycles and the plan of a pass of so many units."""
    lanes = VECTOR_BYTES // p.itemsize
    used = max(1, min(n_threads, units))
    out = p.output
    tiles = p.n * p.c * -(-out.w // lanes) * out.h
    moved = array_cycles(p.n * p.c * p.h * p.w * p.itemsize, p.n * p.c * out.h * out.w * p.itemsize)
    made = PassPlan(
        algorithm="direct",
        tile=f"{HEIGHTS[0]}x{lanes}",
        images=1,
        rows=out.h,
        borders=False,
        units=units,
        parts=1,
        block_channels=1,
        chunks=1,
        threads=used,
        workspace=used * _scratch(p),
        reason="depthwise: lanes are pixels, planes are read and written in place",
        planes=True,
    )
    return (tiles * p.kernel[0] ** 2 * 1.5 + moved + UNIT) / used, made


def _geometry(p: ConvProblem, *, flipped: bool = False, relu: bool = False, bias: bool = False) -> NDArray[Any]:
    """Return the record of a pass; `flipped`: of backward-data, whose source is dy."""
    (h, w), (oh, ow) = (p.h, p.w), (p.output.h, p.output.w)
    top, left = p.padding[0][0], p.padding[1][0]
    if flipped:
        (h, w), (oh, ow) = (oh, ow), (h, w)
        top, left = p.kernel[0] - 1 - top, p.kernel[1] - 1 - left
    return record(
        depthwise_planes.GEOMETRY,
        {
            "n": p.n, "c": p.c, "h": h, "w": w, "oh": oh, "ow": ow, "top": top, "left": left,
            "flipped": int(flipped), "relu": int(relu), "bias": int(bias),
            "scratch": _scratch(p),
        },
    )  # fmt: skip


class DepthwisePlanesCall(NamedTuple):
    """Forward or backward-data over planes, ready to run."""

    geometry: NDArray[Any]
    scratch: int  # bytes, all threads
    threads: int

    @classmethod
    def of(cls, p: ConvProblem, plan: PassPlan, flipped: bool, relu: bool) -> DepthwisePlanesCall:
        """Return the call of a plan."""
        return cls(_geometry(p, flipped=flipped, relu=relu), plan.threads * _scratch(p), plan.threads)

    def run(self, source: Array, w: Array, b: Array | None, target: Array, kept: KeptWeights | None = None) -> None:
        """Overwrite `target`."""
        own = workspace.scratch(self.scratch, "strips")
        bias = 0 if b is None else b
        depthwise_planes.depthwise_planes(w.dtype, self.threads, source, w, bias, target, self.geometry, own)


class DepthwisePlanesWeightsCall(NamedTuple):
    """Backward-weights over planes, ready to run."""

    geometry: NDArray[Any]
    scratch: int  # bytes, all threads
    threads: int

    @classmethod
    def of(cls, p: ConvProblem, plan: PassPlan, bias: bool) -> DepthwisePlanesWeightsCall:
        """Return the call of a plan."""
        return cls(_geometry(p, bias=bias), plan.threads * _scratch(p), plan.threads)

    def run(self, x: Array, dy: Array, dw: Array, db: Array) -> None:
        """Overwrite `dw` and, if the call was made with a bias, `db`."""
        own = workspace.scratch(self.scratch, "strips")
        depthwise_planes.depthwise_planes_weights(x.dtype, self.threads, x, dy, dw, db, self.geometry, own)
