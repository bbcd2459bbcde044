"""The table of the operators that are served."""

from __future__ import annotations

import functools

import numpy as np

from . import arrangement, convolution, elements, pooling
from .node import DTYPES
from .operator import Operator

OPERATORS = {
    "Add": Operator(elements.elementwise(np.add), (6, 7, 13, 14)),
    "AveragePool": Operator(pooling.average_pool, (1, 7, 10, 11, 19, 22), images=True),
    "BatchNormalization": Operator(elements.batch_normalization, (6, 7, 9, 14, 15)),
    "Clip": Operator(elements.clip, (6, 11, 12, 13)),
    "Concat": Operator(arrangement.concat, (4, 11, 13), DTYPES),
    "Constant": Operator(arrangement.constant, (1, 9, 11, 12, 13, 19, 21, 23, 24, 25)),
    "ConstantOfShape": Operator(arrangement.constant_of_shape, (9, 20, 21, 23, 24, 25), DTYPES),
    "Conv": Operator(convolution.conv, (1, 11, 22), images=True),
    "ConvTranspose": Operator(convolution.conv_transpose, (1, 11, 22), images=True),
    "Div": Operator(elements.elementwise(np.divide), (6, 7, 13, 14)),
    "Dropout": Operator(arrangement.dropout, (6, 7, 10, 12, 13, 22), DTYPES, view=True),
    "Flatten": Operator(arrangement.flatten, (1, 9, 11, 13, 21, 23, 24, 25), DTYPES, view=True),
    "Gather": Operator(arrangement.gather, (1, 11, 13), DTYPES),
    "Gemm": Operator(elements.gemm, (6, 7, 9, 11, 13)),
    "GlobalAveragePool": Operator(pooling.global_average_pool, (1, 22), images=True),
    "GlobalMaxPool": Operator(pooling.global_max_pool, (1, 22), images=True),
    "Identity": Operator(arrangement.identity, (1, 13, 14, 16, 19, 21, 23, 24, 25), DTYPES, view=True),
    "LRN": Operator(elements.local_response_normalization, (1, 13), images=True),
    "LeakyRelu": Operator(elements.leaky_relu, (6, 16)),
    "LogSoftmax": Operator(functools.partial(elements.softmax, logarithm=True), (1, 11, 13)),
    "MatMul": Operator(elements.elementwise(np.matmul), (1, 9, 13)),
    "MaxPool": Operator(pooling.max_pool, (1, 8, 10, 11, 12, 22), images=True),
    "Mul": Operator(elements.elementwise(np.multiply), (6, 7, 13, 14)),
    "ReduceMean": Operator(elements.reduce_mean, (1, 11, 13, 18)),
    "Relu": Operator(elements.relu, (1, 6, 13, 14)),
    "Reshape": Operator(arrangement.reshape, (5, 13, 14, 19, 21, 23, 24, 25), DTYPES, view=True),
    "Shape": Operator(arrangement.shape, (1, 13, 15, 19, 21, 23, 24, 25), DTYPES),
    "Sigmoid": Operator(elements.sigmoid, (6, 13)),
    "Softmax": Operator(elements.softmax, (1, 11, 13)),
    "Squeeze": Operator(arrangement.squeeze, (1, 11, 13, 21, 23, 24, 25), DTYPES, view=True),
    "Sub": Operator(elements.elementwise(np.subtract), (6, 7, 13, 14)),
    "Sum": Operator(elements.total, (6, 8, 13)),
    "Tanh": Operator(elements.elementwise(np.tanh), (6, 13)),
    "Transpose": Operator(arrangement.transpose, (1, 13, 21, 23, 24, 25), DTYPES, view=True),
    "Unsqueeze": Operator(arrangement.unsqueeze, (1, 11, 13, 21, 23, 24, 25), DTYPES, view=True),
}
