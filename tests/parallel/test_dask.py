"""`jitconv.dask.predict`: lazy, the bits of `forward`, on every scheduler, on files larger than the workers' memory."""

from __future__ import annotations

import copy
import gc
import pathlib
import pickle
import subprocess
import sys
import threading
import weakref

import numpy as np
import pytest

dask = pytest.importorskip("dask", reason="needs Dask")
distributed = pytest.importorskip("distributed", reason="needs distributed")

import dask.array as da  # noqa: E402

import jitconv  # noqa: E402
import jitconv.dask  # noqa: E402
from jitconv.ahead import compile_all  # noqa: E402
from jitconv.dask import from_npy, predict  # noqa: E402
from jitconv.kept import KeptWeights  # noqa: E402
from jitconv.kernels.jit import Worker  # noqa: E402
from jitconv.layers import (  # noqa: E402
    BatchNorm2d,
    Conv2d,
    Dense,
    Dropout,
    Flatten,
    GlobalAvgPool2d,
    Layer,
    MaxPool2d,
    ReLU,
)
from jitconv.training import SGD, Sequential, Trainer, rehearsal  # noqa: E402

MIB = 2**20
MEMORY_LIMIT = 448 * MIB


def network(dtype="float32", layout="NCHW"):
    """Return a network of all kinds of layers, one of them with weights that are worth keeping packed."""
    image = {"layout": layout, "dtype": dtype}
    return Sequential(
        [
            Conv2d(3, 32, 3, padding=1, seed=0, **image),
            BatchNorm2d(32, **image),
            ReLU(),
            Sequential([Conv2d(32, 64, 3, seed=1, activation="relu", **image), MaxPool2d(2, layout=layout)]),
            Dropout(0.5, seed=2),
            Flatten(),
            Dense(64 * 6 * 4, 10, dtype=dtype, seed=3),
        ]
    )


def trained(rng, dtype="float32", layout="NCHW"):
    """Return the network after a step of training, which leaves gradients and running statistics behind."""
    model = network(dtype, layout)
    x = rng.standard_normal((8, 3, 14, 10) if layout == "NCHW" else (8, 14, 10, 3)).astype(dtype)
    Trainer(model, SGD(0.01)).step(x, rng.integers(0, 10, 8))
    return model


def direct(model, x, chunks, batch_size=100):
    """Return what `forward` makes of the batches of each chunk, one after the other."""
    model = copy.deepcopy(model).eval()
    results, begin = [], 0
    for images in chunks:
        for start in range(begin, begin + images, batch_size):
            results.append(model.forward(x[start : min(start + batch_size, begin + images)]))
        begin += images
    return np.concatenate(results)


class Told(Layer):
    """Returns what `tell` says for each image."""

    def __init__(self, tell):
        super().__init__()
        self.tell = tell

    def forward(self, x):
        return self.tell(x)

    def backward(self, dy):
        return None


@pytest.fixture
def images(rng):
    return rng.standard_normal((50, 3, 14, 10)).astype(np.float32)


@pytest.mark.parametrize("scheduler", ["synchronous", "threads"])
@pytest.mark.parametrize("batch_size", [7, 100])
def test_the_bits_of_forward(scheduler, batch_size, rng, dtype, layout):
    model = trained(rng, dtype, layout)
    x = rng.standard_normal((50, 3, 14, 10) if layout == "NCHW" else (50, 14, 10, 3)).astype(dtype)
    y = predict(model, da.from_array(x, chunks=((20, 20, 10), *((-1,) * 3))), batch_size=batch_size)
    assert (y.shape, y.dtype, y.chunks) == ((50, 10), dtype, ((20, 20, 10), (10,)))
    result = y.compute(scheduler=scheduler)
    assert result.dtype == dtype
    np.testing.assert_array_equal(result, direct(model, x, y.chunks[0], batch_size))


