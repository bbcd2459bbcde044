"""Windows as ONNX has them, beyond onnx's own cases, against the tests' references."""

from __future__ import annotations

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from references import conv as conv_reference
from references import pool as pool_reference

pytest.importorskip("onnx")

import graphs

import jitconv.onnx

RTOL = {np.dtype(np.float32): 1e-5, np.dtype(np.float64): 1e-12}


def attributes_of(kernel, stride, padding, dilation, **more):
    """Return the attributes of a node; padding is ((top, bottom), (left, right)), or a word."""
    made = {"strides": stride, "dilations": dilation, **more}
    if kernel is not None:
        made["kernel_shape"] = kernel
    if isinstance(padding, str):
        return {**made, "auto_pad": padding}
    (top, bottom), (left, right) = padding
    return {**made, "pads": [top, left, bottom, right]}


def sides_of(padding, size, kernel, stride, dilation):
    """Return the padding that a word stands for: pixel by pixel until every stride-th pixel has a window."""
    if not isinstance(padding, str):
        return padding
    sides = []
    for length, k, s, d in zip(size, kernel, stride, dilation, strict=True):
        ends = [0, 0]
        order = 1 if padding == "SAME_UPPER" else 0
        while padding != "VALID" and (length + sum(ends) - (k - 1) * d - 1) // s + 1 < (length + s - 1) // s:
            ends[order] += 1
            order = 1 - order
        sides.append(tuple(ends))
    return tuple(sides)


def pairs(low, high):
    return st.tuples(st.integers(low, high), st.integers(low, high))


WORDS = st.sampled_from(["VALID", "SAME_UPPER", "SAME_LOWER"])
POOLINGS = st.fixed_dictionaries(
    {
        "shape": st.tuples(st.integers(1, 2), st.integers(1, 3), st.integers(1, 9), st.integers(1, 9)),
        "kernel": pairs(1, 4),
        "stride": pairs(1, 3),
        "padding": WORDS | st.tuples(pairs(0, 5), pairs(0, 5)),
        "dilation": pairs(1, 3),
        "ceil_mode": st.booleans(),
        "dtype": st.sampled_from([np.float32, np.float64]),
        "seed": st.integers(0, 2**16),
    }
)


def pooling(case):
    """Return the images of a case and the options of the reference, if its windows fit to them."""
    rng = np.random.default_rng(case["seed"])
    x = rng.standard_normal(case["shape"]).astype(case["dtype"])
    size, kernel, stride, dilation = case["shape"][2:], case["kernel"], case["stride"], case["dilation"]
    padding = sides_of(case["padding"], size, kernel, stride, dilation)
    spans = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    fits = all(length + sum(ends) >= span for length, ends, span in zip(size, padding, spans, strict=True))
    hypothesis.assume(fits)
    ceil_mode = case["ceil_mode"]
    # ONNX's text drops all windows that begin in the far padding, its formula the last of them. They differ where whole
    # windows lie in it.
    hypothesis.assume(not ceil_mode or all(far < span for (_, far), span in zip(padding, spans, strict=True)))
    return rng, x, {"stride": stride, "padding": padding, "dilation": dilation, "ceil_mode": ceil_mode}


def pooled(operator, case, x, outputs=1, **more):
    window = case["kernel"], case["stride"], case["padding"], case["dilation"]
    attributes = attributes_of(*window, ceil_mode=int(case["ceil_mode"]), **more)
    model = graphs.single(operator, x.shape, dtype=x.dtype, opset=22, outputs=outputs, **attributes)
    results = jitconv.onnx.run_model(model, [x])
    for y, said in zip(results, model.graph.output, strict=True):
        assert y.shape == tuple(axis.dim_value for axis in said.type.tensor_type.shape.dim)
    return results


@hypothesis.given(POOLINGS, st.booleans(), st.booleans())
def test_max_pool_of_any_window(case, by_columns, special):
    rng, x, options = pooling(case)
    if special:
        x[rng.random(x.shape) < 0.5] = -np.inf
        x[rng.random(x.shape) < 0.1] = np.nan
    y, indices = pooled("MaxPool", case, x, 2, storage_order=int(by_columns))
    (alone,) = pooled("MaxPool", case, x)
    expected, argmax = pool_reference.max_pool2d(x, case["kernel"], **options)
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_array_equal(alone, expected)
    windows = pool_reference.Windows.of(x.shape, case["kernel"], **options)
    taps = np.divmod(argmax, case["kernel"][1])
    rows = windows.rows[np.arange(len(windows.rows))[:, None], taps[0]]
    columns = windows.columns[np.arange(len(windows.columns)), taps[1]]
    plane, (h, w) = np.arange(x.shape[0] * x.shape[1]).reshape(*x.shape[:2], 1, 1), x.shape[2:]
    flat = plane * h * w + (rows + columns * h if by_columns else rows * w + columns)
    assert indices.dtype == np.int64
    np.testing.assert_array_equal(indices, np.where(windows.real().any((-2, -1)), flat, -1))


