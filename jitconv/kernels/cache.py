"""Compiled code on disk: one file for each kernel, signature and kind of CPU, loaded whole and unharmed or not at all.

Numba keeps an index for each function and numbers its files of code. Two processes that compile one function at once,
for float32 and for float64, may both take number 1, and the index of one then names the code of the other. A file whose
name follows from all that its code depends on needs no index, and nobody has to wait for anybody.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import pathlib
import pickle
import tempfile
import uuid
from collections.abc import Callable
from typing import Any

import llvmlite
import numba
import numpy as np
from numba.core import config
from numba.core.caching import FunctionCache
from numba.core.serialize import dumps

from ..version import __version__


def _fingerprint() -> str:
    """Return what all code depends on: versions, options of Numba's that users can set, and the text of the kernels."""
    versions = (__version__, numba.__version__, llvmlite.__version__, np.__version__)
    options = (config.OPT, config.BOUNDSCHECK, config.DEBUGINFO_DEFAULT)
    digest = hashlib.sha256(repr((versions, options)).encode())
    for path in sorted(pathlib.Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


FINGERPRINT = _fingerprint()
_DIGEST = hashlib.sha256().digest_size


class _KernelFiles:
    """The files of one function, in the place of Numba's index and numbered files.

    A file begins with the SHA-256 of its key and of the rest: one that is cut short, damaged or another's is not read.
    """

    def __init__(self, folder: str, name: str) -> None:
        self._folder, self._name = pathlib.Path(folder), name

    def _path(self, key: Any) -> pathlib.Path:
        what, code = (hashlib.sha256(repr(part).encode()).hexdigest() for part in key)
        return self._folder / f"{self._name}.{what[:16]}.{code[:16]}.nbc"

    @staticmethod
    def _seal(key: Any, content: bytes) -> bytes:
        return hashlib.sha256(repr(key).encode() + content).digest()

    def load(self, key: Any) -> Any:
        """Return what was saved, None if there is nothing or nothing sound."""
        try:
            stored = self._path(key).read_bytes()
        except OSError:
            return None
        seal, content = stored[:_DIGEST], stored[_DIGEST:]
        return pickle.loads(content) if seal == self._seal(key, content) else None

    def save(self, key: Any, data: Any) -> None:
        """Write a file, whole or not at all, and remove those of other versions of the same kernel and signature."""
        content, path = dumps(data), self._path(key)
        part = path.with_name(f"{path.name}.{uuid.uuid4().hex[:16]}.tmp")
        try:
            part.write_bytes(self._seal(key, content) + content)
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)
        for other in self._folder.glob(f"{path.name.rsplit('.', 2)[0]}.*.nbc"):
            if other != path:
                other.unlink(missing_ok=True)

    def flush(self) -> None:
        """Remove all files of the function."""
        for path in self._folder.glob(f"{self._name}.*.nbc"):
            path.unlink(missing_ok=True)


class KernelCache(FunctionCache):
    """Numba's on-disk cache with files of its own, keyed by the text of every kernel module as well.

    Numba's own key knows a function's bytecode but not its callees or intrinsics: without this a changed
    tile would leave old machine code in use.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)
        name = f"{function.__module__.rpartition('.')[2]}.{function.__qualname__}"
        self._cache_file = _KernelFiles(self.cache_path, name.replace("<", "").replace(">", ""))

    def _index_key(self, sig: Any, codegen: Any) -> Any:
        """Return what names a kernel's file, and what its code follows from besides."""
        signature, cpu, (code, closure) = super()._index_key(sig, codegen)
        return (signature, cpu, closure), (code, FINGERPRINT)

    def save_overload(self, sig: Any, data: Any) -> None:
        with contextlib.suppress(OSError):  # a folder that cannot be written: the code serves this process
            super().save_overload(sig, data)


_folder: str | None = None


def enable_cache(holder: Any, function: Callable[..., Any]) -> None:
    """Let what is compiled be kept on disk, if there is any folder for it; `jitconv info` tells."""
    global _folder
    with contextlib.suppress(RuntimeError):  # Numba: "no locator available"
        holder._cache = KernelCache(function)
        _folder = holder._cache.cache_path


def cache_folder() -> str | None:
    """Return the folder in which compiled code is kept, None if there is none."""
    return _folder


def cache_problem() -> str | None:
    """Return why nothing that is compiled can be kept on disk, None if it can."""
    if _folder is None:
        return "no folder can be written"
    try:
        os.makedirs(_folder, exist_ok=True)
        with tempfile.TemporaryFile(dir=_folder):
            return None
    except OSError as error:
        return f"cannot be written: {error.strerror}"
