"""Wrong calls of `jitconv.training`: networks, losses, optimizers, the trainer, data and files of weights."""

from __future__ import annotations

import numpy as np

from jitconv.layers import Conv2d, Dense, Dropout, Flatten
from jitconv.training import (
    SGD,
    Adadelta,
    AdaGrad,
    Adam,
    RMSProp,
    Sequential,
    Trainer,
    checkpoint,
    data,
    softmax_cross_entropy,
    zoo,
)
from jitconv.training.checkpoint import CheckpointError
from jitconv.training.data import CIFAR_FILES, MNIST_FILES, DataError

from .functions import LAYOUTS, NAN
from .layers import SEEDS
from .rows import InFolder, X, not_floats, rows

LOGITS = np.ones((4, 3), np.float32)
LABELS = np.array([0, 1, 2, 0])
IMAGES = np.ones((4, 1, 2, 2), np.float32)
WRONG_LABELS = [
    ({"labels": LABELS * 1.0}, TypeError, "`labels` must be integers, the class of each image, got dtype float64"),
    ({"labels": LABELS > 0}, TypeError, "`labels` must be integers, the class of each image, got dtype bool"),
    ({"labels": LABELS.astype(object)}, TypeError, "`labels` must be integers, the class of each image, got dtype obj"),
    ({"labels": None}, TypeError, "`labels` must be integers, the class of each image, got dtype object"),
    ({"labels": "0120"}, TypeError, "`labels` must be integers, the class of each image, got dtype <U4"),
    ({"labels": LABELS[:3]}, ValueError, "`labels` must have shape (4,), one class for each image, got (3,)"),
    ({"labels": LABELS[:, np.newaxis]}, ValueError, "`labels` must have shape (4,), one class for each image, got"),
    ({"labels": [[0], [1, 2]]}, ValueError, "`labels` must be an array, got list of uneven lists"),
    ({"labels": np.ma.masked_array(LABELS)}, TypeError, "`labels` is a masked array, whose mask would be ignored"),
]
LOSSES = rows(
    "jitconv.training.softmax_cross_entropy",
    softmax_cross_entropy,
    {"logits": LOGITS, "labels": LABELS},
    *not_floats("logits", LOGITS),
    *WRONG_LABELS,
    ({"logits": LOGITS[0]}, ValueError, "`logits` must have shape (any, any) as (images, classes), got (3,)"),
    ({"logits": LOGITS[:0], "labels": LABELS[:0]}, ValueError, "`logits` holds no images"),
    ({"labels": LABELS + 1}, ValueError, "`labels` must lie from 0 to 2 (3 classes), got 1 to 3"),
    ({"labels": LABELS - 1}, ValueError, "`labels` must lie from 0 to 2 (3 classes), got -1 to 1"),
    (
        {"labels": np.full(4, 2**64 - 1, np.uint64)},
        ValueError,
        "`labels` must lie from 0 to 2 (3 classes), got 18446744073709551615",
    ),
)

RATE = "must be a finite number of at least 0, got"
SHARE = "must be a finite number from 0 to 1, got"
RATES = [
    ({"lr": NAN}, ValueError, f"`lr` {RATE} nan"),
    ({"lr": float("inf")}, ValueError, f"`lr` {RATE} inf"),
    ({"lr": -0.1}, ValueError, f"`lr` {RATE} -0.1"),
    ({"lr": "fast"}, TypeError, f"`lr` {RATE} 'fast'"),
    ({"lr": None}, TypeError, f"`lr` {RATE} None"),
    ({"lr": True}, TypeError, f"`lr` {RATE} True"),
    ({"lr": np.array([0.1, 0.2])}, TypeError, f"`lr` {RATE} an array of shape (2,)"),
    ({"weight_decay": -1}, ValueError, f"`weight_decay` {RATE} -1"),
    ({"weight_decay": 10**400}, ValueError, f"`weight_decay` {RATE} 1000"),
]
EPS = [({"eps": -1}, ValueError, f"`eps` {RATE} -1"), ({"eps": NAN}, ValueError, f"`eps` {RATE} nan")]
PARAMETERS = {"w": np.ones((2, 3), np.float32)}
GRADIENTS = {"w": np.ones((2, 3), np.float32)}
IN_PLACE = "must be a writable, C-contiguous array: it is updated in place"


