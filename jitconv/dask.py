"""Prediction with Dask: a lazy array in, a lazy array out, chunk by chunk, wherever Dask runs its tasks."""

from __future__ import annotations

import io
import math
import os
import pathlib
import pickle
import threading
import weakref
from typing import Any

import numpy as np

try:
    import cloudpickle
    import dask.array
    from dask.base import tokenize
    from dask.delayed import delayed
except ImportError as error:
    raise ImportError('jitconv.dask needs Dask: pip install "jitconv[dask]"') from error

from . import validate
from .kept import KeptWeights
from .layers.base import Array, ImageLayer, Layer
from .threads import available_threads, num_threads
from .training import Sequential, rehearsal


def predict(model: Layer, array: Any, *, batch_size: int = 100, threads: int = 1, client: Any = None) -> Any:
    """Return what a network makes of a dask array of images, as a dask array: nothing is computed yet.

    Each chunk of images is a task, on whatever runs Dask's tasks: threads, processes, a cluster. The weights are those
    of now, whatever becomes of `model`, which is not changed. A worker process gets them once for a computation, keeps
    them packed from chunk to chunk, and all its threads share them.

    Parameters
    ----------
    model : Layer
        A `jitconv.training.Sequential` or any other layer; it computes as after `eval`.
    array : dask.array.Array
        The images, float32 or float64 as the network's weights, along the first axis. Their number may be unknown. The
        chunks of the other axes are joined, the images of a chunk are not.
    batch_size : int
        Images that a task computes at a time, which bounds the memory of activations. The result has the bits of
        ``model.forward`` of these batches of each chunk.
    threads : int
        Threads of jitconv in each task. Dask runs as many tasks at a time as its workers have threads, so that 1 never
        takes more cores than Dask was given.
    client : distributed.Client, optional
        Send the weights to one of its workers now, from which the others get them, and not with the graph of each
        computation: distributed warns of graphs above 10 MB. The result can then be computed there alone, and not after
        that worker was lost.

    Returns
    -------
    dask.array.Array
        Chunked along its first axis as `array`. Other axes are of one chunk.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit: `array` is tried on the network, with no kernel run.

    Notes
    -----
    Layers of classes other than this library's are run on two images of zeros to learn the shape of the result. Their
    arrays are shared by all threads of a process, their other attributes are each thread's own.
    """
    if not isinstance(model, Layer):
        raise TypeError(f"`model` must be a jitconv.layers.Layer, got {type(model).__name__}")
    batch_size = validate.integer(batch_size, "batch_size", 1)
    threads = validate.integer(threads, "threads", 1)
    images = _checked(array, model)
    shared = _Shared(model)
    trial = _tried(shared, images)
    if client is None:
        sent = delayed(shared, name=f"jitconv-model-{shared.key}", traverse=False)
    else:
        sent = client.scatter(shared)
    inside, outside = tuple(range(images.ndim)), (0, *range(images.ndim, images.ndim + trial.ndim - 1))
    # Without `concatenate` the one chunk along each of the joined axes comes in lists, and is not copied.
    return dask.array.blockwise(
        _predict_chunk, outside, images, inside, sent, None,
        new_axes=dict(zip(outside[1:], trial.shape[1:], strict=True)),
        token="jitconv-predict", dtype=trial.dtype, meta=np.empty((0,) * trial.ndim, trial.dtype),
        shape=trial.shape[1:], kind=trial.dtype, batch_size=batch_size, threads=threads,
    )  # fmt: skip


def from_npy(path: str | os.PathLike[str], *, chunk_size: int = 256) -> Any:
    """Return the array in an .npy file as a dask array, in chunks of its first axis that the tasks read for themselves.

    ``dask.array.from_array(numpy.load(path, mmap_mode="r"))`` does the same for threads, but sends the whole content
    to the workers of a cluster. Here they open the file, under the same path.

    Parameters
    ----------
    path : path
        A file that `numpy.save` wrote.
    chunk_size : int
        Images in a chunk.

    Raises
    ------
    OSError, ValueError
        If the file cannot be read or holds no such array.
    """
    chunk_size = validate.integer(chunk_size, "chunk_size", 1)
    file = _NpyFile(path)
    chunks = (chunk_size, *file.shape[1:])
    name = f"jitconv-from-npy-{tokenize(file.path, file.stamp, chunk_size)}"
    meta = np.empty((0,) * file.ndim, file.dtype)
    return dask.array.from_array(file, chunks=chunks, name=name, inline_array=True, meta=meta)


