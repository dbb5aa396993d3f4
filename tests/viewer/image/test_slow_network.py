"""The window never waits for the network: it pans while a server holds its answers back."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile
import zarr

from benchmarks.range_server import RangeServer
from hrviewer.pyramid import open_pyramid, tile_cache
from hrviewer.pyramid.remote import RemoteFile
from hrviewer.viewer.controller import Controller
from hrviewer.viewer.image import tile_loader
from hrviewer.viewer.image.layer_refresh import auto_refresh, tile_loader_of

pytest.importorskip("aiohttp")
SIDE = 3072


@pytest.fixture
def readers(monkeypatch):
    """The threads that read remote files."""
    found = []
    for name in ("__init__", "read"):
        original = getattr(RemoteFile, name)

        def recorded(*args, original=original):
            found.append(threading.current_thread())
            return original(*args)

        monkeypatch.setattr(RemoteFile, name, recorded)
    return found


@pytest.fixture
def server(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (SIDE // 8, SIDE // 8), np.uint8)
    pixels = pixels.repeat(8, 0).repeat(8, 1)
    options = {"tile": (256, 256), "photometric": "minisblack", "compression": "zlib"}
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(pixels, subifds=2, **options)
        for step in (2, 4):
            file.write(pixels[::step, ::step], subfiletype=1, **options)
    tile_cache().clear()
    with RangeServer(tmp_path) as server:
        server.pixels = pixels
        yield server


def open_window(make_napari_viewer, qtbot, tmp_path):
    """Return a viewer, its controller, and what ticks it until a condition holds."""
    viewer = make_napari_viewer(show=True)
    auto_refresh(viewer)
    controller = Controller(viewer, run_folder=tmp_path / "runs")

    def ticks(condition):
        def ticked():
            controller.tick()
            assert condition()

        qtbot.waitUntil(ticked, timeout=20_000)

    return viewer, controller, ticks


def test_the_window_pans_while_the_server_is_silent(
    make_napari_viewer, qtbot, server, readers, tmp_path, monkeypatch
):
    monkeypatch.setattr("hrviewer.viewer.image.image_layer.MAX_SINGLE_ARRAY_VALUES", 0)
    viewer, controller, ticks = open_window(make_napari_viewer, qtbot, tmp_path)
    server.gate.clear()
    controller.image_loader.open(f"{server.url}/a.tif")
    ticks(lambda: server.waiting)
    assert controller.image_loader.is_running
    server.gate.set()
    ticks(lambda: not controller.image_loader.is_running)
    layer = controller.image_layer
    loader = tile_loader_of(layer)
    ticks(lambda: loader.coarsest_loaded and not loader.is_loading)
    server.gate.clear()
    for y, x in ((800, 800), (1500, 1200), (2400, 2300)):
        viewer.scene.camera.center, viewer.scene.camera.zoom = (y, x), 2.0
        viewer.screenshot(flash=False)  # drawn from the coarse level, although tiles are missing
        assert layer.data_level == 0
        ticks(lambda: loader.is_loading and server.waiting)
    server.gate.set()
    ticks(lambda: not loader.is_loading)
    (y0, x0), (y1, x1) = layer.corner_pixels
    shown = loader.read_available(0, (y0, y1, x0, x1))[..., 0]
    np.testing.assert_array_equal(shown, server.pixels[y0:y1, x0:x1])
    controller.close()
    assert readers
    assert threading.main_thread() not in readers


def test_tiles_come_once_the_network_is_back(server, monkeypatch):
    now = 0.0
    monkeypatch.setattr(tile_loader, "time", SimpleNamespace(monotonic=lambda: now))
    with open_pyramid(f"{server.url}/a.tif") as pyramid:
        loader = tile_loader.TileLoader(pyramid, 4)
        loader.load_coarsest()

        def shown():
            loader.read_available(0, (0, 500, 0, 500))
            while loader.is_loading:
                time.sleep(0.01)
            return loader.read_available(0, (0, 500, 0, 500))[..., 0]

        server.is_down = True
        shown()
        assert "check the network" in loader.failure
        assert loader.waits_to_retry
        loader.dirty = False
        loader.retry_when_due()
        assert not loader.dirty  # not at once
        now = 2 * tile_loader.RETRY_SECONDS
        loader.retry_when_due()
        assert loader.dirty
        server.is_down = False
        np.testing.assert_array_equal(shown(), server.pixels[:500, :500])
        assert not loader.waits_to_retry


@pytest.mark.slow
def test_missing_chunks_and_a_server_that_goes(make_napari_viewer, qtbot, tmp_path, monkeypatch):
    """Chunks that answer 404 are transparent; those of a silent server come once it is back."""
    monkeypatch.setattr("hrviewer.viewer.image.image_layer.MAX_SINGLE_ARRAY_VALUES", 0)
    monkeypatch.setattr(tile_loader, "RETRY_SECONDS", 0.1)
    warned = []
    monkeypatch.setattr("hrviewer.viewer.image.layer_refresh.show_warning", warned.append)
    pixels = np.random.default_rng(0).integers(1, 255, (SIDE // 16, SIDE // 16, 3), np.uint8)
    pixels = pixels.repeat(16, 0).repeat(16, 1)
    group = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=3)
    group.create_array("0", data=pixels, chunks=(512, 512, 3))
    group.create_array("1", data=pixels[::4, ::4], chunks=(768, 768, 3))
    multiscale = {
        "axes": [{"name": axis} for axis in "yxc"],
        "datasets": [{"path": "0"}, {"path": "1"}],
    }
    group.attrs["ome"] = {"version": "0.5", "multiscales": [multiscale]}
    (tmp_path / "a.zarr/0/c/1/1/0").unlink()
    viewer, controller, ticks = open_window(make_napari_viewer, qtbot, tmp_path)
    tile_cache().clear()
    with RangeServer(tmp_path) as server:
        controller.image_loader.open(f"{server.url}/a.zarr")
        ticks(lambda: controller.image_layer is not None and not controller.image_loader.is_running)
        loader = tile_loader_of(controller.image_layer)
        ticks(lambda: loader.coarsest_loaded and not loader.is_loading)

        def shown(y, x):
            viewer.scene.camera.center, viewer.scene.camera.zoom = (y, x), 4.0
            viewer.screenshot(flash=False)
            ticks(lambda: not loader.is_loading)
            return loader.read_available(0, (y - 50, y + 50, x - 50, x + 50))

        missing = shown(768, 768)
        assert (missing[..., 3] == 0).all()
        server.is_down = True
        shown(2304, 2304)
        assert "check the network" in loader.failure
        server.is_down = False
        ticks(lambda: not loader.waits_to_retry and not loader.is_loading)
        came = shown(2304, 2304)
        assert (came[..., 3] == 255).all()
        np.testing.assert_array_equal(came[..., :3], pixels[2254:2354, 2254:2354])
    ticks(lambda: not controller.image_loader.is_running)
    controller.close()
    assert all("check the network" in text for text in warned)
    assert len(warned) == 1
