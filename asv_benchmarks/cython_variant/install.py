"""Install the Cython variant into the Python that runs this, unless it is there already, from the same sources."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
SOURCES = sorted((HERE / "jitconv_cython").glob("*.pyx"))


def installed() -> bool:
    """Return whether the installed package was built from these sources: it brings them along."""
    found = importlib.util.find_spec("jitconv_cython")
    if found is None or found.origin is None:
        return False
    copies = [Path(found.origin).parent / source.name for source in SOURCES]
    return all(b.exists() and a.read_bytes() == b.read_bytes() for a, b in zip(SOURCES, copies, strict=True))


if __name__ == "__main__":
    sys.path.remove(str(HERE))  # the sources are not the installed package
    if not installed():
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--force-reinstall", "--no-deps", str(HERE)]
        sys.exit(subprocess.run(command).returncode)