def stepped():
    optimizer = Adam()
    optimizer.update({"w": np.ones((2, 3), np.float32)}, GRADIENTS)
    return optimizer


def read_only(a):
    a = a.copy()
    a.flags.writeable = False
    return a


def _set_rate(lr):
    Adam().lr = lr


OPTIMIZERS = [
    *rows(
        "jitconv.training.SGD",
        SGD,
        {},
        *RATES,
        ({"momentum": 1.5}, ValueError, f"`momentum` {SHARE} 1.5"),
        ({"momentum": "heavy"}, TypeError, f"`momentum` {SHARE} 'heavy'"),
        ({"momentum": np.ones(2)}, TypeError, f"`momentum` {SHARE} an array of shape (2,)"),
    ),
    *rows("jitconv.training.AdaGrad", AdaGrad, {}, *RATES, *EPS),
    *rows("jitconv.training.RMSProp", RMSProp, {}, *RATES, *EPS, ({"alpha": -1}, ValueError, f"`alpha` {SHARE} -1")),
    *rows("jitconv.training.Adadelta", Adadelta, {}, *RATES, *EPS, ({"rho": 2}, ValueError, f"`rho` {SHARE} 2")),
    *rows(
        "jitconv.training.Adam",
        Adam,
        {},
        *RATES,
        *EPS,
        ({"betas": 0.9}, ValueError, "`betas` must be a pair, got 0.9"),
        ({"betas": (0.9,)}, ValueError, "`betas` must be a pair, got (0.9,)"),
        ({"betas": (1.0, 0.9)}, ValueError, "`betas[0]` must be a finite number from 0 to 1, 1 excluded, got 1.0"),
        ({"betas": (0.9, "b")}, TypeError, "`betas[1]` must be a finite number from 0 to 1, 1 excluded, got 'b'"),
    ),
    *rows("jitconv.training.Optimizer", _set_rate, {}, *RATES[:5]),
    *rows(
        "jitconv.training.Optimizer",
        lambda **given: stepped().update(**given),
        {"parameters": PARAMETERS, "gradients": GRADIENTS},
        ({"parameters": [1]}, TypeError, "`parameters` must be a dict of arrays, got list"),
        ({"gradients": None}, TypeError, "`gradients` must be a dict of arrays, got NoneType"),
        ({"gradients": {}}, ValueError, "`gradients` lacks 'w'"),
        (
            {"gradients": {"w": np.ones((3, 2), np.float32)}},
            ValueError,
            "`gradient of w` must have the shape and dtype",
        ),
        ({"gradients": {"w": np.ones((2, 3))}}, ValueError, "`gradient of w` must have the shape and dtype of its"),
        ({"gradients": {"w": 1.0}}, TypeError, "`gradient of w` must be a NumPy array of float32 or float64"),
        ({"parameters": {"w": np.ones((2, 3), int)}}, TypeError, "`w` has dtype int64, but only float32 and float64"),
        ({"parameters": {"w": np.ones((3, 2), np.float32).T}}, ValueError, f"`w` {IN_PLACE}"),
        ({"parameters": {"w": read_only(PARAMETERS["w"])}}, ValueError, f"`w` {IN_PLACE}"),
        (
            {"parameters": {"w": np.ones(4, np.float32)}, "gradients": {"w": np.ones(4, np.float32)}},
            ValueError,
            "`w` is (4,) float32, but was (2, 3) float32 at the steps before",
        ),
    ),
    *rows(
        "jitconv.training.Optimizer",
        lambda **given: Adam().load_state(**given),
        {"state": {"steps": np.array(0)}, "parameters": PARAMETERS},
        ({"state": []}, TypeError, "`state` must be a dict of arrays, got list"),
        ({"state": {}}, ValueError, "`state` does not fit this optimizer: it lacks 'steps'"),
        ({"state": {"steps": "many"}}, ValueError, "`state` does not fit this optimizer: 'steps' is () <U4, expected"),
        ({"state": {"steps": np.array(-1)}}, ValueError, "`state` does not fit this optimizer: 'steps' is -1"),
        ({"state": {"steps": np.array(2)}}, ValueError, "`state` does not fit this optimizer: it lacks 'first.w', "),
        ({"state": {"steps": np.array(0), "x": 1}}, ValueError, "`state` does not fit this optimizer: it also has 'x'"),
        ({"parameters": None}, TypeError, "`parameters` must be a dict of arrays, got NoneType"),
    ),
]