@pytest.mark.parametrize("shape", [(3, 14, 10), (40,)])
def test_results_of_any_shape(shape, rng):
    model = Sequential([Conv2d(3, 5, 3, seed=0)]) if len(shape) == 3 else Sequential([Dense(40, 6, seed=0)])
    x = rng.standard_normal((9, *shape)).astype(np.float32)
    y = predict(model, da.from_array(x, chunks=4))
    assert y.chunks == ((4, 4, 1), *(((5,), (12,), (8,)) if len(shape) == 3 else ((6,),)))
    np.testing.assert_array_equal(y.compute(scheduler="synchronous"), direct(model, x, (4, 4, 1)))


def test_a_layer_by_itself(images):
    y = predict(layer := Conv2d(3, 4, 3, seed=0), da.from_array(images, chunks=25))
    np.testing.assert_array_equal(y, direct(layer, images, (25, 25)))


def test_nothing_is_computed_before_it_is_asked_for(rng, monkeypatch):
    read = []

    def block(block_info=None):
        read.append(block_info[None]["chunk-location"][0])
        return np.zeros((4, 3, 14, 10), np.float32)

    source = da.map_blocks(block, chunks=((4, 4, 4), (3,), (14,), (10,)), dtype=np.float32, meta=np.empty((0,) * 4))
    model = network()
    with monkeypatch.context() as patch:
        patch.setattr(Worker, "address", lambda *_: pytest.fail("a kernel runs"))
        y = predict(model, source.astype(np.float32))
        later = y.argmax(axis=1)[4:]
    assert (y.shape, later.shape, read) == ((12, 10), (8,), [])
    later.compute(scheduler="synchronous")
    assert sorted(read) == [1, 2]


def test_the_model_is_not_changed_and_its_later_changes_do_not_count(images, rng):
    model = trained(rng)
    x = da.from_array(images, chunks=25)
    before, gradients = pickle.dumps(model), {name: a.copy() for name, a in model.gradients.items()}
    saved = model._saved
    expected = direct(model, images, (25, 25))
    y = predict(model, x)
    np.testing.assert_array_equal(y, expected)
    assert pickle.dumps(model) == before
    assert model.training
    assert model.layers[0].training
    assert model._saved is saved
    for name, a in model.gradients.items():
        np.testing.assert_array_equal(a, gradients[name])
    for a in model.parameters.values():
        a += 1
    np.testing.assert_array_equal(y, expected)
    changed = predict(model, x)
    assert changed.name != y.name
    np.testing.assert_array_equal(changed, direct(model, images, (25, 25)))


def test_the_same_content_has_the_same_name(images):
    x = da.from_array(images, chunks=25)
    model, same = network(), network()
    assert predict(model, x).name == predict(model, x).name
    assert jitconv.dask._Shared(model).key == jitconv.dask._Shared(same).key
    assert predict(model, x).name != predict(model, x, batch_size=5).name


def test_what_is_sent_has_no_gradients(rng):
    model = trained(rng)
    sent = jitconv.dask._Shared(model)
    weights = sum(a.nbytes for a in (model.parameters | model.buffers).values())
    assert weights < sent.__sizeof__() < 1.1 * weights
    assert weights < len(pickle.dumps(sent)) < 1.1 * weights


def test_a_trial_leaves_no_packed_weights_behind():
    shared = jitconv.dask._Shared(network())
    assert shared.like(np.zeros((2, 3, 14, 10), np.float32)).shape == (2, 10)
    assert [part._held for part in shared._parts if isinstance(part, KeptWeights)] == [None, None]


def test_copies_share_weights_but_nothing_that_a_forward_pass_leaves(images, rng):
    shared = jitconv.dask._Shared(trained(rng))
    one, other = shared.model(), shared.model()
    one.forward(images)
    assert not one.training
    assert other._saved is None
    for a, b in zip(one.parameters.values(), other.parameters.values(), strict=True):
        assert a is b
    assert one.layers[0] is not other.layers[0]
    assert one.layers[3].layers[0]._kept is other.layers[3].layers[0]._kept


def test_packed_weights_are_kept_from_chunk_to_chunk(images, rng, monkeypatch):
    packed = []
    place = KeptWeights.packed

    def noted(self, *arguments):
        packed.append(place(self, *arguments))
        return packed[-1]

    monkeypatch.setattr(KeptWeights, "packed", noted)
    y = predict(trained(rng), da.from_array(images, chunks=10))
    packed.clear()
    y.compute(scheduler="synchronous")
    assert len(packed) == 5  # a chunk each; the other convolution is too small to keep
    assert len({id(one) for one in packed}) == 1


