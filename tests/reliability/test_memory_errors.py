"""A MemoryError, at whichever allocation, leaves nothing behind: the same call afterwards gives the same bits.

Allocations fail one after the other, the first of a call, then the second, until there is none left to fail.
"""

from __future__ import annotations

import contextlib
import copy

import numpy as np
import pytest

import jitconv
from jitconv import conv, dense, fused, layers, pointwise, pool, pooling, workspace
from jitconv.relayout import relayout
from jitconv.training import Sequential, Trainer, optimizers

ALLOCATORS = [(np, name) for name in ("empty", "zeros", "ones", "full", "empty_like", "zeros_like", "concatenate")]
ALLOCATORS.append((workspace, "aligned_empty"))


@contextlib.contextmanager
def failing_at(number, monkeypatch):
    """Let allocation `number` of the block raise MemoryError; yield the list of those that were asked for."""
    asked = []

    def guarded(allocate):
        def allocate_or_fail(*arguments, **options):
            asked.append(allocate)
            if len(asked) == number:
                raise MemoryError(f"allocation {number}")
            return allocate(*arguments, **options)

        return allocate_or_fail

    with monkeypatch.context() as patch:
        for module, name in ALLOCATORS:
            patch.setattr(module, name, guarded(getattr(module, name)))
        yield asked


def forget():
    """Let the next call be like the first of a process: nothing is kept from earlier ones."""
    for seen in (conv._seen, pool._seen, pool._seen_argmax, pooling._seen):
        seen._kept.clear()
    workspace._local.__dict__.pop("scratch", None)


def bits(result):
    if isinstance(result, np.ndarray):
        return result.tobytes()
    return result if result is None or isinstance(result, (int, float)) else tuple(map(bits, result))


def numbers(*shape):
    return np.random.default_rng(1).standard_normal(shape).astype(np.float32)


X, W, B = numbers(2, 6, 18, 19), numbers(8, 6, 3, 3), numbers(8)
NHWC = np.ascontiguousarray(X.transpose(0, 2, 3, 1))
OPTIONS = fused.Options((1, 1), ((1, 1), (1, 1)), (1, 1), 1, "auto")
DEPTHWISE = {"padding": 1, "groups": 6}


def fused_both_ways():
    y, argmax = fused.conv2d_pooled(NHWC, W, B, OPTIONS)
    dw, db = np.array(W), np.array(B)
    return y, argmax, fused.conv2d_backward(y, NHWC, W, dw, db, OPTIONS, "NHWC", saved=(y, argmax)), dw, db


def kept_twice():
    kept, w = jitconv.KeptWeights(), numbers(64, 64, 3, 3)
    x = numbers(1, 64, 9, 9)
    return jitconv.conv2d(x, w, kept=kept), jitconv.conv2d(x, w, kept=kept)


def pool_both_ways():
    y, argmax = jitconv.max_pool2d_with_argmax(X, 3, stride=2, padding=1)
    return y, argmax, jitconv.max_pool2d_backward(y, argmax, X.shape, 3, stride=2, padding=1)


def global_pool_both_ways():
    y, argmax = jitconv.global_max_pool2d(NHWC, layout="NHWC")
    return y, argmax, jitconv.global_max_pool2d_backward(y, argmax, NHWC.shape, layout="NHWC")


def dense_both_ways():
    w, dw = numbers(10, 30), np.array(numbers(10, 30))
    y = dense.forward(numbers(7, 30), w, None, True)
    return y, dense.backward(y, numbers(7, 30), w, dw, None, True), dw


def normalised():
    running = np.array(numbers(6)), np.array(numbers(6)) ** 2
    made = pointwise.batch_norm(X, numbers(6), numbers(6), *running, training=True)
    return *made, *running, *pointwise.batch_norm_backward(X, X, numbers(6), *made[1:], training=True)


