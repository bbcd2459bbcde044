"""Training: a list of layers, losses, optimizers, the loop, data and ready-made networks."""

from . import zoo
from .losses import softmax_cross_entropy
from .optimizers import SGD, Adadelta, AdaGrad, Adam, Optimizer, RMSProp
from .sequential import Sequential
from .trainer import Epoch, Evaluation, Step, Trainer

__all__ = [
    "SGD",
    "AdaGrad",
    "Adadelta",
    "Adam",
    "Epoch",
    "Evaluation",
    "Optimizer",
    "RMSProp",
    "Sequential",
    "Step",
    "Trainer",
    "softmax_cross_entropy",
    "zoo",
]
