"""The interface of ``onnx.backend.base``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, NodeProto
from onnx.backend.base import Backend as BaseBackend
from onnx.backend.base import BackendRep

from .model import Reader, check_operators, read
from .node import Array, Value
from .program import Program
from .refusal import UnsupportedModelError

Inputs = Sequence[Array] | Mapping[str, Array] | Array


class Representation(BackendRep):
    """A model that is ready to run, as often as you like; `prepare` returns it. Python threads may share it."""

    def __init__(self, program: Program) -> None:
        self._program = program

    @property
    def inputs(self) -> tuple[str, ...]:
        """The names of the inputs that the model takes, in its order."""
        return tuple(one.name for one in self._program.inputs)

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names of the outputs, in its order."""
        return self._program.outputs

    def run(self, inputs: Inputs) -> tuple[Array, ...]:
        """Return the outputs of the model.

        Parameters
        ----------
        inputs : sequence or mapping of ndarray
            In the order of the model's inputs, or by their names; an array alone is the only input. They are not
            modified.

        Returns
        -------
        tuple of ndarray
            In the order of the model's outputs, in memory of their own.

        Raises
        ------
        TypeError, ValueError
            If an input has not the dtype or the shape that the model says, is missing or is none of the model's. An
            error in a node names the node.
        """
        given = _named(self.inputs, inputs)
        named: dict[str, int] = {}
        for one in self._program.inputs:
            one.check(given[one.name], named)
        return self._program.run(given)


def _named(names: tuple[str, ...], inputs: Any) -> dict[str, Array]:
    """Return inputs by name; NumPy's scalars become arrays."""
    if isinstance(inputs, np.ndarray):
        inputs = [inputs]
    if not isinstance(inputs, (Mapping, Sequence)) or isinstance(inputs, (str, bytes)):
        raise TypeError(f"`inputs` must be a sequence or a mapping of arrays, got {type(inputs).__name__}")
    words = ", ".join(f"`{name}`" for name in names) or "none"
    if isinstance(inputs, Sequence):
        if len(inputs) != len(names):
            raise ValueError(f"the model takes {len(names)} inputs, {words}, got {len(inputs)}")
        inputs = dict(zip(names, inputs, strict=True))
    for name in inputs:
        if name not in names:
            raise ValueError(f"`{name}` is no input of the model, which takes {words}")
    for name in names:
        if name not in inputs:
            raise ValueError(f"input `{name}` is missing; the model takes {words}")
        if not isinstance(inputs[name], (np.ndarray, np.generic)) or isinstance(inputs[name], np.ma.MaskedArray):
            raise TypeError(f"input `{name}` must be a NumPy array, got {type(inputs[name]).__name__}")
    return {name: np.asarray(inputs[name]) for name in names}


class Backend(BaseBackend):
    """jitconv as a backend of ONNX: CNNs with two-dimensional images, in float32 and float64, on the CPU."""

    @classmethod
    def supports_device(cls, device: str) -> bool:
        """Return whether models run on this device, "CPU"."""
        return isinstance(device, str) and device.split(":")[0] == "CPU"

    @classmethod
    def is_compatible(cls, model: ModelProto, device: str = "CPU") -> bool:
        """Return whether `prepare` takes a valid model."""
        try:
            cls.prepare(model, device)
        except UnsupportedModelError:
            return False
        return True

    @classmethod
    def prepare(cls, model: ModelProto, device: str = "CPU") -> Representation:
        """Check a model, and return what runs it.

        Parameters
        ----------
        model : onnx.ModelProto
            As ``onnx.load`` returns it. Weights are copied.
        device : str
            "CPU".

        Raises
        ------
        UnsupportedModelError
            If something in it is not served; the message names the node and the operator.
        TypeError, ValueError, onnx.checker.ValidationError, onnx.shape_inference.InferenceError
            If it is no valid model.
        """
        _check_device(cls, device)
        return Representation(read(model))

    @classmethod
    def run_model(cls, model: ModelProto, inputs: Inputs, device: str = "CPU") -> tuple[Array, ...]:
        """Prepare a model, and return its outputs for these inputs."""
        return cls.prepare(model, device).run(inputs)

    @classmethod
    def run_node(
        cls,
        node: NodeProto,
        inputs: Inputs,
        device: str = "CPU",
        outputs_info: Any = None,
        *,
        opset_version: int | None = None,
    ) -> tuple[Array, ...]:
        """Return the outputs of a single node.

        Parameters
        ----------
        node : onnx.NodeProto
        inputs : sequence or mapping of ndarray
            Those that the node has; what it leaves out has no place in the sequence.
        device : str
            "CPU".
        outputs_info : object
            Not needed; ONNX's interface has it.
        opset_version : int, optional
            The version of ONNX's operators that is meant; the newest that the installed onnx has, if not given.
        """
        _check_device(cls, device)
        opset = onnx.defs.onnx_opset_version() if opset_version is None else opset_version
        super().run_node(node, inputs, device, outputs_info, opset_version=opset)
        given = _named(tuple(dict.fromkeys(name for name in node.input if name)), inputs)
        for name, a in given.items():
            if a.dtype.kind not in "biufc" or not a.dtype.isnative:
                raise TypeError(f"input `{name}` has dtype {a.dtype}, and only floats of this machine are served")
        check_operators([node])
        # Of constants a reader computes everything at once.
        reader = Reader(opset, {name: Value.of(a) for name, a in given.items()}, [name for name in node.output if name])
        reader.add([node])
        return reader.program([]).run({})


def _check_device(backend: type[Backend], device: str) -> None:
    if not backend.supports_device(device):
        raise UnsupportedModelError(f"`device` must be 'CPU', got {device!r}")


supports_device = Backend.supports_device
is_compatible = Backend.is_compatible
prepare = Backend.prepare
run_model = Backend.run_model
run_node = Backend.run_node