class _NpyFile:
    """The array in an .npy file, of which a slice is read when it is asked for; a pickle holds the path alone."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = pathlib.Path(path).absolute()
        array = self._open()
        self.shape, self.dtype, self.ndim = array.shape, array.dtype, array.ndim
        status = self.path.stat()
        self.stamp = status.st_mtime_ns, status.st_size

    def _open(self) -> Array:
        array: Any = np.load(self.path, mmap_mode="r")
        if not isinstance(array, np.ndarray) or not array.ndim:
            raise ValueError(f"`path` must be an .npy file of an array with a batch axis, got {str(self.path)!r}")
        return array

    def __getitem__(self, index: Any) -> Array:
        return np.array(self._open()[index])


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    """Writes a model without its arrays and packed weights, which it collects, and without its gradients."""

    def __init__(self, file: io.BytesIO, model: Layer) -> None:
        super().__init__(file)
        self._gradients = {id(gradient): gradient for gradient in model.gradients.values()}
        self._numbers: dict[int, int] = {}
        self._found: list[Any] = []  # also keeps them alive: an id is good for one object only

    def persistent_id(self, value: Any) -> int | None:
        plain = type(value) is np.ndarray and not value.dtype.hasobject
        if not plain and type(value) is not KeptWeights:
            return None
        if id(value) not in self._numbers:
            self._numbers[id(value)] = len(self._found)
            self._found.append(value)
        return self._numbers[id(value)]

    def parts(self) -> list[Any]:
        """Return copies of what was left out, by number; those of gradients are empty."""
        return [self._copy(value) for value in self._found]

    def _copy(self, value: Any) -> Any:
        if isinstance(value, KeptWeights):
            return KeptWeights()
        return np.empty(0, value.dtype) if id(value) in self._gradients else value.copy()


class _Unpickler(pickle.Unpickler):
    """Reads what `_Pickler` wrote."""

    def __init__(self, file: io.BytesIO, parts: list[Any]) -> None:
        super().__init__(file)
        self._parts = parts

    def persistent_load(self, number: int) -> Any:
        return self._parts[number]


class _Shared:
    """A model as it is now, in the form in which it is sent: its copies share all arrays and packed weights.

    Attributes
    ----------
    key : str
        The same for models of the same content.
    """

    def __init__(self, model: Layer) -> None:
        file = io.BytesIO()
        pickler = _Pickler(file, model)
        try:
            pickler.dump(model)
        except (pickle.PicklingError, TypeError) as error:
            raise TypeError(f"`model` cannot be sent to workers: {error}") from error
        self._frame, self._parts = file.getvalue(), pickler.parts()
        self.key: str = tokenize(self._frame, self._arrays)

    @property
    def _arrays(self) -> list[Array]:
        return [part for part in self._parts if isinstance(part, np.ndarray)]

    def model(self) -> Layer:
        """Return a copy of the model, ready for use: two threads must not have the same."""
        return self._joined(self._parts)

    def like(self, x: Array) -> Any:
        """Return an array of the shape and dtype that the model makes of x."""
        # Nothing is packed in a rehearsal, and nobody else may take it for packed weights.
        parts = [KeptWeights() if isinstance(part, KeptWeights) else part for part in self._parts]
        return rehearsal.result(self._joined(parts), x)

    def _joined(self, parts: list[Any]) -> Layer:
        model: Layer = _Unpickler(io.BytesIO(self._frame), parts).load()
        return model.eval()

    def __dask_tokenize__(self) -> str:
        return self.key

    def __sizeof__(self) -> int:
        return len(self._frame) + sum(a.nbytes for a in self._arrays)  # what Dask takes it for


# What has come to this process, by its key, as long as Dask or a result holds it.
_received: weakref.WeakValueDictionary[str, _Shared] = weakref.WeakValueDictionary()
_receiving = threading.Lock()
_local = threading.local()


def _model_of_this_thread(sent: _Shared) -> Layer:
    """Return this Python thread's copy of a model, which goes when what was sent goes.

    A copy for each chunk would have to ask for its activations' memory anew: 20% of the time of vgg_cifar in batches of
    100 images.
    """
    with _receiving:
        shared = _received.setdefault(sent.key, sent)  # the first to come has its weights packed already
    models: weakref.WeakKeyDictionary[_Shared, Layer] = _local.__dict__.setdefault(
        "models", weakref.WeakKeyDictionary()
    )
    if shared not in models:
        models[shared] = shared.model()
    return models[shared]


def _forget(layer: Layer) -> None:
    """Drop what layers keep for backward, the chunk perhaps among it."""
    layer._saved = None
    for inner in layer.layers if isinstance(layer, Sequential) else ():
        _forget(inner)


def _predict_chunk(
    chunk: Any, sent: _Shared, *, shape: tuple[int, ...], kind: np.dtype[Any], batch_size: int, threads: int
) -> Array:
    """Return the results of a chunk's images, each of a shape, computed a batch at a time."""
    while isinstance(chunk, list):  # of the one chunk along each axis that is joined
        (chunk,) = chunk
    if threads > available_threads():
        raise ValueError(f"`threads` must be at most {available_threads()}, as Numba has in the worker, got {threads}")
    model = _model_of_this_thread(sent)
    results = np.empty((len(chunk), *shape), kind)
    with num_threads(threads):
        for start in range(0, len(chunk), batch_size):
            x = chunk[start : start + batch_size]
            y = model.forward(x)
            if y.shape != (len(x), *shape) or y.dtype != kind:
                raise ValueError(
                    f"`model` made {y.shape} {y.dtype} of a batch, but zeros had told {(len(x), *shape)} {kind}"
                )
            results[start : start + len(x)] = y
    _forget(model)
    return results


