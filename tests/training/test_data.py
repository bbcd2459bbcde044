"""Images from files that the tests make: whole, damaged and missing ones."""

from __future__ import annotations

import gzip
import pickle
import struct

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from jitconv.layers import Dense, Flatten
from jitconv.training import SGD, Sequential, Trainer, data
from jitconv.training.data import CIFAR_FILES, MNIST_FILES, NPY_FILES, DataError


def test_digits(digits):
    assert digits.x.shape == (4000, 1, 28, 28)
    assert digits.x_test.shape == (1000, 1, 28, 28)
    assert digits.image_shape == (1, 28, 28)
    assert digits.classes == 10
    assert digits.x.dtype == np.float32
    assert digits.x.min() == 0
    assert digits.x.max() == 1
    assert_array_equal(np.bincount(digits.labels), [400] * 10)
    assert_array_equal(np.bincount(digits.labels_test), [100] * 10)


def test_no_image_is_on_both_sides(digits):
    seen = {image.tobytes() for image in digits.x}
    assert not any(image.tobytes() in seen for image in digits.x_test)


def idx(array):
    return struct.pack(f">{1 + array.ndim}I", 0x0800 + array.ndim, *array.shape) + array.tobytes()


@pytest.fixture
def mnist_arrays(rng):
    """Return the four arrays of a small MNIST, in the order of the files."""
    return [
        rng.integers(0, 256, (20, 9, 8), np.uint8),
        rng.integers(0, 5, 20, np.uint8),
        rng.integers(0, 256, (6, 9, 8), np.uint8),
        rng.integers(0, 5, 6, np.uint8),
    ]


def write_mnist(folder, arrays, spelling=lambda name: name):
    for name, array in zip(MNIST_FILES, arrays, strict=True):
        path = folder / spelling(name)
        if path.suffix == ".gz":
            path.write_bytes(gzip.compress(idx(array)))
        else:
            path.write_bytes(idx(array))


@pytest.mark.parametrize(
    "spelling",
    [
        lambda name: name,
        lambda name: name.replace("-idx", ".idx"),
        lambda name: f"{name}.gz",
        lambda name: name.replace("-idx", ".idx") + ".gz",
    ],
    ids=["plain", "dotted", "gz", "dotted gz"],
)
def test_mnist(tmp_path, mnist_arrays, spelling, dtype):
    write_mnist(tmp_path, mnist_arrays, spelling)
    x, labels, x_test, labels_test = mnist_arrays
    got = data.load(tmp_path, dtype)
    assert got.x.dtype == got.x_test.dtype == dtype
    assert_allclose(got.x, x[:, None] / 255, rtol=1e-6)
    assert_allclose(got.x_test, x_test[:, None] / 255, rtol=1e-6)
    assert_array_equal(got.labels, labels)
    assert_array_equal(got.labels_test, labels_test)
    assert got.labels.dtype == np.int64
    assert got.classes == max(labels.max(), labels_test.max()) + 1


@pytest.mark.parametrize("which", MNIST_FILES)
def test_mnist_without_a_file(tmp_path, mnist_arrays, which):
    write_mnist(tmp_path, mnist_arrays)
    (tmp_path / which).unlink()
    with pytest.raises(DataError, match=rf"{which}: no such file \(nor with .gz\); expected the four files"):
        data.load(tmp_path)


def labels_header(count, magic=0x0801):
    return struct.pack(">2I", magic, count)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "expected an IDX file of labels, which starts with 0x00000801"),
        (labels_header(20, 0x0803) + bytes(20), "which starts with 0x00000801"),
        (labels_header(20) + bytes(19), r"expected 20 bytes of labels \(20,\) after the header, found 19"),
        (labels_header(20) + bytes(21), r"expected 20 bytes of labels \(20,\) after the header, found more"),
        (
            labels_header(2**32 - 1),
            r"expected 4294967295 bytes of labels \(4294967295,\) after the header, found 0",
        ),
        (labels_header(19) + bytes(19), "holds 20 images, but train-labels-idx1-ubyte holds 19 labels"),
        (labels_header(20) + bytes([30] * 20), "labels must be integers from 0, fewer than there are images"),
    ],
)
def test_damaged_mnist(tmp_path, mnist_arrays, content, message):
    write_mnist(tmp_path, mnist_arrays)
    (tmp_path / MNIST_FILES[1]).write_bytes(content)
    with pytest.raises(DataError, match=message):
        data.load(tmp_path)


