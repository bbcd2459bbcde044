"""THE micro-kernel: one strided, indirect outer-product tile for every pass of every algorithm.

    C[c_offset[m], lanes] = start + sum over taps and k of A[a_offset[m] + a_taps[tap] + k * a_step] * B[tap, k, lanes]

Each row m of A is a broadcast scalar, each row of B is `nv` vectors; rows * nv accumulators stay in registers
over all taps and all k. Rows of B lie `b_step` bytes apart, from an offset for each tap on. `start` is a row of
`nv` vectors (the bias); C may be added at the end, so that a sum over blocks is a sum of block sums. With NHWC
activations inside:

    pass                A (scalars)                              B (vectors)
    forward             pixels of the input, k over channels     packed weights [tap][channel][lane of F]
    backward-data       pixels of dy, k over its channels        packed weights [tap][F][lane of C]
    backward-weights    channels of x, k over output columns     pixels of dy, taps are output rows
    im2col              unfolded rows, k over KH*KW*C            packed weights
    1x1, dense          pixels, one tap                          packed weights
"""

from __future__ import annotations

from numba import types
from numba.extending import intrinsic

from .jit import inlined
from .simd import ALIGNMENT, I64, POINTER, REGISTERS, Vector, at, cases, emit_prefetch, i64, load_i64, store_i64