def test_nothing_is_kept_when_the_result_is_gone(images, rng):
    y = predict(trained(rng), da.from_array(images, chunks=10))
    y.compute(scheduler="synchronous")
    (shared,) = jitconv.dask._received.values()
    gone = weakref.ref(jitconv.dask._model_of_this_thread(shared)), weakref.ref(shared)
    assert gone[0]().layers[0]._saved is None
    del y, shared
    gc.collect()
    assert [ref() for ref in gone] == [None, None]


MET = []
MEETING = threading.Barrier(4, timeout=60)


class Meeting(Layer):
    """Waits until three others do."""

    def __init__(self):
        super().__init__()
        self._add_parameter("weight", np.ones(3, np.float32))

    def forward(self, x):
        if x.any():
            MEETING.wait()
            MET.append((id(self), threading.get_ident(), id(self.parameters["weight"])))
        return x

    def backward(self, dy):
        return dy


def test_each_thread_has_a_model_of_its_own(images):
    MET.clear()
    y = predict(Sequential([Meeting()]), da.from_array(images[:32], chunks=(8, -1, -1, -1)))
    np.testing.assert_array_equal(y.compute(scheduler="threads", num_workers=4), images[:32])
    layers, threads, weights = map(set, zip(*MET, strict=True))
    assert len(layers) == len(threads) == 4
    assert len(weights) == 1


def test_chunks_of_other_axes_are_joined(images, rng):
    model = trained(rng)
    y = predict(model, da.from_array(images, chunks=(25, 1, 7, 4)))
    assert y.chunks == ((25, 25), (10,))
    np.testing.assert_array_equal(y, direct(model, images, (25, 25)))


@pytest.mark.parametrize("chunks", [(0,), (4, 0, 3)])
def test_no_images(chunks, images):
    model = network()
    x = images[: sum(chunks)]
    y = predict(model, da.from_array(x, chunks=(chunks, -1, -1, -1)))
    assert y.compute(scheduler="synchronous").shape == (sum(chunks), 10)
    if len(x):
        np.testing.assert_array_equal(y, direct(model, x, (4, 3)))


def test_an_unknown_number_of_images(images):
    model = network()
    x = da.from_array(images, chunks=25)
    chosen = x[x[:, 0, 0, 0] > 0]
    y = predict(model, chosen)
    assert np.isnan(y.shape[0])
    counts = [int((images[start : start + 25, 0, 0, 0] > 0).sum()) for start in (0, 25)]
    np.testing.assert_array_equal(y, direct(model, images[images[:, 0, 0, 0] > 0], counts))


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_of_a_task(threads):
    model = Told(lambda x: np.full((len(x), 1), jitconv.get_num_threads(), np.float32))
    before = jitconv.get_num_threads()
    y = predict(model, da.zeros((4, 2), chunks=2, dtype=np.float32), threads=threads)
    assert (y.compute(scheduler="threads") == threads).all()
    assert jitconv.get_num_threads() == before


SEEN = []


def mean_of_each(x):
    SEEN.append((x.shape, float(np.abs(x).max())))
    return x.mean(axis=(1, 2, 3))


def test_layers_of_others_are_run_on_zeros(images):
    SEEN.clear()
    y = predict(Told(mean_of_each), da.from_array(images, chunks=25))
    assert SEEN == [((2, 3, 14, 10), 0.0)]
    assert y.chunks == ((25, 25),)
    np.testing.assert_array_equal(y, images.mean(axis=(1, 2, 3)))


def test_a_result_that_zeros_did_not_tell(images):
    y = predict(Told(lambda x: x if x.any() else x[:, 0]), da.from_array(images, chunks=25))
    with pytest.raises(ValueError, match=r"`model` made \(25, 3, 14, 10\) float32 of a batch, but zeros had told"):
        y.compute(scheduler="synchronous")


