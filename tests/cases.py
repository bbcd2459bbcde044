"""The one table of convolutions that the tests go through, and hypothesis strategies that draw more."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import hypothesis
import numpy as np
from hypothesis import strategies as st
from references import conv as reference

LANES = (1, 3, 15, 16, 17, 30, 31, 33, 48, 64, 65, 80)  # channel counts at, around and between lane multiples


@dataclass(frozen=True)
class ConvCase:
    """Sizes and options of one convolution.  `n` is None for one image without a batch axis."""

    name: str
    n: int | None
    c: int
    h: int
    w: int
    f: int
    kernel: tuple[int, int] = (3, 3)
    stride: Any = 1
    padding: Any = 0
    dilation: Any = 1
    groups: int = 1
    bias: bool = True

    def __str__(self) -> str:
        return self.name

    @property
    def options(self) -> dict[str, Any]:
        """Return the keyword arguments that a case fixes; layout and algorithm are the test's choice."""
        return {name: getattr(self, name) for name in ("stride", "padding", "dilation", "groups")}

    @property
    def x_shape(self) -> tuple[int, ...]:
        """Return the shape of x in NCHW."""
        return (self.c, self.h, self.w) if self.n is None else (self.n, self.c, self.h, self.w)

    @property
    def w_shape(self) -> tuple[int, ...]:
        """Return the shape of the weights."""
        return (self.f, self.c // self.groups, *self.kernel)

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Return the shape of y in NCHW; sizes below 1 mean that the kernel does not fit."""
        stride, dilation = reference.pair(self.stride), reference.pair(self.dilation)
        sides = reference.sides_of(self.padding, self.kernel, dilation)
        axes = zip((self.h, self.w), self.kernel, stride, sides, dilation, strict=True)
        size = [(length + sum(side) - (k - 1) * d - 1) // s + 1 for length, k, s, side, d in axes]
        return (*self.x_shape[:-3], self.f, *size)

    @property
    def terms(self) -> dict[str, int]:
        """Return how many products each element of a result adds up, at most."""
        pixels = (1 if self.n is None else self.n) * self.output_shape[-2] * self.output_shape[-1]
        taps = self.kernel[0] * self.kernel[1]
        return {
            "y": self.c // self.groups * taps + 1,
            "dx": self.f // self.groups * taps,
            "dw": max(pixels, 1),
            "db": max(pixels, 1),
        }

    @property
    def b_shape(self) -> tuple[int, ...]:
        """Return the shape of the bias."""
        return (self.f,)

    def arrays(self, rng: np.random.Generator, dtype: Any, layout: str = "NCHW") -> tuple[Any, Any, Any]:
        """Return normally distributed x (in `layout`), w and b (or None)."""
        shapes = self.x_shape, self.w_shape, self.b_shape
        x, w, b = (rng.standard_normal(shape).astype(dtype) for shape in shapes)
        return in_layout(x, layout), w, b if self.bias else None

    def gradient(self, rng: np.random.Generator, dtype: Any, layout: str = "NCHW") -> Any:
        """Return a normally distributed dy in `layout`."""
        return in_layout(rng.standard_normal(self.output_shape).astype(dtype), layout)

    def integers(self, rng: np.random.Generator, dtype: Any, layout: str = "NCHW") -> tuple[Any, ...]:
        """Return x, w, b and dy of small whole numbers, whose sums of products are exact in any dtype."""
        shapes = self.x_shape, self.w_shape, self.b_shape, self.output_shape
        x, w, b, dy = (rng.integers(-3, 4, shape).astype(dtype) for shape in shapes)
        return in_layout(x, layout), w, b if self.bias else None, in_layout(dy, layout)


@dataclass(frozen=True)
class TransposedCase(ConvCase):
    """Sizes and options of one transposed convolution, from `c` channels to `f`."""

    output_padding: Any = 0

    @property
    def options(self) -> dict[str, Any]:
        return {**super().options, "output_padding": self.output_padding}

    @property
    def w_shape(self) -> tuple[int, ...]:
        return (self.c, self.f // self.groups, *self.kernel)

    @property
    def output_shape(self) -> tuple[int, ...]:
        stride, dilation = reference.pair(self.stride), reference.pair(self.dilation)
        sides = reference.sides_of(self.padding, self.kernel, dilation)
        extra = reference.pair(self.output_padding)
        axes = zip((self.h, self.w), self.kernel, stride, sides, dilation, extra, strict=True)
        size = [(length - 1) * s - sum(side) + (k - 1) * d + 1 + e for length, k, s, side, d, e in axes]
        return (*self.x_shape[:-3], self.f, *size)

    @property
    def terms(self) -> dict[str, int]:
        images, taps = 1 if self.n is None else self.n, self.kernel[0] * self.kernel[1]
        return {
            "y": self.c // self.groups * taps + 1,
            "dx": self.f // self.groups * taps,
            "dw": max(images * self.h * self.w, 1),
            "db": max(images * self.output_shape[-2] * self.output_shape[-1], 1),
        }


def in_layout(a: Any, layout: str) -> Any:
    """Return a channels-first array as a C-contiguous one in `layout`."""
    return np.ascontiguousarray(np.moveaxis(a, -3, -1)) if layout == "NHWC" else a


GEOMETRY = [
    ConvCase("3x3", 2, 4, 8, 8, 5),
    ConvCase("odd sizes", 3, 5, 9, 7, 7, padding=1),
    ConvCase("1x1 kernel", 2, 6, 5, 7, 9, (1, 1)),
    ConvCase("1x1 kernel stride 2", 2, 6, 7, 8, 9, (1, 1), stride=2),
    ConvCase("1x1 kernel with padding", 1, 3, 4, 4, 5, (1, 1), padding=2),
    ConvCase("1x1 image", 3, 17, 1, 1, 18, (1, 1)),
    ConvCase("1x1 image under 3x3", 5, 4, 1, 1, 16, padding=1),
    ConvCase("kernel larger than the image", 2, 3, 3, 2, 4, (5, 7), padding=(2, 4)),
    ConvCase("kernel as large as the image", 4, 3, 6, 5, 10, (6, 5)),
    ConvCase("stride larger than the kernel", 2, 3, 11, 13, 6, (2, 2), stride=4),
    ConvCase("stride larger than the kernel, padded", 2, 3, 10, 10, 6, (1, 2), stride=(3, 5), padding=1),
    ConvCase("stride leaves pixels at the end", 2, 3, 10, 11, 6, stride=4),
    ConvCase("stride 2", 2, 8, 15, 14, 16, stride=2, padding=1),
    ConvCase("unequal strides", 2, 4, 12, 13, 5, stride=(1, 3), padding=1),
    ConvCase("7x7 stride 2", 1, 3, 21, 23, 17, (7, 7), stride=2, padding=3),
    ConvCase("asymmetric padding", 2, 3, 7, 6, 4, padding=((0, 2), (1, 0))),
    ConvCase("asymmetric padding, stride 2", 2, 3, 8, 9, 4, stride=2, padding=((2, 1), (0, 3))),
    ConvCase("padding pair", 2, 3, 7, 6, 4, (3, 5), padding=(1, 2)),
    ConvCase("same", 2, 3, 7, 6, 4, padding="same"),
    ConvCase("same, even kernel", 2, 3, 7, 6, 4, (4, 2), padding="same", dilation=(1, 3)),
    ConvCase("valid", 2, 3, 7, 6, 4, padding="valid"),
    ConvCase("padding beyond the kernel", 2, 3, 4, 5, 6, padding=((4, 3), (5, 4))),
    ConvCase("padding beyond the kernel, stride 2", 1, 3, 4, 5, 6, (2, 2), stride=2, padding=3),
    ConvCase("windows wholly in the padding", 1, 2, 2, 2, 3, (1, 1), stride=3, padding=4),
    ConvCase("image smaller than the stride", 2, 3, 1, 2, 18, (2, 3), stride=(2, 3), padding=1),
    ConvCase("dilation", 2, 4, 9, 10, 5, padding=2, dilation=2),
    ConvCase("unequal dilation and stride", 2, 4, 13, 12, 5, stride=(2, 1), padding=1, dilation=(1, 3)),
    ConvCase("stride and dilation even", 2, 3, 14, 15, 4, stride=(4, 6), padding=3, dilation=(2, 3)),
    ConvCase("row kernel", 2, 4, 6, 20, 5, (1, 7), padding=(0, 3)),
    ConvCase("column kernel", 2, 4, 20, 6, 5, (7, 1)),
    ConvCase("one row", 2, 4, 1, 33, 5, (1, 3)),
    ConvCase("one column", 2, 4, 33, 1, 5, (3, 1)),
    ConvCase("one channel each", 1, 1, 5, 5, 1),
    ConvCase("no bias", 2, 4, 6, 6, 5, bias=False),
    ConvCase("without a batch", None, 4, 6, 7, 5, padding=1),
    ConvCase("without a batch, stride 2", None, 3, 9, 9, 17, stride=2, bias=False),
    ConvCase("empty batch", 0, 4, 6, 7, 5, padding=1),
    ConvCase("groups 2", 2, 6, 7, 7, 8, padding=1, groups=2),
    ConvCase("groups 3, stride 2", 2, 51, 6, 7, 99, stride=2, groups=3),
    ConvCase("depthwise", 2, 20, 7, 8, 20, padding=1, groups=20),
    ConvCase("depthwise, strided, dilated", 2, 33, 12, 11, 33, stride=2, padding=2, dilation=2, groups=33),
    ConvCase("depthwise, stride 2", 3, 19, 15, 17, 19, stride=2, padding=1, groups=19),
    ConvCase("depthwise, no padding", 2, 19, 8, 17, 19, stride=2, groups=19),
    ConvCase("depthwise 5x5", 2, 16, 13, 30, 16, (5, 5), padding=2, groups=16),
    ConvCase("depthwise 5x5, stride 2", 1, 35, 12, 31, 35, (5, 5), stride=2, padding=2, groups=35),
    ConvCase("depthwise, uneven", 2, 18, 9, 8, 18, (4, 2), (3, 1), ((2, 0), (1, 3)), (1, 2), groups=18),
    ConvCase("depthwise, padding beyond the kernel", 2, 17, 4, 5, 17, stride=2, padding=5, groups=17),
    ConvCase("depthwise, empty batch", 0, 5, 6, 7, 5, padding=1, groups=5),
    ConvCase("depthwise, few channels", 4, 3, 11, 10, 3, padding=1, groups=3),
    ConvCase("depthwise, many channels", 1, 150, 4, 6, 150, padding=1, groups=150),
    ConvCase("depthwise, wide", 1, 5, 4, 75, 5, padding=1, groups=5),
    ConvCase("depthwise, full rows", 3, 18, 9, 31, 18, padding=((2, 0), (1, 1)), groups=18),
    ConvCase("depthwise, full rows, no padding", 2, 7, 6, 32, 7, groups=7, bias=False),
    ConvCase("depthwise, rows of 14", 5, 20, 14, 14, 20, padding=1, groups=20),
    ConvCase("depthwise, batch 5 of 7x7", 5, 40, 7, 7, 40, padding=1, groups=40),
    ConvCase("depthwise 7x7, no bias", 1, 20, 9, 12, 20, (7, 7), padding=3, groups=20, bias=False),
    ConvCase("depthwise with multiplier", 2, 5, 7, 8, 15, padding=1, groups=5),
    ConvCase("depthwise 5x5, one channel", 1, 1, 9, 9, 1, (5, 5), groups=1),
    ConvCase("groups of 2 channels", 2, 38, 9, 17, 38, padding=1, groups=19),
    ConvCase("groups of 2 channels, 5x5", 2, 12, 9, 19, 12, (5, 5), padding=2, groups=6, bias=False),
    ConvCase("groups of 4 channels", 2, 36, 8, 20, 36, padding=1, groups=9),
    ConvCase("groups of 4 channels, stride 2", 3, 20, 15, 17, 20, stride=2, padding=1, groups=5),
    ConvCase("groups of 4 channels, uneven", 2, 24, 9, 8, 24, (4, 2), (3, 1), ((2, 0), (1, 3)), (1, 2), groups=6),
    ConvCase("groups of 4 channels, 5x5", 1, 12, 9, 30, 12, (5, 5), padding=2, groups=3),
    ConvCase("groups of 8 channels", 2, 24, 6, 19, 24, padding=1, groups=3),
    ConvCase("groups of 8 channels, a pixel over", 2, 64, 12, 9, 64, groups=8),
    ConvCase("groups of 8 channels, a pixel over, few", 3, 16, 12, 15, 16, padding=1, groups=2),
    ConvCase("groups of 8 channels, stride 2", 2, 104, 9, 15, 104, stride=2, padding=1, groups=13),
    ConvCase("groups of 16 channels", 2, 48, 7, 14, 48, padding=1, groups=3),
    ConvCase("groups of 16 channels, many", 1, 96, 5, 6, 96, padding=2, dilation=2, groups=6),
    ConvCase("groups of 1x1", 3, 32, 4, 4, 48, (1, 1), groups=4),
    ConvCase("batch 4 of 4x4", 4, 40, 4, 4, 34, padding=1),
    ConvCase("batch 5 of 7x7", 5, 24, 7, 7, 40, padding=1),
    ConvCase("batch 3 of 14x14", 3, 12, 14, 14, 20, padding=1),
    ConvCase("28x28", 2, 1, 28, 28, 30, (5, 5)),
    ConvCase("28x28, same", 1, 16, 28, 28, 16, padding="same"),
    ConvCase("wide", 1, 3, 5, 131, 6, padding=1),
    ConvCase("tall", 1, 3, 131, 5, 6, padding=1),
    ConvCase("many channels", 1, 300, 4, 3, 130, padding=1),
    ConvCase("many channels 1x1", 2, 520, 3, 3, 70, (1, 1)),
    ConvCase("many pixels", 2, 9, 47, 41, 10, padding=1),
    ConvCase("few channels, dilated", 3, 2, 23, 39, 7, (3, 5), padding=((2, 0), (3, 1)), dilation=(2, 1)),
]

CHANNELS = [
    ConvCase(f"{c} to {f} channels{', 1x1' if kernel == (1, 1) else ''}", n, c, 5, 6, f, kernel)
    for kernel, turn, n in (((3, 3), 6, 1), ((3, 3), 2, 2), ((1, 1), 7, 3))
    for c, f in zip(LANES, LANES[turn:] + LANES[:turn], strict=True)
]

CONV_CASES = GEOMETRY + CHANNELS


TRANSPOSED_CASES = [
    TransposedCase("3x3", 2, 4, 5, 6, 5),
    TransposedCase("padding", 2, 5, 6, 7, 7, padding=1),
    TransposedCase("1x1 kernel", 2, 6, 5, 7, 9, (1, 1)),
    TransposedCase("1x1 image", 3, 17, 1, 1, 18),
    TransposedCase("doubling", 2, 16, 7, 7, 8, (2, 2), stride=2),
    TransposedCase("doubling 4x4", 2, 8, 5, 6, 17, (4, 4), stride=2, padding=1),
    TransposedCase("stride larger than the kernel", 2, 3, 4, 5, 6, (2, 2), stride=4),
    TransposedCase("stride beyond, extra", 2, 3, 4, 5, 6, (1, 2), stride=(3, 5), output_padding=(2, 4)),
    TransposedCase("output padding", 2, 8, 5, 4, 6, stride=2, padding=1, output_padding=1),
    TransposedCase("output padding, dilation", 1, 3, 5, 4, 6, padding=1, dilation=3, output_padding=2),
    TransposedCase("unequal strides", 2, 4, 5, 6, 5, stride=(1, 3), padding=(1, 0), output_padding=(0, 2)),
    TransposedCase("asymmetric padding", 2, 3, 7, 6, 4, padding=((0, 2), (1, 0))),
    TransposedCase("asymmetric, strided", 2, 3, 5, 6, 4, stride=2, padding=((2, 1), (0, 3)), output_padding=1),
    TransposedCase("padding beyond the kernel", 2, 3, 12, 13, 4, padding=((4, 3), (5, 4))),
    TransposedCase("padding beyond, stride 2", 2, 3, 8, 9, 4, (2, 2), stride=2, padding=3, output_padding=1),
    TransposedCase("padding leaves one pixel", 1, 3, 5, 5, 4, padding=3),
    TransposedCase("output smaller than the stride", 2, 18, 1, 1, 3, stride=(4, 5), padding=1),
    TransposedCase("output pixels without a tap", 1, 3, 2, 2, 3, (1, 1), stride=3, padding=1),
    TransposedCase("dilation", 2, 4, 6, 7, 5, padding=2, dilation=2),
    TransposedCase("stride and dilation even", 2, 3, 4, 5, 4, stride=(4, 6), padding=3, dilation=(2, 3)),
    TransposedCase("row kernel", 2, 4, 3, 9, 5, (1, 7), stride=(1, 2), padding=(0, 3)),
    TransposedCase("one channel each", 1, 1, 5, 5, 1),
    TransposedCase("no bias", 2, 4, 6, 6, 5, bias=False),
    TransposedCase("without a batch", None, 4, 6, 7, 5, stride=2, padding=1),
    TransposedCase("empty batch", 0, 4, 6, 7, 5, padding=1),
    TransposedCase("groups 2", 2, 6, 7, 7, 8, padding=1, groups=2),
    TransposedCase("groups 3, stride 2", 2, 51, 4, 5, 99, stride=2, groups=3),
    TransposedCase("depthwise", 2, 20, 5, 6, 20, (4, 4), stride=2, padding=1, groups=20),
    TransposedCase("depthwise, stride 3", 2, 17, 4, 5, 17, stride=(3, 2), padding=1, output_padding=1, groups=17),
    TransposedCase("depthwise, stride beyond the kernel", 1, 18, 3, 4, 18, (2, 1), stride=3, groups=18),
    TransposedCase("depthwise, padding", 2, 33, 6, 17, 33, padding=1, groups=33),
    TransposedCase("groups of 4 channels", 2, 20, 5, 6, 20, (4, 4), stride=2, padding=1, groups=5),
    TransposedCase("groups of 8 channels", 2, 24, 7, 13, 24, padding=1, groups=3),
    TransposedCase("depthwise with multiplier", 2, 5, 7, 8, 15, padding=1, groups=5),
    TransposedCase("17 to 65 channels", 2, 17, 5, 6, 65),
    TransposedCase("64 to 33 channels", 1, 64, 5, 6, 33, stride=2),
    TransposedCase("80 to 31 channels", 1, 80, 3, 4, 31, (2, 2), stride=2),
    TransposedCase("many channels", 1, 300, 4, 3, 130, padding=1),
]


def named(*names: str) -> list[ConvCase]:
    """Return the cases of the table with these names."""
    found = {case.name: case for case in CONV_CASES}
    return [found[name] for name in names]


# Between them they have every kind of tail, phase and border: for tests too dear for the whole table.
SAMPLE = named(
    "odd sizes",
    "1x1 kernel stride 2",
    "stride larger than the kernel",
    "asymmetric padding, stride 2",
    "padding beyond the kernel",
    "unequal dilation and stride",
    "without a batch",
    "groups 3, stride 2",
    "depthwise, strided, dilated",
    "depthwise, stride 2",
    "depthwise, batch 5 of 7x7",
    "depthwise with multiplier",
    "batch 5 of 7x7",
    "28x28",
    "many channels",
    "17 to 65 channels",
    "65 to 30 channels, 1x1",
)


# More pixels than one strip or one chunk of sums: where the work of two threads differs from that of one.
DIVIDED = [
    *SAMPLE,
    *named(
        "many pixels",
        "few channels, dilated",
        "depthwise, full rows",
        "wide",
        "tall",
        "many channels 1x1",
        "batch 3 of 14x14",
    ),
    ConvCase("several strips", 3, 48, 37, 41, 33, padding=1),
    ConvCase("several strips, stride 2", 2, 65, 41, 37, 16, stride=2, padding=1),
    ConvCase("depthwise, several strips", 3, 40, 57, 61, 40, padding=1, groups=40),
    ConvCase("blocks of weights", 8, 21, 6, 6, 223, (5, 2), padding=((1, 1), (0, 4))),
    ConvCase("blocks of weights in float64", 8, 16, 12, 7, 112, (5, 4), padding=((1, 2), (3, 0))),
]


def _one_or_two(values: st.SearchStrategy[int]) -> st.SearchStrategy[Any]:
    return values | st.tuples(values, values)


def _drawn_groups_and_channels(draw: st.DrawFn) -> tuple[int, int, int]:
    groups = draw(st.sampled_from((1, 1, 1, 2, 3, 8, 0)))
    if groups == 0:  # depthwise, and narrow groups
        width = draw(st.sampled_from((1, 2, 4, 8, 16)))
        groups = draw(st.integers(1, 70 // width))
        return groups, groups * width, groups * width
    return groups, groups * draw(st.integers(1, 36 // groups)), groups * draw(st.integers(1, 70 // groups))


@st.composite
def conv_cases(draw: st.DrawFn) -> ConvCase:
    """Draw a convolution whose kernel fits its padded image."""
    size = st.integers(1, 12)
    small = st.integers(0, 3)
    kernel = draw(st.tuples(st.integers(1, 5), st.integers(1, 5)))
    groups, c, f = _drawn_groups_and_channels(draw)
    dilation = draw(_one_or_two(st.integers(1, 3)))
    padding = draw(_one_or_two(small) | st.tuples(st.tuples(small, small), st.tuples(small, small)))
    spans = [(k - 1) * d + 1 for k, d in zip(kernel, reference.pair(dilation), strict=True)]
    sides = reference.sides_of(padding, kernel, dilation)
    least = [max(1, span - sum(side)) for span, side in zip(spans, sides, strict=True)]
    return ConvCase(
        name="drawn",
        n=draw(st.none() | st.integers(0, 4)),
        c=c,
        h=least[0] - 1 + draw(size),
        w=least[1] - 1 + draw(size),
        f=f,
        kernel=kernel,
        stride=draw(_one_or_two(st.integers(1, 4))),
        padding=padding,
        dilation=dilation,
        groups=groups,
        bias=draw(st.booleans()),
    )


@st.composite
def transposed_cases(draw: st.DrawFn) -> TransposedCase:
    """Draw a transposed convolution that leaves at least one pixel."""
    groups, c, f = _drawn_groups_and_channels(draw)
    small = st.integers(0, 3)
    case = TransposedCase(
        name="drawn",
        n=draw(st.none() | st.integers(0, 4)),
        c=c,
        h=draw(st.integers(1, 8)),
        w=draw(st.integers(1, 8)),
        f=f,
        kernel=draw(st.tuples(st.integers(1, 5), st.integers(1, 5))),
        stride=draw(_one_or_two(st.integers(1, 4))),
        padding=draw(_one_or_two(small) | st.tuples(st.tuples(small, small), st.tuples(small, small))),
        dilation=draw(_one_or_two(st.integers(1, 3))),
        groups=groups,
        bias=draw(st.booleans()),
    )
    axes = zip(reference.pair(case.stride), reference.pair(case.dilation), strict=True)
    case = replace(case, output_padding=tuple(draw(st.integers(0, max(axis) - 1)) for axis in axes))
    hypothesis.assume(min(case.output_shape[-2:]) >= 1)
    return case
