"""The result cache: bounded, shared, and never the reason that a run fails."""

import io
import sqlite3

import numpy as np
import pytest

from hrviewer import checksum
from hrviewer.engine import Cost, InferenceResult, ResultCache, deserialize, serialize
from hrviewer.geometry import Patch, Rect


def look(value=1.0, status="done", side=8):
    return InferenceResult(
        Patch(Rect(0, 0, 32, 32), 2.0, 4),
        "main",
        np.array([value]),
        np.full((1, side, side), value, np.float32),
        (0.0, 0.0, 32.0, 32.0),
        Cost(1, 2, 3, 0.1, 0.2, 0.3, 0.4),
        status=status,
        cost_weights=np.ones((2, 2)) / 4 if value == 2.0 else None,
    )


def same(a, b):
    assert (a.patch, a.role, a.box, a.cost) == (b.patch, b.role, b.box, b.cost)
    np.testing.assert_array_equal(a.map, b.map)
    np.testing.assert_array_equal(a.value, b.value)
    assert (a.cost_weights is None) == (b.cost_weights is None)


def test_serialized_results_are_restored():
    looks = [look(1.0), look(2.0), look(np.nan, "failed")]
    for before, after in zip(looks, deserialize(serialize(looks)), strict=True):
        same(before, after)
        assert before.status == after.status


def test_survives_on_disk(tmp_path):
    first = ResultCache(tmp_path / "deep" / "results.sqlite")
    first.put("k", [look()])
    first.close()
    second = ResultCache(tmp_path / "deep" / "results.sqlite")
    (found,) = second.get("k")
    same(found, look())
    assert found.status == "cached"
    assert second.get("other") is None
    second.close()


def test_failures_are_not_cached():
    cache = ResultCache()
    cache.put("k", [look(np.nan, "failed")])
    assert cache.get("k") is None


def test_memory_is_bounded():
    cache = ResultCache(memory_bytes=40_000)
    for i in range(100):
        cache.put(str(i), [look(float(i), side=32)])
    assert cache._size <= 40_000
    assert cache.get("99") is not None
    assert cache.get("0") is None


def test_disk_is_bounded(tmp_path):
    path = tmp_path / "results.sqlite"
    cache = ResultCache(path, memory_bytes=0, disk_bytes=200_000)
    for i in range(1100):
        cache.put(str(i), [look(float(i))])
    cache.close()
    with sqlite3.connect(path) as file:
        (count,) = file.execute("SELECT COUNT(*) FROM results").fetchone()
    file.close()
    assert 0 < count < 1000


def test_an_unwritable_file_is_an_empty_cache(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    cache = ResultCache(blocked / "results.sqlite")
    cache.put("k", [look()])
    assert cache.get("k") is not None  # memory still serves


@pytest.mark.parametrize("kind", ["no database", "another table", "overwritten"])
def test_a_damaged_file_is_replaced(tmp_path, kind):
    path = tmp_path / "results.sqlite"
    if kind == "no database":
        path.write_bytes(b"no database" * 100)
    elif kind == "another table":
        with sqlite3.connect(path) as file:
            file.execute("CREATE TABLE results (name TEXT)")
        file.close()
    else:
        before = ResultCache(path)
        before.put("k", [look(side=256)])
        before.close()
        data = path.read_bytes()
        path.write_bytes(data[:200] + b"\xff" * (len(data) - 200))
    cache = ResultCache(path)
    assert cache.get("k") is None
    cache.put("k", [look()])
    cache.close()
    again = ResultCache(path)
    assert again.get("k") is not None
    again.close()


def change_entry(path, change):
    with sqlite3.connect(path) as file:
        (data,) = file.execute("SELECT data FROM results").fetchone()
        file.execute("UPDATE results SET data = ?", (change(data),))
    file.close()


@pytest.mark.parametrize(
    ("change", "damaged"),
    [
        (lambda data: data[:-40], 1),
        (lambda data: b"", 1),
        (lambda data: 7, 1),
        (lambda data: None, 0),
        (lambda data: data[:200] + bytes([data[200] ^ 1]) + data[201:], 1),
        (lambda data: checksum.with_checksum(b"no results"), 1),
        (lambda data: data.replace(checksum.writer().encode(), b"hrviewer-0.0.1"), 0),
    ],
)
def test_entries_that_do_not_fit_are_dropped(tmp_path, change, damaged):
    path = tmp_path / "results.sqlite"
    first = ResultCache(path)
    first.put("k", [look()])
    first.close()
    change_entry(path, change)
    cache = ResultCache(path)
    assert cache.get("k") is None
    assert cache.damaged == damaged
    cache.put("k", [look()])
    cache.close()
    again = ResultCache(path)
    same(again.get("k")[0], look())
    again.close()


def test_compressed_members_are_refused():
    """They could hold gigabytes; results are written as they are."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, rows=np.zeros(1 << 20))
    with pytest.raises(checksum.DamagedCopyError, match="compressed"):
        deserialize(checksum.with_checksum(buffer.getvalue()))
