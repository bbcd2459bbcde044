"""How the direct algorithm and im2col are cut: the cheapest strips, ranges and blocks by the cost model."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

from .cost import (
    CALL,
    FAR_BYTES,
    GATHER_BYTES,
    LINE,
    NOMINAL_THREADS,
    STRIP_BYTES,
    SUMS_BYTES,
    UNIT,
    UNITS,
    PassPlan,
    array_cycles,
    packed_cycles,
    strips,
)
from .kernels.simd import VECTOR_BYTES
from .kernels.tile import TILE_ROWS
from .problem import Correlation, WeightGradient
from .shapes import Pair

# Backward-weights: bytes of sums that stay in L2 while the pixels go by.
UNIT_SUMS_BYTES = 160 * 1024


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
    share = -(-total_panels // parts)  # panels of the largest part
    fma, calls = fma * share / total_panels, tiles * share / total_panels * CALL
    weights = sum(len(phase.taps) for phase in each.phases) * k * share * vectors * VECTOR_BYTES
    source = each.source_bytes(images, rows)
    unfolded = each.unfolded_bytes(images, rows) if unfold else 0
    gathered = 0.0 if each.source_in_place else source * max(1.0, each.groups / parts)
    moved = gathered + unfolded * (1 if len(each.phases) == 1 else panels)
    if not each.target_in_place:
        moved += 1.5 * each.target_bytes(images, rows) * share  # written to many planes, it is slower than read
    resident = source + unfolded + each.target_bytes(images, rows)
    far = weights / FAR_BYTES if weights > STRIP_BYTES else 0.0
    if resident > STRIP_BYTES:
        fma *= 1.0 + 0.3 * min(resident / STRIP_BYTES - 1.0, 1.0)
    work = fma + calls + moved / GATHER_BYTES + far + UNIT
    shared = packed_cycles(total_panels * each.panel_bytes)
    shared += array_cycles(*(math.prod(a) * each.itemsize for a in (each.source, each.target)))
    return -(-units // n_threads) * work + shared / n_threads


# More phases than this are not worth the look: their pieces are small.
MOST_PHASES = 100


def plan_correlation(make: Callable[[bool], Correlation], algorithm: str, n_threads: int) -> tuple[float, PassPlan]:
    """Return the cost in cycles and the plan of forward or backward-data; `make` takes whether borders are split."""
    # Borders apart change the blocks of k, and with them the rounding: that choice must not follow the threads.
    splits = (False,) if algorithm == "im2col" else (False, True)
    nominal = _cheapest(make, algorithm, NOMINAL_THREADS, splits)
    return _cheapest(make, algorithm, n_threads, (nominal[1].borders,))


def _cheapest(
    make: Callable[[bool], Correlation], algorithm: str, n_threads: int, splits: tuple[bool, ...]
) -> tuple[float, PassPlan]:
    unfold = algorithm == "im2col"

    def cuts() -> Iterator[tuple[Correlation, int, int, int]]:
        for split in splits:
            each = make(split)
            if split and (len(each.phases) > MOST_PHASES or not any(phase.taps for phase in each.phases)):
                continue
            ranges = sorted({min(each.panels[0] * each.groups, part) for part in (1, 2, n_threads)})
            for images, rows in strips(each.source.n, each.rows):
                smallest = (images, rows) == (1, 1)
                if split and rows < each.rows:
                    continue
                if each.pooled and rows % 2 and rows < each.rows:
                    continue
                if unfold and not smallest and each.unfolded_bytes(images, rows) > STRIP_BYTES:
                    continue
                if images > 1 and each.source_bytes(images, rows) + each.target_bytes(images, rows) > STRIP_BYTES:
                    continue
                yield from ((each, images, rows, parts) for parts in ranges)

    def cost(cut: tuple[Correlation, int, int, int]) -> float:
        each, images, rows, parts = cut
        return _correlation_cost(each, unfold, images, rows, parts, n_threads)

    each, images, rows, parts = best = min(cuts(), key=cost)
    _, vectors, _ = each.panels
    units = -(-each.source.n // images) * -(-each.rows // rows) * parts
    used = min(n_threads, units)
    scratch = each.source_bytes(images, rows) * (not each.source_in_place) + each.target_bytes(images, rows)
    scratch += each.unfolded_bytes(images, rows) if unfold else 0
    plan = PassPlan(
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
        packed=each.panels[0] * each.groups * each.panel_bytes,
    )
    return cost(best), plan


def _reason(algorithm: str, in_place: bool, split: bool) -> str:
    """Say in words what decided."""
    words = ["im2col was asked for"] if algorithm == "im2col" else []
    words.append("input read in place" if in_place else "input copied a strip at a time")
    if split:
        words.append("borders apart, so that padding costs nothing")
    return ", ".join(words)


def _whole_vectors(block_c: int, each: WeightGradient) -> int:
    """Round a block of channels up, so that its copies are aligned; never past all channels."""
    return min(-(-block_c // each.lanes) * each.lanes, each.group_c)


def plan_weights(each: WeightGradient, n_threads: int) -> tuple[float, PassPlan]:
    """Return the cost in cycles and the plan of backward-weights."""
    # Strips, chunks and blocks fix the order of summation: they follow from the shapes alone, never the threads.
    p = each.problem
    out = p.output
    unfold = each.unfold
    panels, vectors, _ = each.panels
    mr = TILE_ROWS[vectors - 1]
    # A unit's sums are a rectangle, taps x channels by lanes; as near to a square as the panels let it be, it copies
    # least of x and dy again.
    side = min(panels, max(1, round(math.sqrt(UNIT_SUMS_BYTES / p.itemsize / each.area) / (vectors * each.lanes))))
    blocks = -(-each.group_c * each.area * vectors * VECTOR_BYTES // (UNIT_SUMS_BYTES // side))
    block_c = _whole_vectors(-(-each.group_c // min(blocks, each.group_c)), each)

    def ranges() -> int:
        """Return the ranges of panels whose sums fit together."""
        return -(-panels // max(1, UNIT_SUMS_BYTES // each.unit_bytes(block_c)))

    def fits(cut: Pair) -> bool:
        return not unfold or cut == (1, 1) or each.unfolded_bytes(*cut, block_c) <= STRIP_BYTES

    def cost(cut: Pair) -> float:
        images, rows = cut
        unfolded = each.unfolded_bytes(images, rows, block_c) if unfold else 0
        tiles = -(-each.area * block_c // mr)
        fma = float(tiles * mr * images * rows * out.w * vectors)
        moved = (each.x_bytes(images, rows, block_c) * (not each.x_in_place) + unfolded) * ranges() / panels
        turned = 3 if p.layout == "NCHW" else 1  # transposed on the way
        moved += turned * each.dy_bytes(images, rows) * (not each.dy_in_place)
        resident = each.x_bytes(images, rows, block_c) + each.dy_bytes(images, rows) + unfolded
        if resident > STRIP_BYTES:
            fma *= 1.0 + 0.3 * min(resident / STRIP_BYTES - 1.0, 1.0)
        calls = tiles * (CALL + LINE * (1 if unfold else images * rows) + 2 * mr * vectors)
        count = -(-p.n // images) * -(-out.h // rows)
        return count * (fma + calls + moved / GATHER_BYTES + UNIT)

    images, rows = best = min(filter(fits, strips(p.n, out.h)), key=cost)
    count = -(-p.n // images) * -(-out.h // rows)
    units = p.groups * -(-each.group_c // block_c) * ranges()
    total = cost(best) * p.groups * -(-each.group_c // block_c) * panels
    # A power of two of chunks, so that they share evenly over the usual numbers of threads.
    most = max(1, min(count, -(-UNITS // units), SUMS_BYTES // each.sums_bytes(block_c)))
    chunks = 1 << (most.bit_length() - 1)
    if chunks * units < UNITS:
        smaller = min(-(-UNITS // (chunks * units)), max(1, block_c * each.area // (4 * mr)), block_c)
        block_c = _whole_vectors(-(-block_c // smaller), each)
        units = p.groups * -(-each.group_c // block_c) * ranges()
    used = min(n_threads, chunks * units)
    scratch = each.x_bytes(images, rows, block_c) * (not each.x_in_place)
    scratch += each.dy_bytes(images, rows) * (not each.dy_in_place)
    scratch += each.unfolded_bytes(images, rows, block_c) if unfold else 0
    plan = PassPlan(
        algorithm="im2col" if unfold else "direct",
        tile=f"{mr}x{vectors * each.lanes}",
        images=images,
        rows=rows,
        borders=False,
        units=chunks * units,
        parts=ranges(),
        block_channels=block_c,
        chunks=chunks,
        threads=used,
        workspace=used * scratch + chunks * each.sums_bytes(block_c),
        reason=_reason("im2col" if unfold else "direct", each.x_in_place, False),
    )
    shared = packed_cycles(2 * chunks * each.sums_bytes(block_c))
    shared += array_cycles((math.prod(out) + p.n * p.c * p.h * p.w) * p.itemsize, 0)
    return (total + shared) / used, plan
