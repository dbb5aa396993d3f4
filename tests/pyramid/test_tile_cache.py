"""The tile cache and the meter."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from hrviewer.geometry import Grid, Rect
from hrviewer.pyramid import ReadMeter, TileCache, TileKey, open_pyramid, tile_cache
from hrviewer.pyramid.tile_cache import GIB, DecodedTile, default_limit


def tile(size: int) -> DecodedTile:
    return DecodedTile(np.zeros((size, 1, 1), np.uint8), size)


def key(index: int) -> TileKey:
    return TileKey("image", 0, 0, index)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 20), st.integers(1, 60)), max_size=60))
def test_never_holds_more_than_its_limit(requests: list[tuple[int, int]]) -> None:
    cache = TileCache(100)
    for index, size in requests:
        cache.get(key(index), lambda size=size: tile(size))  # type: ignore[misc]
        assert cache.nbytes == sum(entry.pixels.nbytes for entry in cache._tiles.values()) <= 100


def test_least_recently_used_tiles_are_evicted() -> None:
    cache = TileCache(30)
    for index in (0, 1, 2, 0, 3):
        cache.get(key(index), lambda: tile(10))
    assert [key(index) in cache for index in range(4)] == [True, False, True, True]
    cache.limit = 10
    assert len(cache) == 1
    assert key(3) in cache
    cache.get(key(9), lambda: tile(11))  # larger than the cache: handed out, not held
    assert key(9) not in cache
    cache.clear()
    assert (len(cache), cache.nbytes) == (0, 0)


def test_concurrent_misses_decode_once() -> None:
    cache = TileCache(1000)
    started, go = threading.Event(), threading.Event()
    calls = []

    def decode() -> DecodedTile:
        calls.append(1)
        started.set()
        go.wait(5)
        return tile(10)

    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(cache.get, key(0), decode)
        started.wait(5)
        others = [pool.submit(cache.get, key(0), decode) for _ in range(7)]
        go.set()
        tiles = {id(future.result(5)) for future in [first, *others]}
    assert len(calls) == len(tiles) == 1


def test_a_failure_reaches_all_who_wait_and_is_forgotten() -> None:
    cache = TileCache(1000)
    started, go = threading.Event(), threading.Event()

    def fail() -> DecodedTile:
        started.set()
        go.wait(5)
        raise OSError("torn")

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(cache.get, key(0), fail)
        started.wait(5)
        second = pool.submit(cache.get, key(0), lambda: tile(1))
        go.set()
        for future in (first, second):
            if future is first or future.exception(5) is not None:
                with pytest.raises(OSError, match="torn"):
                    future.result(5)
    assert cache.get(key(0), lambda: tile(1)).bytes == 1


def test_tiles_are_read_only_and_own_their_memory() -> None:
    cache = TileCache(1000)
    large = np.zeros((100, 100, 1), np.uint8)
    held = cache.get(key(0), lambda: DecodedTile(large[:5, :5], 25)).pixels
    assert not held.flags.writeable
    assert held.base is None or held.base.nbytes == 25
    with pytest.raises(ValueError, match="read-only"):
        held[0] = 1


def test_default_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    assert 0 < default_limit() <= GIB
    monkeypatch.delattr("os.sysconf")
    assert default_limit() == GIB


def test_the_process_has_one_cache_and_reading_keeps_its_bound(svs: Path) -> None:
    tile_cache().limit = 1_000_000
    with open_pyramid(svs) as pyramid:
        pyramid.read(pyramid.rect)
        assert 0 < tile_cache().nbytes <= 1_000_000


def test_disjoint_reads_add_up_to_the_whole(svs: Path) -> None:
    with tifffile.TiffFile(svs) as tiff:
        stored = sum(tiff.pages[0].databytecounts)
    with open_pyramid(svs) as pyramid:
        meter = ReadMeter()
        readings = []
        for cell in Grid(pyramid.rect, 700):
            with meter.measure() as paid:
                pyramid.read(cell, meter=meter)
            readings.append(paid)
        assert sum(paid.pixels for paid in readings) == 2967 * 2220 == meter.total.pixels
        assert sum(paid.bytes for paid in readings) == stored == meter.total.bytes
        assert sum(paid.seconds for paid in readings) == pytest.approx(meter.total.seconds)
        with meter.measure() as again:
            pyramid.read(pyramid.rect, meter=meter)
        assert (again.bytes, again.pixels, again.seconds) == (0, 0, 0)


def test_costs_are_nominal_when_the_cache_is_warm(svs: Path) -> None:
    rect = Rect(100, 100, 900, 900)
    with open_pyramid(svs) as pyramid:
        cold, warm = ReadMeter(), ReadMeter()
        pyramid.read(rect, meter=cold)
        pyramid.read(rect, meter=warm)
    assert cold.total == warm.total


def test_seconds_saved_by_the_cache() -> None:
    meter = ReadMeter()
    for column, took in enumerate((2.0, 0.5, 3.0, None)):
        meter.charge(TileKey("x", 0, 0, column), 2.0, 1, 1, took)
    meter.charge(TileKey("x", 0, 0, 1), 2.0, 1, 1, 0.0)
    assert meter.total.seconds == 8.0
    assert meter.seconds_saved == 0.0 + 1.5 - 1.0


def test_marked_tiles_are_not_charged(svs: Path) -> None:
    rect = Rect(0, 0, 300, 300)
    with open_pyramid(svs) as pyramid:
        tiles = pyramid.tiles(rect)
        assert {(t.row, t.column) for t in tiles} == {(0, 0), (0, 1), (1, 0), (1, 1)}
        meter = ReadMeter()
        meter.mark_paid(tiles)
        pyramid.read(rect, meter=meter)
        assert meter.total.pixels == 0
        pyramid.read(Rect(0, 480, 10, 10), meter=meter)
        assert meter.total.pixels == 240 * 240


@pytest.mark.parametrize("scale", [1, 2, 3.7])
def test_tiles_are_those_that_reading_touches(tcga: Path, scale: float) -> None:
    rect = Rect(777, 1234, 501, 333)
    with open_pyramid(tcga) as pyramid:
        meter = ReadMeter()
        pyramid.read(rect, scale, meter=meter)
        assert meter._paid == set(pyramid.tiles(rect, scale))


def test_measurements_are_per_thread_and_nest(svs: Path) -> None:
    with open_pyramid(svs) as pyramid:
        meter = ReadMeter()
        cells = list(Grid(pyramid.rect, 480))  # two tiles wide: no tile is shared

        def read_cell(cell: Rect) -> int:
            with meter.measure() as paid:
                pyramid.read(cell, meter=meter)
            return paid.pixels

        with ThreadPoolExecutor(2) as pool:
            assert list(pool.map(read_cell, cells)) == [cell.area for cell in cells]
        other = ReadMeter()
        with other.measure() as outer:
            with other.measure() as inner:
                pyramid.read(cells[0], meter=other)
            pyramid.read(cells[1], meter=other)
        assert inner.pixels == cells[0].area
        assert outer.pixels == cells[0].area + cells[1].area
