"""What the tests let one process do, and several ranks: each scenario returns arrays to be compared.

As a script, ``python -m mpi4py scenarios.py FOLDER``, it runs all of them and writes FOLDER/RANK.npz.
"""

from __future__ import annotations

import hashlib
import pathlib
import sys
import unittest.mock

import numpy as np

import jitconv
from jitconv.layers import BatchNorm2d, Conv2d, Dense, Dropout, Flatten, GlobalAvgPool2d, Layer, MaxPool2d, ReLU
from jitconv.training import SGD, Adam, Sequential, Trainer, checkpoint, parallel

BATCH = 24  # of all ranks together
IMAGES = 2 * BATCH + 2  # the last batch of an epoch has fewer images than there may be ranks
CLASSES = 3


def images(dtype=np.float64):
    """Return images of three classes, and their classes; fewer of them to test on than four ranks share out evenly."""
    rng = np.random.default_rng(5)
    labels = rng.integers(0, CLASSES, IMAGES + 7)
    x = rng.standard_normal((len(labels), 2, 8, 8)) + labels[:, None, None, None]
    x = x.astype(dtype)
    return x[:IMAGES], labels[:IMAGES], (x[IMAGES:], labels[IMAGES:])


def normalised(sync=True, layout="NCHW", dtype=np.float64, **options):
    """Return a network with two normalisations, one of them fused with ReLU, and dropout."""
    o = {"layout": layout, "dtype": dtype}
    return Sequential(
        [
            Conv2d(2, 8, 3, padding=1, seed=0, **o),
            BatchNorm2d(8, sync=sync, **o, **options),
            ReLU(),
            MaxPool2d(2, layout=layout),
            Sequential([Conv2d(8, 8, 3, seed=1, **o), BatchNorm2d(8, momentum=None, sync=sync, **o)]),
            GlobalAvgPool2d(layout=layout),
            Flatten(),
            Dropout(0.3, seed=2),
            Dense(8, CLASSES, dtype=dtype, seed=3),
        ]
    )


def convolutional(dtype=np.float32):
    """Return a network without normalisation."""
    return Sequential(
        [
            Conv2d(2, 8, 3, activation="relu", seed=0, dtype=dtype),
            MaxPool2d(2),
            Flatten(),
            Dense(72, 16, activation="relu", seed=1, dtype=dtype),
            Dropout(0.5, seed=2),
            Dense(16, CLASSES, seed=3, dtype=dtype),
        ]
    )


class Scaled(Layer):
    """A layer of somebody's, who holds on to its gradient."""

    def __init__(self, width):
        super().__init__()
        self._add_parameter("scale", np.ones(width))
        self._gradient = self.gradients["scale"]

    def forward(self, x):
        self._saved = x
        return x * self.parameters["scale"]

    def backward(self, dy):
        self._gradient[...] = (dy * self._saved).sum(0)
        return dy * self.parameters["scale"]


class Own(Sequential):
    """A network of a class of its own."""


