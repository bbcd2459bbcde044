"""Wrong calls of `jitconv.torch`; needs PyTorch."""

from __future__ import annotations

import torch

import jitconv.torch as jt
import jitconv.torch.functional as F

from .functions import NAN
from .rows import rows

X, W, B = torch.ones(2, 4, 8, 9), torch.ones(6, 4, 3, 3), torch.ones(6)
AXES = "`input` must have the axes (N, C, H, W) or (C, H, W), got the shape"


def _no_tensor(name, right):
    return [
        ({name: right.numpy()}, TypeError, f"`{name}` must be a torch.Tensor, got ndarray"),
        ({name: "image"}, TypeError, f"`{name}` must be a torch.Tensor, got str"),
        ({name: right.half()}, TypeError, f"`{name}` is not served: it has dtype torch.float16"),
        ({name: right.int()}, TypeError, f"`{name}` is not served: it has dtype torch.int32"),
        ({name: right.to(torch.complex64)}, TypeError, f"`{name}` is not served: it has dtype torch.complex64"),
        ({name: right.to("meta")}, TypeError, f"`{name}` is not served: it is on meta"),
        ({name: right.to_sparse()}, TypeError, f"`{name}` is not served: it is torch.sparse_coo"),
    ]


def _integers(name, minimum):
    rule = f"`{name}` must be an integer of at least {minimum}, got"
    return [
        ({name: minimum - 1}, ValueError, f"{rule} {minimum - 1}"),
        ({name: NAN}, TypeError, f"{rule} nan"),
        ({name: True}, TypeError, f"{rule} True"),
        ({name: 1.0}, TypeError, f"{rule} 1.0"),
        ({name: (1.0, 1)}, TypeError, f"{rule} 1.0"),
        ({name: [1, 1, 1]}, ValueError, f"`{name}` must be an int or a pair of ints, got [1, 1, 1]"),
    ]


def _first(call, right):
    """Return a call after the right one, whose options are known then: 1 is equal to 1.0 and to True."""

    def run(**given):
        call(**right)
        return call(**given)

    return run


