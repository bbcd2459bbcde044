"""Files that are wrong, and a few that are right, for the calls and the commands that read files."""

from __future__ import annotations

import gzip
import json
import struct

import numpy as np
from safetensors.numpy import load_file, save_file

from jitconv.training import Adam, Trainer, checkpoint, zoo
from jitconv.training.data import CIFAR_FILES, MNIST_FILES

OPTIONS = {
    "model": "simple_convnet",
    "data": None,
    "epochs": 3,
    "batch_size": 12,
    "optimizer": "adam",
    "lr": 0.001,
    "seed": 0,
    "dtype": "float32",
}
BEYOND = 2**32 - 1


def make(folder):
    """Fill a folder."""
    _make_npz(folder)
    _make_idx(folder)
    _make_cifar(folder)
    _make_weights(folder)
    (folder / "nothing").mkdir()


def _make_npz(folder):
    x, y = np.random.default_rng(0).uniform(0, 1, (60, 8, 8)), np.arange(60) % 2
    np.savez(folder / "images.npz", x=x, y=y)
    whole = (folder / "images.npz").read_bytes()
    with (folder / "one.npz").open("wb") as file:
        np.save(file, x)
    (folder / "empty.npz").write_bytes(b"")
    (folder / "text.npz").write_text("x,y\n1,2\n")
    (folder / "cut.npz").write_bytes(whole[: len(whole) // 2])
    # Bit 0 of the flags of every entry says that it is encrypted.
    spoilt = bytearray(whole)
    for mark, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        place = whole.find(mark)
        while place >= 0:
            spoilt[place + at] |= 1
            place = whole.find(mark, place + 1)
    (folder / "encrypted.npz").write_bytes(spoilt)
    for name, arrays in {
        "objects": {"x": np.array([{}] * 60), "y": y},
        "no_labels": {"x": x},
        "flat": {"x": x[0], "y": y},
        "nan": {"x": x * np.nan, "y": y},
        "large": {"x": x + 1e300, "y": y},
        "complex": {"x": x * 1j, "y": y},
        "float_labels": {"x": x, "y": y / 2},
        "negative_labels": {"x": x, "y": y - 1},
        "many_labels": {"x": x, "y": y * 1000},
        "few_labels": {"x": x, "y": y[:5]},
        "no_images": {"x": x[:0], "y": y[:0]},
    }.items():
        np.savez(folder / f"{name}.npz", **arrays)


def _idx(shape, body, magic=0x0800):
    return struct.pack(f">{1 + len(shape)}I", magic + len(shape), *shape) + body


def _make_idx(folder):
    images, labels = _idx((20, 4, 4), bytes(320)), _idx((20,), bytes(20))
    right = dict(zip(MNIST_FILES, (images, labels, images, labels), strict=True))
    for name, content in {
        "mnist_cut": images[:-7],
        "mnist_long": images + b"more",
        "mnist_absurd": _idx((BEYOND, BEYOND, BEYOND), bytes(100)),
        "mnist_no_pixels": _idx((20, 0, BEYOND), b""),
        "mnist_labels": labels,
        "mnist_short": b"\x00",
    }.items():
        made = folder / name
        made.mkdir()
        for file, bytes_ in (right | {MNIST_FILES[0]: content}).items():
            (made / file).write_bytes(bytes_)
    packed = folder / "mnist_gz"
    packed.mkdir()
    for file, bytes_ in (right | {MNIST_FILES[0]: _idx((BEYOND, 9, 9), b"")}).items():
        (packed / f"{file}.gz").write_bytes(gzip.compress(bytes_))
    missing = folder / "mnist_missing"
    missing.mkdir()
    (missing / MNIST_FILES[0]).write_bytes(images)


def _make_cifar(folder):
    for name, content in {"cifar_garbage": b"\x80\x04garbage", "cifar_command": b"cos\nsystem\n(S'true'\ntR."}.items():
        made = folder / name
        made.mkdir()
        for file in CIFAR_FILES:
            (made / file).write_bytes(content)


def _make_weights(folder):
    model = zoo.simple_convnet(input_shape=(1, 8, 8), classes=2, seed=0)
    path = folder / "weights.safetensors"
    checkpoint.save(path, Trainer(model, Adam()), OPTIONS)
    whole, tensors = path.read_bytes(), load_file(path)
    (folder / "empty.safetensors").write_bytes(b"")
    (folder / "text.safetensors").write_text("weights\n" * 99)
    (folder / "cut.safetensors").write_bytes(whole[: len(whole) // 2])
    (folder / "absurd.safetensors").write_bytes(struct.pack("<Q", 2**63) + b"{}")
    save_file({"weight": np.zeros(3)}, folder / "others.safetensors")
    save_file(tensors | {"optimizer.steps": np.array(-4)}, folder / "negative.safetensors", _metadata())
    for name, metadata in {
        "deep": {"jitconv": "[" * 100_000},
        "infinite": _metadata(progress={"epoch": float("inf")}),
        "list_model": _metadata(options={"model": []}),
        "huge_seed": _metadata(options={"seed": 10**30}),
        "nan_rate": _metadata(options={"lr": float("nan")}),
        "position": _metadata(progress={"position": 9}),
        "no_options": _metadata(options={"dtype": None}),
    }.items():
        save_file(tensors, folder / f"{name}.safetensors", metadata)


def _metadata(options=None, progress=None):
    start = {"epoch": 0, "position": 0, "images": 0, "loss_sum": 0.0, "history": []}
    content = {"options": OPTIONS | (options or {}), "progress": start | (progress or {})}
    return {"jitconv": json.dumps(content)}