ONES = da.ones((6, 3, 14, 10), chunks=2, dtype=np.float32)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"model": "vgg"}, TypeError, r"`model` must be a jitconv\.layers\.Layer, got str"),
        ({"model": Told(threading.Lock())}, TypeError, r"`model` cannot be sent to workers: .*"),
        ({"array": np.ones((6, 3, 14, 10))}, TypeError, r"`array` must be a dask array, got ndarray: .*from_array"),
        ({"array": ONES.astype("f2")}, TypeError, r"`array` has dtype float16, but .*: convert it"),
        ({"array": ONES.astype(">f4")}, TypeError, r"`array` has dtype >f4, but .*: convert it"),
        ({"array": ONES.astype("f8")}, TypeError, r"`array`, images of \(3, 14, 10\) float64, does not fit `model`: "),
        ({"array": ONES[0]}, ValueError, r"`array` must have the axes NCHW, got 3 dimensions \(3, 14, 10\)"),
        ({"array": ONES[:, :2]}, ValueError, r"`array`, .*, does not fit `model`: `w` has 3 input channels, but "),
        ({"array": ONES[:, :, :2, :2]}, ValueError, r"`array`, images of \(3, 2, 2\) float32, does not fit `model`: "),
        ({"model": Flatten(), "array": ONES[0, 0, 0]}, ValueError, r"`array` must have a batch axis and at least one"),
        ({"array": ONES[:, ONES[0, :, 0, 0] > 0]}, ValueError, r"`array` must have known sizes but for the number of"),
        ({"model": Told(lambda x: x[:1])}, ValueError, r"`model` must return a result for each image, but of 2 images"),
        ({"batch_size": 0}, ValueError, r"`batch_size` must be an integer of at least 1, got 0"),
        ({"threads": 1.5}, TypeError, r"`threads` must be an integer of at least 1, got 1\.5"),
    ],
)
def test_errors(change, error, message):
    with pytest.raises(error, match=message):
        predict(**{"model": network(), "array": ONES} | change)


def test_more_threads_than_there_are():
    y = predict(network(), ONES, threads=10**6)
    with pytest.raises(ValueError, match="`threads` must be at most"):
        y.compute(scheduler="synchronous")


def test_without_dask_it_says_what_to_install():
    code = "import sys; sys.modules['dask'] = None; import jitconv.dask"
    child = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=False)
    assert child.returncode == 1
    assert child.stderr.endswith('ImportError: jitconv.dask needs Dask: pip install "jitconv[dask]"\n')


def test_npy_files(tmp_path, images):
    path = tmp_path / "images.npy"
    np.save(path, images)
    x = from_npy(path, chunk_size=16)
    assert (x.shape, x.dtype, x.chunks) == (images.shape, images.dtype, ((16, 16, 16, 2), (3,), (14,), (10,)))
    np.testing.assert_array_equal(x, images)
    np.testing.assert_array_equal(x[5:20, 1], images[5:20, 1])
    assert len(pickle.dumps(jitconv.dask._NpyFile(path))) < 1000
    assert from_npy(path, chunk_size=16).name == x.name
    np.save(path, images[:20])
    assert from_npy(path, chunk_size=16).name != x.name


def test_other_files(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.zeros(3))
    np.save(tmp_path / "b.npy", np.float32(3))
    for name in ("a.npz", "b.npy"):
        with pytest.raises(ValueError, match=r"`path` must be an \.npy file of an array with a batch axis, got"):
            from_npy(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        from_npy(tmp_path / "c.npy")
    with pytest.raises(ValueError, match="`chunk_size` must be an integer of at least 1, got 0"):
        from_npy(tmp_path / "b.npy", chunk_size=0)


def test_zarr_to_zarr(tmp_path, images):
    zarr = pytest.importorskip("zarr", reason="needs zarr")
    da.from_array(images, chunks=(25, -1, -1, -1)).to_zarr(str(tmp_path / "images.zarr"), compute=True)
    model = network()
    y = predict(model, da.from_zarr(str(tmp_path / "images.zarr")))
    y.to_zarr(str(tmp_path / "logits.zarr"), compute=True)
    np.testing.assert_array_equal(zarr.open(str(tmp_path / "logits.zarr"))[:], direct(model, images, (25, 25)))


def test_processes_of_dask_alone(images, rng):
    model = trained(rng)
    y = predict(model, da.from_array(images, chunks=25))
    np.testing.assert_array_equal(y.compute(scheduler="processes", num_workers=2), direct(model, images, (25, 25)))


# Two worker processes of a cluster.


@pytest.fixture(scope="module")
def client():
    """Return the client of two worker processes of one thread each."""
    with (
        dask.config.set({"distributed.scheduler.worker-saturation": 1.1}),
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, memory_limit=MEMORY_LIMIT, dashboard_address=None
        ) as cluster,
        distributed.Client(cluster, timeout="60s") as client,
    ):
        compile_all(rehearsal.inference(network(), ONES.compute()))  # workers then only load it
        client.run(count_arrivals)
        yield client