CONV = {"input": X, "weight": W}
TRANSPOSE = {"input": torch.ones(2, 6, 6, 7), "weight": W}
CONVOLUTIONS = [
    *rows(
        "functional.conv2d",
        _first(F.conv2d, CONV | {"stride": (1, 1), "padding": (1, 1), "dilation": (1, 1)}),
        CONV,
        *_no_tensor("input", X),
        *_no_tensor("weight", W),
        *_no_tensor("bias", B),
        *_integers("stride", 1),
        *_integers("dilation", 1),
        *_integers("padding", 0)[:3],
        ({"weight": W.double()}, TypeError, "`weight` is not served: it has dtype torch.float64, but the input has"),
        ({"input": X[0, 0]}, ValueError, f"{AXES} (8, 9)"),
        ({"input": X[:, :3]}, ValueError, "`weight` has 4 input channels, but `input` has 3 (groups=1)"),
        ({"input": X[:, :, :2]}, ValueError, "`weight` spans 3x3 pixels (dilation (1, 1)), more than the padded"),
        ({"weight": W[0]}, ValueError, "`weight` must have the axes (F, C/groups, KH, KW), got"),
        ({"weight": W[:0]}, ValueError, "`weight` must have at least one channel and one tap"),
        ({"bias": B[:5]}, ValueError, "`bias` must have shape (6,), one for each output channel, got (5,)"),
        ({"groups": 3}, ValueError, "`groups` must divide the channels of `input`, got 3 for 4"),
        ({"groups": True}, TypeError, "`groups` must be an integer of at least 1, got True"),
        ({"padding": "full"}, ValueError, "`padding` must be an int, a pair"),
        ({"padding": "same", "stride": 2}, ValueError, "`padding`='same' needs stride 1"),
        ({"padding": 2**30}, ValueError, "`y` would have shape"),
    ),
    *rows(
        "functional.conv_transpose2d",
        F.conv_transpose2d,
        TRANSPOSE,
        *_no_tensor("input", X),
        *_integers("stride", 1),
        *_integers("dilation", 1),
        ({"input": X}, ValueError, "`weight` has 6 input channels, but `input` has 4"),
        ({"input": torch.ones(2, 6, 0, 7)}, ValueError, "`input` has images of 0x7 pixels"),
        ({"weight": W[0]}, ValueError, "`weight` must have the axes (C, F/groups, KH, KW), got"),
        ({"weight": W[:, :0]}, ValueError, "`weight` must have at least one channel and one tap"),
        ({"weight": W[..., :0]}, ValueError, "`weight` must have at least one channel and one tap"),
        ({"bias": B}, ValueError, "`bias` must have shape (4,), one for each output channel, got (6,)"),
        ({"groups": 4}, ValueError, "`groups` must divide the channels of `input`, got 4 for 6"),
        ({"padding": 5}, ValueError, "`padding` ((5, 5), (5, 5)) leaves nothing of the output"),
        ({"padding": "same"}, TypeError, "`padding` must be an integer of at least 0, got 'same'"),
        ({"output_padding": 1}, ValueError, "`output_padding` must be less than `stride` or `dilation`"),
        ({"output_padding": -1}, ValueError, "`output_padding` must be an integer of at least 0, got -1"),
    ),
]
WINDOW = [
    *_no_tensor("input", X),
    *_integers("kernel_size", 1),
    *_integers("stride", 1),
    ({"input": X[0, 0]}, ValueError, f"{AXES} (8, 9)"),
    ({"input": X[:, :, :0]}, ValueError, "`input` has images of 0x9 pixels"),
    ({"kernel_size": 10, "stride": 1}, ValueError, "`kernel_size` spans 10x10 pixels"),
    ({"padding": 2}, ValueError, "`padding` must be at most half of `kernel_size` (2, 2), got (2, 2)"),
    ({"stride": torch.ones(2)}, TypeError, "`stride` must be an integer of at least 1, got tensor([1., 1.])"),
    ({"ceil_mode": 1}, TypeError, "`ceil_mode` must be True or False, got 1"),
]
ONE = "`output_size` must be 1 or (1, 1), the only one that is served, got"
ADAPTIVE = [
    *_no_tensor("input", X),
    ({"input": X[0, 0]}, ValueError, f"{AXES} (8, 9)"),
    ({"output_size": 2}, ValueError, f"{ONE} 2"),
    ({"output_size": True}, ValueError, f"{ONE} True"),
    ({"output_size": (1, 1, 1)}, ValueError, f"{ONE} (1, 1, 1)"),
    ({"output_size": None}, ValueError, f"{ONE} None"),
    ({"output_size": torch.ones(2)}, ValueError, f"{ONE} tensor([1., 1.])"),
]
POOLINGS = [
    *rows("functional.max_pool2d", F.max_pool2d, {"input": X, "kernel_size": 2}, *WINDOW, *_integers("dilation", 1)),
    *rows(
        "functional.avg_pool2d",
        F.avg_pool2d,
        {"input": X, "kernel_size": 2},
        *WINDOW,
        ({"count_include_pad": "no"}, TypeError, "`count_include_pad` must be True or False, got 'no'"),
        ({"divisor_override": 0}, ValueError, "`divisor_override` must not be zero"),
        ({"divisor_override": 0.5}, TypeError, "`divisor_override` must be an integer or None, got 0.5"),
    ),
    *rows("functional.adaptive_avg_pool2d", F.adaptive_avg_pool2d, {"input": X, "output_size": 1}, *ADAPTIVE),
    *rows(
        "functional.adaptive_max_pool2d",
        F.adaptive_max_pool2d,
        {"input": X, "output_size": 1},
        *ADAPTIVE,
        ({"input": X[:, :, :0]}, ValueError, "`input` has images of 0x9 pixels"),
    ),
    *rows(
        "functional.global_max_pool2d",
        F.global_max_pool2d,
        {},
        *_no_tensor("input", X),
        ({"input": X[0, 0]}, ValueError, f"{AXES} (8, 9)"),
    ),
]
NO_MODEL = "`model` must be a torch.nn.Module, got"
MODULES = [
    *(
        row
        for function in (jt.accelerate, jt.restore)
        for row in rows(
            f"torch.{function.__name__}",
            function,
            {},
            ({"model": X}, TypeError, f"{NO_MODEL} Tensor"),
            ({"model": None}, TypeError, f"{NO_MODEL} NoneType"),
            ({"model": torch.nn.Conv2d}, TypeError, f"{NO_MODEL} type"),
        )
    ),
    *rows(
        "torch.Conv2d",
        lambda **given: jt.Conv2d(4, 6, 3)(**given),
        {},
        ({"input": X[:, :3]}, ValueError, "`weight` has 4 input channels, but `input` has 3 (groups=1)"),
        ({"input": X[0, 0]}, ValueError, AXES),
    ),
    *rows(
        "torch.ConvTranspose2d",
        lambda **given: jt.ConvTranspose2d(4, 6, 3)(**given),
        {},
        ({"input": X[:, :3]}, ValueError, "`weight` has 4 input channels, but `input` has 3"),
    ),
    *rows(
        "torch.MaxPool2d",
        lambda **given: jt.MaxPool2d(2)(**given),
        {},
        ({"input": X[:, :, :1]}, ValueError, "`kernel_size` spans 2x2 pixels"),
    ),
    *rows(
        "torch.AvgPool2d",
        lambda **given: jt.AvgPool2d(2)(**given),
        {},
        ({"input": X[:, :, :1]}, ValueError, "`kernel_size` spans 2x2 pixels"),
    ),
    *(
        row
        for name in ("AdaptiveAvgPool2d", "AdaptiveMaxPool2d")
        for row in rows(
            f"torch.{name}",
            getattr(jt, name)(1),
            {},
            ({"input": X[0, 0]}, ValueError, AXES),
        )
    ),
    *rows(
        "torch.Sequential",
        jt.Sequential(jt.Conv2d(4, 6, 3), torch.nn.ReLU(), jt.MaxPool2d(2)),
        {},
        ({"input": X[:, :3]}, ValueError, "`weight` has 4 input channels, but `input` has 3 (groups=1)"),
    ),
]

ROWS = [*CONVOLUTIONS, *POOLINGS, *MODULES]
