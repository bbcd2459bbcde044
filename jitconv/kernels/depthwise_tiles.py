"""Tiles of depthwise convolution and narrow groups, forward and backward-data: see `depthwise.py`."""

from __future__ import annotations

from numba import types
from numba.extending import intrinsic

from .simd import POINTER, REGISTERS, Vector, at, cases, emit_prefetch, i64

# Channels of a group.
WIDTHS = (1, 2, 4, 8, 16)
# Pixels of a tile: sums, a row of weights and a pixel fit in the registers.
PIXELS = (12, 6, 5, 2, 1) if REGISTERS == 32 else (8, 4, 2, 1)
# (columns of the kernel, stride) for which a tile loads each pixel once and uses it for several sums; (0, 0) takes any,
# and loads a pixel for each product.
TILES = ((0, 0), (3, 1), (3, 2), (5, 1), (5, 2))
# Weights that a tile holds in registers, of some of the group's channels under a row of taps; in so many parts at most.
HELD, MOST_PARTS = REGISTERS * 3 // 8, 2
# From this width on, the products of one pixel are a long chain: these vectors (or rows) are computed side by side.
LONG_CHAIN, SIDE_BY_SIDE = 8, 4


def whole_tiles(width: int) -> tuple[tuple[int, int], ...]:
    """Return those of TILES that exist for groups of a width."""
    return tuple(tile for tile in TILES if tile[0] * width <= MOST_PARTS * HELD)


def masked_from(width: int) -> int:
    """Return the place of the first tile for a vector of which only some lanes exist."""
    return len(whole_tiles(width)) * len(PIXELS)


def kinds(width):
    """Return every tile: (columns, stride, pixels, whether only some lanes exist), those of `whole_tiles` first."""
    whole = [(*tile, pixels, False) for tile in whole_tiles(width) for pixels in PIXELS]
    return whole + [(0, 0, pixels, True) for pixels in PIXELS]


def _emit(builder, vector, width, kind, end, args):
    """Emit one tile at the builder's position, for vector after vector, and leave for the block `end`."""
    if kind[2] == 1 and width >= LONG_CHAIN and not kind[3]:
        count, *others = args
        together = builder.and_(count, i64(-SIDE_BY_SIDE))
        alone, after = builder.append_basic_block("alone"), builder.append_basic_block("after")
        some = builder.append_basic_block("together")
        builder.cbranch(builder.icmp_signed(">", together, i64(0)), some, after)
        builder.position_at_end(some)
        _emit_side_by_side(builder, vector, width, kind, SIDE_BY_SIDE, after, [together, *others])
        builder.position_at_end(after)
        builder.cbranch(builder.icmp_signed("<", together, count), alone, end)
        builder.position_at_end(alone)
        rest = [builder.sub(count, together), *others]
        for pointer, by in ((4, 5), (9, 10), (14, 15)):
            rest[pointer] = at(builder, rest[pointer], builder.mul(together, rest[by]))
        _emit_side_by_side(builder, vector, width, kind, 1, end, rest)
    else:
        _emit_side_by_side(builder, vector, width, kind, 1, end, args)


