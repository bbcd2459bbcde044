"""A backend for ONNX models: `prepare` a CNN once, then `run` it on NumPy arrays.

The functions are those of ``onnx.backend.base.Backend``, so ``onnx.backend.test.BackendTest`` takes this module.
"""

try:
    import onnx  # noqa: F401
except ImportError as error:
    raise ImportError('jitconv.onnx needs onnx, which is missing: pip install "jitconv[onnx]"') from error

from .backend import Backend, Representation, is_compatible, prepare, run_model, run_node, supports_device
from .operators import OPERATORS
from .refusal import UnsupportedModelError

__all__ = [
    "OPERATORS",
    "Backend",
    "Representation",
    "UnsupportedModelError",
    "is_compatible",
    "prepare",
    "run_model",
    "run_node",
    "supports_device",
]
