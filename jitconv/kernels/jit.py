"""The one door to Numba's options: no other module names one."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from llvmlite import ir
from numba import carray, from_dtype, njit, prange, threading_layer, types
from numba.core import cgutils, config
from numba.core.caching import NullCache
from numba.core.ccallback import CFunc
from numba.core.compiler_lock import global_compiler_lock
from numba.extending import intrinsic

from . import forks, waiting
from .cache import enable_cache
from .calls import call, call_in_mode, float_mode, number

# `contract` lets a product and a sum become one fused operation; it assumes nothing about NaN, inf or order.
_OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": {"contract"}}

_launching = threading.RLock()
_takes_concurrent_launches = False


def _launch_guarded(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a parallel function, one at a time on the layer workqueue: it ends the process when two threads launch."""
    global _takes_concurrent_launches
    if _takes_concurrent_launches:
        return function(*arguments)
    with _launching:
        result = function(*arguments)
        with contextlib.suppress(ValueError):  # no layer yet: nothing has been launched
            _takes_concurrent_launches = threading_layer() != "workqueue"
        return result


def kernel(*, parallel: bool = False) -> Callable[[Callable[..., Any]], Any]:
    """Compile a function that Python calls: no GIL, NumPy's error model, kept on disk."""

    def decorate(function: Callable[..., Any]) -> Any:
        dispatcher = njit(parallel=parallel, **_OPTIONS)(function)
        if not config.DISABLE_JIT:
            enable_cache(dispatcher, function)
        return functools.wraps(function)(functools.partial(_launch_guarded, dispatcher)) if parallel else dispatcher

    return decorate


def step(function: Callable[..., Any]) -> Any:
    """Compile a function that only kernels call; its code becomes part of theirs."""
    return njit(**_OPTIONS)(function)


def inlined(function: Callable[..., Any]) -> Any:
    """As `step`, but copied into its callers before they compile.

    LLVM compiles each level of a chain of steps with all that it calls; on the way to the tile, the bulk of the
    code, a level costs 1 s.
    """
    return njit(inline="always", **_OPTIONS)(function)


@kernel(parallel=True)
def _launch(address, arguments, threads):
    mode = float_mode()
    for thread in prange(threads):
        call_in_mode(mode, address, arguments.ctypes.data, np.int64(thread), threads)


@kernel()
def _run(address, arguments):
    call(address, arguments.ctypes.data, 0, 1)


class _Carrier(threading.local):
    held: tuple[Callable[[int, int, int], None], int, int] | None = None


_carrier = _Carrier()


@contextlib.contextmanager
def carried_by(team: Callable[[int, int, int], None], thread: int, threads: int) -> Iterator[None]:
    """Let another library's threads run what this Python thread launches inside a `with` block.

    `team` lets so many threads (its third argument; fewer will do) call the function at an address with a pointer.
    `thread` and `threads` are the addresses of functions that tell a member its number and the team's size.
    """
    before, _carrier.held = _carrier.held, (team, thread, threads)
    try:
        yield
    finally:
        _carrier.held = before


def _share(launch):
    """Run a member's share of a launch: mode, worker, arguments, threads, and the functions that number a team."""
    mode, address, arguments, threads, thread_number, team_size = carray(launch, 6)
    thread, step = number(thread_number), number(team_size)
    while thread < threads:
        call_in_mode(mode, address, arguments, thread, threads)
        thread += step


@kernel()
def _mode():
    return float_mode()


@functools.cache
def _member() -> Any:
    signature = types.void(types.CPointer(types.int64))
    made = _Compiled(_share, (signature.args, signature.return_type), {}, dict(_OPTIONS))
    made.enable_caching()
    made.compile()
    return made


# A worker as C sees it; the first argument carries a dtype and is never read.
_AS_C = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)


def _start(address: int, table: Any, threads: int) -> None:
    """Run a worker on Numba's threads, or on those of `carried_by`; where there are none, part after part."""
    if forks.threads_left_behind() or (forks.is_forked() and _carrier.held is not None):
        part = _AS_C(address)
        for thread in range(threads):
            part(None, table.ctypes.data, thread, threads)
    elif _carrier.held is None:
        _launch(address, table, threads)
    else:
        team, *numbering = _carrier.held
        launch = np.array([_mode(), address, table.ctypes.data, threads, *numbering], np.int64)
        team(_member().address, launch.ctypes.data, threads)