def _emit_side_by_side(builder, vector, width, kind, side, end, args):
    """Emit one tile, for `side` vectors at a time."""
    columns, stride, pixels, masked = kind
    count, lanes, n_rows, n_cols, x0, x_step, row_step, col_step, x_pitch, w0, w_step, w_first, w_row, w_col, *rest = (
        args
    )
    y0, y_step, y_pitch, relu, far = rest
    if masked:
        mask = vector.lanes_between(i64(0), lanes)

    def phi(value, block):
        made = builder.phi(value.type)
        made.add_incoming(value, block)
        return made

    def read(pointer, channels):
        """Return, for each of these channels of a group, that channel of the pixel in all lanes of its group."""
        if width == vector.lanes:
            return [vector.broadcast(at(builder, pointer, j * vector.itemsize)) for j in channels]
        value = vector.load_masked(pointer, mask) if masked else vector.load(pointer)
        return [vector.spread(value, width, j) for j in channels]

    def weights_at(pointer, channels):
        return [vector.load(at(builder, pointer, j * vector.bytes)) for j in channels]

    def add(total, values, weights):
        for value, weight in zip(values, weights, strict=True):
            total = vector.fma(value, weight, total)
        return total

    before = builder.block
    names = ("vector", "row", "tap", "row_end", "done", "relu", "store")
    block = {name: builder.append_basic_block(f"{name}{columns}_{stride}_{pixels}_{masked}") for name in names}
    # Sums: those of the pixels of one vector, then those of the next.
    places = [(one, pixel) for one in range(side) for pixel in range(pixels)]

    def further(pointer, step, one):
        return at(builder, pointer, builder.mul(step, i64(one))) if one else pointer

    builder.branch(block["vector"])
    builder.position_at_end(block["vector"])
    entry = block["vector"]
    done, x, y, start = phi(i64(0), before), phi(x0, before), phi(y0, before), phi(w0, before)
    first = [vector.load(further(start, w_step, one)) for one in range(side)]
    w = at(builder, start, w_first)
    if columns:
        ahead, entry = builder.append_basic_block("ahead"), builder.append_basic_block("here")
        builder.cbranch(builder.icmp_signed("!=", far, i64(0)), ahead, entry)
        builder.position_at_end(ahead)
        next_row = at(builder, x, builder.mul(n_rows, row_step))
        for line in range(stride):
            below = at(builder, next_row, builder.mul(row_step, i64(line)))
            for pixel in range(pixels * stride):
                emit_prefetch(builder, at(builder, below, builder.mul(col_step, i64(pixel))), 3)
        builder.branch(entry)
        builder.position_at_end(entry)
    nothing = builder.or_(builder.icmp_signed("<=", n_rows, i64(0)), builder.icmp_signed("<=", n_cols, i64(0)))
    builder.cbranch(nothing, block["done"], block["row"])

    builder.position_at_end(block["row"])
    i, x_row, w_at = phi(i64(0), entry), phi(x, entry), phi(w, entry)
    at_row = [phi(first[one], entry) for one, _ in places]
    if columns:
        new = list(at_row)
        part = max(1, min(width, HELD // columns))
        for channel in range(0, width, part):
            channels = range(channel, min(width, channel + part))
            for one in range(side):
                w_one, x_one = further(w_at, w_step, one), further(x_row, x_step, one)
                weights = [weights_at(at(builder, w_one, builder.mul(w_col, i64(j))), channels) for j in range(columns)]
                for q in range((pixels - 1) * stride + columns):
                    values = read(at(builder, x_one, builder.mul(col_step, i64(q))), channels)
                    for j in range(columns):
                        pixel, rest = divmod(q - j, stride)
                        if rest == 0 and 0 <= pixel < pixels:
                            place = one * pixels + pixel
                            new[place] = add(new[place], values, weights[j])
        builder.branch(block["row_end"])
        builder.position_at_end(block["tap"])
        builder.unreachable()
    else:
        builder.branch(block["tap"])
        builder.position_at_end(block["tap"])
        j, x_tap, w_tap = (phi(value, block["row"]) for value in (i64(0), x_row, w_at))
        sums = [phi(value, block["row"]) for value in at_row]
        new = []
        for (one, pixel), total in zip(places, sums, strict=True):
            if pixel == 0:
                weights = weights_at(further(w_tap, w_step, one), range(width))
            values = read(at(builder, further(x_tap, x_step, one), builder.mul(x_pitch, i64(pixel))), range(width))
            new.append(add(total, values, weights))
        j_next = builder.add(j, i64(1))
        pairs = [(j, j_next), (x_tap, at(builder, x_tap, col_step)), (w_tap, at(builder, w_tap, w_col))]
        for name, value in (*pairs, *zip(sums, new, strict=True)):
            name.add_incoming(value, block["tap"])
        builder.cbranch(builder.icmp_signed("<", j_next, n_cols), block["tap"], block["row_end"])

    builder.position_at_end(block["row_end"])
    i_next = builder.add(i, i64(1))
    pairs = [(i, i_next), (x_row, at(builder, x_row, row_step)), (w_at, at(builder, w_at, w_row))]
    for name, value in (*pairs, *zip(at_row, new, strict=True)):
        name.add_incoming(value, block["row_end"])
    builder.cbranch(builder.icmp_signed("<", i_next, n_rows), block["row"], block["done"])

    builder.position_at_end(block["done"])
    total = [phi(first[one], entry) for one, _ in places]
    for name, value in zip(total, new, strict=True):
        name.add_incoming(value, block["row_end"])
    builder.cbranch(builder.icmp_signed("!=", relu, i64(0)), block["relu"], block["store"])
    builder.position_at_end(block["relu"])
    rectified = [vector.relu(value) for value in total]
    builder.branch(block["store"])
    builder.position_at_end(block["store"])
    final = [phi(value, block["done"]) for value in total]
    for value, other in zip(final, rectified, strict=True):
        value.add_incoming(other, block["relu"])
    for (one, pixel), value in zip(places, final, strict=True):
        to = at(builder, further(y, y_step, one), builder.mul(y_pitch, i64(pixel)))
        if masked:
            vector.store_masked(value, to, mask)
        else:
            vector.store(value, to)
    following = builder.add(done, i64(side))
    steps = [(x, x_step), (y, y_step), (start, w_step)]
    for name, value in ((done, following), *((name, further(name, by, side)) for name, by in steps)):
        name.add_incoming(value, block["store"])
    builder.cbranch(builder.icmp_signed("<", following, count), block["vector"], end)


@intrinsic(prefer_literal=True)
def add_taps(
    typingctx, width, kind, count, lanes, rows, cols, x, x_step, row_step, col_step, x_pitch, w, w_step, w_first,
    w_row, w_col, y, y_step, y_pitch, relu, far, like,
):  # fmt: skip
    """Overwrite the pixels of `count` tiles, the first at y: bias and rows x cols taps.

    The next tile lies at x_step, y_step, w_step: the next vector of channels, or the next row. `w`: the bias, with the
    first tap at `w_first`. `lanes`: how many of a masked vector exist. Every argument but `like` is an int64; steps are
    in bytes. `width`: channels of a group, a literal.
    """

    def codegen(context, builder, signature, args):
        vector = Vector(builder, signature.args[-1])
        kind, *values = args[1:-1]
        for pointer in (4, 9, 14):
            values[pointer] = builder.inttoptr(values[pointer], POINTER)
        tiles = kinds(width.literal_value) if width.literal_value <= vector.lanes else ()
        for place, end in cases(builder, kind, range(len(tiles))):
            _emit(builder, vector, width.literal_value, tiles[place], end, values)
        return context.get_dummy_value()

    return types.void(width, *[types.intp] * 20, like), codegen