@hypothesis.given(POOLINGS, st.booleans())
def test_average_pool_of_any_window(case, count_include_pad):
    _, x, options = pooling(case)
    (y,) = pooled("AveragePool", case, x, count_include_pad=int(count_include_pad))
    with np.errstate(invalid="ignore"):  # a window without any pixel
        expected = pool_reference.avg_pool2d(x, case["kernel"], count_include_pad=count_include_pad, **options)
    assert y.dtype == x.dtype
    np.testing.assert_allclose(y, expected, rtol=RTOL[x.dtype], atol=RTOL[x.dtype])


CONVOLUTIONS = [
    ((7, 8), (3, 3), (1, 1), "SAME_UPPER", (1, 1), 1),
    ((7, 8), (2, 4), (1, 1), "SAME_LOWER", (1, 1), 1),
    ((8, 7), (3, 5), (2, 3), "SAME_UPPER", (1, 1), 2),
    ((9, 8), (3, 2), (2, 2), "SAME_LOWER", (2, 1), 1),
    ((9, 8), (1, 1), (3, 2), "SAME_UPPER", (1, 1), 1),
    ((6, 6), (3, 3), (1, 2), "VALID", (1, 2), 4),
    ((5, 6), (3, 2), (2, 1), ((0, 3), (2, 1)), (1, 1), 2),
]


@pytest.mark.parametrize("case", CONVOLUTIONS, ids=str)
def test_conv_of_any_window(case, dtype, rng):
    size, kernel, stride, padding, dilation, groups = case
    x, w, b = (rng.standard_normal(shape).astype(dtype) for shape in ((2, 4, *size), (8, 4 // groups, *kernel), (8,)))
    attributes = attributes_of(None, stride, padding, dilation, group=groups)
    model = graphs.single("Conv", x.shape, w, b, dtype=dtype, **attributes)
    (y,) = jitconv.onnx.run_model(model, [x])
    sides = sides_of(padding, size, kernel, stride, dilation)
    options = {"stride": stride, "padding": sides, "dilation": dilation, "groups": groups}
    expected = conv_reference.conv2d(x, w, b, **options)
    np.testing.assert_allclose(y, expected, rtol=RTOL[dtype], atol=10 * RTOL[dtype])


# The size of the images, the attributes of the node, and where the result begins in the full one, and its size.
TRANSPOSED = [
    ((3, 4), {}, (0, 0), (7, 13)),
    ((3, 4), {"pads": [1, 0, 0, 2]}, (1, 0), (6, 11)),
    ((3, 4), {"pads": [0, 1, 1, 1], "output_padding": [1, 2]}, (0, 1), (7, 13)),
    ((3, 4), {"output_padding": [1, 1]}, (0, 0), (8, 14)),
    ((3, 4), {"auto_pad": "VALID", "output_padding": [0, 2]}, (0, 0), (7, 15)),
    ((3, 4), {"auto_pad": "SAME_UPPER"}, (0, 0), (6, 12)),
    ((3, 4), {"auto_pad": "SAME_LOWER"}, (1, 1), (6, 12)),
    ((3, 4), {"output_shape": [4, 11]}, (2, 1), (4, 11)),
    ((3, 4), {"output_shape": [4, 10], "auto_pad": "SAME_UPPER"}, (1, 1), (4, 10)),
    ((3, 4), {"output_shape": [10, 16]}, (0, 0), (10, 16)),
    ((3, 4), {"output_shape": [6, 15], "output_padding": [1, 1]}, (1, 0), (6, 15)),
]


@pytest.mark.parametrize("biased", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("case", TRANSPOSED, ids=str)
def test_conv_transpose_of_any_size(case, biased, dtype, rng):
    size, attributes, begin, length = case
    x, w, b = (rng.standard_normal(shape).astype(dtype) for shape in ((2, 4, *size), (4, 3, 3, 4), (6,)))
    b = b if biased else np.zeros_like(b)
    weights = (w, b) if biased else (w,)
    model = graphs.single("ConvTranspose", x.shape, *weights, dtype=dtype, strides=[2, 3], group=2, **attributes)
    (y,) = jitconv.onnx.run_model(model, [x])
    # As long as any result here: what no tap reaches holds the bias.
    full = conv_reference.conv_transpose2d(x, w, b, stride=(2, 3), groups=2)
    full = np.concatenate([full, np.broadcast_to(b[:, None, None], (2, 6, 9, full.shape[3]))], axis=2)
    full = np.concatenate([full, np.broadcast_to(b[:, None, None], (2, 6, full.shape[2], 9))], axis=3)
    expected = full[:, :, begin[0] : begin[0] + length[0], begin[1] : begin[1] + length[1]]
    assert y.shape == expected.shape
    np.testing.assert_allclose(y, expected, rtol=RTOL[dtype], atol=10 * RTOL[dtype])