def network():
    return Sequential([Flatten(), Dense(4, 3, seed=0)], needs_input_gradient=False)


def trainer():
    return Trainer(network(), SGD())


STATE = network().state()
NETWORKS = [
    *rows(
        "jitconv.training.Sequential",
        Sequential,
        {"layers": []},
        ({"layers": Flatten()}, TypeError, "`layers` must be a list of layers, got Flatten"),
        ({"layers": None}, TypeError, "`layers` must be a list of layers, got NoneType"),
        ({"layers": [Flatten(), Dense]}, TypeError, "`layers`[1] must be a layer, got ABCMeta"),
        ({"needs_input_gradient": 0}, TypeError, "`needs_input_gradient` must be True or False, got 0"),
    ),
    *(
        row
        for layers in ([], [Dropout(seed=0)], [Flatten()], [Conv2d(4, 6, 3, seed=0)])
        for row in rows(
            "jitconv.training.Sequential",
            Sequential(layers).forward,
            {},
            *not_floats("x", X),
        )
    ),
    *rows(
        "jitconv.training.Sequential",
        lambda **given: Sequential([Conv2d(4, 6, 3, seed=0)]).forward(**given),
        {},
        ({"x": X[:, :2]}, ValueError, "`w` has 4 input channels, but `x` has 2 (groups=1)"),
        ({"x": X[0, 0]}, ValueError, "`x` must have the axes NCHW or, for one image, CHW, got 2 dimensions"),
    ),
    *rows(
        "jitconv.training.Sequential",
        lambda **given: network().backward(**given),
        {},
        ({"dy": LOGITS}, RuntimeError, "Sequential.backward was called before Sequential.forward"),
    ),
    *rows(
        "jitconv.training.Sequential",
        lambda **given: network().summary(**given),
        {},
        ({"x_shape": 4}, TypeError, "`x_shape` must be a tuple of sizes, got 4"),
        ({"x_shape": (4, -1, 2, 2)}, ValueError, "`x_shape` must be an integer of at least 0, got -1"),
        ({"x_shape": (2**31 - 1,) * 4}, ValueError, "`x_shape` is too large for an array"),
        ({"x_shape": (4, 1, 3, 3)}, ValueError, "`x` must have shape (any, 4) as (N, in_features), got (4, 9)"),
    ),
    *rows(
        "jitconv.training.Sequential",
        lambda **given: network().load_state(**given),
        {"state": STATE},
        ({"state": []}, TypeError, "`state` must be a dict of arrays, got list"),
        ({"state": {}}, ValueError, "`state` does not fit this network: it lacks '1.bias', '1.weight'"),
        ({"state": STATE | {"2.weight": 1}}, ValueError, "`state` does not fit this network: it also has '2.weight'"),
        ({"state": STATE | {1: 1}}, ValueError, "`state` does not fit this network: it also has '1'"),
        ({"state": STATE | {"1.bias": np.ones(3)}}, ValueError, "`state` does not fit this network: '1.bias' is (3,)"),
        ({"state": STATE | {"1.bias": [[1], [1, 2]]}}, ValueError, "`state` must be an array, got list of uneven"),
        (
            {"state": STATE | {"1.bias": np.ma.ones(3, np.float32)}},
            TypeError,
            "`state` is a masked array, whose mask would be ignored",
        ),
    ),
    *(
        row
        for name in zoo.MODELS
        for row in rows(
            "jitconv.training.zoo",
            zoo.MODELS[name],
            {},
            ({"input_shape": (1, 1, 1)}, ValueError, f"`input_shape` (1, 1, 1) is too small for {name}"),
            ({"classes": 0}, ValueError, "`classes` must be an integer of at least 1, got 0"),
        )
    ),
    *rows(
        "jitconv.training.zoo",
        zoo.deep_convnet,
        {},
        *SEEDS,
        ({"input_shape": (1, 28)}, ValueError, "`input_shape` must be (channels, height, width), got (1, 28)"),
        ({"input_shape": 28}, ValueError, "`input_shape` must be (channels, height, width), got 28"),
        ({"input_shape": (1, 2**31 - 1, 2**31 - 1)}, ValueError, "`input_shape` (1, 2147483647, 2147483647) leaves"),
        ({"input_shape": (0, 28, 28)}, ValueError, "`input_shape` must be an integer of at least 1, got 0"),
        ({"dropout": -0.5}, ValueError, f"`dropout` {SHARE} -0.5"),
        ({"dtype": int}, TypeError, "`dtype` must be float32 or float64, got <class 'int'>"),
        ({"layout": "NHCW"}, ValueError, f"{LAYOUTS} 'NHCW'"),
        ({"algorithm": "fast"}, ValueError, "`algorithm` must be one of 'auto', 'direct', 'im2col', 'winograd'"),
    ),
]
FIT = {"x": IMAGES, "labels": LABELS, "epochs": 1}
TRAINER = [
    *rows(
        "jitconv.training.Trainer",
        Trainer,
        {"model": network(), "optimizer": SGD()},
        ({"model": None}, TypeError, "`model` must be a layer, got NoneType"),
        ({"model": [Flatten()]}, TypeError, "`model` must be a layer, got list"),
        ({"optimizer": "adam"}, TypeError, "`optimizer` must be an Optimizer, got str"),
        ({"optimizer": Adam}, TypeError, "`optimizer` must be an Optimizer, got ABCMeta"),
    ),
    *rows(
        "jitconv.training.Trainer",
        lambda **given: trainer().fit(**given),
        FIT,
        *not_floats("x", IMAGES),
        *WRONG_LABELS,
        ({"labels": LABELS - 1}, ValueError, "`labels` must lie from 0 on, got -1 to 1"),
        ({"labels": LABELS + 1}, ValueError, "`labels` must lie from 0 to 2 (3 classes), got 1 to 3"),
        ({"x": IMAGES[:0], "labels": LABELS[:0]}, ValueError, "`x` holds no images: the mean over them is undefined"),
        ({"x": IMAGES[..., :1]}, ValueError, "`x` must have shape (any, 4) as (N, in_features), got (4, 2)"),
        ({"epochs": -1}, ValueError, "`epochs` must be an integer of at least 0, got -1"),
        ({"epochs": 1.5}, TypeError, "`epochs` must be an integer of at least 0, got 1.5"),
        ({"batch_size": 0}, ValueError, "`batch_size` must be an integer of at least 1, got 0"),
        ({"seed": -1}, ValueError, "`seed` must be an integer of at least 0, got -1"),
        ({"seed": NAN}, TypeError, "`seed` must be an integer of at least 0, got nan"),
        ({"test": IMAGES}, ValueError, "`test` must be a pair, got an array of shape (4, 1, 2, 2)"),
        ({"test": (IMAGES, LABELS[:2])}, ValueError, "`test[1]` must have shape (4,), one class for each image"),
        ({"test": (None, LABELS)}, TypeError, "`test[0]` must be a NumPy array of float32 or float64, got NoneType"),
        ({"test": (IMAGES[:0], LABELS[:0])}, ValueError, "`test[0]` holds no images"),
        ({"on_step": 1}, TypeError, "`on_step` must be a function or None, got 1"),
        ({"on_epoch": "print"}, TypeError, "`on_epoch` must be a function or None, got 'print'"),
        ({"on_test_batch": 1}, TypeError, "`on_test_batch` must be a function or None, got 1"),
    ),
    *rows(
        "jitconv.training.Trainer",
        lambda **given: trainer().step(**given),
        {"x": IMAGES, "labels": LABELS},
        *WRONG_LABELS,
        ({"x": IMAGES.tolist()}, TypeError, "`x` must be a NumPy array of float32 or float64, got list"),
        ({"labels": LABELS + 7}, ValueError, "`labels` must lie from 0 to 2 (3 classes), got 7 to 9"),
    ),
    *rows(
        "jitconv.training.Trainer",
        lambda **given: trainer().predict(**given),
        {"x": IMAGES},
        *not_floats("x", IMAGES),
        ({"x": IMAGES[:, 0, 0, 0]}, ValueError, "`x` must have a batch axis and at least one more, got shape (4,)"),
        ({"batch_size": 2.5}, TypeError, "`batch_size` must be an integer of at least 1, got 2.5"),
    ),
    *(
        row
        for method in ("evaluate", "accuracy")
        for row in rows(
            "jitconv.training.Trainer", getattr(trainer(), method), {"x": IMAGES, "labels": LABELS}, *WRONG_LABELS
        )
    ),
]