@intrinsic
def _stack_copy(typingctx, source, count):
    """Copy `count` int64 to the caller's stack and return the pointer to them."""

    def codegen(context, builder, signature, args):
        index = ir.IntType(64)
        target = builder.alloca(index, size=args[1])
        size = builder.mul(args[1], ir.Constant(index, 8))
        cgutils.raw_memcpy(builder, target, builder.inttoptr(args[0], index.as_pointer()), size, 1, align=8)
        return target

    return types.CPointer(types.int64)(types.intp, types.intp), codegen


@kernel()
def _fill_two(own, a, b):
    own[0], own[1] = a.ctypes.data, b.ctypes.data


@kernel()
def _fill_three(own, a, b, c):
    own[0], own[1], own[2] = a.ctypes.data, b.ctypes.data, c.ctypes.data


@kernel()
def _fill_five(own, a, b, c, d, e):
    own[0], own[1], own[2], own[3], own[4] = a.ctypes.data, b.ctypes.data, c.ctypes.data, d.ctypes.data, e.ctypes.data


@kernel()
def _run_two(address, arguments, a, b):
    own = carray(_stack_copy(arguments.ctypes.data, arguments.size), 2)
    _fill_two(own, a, b)
    call(address, own.ctypes.data, 0, 1)


@kernel()
def _run_three(address, arguments, a, b, c):
    own = carray(_stack_copy(arguments.ctypes.data, arguments.size), 3)
    _fill_three(own, a, b, c)
    call(address, own.ctypes.data, 0, 1)


@kernel()
def _run_five(address, arguments, a, b, c, d, e):
    own = carray(_stack_copy(arguments.ctypes.data, arguments.size), 5)
    _fill_five(own, a, b, c, d, e)
    call(address, own.ctypes.data, 0, 1)


# By the number of arrays. Numba reads the address of one in 45 ns, `ndarray.ctypes` in 940 ns; a tuple of arrays it
# would take apart slowly.
_ON_ARRAYS = {2: (_run_two, _fill_two), 3: (_run_three, _fill_three), 5: (_run_five, _fill_five)}


def compile_launchers(dtype: np.dtype[Any]) -> None:
    """Compile what starts workers: in parallel, alone, and on the arrays of small convolutions and poolings."""
    if not forks.threads_left_behind():
        _launch(0, np.zeros(1, np.int64), 0)
    table, (vector, batch) = types.int64[::1], (types.Array(from_dtype(dtype), ndim, "C") for ndim in (1, 4))
    _run.compile((types.int64, table))
    scratch, argmax = types.Array(types.uint8, 1, "C"), types.Array(types.uint8, 4, "C")
    pooling, packing = ((batch, batch), (batch, batch, argmax)), ((batch, vector, scratch),)
    for arrays in (*pooling, *packing, (batch, batch, vector, batch, scratch), (batch, vector, vector, batch, scratch)):
        run, fill = _ON_ARRAYS[len(arrays)]
        run.compile((types.int64, table, *arrays))
        fill.compile((table, *arrays))


class _Nothing(ctypes.Structure):
    """What lies where an array begins: no bytes, so that empty arrays have it too."""


def address_of(a: Any) -> int:
    """Return where an array begins. `ndarray.ctypes` takes 980 ns; this takes 230, but not of a read-only array."""
    try:
        return ctypes.addressof(_Nothing.from_buffer(a))
    except (TypeError, ValueError):
        return int(a.ctypes.data)


def _argument(value: Any) -> int:
    return address_of(value) if isinstance(value, np.ndarray) else int(value)


class _Found(NullCache):
    """A cache that has what was found in another."""

    def __init__(self, found: Any) -> None:
        self._found = found

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        return self._found


class _Compiled(CFunc):
    """A function at an address, from the cache if it is there."""

    _cache: Any

    def enable_caching(self) -> None:
        enable_cache(self, self._pyfunc)

    def load(self) -> bool:
        """Take the code from the cache, and return whether it was there."""
        with global_compiler_lock:
            return self._load()

    def _load(self) -> bool:
        found = self._cache.load_overload(self._sig, self._targetdescr.target_context)
        if found is not None:
            self._cache = _Found(found)
            self.compile()
        return found is not None

    def _compile_uncached(self) -> Any:
        with waiting.compiling(kept=self._cache.cache_path is not None):
            return super()._compile_uncached()


# A worker, and the character of the dtype it is compiled for.
Job = tuple["Worker", str]


class _Recording(threading.local):
    wanted: dict[Job, None] | None = None


_recording = _Recording()


@contextlib.contextmanager
def recording() -> Iterator[dict[Job, None]]:
    """Note what the calls of this Python thread need in place of running it: results stay as they were allocated."""
    before, _recording.wanted = _recording.wanted, {}
    try:
        yield _recording.wanted
    finally:
        _recording.wanted = before


