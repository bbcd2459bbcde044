"""What is wrong is refused: the right exception, words that name the argument, and nothing is changed."""

from __future__ import annotations

import collections
import re
import tracemalloc

import numpy as np
import pytest
from wrong import files
from wrong.rows import InFolder
from wrong_calls import EXEMPT, ROWS, public, target_of


def arrays_in(value):
    """Return the arrays in arguments, those inside of lists and dictionaries too."""
    if isinstance(value, np.ndarray):
        return [value]
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, (list, tuple)):
        return []
    return [a for one in value for a in arrays_in(one)]


def content(folder):
    """Return the files in a folder, with their bytes."""
    return {path: path.is_file() and path.read_bytes() for path in sorted(folder.rglob("*"))}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return a folder of wrong files and some right ones."""
    made = tmp_path_factory.mktemp("files")
    files.make(made)
    return made


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_it_is_refused_in_words(row, folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = row.arguments(folder)
    reads = any(isinstance(value, InFolder) for value in row.given.values())
    files_before = content(folder) if reads else {}
    before = [a.tobytes() for a in arrays_in(given)]
    message = row.message.replace("{folder}", str(folder))
    with pytest.raises(row.error, match="^" + re.escape(message)) as caught:
        row.call(**given)
    assert type(caught.value) is row.error
    assert "\n" not in str(caught.value)
    assert [a.tobytes() for a in arrays_in(given)] == before
    assert content(tmp_path) == {}
    if reads:
        assert content(folder) == files_before


ABSURD = [row for row in ROWS if re.search("too large|would have shape|makes images|leaves [0-9]", row.message)]


@pytest.mark.parametrize("row", ABSURD, ids=str)
def test_absurd_sizes_are_refused_before_anything_is_allocated(row, folder):
    given = row.arguments(folder)
    tracemalloc.start()
    try:
        with pytest.raises(row.error):
            row.call(**given)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2**26  # what a kernel takes that is loaded on the way


def test_every_public_name_has_wrong_calls():
    names = public()
    counts = collections.Counter(id(target_of(row)) for row in ROWS)
    without = [name for name, one in names.items() if not counts[id(one)] and name not in EXEMPT]
    assert without == []


def test_no_exception_is_out_of_date():
    names = public()
    with_rows = {id(target_of(row)) for row in ROWS}
    assert [name for name in EXEMPT if name in names and id(names[name]) in with_rows] == []
    assert [name for name in EXEMPT if name not in names and not name.startswith("jitconv.torch.")] == []


def test_a_refusal_names_what_it_is_about():
    """A name in backquotes; where a file is at fault its path, where a call came too early the layer."""
    for row in ROWS:
        early = row.error is RuntimeError
        assert early or row.message.startswith(("`", "{folder}")), row
