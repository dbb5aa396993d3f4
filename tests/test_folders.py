"""Folders that are removed, or claimed by the next, while zarr is still writing to them."""

from __future__ import annotations

import os
import platform
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest
import zarr
from zarr.storage import _local

from hrviewer import claims, folders
from hrviewer.errors import ClaimedError
from hrviewer.io.atomic_write import atomic_path
from hrviewer.io.image_writer import ResumableFolder


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Let the first chunk fail, and the second one be written once somebody waits for it."""
    gate, put, wait = threading.Event(), _local._put, folders.wait_for_tasks

    def put_late(path, *args, **more):
        if path.name == "0" and path.parent.name == "c":
            raise OSError(5, "Input/output error")
        if path.name == "1" and path.parent.name == "c":
            gate.wait(60)
        return put(path, *args, **more)

    async def open_gate() -> None:
        gate.set()
        await wait()

    monkeypatch.setattr(_local, "_put", put_late)
    monkeypatch.setattr(folders, "wait_for_tasks", open_gate)
    return gate


def write(folder: Path, gate: threading.Event) -> None:
    gate.clear()
    array = zarr.create_array(folder / "map", shape=(2,), chunks=(1,), dtype="u1", fill_value=0)
    array[:] = 1


@contextmanager
def cleared(path: Path):
    with claims.claim_folder(path):
        try:
            yield path
        except OSError:
            claims.clear_folder(path)
            raise


@contextmanager
def removed(path: Path):
    try:
        yield path
    finally:
        folders.remove_folder(path)


@pytest.mark.parametrize("place", [atomic_path, cleared, removed])
def test_nothing_appears_in_a_folder_that_was_removed(place, gate, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="Input/output"), place(tmp_path / "a") as path:
        write(path, gate)
    gate.set()
    folders.finish_zarr_writes()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("place", [claims.claim_folder, lambda path: ResumableFolder(path, "a")])
def test_a_claim_ends_after_what_is_being_written(place, gate, tmp_path, monkeypatch) -> None:
    held = []
    release = claims.Claim.release
    monkeypatch.setattr(
        claims.Claim,
        "release",
        lambda held_claim: (held.append(gate.is_set()), release(held_claim)),
    )
    with pytest.raises(OSError, match="Input/output"), place(tmp_path / "a"):
        write(tmp_path / "b", gate)
    assert held == [True]


def test_nothing_is_waited_for_without_arrays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zarr.core.sync, "loop", [None])
    folders.finish_zarr_writes()


def test_folders_of_windows_are_not_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its system refuses to open them, and writes names at once."""
    opened: list[object] = []
    with monkeypatch.context() as patched:
        patched.setattr(os, "open", lambda *args: opened.append(args))
        patched.setattr(os, "name", "nt")
        folders.sync_folder(tmp_path)
    assert opened == []


def test_a_file_system_without_links_renames(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "link", refuse)
    with atomic_path(tmp_path / "a.txt") as path:
        path.write_text("abc")
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "abc"


def test_a_system_without_proc_has_claims(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object) -> None:
        raise FileNotFoundError

    monkeypatch.setattr(os, "readlink", missing)
    assert claims.host_name() == platform.node()
    with claims.claim_folder(tmp_path / "a"), pytest.raises(ClaimedError):
        claims.claim_folder(tmp_path / "a").__enter__()