def _checked(array: Any, model: Layer) -> Any:
    """Return a dask array of images, one chunk along all axes but the first, that suits a model's first layer."""
    if not isinstance(array, dask.array.Array):
        raise TypeError(
            f"`array` must be a dask array, got {type(array).__name__}: "
            f"dask.array.from_array(array, chunks=...) makes one"
        )
    if array.dtype not in validate.FLOATS:
        raise TypeError(
            f"`array` has dtype {array.dtype}, but only float32 and float64 are computed: "
            f"convert it, for example with array.astype(np.float32)"
        )
    first = model
    while isinstance(first, Sequential) and first.layers:
        first = first.layers[0]
    if isinstance(first, ImageLayer) and array.ndim != 4:
        raise ValueError(f"`array` must have the axes {first.layout}, got {array.ndim} dimensions {array.shape}")
    if array.ndim < 2:
        raise ValueError(f"`array` must have a batch axis and at least one more, got shape {array.shape}")
    if any(math.isnan(size) for size in array.shape[1:]):
        raise ValueError(
            f"`array` must have known sizes but for the number of images, got {array.shape}: "
            f"array.compute_chunk_sizes() finds them"
        )
    return array.rechunk(dict.fromkeys(range(1, array.ndim), -1))


def _tried(shared: _Shared, images: Any) -> Any:
    """Return an array of the shape and dtype that a model makes of two images."""
    x = np.zeros((2, *images.shape[1:]), images.dtype)
    try:
        y = shared.like(x)
    except (TypeError, ValueError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"`array`, images of {x.shape[1:]} {x.dtype}, does not fit `model`: {error}") from error
    if not isinstance(y, np.ndarray) or y.shape[:1] != (2,):
        raise ValueError(f"`model` must return a result for each image, but of 2 images it made shape {np.shape(y)}")
    return y
