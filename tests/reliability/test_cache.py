"""Compiled code on disk: many processes at once, no place to write, damaged files, other CPUs and versions."""

from __future__ import annotations

import concurrent.futures
import json
import pathlib
import pickle
import shutil

import compiled_here
import mix
import numpy as np
import pytest
from children import HERE, python, succeeded
from numba.core.caching import IndexDataCacheFile

import jitconv
from jitconv.kernels import cache, waiting

PROCESSES = 16
DTYPES = ("float32", "float64")
ALL = [f"{name} {dtype}" for dtype in DTYPES for name in ("relu_forward", "relu_backward")]


@pytest.fixture(scope="module")
def expected():
    """The digests in this process."""
    return {dtype: mix.digest(compiled_here.results(dtype)) for dtype in DTYPES}


def run(folder, *dtypes, before=None, **changes):
    """Return what was compiled in a process with this cache folder, and the digests."""
    script = HERE / "compiled_here.py"
    if before is None:
        child = python(script, *dtypes, NUMBA_CACHE_DIR=folder, **changes)
    else:
        lines = ("import runpy, sys", before, f"runpy.run_path({str(script)!r}, run_name='__main__')")
        child = python("-c", "\n".join(lines), *dtypes, NUMBA_CACHE_DIR=folder, **changes)
    found = json.loads(succeeded(child))
    return found["compiled"], found["digests"]


@pytest.fixture(scope="module")
def cold(tmp_path_factory, expected):
    """A cache folder with both kernels for both dtypes."""
    folder = tmp_path_factory.mktemp("cold")
    assert run(folder, *DTYPES) == (ALL, expected)
    assert run(folder, *DTYPES) == ([], expected)
    return folder


@pytest.fixture
def filled(cold, tmp_path):
    """A copy of that folder, and the files of the kernels' code."""
    shutil.copytree(cold, tmp_path, dirs_exist_ok=True)
    files = sorted(tmp_path.rglob("pointwise.relu_*.nbc"))
    assert len(files) == len(ALL)
    return tmp_path, files


def test_many_processes_at_once(tmp_path, expected, record_property):
    """Half of them begin with float32 and half with float64, all of them on an empty folder."""
    record_property("tried", PROCESSES)
    orders = [DTYPES, DTYPES[::-1]] * (PROCESSES // 2)
    with concurrent.futures.ThreadPoolExecutor(PROCESSES) as pool:
        for _, digests in pool.map(lambda order: run(tmp_path, *order), orders):
            assert digests == expected
    assert run(tmp_path, *DTYPES) == ([], expected)
    assert not list(tmp_path.rglob("*.tmp"))


class _Interrupted(IndexDataCacheFile):
    """Numba's files, of which another process saves code for float64 while this one is in the midst of saving."""

    def _save_data(self, name, data):
        other = IndexDataCacheFile(self._cache_path, "kernel", "stamp")
        other._load_index = dict  # as it was read before this process wrote it
        other.save(("float64",), "the code for float64")
        super()._save_data(name, data)


def test_numbered_files_would_mix_dtypes(tmp_path):
    """Numba's own files, when both processes have read the index before either wrote it."""
    _Interrupted(str(tmp_path), "kernel", "stamp").save(("float32",), "the code for float32")
    assert IndexDataCacheFile(str(tmp_path), "kernel", "stamp").load(("float64",)) == "the code for float32"


def test_files_of_their_own_do_not(tmp_path):
    key = {dtype: ((dtype, "cpu", ""), ("code", cache.FINGERPRINT)) for dtype in DTYPES}
    mine, theirs = (cache._KernelFiles(str(tmp_path), "kernel") for _ in range(2))
    mine.save(key["float32"], "the code for float32")
    theirs.save(key["float64"], "the code for float64")
    assert [theirs.load(key[dtype]) for dtype in DTYPES] == [f"the code for {dtype}" for dtype in DTYPES]


def _cut(files):
    for path in files:
        path.write_bytes(path.read_bytes()[:-100])


def _flip(files):
    for path in files:
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)


def _empty(files):
    for path in files:
        path.write_bytes(b"")


def _replace(files):
    for path in files:
        path.write_bytes(b"\x80\x04garbage" * 1000)


def _swap(files):
    contents = [path.read_bytes() for path in files]
    for path, content in zip(files, contents[1:] + contents[:1], strict=True):
        path.write_bytes(content)