@pytest.mark.parametrize("cut", [lambda whole: whole[:-9], lambda whole: whole[:5], lambda whole: b"no gzip" * 9])
def test_damaged_gz(tmp_path, mnist_arrays, cut):
    write_mnist(tmp_path, mnist_arrays, lambda name: f"{name}.gz")
    path = tmp_path / f"{MNIST_FILES[0]}.gz"
    path.write_bytes(cut(path.read_bytes()))
    with pytest.raises(DataError, match=rf"{path.name}: expected an IDX file of images, but it cannot be read"):
        data.load(tmp_path)


def test_mnist_of_two_sizes(tmp_path, mnist_arrays):
    mnist_arrays[2] = mnist_arrays[2][:, :7]
    write_mnist(tmp_path, mnist_arrays)
    with pytest.raises(DataError, match="train-images-idx3-ubyte are 9x8, those of t10k-images-idx3-ubyte are 7x8"):
        data.load(tmp_path)


def test_folder_of_something_else(tmp_path):
    with pytest.raises(DataError, match=r"expected the four files of MNIST .* or the six of CIFAR-10"):
        data.load(tmp_path)


@pytest.fixture
def cifar_batches(rng):
    """Return six small batches of CIFAR-10."""
    return [
        {b"data": rng.integers(0, 256, (4, 3072), np.uint8), b"labels": rng.integers(0, 10, 4).tolist()}
        for _ in CIFAR_FILES
    ]


def write_cifar(folder, batches, protocol=2):
    for name, batch in zip(CIFAR_FILES, batches, strict=True):
        (folder / name).write_bytes(pickle.dumps(batch, protocol))


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_cifar10(tmp_path, cifar_batches, protocol, dtype):
    write_cifar(tmp_path, cifar_batches, protocol)
    got = data.load(tmp_path, dtype)
    pixels = np.concatenate([batch[b"data"] for batch in cifar_batches[:5]])
    assert got.x.dtype == dtype
    assert_allclose(got.x, pixels.reshape(20, 3, 32, 32) / 255, rtol=1e-6)
    assert_array_equal(got.labels, np.concatenate([batch[b"labels"] for batch in cifar_batches[:5]]))
    assert_allclose(got.x_test[1, 2, 3, 4] * 255, cifar_batches[5][b"data"][1, 2 * 1024 + 3 * 32 + 4], rtol=1e-6)
    assert_array_equal(got.labels_test, cifar_batches[5][b"labels"])


def test_cifar10_as_python_2_wrote_it(tmp_path, cifar_batches):
    """In the real files data were pickled as Python 2's byte strings, under numpy.core."""
    for name, batch in zip(CIFAR_FILES, cifar_batches, strict=True):
        pixels = batch[b"data"]
        state = f"(I1\n(I{len(pixels)}\nI3072\ntp1\ncnumpy\ndtype\np2\n(S'u1'\nI0\nI1\ntRp3\n".encode()
        state += b"(I3\nS'|'\nNNNI-1\nI-1\nI0\ntbI00\nS" + repr(pixels.tobytes())[1:].encode("latin1") + b"\ntb"
        array = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR" + state
        labels = b"(l" + b"".join(b"I%d\na" % label for label in batch[b"labels"])
        (tmp_path / name).write_bytes(b"(dS'data'\n" + array + b"sS'labels'\n" + labels + b"s.")
    got = data.load(tmp_path)
    assert_allclose(got.x_test * 255, cifar_batches[5][b"data"].reshape(-1, 3, 32, 32), rtol=1e-6)


class Evil:
    """Runs a command when it is unpickled."""

    def __reduce__(self):
        return print, ("executed",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (Evil(), "but it cannot be read: it asks for builtins.print"),
        (np.float64, "but it cannot be read: it asks for numpy.float64"),
        ([1], "expected a Python batch of CIFAR-10, a dictionary, but it holds list"),
        ({b"data": np.zeros((4, 3072)), b"labels": [1] * 4}, r"whose data are \(N, 3072\) bytes"),
        ({b"data": np.zeros((4, 99), np.uint8), b"labels": [1] * 4}, r"whose data are \(N, 3072\) bytes"),
        ({b"labels": [1] * 4}, r"whose data are \(N, 3072\) bytes"),
        (
            {b"data": np.zeros((2, 3072), np.uint8), b"labels": [1]},
            "one number from 0 to 9 for each of the 2 images",
        ),
        ({b"data": np.zeros((1, 3072), np.uint8), b"labels": [10]}, "one number from 0 to 9"),
        ({b"data": np.zeros((1, 3072), np.uint8), b"labels": ["cat"]}, "one number from 0 to 9"),
        ({b"data": np.zeros((1, 3072), np.uint8)}, "one number from 0 to 9"),
    ],
)
def test_damaged_cifar10(tmp_path, cifar_batches, content, message, capsys):
    write_cifar(tmp_path, cifar_batches)
    (tmp_path / "data_batch_3").write_bytes(pickle.dumps(content))
    with pytest.raises(DataError, match=f"data_batch_3: .*{message}"):
        data.load(tmp_path)
    assert not capsys.readouterr().out