class Bound:
    """A worker with all its arguments but the first, arrays: `run` takes those. Python threads may share it."""

    def __init__(
        self, worker: Worker, dtype: np.dtype[Any], threads: int, arrays: int, constants: tuple[Any, ...]
    ) -> None:
        self._worker, self._dtype, self._threads = worker, dtype, threads
        self._constants = constants  # kept alive: the table holds their addresses
        self._table = np.array([0] * arrays + [_argument(value) for value in constants], np.int64)
        self._run, self._fill = _ON_ARRAYS[arrays]
        self.run: Callable[..., None] = self._first

    def _first(self, *arrays: Any) -> None:
        """Run, and compile before it; not in a recording, so that what is kept then is good for calls after it."""
        if self._worker.recorded(self._dtype):
            return
        self._address = self._worker.address(self._dtype)
        alone = functools.partial(self._run, self._address, self._table)
        self.run = alone if self._threads == 1 else self._shared
        self.run(*arrays)

    def _shared(self, *arrays: Any) -> None:
        table = self._table.copy()
        self._fill(table, *arrays)
        _start(self._address, table, self._threads)


class Worker:
    """A function that every thread of a launch runs, compiled once for each dtype and kept on disk.

    It is reached through its address, by one small parallel loop that serves all workers. As a parallel function of
    its own it would be compiled five times over, once for each of the wrappers that Numba puts around a parallel
    loop: forward takes 6.4 s of CPU to compile instead of 9.9 s.

    The function takes (like, arguments, thread, threads): a pointer that only carries the dtype, a pointer to the
    int64 arguments, where an array is its address, the thread's number and the number of threads.
    """

    def __init__(self, function: Callable[..., None]) -> None:
        self._function = function
        self._compiled: dict[str, Any] = {}
        self._lock = threading.Lock()
        self.name = f"{function.__module__.rpartition('.')[2]}.{function.__name__}"
        self.__doc__ = function.__doc__

    def renew_lock(self) -> None:
        """Forget who holds the lock: threads of a parent process."""
        self._lock = threading.Lock()

    def address(self, dtype: np.dtype[Any]) -> int:
        """Return where the code for a dtype is, which is compiled if it has to be."""
        found = self._compiled.get(dtype.char)
        if found is None:
            with self._lock:
                found = self._compiled.get(dtype.char)
                if found is None:
                    found = self._make(dtype)
                    found.compile()
                    self._compiled[dtype.char] = found
        return int(found.address)

    def load(self, dtype: np.dtype[Any]) -> bool:
        """Take the code for a dtype from the cache, and return whether it is there now."""
        with self._lock:
            if dtype.char not in self._compiled:
                made = self._make(dtype)
                if not made.load():
                    return False
                self._compiled[dtype.char] = made
        return True

    def _make(self, dtype: np.dtype[Any]) -> _Compiled:
        element = types.float32 if dtype == np.float32 else types.float64
        signature = types.void(types.CPointer(element), types.CPointer(types.int64), types.int64, types.int64)
        made = _Compiled(self._function, (signature.args, signature.return_type), {}, dict(_OPTIONS))
        made.enable_caching()
        return made

    def recorded(self, dtype: np.dtype[Any]) -> bool:
        """Return whether this thread only records what it would run, and that it would run this."""
        if _recording.wanted is None:
            return False
        _recording.wanted[self, dtype.char] = None
        return True

    def bind(self, dtype: np.dtype[Any], threads: int, arrays: int, *constants: Any) -> Bound:
        """Return the call that needs only the first arguments, so many arrays, to run."""
        return Bound(self, dtype, threads, arrays, constants)

    def __call__(self, dtype: np.dtype[Any], threads: int, *arguments: Any) -> None:
        """Run on `threads` threads; the caller keeps the arrays among `arguments` alive."""
        if self.recorded(dtype):
            return
        # Most are plain numbers: 2 us less than a call for each of 20.
        table = np.array([value if type(value) is int else _argument(value) for value in arguments], np.int64)
        address = self.address(dtype)
        if threads == 1:
            _run(address, table)
        else:
            _start(address, table, threads)


WORKERS: dict[str, Worker] = {}  # by name, those of the modules that have been imported


def worker(function: Callable[..., None]) -> Worker:
    """Make a function a `Worker`."""
    made = Worker(function)
    WORKERS[made.name] = made
    return made


def _renew_locks() -> None:
    global _launching
    _launching = threading.RLock()
    for made in WORKERS.values():
        made.renew_lock()


forks.renewed_after_fork(_renew_locks)
