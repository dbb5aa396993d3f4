"""Folders of caches and runs, and the claiming of unused names."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from hrviewer import paths
from hrviewer.errors import WriteError
from hrviewer.models.measurement_cache import store_measurement
from hrviewer.runs.runner import result_cache


def test_the_environment_moves_both_folders(monkeypatch, tmp_path):
    monkeypatch.setenv("HRVIEWER_CACHE", str(tmp_path / "c"))
    monkeypatch.setenv("HRVIEWER_DATA", str(tmp_path / "d"))
    assert paths.cache_folder() == tmp_path / "c"
    assert paths.data_folder() == tmp_path / "d"
    assert paths.runs_folder() == tmp_path / "d" / "runs"
    monkeypatch.delenv("HRVIEWER_CACHE")
    monkeypatch.delenv("HRVIEWER_DATA")
    assert paths.cache_folder().name == paths.data_folder().name == "hrviewer"


def test_every_cache_moves(monkeypatch, tmp_path):
    monkeypatch.setenv("HRVIEWER_CACHE", str(tmp_path / "c"))
    store_measurement("costs", "a", 1)
    result_cache.__wrapped__().close()
    assert {path.name for path in (tmp_path / "c").iterdir()} == {"costs.json", "results.sqlite"}


def test_a_name_is_claimed_once_by_many_threads(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        found = list(
            pool.map(lambda _: paths.unused_path(tmp_path / "runs", "a", ".run.zarr"), range(40))
        )
    assert len({*found}) == 40
    assert {path.name for path in found} == {"a.run.zarr"} | {
        f"a-{n}.run.zarr" for n in range(2, 41)
    }
    assert all(paths.is_vacant(path) for path in found)


def test_a_proposed_name_is_not_created(tmp_path):
    (tmp_path / "a.csv").write_text("")
    proposed = paths.unused_path(tmp_path, "a", ".csv", claim=False)
    assert proposed == tmp_path / "a-2.csv"
    assert not proposed.exists()


def test_odd_names_become_file_names(tmp_path):
    assert paths.unused_path(tmp_path, "a b/c:*?ä").name == "a_b_c_ä"
    assert paths.unused_path(tmp_path, "").name == "unnamed"
    assert len(paths.unused_path(tmp_path, 500 * "x", ".run.zarr").name) < 200


def test_what_holds_something_is_not_vacant(tmp_path):
    (tmp_path / "file").write_text("")
    assert not paths.is_vacant(tmp_path)
    assert not paths.is_vacant(tmp_path / "file")
    assert paths.is_vacant(tmp_path / "nothing")


@pytest.mark.skipif(sys.platform == "win32", reason="other errors")
def test_a_place_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", Path("/proc/nothing")):
        with pytest.raises(WriteError, match="cannot be written") as caught:
            paths.unused_path(folder, "a")
        assert "\n" not in str(caught.value)
