"""What the tests of `jitconv.torch` share; without PyTorch they are skipped, file by file."""

from __future__ import annotations

import pytest


@pytest.fixture
def generator(request):
    """Return a function that makes seeded tensors."""
    torch = pytest.importorskip("torch")
    source = torch.Generator().manual_seed(len(request.node.name))

    def make(*shape, dtype=torch.float64, channels_last=False, gradient=False):
        made = torch.randn(shape, generator=source, dtype=dtype)
        if channels_last:
            made = made.to(memory_format=torch.channels_last)
        return made.requires_grad_(gradient)

    return make
