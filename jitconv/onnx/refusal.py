"""How a model that jitconv does not run is refused."""

from __future__ import annotations


class UnsupportedModelError(NotImplementedError):
    """A valid model needs something that jitconv does not have; the message names the node and says what is served."""