def count_arrivals():
    """Count what comes to a worker process."""
    import jitconv.dask

    def arrive(self, state):
        self.__dict__.update(state)
        jitconv.dask.arrived.append(self.key)

    jitconv.dask.arrived = []
    jitconv.dask._Shared.__setstate__ = arrive


def arrived():
    """Return the models that came to a worker process since the last call."""
    import jitconv.dask

    keys, jitconv.dask.arrived = jitconv.dask.arrived, []
    return keys


def peak_memory():
    """Return the most memory that a worker process has had; bytes."""
    status = pathlib.Path("/proc/self/status")
    if status.exists():
        return next(int(line.split()[1]) * 1024 for line in status.read_text().splitlines() if "VmHWM" in line)
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # macOS: bytes


@pytest.mark.parametrize("scattered", [False, True])
def test_weights_are_sent_once_to_each_worker(client, images, rng, scattered):
    model = trained(rng)
    many = np.concatenate([images] * 8)
    client.run(arrived)
    y = predict(model, da.from_array(many, chunks=10), client=client if scattered else None)
    np.testing.assert_array_equal(client.compute(y).result(), direct(model, many, (10,) * 40))
    counts = [len(keys) for keys in client.run(arrived).values()]
    assert len(counts) == 2
    assert max(counts) == 1


def test_a_layer_that_workers_cannot_import(client, images):
    class Twice(Layer):
        def forward(self, x):
            return 2 * x

        def backward(self, dy):
            return 2 * dy

    np.testing.assert_array_equal(predict(Twice(), da.from_array(images, chunks=25)), 2 * images)


def test_errors_come_back(client, images):
    y = predict(network(), da.from_array(images, chunks=25), threads=10**6)
    with pytest.raises(ValueError, match="`threads` must be at most"):
        y.compute()


def test_a_file_larger_than_the_workers_memory(client, tmp_path):
    shape = (4850, 3, 128, 128)
    path = tmp_path / "images.npy"
    block = np.random.default_rng(0).standard_normal((50, *shape[1:]), dtype=np.float32)
    try:
        file = np.lib.format.open_memmap(path, "w+", np.float32, shape)
        for start in range(0, len(file), len(block)):
            file[start : start + len(block)] = block + np.float32(start)
        del file
        assert path.stat().st_size > 2 * MEMORY_LIMIT
        model = Sequential(
            [Conv2d(3, 8, 3, stride=4, activation="relu", seed=0), GlobalAvgPool2d(), Flatten(), Dense(8, 5, seed=1)]
        )
        chunk = 64
        compile_all(rehearsal.inference(copy.deepcopy(model), block[:chunk]))  # which takes more memory than running
        y = predict(model, from_npy(path, chunk_size=chunk))
        da.to_npy_stack(str(tmp_path / "logits"), y)
        assert max(client.run(peak_memory).values()) < MEMORY_LIMIT
        results, images = da.from_npy_stack(str(tmp_path / "logits"), mmap_mode=None), np.load(path, mmap_mode="r")
        for start in (0, 1280, len(images) - len(images) % chunk):
            expected = direct(model, images[start : start + chunk], (len(images[start : start + chunk]),))
            np.testing.assert_array_equal(results[start : start + chunk], expected)
    finally:
        path.unlink(missing_ok=True)
