"""All wrong calls: the tables of the folder `wrong`, and the public names that they must cover."""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil

from wrong import books, courses, functions, layers, training

TORCH = importlib.util.find_spec("torch") is not None
ROWS = [*functions.ROWS, *layers.ROWS, *training.ROWS, *books.ROWS, *courses.ROWS]
if TORCH:
    from wrong import pytorch

    ROWS += pytorch.ROWS

# How the targets of rows begin that do not begin with "jitconv".
PLACES = {
    "clayers": "jitconv.compat.numpy_neuron_network.clayers",
    "layers_v2": "jitconv.compat.numpy_neuron_network.layers_v2",
    "functional": "jitconv.torch.functional",
    "torch": "jitconv.torch",
}

# Public, but nothing can be wrong about a call of it.
EXEMPT = {
    "jitconv.ConvGradients": "a result",
    "jitconv.ConvPlan": "a result",
    "jitconv.get_num_threads": "takes no arguments",
    "jitconv.without_winograd": "takes no arguments",
    "jitconv.training.Epoch": "a result",
    "jitconv.training.Evaluation": "a result",
    "jitconv.training.Step": "a result",
    "jitconv.compat.dezero.install": "takes no arguments",
    "jitconv.compat.dezero.uninstall": "takes no arguments",
    "jitconv.torch.Report": "a result",
}


def modules():
    """Return the modules that have public names."""
    names = ["jitconv", "jitconv.layers", "jitconv.training", *_stand_ins()]
    if TORCH:
        names += ["jitconv.torch", "jitconv.torch.functional"]
    return [importlib.import_module(name) for name in names]


def _stand_ins():
    package = importlib.import_module("jitconv.compat")
    found = [module.name for module in pkgutil.walk_packages(package.__path__, "jitconv.compat.")]
    # These two stand on packages of their own, and are reached through the modules that they are part of.
    return [name for name in found if name.rpartition(".")[2] not in ("d2l_torch", "dezero_functions")]


def public():
    """Return all that can be called, by its full name."""
    return {
        f"{module.__name__}.{name}": getattr(module, name)
        for module in modules()
        for name in getattr(module, "__all__", ())
        if callable(getattr(module, name))
    }


def target_of(row):
    """Return what a row is about."""
    place, _, name = row.target.rpartition(".")
    if not place.startswith("jitconv"):
        place = PLACES.get(place, f"jitconv.compat.{place}")
    return getattr(importlib.import_module(place), name)