NO_NPZ = "expected an .npz file with arrays x and y, but it"
IDX = "expected an IDX file of images"


def _file(name, rest, kind=DataError):
    return {"source": InFolder(name)}, kind, f"{{folder}}/{name}: {rest}"


def _mnist(name, rest):
    return {"source": InFolder(name)}, DataError, f"{{folder}}/{name}/{MNIST_FILES[0]}{rest}"


PATHS = [
    (5, TypeError, "must be a path, got 5"),
    (b"images.npz", TypeError, "must be a path, got b'images.npz'"),
    (["images.npz"], TypeError, "must be a path, got ['images.npz']"),
    ("a\0b", ValueError, "must be a path without null characters, got 'a\\x00b'"),
]
DATA = [
    *rows(
        "jitconv.training.data",
        data.load,
        {"source": InFolder("images.npz")},
        *(({"source": value}, error, f"`source` {words}") for value, error, words in PATHS),
        ({"dtype": np.float16}, TypeError, "`dtype` must be float32 or float64, got"),
        ({"source": None, "dtype": int}, TypeError, "`dtype` must be float32 or float64, got <class 'int'>"),
        _file("missing.npz", "expected a folder of MNIST or CIFAR-10 files, or an .npz file, but there is none"),
        _file("nothing", "expected the four files of MNIST"),
        _file("empty.npz", f"{NO_NPZ} cannot be read"),
        _file("text.npz", f"{NO_NPZ} cannot be read"),
        _file("cut.npz", f"{NO_NPZ} cannot be read"),
        _file("encrypted.npz", f"{NO_NPZ} cannot be read"),
        _file("objects.npz", f"{NO_NPZ} cannot be read: Object arrays cannot be loaded"),
        _file("weights.safetensors", f"{NO_NPZ} cannot be read"),
        _file("one.npz", f"{NO_NPZ} is a single array"),
        _file("no_labels.npz", "expected an array `y`, but the file holds x"),
        _file("flat.npz", "`x` must have the axes (N, C, H, W) or (N, H, W), got shape (8, 8)"),
        _file("nan.npz", "`x` holds NaN or infinity"),
        _file("large.npz", "`x` holds numbers that are too large for float32"),
        _file("complex.npz", "`x` must hold numbers, got dtype complex128"),
        _file("float_labels.npz", "`y` must hold one integer for each of the 60 images in `x`"),
        _file("few_labels.npz", "`y` must hold one integer for each of the 60 images in `x`, got shape (5,)"),
        _file("negative_labels.npz", "labels must be integers from 0, fewer than there are images, got -1 to 0"),
        _file("many_labels.npz", "labels must be integers from 0, fewer than there are images, got 0 to 1000"),
        _file("no_images.npz", "there are no images to train on"),
        _mnist("mnist_cut", ": expected 320 bytes of images (20, 4, 4) after the header, found 313"),
        _mnist("mnist_long", ": expected 320 bytes of images (20, 4, 4) after the header, found more"),
        _mnist("mnist_absurd", ": expected 79228162458924105385300197375 bytes of images"),
        _mnist("mnist_no_pixels", f": {IDX[:8]} images, but it holds none: (20, 0, 4294967295)"),
        _mnist("mnist_labels", f": {IDX}, which starts with 0x00000803"),
        _mnist("mnist_short", f": {IDX}, but it cannot be read"),
        _mnist("mnist_gz", ".gz: expected 347892350895 bytes of images"),
        (
            {"source": InFolder("mnist_missing")},
            DataError,
            f"{{folder}}/mnist_missing/{MNIST_FILES[1]}: no such file (nor with .gz)",
        ),
        *(
            (
                {"source": InFolder(name)},
                DataError,
                f"{{folder}}/{name}/{CIFAR_FILES[0]}: expected a Python batch of CIFAR-10, but it cannot be read",
            )
            for name in ("cifar_garbage", "cifar_command")
        ),
    ),
    *(
        row
        for reader, argument in ((data.mnist, "folder"), (data.cifar10, "folder"), (data.npz, "path"))
        for row in rows(
            "jitconv.training.data",
            reader,
            {},
            *(({argument: value}, error, f"`{argument}` {words}") for value, error, words in PATHS),
            ({argument: InFolder("nothing"), "dtype": "int8"}, TypeError, "`dtype` must be float32 or float64, got"),
            ({argument: InFolder("nothing")}, DataError, "{folder}/nothing"),
        )
    ),
]