@pytest.mark.parametrize("damage", [_cut, _flip, _empty, _replace, _swap])
def test_damaged_files_are_made_anew(filled, damage, expected):
    folder, files = filled
    sound = [path.read_bytes() for path in files]
    damage(files)
    assert all(path.read_bytes() != content for path, content in zip(files, sound, strict=True))
    assert run(folder, *DTYPES) == (ALL, expected)
    assert run(folder, *DTYPES) == ([], expected)


def test_numba_would_load_what_is_cut(tmp_path):
    numbas = IndexDataCacheFile(str(tmp_path), "kernel", "stamp")
    numbas.save("key", list(range(1000)))
    _cut(tmp_path.glob("*.nbc"))
    with pytest.raises(Exception, match="truncated"):
        numbas.load("key")


@pytest.mark.parametrize(
    "change",
    [
        {"before": "sys.modules['jitconv.version'] = v = type(sys)('jitconv.version'); v.__version__ = '99'"},
        {"before": "import numba, numpy; numpy.__version__ = '99.0.0'"},
        {"before": "import numba; numba.__version__ = '99'"},
        {"NUMBA_CPU_NAME": "x86-64", "NUMBA_CPU_FEATURES": "+sse,+sse2"},
        {"NUMBA_OPT": "1"},
    ],
    ids=["version", "numpy", "numba", "CPU", "options"],
)
def test_other_code_is_never_loaded(filled, change):
    folder, _ = filled
    compiled, _ = run(folder, *DTYPES, **change)
    assert compiled == ALL


def test_a_changed_kernel_is_compiled_anew(filled, tmp_path_factory, expected):
    """A comment in another module of the kernels will do; what was of the old text is removed."""
    package = tmp_path_factory.mktemp("copy") / "jitconv"
    shutil.copytree(pathlib.Path(jitconv.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    folder, _ = filled
    before = f"sys.path.insert(0, {str(package.parent)!r})"
    assert run(folder, *DTYPES, before=before) == (ALL, expected)
    assert run(folder, *DTYPES, before=before) == ([], expected)
    count = len(list(folder.rglob("*.nbc")))
    bias = package / "kernels" / "bias.py"
    bias.write_text(bias.read_text() + "# Another text.\n")
    assert run(folder, *DTYPES, before=before) == (ALL, expected)
    assert len(list(folder.rglob("*.nbc"))) == count


def machine_code(path):
    """Return the object file in a file of the cache."""
    (_, kind, (elf, _)), *_ = pickle.loads(path.read_bytes()[cache._DIGEST :])
    assert kind == "object"
    return elf


def test_code_from_the_disk_is_what_compiling_gives(filled, tmp_path_factory):
    """Two processes that compile the same kernels keep the same code, byte for byte."""
    _, files = filled
    other = tmp_path_factory.mktemp("other")
    run(other, *DTYPES)
    again = sorted(other.rglob("pointwise.relu_*.nbc"))
    assert [path.name for path in again] == [path.name for path in files]
    for path, same in zip(files, again, strict=True):
        code = machine_code(path)
        assert len(code) > 1000
        assert machine_code(same) == code


def test_with_no_place_to_write(tmp_path, expected):
    """A read-only installation of a user without a home: it compiles in memory and says so once."""
    package = tmp_path / "jitconv"
    shutil.copytree(pathlib.Path(jitconv.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    for folder in (package / "kernels", package):
        (folder / "__pycache__").write_text("Where a file is, nobody can make a folder: not even root.")
    code = f"""
import sys
sys.path.insert(0, {str(tmp_path)!r})
import jitconv.kernels.waiting as waiting
waiting.PATIENCE = 0.01
import compiled_here, json, mix
print(json.dumps({{dtype: mix.digest(compiled_here.results(dtype)) for dtype in {DTYPES!r}}}))
"""
    nowhere = tmp_path / "nowhere"
    nowhere.write_text("")
    child = python("-c", code, NUMBA_CACHE_DIR=None, JITCONV_QUIET="0", HOME=nowhere, XDG_CACHE_HOME=nowhere)
    assert json.loads(succeeded(child)) == expected
    assert child.stderr == waiting.NOTICE_UNKEPT + "\n"


def test_results_are_right(expected):
    x = np.linspace(-1, 1, 12_345)
    assert mix.digest((np.maximum(x, 0.0), np.where(x > 0, x, 0.0))) == expected["float64"]
