"""What runs with bounds checks: every kernel, over drawn shapes. test_bounds.py starts this, once for each family.

    python bounded_operations.py FAMILY DTYPES EXAMPLES

prints as JSON which kernels were launched how often, and how many accesses were checked. The first launch that touches
what it must not ends it with an OutOfBoundsError, after hypothesis has found the smallest call that does.
"""

from __future__ import annotations

import json
import sys

import launches
import numpy as np
from cases import CONV_CASES, DIVIDED, TRANSPOSED_CASES, ConvCase, conv_cases, transposed_cases
from forms import FULL
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import jitconv
from jitconv import dense, fused, pointwise
from jitconv.compat import ties
from jitconv.kept import fingerprint
from jitconv.relayout import relayout
from jitconv.training import losses, optimizers

THREADS = st.sampled_from((1, 2, 3, 5))
LAYOUTS = st.sampled_from(("NCHW", "NHWC"))
EACH_LAYOUT = ("NCHW", "NHWC")
SMALL = st.integers(0, 3)
SIDES = st.tuples(st.tuples(SMALL, SMALL), st.tuples(SMALL, SMALL))
BOTH = st.booleans()


def numbers(dtype, *shape):
    """Return normally distributed numbers."""
    return np.random.default_rng(1).standard_normal(shape).astype(dtype)


def assert_finite(*arrays):
    """Nothing of what was in scratch before is in a result: it was NaN."""
    for a in arrays:
        assert a is None or np.isfinite(a).all(), "a result depends on what was in scratch before"


# Convolution


def convolve(case, dtype, layout, threads, algorithm="auto", activation=None, kept=None):
    """Run all passes of a case; with `kept` the forward pass twice."""
    x, w, b = case.arrays(np.random.default_rng(1), dtype, layout)
    dy = case.gradient(np.random.default_rng(2), dtype, layout)
    options = {"layout": layout, **case.options}
    with launches.cut(threads):
        if hasattr(case, "output_padding"):
            y = jitconv.conv_transpose2d(x, w, b, **options)
            gradients = jitconv.conv_transpose2d_backward(dy, x, w, **options)
        else:
            options["algorithm"] = algorithm
            for _ in range(1 if kept is None else 2):
                y = jitconv.conv2d(x, w, b, activation=activation, kept=kept, **options)
            gradients = jitconv.conv2d_backward(dy, x, w, **options)
    assert_finite(y, *gradients)


def drawn_convolution(draw, dtypes):
    case, algorithm = draw(conv_cases()), draw(st.sampled_from(("direct", "im2col")))
    activation = draw(st.sampled_from((None, "relu")))
    convolve(case, draw(dtypes), draw(LAYOUTS), draw(THREADS), algorithm, activation)


def drawn_transposed_convolution(draw, dtypes):
    convolve(draw(transposed_cases()), draw(dtypes), draw(LAYOUTS), draw(THREADS))


def planes(draw, dtypes):
    """Few channels and long rows, where the lanes are pixels."""
    c, f, n = draw(st.integers(1, 6)), draw(st.integers(1, 40)), draw(st.integers(1, 5))
    kernel = draw(st.sampled_from(((3, 3), (5, 5), (1, 1), (2, 4), (3, 1))))
    dilation, stride = draw(st.sampled_from((1, 1, 2))), draw(st.sampled_from((1, 1, 2)))
    h, w, padding = draw(st.integers(9, 24)), draw(st.integers(17, 70)), draw(SIDES | st.just(0))
    case = ConvCase("drawn", n, c, h, w, f, kernel, stride, padding, dilation, bias=draw(BOTH))
    convolve(case, draw(dtypes), "NCHW", draw(THREADS), "direct", draw(st.sampled_from((None, "relu"))))


def table_of_convolutions(draw, dtypes):
    """The corner cases that the other tests have."""
    case = draw(st.sampled_from(CONV_CASES + DIVIDED))
    convolve(case, draw(dtypes), draw(LAYOUTS), draw(THREADS), draw(st.sampled_from(("direct", "im2col"))))


def table_of_transposed_convolutions(draw, dtypes):
    convolve(draw(st.sampled_from(TRANSPOSED_CASES)), draw(dtypes), draw(LAYOUTS), draw(THREADS))


