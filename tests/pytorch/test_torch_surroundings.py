"""What PyTorch does around operators: compiling, data loaders, several processes, threads."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
import textwrap
import threading

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

import jitconv  # noqa: E402
import jitconv.torch as jt  # noqa: E402
import jitconv.torch.functional as F  # noqa: E402
from jitconv.kernels import jit  # noqa: E402
from jitconv.torch import team  # noqa: E402


def small_net():
    """Return a network with each kind of module."""
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.ConvTranspose2d(16, 8, 2, stride=2),
        nn.Conv2d(8, 8, 3, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 4),
    )


@pytest.fixture
def model():
    torch.manual_seed(0)
    made = small_net()
    jt.accelerate(made)
    return made


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=str)
def test_compiled_in_one_graph(model, memory_format):
    model = model.to(memory_format=memory_format)
    compiled = torch.compile(copy.deepcopy(model), backend="aot_eager", fullgraph=True)
    x = torch.randn(2, 3, 12, 12).to(memory_format=memory_format)
    for one in (model, compiled):
        one(x).square().sum().backward()
    for a, b in zip(compiled.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=1e-6)
    model.eval(), compiled.eval()
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), model(x), rtol=1e-4, atol=1e-6)


def test_compiled_for_changing_batches():
    function = torch.compile(lambda x, w: F.conv2d(x, w, padding=1), backend="aot_eager", fullgraph=True, dynamic=True)
    w = torch.randn(4, 3, 3, 3)
    for n in (2, 3, 5):
        x = torch.randn(n, 3, 8, 8)
        torch.testing.assert_close(function(x, w), F.conv2d(x, w, padding=1))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
def test_traced(model):
    model.eval()
    x = torch.randn(2, 3, 12, 12)
    with torch.no_grad():
        traced = torch.jit.trace(model, (x,))
        assert "jitconv::" in str(traced.inlined_graph)
        torch.testing.assert_close(traced(x + 1), model(x + 1), rtol=1e-4, atol=1e-5)


def test_checkpointing(model):
    x = torch.randn(2, 3, 12, 12, requires_grad=True)
    torch.utils.checkpoint.checkpoint(model[:4], x, use_reentrant=False).sum().backward()
    (dx,) = torch.autograd.grad(model[:4](x).sum(), [x])
    torch.testing.assert_close(x.grad, dx)


class Convolved(torch.utils.data.Dataset):
    """Images that a convolution has gone over, in the worker."""

    def __init__(self, weight):
        self.weight = weight

    def __len__(self):
        return 6

    def __getitem__(self, i):
        """Return an image and the threads that its convolution ran on."""
        x = torch.full((3, 40, 40), float(i))
        return F.conv2d(x, self.weight, padding=1), torch.get_num_threads()


def test_workers_of_a_data_loader():
    weight = torch.randn(8, 3, 3, 3)
    dataset = Convolved(weight)
    F.conv2d(torch.randn(64, 3, 40, 40), weight)  # threads are running when the workers are forked
    loader = torch.utils.data.DataLoader(
        dataset, batch_size=2, num_workers=2, multiprocessing_context="fork", timeout=60
    )
    for first, (images, threads) in zip((0, 2, 4), loader, strict=True):
        assert threads.tolist() == [1, 1]
        torch.testing.assert_close(images, torch.stack([dataset[first][0], dataset[first + 1][0]]))


@pytest.fixture
def torch_threads():
    """Return PyTorch's setter of threads, and undo what it does."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def test_as_many_threads_as_pytorch(torch_threads):
    torch_threads(1)
    with team.torch_threads():
        assert jitconv.get_num_threads() == 1
    torch_threads(2)
    with team.torch_threads():
        assert jitconv.get_num_threads() == 2
    torch_threads(64)
    with team.torch_threads():
        assert jitconv.get_num_threads() == jitconv.threads.available_threads()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="PyTorch's threads are used on Linux")
