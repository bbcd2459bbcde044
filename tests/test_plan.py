"""plan_conv2d: what runs, to be seen and forced."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
from cases import CONV_CASES

import jitconv
from jitconv import plan

PASSES = ("forward", "backward_data", "backward_weights")
SHAPES = (8, 16, 28, 28), (32, 16, 3, 3)


@pytest.mark.parametrize("algorithm", ["direct", "im2col"])
def test_a_forced_algorithm_runs_in_every_pass(algorithm):
    chosen = jitconv.plan_conv2d(*SHAPES, padding=1, algorithm=algorithm)
    assert chosen.algorithm == algorithm
    for name in PASSES:
        assert getattr(chosen, name).algorithm == algorithm


def test_auto_chooses_and_says_why():
    chosen = jitconv.plan_conv2d(*SHAPES, padding=1)
    for name in PASSES:
        assert getattr(chosen, name).algorithm in ("direct", "winograd")
        assert getattr(chosen, name).reason


def test_a_plan_is_frozen():
    chosen = jitconv.plan_conv2d(*SHAPES)
    assert isinstance(chosen, jitconv.ConvPlan)
    with pytest.raises(dataclasses.FrozenInstanceError):
        chosen.forward = None
    with pytest.raises(dataclasses.FrozenInstanceError):
        chosen.forward.algorithm = "im2col"


def test_a_plan_can_be_read():
    text = str(jitconv.plan_conv2d(*SHAPES, padding=1, layout="NCHW"))
    assert "(8, 16, 28, 28)" in text
    assert "float32" in text
    for name in PASSES:
        assert f"  {name} " in text
    assert len(text.splitlines()) == 1 + len(PASSES)


def test_a_plan_holds_the_problem():
    problem = jitconv.plan_conv2d((28, 30, 16), (32, 8, 5, 3), "float64", groups=2, layout="NHWC", stride=2).problem
    assert (problem.n, problem.c, problem.h, problem.w, problem.f) == (1, 16, 28, 30, 32)
    assert problem.kernel == (5, 3)
    assert problem.stride == (2, 2)
    assert problem.padding == ((0, 0), (0, 0))
    assert problem.groups == 2
    assert (problem.layout, problem.dtype) == ("NHWC", "float64")
    assert problem.output == (1, 32, 12, 14)
    assert problem.flops == 2 * 32 * 12 * 14 * 8 * 15


@pytest.mark.parametrize("case", CONV_CASES, ids=str)
def test_a_plan_is_made_for_every_case(case):
    chosen = jitconv.plan_conv2d(case.x_shape, case.w_shape, **case.options)
    assert chosen.problem.output[1:] == case.output_shape[-3:]
    for name in PASSES:
        assert getattr(chosen, name).threads <= jitconv.get_num_threads()
        assert getattr(chosen, name).workspace >= 0


@pytest.mark.parametrize("algorithm", ["auto", "direct"])
def test_depthwise_has_kernels_of_its_own(algorithm, layout):
    shape = (2, 33, 9, 8) if layout == "NCHW" else (2, 9, 8, 33)
    chosen = jitconv.plan_conv2d(shape, (33, 1, 3, 3), groups=33, layout=layout, algorithm=algorithm)
    for name in PASSES:
        assert getattr(chosen, name).algorithm == "direct"
        assert "depthwise" in getattr(chosen, name).reason
    assert "depthwise" not in jitconv.plan_conv2d((2, 33, 9, 8), (66, 1, 3, 3), groups=33).forward.reason


def test_a_plan_follows_the_number_of_threads():
    with jitconv.num_threads(1):
        one = jitconv.plan_conv2d(*SHAPES)
    assert {getattr(one, name).threads for name in PASSES} == {1}


LAYERS = [
    ((100, 1, 28, 28), (30, 1, 5, 5), 1, 0),
    ((100, 16, 28, 28), (16, 16, 3, 3), 1, 1),
    ((64, 3, 32, 32), (64, 3, 3, 3), 1, 1),
    ((64, 64, 32, 32), (64, 64, 3, 3), 1, 1),
    ((64, 512, 4, 4), (512, 512, 3, 3), 1, 1),
    ((16, 64, 27, 27), (192, 64, 5, 5), 1, 2),
    ((8, 3, 224, 224), (64, 3, 7, 7), 2, 3),
    ((8, 512, 7, 7), (2048, 512, 1, 1), 1, 0),
    ((1, 64, 112, 112), (64, 64, 3, 3), 2, 1),
    ((3, 20, 9, 50), (33, 20, 3, 3), 1, 1),
    ((1, 5, 400, 7), (9, 5, 3, 3), 1, 0),
]


@pytest.mark.parametrize("algorithm", ["direct", "im2col"])
@pytest.mark.parametrize(("x_shape", "w_shape", "stride", "padding"), LAYERS)
def test_the_order_of_summation_does_not_follow_the_threads(x_shape, w_shape, stride, padding, algorithm):
    """Backward-weights adds chunks of pixels: the same chunks whatever the number of threads."""
    for layout, dtype in itertools.product(("NCHW", "NHWC"), ("float32", "float64")):
        shape = x_shape if layout == "NCHW" else tuple(np.take(x_shape, (0, 2, 3, 1)).tolist())
        problem = jitconv.plan_conv2d(shape, w_shape, dtype, stride=stride, padding=padding, layout=layout).problem
        numbers = (1, 2, 3, 4, 6, 8, 16, 64)
        weights = [plan.plan_backward_weights(problem, algorithm, n) for n in numbers]
        assert len({(one.images, one.rows, one.chunks) for one in weights}) == 1, f"{layout} {dtype}"


@pytest.mark.parametrize("algorithm", ["direct", "im2col"])
def test_scratch_is_bounded(algorithm):
    """Never a whole unfolded matrix: one of this layer would hold 1.4 GB."""
    chosen = jitconv.plan_conv2d((100, 64, 80, 80), (64, 64, 3, 3), padding=1, algorithm=algorithm)
    for name in PASSES:
        each = getattr(chosen, name)
        assert each.workspace <= 8 * 1024 * 1024 * each.threads
