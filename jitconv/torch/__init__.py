"""jitconv for PyTorch on the CPU: its operators, its modules, and `accelerate` for models that exist already.

The operators are ``torch.ops.jitconv.conv2d`` and so on; `functional` has them with the arguments of PyTorch.
"""

try:
    import torch  # noqa: F401
except ImportError as error:
    raise ImportError("jitconv.torch needs PyTorch: pip install torch") from error

from . import functional
from .accelerate import Report, accelerate, restore
from .modules import AdaptiveAvgPool2d, AdaptiveMaxPool2d, AvgPool2d, Conv2d, ConvTranspose2d, MaxPool2d
from .sequential import Sequential

__all__ = [
    "AdaptiveAvgPool2d",
    "AdaptiveMaxPool2d",
    "AvgPool2d",
    "Conv2d",
    "ConvTranspose2d",
    "MaxPool2d",
    "Report",
    "Sequential",
    "accelerate",
    "functional",
    "restore",
]
