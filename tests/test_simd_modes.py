"""The kernel tests once more, compiled for CPUs with narrower vectors than this one may have."""

from __future__ import annotations

import os
import pathlib
import platform
import subprocess
import sys

import pytest

from jitconv.kernels import simd

TESTS = pathlib.Path(__file__).parent
MODULES = (
    "test_conv.py",
    "test_conv_backward.py",
    "test_conv_transpose.py",
    "test_guards.py",
    "test_planes_data.py",
    "test_winograd.py",
)
AVX2 = "+sse,+sse2,+sse3,+ssse3,+sse4.1,+sse4.2,+popcnt,+avx,+avx2,+fma,+bmi,+bmi2,+lzcnt,+movbe,+f16c,+cx16"
MODES = {
    "AVX2": (32, {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": AVX2}),
    "128-bit": (16, {"NUMBA_CPU_NAME": "x86-64", "NUMBA_CPU_FEATURES": "+sse,+sse2"}),
}


@pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64"), reason="elsewhere the 128-bit tile is what every test runs"
)
@pytest.mark.parametrize("mode", MODES)
def test_kernels_in_a_narrower_mode(mode, tmp_path):
    width, features = MODES[mode]
    missing = {name.lstrip("+") for name in features["NUMBA_CPU_FEATURES"].split(",")} - simd.FEATURES
    if missing:
        pytest.skip(f"this CPU lacks {', '.join(sorted(missing))}")
    environment = os.environ | features | {"NUMBA_CACHE_DIR": str(tmp_path)}

    def run(*arguments):
        return subprocess.run(
            [sys.executable, "-P", *arguments],  # -P: the package that runs here, not the one in cwd
            cwd=TESTS.parent,
            env=environment,
            capture_output=True,
            text=True,
            timeout=1200,
            check=False,
        )

    seen = run("-c", "from jitconv.kernels import simd; print(simd.VECTOR_BYTES)")
    assert seen.stdout.strip() == str(width), seen.stderr
    options = ("-q", "-x", "-m", "simd", "-k", "not auto", "-p", "no:cacheprovider")
    tests = run("-m", "pytest", *options, *(str(TESTS / name) for name in MODULES))
    assert tests.returncode == 0, tests.stdout[-6000:] + tests.stderr[-2000:]
