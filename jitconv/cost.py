"""What the planners share: the plan of a pass, the ways to cut a batch, and the constants of the cost model."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator

from .shapes import Pair
from .threads import get_num_threads

# Bytes of scratch that a strip may fill: five eighths of a 1 MB L2; a panel streams beside.
STRIP_BYTES = 640 * 1024
# Backward-weights: bytes of sums that stay in L2 while the pixels go by, bytes that the chunks may take together, and
# how many units there should be to share.
SUMS_BYTES = 8 * 1024 * 1024
UNITS = 16
# Whatever decides over the order of summation is decided for this many threads, whatever their number is.
NOMINAL_THREADS = 4
# The cost model, in cycles of one thread: one vector FMA is 1. asv_benchmarks/plan_choice.py holds what is chosen by it
# against the other choices.
GATHER_BYTES = 12.0  # bytes moved to or from scratch in a cycle
FAR_BYTES = 8.0  # bytes read in a cycle from beyond L2
NEAR_BYTES = 16.0  # bytes streamed in order from L2 or L3 in a cycle, beside the arithmetic
CALL = 40.0  # one call of the tile
LINE = 10.0  # one more tap in it
UNIT = 2000.0  # one unit
STAGE = 10_000.0  # one more kernel in a call: 3 us
# Winograd, fitted to its strips on 3x3, 5x5 and strided layers, one thread: scratch that is written and read stays
# in L2 up to the first size and in L3 up to the second, and costs so many cycles a byte beyond each; transformed
# weights stream in beside the arithmetic, so many bytes a cycle.
SCRATCH_STEPS = ((1024 * 1024, 0.5), (8 * 1024 * 1024, 0.6))
STREAM_BYTES = 32.0
# Work of so many cycles is left to one thread. Waking a second one costs about 10 us on a 2-core EPYC: 16 channels of
# 20x20 pixels, 3x3, 67000 cycles, take 24 us on one thread and 26 on two; 24x24, 96000 cycles, 33 and 31.
SMALL = 80_000.0


@dataclasses.dataclass(frozen=True)
class PassPlan:
    """What one pass does.

    Attributes
    ----------
    algorithm : str
        "direct", "im2col", "winograd" or "winograd_2x2".
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
    packed : int
        Bytes of packed weights, 0 for backward-weights.
    planes : bool
        Whether the lanes are pixels of a plane, not channels.
    spread : bool
        Backward-data: whether all products of a pixel are formed, then added (`planes_data.py`).
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
    packed: int = 0
    planes: bool = False
    spread: bool = False

    def __str__(self) -> str:
        strip = f"{self.images} image{'s' * (self.images > 1)}" if self.images > 1 else f"{self.rows} rows"
        return (
            f"{self.algorithm}, tile {self.tile}, strips of {strip}, {self.units} units on {self.threads} threads, "
            f"{self.workspace / 1024:.0f} KiB of scratch; {self.reason}"
        )


def array_cycles(source: int, target: int) -> float:
    """Return the cycles of reading a source and writing a target of so many bytes, from and to L3 or memory."""
    return 0.1 * source + 0.2 * target


def packed_cycles(size: int) -> float:
    """Return the cycles of bringing weights into an order of so many bytes, all threads together."""
    return size / 16 + max(0, size - SCRATCH_STEPS[0][0]) / 4


def scratch_cycles(size: int) -> float:
    """Return the cycles that scratch of so many bytes costs because it outgrows the caches."""
    return sum(max(0, size - room) * cycles for room, cycles in SCRATCH_STEPS)


def filled(images: int, rows: int, cut: Pair) -> float:
    """Return the part of all strips that is not past the last image or the last row."""
    if not images:
        return 1.0
    strip_images, strip_rows = cut
    return images * rows / (-(-images // strip_images) * strip_images * -(-rows // strip_rows) * strip_rows)


# Taller strips are considered by halves only: none of them fits in a cache, and planning a million rows must not take
# longer than computing them.
TALL = 4096


def heights(rows: int) -> Iterator[int]:
    """Yield the rows of strips that cut so many rows evenly: all of them, then ever fewer."""
    height = rows
    while height > 1:
        yield height
        most = height // 2 if height > TALL else height - 1
        height = -(-rows // -(-rows // most))
    yield height


def strips(images: int, rows: int) -> Iterator[Pair]:
    """Yield the (images, rows) of strips to consider: whole images, then ever fewer rows of one."""
    count = 1
    while count < 2 * images:
        yield min(count, images), rows
        count *= 2
    for height in itertools.islice(heights(rows), 1, None):
        yield 1, height


def threads_for(cycles: float) -> int:
    """Return how many threads share so much work."""
    return 1 if cycles <= SMALL else get_num_threads()
