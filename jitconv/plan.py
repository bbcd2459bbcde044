"""What runs for a convolution, and why: shapes in, a frozen plan out.  Pure Python, nothing is computed.

A pass is cut into strips (rows of one image, or whole images) whose scratch stays in a core's L2, and the strips
into units that the threads share evenly. `PassPlan` names the choice; `geometry.py` turns it into the numbers that a
kernel reads.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator

from .kernels.simd import VECTOR_BYTES
from .kernels.tile import TILE_ROWS
from .problem import ConvProblem, Correlation, WeightGradient
from .shapes import Pair

ALGORITHMS = ("auto", "direct", "im2col")

# Bytes of scratch that a strip may fill: half of a 1 MB L2, the smallest of current servers; a panel streams beside.
STRIP_BYTES = 640 * 1024
# Backward-weights: bytes of sums that stay in L2 while the pixels go by, bytes that the chunks may take together, and
# how many units there should be to share.
UNIT_SUMS_BYTES = 160 * 1024
SUMS_BYTES = 8 * 1024 * 1024
UNITS = 16
# The cost model, in cycles: one vector FMA is 1.
GATHER_BYTES = 12.0  # bytes moved to or from scratch in a cycle
FAR_BYTES = 8.0  # bytes read in a cycle from beyond L2
CALL = 40.0  # one call of the tile
LINE = 10.0  # one more tap in it
UNIT = 2000.0  # one unit


@dataclasses.dataclass(frozen=True)
class PassPlan:
    """What one pass does.

    Attributes
    ----------
    algorithm : str
        "direct" or "im2col".
    tile : str
        Rows x lanes of the register tile.
    images, rows : int
        A strip: so many whole images, or so many rows (of each residue of the stride) of one.
    borders : bool
        Whether pixels near the border are computed apart, with the taps that lie inside only.
    units, threads : int
        Units of work that the threads share, and threads that have some.
    parts : int
        Ranges of output channels that are units of their own.
    block_channels, chunks : int
        Backward-weights: input channels of a unit, and sums of pixels that are added at the end.
    workspace : int
        Bytes of scratch, all threads together, packed weights not counted.
    reason : str
        What decided.
    """

    algorithm: str
    tile: str
    images: int
    rows: int
    borders: bool
    units: int
    parts: int
    block_channels: int
    chunks: int
    threads: int
    workspace: int
    reason: str

    def __str__(self) -> str:
        strip = f"{self.images} image{'s' * (self.images > 1)}" if self.images > 1 else f"{self.rows} rows"
        return (
            f"{self.algorithm}, tile {self.tile}, strips of {strip}, {self.units} units on {self.threads} threads, "
            f"{self.workspace / 1024:.0f} KiB of scratch; {self.reason}"
        )


@dataclasses.dataclass(frozen=True)
class ConvPlan:
    """What `conv2d` and `conv2d_backward` do for one problem, pass by pass."""

    problem: ConvProblem
    forward: PassPlan
    backward_data: PassPlan
    backward_weights: PassPlan

    @property
    def algorithm(self) -> str:
        """The algorithm of the forward pass."""
        return self.forward.algorithm

    def __str__(self) -> str:
        p = self.problem
        lines = [
            f"conv2d {p.layout} {p.dtype}: ({p.n}, {p.c}, {p.h}, {p.w}) * ({p.f}, {p.c // p.groups}, "
            f"{p.kernel[0]}, {p.kernel[1]}), {p.flops / 1e9:.2f} GFLOP a pass"
        ]
        lines += [f"  {name:17s} {getattr(self, name)}" for name in ("forward", "backward_data", "backward_weights")]
        return "\n".join(lines)


def _strips(images: int, rows: int) -> Iterator[Pair]:
    """Yield the (images, rows) of strips to consider: whole images, then ever fewer rows of one."""
    count = 1
    while count < 2 * images:
        yield min(count, images), rows
        count *= 2
    for pieces in range(2, rows + 1):
        if -(-rows // pieces) != -(-rows // (pieces - 1)):
            yield 1, -(-rows // pieces)


def _correlation_cost(each: Correlation, unfold: bool, images: int, rows: int, parts: int, n_threads: int) -> float:
    """Return the cycles of the thread that has most to do."""
    panels, vectors, last = each.panels
    total_panels = panels * each.groups
    row_strips = -(-each.rows // rows)
    units = -(-each.source.n // images) * row_strips * parts
    mr = TILE_ROWS[vectors - 1]
    k = each.depth
    fma, tiles = 0.0, 0
    for phase in each.phases:
        count = -(-images * min(rows, phase.rows) * phase.cols // mr)
        fma += count * mr * len(phase.taps) * k * ((panels - 1) * vectors + last) * each.groups
        tiles += count * total_panels
    fma, calls = fma / parts, tiles / parts * CALL
    weights = sum(len(phase.taps) for phase in each.phases) * k * total_panels * vectors * VECTOR_BYTES / parts
    source = each.source_bytes(images, rows)
    unfolded = each.unfolded_bytes(images, rows) if unfold else 0
    moved = float(0 if each.source_in_place else source) + unfolded * (1 if len(each.phases) == 1 else panels)
    if not each.target_in_place:
        moved += each.target_bytes(images, rows) * total_panels / parts
    resident = source + unfolded + each.target_bytes(images, rows)
    far = weights / FAR_BYTES if weights > STRIP_BYTES else 0.0
    if resident > STRIP_BYTES:
        fma *= 1.0 + 0.3 * min(resident / STRIP_BYTES - 1.0, 1.0)
    return -(-units // n_threads) * (fma + calls + moved / GATHER_BYTES + far + UNIT)


# More phases than this are not worth the look: their pieces are small.
MOST_PHASES = 100


def _plan_correlation(make: Callable[[bool], Correlation], algorithm: str, n_threads: int) -> PassPlan:
    unfold = algorithm == "im2col"
    best: tuple[float, Correlation, int, int, int] | None = None
    for split in (False,) if unfold else (False, True):
        each = make(split)
        if split and len(each.phases) > MOST_PHASES:
            continue
        panels, _, _ = each.panels
        parts_to_try = sorted({min(panels * each.groups, part) for part in (1, 2, n_threads)})
        for images, rows in _strips(each.source.n, each.rows):
            smallest = (images, rows) == (1, 1)
            if split and rows < each.rows:
                continue
            if unfold and not smallest and each.unfolded_bytes(images, rows) > STRIP_BYTES:
                continue
            if images > 1 and each.source_bytes(images, rows) + each.target_bytes(images, rows) > STRIP_BYTES:
                continue
            for parts in parts_to_try:
                cost = _correlation_cost(each, unfold, images, rows, parts, n_threads)
                if best is None or cost < best[0]:
                    best = cost, each, images, rows, parts
    assert best is not None  # strips of one row are always considered
    _, each, images, rows, parts = best
    panels, vectors, _ = each.panels
    units = -(-each.source.n // images) * -(-each.rows // rows) * parts
    used = min(n_threads, units)
    scratch = each.source_bytes(images, rows) * (not each.source_in_place) + each.target_bytes(images, rows)
    scratch += each.unfolded_bytes(images, rows) if unfold else 0
    return PassPlan(
        algorithm="im2col" if unfold else "direct",
        tile=f"{TILE_ROWS[vectors - 1]}x{vectors * each.lanes}",
        images=images,
        rows=rows,
        borders=each.split,
        units=units,
        parts=parts,
        block_channels=each.depth,
        chunks=1,
        threads=used,
        workspace=used * scratch,
        reason=_reason(algorithm, each.source_in_place, each.split),
    )


def _reason(algorithm: str, in_place: bool, split: bool) -> str:
    """Say in words what decided."""
    words = ["im2col was asked for"] if algorithm == "im2col" else []
    words.append("input read in place" if in_place else "input copied a strip at a time")
    if split:
        words.append("borders apart, so that padding costs nothing")
    return ", ".join(words)


def _plan_weights(each: WeightGradient, algorithm: str, n_threads: int) -> PassPlan:
    # Strips, chunks and blocks fix the order of summation: they follow from the shapes alone, never the threads.
    p = each.problem
    out = p.output
    unfold = algorithm == "im2col"
    panels, vectors, _ = each.panels
    mr = TILE_ROWS[vectors - 1]
    blocks = -(-each.group_c * each.area * vectors * VECTOR_BYTES // UNIT_SUMS_BYTES)
    block_c = -(-each.group_c // min(blocks, each.group_c))
    best: tuple[float, int, int] | None = None
    for images, rows in _strips(p.n, out.h):
        smallest = (images, rows) == (1, 1)
        unfolded = each.unfolded_bytes(images, rows, block_c) if unfold else 0
        if unfolded > STRIP_BYTES and not smallest:
            continue
        tiles = -(-each.area * block_c // mr)
        fma = float(tiles * mr * images * rows * out.w * vectors)
        moved = each.x_bytes(images, rows, block_c) * (not each.x_in_place) + unfolded
        moved += each.dy_bytes(images, rows) * (not each.dy_in_place)
        resident = each.x_bytes(images, rows, block_c) + each.dy_bytes(images, rows) + unfolded
        if resident > STRIP_BYTES:
            fma *= 1.0 + 0.3 * min(resident / STRIP_BYTES - 1.0, 1.0)
        calls = tiles * (CALL + LINE * (1 if unfold else images * rows) + 2 * mr * vectors)
        strips = -(-p.n // images) * -(-out.h // rows)
        cost = strips * (fma + calls + moved / GATHER_BYTES + UNIT)
        if best is None or cost < best[0]:
            best = cost, images, rows
    assert best is not None  # strips of one row are always considered
    _, images, rows = best
    strips = -(-p.n // images) * -(-out.h // rows)
    units = p.groups * -(-each.group_c // block_c) * panels
    # A power of two of chunks, so that they share evenly over the usual numbers of threads.
    most = max(1, min(strips, -(-UNITS // units), SUMS_BYTES // each.sums_bytes(block_c)))
    chunks = 1 << (most.bit_length() - 1)
    if chunks * units < UNITS:
        smaller = min(-(-UNITS // (chunks * units)), max(1, block_c * each.area // (4 * mr)), block_c)
        block_c = -(-block_c // smaller)
        units = p.groups * -(-each.group_c // block_c) * panels
    used = min(n_threads, chunks * units)
    scratch = each.x_bytes(images, rows, block_c) * (not each.x_in_place)
    scratch += each.dy_bytes(images, rows) * (not each.dy_in_place)
    scratch += each.unfolded_bytes(images, rows, block_c) if unfold else 0
    return PassPlan(
        algorithm="im2col" if unfold else "direct",
        tile=f"{mr}x{vectors * each.lanes}",
        images=images,
        rows=rows,
        borders=False,
        units=chunks * units,
        parts=1,
        block_channels=block_c,
        chunks=chunks,
        threads=used,
        workspace=used * scratch + chunks * each.sums_bytes(block_c),
        reason=_reason(algorithm, each.x_in_place, False),
    )


@functools.lru_cache(maxsize=1024)
def plan_forward(problem: ConvProblem, algorithm: str, n_threads: int) -> PassPlan:
    """Return the plan of the forward pass."""
    return _plan_correlation(functools.partial(Correlation.forward, problem), algorithm, n_threads)


@functools.lru_cache(maxsize=1024)
def plan_backward_data(problem: ConvProblem, algorithm: str, n_threads: int) -> PassPlan:
    """Return the plan of the gradient of the input."""
    return _plan_correlation(functools.partial(Correlation.backward_data, problem), algorithm, n_threads)


@functools.lru_cache(maxsize=1024)
def plan_backward_weights(problem: ConvProblem, algorithm: str, n_threads: int) -> PassPlan:
    """Return the plan of the gradient of the weights."""
    return _plan_weights(WeightGradient(problem), algorithm, n_threads)
