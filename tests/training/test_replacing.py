"""Files that take the place of others: whole, on the disk before they do, and with nothing left of killed processes."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys

import pytest

from jitconv.training import replacing
from jitconv.training.replacing import check_writable


def write(path, text="new"):
    with replacing.replacing(path) as part:
        assert part.parent.parent == path.parent  # the same disk: renaming cannot fail half-way
        part.write_text(text)


def killed(path):
    """Return the name of what a process leaves that is killed while it writes a file."""
    program = (
        "import os, pathlib, sys\n"
        "from jitconv.training.replacing import replacing\n"
        "with replacing(pathlib.Path(sys.argv[1])) as part:\n"
        "    part.write_text('half')\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    before = {*os.listdir(path.parent)}
    child = subprocess.run([sys.executable, "-P", "-c", program, str(path)], check=False)
    assert child.returncode == -9
    (left,) = {*os.listdir(path.parent)} - before
    return left


def test_what_a_killed_process_left_is_removed(tmp_path):
    path = tmp_path / "a.safetensors"
    left = killed(path)
    assert not path.exists()
    write(tmp_path / "b.safetensors")  # another file's
    assert (tmp_path / left).exists()
    write(path)
    assert sorted(os.listdir(tmp_path)) == ["a.safetensors", "b.safetensors"]
    killed(path)
    check_writable(path)
    assert sorted(os.listdir(tmp_path)) == ["a.safetensors", "b.safetensors"]
    assert path.read_text() == "new"


def test_what_others_write_is_left_alone(tmp_path, monkeypatch):
    """Of a process that runs, of another host, and what only looks like it."""
    path = tmp_path / "a"
    begin, left = replacing._begin(path), killed(path)
    with monkeypatch.context() as patch:
        patch.setattr(replacing.platform, "node", lambda: "another")
        other = left.replace(begin, replacing._begin(path))
    (tmp_path / left).rename(tmp_path / other)
    kept = {f"{begin}{os.getppid()}.part", f"{begin}{10**30}.part", f"{begin}x.part", f"{begin}.part"}
    for name in kept:
        (tmp_path / name).mkdir()
    write(path)
    assert {*os.listdir(tmp_path)} == kept | {other, "a"}


def test_it_is_on_the_disk_before_it_is_renamed(tmp_path, monkeypatch):
    done, fsync, replace = [], os.fsync, os.replace

    def noted_fsync(descriptor):
        done.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        fsync(descriptor)

    def noted_replace(source, target):
        done.append("rename")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "replace", noted_replace)
    write(tmp_path / "a")
    assert done == ["file", "rename", "folder"]


@pytest.mark.parametrize(("number", "fails"), [(errno.EINVAL, False), (errno.EIO, True)])
def test_disks_that_cannot_tell_and_disks_that_fail(tmp_path, monkeypatch, number, fails):
    path = tmp_path / "a"
    path.write_text("old")

    def fsync(descriptor):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fsync)
    if fails:
        with pytest.raises(OSError, match=os.strerror(number)):
            write(path)
    else:
        write(path)
    assert path.read_text() == ("old" if fails else "new")
    assert os.listdir(tmp_path) == ["a"]