def fitted(trainer, communicator, dtype=np.float64, **options):
    """Return all that `fit` leaves behind."""
    x, labels, test = images(dtype)
    ranks = 1 if communicator is None else communicator.size
    trainer.fit(x, labels, **({"epochs": 2, "batch_size": BATCH // ranks, "seed": 1, "test": test} | options))
    return standing(trainer)


def standing(trainer):
    """Return where a training stands."""
    done = np.array([[epoch.loss, epoch.accuracy] for epoch in trainer.history])
    optimizer = {f"optimizer.{name}": a for name, a in trainer.optimizer.state().items()}
    numbers = {"steps": np.array(trainer.step_losses), "epochs": done, "position": np.array(trainer.position)}
    return trainer.model.state() | optimizer | numbers


def plain(communicator, folder):
    """A network without normalisation, in float32."""
    return fitted(Trainer(convolutional(), Adam(0.01), communicator), communicator, np.float32)


def synchronised(communicator, folder):
    """Normalisation by the statistics of the whole batch."""
    return fitted(Trainer(normalised(), SGD(0.05, 0.9), communicator), communicator)


def synchronised_nhwc(communicator, folder):
    """The same in NHWC, with images as they are there."""
    x, labels, _ = images()
    trainer = Trainer(normalised(layout="NHWC"), Adam(0.01), communicator)
    ranks = 1 if communicator is None else communicator.size
    trainer.fit(x.transpose(0, 2, 3, 1).copy(), labels, epochs=1, batch_size=BATCH // ranks)
    return trainer.model.state()


def foreign(communicator, folder):
    """Layers and a network of classes that the library does not know."""
    layers = [Flatten(), Scaled(128), Own([Dense(128, 8, seed=0, dtype=np.float64), Scaled(8)])]
    model = Own([*layers, Dense(8, CLASSES, seed=1, dtype=np.float64)])
    inside = Sequential([*layers[:2], Dense(128, CLASSES, seed=2, dtype=np.float64)])
    found = fitted(Trainer(model, Adam(), communicator), communicator, epochs=1)
    second = fitted(Trainer(inside, SGD(0.1), communicator), communicator)
    return found | {f"inside.{name}": a for name, a in second.items()}


def stepwise(communicator, folder):
    """Steps of batches that the caller shares out, unevenly."""
    x, labels, _ = images(np.float32)
    trainer = Trainer(convolutional(), SGD(0.1), communicator)
    if communicator is None:
        losses = [trainer.step(x[:20], labels[:20]) for _ in range(3)]
    else:
        ends = [*[0, 13, 13, 17][: communicator.size], 20]  # one of four has nothing
        own = slice(ends[communicator.rank], ends[communicator.rank + 1])
        losses = [trainer.step(x[own], labels[own]) for _ in range(3)]
    return trainer.model.state() | {"losses": np.array(losses)}


class Stop(Exception):
    """Ends a training."""


def stopped(trainer, communicator, after, **options):
    """Fit until some images of the second epoch have been seen."""

    def stop(step):
        if step.epoch == 2 and step.images >= after:
            raise Stop

    try:
        fitted(trainer, communicator, on_step=stop, **options)
    except Stop:
        trainer.average_statistics()


def resumed(communicator, folder):
    """Go on from the middle of an epoch that another number of processes began."""
    trainer = Trainer(normalised(), Adam(0.01), communicator)
    if communicator is None:
        stopped(trainer, None, BATCH)
        checkpoint.save(folder / "stopped", trainer)
    elif communicator.rank == 0:
        checkpoint.load(folder / "stopped").restore(trainer)  # the others hear of it
    if communicator is not None:
        trainer.epoch = communicator.bcast(trainer.epoch)
    return fitted(trainer, communicator, epochs=2 - trainer.epoch)


def handed_over(communicator, folder):
    """Stop in the middle of an epoch; the test goes on from the file, in one process."""
    trainer = Trainer(normalised(), Adam(0.01), communicator)
    stopped(trainer, communicator, BATCH)
    if communicator is None or communicator.rank == 0:
        checkpoint.save(folder / "handed over", trainer)
    return standing(trainer)


def local(communicator, folder):
    """Normalisation by the statistics of each rank's own images."""
    return fitted(Trainer(normalised(sync=False), SGD(0.05), communicator), communicator)


def untracked(communicator, folder):
    """The same without running statistics."""
    model = normalised(sync=False)
    model.layers[1] = BatchNorm2d(8, track_running_stats=False, dtype=np.float64)
    trainer = Trainer(model, SGD(0.05), communicator)
    x, labels, _ = images()
    ranks = 1 if communicator is None else communicator.size
    trainer.fit(x, labels, epochs=1, batch_size=BATCH // ranks)
    return trainer.model.state()


def drifting(communicator, folder):
    """A rank whose weights are not quite those of the others."""
    trainer = Trainer(convolutional(np.float64), SGD(0.1), communicator)

    def drift(step):
        if communicator is not None and communicator.rank == 1:
            trainer.model.layers[0].weight[...] += 1e-9

    fitted(trainer, communicator, epochs=1, on_step=drift)
    return trainer.model.state()


class Probe(Layer):
    """Notes what a rank gets to see."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, x):
        self.seen.append((x.copy(), jitconv.get_num_threads()))
        return x

    def backward(self, dy):
        return dy


def shares(communicator, folder):
    """Each rank's images, and its threads, with a number asked for and without."""
    x, labels, _ = images()
    found = {}
    for name, asked in (("own", None), ("asked", 2)):
        probe = Probe()
        model = Sequential([probe, Flatten(), Dense(128, CLASSES, seed=None, dtype=np.float64)])
        trainer = Trainer(model, SGD(), communicator)
        ranks = 1 if communicator is None else communicator.size
        if asked is None:
            trainer.fit(x, labels, epochs=1, batch_size=BATCH // ranks)
        else:
            with jitconv.num_threads(min(asked, jitconv.threads.available_threads())):
                trainer.fit(x, labels, epochs=1, batch_size=BATCH // ranks)
        found[f"{name}.threads"] = np.array([threads for _, threads in probe.seen])
        found |= {f"{name}.{i}": seen for i, (seen, _) in enumerate(probe.seen)}
        found[f"{name}.weight"] = model.state()["2.weight"]  # drawn anew in each process
    return found


def compiling(communicator, folder):
    """How often each rank compiles, where what is compiled is kept, and where it is not."""
    x, labels, _ = images(np.float32)
    calls = []
    with unittest.mock.patch.object(parallel, "compile_all", lambda jobs: calls.append(len(jobs))):
        for problem in (None, "no folder can be written"):
            with unittest.mock.patch.object(parallel, "cache_problem", lambda told=problem: told):
                trainer = Trainer(convolutional(), SGD(0.1), communicator)
                calls.append(0)
                trainer.step(x[:4], labels[:4])
                trainer.step(x[:4], labels[:4])
    return {"calls": np.array(calls)}


def disagreeing(communicator, folder):
    """What ranks are told that do not agree."""
    x, labels, _ = images()
    odd = communicator is not None and communicator.rank == 1
    told = []
    for changed in ({"seed": 7}, {"batch_size": 5}, {"x": x.astype(np.float32)}, {"labels": np.zeros_like(labels)}):
        trainer = Trainer(convolutional(np.float64), SGD(), communicator)
        arguments = {"x": x, "labels": labels, "epochs": 0, "batch_size": 6} | (changed if odd else {})
        try:
            trainer.fit(**arguments)
        except ValueError as error:
            told.append(str(error))
    wider = Sequential([Flatten(), Dense(128, 4 if odd else 3, seed=0, dtype=np.float64)])
    try:
        Trainer(wider, SGD(), communicator).fit(x, labels, epochs=0)
    except ValueError as error:
        told.append(str(error))
    return {"told": np.array(told, dtype=str)}


SCENARIOS = (
    plain,
    synchronised,
    synchronised_nhwc,
    foreign,
    stepwise,
    resumed,
    handed_over,
    local,
    untracked,
    drifting,
    shares,
    compiling,
    disagreeing,
)


def digest(arrays):
    """Return the SHA-256 of arrays, names included."""
    sha = hashlib.sha256()
    for name, a in sorted(arrays.items()):
        sha.update(name.encode())
        sha.update(np.ascontiguousarray(a).tobytes())
    return sha.hexdigest()


def main():
    """Run all scenarios in this rank."""
    from mpi4py import MPI

    folder = pathlib.Path(sys.argv[1])
    found = {}
    for scenario in SCENARIOS:
        for name, a in scenario(MPI.COMM_WORLD, folder).items():
            found[f"{scenario.__name__}/{name}"] = a
    np.savez(folder / f"{MPI.COMM_WORLD.rank}.npz", **found)


if __name__ == "__main__":
    main()