def test_kernels_run_on_pytorchs_threads(torch_threads, monkeypatch):
    torch_threads(2)
    found, launched = team.openmp(), []
    assert found is not None
    monkeypatch.setattr(jit, "_launch", lambda *_: pytest.fail("Numba's threads were used"))

    def noted(*arguments):
        launched.append(arguments[2])
        found.team(*arguments)

    monkeypatch.setattr(team, "openmp", lambda: found._replace(team=noted))
    x, w = torch.randn(8, 16, 32, 32, dtype=torch.float64), torch.randn(16, 16, 3, 3, dtype=torch.float64)
    y = F.conv2d(x, w, padding=1)
    assert set(launched) == {2}
    torch.testing.assert_close(y, nn.functional.conv2d(x, w, padding=1))


def test_a_smaller_team_does_all_the_work(torch_threads, monkeypatch):
    torch_threads(2)
    found = team.openmp()
    if found is None:
        pytest.skip("PyTorch has no OpenMP here")
    alone = found._replace(team=lambda function, pointer, wanted: found.team(function, pointer, 1))
    x, w = torch.randn(8, 16, 32, 32), torch.randn(16, 16, 3, 3)
    y = F.conv2d(x, w, padding=1)
    monkeypatch.setattr(team, "openmp", lambda: alone)
    assert torch.equal(F.conv2d(x, w, padding=1), y)
    monkeypatch.setattr(team, "openmp", lambda: None)  # Numba's threads
    assert torch.equal(F.conv2d(x, w, padding=1), y)


def test_results_do_not_depend_on_the_threads(torch_threads):
    x, w = torch.randn(8, 16, 32, 32, requires_grad=True), torch.randn(16, 16, 3, 3, requires_grad=True)
    results = []
    for count in (1, 2):
        torch_threads(count)
        y = F.max_pool2d(F.conv2d(x, w, padding=1), 2)
        results.append((y, *torch.autograd.grad(y.square().sum(), [x, w])))
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_several_python_threads():
    x, w = torch.randn(4, 16, 32, 32), torch.randn(16, 16, 3, 3)
    expected, results = F.conv2d(x, w), [None] * 4

    def work(place):
        for _ in range(10):
            results[place] = F.conv2d(x, w)

    threads = [threading.Thread(target=work, args=(place,)) for place in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join(60)
    assert all(torch.equal(y, expected) for y in results)


def test_jitconvs_own_calls_keep_numbas_threads(rng):
    x, w = rng.random((8, 16, 32, 32)), rng.random((16, 16, 3, 3))
    F.conv2d(torch.from_numpy(x), torch.from_numpy(w))
    assert jit._carrier.held is None
    jitconv.conv2d(x, w)


DISTRIBUTED = """
    import os, sys, copy, torch
    import torch.distributed as dist
    sys.path.insert(0, {folder!r})
    from test_torch_surroundings import small_net
    import jitconv.torch as jt

    torch.set_num_threads(1)
    rank, world = int(sys.argv[1]), 2
    dist.init_process_group("gloo", init_method="file://" + sys.argv[2], rank=rank, world_size=world)
    torch.manual_seed(0)
    model = small_net().double()
    jt.accelerate(model)
    # Statistics of a batch are those of a process; the gradients of the two are compared without.
    model[5].eval()
    single = copy.deepcopy(model)
    parallel = torch.nn.parallel.DistributedDataParallel(model)
    x, labels = torch.randn(8, 3, 12, 12, dtype=torch.float64), torch.arange(8) % 4
    loss = torch.nn.functional.cross_entropy
    for step in range(2):
        parallel.zero_grad()
        loss(parallel(x[rank::world]), labels[rank::world]).backward()
    loss(single(x), labels).backward()
    for a, b in zip(model.parameters(), single.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)
    dist.barrier()
    dist.destroy_process_group()
    print("same gradients")
"""


@pytest.mark.skipif(not torch.distributed.is_available(), reason="PyTorch was built without torch.distributed")
def test_two_processes_have_the_gradients_of_one(tmp_path):
    code = textwrap.dedent(DISTRIBUTED.format(folder=os.path.dirname(__file__)))
    command = [sys.executable, "-W", "ignore", "-c", code]
    children = [
        subprocess.Popen([*command, str(rank), str(tmp_path / "meeting")], stdout=-1, stderr=-1, text=True)
        for rank in range(2)
    ]
    try:
        for child in children:
            out, error = child.communicate(timeout=120)
            assert child.returncode == 0, error
            assert "same gradients" in out
    finally:
        for child in children:
            child.kill()
            child.wait()
