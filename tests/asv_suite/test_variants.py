"""Everyone whom the benchmarks compare computes the same as the loops over windows."""

from __future__ import annotations

import numpy as np
import pytest
from variants import IMPLEMENTATIONS, PASSES, POOLS, TOLERANCE, Conv, Missing, Pool, calls, check

LAYERS = (
    Conv(2, 3, 9, 8, 4, 3, 1, 1),
    Conv(2, 3, 9, 8, 4, 5, 2, 2),
    Conv(2, 3, 9, 8, 4, 1, 1, 0),
    Pool(2, 3, 8, 8, 2, 2),
    Pool(2, 3, 9, 8, 3, 2, 1),
    Pool(2, 3, 8, 8, 3, 1, 1),
    Pool(2, 3, 8, 8, 0),
)


def made(implementation, layer, dtype):
    try:
        return calls(implementation, layer, dtype, 1)
    except Missing as missing:
        pytest.skip(str(missing))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("layer", LAYERS, ids=str)
@pytest.mark.parametrize("implementation", [name for name in IMPLEMENTATIONS if name != "NumPy loops"])
def test_all_agree_with_loops(implementation, layer, dtype):
    found = made(implementation, layer, dtype)
    right = calls("NumPy loops", layer, "float64", 1)
    assert tuple(found) == (PASSES if isinstance(layer, Conv) else POOLS)
    for each, call in found.items():
        got, wanted = call.read(call.run()), right[each].read(right[each].run())
        assert len(got) >= len(wanted)
        for a, b in zip(got, wanted, strict=True):
            assert a.dtype == dtype
            np.testing.assert_allclose(a, b, rtol=0, atol=TOLERANCE[dtype] * np.abs(b).max())


def test_a_wrong_variant_fails(monkeypatch):
    from variants import book_numpy

    right = book_numpy.conv_forward
    monkeypatch.setattr(book_numpy, "conv_forward", lambda x, *rest: right(x, *rest) + (x.dtype == np.float32))
    with pytest.raises(ValueError, match="NumPy is wrong: forward"):
        check("NumPy", LAYERS[0], "float32", "forward", 1)
    check("NumPy", LAYERS[0], "float32", "backward_data", 1)


def test_a_missing_variant_is_skipped_by_asv(monkeypatch):
    import variants

    monkeypatch.setitem(variants._OPTIONS, "nobody", ("nobody_variant", ()))
    with pytest.raises(NotImplementedError, match="nobody"):
        calls("nobody", LAYERS[0], "float32", 1)
