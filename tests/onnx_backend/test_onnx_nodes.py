"""The tests that onnx brings for backends, of all operators that are served: every case runs, or is refused by name."""

from __future__ import annotations

import collections
import io
import pathlib
import unittest
import warnings

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")

from onnx import numpy_helper  # noqa: E402
from onnx.backend.test import BackendTest  # noqa: E402
from onnx.backend.test.loader import load_model_tests  # noqa: E402

import jitconv.onnx  # noqa: E402
from jitconv.onnx import OPERATORS, UnsupportedModelError  # noqa: E402


def _cases(kind):
    """Return the cases with their models, which onnx makes, or has as files."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the functions that compute what is expected
        cases = load_model_tests(kind=kind)
    for case in cases:
        if case.model is None:
            case.model = onnx.load(pathlib.Path(case.model_dir, "model.onnx"))
    return cases


def _is_ours(case):
    return {node.op_type for node in case.model.graph.node} <= OPERATORS.keys()


CASES = {
    case.name: case
    for case in (*_cases("node"), *_cases("pytorch-converted"), *_cases("pytorch-operator"))
    if _is_ours(case)
}
# The cases that do not run: words of the refusal, and those whom it meets.
ONE_DIMENSION = r"has 3 axes, and only images \(N, C, H, W\) are served"
THREE_DIMENSIONS = r"has 5 axes, and only images \(N, C, H, W\) are served"
INTEGERS = r"is u?int(8|16|32|64), and only float32"
REASONS = {
    ONE_DIMENSION: """
        test_Conv1d test_Conv1d_dilated test_Conv1d_groups test_Conv1d_pad1 test_Conv1d_pad1size1 test_Conv1d_pad2
        test_Conv1d_pad2size1 test_Conv1d_stride test_MaxPool1d test_MaxPool1d_stride
        test_MaxPool1d_stride_padding_dilation test_averagepool_1d_default test_convtranspose_1d
        test_maxpool_1d_default test_operator_maxpool
    """,
    THREE_DIMENSIONS: """
        test_AvgPool3d test_AvgPool3d_stride test_AvgPool3d_stride1_pad0_gpu_input test_Conv3d test_Conv3d_dilated
        test_Conv3d_dilated_strided test_Conv3d_groups test_Conv3d_no_bias test_Conv3d_stride
        test_Conv3d_stride_padding test_MaxPool3d test_MaxPool3d_stride test_MaxPool3d_stride_padding
        test_averagepool_3d_default test_averagepool_3d_dilations_small
        test_averagepool_3d_dilations_large_count_include_pad_is_0_ceil_mode_is_False
        test_averagepool_3d_dilations_large_count_include_pad_is_0_ceil_mode_is_True
        test_averagepool_3d_dilations_large_count_include_pad_is_1_ceil_mode_is_False
        test_averagepool_3d_dilations_large_count_include_pad_is_1_ceil_mode_is_True
        test_convtranspose_3d test_maxpool_3d_default test_maxpool_3d_dilations
        test_maxpool_3d_dilations_use_ref_impl test_maxpool_3d_dilations_use_ref_impl_large
    """,
    INTEGERS: """
        test_add_int8 test_add_int16 test_add_uint8 test_add_uint16 test_add_uint32 test_add_uint64
        test_clip_default_int8_inbounds test_clip_default_int8_inbounds_expanded test_clip_default_int8_max
        test_clip_default_int8_min test_div_int8 test_div_int16 test_div_int32_trunc test_div_uint8 test_div_uint16
        test_div_uint32 test_div_uint64 test_maxpool_2d_uint8 test_mul_int8 test_mul_int16 test_mul_uint8
        test_mul_uint16 test_mul_uint32 test_mul_uint64 test_operator_non_float_params test_sub_int8 test_sub_int16
        test_sub_uint8 test_sub_uint16 test_sub_uint32 test_sub_uint64
    """,
    "training is not served": """
        test_batchnorm_epsilon_training_mode test_batchnorm_example_training_mode test_training_dropout
        test_training_dropout_default test_training_dropout_default_mask test_training_dropout_mask
        test_training_dropout_zero_ratio test_training_dropout_zero_ratio_mask
    """,
    "broadcasting along an `axis`, which opset 7 has abolished, is not served": """
        test_operator_add_broadcast test_operator_add_size1_broadcast test_operator_add_size1_right_broadcast
        test_operator_add_size1_singleton_broadcast
    """,
    "only tensors are served": "test_identity_opt test_identity_sequence",
}
REFUSED = {name: words for words, names in REASONS.items() for name in names.split()}
RUN = sorted(CASES.keys() - REFUSED.keys())
# How many nodes of each operator the cases of onnx 1.23 run; a newer one may have more.
LEAST = {
    "Add": 3, "AveragePool": 17, "BatchNormalization": 7, "Clip": 10, "Concat": 13, "Constant": 5,
    "ConstantOfShape": 3, "Conv": 18, "ConvTranspose": 12, "Div": 3, "Dropout": 6, "Flatten": 11, "Gather": 6,
    "Gemm": 15, "GlobalAveragePool": 2, "GlobalMaxPool": 2, "Identity": 2, "LRN": 2, "LeakyRelu": 5,
    "LogSoftmax": 10, "MatMul": 8, "MaxPool": 15, "Mul": 3, "ReduceMean": 10, "Relu": 2, "Reshape": 12, "Shape": 11,
    "Sigmoid": 3, "Softmax": 10, "Squeeze": 4, "Sub": 3, "Sum": 3, "Tanh": 3, "Transpose": 10, "Unsqueeze": 9,
}  # fmt: skip
# Published networks, small for their weights are all the same. Others, vgg19 and zfnet512, take a gigabyte.
NETWORKS = ["bvlc_alexnet", "densenet121", "inception_v1", "inception_v2", "resnet50", "shufflenet", "squeezenet"]


def _data(case):
    """Return pairs of the inputs and the expected outputs of a case."""
    if case.data_sets is not None:
        return case.data_sets
    return [
        tuple(
            [
                numpy_helper.to_array(onnx.load_tensor(path))
                for path in sorted(folder.glob(f"{kind}_*.pb"), key=lambda path: int(path.stem.rpartition("_")[2]))
            ]
            for kind in ("input", "output")
        )
        for folder in pathlib.Path(case.model_dir).glob("test_data_set_*")
    ]


@pytest.mark.parametrize("name", RUN)
def test_case(name):
    case = CASES[name]
    data = _data(case)
    assert data
    prepared = jitconv.onnx.prepare(case.model)
    for inputs, expected in data:
        before = [a.copy() for a in inputs]
        outputs = prepared.run(inputs)
        BackendTest.assert_similar_outputs(expected, outputs, rtol=case.rtol, atol=case.atol)
        for a, copy in zip(inputs, before, strict=True):
            np.testing.assert_array_equal(a, copy)
    assert jitconv.onnx.is_compatible(case.model)


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_what_does_not_run_is_refused_by_name(name):
    model = CASES[name].model
    with pytest.raises(UnsupportedModelError, match=REFUSED[name]) as raised:
        jitconv.onnx.prepare(model)
    assert any(node.op_type in str(raised.value) for node in model.graph.node)
    assert not jitconv.onnx.is_compatible(model)


@pytest.mark.parametrize("name", NETWORKS)
def test_published_networks(name):
    (case,) = (one for one in load_model_tests(kind="real") if one.model_name == name)
    path = pathlib.Path(onnx.__file__).parent.parent / case.url
    prepared = jitconv.onnx.prepare(onnx.load(path))
    x = np.arange(3 * 224 * 224, dtype=np.float64).reshape(1, 3, 224, 224) / (3 * 224 * 224)  # as onnx's runner does
    expected = numpy_helper.to_array(onnx.load_tensor(path.with_name(f"{path.stem}_output_0.pb")))
    BackendTest.assert_similar_outputs([expected], prepared.run([x.astype(np.float32)]), case.rtol, case.atol)


def test_as_many_cases_run_as_are_known():
    counts = collections.Counter(node.op_type for name in RUN for node in CASES[name].model.graph.node)
    assert {operator: counts[operator] for operator in LEAST if counts[operator] < LEAST[operator]} == {}
    assert LEAST.keys() == OPERATORS.keys()


def test_the_runner_of_onnx_takes_the_module():
    tests = BackendTest(jitconv.onnx, __name__).include(
        "^test_(conv_with|convtranspose|basic_conv|maxpool_2d|averagepool_2d|global(average|max)pool)"
    )
    tests.exclude("_3d|_1d|uint8|cuda")
    result = unittest.TextTestRunner(io.StringIO()).run(tests.test_suite)
    assert result.errors + result.failures == []
    assert result.testsRun - len(result.skipped) >= 40
