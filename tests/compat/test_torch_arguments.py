"""`jitconv.layers` takes the constructor arguments of torch.nn: the same names, order and defaults."""

from __future__ import annotations

import inspect

import pytest

from jitconv import layers

# By class: the arguments of torch.nn (PyTorch 2), in order, with their defaults; device and dtype apart.
NONE = inspect.Parameter.empty
WINDOW = {"kernel_size": NONE, "stride": None, "padding": 0}
CHANNELS = {"in_channels": NONE, "out_channels": NONE, "kernel_size": NONE, "stride": 1, "padding": 0}
ARGUMENTS = {
    "Conv2d": CHANNELS | {"dilation": 1, "groups": 1, "bias": True, "padding_mode": "zeros"},
    "ConvTranspose2d": CHANNELS
    | {"output_padding": 0, "groups": 1, "bias": True, "dilation": 1, "padding_mode": "zeros"},
    "MaxPool2d": WINDOW | {"dilation": 1, "return_indices": False, "ceil_mode": False},
    "AvgPool2d": WINDOW | {"ceil_mode": False, "count_include_pad": True, "divisor_override": None},
    "BatchNorm2d": {
        "num_features": NONE,
        "eps": 1e-5,
        "momentum": 0.1,
        "affine": True,
        "track_running_stats": True,
    },
    "Dense": {"in_features": NONE, "out_features": NONE, "bias": True},
    "Dropout": {"p": 0.5, "inplace": False},
    "ReLU": {"inplace": False},
    "Flatten": {"start_dim": 1, "end_dim": -1},
}


def positional(kind):
    parameters = inspect.signature(kind).parameters.values()
    return {one.name: one.default for one in parameters if one.kind != one.KEYWORD_ONLY}


@pytest.mark.parametrize("name", ARGUMENTS)
def test_arguments_are_those_of_torch(name):
    assert list(positional(getattr(layers, name)).items()) == list(ARGUMENTS[name].items())


@pytest.mark.parametrize("name", ARGUMENTS)
def test_torch_has_these(name):
    nn = pytest.importorskip("torch.nn")
    theirs = positional(getattr(nn, {"Dense": "Linear"}.get(name, name)))
    assert [pair for pair in theirs.items() if pair[0] not in ("device", "dtype")] == list(ARGUMENTS[name].items())


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: layers.Conv2d(1, 1, 3, padding_mode="reflect"), "padding_mode"),
        (lambda: layers.ConvTranspose2d(1, 1, 3, padding_mode="reflect"), "padding_mode"),
        (lambda: layers.MaxPool2d(2, return_indices=True), "return_indices"),
        (lambda: layers.AvgPool2d(2, divisor_override=3), "divisor_override"),
        (lambda: layers.Flatten(0), "start_dim"),
        (lambda: layers.Flatten(end_dim=2), "end_dim"),
    ],
)
def test_what_is_not_there_is_refused(make, name):
    with pytest.raises(ValueError, match=f"`{name}` must be one of"):
        make()


def test_inplace_changes_nothing_but_is_taken():
    layers.ReLU(inplace=True)
    layers.Dropout(0.3, True)
    with pytest.raises(TypeError, match="`inplace` must be True or False"):
        layers.ReLU(inplace=1)
