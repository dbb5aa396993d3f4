"""Claims: one writer at a time, and dead claims that are taken over."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from hrviewer import claims
from hrviewer.errors import ClaimedError, WriteError
from hrviewer.paths import CLAIM_PREFIX, is_vacant

HOLD = """
import sys, time
from pathlib import Path
from hrviewer.claims import claim_folder
with claim_folder(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def put_claim(folder, number=0, **changes):
    folder.mkdir(exist_ok=True)
    writer = {"host": claims.host_name(), "pid": os.getpid(), "started": 0.0, "token": "a"}
    file = folder / f"{CLAIM_PREFIX}folder-{number}"
    file.write_text(json.dumps({**writer, **changes}))
    return file


def test_a_second_writer_gets_one_line_that_names_the_first(tmp_path):
    path = tmp_path / "deep" / "a.run.zarr"
    with claims.claim_folder(path) as first:
        with pytest.raises(ClaimedError, match=f"written by process {os.getpid()} on") as caught:
            claims.claim_folder(path).__enter__()
        assert "\n" not in str(caught.value)
        with pytest.raises(ClaimedError):
            claims.require_unclaimed(path)
        first.require()
        assert is_vacant(path)
        (path / "result").write_text("mine")
        claims.clear_folder(path)
        first.require()
    assert not path.exists()  # nothing was written
    claims.require_unclaimed(path)


def test_what_was_written_stays(tmp_path):
    with claims.claim_folder(tmp_path / "a"):
        (tmp_path / "a" / "result").write_text("mine")
    assert os.listdir(tmp_path / "a") == ["result"]


def test_a_claim_of_a_killed_process_is_taken_over(tmp_path):
    path = tmp_path / "a"
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with pytest.raises(ClaimedError, match=f"process {process.pid} on"):
            claims.claim_folder(path).__enter__()
        process.kill()
        process.wait()
    with claims.claim_folder(path):
        (file,) = path.iterdir()  # the dead one is gone
        assert json.loads(file.read_text())["pid"] == os.getpid()


@pytest.mark.parametrize(
    ("changes", "age", "alive"),
    [
        ({"host": "other"}, 0, True),
        ({"host": "other"}, 2 * claims.STALE_S, False),
        ({}, 0, True),  # this process's number, another start
        ({}, 2 * claims.STALE_S, False),
        ({"pid": "no number"}, 0, True),  # being written
        ({"pid": "no number"}, 2 * claims.STALE_S, False),
    ],
)
def test_a_heartbeat_decides_where_the_process_is_not_known(tmp_path, changes, age, alive):
    file = put_claim(tmp_path, **changes)
    then = file.stat().st_mtime - age
    os.utime(file, (then, then))
    if alive:
        with pytest.raises(ClaimedError):
            claims.require_unclaimed(tmp_path)
    else:
        with claims.claim(tmp_path, "folder", tmp_path):
            assert not file.exists()


def test_a_writer_notices_that_its_claim_was_taken_over(tmp_path):
    with claims.claim(tmp_path, "folder", tmp_path) as held:
        (file,) = tmp_path.iterdir()
        file.unlink()
        successor = put_claim(tmp_path, token="b")
        with pytest.raises(ClaimedError, match="taken over"):
            held.require()
    assert successor.exists()


def test_a_heartbeat_renews_the_claim(tmp_path, monkeypatch):
    monkeypatch.setattr(claims, "HEARTBEAT_S", 0.001)
    with claims.claim(tmp_path, "folder", tmp_path):
        (file,) = tmp_path.iterdir()
        os.utime(file, (0, 0))
        while file.stat().st_mtime == 0:
            pass


@pytest.mark.parametrize("dead", [False, True])
def test_of_many_threads_one_gets_a_claim(tmp_path, dead):
    """Also where all find the same dead claim. All hold theirs until the last has tried."""
    if dead:
        put_claim(tmp_path / "a", pid=2**22 + 1)

    def attempt(_):
        try:
            return claims.acquire(tmp_path / "a", "folder", "a", create=True)
        except ClaimedError:
            return None

    for _ in range(10):
        with ThreadPoolExecutor(8) as pool:
            held = [found for found in pool.map(attempt, range(8)) if found]
        assert len(held) == 1
        held[0].release()


def test_a_place_where_nothing_can_be_created_is_no_race(tmp_path, monkeypatch):
    def create_next(*_):
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr(claims, "create_next", create_next)
    monkeypatch.setattr(claims, "ATTEMPTS", 2)
    with pytest.raises(WriteError, match=r"cannot be written: No such file"):
        claims.acquire(tmp_path / "a", "folder", "a", create=True)
