"""Folders that are removed, or claimed by the next, while zarr is still writing to them."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from pathlib import Path

import pytest
import zarr
from zarr.storage import _local

from hrviewer import claims, folders
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
