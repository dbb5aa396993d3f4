"""Levels as zarr and dask arrays."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr
from zarr.abc.store import OffsetByteRequest, RangeByteRequest, SuffixByteRequest
from zarr.core.buffer import default_buffer_prototype

from hrviewer.pyramid import open_pyramid
from hrviewer.pyramid.zarr_store import LevelStore, as_dask, as_zarr


def test_zarr_and_dask_equal_read(tcga: Path) -> None:
    with open_pyramid(tcga) as pyramid:
        for level in pyramid.levels:
            h, w, c = level.shape
            pixels = level.read(0, h, 0, w)
            assert as_zarr(level).shape == as_dask(level).shape == (h, w, c)
            assert as_zarr(level).dtype == as_dask(level).dtype == level.dtype
            np.testing.assert_array_equal(np.asarray(as_zarr(level)), pixels)
            part = as_dask(level)[100:700, 50:90]
            np.testing.assert_array_equal(
                part.compute(scheduler="synchronous"), pixels[100:700, 50:90]
            )


@pytest.mark.parametrize("dtype", ["u1", ">u2", "f4", "f8", "i4"])
def test_zarr_of_any_number(tmp_path: Path, dtype: str) -> None:
    image = np.arange(70 * 90).reshape(70, 90).astype(dtype)
    tifffile.imwrite(tmp_path / "i.tif", image, tile=(32, 48))
    with open_pyramid(tmp_path / "i.tif") as pyramid:
        level = pyramid.levels[0]
        np.testing.assert_array_equal(as_zarr(level)[..., 0], image)
        np.testing.assert_array_equal(as_zarr(level)[10:69, 3, 0], image[10:69, 3])
        assert level.chunks == (32, 48, 1)


def test_zarr_cannot_be_written(tcga: Path) -> None:
    with open_pyramid(tcga) as pyramid:
        array = as_zarr(pyramid.levels[0])
        with pytest.raises(ValueError, match="read-only"):
            array[0, 0] = 0
        store = array.store
        with pytest.raises(ValueError, match="read-only"):
            store.with_read_only(False)
        assert store.with_read_only(True) == store != object()
        assert len({store, LevelStore(pyramid.levels[0])}) == 1
        for write in (store.set("zarr.json", None), store.delete("zarr.json")):  # type: ignore[arg-type]
            with pytest.raises(ValueError, match="read-only"):
                asyncio.run(write)


def test_store_lists_and_serves_parts(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "i.tif", np.ones((40, 40), np.uint8), tile=(32, 32))
    with open_pyramid(tmp_path / "i.tif") as pyramid:
        store = LevelStore(pyramid.levels[0])
        prototype = default_buffer_prototype()

        async def explore() -> None:
            keys = [key async for key in store.list()]
            assert keys == ["zarr.json", "c/0/0/0", "c/0/1/0", "c/1/0/0", "c/1/1/0"]
            assert [key async for key in store.list_prefix("c/1")] == keys[3:]
            assert [name async for name in store.list_dir("")] == ["zarr.json", "c"]
            assert [name async for name in store.list_dir("c")] == ["0", "1"]
            assert await store.exists("c/0/0/0")
            for missing in ("c/2/0/0", "c/0/0/1", ".zarray"):
                assert not await store.exists(missing)
                assert await store.get(missing, prototype) is None
            parts = await store.get_partial_values(
                prototype,
                [
                    ("c/0/0/0", RangeByteRequest(0, 5)),
                    ("c/0/0/0", OffsetByteRequest(1000)),
                    ("c/1/1/0", SuffixByteRequest(3)),
                ],
            )
            assert [part.to_bytes() for part in parts if part] == [b"\1" * 5, b"\1" * 24, b"\0" * 3]

        asyncio.run(explore())


def test_a_window_must_lie_inside(tcga: Path) -> None:
    with open_pyramid(tcga) as pyramid:
        level = pyramid.levels[1]
        assert level.read(5, 5, 0, 10).shape == (0, 10, 3)
        assert "Level 1: 1783" in repr(level)
        for window in ((-1, 5, 0, 5), (0, 1784, 0, 5), (5, 4, 0, 5)):
            with pytest.raises(ValueError, match="leave level 1"):
                level.read(*window)


def test_zarr_view_survives_the_pyramid(tcga: Path) -> None:
    def view() -> zarr.Array:  # type: ignore[type-arg]
        return as_zarr(open_pyramid(tcga).levels[1])

    assert np.asarray(view()[:10, :10]).shape == (10, 10, 3)
