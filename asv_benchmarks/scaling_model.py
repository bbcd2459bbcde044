"""What a data-parallel training step costs on many nodes: a model in plain numbers, no measuring.

Times are in seconds, sizes in bytes, bandwidths in bytes a second. Each rank computes a batch of its own, then the
gradients of all ranks are summed (an allreduce), bucket by bucket, while backward still runs if `overlap`; the
optimizer comes last. Nodes are alike, and so are links; that nobody waits for a straggler is an assumption.

Sources: Thakur, Rabenseifner, Gropp, "Optimization of collective communication operations in MPICH" (2005), section 4.5
(recursive halving and doubling, and the terms of latency, bandwidth and sums); Patarasuk, Yuan, "Bandwidth optimal
all-reduce algorithms for clusters of workstations" (2009) (ring); Li et al., "PyTorch distributed: experiences on
accelerating data parallel training" (2020) (buckets that overlap with backward).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

ALGORITHMS = ("rabenseifner", "ring")


class Link(NamedTuple):
    """What lies between two ranks."""

    latency: float  # of a message
    bandwidth: float  # of one rank, in each direction


class Node(NamedTuple):
    """A computer."""

    cores: int
    memory_bandwidth: float  # of all cores together


class Block(NamedTuple):
    """The gradients of a layer."""

    bytes: int
    flops: float  # of its backward pass


class Work(NamedTuple):
    """What a rank computes in a step, alone on its node."""

    step: float  # of every step, whatever the batch: calls, packing weights
    forward: float  # of each image
    backward: float  # of each image
    update: float  # of the optimizer
    traffic: float  # bytes to and from memory for each image
    blocks: tuple[Block, ...]  # in the order in which backward fills them

    @property
    def gradient_bytes(self) -> int:
        """Bytes of all gradients."""
        return sum(block.bytes for block in self.blocks)


class Bucket(NamedTuple):
    """Gradients that are summed together."""

    bytes: int
    ready: float  # the share of backward after which they are there


class Step(NamedTuple):
    """A step of all ranks; `total` is the time of computing and of waiting for gradients."""

    compute: float
    communication: float  # of all buckets, whether or not somebody waits for it
    waiting: float

    @property
    def total(self) -> float:
        """Seconds from one step to the next."""
        return self.compute + self.waiting


class Row(NamedTuple):
    """A number of nodes, of one rank each."""

    nodes: int
    batch: int  # of the rank that has most
    step: Step
    images_per_second: float
    efficiency: float  # images a second, of those that so many nodes would do without each other


class Settings(NamedTuple):
    """How gradients are summed."""

    algorithm: str = "rabenseifner"
    overlap: bool = True
    bucket_bytes: int = 2**20  # a bucket is closed when it has so many


DEFAULT = Settings()


def allreduce_seconds(size: float, ranks: int, link: Link, node: Node, algorithm: str = "rabenseifner") -> float:
    """Return the time in which so many ranks sum arrays of `size` bytes, so that each has the sum.

    With p ranks, n bytes, latency a and bandwidth B both algorithms send and receive 2 (p-1)/p n bytes and add (p-1)/p
    n of them, for which memory gives two and takes one. Recursive halving and doubling takes 2 log2(p) messages one
    after the other; where p is no power of two, the ranks above it first give their array to another rank and get the
    sum from it in the end, 2 a + 2 n / B and n bytes of sums more. The ring takes 2 (p-1) messages.
    """
    if algorithm not in ALGORITHMS:
        raise ValueError(f"`algorithm` must be one of {', '.join(ALGORITHMS)}, got {algorithm!r}")
    if ranks < 1:
        raise ValueError(f"`ranks` must be at least 1, got {ranks}")
    if ranks == 1:
        return 0.0
    if algorithm == "ring":
        return 2 * (ranks - 1) * link.latency + _pieces(size, ranks, link, node)
    rounds = int(math.log2(ranks))
    seconds = 2 * rounds * link.latency + _pieces(size, 2**rounds, link, node)
    if ranks > 2**rounds:
        seconds += 2 * link.latency + 2 * size / link.bandwidth + 3 * size / node.memory_bandwidth
    return seconds


def _pieces(size: float, ranks: int, link: Link, node: Node) -> float:
    share = (ranks - 1) / ranks * size
    return 2 * share / link.bandwidth + 3 * share / node.memory_bandwidth


def buckets_of(blocks: Sequence[Block], bucket_bytes: int) -> list[Bucket]:
    """Return the buckets of gradients, in the order in which they are ready.

    A bucket takes blocks until it has `bucket_bytes`; a block is never split.
    """
    whole = sum(block.flops for block in blocks)
    buckets: list[Bucket] = []
    size, done = 0, 0.0
    for index, block in enumerate(blocks):
        size, done = size + block.bytes, done + block.flops
        if size and (size >= bucket_bytes or index == len(blocks) - 1):
            buckets.append(Bucket(size, done / whole if whole else 1.0))
            size = 0
    return buckets


def slowdown(work: Work, node: Node, ranks: int, threads: int) -> float:
    """Return by what computing takes longer if so many ranks share a node: its cores, or its memory's bandwidth."""
    seconds = work.forward + work.backward
    memory = work.traffic * ranks / node.memory_bandwidth
    return max(1.0, ranks * threads / node.cores, memory / seconds if seconds else 0.0)


def faster(work: Work, times: float) -> Work:
    """Return the work of a node that computes so many times as fast."""
    return work._replace(
        step=work.step / times, forward=work.forward / times, backward=work.backward / times, update=work.update / times
    )


def step_of(
    work: Work, batch: int, ranks: int, link: Link, node: Node, settings: Settings = DEFAULT, slower: float = 1.0
) -> Step:
    """Return a step of so many ranks with so many images each; computing takes `slower` times as long as alone."""
    forward, backward = (work.step + batch * work.forward) * slower, batch * work.backward * slower
    update = work.update * slower
    buckets = buckets_of(work.blocks, settings.bucket_bytes)
    seconds = [allreduce_seconds(bucket.bytes, ranks, link, node, settings.algorithm) for bucket in buckets]
    end = 0.0
    for bucket, each in zip(buckets, seconds, strict=True):
        ready = forward + backward * (bucket.ready if settings.overlap else 1.0)
        end = max(end, ready) + each
    computed = forward + backward
    return Step(computed + update, sum(seconds), max(end - computed, 0.0))


def weak_scaling(
    work: Work, batch: int, nodes: Sequence[int], link: Link, node: Node, settings: Settings = DEFAULT
) -> list[Row]:
    """Return a row for each number of nodes: each node has `batch` images, and more nodes train on more at a time."""
    rows = []
    for p in nodes:
        step = step_of(work, batch, p, link, node, settings)
        rows.append(Row(p, batch, step, p * batch / step.total, step.compute / step.total))
    return rows


def strong_scaling(
    work: Work, images: int, nodes: Sequence[int], link: Link, node: Node, settings: Settings = DEFAULT
) -> list[Row]:
    """Return a row for each number of nodes: all together have `images`, of which each has at least one."""
    alone = step_of(work, images, 1, link, node, settings).total
    rows = []
    for p in nodes:
        if p <= images:
            batch = math.ceil(images / p)
            step = step_of(work, batch, p, link, node, settings)
            rows.append(Row(p, batch, step, images / step.total, alone / (p * step.total)))
    return rows