def test_cut_and_missing_cifar10(tmp_path, cifar_batches):
    write_cifar(tmp_path, cifar_batches)
    path = tmp_path / "test_batch"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match="test_batch: expected a Python batch of CIFAR-10, but it cannot be read"):
        data.load(tmp_path)
    path.unlink()
    with pytest.raises(DataError, match="test_batch: no such file; expected the six Python batches of CIFAR-10"):
        data.load(tmp_path)


def test_npz_of_bytes_and_of_floats(tmp_path, rng, dtype):
    x, y = rng.integers(0, 256, (30, 8, 7), np.uint8), rng.integers(0, 3, 30)
    x_test, y_test = rng.integers(0, 256, (9, 8, 7), np.uint8), rng.integers(0, 3, 9)
    np.savez(tmp_path / "bytes.npz", x=x, y=y, x_test=x_test, y_test=y_test)
    got = data.load(tmp_path / "bytes.npz", dtype)
    assert got.x.dtype == dtype
    assert_allclose(got.x, x[:, None] / 255, rtol=1e-6)
    assert_allclose(got.x_test, x_test[:, None] / 255, rtol=1e-6)
    assert_array_equal(got.labels_test, y_test)
    floats = rng.standard_normal((30, 2, 8, 7))
    np.savez_compressed(tmp_path / "floats.npz", x=floats, y=y, x_test=floats[:4], y_test=y[:4])
    assert_array_equal(data.load(tmp_path / "floats.npz", dtype).x, floats.astype(dtype))


def test_npz_without_test_images_holds_a_fifth_out(tmp_path):
    y = np.repeat([0, 1, 2], [10, 17, 4])
    x = np.arange(31.0)[:, None, None] * np.ones((31, 5, 5))
    np.savez(tmp_path / "images.npz", x=x, y=y)
    one, two = data.load(tmp_path / "images.npz"), data.load(tmp_path / "images.npz")
    assert_array_equal(np.bincount(one.labels_test, minlength=3), [2, 3, 0])
    assert_array_equal(np.sort(np.concatenate([one.x, one.x_test])[:, 0, 0, 0]), np.arange(31))
    assert_array_equal(one.x_test, two.x_test)
    for number, label in zip(one.x[:, 0, 0, 0].astype(int), one.labels, strict=True):
        assert y[number] == label


IMAGES, LABELS = np.zeros((12, 5, 5)), np.array([0, 1] * 6)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": IMAGES}, "expected an array `y`, but the file holds x"),
        ({"images": IMAGES, "y": LABELS}, "expected an array `x`, but the file holds images, y"),
        ({"x": IMAGES, "y": LABELS, "x_test": IMAGES}, "expected an array `y_test`"),
        (
            {"x": IMAGES[0], "y": LABELS},
            r"`x` must have the axes \(N, C, H, W\) or \(N, H, W\), got shape \(5, 5\)",
        ),
        ({"x": IMAGES[:, :0], "y": LABELS}, r"`x` must have the axes .* got shape \(12, 0, 5\)"),
        ({"x": IMAGES.astype(complex), "y": LABELS}, "`x` must hold numbers, got dtype complex128"),
        ({"x": IMAGES, "y": LABELS[:5]}, "`y` must hold one integer for each of the 12 images in `x`"),
        ({"x": IMAGES, "y": LABELS * 1.0}, "got shape .* and dtype float64"),
        ({"x": IMAGES.astype(int) + 256, "y": LABELS}, "`x` holds integers outside 0 to 255"),
        ({"x": IMAGES + np.nan, "y": LABELS}, "`x` holds NaN or infinity"),
        (
            {"x": IMAGES, "y": LABELS - 1},
            "labels must be integers from 0, fewer than there are images, got -1 to 0",
        ),
        ({"x": IMAGES, "y": LABELS * 10**6}, "got 0 to 1000000"),
        ({"x": IMAGES[:4], "y": LABELS[:4]}, "there are no images to test on"),
        ({"x": IMAGES[:0], "y": LABELS[:0]}, "there are no images to train on"),
        ({"x": IMAGES, "y": LABELS, "x_test": IMAGES[:, 1:], "y_test": LABELS}, "images of different shapes"),
        ({"x": np.array([{}] * 12), "y": LABELS}, "cannot be read: Object arrays cannot be loaded"),
    ],
)
def test_npz_that_does_not_fit(tmp_path, arrays, message):
    np.savez(tmp_path / "images.npz", **arrays)
    with pytest.raises(DataError, match=f"images.npz: .*{message}"):
        data.load(tmp_path / "images.npz")