def _weights(name, rest):
    return {"path": InFolder(name)}, CheckpointError, f"{{folder}}/{name}: {rest}"


NOT_OURS = "a safetensors file, but not one that `jitconv train --save` wrote"
WEIGHTS = [
    *rows(
        "jitconv.training.checkpoint",
        checkpoint.load,
        {},
        *(({"path": value}, error, f"`path` {words}") for value, error, words in PATHS),
        ({"path": None}, TypeError, "`path` must be a path, got None"),
        _weights("missing", "no such file; expected one that `jitconv train --save` wrote"),
        _weights("nothing", "no such file; expected one that `jitconv train --save` wrote"),
        *(
            _weights(f"{name}.safetensors", "expected a safetensors file, but it cannot be read")
            for name in ("empty", "text", "cut", "absurd")
        ),
        _weights("images.npz", "expected a safetensors file, but it cannot be read"),
        *(_weights(f"{name}.safetensors", NOT_OURS) for name in ("others", "deep", "infinite", "position")),
    ),
    *rows(
        "jitconv.training.checkpoint",
        checkpoint.save,
        {"path": InFolder("new.safetensors"), "trainer": trainer()},
        *(({"path": value}, error, f"`path` {words}") for value, error, words in PATHS),
        ({"trainer": network()}, TypeError, "`trainer` must be a Trainer, got Sequential"),
        ({"trainer": None}, TypeError, "`trainer` must be a Trainer, got NoneType"),
        ({"trainer": Trainer(Flatten(), SGD())}, TypeError, "`trainer` must be of a Sequential network, got one of"),
        ({"options": 3}, TypeError, "`options` must be a dict, got int"),
        ({"options": {"x": X}}, ValueError, "`options` must hold what JSON can"),
    ),
    *rows(
        "jitconv.training.checkpoint",
        lambda path: checkpoint.load(path).restore(trainer()),
        {},
        ({"path": InFolder("weights.safetensors")}, ValueError, "`state` does not fit this network: it lacks"),
    ),
]

ROWS = [*LOSSES, *OPTIMIZERS, *NETWORKS, *TRAINER, *DATA, *WEIGHTS]
