"""Launches of kernels whose every access is checked: `install` makes each launch of this process one.

What a kernel may touch are the arrays among its arguments, those behind tables of addresses, and the arguments
themselves; what it may write is in `ACCESS`. The parts into which a launch is cut for threads run one after the other,
the last first, so that none can count on those before it, and no two may touch the same byte if one writes it.
"""

from __future__ import annotations

import collections
import contextlib
import ctypes
import functools

import checked_accesses as checked
import instrumentation
import numpy as np
from checked_accesses import ACTIVE, COUNT, FOUND, LAST, PART, faults, regions, state

import jitconv
from jitconv import conv, cost, fused, geometry, kept, packing, plan, planes, pool, pooling, winograd, workspace
from jitconv.kernels import jit, winograd_weights
from jitconv.training import optimizers

# What a kernel does with the arrays among its first arguments: r, reads them; w, overwrites every byte; s, uses them as
# scratch, or writes a part that depends on the numbers among the arguments; u, changes them; t, has a table of the
# addresses of arrays, of which `BEHIND` says the same. All after these are numbers.
ACCESS = {
    "average_pooling.avg_pool_nchw": "rw",
    "average_pooling.avg_pool_nhwc": "rw",
    "average_pooling.avg_pool_backward_nchw": "rws",
    "average_pooling.avg_pool_backward_nhwc": "rws",
    "batchnorm.moments_nchw": "rws",
    "batchnorm.moments_nhwc": "rw",
    "batchnorm.normalise_nchw": "rrrrw",
    "batchnorm.normalise_nhwc": "rrrrw",
    "batchnorm.gradient_sums_nchw": "rrrrws",
    "batchnorm.gradient_sums_nhwc": "rrrrw",
    "batchnorm.normalise_backward_nchw": "rrrrrrrw",
    "batchnorm.normalise_backward_nhwc": "rrrrrrrw",
    "bias.bias_gradient": "r....w",
    "checksum.checksum": "r.w",
    "columns.im2col": "rwr",
    "columns.col2im": "rwr",
    "correlate.correlate": "rrrwsrrrr",
    "dense.dense_forward": "rrrwrs",
    "dense.dense_gradient": "rrwrrs",
    "depthwise_planes.depthwise_planes": "rrrwrs",
    "depthwise_planes.depthwise_planes_weights": "rrwwrs",
    "depthwise_weights.reduce_depthwise": "ruww",
    "global_pooling.global_avg_nchw": "rw",
    "global_pooling.global_avg_nhwc": "rws",
    "global_pooling.global_avg_backward_nchw": "rw",
    "global_pooling.global_avg_backward_nhwc": "rw",
    "global_pooling.global_max_nchw": "rww",
    "global_pooling.global_max_nhwc": "rwws",
    "global_pooling.global_max_backward_nchw": "rrww",
    "global_pooling.global_max_backward_nhwc": "rrww",
    "max_pooling.max_pool_nchw": "rw",
    "max_pooling.max_pool_nhwc": "rw",
    "max_pooling.argmax_pool_nchw": "rww",
    "max_pooling.argmax_pool_nhwc": "rww",
    "max_pooling.wide_argmax_pool_nchw": "rww",
    "max_pooling.wide_argmax_pool_nhwc": "rww",
    "max_pooling_backward.max_pool_backward_nchw": "rrwws",
    "max_pooling_backward.max_pool_backward_nhwc": "rrwws",
    "max_pooling_backward.max_pool_backward_scattered": "rrww",
    "max_pooling_ties.max_pool_shares": "rrrw",
    "max_pooling_ties.max_pool_backward_ties": "rrrw",
    "pack.pack": "rrsrr",
    "planes.planes": "rrwrrs",
    "planes_data.planes_data": "rrrwrrs",
    "planes_weights.planes_weights": "rrrrws",
    "planes_weights.reduce_planes": "ruwws",
    "pointwise.relu_forward": "rw",
    "pointwise.relu_backward": "rrw",
    "pointwise.dropout_apply": "rwr",
    "pointwise.softmax_cross_entropy": "rrrww",
    "relayout.transpose_images": "rw",
    "weights.correlate_weights": "rrrrss",
    "weights.reduce_weights": "ruwws",
    "winograd.winograd": "rrwrrs",
    "winograd.transform_weights": "rr.rrss",
    "winograd_weights.winograd_weights": "rrssrrsss",
    **{f"update.{rule}": "tr" for rule in ("sgd", "sgd_momentum", "adagrad", "rmsprop", "adadelta", "adam")},
    **{
        f"{module}.groups_of_{width}_{layout}": access
        for module, access in (("depthwise", "rrrwrrs"), ("depthwise_weights", "rrrrss"))
        for width in (1, 2, 4, 8, 16)
        for layout in ("nchw", "nhwc")
    },
}
NAMES = {"r": "reads", "w": "overwrites", "s": "uses as scratch", "u": "changes"}


