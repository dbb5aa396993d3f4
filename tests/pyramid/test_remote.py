"""Images behind URLs: the ranges that are read, the cache on disk, and failures."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr

from benchmarks.range_server import RangeServer
from hrviewer.errors import HrviewerError
from hrviewer.geometry import Rect
from hrviewer.pyramid import open_pyramid, remote, tile_cache
from hrviewer.pyramid.remote import DiskCache, NetworkError

pytest.importorskip("aiohttp")

NOISE = np.random.default_rng(0).integers(0, 256, (1024, 1280, 3), np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiled TIFF with a coarse level, and an OME-Zarr."""
    folder = tmp_path_factory.mktemp("served")
    with tifffile.TiffWriter(folder / "cog.tif") as file:
        options = {"tile": (256, 256), "photometric": "rgb", "compression": "zlib"}
        file.write(NOISE, subifds=0, **options)
        file.write(NOISE[::2, ::2], subfiletype=1, **options)
    group = zarr.open_group(folder / "image.zarr", mode="w", zarr_format=3)
    group.create_array("0", data=NOISE, chunks=(256, 256, 3))
    multiscale = {"axes": [{"name": axis} for axis in "yxc"], "datasets": [{"path": "0"}]}
    group.attrs["ome"] = {"version": "0.5", "multiscales": [multiscale]}
    (folder / "text.tif").write_text("no image")
    return folder


@pytest.fixture
def server(folder: Path) -> Iterator[RangeServer]:
    with RangeServer(folder) as server:
        yield server


def test_a_tiff_is_read_by_ranges_and_cached(server: RangeServer, folder: Path) -> None:
    url = f"{server.url}/cog.tif"
    with open_pyramid(url) as pyramid:
        assert pyramid.name == "cog.tif"
        assert [level.shape[:2] for level in pyramid.levels] == [(1024, 1280), (512, 640)]
        before = server.sent
        part = Rect(300, 300, 100, 100)
        np.testing.assert_array_equal(pyramid.read(part), NOISE[300:400, 300:400])
        with tifffile.TiffFile(folder / "cog.tif") as file:
            tile = file.pages[0].databytecounts[6]
        assert server.sent - before == tile
        fingerprint = pyramid.fingerprint
    tile_cache().clear()
    before = server.sent
    with open_pyramid(url) as again:
        np.testing.assert_array_equal(again.read(part), NOISE[300:400, 300:400])
        assert again.fingerprint == fingerprint
    assert server.sent == before  # all of it from the disk
    os.utime(folder / "cog.tif", ns=(1, 1))
    tile_cache().clear()
    with open_pyramid(url) as changed:
        assert changed.fingerprint != fingerprint
        changed.read(part)
    assert server.sent > before


def test_an_omezarr_is_cached_chunk_by_chunk(server: RangeServer) -> None:
    url = f"{server.url}/image.zarr"
    with open_pyramid(url) as pyramid:
        np.testing.assert_array_equal(pyramid[:100, :100], NOISE[:100, :100])
    tile_cache().clear()
    before = server.sent
    with open_pyramid(url) as pyramid:
        opened = server.sent
        np.testing.assert_array_equal(pyramid[:100, :100], NOISE[:100, :100])
        assert server.sent == opened
    assert opened - before < 10_000  # metadata


def test_failures_are_one_line(server: RangeServer, folder: Path) -> None:
    with pytest.raises(HrviewerError, match=r"nowhere\.tif: there is no such file$"):
        open_pyramid(f"{server.url}/nowhere.tif")
    with pytest.raises(HrviewerError, match="TIFF and OME-Zarr are read; download the file"):
        open_pyramid(f"{server.url}/text.tif")
    with RangeServer(folder, ranges=False) as rude, pytest.raises(HrviewerError, match="download"):
        open_pyramid(f"{rude.url}/cog.tif")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    for name in ("a.tif", "a.zarr"):
        with pytest.raises(HrviewerError) as caught:
            open_pyramid(f"http://127.0.0.1:{port}/{name}")
        assert "\n" not in str(caught.value)
        assert "damaged" not in str(caught.value)


@pytest.mark.parametrize(
    ("status", "message"), [(403, "may not be read: check the address"), (500, "cannot be read")]
)
def test_a_server_that_refuses_is_no_missing_file(
    server: RangeServer, status: int, message: str
) -> None:
    server.refuses = status
    for name in ("cog.tif", "image.zarr"):
        with pytest.raises(HrviewerError, match=message):
            open_pyramid(f"{server.url}/{name}")


def test_a_network_that_goes_is_no_damage(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "SILENT_SECONDS", 0.2)
    part = Rect(700, 700, 10, 10)
    with RangeServer(folder) as server:
        pyramids = [open_pyramid(f"{server.url}/{name}") for name in ("cog.tif", "image.zarr")]

        def fails(message: str) -> None:
            for pyramid in pyramids:
                with pytest.raises(NetworkError, match=message):
                    pyramid.read(part)

        server.is_down = True
        fails("check the network and try again")
        server.is_down, server.cuts_bodies = False, True
        fails("check the network and try again")
        server.cuts_bodies = False
        server.gate.clear()
        fails("the server does not answer; check the network")
        server.gate.set()
        for pyramid in pyramids:  # nothing that was cut is kept
            np.testing.assert_array_equal(pyramid.read(part), NOISE[700:710, 700:710])


def test_s3(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("s3fs")
    server_module = pytest.importorskip("moto.server")
    import s3fs

    server = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.setenv(name, "testing")
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        s3fs.S3FileSystem.clear_instance_cache()
        system = s3fs.S3FileSystem()
        system.mkdir("slides")
        system.put(str(folder / "cog.tif"), "slides/cog.tif")
        system.put(str(folder / "image.zarr"), "slides/image.zarr", recursive=True)
        for name in ("cog.tif", "image.zarr"):
            with open_pyramid(f"s3://slides/{name}") as pyramid:
                np.testing.assert_array_equal(pyramid[300:400, 300:400], NOISE[300:400, 300:400])
        with pytest.raises(HrviewerError, match="there is no such file"):
            open_pyramid("s3://slides/nowhere.tif")
    finally:
        server.stop()


def test_the_cache_is_bounded(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path, limit=1000)
    for i in range(30):
        cache.put(str(i), bytes(100))
        os.utime(cache._path(str(i)), (i, i))
    assert sum(file.stat().st_size for file in tmp_path.rglob("*") if file.is_file()) <= 1000
    assert cache.get("29") == bytes(100)
    assert cache.get("0") is None


def test_a_range_that_cannot_be_stored_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "no space left")

    monkeypatch.setattr(os, "replace", fail)
    cache = DiskCache(tmp_path)
    cache.put("a", bytes(100))
    assert cache.get("a") is None
    assert not [file for file in tmp_path.rglob("*") if file.is_file()]
