"""The ledger of faults in docs/compat/README.md names tests that exist, and every such test has its row."""

from __future__ import annotations

import ast
import pathlib
import re

FOLDER = pathlib.Path(__file__).parent
LEDGER = (FOLDER.parents[1] / "docs" / "compat" / "README.md").read_text(encoding="utf-8").partition("## Ledger")[2]
NAMED = set(re.findall(r"`(test_\w+)`", LEDGER))
TREES = [ast.parse(path.read_text(encoding="utf-8")) for path in FOLDER.glob("test_*.py")]
FUNCTIONS = {node.name for tree in TREES for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
OF_FAULTS = {
    node.name
    for tree in TREES
    for group in tree.body
    if isinstance(group, ast.ClassDef) and group.name == "TestLedger"
    for node in group.body
    if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
}


def test_every_row_has_its_test():
    assert len(NAMED) > 10
    assert NAMED <= FUNCTIONS


def test_every_fault_that_is_tested_has_its_row():
    assert OF_FAULTS
    assert OF_FAULTS <= NAMED