@pytest.mark.parametrize(
    "spoil",
    [
        lambda whole: b"",
        lambda whole: b"plain text",
        lambda whole: whole[: len(whole) // 2],
        lambda whole: whole[:200] + b"\xff" * 400 + whole[600:],
    ],
    ids=["empty", "text", "cut", "overwritten"],
)
def test_damaged_npz(tmp_path, rng, spoil):
    path = tmp_path / "images.npz"
    np.savez_compressed(path, x=rng.standard_normal((12, 5, 5)), y=LABELS)
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(DataError, match=r"images.npz: expected an .npz file with arrays x and y, but it cannot be"):
        data.load(path)


def test_a_single_array_and_no_file(tmp_path):
    with (tmp_path / "one.npz").open("wb") as file:
        np.save(file, IMAGES)
    with pytest.raises(DataError, match=r"one.npz: expected an .npz file .*, but it is a single array"):
        data.load(tmp_path / "one.npz")
    with pytest.raises(DataError, match=r"none.npz: expected a folder of MNIST or CIFAR-10 files, or an .npz file"):
        data.load(tmp_path / "none.npz")
    with pytest.raises(DataError, match=r"aaa: expected a folder of MNIST or CIFAR-10 files, or an .npz file"):
        data.load(tmp_path / ("a" * 300))


@pytest.fixture
def npy_folder(tmp_path, rng):
    """Return a folder of four .npy files of float32."""
    arrays = rng.random((20, 3, 5, 4), np.float32), rng.integers(0, 4, 20), rng.random((6, 3, 5, 4), np.float32)
    for name, a in zip(NPY_FILES, (*arrays, rng.integers(0, 4, 6)), strict=True):
        np.save(tmp_path / name, a)
    return tmp_path


def test_npy_stays_on_disk(npy_folder):
    got = data.load(npy_folder)
    for images, name in ((got.x, "x.npy"), (got.x_test, "x_test.npy")):
        assert isinstance(images, np.memmap)
        assert_array_equal(images, np.load(npy_folder / name))
    assert got.labels.dtype == got.labels_test.dtype == np.int64
    assert_array_equal(got.labels, np.load(npy_folder / "y.npy"))
    trainer = Trainer(Sequential([Flatten(), Dense(60, 4, seed=0)]), SGD(0.1))
    trainer.fit(got.x, got.labels, epochs=1, batch_size=7, test=(got.x_test, got.labels_test))
    plain = Trainer(Sequential([Flatten(), Dense(60, 4, seed=0)]), SGD(0.1))
    plain.fit(np.array(got.x), got.labels, epochs=1, batch_size=7, test=(np.array(got.x_test), got.labels_test))
    assert trainer.history[0][:3] == plain.history[0][:3]


def test_npy_of_another_dtype_is_what_an_npz_is(npy_folder, rng):
    x = rng.integers(0, 256, (20, 5, 4), np.uint8)
    for name in ("x.npy", "x_test.npy"):
        np.save(npy_folder / name, x if name == "x.npy" else x[:6])
    got = data.load(npy_folder, np.float64)
    assert_allclose(got.x, x[:, None] / 255)
    np.save(npy_folder / "x.npy", np.full((20, 5, 4), np.nan))
    with pytest.raises(DataError, match="`x` holds NaN or infinity"):
        data.load(npy_folder)
    np.save(npy_folder / "x.npy", np.zeros((20, 5, 3), np.float32))
    with pytest.raises(DataError, match="images of different shapes"):
        data.load(npy_folder)


def test_damaged_npy(npy_folder):
    whole = (npy_folder / "x.npy").read_bytes()
    for content in (b"", whole[:-4], b"\x93NUMPY and more"):
        (npy_folder / "x.npy").write_bytes(content)
        with pytest.raises(DataError, match=r"x.npy: expected an .npy file, but it cannot be read: "):
            data.load(npy_folder)
    (npy_folder / "x.npy").unlink()
    with pytest.raises(DataError, match=r"x.npy: no such file; expected x.npy, y.npy, x_test.npy, y_test.npy"):
        data.load(npy_folder)
