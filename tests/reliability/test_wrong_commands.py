"""Wrong lines for the command `jitconv`: status 2, one line on stderr that names the option, no file touched."""

from __future__ import annotations

import subprocess
import sys

import pytest
from test_wrong_calls import content
from wrong import files
from wrong.command import IN_A_PROCESS, LINES

from jitconv.cli import main


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return a folder of wrong files and some right ones."""
    made = tmp_path_factory.mktemp("files")
    files.make(made)
    return made


def assert_refused(line, folder, status, out, err):
    assert status == 2
    assert out == ""
    assert err.startswith(line.message.replace("{folder}", str(folder)))
    assert err.endswith("\n")
    assert err.count("\n") == 1


@pytest.mark.parametrize("line", LINES, ids=str)
def test_it_is_refused_in_one_line(line, folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    before = content(folder)
    try:
        status = main(line.given(folder))
    except SystemExit as end:
        status = end.code
    assert_refused(line, folder, status, *capsys.readouterr())
    assert content(tmp_path) == {}
    assert content(folder) == before


@pytest.mark.parametrize("line", IN_A_PROCESS, ids=str)
def test_a_process_ends_with_the_same_line(line, folder, tmp_path):
    child = subprocess.run(
        [sys.executable, "-m", "jitconv", *line.given(folder)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=120,
        check=False,
    )
    assert_refused(line, folder, child.returncode, child.stdout, child.stderr)
    assert content(tmp_path) == {}
