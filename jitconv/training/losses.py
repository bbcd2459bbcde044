"""Losses, with their gradients."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .. import validate, workspace
from ..cost import threads_for
from ..kernels import pointwise as kernels
from ..layers.base import Array
from . import checks

ELEMENT_CYCLES = 20.0  # of one thread for a logit: mostly its power


class Loss(NamedTuple):
    """A loss and its gradient with respect to the logits."""

    value: float
    dlogits: Array


def softmax_cross_entropy(logits: Array, labels: Array, *, total: int | None = None) -> Loss:
    """Return the mean cross-entropy between softmax(logits) and the labels, and its gradient.

    The value is the mean over n of -log softmax(logits[n])[labels[n]], as that of
    ``torch.nn.functional.cross_entropy``. Powers are taken of the logits less their row's highest, so large
    logits do not overflow.

    Parameters
    ----------
    logits : (N, K) array of float32 or float64
    labels : (N,) array of integers from 0 to K - 1
    total : int, optional
        The images of the whole batch, of which these are a part, perhaps none: the mean is over so many. The values of
        all parts then add up to the loss of the whole, and so do their gradients.

    Returns
    -------
    Loss
        `value`, a float, and `dlogits`, an (N, K) array.

    Raises
    ------
    TypeError, ValueError
        If a shape, a dtype or a label does not fit, or if there are no images.
    """
    logits = validate.array(logits, "logits", (None, None), None, "as (images, classes)")
    images, classes = logits.shape
    if total is None:
        checks.not_empty(images, "logits")
        total = images
    else:
        total = validate.integer(total, "total", max(1, images))
    labels = checks.labels(labels, "labels", images, classes)
    losses, dlogits = np.empty(images, logits.dtype), workspace.result(logits.shape, logits.dtype)
    scale = np.array([1.0 / total], logits.dtype)
    parts = threads_for(logits.size * ELEMENT_CYCLES)
    kernels.softmax_cross_entropy(logits.dtype, parts, logits, labels, scale, losses, dlogits, images, classes)
    return Loss(float(losses.sum(dtype=np.float64)) / total, dlogits)