def kept_weights(draw, dtypes):
    """Packed weights that are kept, and the checksum that tells whether they are still good."""
    c, f, side = draw(st.integers(1, 33)), draw(st.integers(1, 40)), draw(st.sampled_from((1, 3)))
    case = ConvCase("drawn", 2, c, 9, 19, f, (side, side), padding=side // 2, bias=draw(BOTH))
    algorithm = draw(st.sampled_from(("direct", "im2col")))
    convolve(case, draw(dtypes), draw(LAYOUTS), draw(THREADS), algorithm, kept=jitconv.KeptWeights())


def checksums(draw, dtypes):
    with launches.cut(draw(THREADS)):
        fingerprint(numbers(draw(dtypes), draw(st.integers(1, 1000))), jitconv.get_num_threads())


def bias_gradient(draw, dtypes):
    layout, dtype, n, c = draw(LAYOUTS), draw(dtypes), draw(st.integers(1, 3)), draw(st.integers(1, 40))
    shape = (n, c, 5, draw(st.integers(1, 250)))
    dy = numbers(dtype, *(shape if layout == "NCHW" else (n, *shape[2:], c)))
    with launches.cut(draw(THREADS)):
        weights = np.ones((c, 1, 1, 1), dtype)
        assert_finite(
            jitconv.conv2d_backward(dy, dy, weights, groups=c, layout=layout, needs=(False, False, True)).db,
        )


def narrow_groups(draw, dtypes):
    """Depthwise convolution and narrow groups, where the lanes are channels."""
    stride, kernel = draw(st.sampled_from((1, 1, 2, (2, 3)))), draw(st.sampled_from(((3, 3), (5, 5), (1, 2), (4, 3))))
    n, bias, dtype, activation = (
        draw(st.integers(1, 3)),
        draw(BOTH),
        draw(dtypes),
        draw(st.sampled_from((None, "relu"))),
    )
    h, w, padding, dilation = draw(st.integers(9, 16)), draw(st.integers(9, 20)), draw(SMALL), draw(st.integers(1, 2))
    threads = draw(THREADS)
    for width in (1, 2, 4, 8, 16):
        groups = draw(st.integers(2, max(2, 50 // width)))
        c = width * groups
        for layout in EACH_LAYOUT:
            case = ConvCase("drawn", n, c, h, w, c, kernel, stride, padding, dilation, groups, bias)
            convolve(case, dtype, layout, threads, activation=activation)


def depthwise_planes(draw, dtypes):
    """Depthwise convolution over rows that fill vectors, where the lanes are pixels."""
    c, width = draw(st.integers(1, 9)), draw(st.sampled_from((14, 15, 16, 28, 29, 31, 32, 48)))
    column = st.integers(0, 2)
    padding = draw(st.tuples(st.tuples(SMALL, SMALL), st.tuples(column, column)))
    n, h, bias = draw(st.integers(1, 3)), draw(st.integers(3, 20)), draw(BOTH)
    case = ConvCase("drawn", n, c, h, width, c, padding=padding, groups=c, bias=bias)
    convolve(case, draw(dtypes), "NCHW", draw(THREADS), activation=draw(st.sampled_from((None, "relu"))))


def winograd(draw, dtypes):
    kernel, stride = draw(st.sampled_from(((3, 1), (3, 1), (3, 2), (5, 1))))
    names = ("winograd", "winograd_2x2") if (kernel, stride) == (3, 1) else ("winograd",)
    groups = draw(st.sampled_from((1, 1, 1, 2)))
    c, f = (groups * draw(st.integers(8 if groups > 1 else 1, 70 // groups)) for _ in range(2))
    n, h, w = draw(st.integers(1, 4)), draw(st.integers(kernel, 19)), draw(st.integers(kernel, 19))
    padding = draw(st.sampled_from((0, 1, 2, ((1, 0), (0, 1)))))
    case = ConvCase("drawn", n, c, h, w, f, (kernel, kernel), stride, padding, groups=groups, bias=draw(BOTH))
    activation, kept = draw(st.sampled_from((None, "relu"))), jitconv.KeptWeights() if draw(BOTH) else None
    convolve(case, draw(dtypes), draw(LAYOUTS), draw(THREADS), draw(st.sampled_from(names)), activation, kept)


def winograd_in_rounds(draw, dtypes):
    """So many channels that the sums of the gradient of the weights do not fit in a cache."""
    c, f = draw(st.integers(150, 300)), draw(st.integers(150, 300))
    case = ConvCase("drawn", draw(st.integers(1, 2)), c, 7, draw(st.integers(5, 9)), f, padding=1)
    convolve(case, draw(dtypes), draw(LAYOUTS), draw(THREADS), "winograd")


def _fuse(draw, dtypes, algorithms):
    """A convolution with ReLU and perhaps 2x2 pooling in the same pass, both ways."""
    side, stride = draw(st.sampled_from(((3, 1), (3, 2), (5, 1))))
    c, f, n = draw(st.integers(1, 40)), draw(st.integers(1, 70)), draw(st.integers(1, 4))
    h, w = draw(st.integers(2 * stride + side, 17)), draw(st.integers(2 * stride + side, 17))
    case, pooled, dtype = ConvCase("drawn", n, c, h, w, f, (side, side), stride, 1), draw(BOTH), draw(dtypes)
    algorithm = draw(st.sampled_from(algorithms))
    x, w, b = case.arrays(np.random.default_rng(1), dtype, "NHWC")
    options = fused.Options((stride, stride), ((1, 1), (1, 1)), (1, 1), 1, algorithm)
    with launches.cut(draw(THREADS)):
        if pooled:
            y, argmax = fused.conv2d_pooled(x, w, b, options)
        else:
            arguments = {"layout": "NHWC", "algorithm": algorithm, **case.options}
            y, argmax = jitconv.conv2d(x, w, b, activation="relu", **arguments), None
        dw, db = np.full_like(w, np.nan), np.full_like(b, np.nan)
        dx = fused.conv2d_backward(np.cos(y), x, w, dw, db, options, "NHWC", saved=(y, argmax))
    assert_finite(y, dx, dw, db)


def fused_convolution(draw, dtypes):
    _fuse(draw, dtypes, ("direct", "im2col"))


def fused_winograd(draw, dtypes):
    _fuse(draw, dtypes, ("winograd",))


# Pooling


def _windows(draw, layout):
    """Draw images and the options of a pooling over them."""
    kernel = draw(st.tuples(st.integers(1, 5), st.integers(1, 5)))
    n, c = draw(st.integers(0, 3)), draw(st.integers(1, 36))
    dilation = draw(st.integers(1, 2))
    h, w = ((k - 1) * dilation + draw(st.integers(1, 24)) for k in kernel)
    shape = (n, c, h, w) if layout == "NCHW" else (n, h, w, c)
    padding = tuple(tuple(draw(st.integers(0, k // 2)) for _ in range(2)) for k in kernel)
    stride = draw(st.sampled_from((1, 2, (1, 3), (2, 1), None)))
    return shape, {"kernel": kernel, "stride": stride, "padding": padding, "layout": layout}, dilation


def max_pooling(draw, dtypes):
    for layout in EACH_LAYOUT:
        shape, options, dilation = _windows(draw, layout)
        options |= {"dilation": dilation, "ceil_mode": draw(BOTH)}
        x = numbers(draw(dtypes), *shape)
        with launches.cut(draw(THREADS)):
            y, argmax = jitconv.max_pool2d_with_argmax(x, **options)
            dx = jitconv.max_pool2d_backward(np.cos(y), argmax, x.shape, **options)
            assert np.array_equal(jitconv.max_pool2d(x, **options), y)
        assert_finite(y, dx)


def max_pooling_of_large_windows(draw, dtypes):
    """Windows of more than 256 pixels, whose argmax is wider than a byte, and such as overlap many times."""
    for layout in EACH_LAYOUT:
        shape, options, _ = _windows(draw, layout)
        options |= draw(
            st.sampled_from(({"kernel": (17, 16), "padding": 3}, {"kernel": (7, 8), "stride": 1, "padding": 2}))
        )
        rows, columns = (2, 3) if options["layout"] == "NCHW" else (1, 2)
        shape = tuple(size + 12 * (axis in (rows, columns)) for axis, size in enumerate(shape))
        x = numbers(draw(dtypes), *shape)
        with launches.cut(draw(THREADS)):
            y, argmax = jitconv.max_pool2d_with_argmax(x, **options)
            assert_finite(y, jitconv.max_pool2d_backward(np.cos(y), argmax, x.shape, **options))


def windows_of_nothing(draw, dtypes):
    """All minus infinity, so that every argmax is that of padding or of the first pixel."""
    for layout in EACH_LAYOUT:
        shape, options, _ = _windows(draw, layout)
        x = np.full(shape, -np.inf, draw(dtypes))
        with launches.cut(draw(THREADS)):
            y, argmax = jitconv.max_pool2d_with_argmax(x, **options)
            assert_finite(jitconv.max_pool2d_backward(np.ones_like(y), argmax, x.shape, **options))


def average_pooling(draw, dtypes):
    for layout in EACH_LAYOUT:
        shape, options, _ = _windows(draw, layout)
        options |= {"ceil_mode": draw(BOTH), "count_include_pad": draw(BOTH)}
        x = numbers(draw(dtypes), *shape)
        with launches.cut(draw(THREADS)):
            y = jitconv.avg_pool2d(x, **options)
            assert_finite(y, jitconv.avg_pool2d_backward(np.cos(y), x.shape, **options))


def tied_pooling(draw, dtypes):
    for layout in EACH_LAYOUT:
        shape, options, _ = _windows(draw, layout)
        x = np.round(numbers(draw(dtypes), *shape))
        rule = draw(st.sampled_from(("all", "split")))
        with launches.cut(draw(THREADS)):
            y, argmax = ties.max_pool2d_forward(x, ties=rule, **options)
            assert_finite(y, ties.max_pool2d_backward(np.cos(y), x, ties=rule, argmax=argmax, **options))


def global_pooling(draw, dtypes):
    for layout in EACH_LAYOUT:
        sizes = (draw(st.integers(1, 3)), draw(st.integers(1, 140)))
        h, w = draw(st.integers(1, 9)), draw(st.integers(1, 40))
        shape = (*sizes, h, w) if layout == "NCHW" else (sizes[0], h, w, sizes[1])
        x = numbers(draw(dtypes), *shape)
        with launches.cut(draw(THREADS)):
            average = jitconv.global_avg_pool2d(x, layout=layout)
            spread = jitconv.global_avg_pool2d_backward(average, x.shape, layout=layout)
            y, argmax = jitconv.global_max_pool2d(x, layout=layout)
            assert_finite(average, spread, y, jitconv.global_max_pool2d_backward(y, argmax, x.shape, layout=layout))


def global_pooling_of_large_planes(draw, dtypes):
    """Planes of more than one run."""
    x = numbers(draw(dtypes), 1, 2, 91, draw(st.integers(91, 100)))
    with launches.cut(draw(THREADS)):
        assert_finite(jitconv.global_avg_pool2d(x), *jitconv.global_max_pool2d(x))


# The rest


def columns(draw, dtypes):
    kernel, dilation = draw(st.tuples(st.integers(1, 5), st.integers(1, 5))), draw(st.integers(1, 3))
    n, c = draw(st.integers(0, 3)), draw(st.integers(1, 5))
    h, w = ((k - 1) * dilation + draw(st.integers(1, 12)) for k in kernel)
    options = {"kernel": kernel, "stride": draw(st.integers(1, 3)), "padding": draw(SIDES), "dilation": dilation}
    x = numbers(draw(dtypes), n, c, h, w)
    with launches.cut(draw(THREADS)):
        unfolded = jitconv.im2col(x, **options)
        assert_finite(unfolded, jitconv.col2im(unfolded, x.shape, **options))


def dense_layers(draw, dtypes):
    size = st.integers(1, 40) | st.integers(1, 300)
    rows, features, outputs, dtype = draw(size), draw(size), draw(size), draw(dtypes)
    x, w, b = numbers(dtype, rows, features), numbers(dtype, outputs, features), numbers(dtype, outputs)
    with launches.cut(draw(THREADS)):
        y = dense.forward(x, w, b if draw(BOTH) else None, draw(BOTH))
        dw, db = np.full_like(w, np.nan), np.full_like(b, np.nan) if draw(BOTH) else None
        assert_finite(y, dense.backward(y, x, w, dw, db, True), dw, db)


def elements(draw, dtypes):
    x = numbers(draw(dtypes), draw(st.integers(0, 3000)))
    with launches.cut(draw(THREADS)):
        y = pointwise.relu(x)
        assert_finite(y, pointwise.relu_backward(x, y), pointwise.dropout(x, draw(st.sampled_from((0.0, 0.4, 1.0))), 7))


def batch_normalisation(draw, dtypes):
    for layout in EACH_LAYOUT:
        n, c, dtype = draw(st.integers(1, 4)), draw(st.integers(1, 70)), draw(dtypes)
        h, w = draw(st.integers(1, 15)), draw(st.integers(2, 15))
        shape = (n, c, h, w) if layout == "NCHW" else (n, h, w, c)
        x, weight, bias = numbers(dtype, *shape), numbers(dtype, c), numbers(dtype, c)
        activation, threads = draw(st.sampled_from((None, "relu"))), draw(THREADS)
        for training in (True, False):
            running = np.zeros(c, dtype), np.ones(c, dtype)
            with launches.cut(threads):
                made = pointwise.batch_norm(
                    x, weight, bias, *running, training=training, layout=layout, activation=activation
                )  # fmt: skip
                gradients = pointwise.batch_norm_backward(
                    np.cos(made.y), x, weight, made.mean, made.inverse_std, training=training, layout=layout,
                    y=made.y if activation else None,
                )  # fmt: skip
            assert_finite(*made, *gradients)


def cross_entropy(draw, dtypes):
    logits = numbers(draw(dtypes), draw(st.integers(1, 40)), draw(st.integers(1, 40)))
    labels = np.random.default_rng(1).integers(0, logits.shape[1], len(logits))
    with launches.cut(draw(THREADS)):
        loss = losses.softmax_cross_entropy(logits, labels)
    assert_finite(loss.value, loss.dlogits)


def layouts(draw, dtypes):
    target = draw(LAYOUTS)
    shape = draw(st.tuples(st.integers(0, 3), *[st.integers(1, 9) | st.integers(1, 90)] * 2, st.integers(1, 9)))
    with launches.cut(draw(THREADS)):
        assert_finite(relayout(numbers(draw(dtypes), *shape), target))


def optimizer_steps(draw, dtypes):
    made = (
        optimizers.SGD(),
        optimizers.SGD(momentum=0.9),
        optimizers.AdaGrad(),
        optimizers.RMSProp(),
        optimizers.Adadelta(),
        optimizers.Adam(),
    )
    sizes = draw(st.lists(st.integers(1, 40) | st.integers(1, 9000), min_size=1, max_size=5))
    dtype, threads = draw(dtypes), draw(THREADS)
    for optimizer in made:
        parameters = {str(i): numbers(dtype, size) for i, size in enumerate(sizes)}
        gradients = {name: np.cos(a) for name, a in parameters.items()}
        with launches.cut(threads):
            for _ in range(2):
                optimizer.update(parameters, gradients)
        assert_finite(*parameters.values())


# By the process that runs them, those whose kernels take longest to compile first.
FAMILIES = {
    "winograd": (winograd, winograd_in_rounds, fused_winograd),
    "convolution": (
        drawn_convolution,
        drawn_transposed_convolution,
        planes,
        table_of_convolutions,
        table_of_transposed_convolutions,
        kept_weights,
        checksums,
        bias_gradient,
        fused_convolution,
    ),
    "groups": (narrow_groups, depthwise_planes),
    "pooling": (
        max_pooling,
        max_pooling_of_large_windows,
        windows_of_nothing,
        average_pooling,
        tied_pooling,
        global_pooling,
        global_pooling_of_large_planes,
    ),
    "rest": (
        columns,
        dense_layers,
        elements,
        batch_normalisation,
        cross_entropy,
        layouts,
        optimizer_steps,
    ),
}


def explore(operation, dtypes, examples):
    """Run an operation with drawn arguments."""

    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=not FULL,
        suppress_health_check=list(HealthCheck),
        print_blob=False,
    )
    @given(st.data())
    def run(data):
        operation(data.draw, dtypes)

    run()


def main():
    family, dtypes, examples = sys.argv[1:]
    launches.install()
    for operation in FAMILIES[family]:
        print(operation.__name__, file=sys.stderr, flush=True)
        explore(operation, st.sampled_from([np.dtype(name) for name in dtypes.split(",")]), int(examples))
    print(json.dumps({"launched": launches.launched, "accesses": launches.accesses()}))


if __name__ == "__main__":
    main()
