"""The Python in README.md and docs/ runs."""

from __future__ import annotations

import pathlib
import re

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).parent.parent
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
# Packages without which the code in a document does not run.
NEEDED = {"pytorch.md": ("torch",), "onnx.md": ("onnx",), "scaling.md": ("dask", "distributed")}


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_python_blocks_run_in_order(path, capsys):
    names = {}
    for package in NEEDED.get(path.name, ()):
        pytest.importorskip(package)
    for block in re.findall(r"```python\n(.*?)```", path.read_text(encoding="utf-8"), re.DOTALL):
        exec(compile(block, path.name, "exec"), names)
    if path == ROOT / "README.md":
        assert names["y"].shape == (8, 16, 32, 32)
        assert names["dx"].shape == names["x"].shape
        assert np.isfinite(names["dw"]).all()
        assert "forward" in capsys.readouterr().out


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_to_files(path):
    for target in re.findall(r"\]\(([^)#]+)\)", path.read_text(encoding="utf-8")):
        if not target.startswith("https://"):
            assert (path.parent / target).exists(), target