# Rows of the tile for 1, 2, ... vectors. Accumulators, vectors of B and one of A: 29 of 32 registers at the most
# (15 of 16), or LLVM spills. On a CPU of one 512-bit FMA a cycle 6x4, 8x3, 13x2 and 26x1 reach 96-98% of peak with
# B in L2; unrolling k by 2 gains nothing there and by 4 spills (13x2: 114 -> 86 GFLOP/s).
TILE_ROWS = (26, 13, 8, 6) if REGISTERS == 32 else (12, 6)
# A low tile for what is left over, or for the few rows of a first layer's weights. 4 rows of 4 vectors rather than 3:
# an image of 8x8 or 16x16 pixels has 4 or 16 Winograd tiles (one of 256 channels: 381 -> 450 GFLOP/s, two threads).
LOW_ROWS = (10, 5, 4, 4) if REGISTERS == 32 else (5, 3)
MAX_VECTORS = len(TILE_ROWS)
TILES = dict(enumerate(TILE_ROWS, 1))
SPARE_TABLES = -(-2 * 8 * TILE_ROWS[0] // ALIGNMENT) * ALIGNMENT
SPARE_BYTES = SPARE_TABLES + 64 * MAX_VECTORS  # see `sweep`

# Bits of `mode`: add to what C holds; then store max(value, 0); store past the caches, to aligned rows; `start` is not
# a row of lanes but an element for each row of the tile. From the bit SOME_LANES on: the lanes of the last vector that
# are stored, 0 for all.
ADD, RELU, STREAM, START_BY_ROW, SOME_LANES = 1, 2, 4, 8, 8


def _emit(builder, vector, mr, nv, end, args):
    """Emit one (mr) x (nv) tile at the builder's position and leave for the block `end`."""
    n_taps, taps, k, a, a_rows, a_step, b, b_taps, b_step, c, c_rows, start, mode, ahead, ahead_step = args

    def entry_of(table, index):
        return builder.load(builder.gep(table, [index]))

    def cells(make):
        return [[make(m, j) for j in range(nv)] for m in range(mr)]

    def feed(phis, values, block):
        for phi_row, value_row in zip(phis, values, strict=True):
            for phi, value in zip(phi_row, value_row, strict=True):
                phi.add_incoming(value, block)

    def phi(value, block):
        made = builder.phi(value.type)
        made.add_incoming(value, block)
        return made

    rows = [entry_of(a_rows, i64(m)) for m in range(mr)]

    def bit(value):
        return builder.icmp_signed("!=", builder.and_(mode, i64(value)), i64(0))

    by_row, by_lane = (builder.append_basic_block(f"{name}{mr}x{nv}") for name in ("by_row", "by_lane"))
    names = ("tap", "k", "tap_end", "add", "added", "relu", "store")
    block = {name: builder.append_basic_block(f"{name}{mr}x{nv}") for name in names}
    builder.cbranch(bit(START_BY_ROW), by_row, by_lane)
    builder.position_at_end(by_row)
    row_starts = [vector.broadcast(at(builder, start, m * vector.itemsize)) for m in range(mr)]
    builder.branch(block["tap"])
    builder.position_at_end(by_lane)
    lane_starts = [vector.load(at(builder, start, j * vector.bytes)) for j in range(nv)]
    builder.branch(block["tap"])

    builder.position_at_end(block["tap"])
    tap = phi(i64(0), by_lane)
    tap.add_incoming(i64(0), by_row)
    ahead_tap = phi(ahead, by_lane)
    ahead_tap.add_incoming(ahead, by_row)
    at_tap = cells(lambda m, j: phi(lane_starts[j], by_lane))
    feed(at_tap, cells(lambda m, j: row_starts[m]), by_row)
    a_tap, b_tap = at(builder, a, entry_of(taps, tap)), at(builder, b, entry_of(b_taps, tap))
    builder.branch(block["k"])

    builder.position_at_end(block["k"])
    i, a_k, b_k, ahead_k = (phi(value, block["tap"]) for value in (i64(0), a_tap, b_tap, ahead_tap))
    sums = cells(lambda m, j: phi(at_tap[m][j], block["tap"]))
    emit_prefetch(builder, ahead_k)
    panel = [vector.load(at(builder, b_k, j * vector.bytes)) for j in range(nv)]
    new = []
    for m in range(mr):
        x = vector.broadcast(at(builder, a_k, rows[m]))
        new.append([vector.fma(x, panel[j], sums[m][j]) for j in range(nv)])
    i_next, a_next, b_next = builder.add(i, i64(1)), at(builder, a_k, a_step), at(builder, b_k, b_step)
    ahead_next = at(builder, ahead_k, ahead_step)
    for name, value in ((i, i_next), (a_k, a_next), (b_k, b_next), (ahead_k, ahead_next)):
        name.add_incoming(value, block["k"])
    feed(sums, new, block["k"])
    builder.cbranch(builder.icmp_signed("<", i_next, k), block["k"], block["tap_end"])

    builder.position_at_end(block["tap_end"])
    tap_next = builder.add(tap, i64(1))
    tap.add_incoming(tap_next, block["tap_end"])
    ahead_tap.add_incoming(ahead_next, block["tap_end"])
    feed(at_tap, new, block["tap_end"])
    after = builder.append_basic_block(f"after{mr}x{nv}")
    builder.cbranch(builder.icmp_signed("<", tap_next, n_taps), block["tap"], after)

    builder.position_at_end(after)
    outputs = [at(builder, c, entry_of(c_rows, i64(m))) for m in range(mr)]

    builder.cbranch(bit(ADD), block["add"], block["added"])
    builder.position_at_end(block["add"])
    held = cells(lambda m, j: vector.load(at(builder, outputs[m], j * vector.bytes)))
    added = cells(lambda m, j: builder.fadd(held[m][j], new[m][j]))
    builder.branch(block["added"])
    builder.position_at_end(block["added"])
    total = cells(lambda m, j: phi(new[m][j], after))
    feed(total, added, block["add"])
    builder.cbranch(bit(RELU), block["relu"], block["store"])
    builder.position_at_end(block["relu"])
    rectified = cells(lambda m, j: vector.relu(total[m][j]))
    builder.branch(block["store"])
    builder.position_at_end(block["store"])
    stored = cells(lambda m, j: phi(total[m][j], block["added"]))
    feed(stored, rectified, block["relu"])
    with builder.if_else(bit(STREAM)) as (streams, stays):
        with streams:
            for m in range(mr):
                for j in range(nv):
                    vector.stream(stored[m][j], at(builder, outputs[m], j * vector.bytes))
        with stays:
            for m in range(mr):
                for j in range(nv - 1):
                    vector.store(stored[m][j], at(builder, outputs[m], j * vector.bytes))
            last = (nv - 1) * vector.bytes
            lanes = builder.ashr(mode, i64(SOME_LANES))
            with builder.if_else(builder.icmp_signed("==", lanes, i64(0))) as (whole, partial):
                with whole:
                    for m in range(mr):
                        vector.store(stored[m][nv - 1], at(builder, outputs[m], last))
                with partial:
                    mask = vector.lanes_between(i64(0), lanes)
                    for m in range(mr):
                        vector.store_masked(stored[m][nv - 1], at(builder, outputs[m], last), mask)
    builder.branch(end)


@intrinsic
def _tile(
    typingctx, nv, low, n_taps, taps, k, a, a_rows, a_step, b, b_taps, b_step, c, c_rows, start, mode, ahead,
    ahead_step, like,
):  # fmt: skip
    """Run the tile of `nv` vectors, or the low one; every argument but `like`, an array of the dtype, is an int64."""

    def codegen(context, builder, signature, args):
        vector = Vector(builder, signature.args[-1])
        nv, low, n_taps, taps, k, a, a_rows, a_step, b, b_taps, b_step, c, c_rows, start, mode, *next_b, _ = args
        a, b, c, start, ahead = (builder.inttoptr(address, POINTER) for address in (a, b, c, start, next_b[0]))
        taps, b_taps, a_rows, c_rows = (
            builder.inttoptr(table, I64.as_pointer()) for table in (taps, b_taps, a_rows, c_rows)
        )
        values = (n_taps, taps, k, a, a_rows, a_step, b, b_taps, b_step, c, c_rows, start, mode, ahead, next_b[1])
        kind = builder.add(builder.mul(nv, i64(2)), low)
        for place, end in cases(builder, kind, range(2, 2 * MAX_VECTORS + 2)):
            vectors, is_low = divmod(place, 2)
            _emit(builder, vector, (LOW_ROWS if is_low else TILE_ROWS)[vectors - 1], vectors, end, values)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 17, like), codegen