CALLS = {
    "conv2d": lambda: jitconv.conv2d(X, W, B, padding=1),
    "conv2d, direct, NHWC": lambda: jitconv.conv2d(NHWC, W, B, layout="NHWC", algorithm="direct"),
    "conv2d, winograd": lambda: jitconv.conv2d(X, W, B, algorithm="winograd"),
    "conv2d_backward": lambda: jitconv.conv2d_backward(numbers(2, 8, 16, 17), X, W),
    "conv2d_backward, winograd": lambda: jitconv.conv2d_backward(numbers(2, 8, 16, 17), X, W, algorithm="winograd"),
    "conv2d_backward, depthwise": lambda: jitconv.conv2d_backward(X, X, numbers(6, 1, 3, 3), **DEPTHWISE),
    "conv_transpose2d": lambda: jitconv.conv_transpose2d(X, numbers(6, 4, 3, 3), stride=2),
    "fused": fused_both_ways,
    "kept weights": kept_twice,
    "max pooling": pool_both_ways,
    "average pooling": lambda: jitconv.avg_pool2d_backward(jitconv.avg_pool2d(X, 2), X.shape, 2),
    "global pooling": global_pool_both_ways,
    "columns": lambda: jitconv.col2im(jitconv.im2col(X, 3), X.shape, 3),
    "dense": dense_both_ways,
    "normalisation": normalised,
    "elements": lambda: (pointwise.relu(X), pointwise.dropout(X, 0.5, 3)),
    "relayout": lambda: relayout(X, "NHWC"),
}


@pytest.mark.parametrize("name", CALLS)
def test_the_same_call_afterwards_gives_the_same_bits(name, monkeypatch):
    call = CALLS[name]
    expected = bits(call())
    number = 0
    while True:
        number += 1
        forget()
        with failing_at(number, monkeypatch) as asked, contextlib.suppress(MemoryError):
            call()
        if len(asked) < number:
            break
        assert workspace.arena_in_use() is None
        assert bits(call()) == expected  # what was asked for in vain
        assert bits(call()) == expected  # and what has been seen since
    assert number > 1, "it allocates nothing"


def network():
    return Sequential(
        [
            layers.Conv2d(1, 8, 3, padding=1, seed=0),
            layers.BatchNorm2d(8),
            layers.ReLU(),
            layers.Conv2d(8, 8, 3, seed=1),
            layers.ReLU(),
            layers.MaxPool2d(2),
            layers.Flatten(),
            layers.Dropout(0.3, seed=2),
            layers.Dense(8 * 5 * 5, 4, seed=3),
        ]
    )


def everything(trainer):
    return bits((trainer.model.state().values(), trainer.optimizer.state().values(), trainer.step_losses))


@pytest.mark.parametrize("before", [0, 1])
def test_a_training_step_that_fails_has_changed_nothing(before, monkeypatch):
    images, labels = numbers(16, 1, 12, 12), np.arange(16) % 4
    plain = Trainer(network(), optimizers.Adam())
    for _ in range(3):
        plain.step(images, labels)
    trainer = Trainer(network(), optimizers.Adam())
    for _ in range(before):
        trainer.step(images, labels)
    trainer._compiled = True  # what is compiled ahead is, in the steps above
    unchanged, number = copy.deepcopy(everything(trainer)), 0
    while True:
        number += 1
        with failing_at(number, monkeypatch) as asked, contextlib.suppress(MemoryError):
            trainer.step(images, labels)
        if len(asked) < number:
            break
        assert everything(trainer) == unchanged, f"allocation {number}"
    assert number > 10
    for _ in range(2 - before):
        trainer.step(images, labels)
    assert everything(trainer) == everything(plain)


def test_a_forward_pass_that_failed_serves_no_backward_pass(monkeypatch):
    model = network()
    model.backward(np.ones_like(model.forward(numbers(4, 1, 12, 12))))
    with failing_at(8, monkeypatch), pytest.raises(MemoryError):
        model.forward(numbers(4, 1, 12, 12))
    with pytest.raises(RuntimeError, match="backward was called before"):
        model.backward(np.ones((4, 4), np.float32))
    assert model.forward(numbers(4, 1, 12, 12)).shape == (4, 4)
