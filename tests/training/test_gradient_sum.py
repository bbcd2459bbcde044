"""The sum of gradients over ranks, without MPI: what is summed, in which pieces, and when it begins."""

from __future__ import annotations

import copy
import itertools

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from jitconv.layers import Conv2d, Dense, Flatten, MaxPool2d, ReLU
from jitconv.training import Sequential
from jitconv.training.gradient_sum import GradientSum
from jitconv.training.ranks import share_of


def test_shares():
    for total in (0, 1, 3, 7, 100):
        for size in (1, 2, 3, 8):
            shares = [share_of(total, rank, size) for rank in range(size)]
            assert shares[0].first == 0
            assert shares[-1].past == total
            assert all(one.past == other.first for one, other in itertools.pairwise(shares))
            counts = [share.past - share.first for share in shares]
            assert max(counts) - min(counts) <= 1
            assert counts == sorted(counts, reverse=True)


class Recorded:
    """Ranks, and MPI, that sum nothing and note the order of calls."""

    class Request:
        def __init__(self, calls):
            self._calls = calls

        def Testall(self, requests):
            self._calls.append("test")

        def Waitall(self, requests):
            self._calls.append(f"wait for {len(requests)}")

    def __init__(self):
        self.calls = []
        self.mpi = self.communicator = self
        self.IN_PLACE = None
        self.Request = Recorded.Request(self.calls)

    def Iallreduce(self, where, memory):
        self.calls.append(memory.size)
        memory *= 2
        return object()


def step_back(model, total):
    x = np.ones((2, 3, 10, 10), np.float32)
    model.run_back(np.ones_like(model(x)), total.completed)
    total.wait()


@pytest.fixture
def model():
    """Return a network of 16 * 27 + 16, 16 * 144 + 16 and 5 * 576 + 5 parameters."""
    layers = [Conv2d(3, 16, 3, padding=1, seed=0), ReLU(), Conv2d(16, 16, 3, seed=0), ReLU(), MaxPool2d(2), Flatten()]
    return Sequential([*layers, Dense(256, 5, seed=0)])


@pytest.mark.parametrize(
    ("bucket", "overlap", "calls"),
    [
        # Room is taken in lines of 16 floats: 1280 + 16, 2304 + 16, 432 + 16.
        (1 << 20, True, [4064, "wait for 1"]),
        (4 * 1300, True, [1296 + 2320, 448, "wait for 2"]),
        (1, True, [1296, 2320, 448, "wait for 3"]),
        (1, False, [1296, 2320, 448, "wait for 3"]),
    ],
)
def test_sums_begin_once_gradients_are_complete(model, bucket, overlap, calls):
    ranks = Recorded()
    total = GradientSum(model, ranks, bucket_bytes=bucket, overlap=overlap)
    for _ in range(2):
        step_back(model, total)
        expected = {name: 2 * a for name, a in plain_gradients(model).items()}
        for name, a in model.gradients.items():
            assert a.ctypes.data % 64 == 0
            assert_array_equal(a, expected[name], err_msg=name)
    assert [call for call in ranks.calls if call != "test"] == 2 * calls
    looks = ranks.calls[: ranks.calls.index(calls[-2])].count("test")
    assert looks == (4 if overlap else 0)  # each step behind the first convolution lets sums go on


def plain_gradients(model):
    """Return what the backward pass of a copy computes."""
    other = copy.deepcopy(model)
    other.backward(np.ones_like(other(np.ones((2, 3, 10, 10), np.float32))))
    return other.gradients