@inlined
def sweep(
    nv, rows, n_taps, taps, k, a, a_rows, a_step, b, b_taps, b_step, c, c_rows, start, mode, ahead, ahead_step, spare,
    like,
):  # fmt: skip
    """Run tiles down `rows` rows of the tables `a_rows` and `c_rows` (addresses of int64 offsets in bytes).

    `ahead`: what will be B next, so many bytes from k to k, is fetched meanwhile, a line of it by each tile; with a
    step of 0 it may be anything that is in cache. `spare` is scratch for a last, partial tile: its missing rows read
    row 0 and store to the scratch, not to C. Layout of `spare`: two tables of int64[max tile rows], then, aligned,
    one row of MAX_VECTORS vectors.
    """
    mr = TILE_ROWS[nv - 1]
    whole = rows // mr * mr
    spare_c = spare + 8 * TILE_ROWS[0]
    lost = spare + SPARE_TABLES - c
    start_step = like.itemsize if mode & START_BY_ROW else 0
    for tile, m in enumerate(range(0, rows, mr)):
        a_tile, c_tile, low = a_rows + 8 * m, c_rows + 8 * m, 0
        if m == whole:
            left = rows - whole
            if left <= LOW_ROWS[nv - 1]:
                mr, low = LOW_ROWS[nv - 1], 1
            for i in range(mr):
                store_i64(spare + 8 * i, load_i64(a_tile + 8 * i if i < left else a_rows))
                store_i64(spare_c + 8 * i, load_i64(c_tile + 8 * i) if i < left else lost)
            a_tile, c_tile = spare, spare_c
        line, line_step = ahead + tile * ALIGNMENT, ahead_step
        if tile > nv:
            line, line_step = ahead, 0
        _tile(
            nv, low, n_taps, taps, k, a, a_tile, a_step, b, b_taps, b_step, c, c_tile, start + m * start_step, mode,
            line, line_step, like,
        )  # fmt: skip