def _access(name, arguments):
    """Return the row of `ACCESS` for a launch; Winograd's weights are written in the last of several."""
    if name == "winograd_weights.winograd_weights":
        geometry, stage, end = arguments[4][0], arguments[9], arguments[11]
        strips = -(-geometry["n"] // geometry["images"]) * geometry["row_strips"]
        if stage == winograd_weights.FINISH or (stage == winograd_weights.MULTIPLY and end == strips):
            return "rrww" + ACCESS[name][4:]
    return ACCESS[name]


launched: collections.Counter[str] = collections.Counter()
_behind: dict[int, tuple[np.ndarray, list[tuple[str, np.ndarray]]]] = {}  # by the id of a table, which is kept alive


@functools.cache
def _stack():
    """Return where the stack of this thread begins and ends: Numba keeps addresses of its own variables in others."""
    libc = ctypes.CDLL(None)
    attributes, start, size = ctypes.create_string_buffer(256), ctypes.c_void_p(), ctypes.c_size_t()
    libc.pthread_self.restype = ctypes.c_void_p
    failed = libc.pthread_getattr_np(ctypes.c_void_p(libc.pthread_self()), attributes)
    failed = failed or libc.pthread_attr_getstack(attributes, ctypes.byref(start), ctypes.byref(size))
    assert not failed
    return start.value, start.value + size.value


class OutOfBoundsError(AssertionError):
    """A kernel has touched what it must not, or left what it should have written."""


class _Launch:
    """The regions of one launch."""

    def __init__(self, name, arguments, table):
        self.arrays = [("r", "the arguments", table)]
        access = _access(name, arguments)
        assert not any(isinstance(value, np.ndarray) for value in arguments[len(access) :]), f"{name}: see ACCESS"
        for place, (kind, value) in enumerate(zip(access, arguments, strict=False)):
            if isinstance(value, np.ndarray):
                assert value.flags.c_contiguous
                assert kind in "rwsut", f"{name}: argument {place} is an array"
                behind = _behind[id(value)][1] if id(value) in _behind else []
                self.arrays.append(("r" if kind == "t" or behind else kind, f"argument {place}", value))
                for own, array in behind:
                    self.arrays.append((own if kind == "t" else kind, f"array behind argument {place}", array))
        self._shadows = []
        for row, (kind, _, array) in zip(regions, self.arrays, strict=False):
            start = jit.address_of(array)
            row[:] = start, start + array.nbytes, kind != "r", 0, 0
            shadow = None
            if kind != "r":
                shadow = np.zeros((2, max(1, array.nbytes)), np.uint8)
                row[checked.WRITERS], row[checked.READERS] = (side.ctypes.data for side in shadow)
            self._shadows.append(shadow)
        regions[len(self.arrays)] = *_stack(), 1, 0, 0
        state[[COUNT, LAST, FOUND]] = len(self.arrays) + 1, 0, 0

    def unwritten(self):
        """Return what is wrong with the arrays that had to be overwritten."""
        for (kind, name, array), shadow in zip(self.arrays, self._shadows, strict=True):
            missing = np.flatnonzero(shadow[0, : array.nbytes] == 0) if kind == "w" else ()
            if len(missing):
                yield f"leaves {len(missing)} bytes of {_described(name, array)} as they were, from byte {missing[0]}"

    def faults(self):
        """Return in words what was noted."""
        for site, address, size, kind, thread, _ in faults[: state[FOUND]].tolist():
            function, instruction = instrumentation.sites[site // 2]
            done = "writes" if site % 2 else "reads"
            where = f"{done} {size} bytes {self._where(kind, address, size)}"
            yield f"part {thread} {where}: in {function}, before `{instruction}`"

    def _where(self, kind, address, size):
        if kind == checked.LOCAL:
            return "outside a variable of its own"

        def away(one):
            start = jit.address_of(one[2])
            return max(start - address, address + size - start - one[2].nbytes, 0)

        nearest = min(self.arrays, key=away)
        start = jit.address_of(nearest[2])
        described = f"{_described(*nearest[1:])}, which it {NAMES[nearest[0]]}"
        if kind == checked.OUTSIDE:
            if address < start:
                return f"from {start - address} bytes before {described}"
            return f"up to {away(nearest)} bytes past the end of {described}"
        at = f"at byte {address - start} of {described}"
        return {
            checked.READ_ONLY: at,
            checked.MISALIGNED: f"{at}, which is not aligned as the code says",
            checked.SHARED: f"{at}, where another part writes or reads",
        }[kind]


def _described(name, array):
    return f"{name}, {array.dtype} {array.shape}"


def run(worker, dtype, threads, arguments):
    """Run a launch part by part, with every access checked; raise OutOfBoundsError for what is found."""
    if worker.recorded(dtype):
        return
    table = np.array([jit._argument(value) for value in arguments], np.int64)
    address = worker.address(dtype)
    function = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 4)(address)
    launch = _Launch(worker.name, arguments, table)
    try:
        for thread in reversed(range(threads)):
            state[[ACTIVE, PART]] = 1, thread
            function(table.ctypes.data, table.ctypes.data, thread, threads)
    finally:
        state[ACTIVE] = 0
    launched[worker.name] += 1
    found = [*launch.faults()]
    if not found:
        found = [*launch.unwritten()]
    if found:
        count = f" ({state[FOUND]} accesses)" if state[FOUND] > 1 else ""
        raise OutOfBoundsError(f"{worker.name}, {dtype}, {threads} parts: {found[0]}{count}")


def accesses():
    """Return how many accesses have been checked."""
    return int(state[checked.ACCESSES])


def _poisoned(size, use):
    """As workspace.scratch, but of exactly so many bytes, all of them 0xFF: NaN, or -1."""
    made = workspace.aligned_empty((size,), np.dtype(np.uint8))
    made[...] = 0xFF
    return made


def _remember(table, arrays):
    _behind[id(table)] = table, arrays
    return table


def install():
    """Check all launches of this process from now on, and keep nothing that is compiled on disk."""
    instrumentation.install()
    jit.enable_cache = lambda holder, function: None
    jit.Worker.__call__ = lambda self, dtype, threads, *arguments: run(self, dtype, threads, arguments)
    jit.Bound._first = lambda self, *arrays: run(self._worker, self._dtype, self._threads, (*arrays, *self._constants))
    workspace.scratch = _poisoned
    table_of, updates_of = fused._table, optimizers._Updates.of

    def table(dtype, *entries):
        return _remember(table_of(dtype, *entries), [("r", one) for one in entries if isinstance(one, np.ndarray)])

    def of(dtype, updated):
        made = updates_of(dtype, updated)
        behind = [("r" if place == 1 else "u", one) for row in updated for place, one in enumerate(row)]
        _remember(made.table, behind)
        return made

    fused._table, optimizers._Updates.of = table, of
    # Weights of any size are kept and packed by all threads.
    for module in (geometry, planes, winograd):
        module.KEPT_FROM = 0
    kept.SHARED_BYTES = packing.SHARED_BYTES = 0


_plain_small = cost.SMALL


@contextlib.contextmanager
def cut(threads):
    """Cut each launch into so many parts, however little there is to do; 1: as without threads."""
    small = _plain_small if threads == 1 else -1.0
    if small != cost.SMALL:
        cost.SMALL = plan.SMALL = small
        for seen in (conv._seen, pool._seen, pool._seen_argmax, pooling._seen):
            seen._kept.clear()
        for module in (plan, geometry):
            for function in vars(module).values():
                if isinstance(function, functools._lru_cache_wrapper):
                    function.cache_clear()
    _behind.clear()
    with jitconv.num_threads(threads):
        yield
