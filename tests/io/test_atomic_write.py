"""Atomic writing: complete files or none, with disk errors and concurrent writers."""

from __future__ import annotations

import errno
import os
import subprocess
import sys

import pytest

from hrviewer.errors import ClaimedError, HrviewerError
from hrviewer.io.atomic_write import atomic_path


def listed(folder):
    return sorted(os.listdir(folder))


def half(path, error):
    with atomic_path(path) as part:
        part.write_text("half")
        raise error


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (errno.ENOSPC, "disk is full"),
        (errno.EROFS, "read-only"),
        (errno.EACCES, "permission denied"),
        (errno.ENAMETOOLONG, "too long"),
        (errno.EINVAL, "does not allow this name"),
        (errno.EIO, "Input/output error"),
    ],
)
def test_disk_errors_are_one_line(tmp_path, code, message):
    with pytest.raises(HrviewerError, match=message) as error:
        half(tmp_path / "a", OSError(code, os.strerror(code)))
    assert "\n" not in str(error.value)
    assert listed(tmp_path) == []


def test_full_disk_keeps_the_old_files(tmp_path):
    (tmp_path / "old").write_text("mine")

    def fill():
        with atomic_path(tmp_path / "new") as part, open("/dev/full", "wb", buffering=0) as full:
            part.mkdir()
            (part / "x").write_text("half")
            full.write(b"x")

    with pytest.raises(HrviewerError, match="full"):
        fill()
    assert listed(tmp_path) == ["old"]
    assert (tmp_path / "old").read_text() == "mine"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_read_only_folder(tmp_path):
    tmp_path.chmod(0o500)
    with (
        pytest.raises(HrviewerError, match="permission denied"),
        atomic_path(tmp_path / "a") as part,
    ):
        part.write_text("x")
    tmp_path.chmod(0o700)


@pytest.mark.parametrize(
    "name", ["ü ñ 漢字.csv", "a b'c\"d;$e.csv", "-o.csv", "%20#?.csv", "x" * 250]
)
def test_unusual_names(tmp_path, name):
    with atomic_path(tmp_path / name) as part:
        part.write_text("x")
    assert listed(tmp_path) == [name]


@pytest.mark.parametrize(("name", "message"), [("a\0b", "null character"), ("x" * 300, "too long")])
def test_invalid_names(tmp_path, name, message):
    with pytest.raises(HrviewerError, match=message), atomic_path(tmp_path / name) as part:
        part.write_text("x")
    assert listed(tmp_path) == []


@pytest.mark.parametrize("folder", [True, False])
@pytest.mark.parametrize("claimed", [True, False])
def test_first_of_two_writers_wins(tmp_path, folder, claimed):
    """The second is refused at once; a file of another program is not replaced in the end."""

    def put(part, text):
        if folder:
            part.mkdir()
            part = part / "in"
        part.write_text(text)

    def second():
        with atomic_path(tmp_path / "a") as part:
            put(part, "second")

    def other_program():
        with atomic_path(tmp_path / "a") as part:
            put(part, "second")
            put(tmp_path / "a", "first")

    if claimed:
        with atomic_path(tmp_path / "a") as part:
            put(part, "first")
            with pytest.raises(ClaimedError, match="is being written by process"):
                second()
    else:
        with pytest.raises(HrviewerError, match="exists"):
            other_program()
    assert listed(tmp_path) == ["a"]
    survivor = tmp_path / "a" / "in" if folder else tmp_path / "a"
    assert survivor.read_text() == "first"


def test_killed_process_leaves_no_file_under_the_name(tmp_path):
    code = (
        "import sys, time\nfrom hrviewer.io.atomic_write import atomic_path\n"
        "with atomic_path(sys.argv[1]) as part:\n"
        "    part.write_text('half'); print('there', flush=True); time.sleep(60)\n"
    )
    path = tmp_path / "a.csv"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "there\n"
        process.kill()
    assert not path.exists()
    assert all(name.startswith(".hrviewer-") for name in listed(tmp_path))
    with atomic_path(tmp_path / "b.csv") as part:  # any later writer removes what was left
        part.write_text("other")
    assert listed(tmp_path) == ["b.csv"]
    with atomic_path(path) as part:
        part.write_text("whole")
    assert path.read_text() == "whole"
