"""The window never waits for a file: what is there is shown, and the rest comes."""

from __future__ import annotations

import copy
import threading

import numpy as np
import pytest
from napari.layers import Layer
from napari.settings import get_settings

from hrviewer.pyramid import open_pyramid, tile_cache
from hrviewer.viewer.contributions.readers import read_image_layers
from hrviewer.viewer.image.image_layer import image_layer_data
from hrviewer.viewer.image.layer_refresh import auto_refresh, tile_loader_of
from hrviewer.viewer.image.tile_loader import MAX_WORKERS, TileLoader

SIDE = 2048


class Slow:
    """An array on a slow disk: reading waits for the gate, and never happens in the window."""

    def __init__(self, pixels):
        self.pixels, self.gate, self.reads = pixels, threading.Event(), []
        self.shape, self.dtype, self.ndim = pixels.shape, pixels.dtype, pixels.ndim
        self.strict, self.broken = True, False

    def __getitem__(self, key):
        assert not self.strict or threading.current_thread() is not threading.main_thread()
        rows, columns = key[-2:]
        self.reads.append((rows.start, columns.start))
        assert self.gate.wait(20)
        if self.broken:
            raise OSError("bad sector")
        return self.pixels[key]


@pytest.fixture
def slow(monkeypatch):
    """A picture of two levels: a chequered ramp, and the ramp alone."""
    monkeypatch.setattr("hrviewer.viewer.image.image_layer.MAX_SINGLE_ARRAY_VALUES", 0)
    monkeypatch.setattr("hrviewer.viewer.image.image_layer.MAX_COARSEST_PIXELS", 20_000)
    tile_cache().clear()
    ramp = np.linspace(80, 180, SIDE)[:, None] * np.ones(SIDE)
    chequers = 50 * (-1.0) ** np.add.outer(np.arange(SIDE), np.arange(SIDE))
    fine, coarse = Slow((ramp + chequers).astype(np.uint8)), Slow(ramp[::2, ::2].astype(np.uint8))
    yield fine, coarse
    for array in (fine, coarse):
        array.gate.set()


@pytest.fixture(params=[False, True], ids=["sync", "async"])
def viewer(request, make_napari_viewer, qtbot):
    made = make_napari_viewer(show=True)
    get_settings().experimental.async_ = request.param
    auto_refresh(made)
    yield made
    # A slice that is still in progress holds the window, which then counts as leaked; what threads
    # have read last begins another one.
    for _ in range(3):
        qtbot.waitUntil(lambda: not threads(), timeout=10_000)
        qtbot.wait(50)
        made._layer_slicer.wait_until_idle(10)


def add(viewer, slow):
    pyramid = open_pyramid(list(slow))
    layer = viewer.add_layer(Layer.create(*image_layer_data(pyramid, load_coarsest=False)))
    return layer, tile_loader_of(layer)


def look(viewer, centre, zoom=2.0):
    viewer.scene.camera.center = centre
    viewer.scene.camera.zoom = zoom


def seen(viewer):
    """Return the middle of the canvas, grey."""
    shot = viewer.screenshot(flash=False)[..., 0].astype(float)
    h, w = shot.shape
    return shot[h // 2 - 40 : h // 2 + 40, w // 2 - 40 : w // 2 + 40]


def threads():
    return [t for t in threading.enumerate() if t.name in ("hrviewer-fetch", "hrviewer-fill")]


def test_what_is_there_is_shown_and_the_rest_comes(viewer, slow, qtbot):
    fine, coarse = slow
    layer, fetcher = add(viewer, slow)
    look(viewer, (1000, 1000))
    assert seen(viewer).max() == 0
    coarse.gate.set()
    qtbot.waitUntil(lambda: fetcher.coarsest_loaded and seen(viewer).min() > 60, timeout=10_000)
    blurred = seen(viewer)
    assert blurred.std() < 8
    assert blurred.mean() == pytest.approx(80 + 100 * 1000 / SIDE, abs=4)
    qtbot.waitUntil(lambda: bool(fine.reads), timeout=10_000)
    fine.gate.set()
    qtbot.waitUntil(lambda: seen(viewer).std() > 40, timeout=10_000)
    assert layer.data_level == 0
    (y0, x0), (y1, x1) = layer.corner_pixels
    np.testing.assert_array_equal(
        fetcher.read_available(0, (y0, y1 + 1, x0, x1 + 1))[..., 0],
        fine.pixels[y0 : y1 + 1, x0 : x1 + 1],
    )
    qtbot.waitUntil(lambda: not fetcher.is_loading and not threads(), timeout=10_000)


def test_a_newer_view_drops_what_the_older_wanted(viewer, slow, qtbot):
    fine, coarse = slow
    coarse.gate.set()
    _, fetcher = add(viewer, slow)
    qtbot.waitUntil(lambda: fetcher.coarsest_loaded, timeout=10_000)
    look(viewer, (100, 100), 4.0)
    qtbot.waitUntil(lambda: bool(fine.reads), timeout=10_000)
    look(viewer, (1900, 1900), 4.0)
    seen(viewer)
    before = list(fine.reads)
    assert len(before) <= MAX_WORKERS
    fine.gate.set()
    qtbot.waitUntil(lambda: seen(viewer).std() > 40, timeout=10_000)
    qtbot.waitUntil(lambda: not fetcher.is_loading and not threads(), timeout=10_000)
    later = fine.reads[len(before) :]
    assert later
    assert min(min(at) for at in later) >= 1024


def test_the_middle_comes_first(slow):
    fine, coarse = slow
    coarse.gate.set()
    fetcher = TileLoader(open_pyramid(list(slow)), 16)
    ended = threading.Event()
    fetcher.read_available(0, (0, 1536, 0, 1536))
    fine.gate.set()
    for _ in range(1000):
        if not fetcher.is_loading:
            break
        ended.wait(0.01)
    assert len(fine.reads) == 9
    assert fine.reads[0] == (512, 512)
    assert set(fine.reads[-4:]) == {(0, 0), (0, 1024), (1024, 0), (1024, 1024)}


def test_nothing_is_fetched_after_the_layer_is_gone(viewer, slow, qtbot):
    fine, coarse = slow
    coarse.gate.set()
    layer, fetcher = add(viewer, slow)
    look(viewer, (1000, 1000), 1.0)
    qtbot.waitUntil(lambda: bool(fine.reads), timeout=10_000)
    viewer.layers.remove(layer)
    fetcher.dirty = True  # something came at the last moment
    fine.gate.set()
    qtbot.waitUntil(lambda: not fetcher.dirty, timeout=10_000)
    qtbot.waitUntil(lambda: not threads(), timeout=10_000)
    assert len(fine.reads) <= MAX_WORKERS
    assert not fetcher.is_loading
    # It may come back.
    viewer.add_layer(layer)
    look(viewer, (1000, 1000), 1.0)
    qtbot.waitUntil(lambda: len(fine.reads) > MAX_WORKERS, timeout=10_000)
    qtbot.waitUntil(lambda: seen(viewer).std() > 40, timeout=10_000)


def test_a_hidden_layer_wants_nothing(viewer, slow, qtbot):
    fine, coarse = slow
    coarse.gate.set()
    layer, _ = add(viewer, slow)
    look(viewer, (1000, 1000), 1.0)
    qtbot.waitUntil(lambda: bool(fine.reads), timeout=10_000)
    layer.visible = False
    qtbot.wait(250)
    refreshed = []
    layer.events.set_data.connect(refreshed.append)
    fine.gate.set()
    qtbot.waitUntil(lambda: not threads(), timeout=10_000)
    qtbot.wait(250)
    assert len(fine.reads) <= MAX_WORKERS
    assert not refreshed
    layer.visible = True
    qtbot.waitUntil(lambda: seen(viewer).std() > 40, timeout=10_000)


def test_others_get_the_pixels_themselves(viewer, slow, qtbot):
    fine, coarse = slow
    fine.strict = coarse.strict = False
    fine.gate.set()
    coarse.gate.set()
    layer, fetcher = add(viewer, slow)
    tile_cache().clear()
    window = slice(100, 400), slice(1500, 1900)
    np.testing.assert_array_equal(np.asarray(layer.data[0][window]), fine.pixels[window])
    np.testing.assert_array_equal(np.asarray(layer.data[1]), coarse.pixels)
    np.testing.assert_array_equal(layer.data[1].compute(), coarse.pixels)
    assert np.asarray(layer.data[-1]).min() >= 80
    # As napari duplicates a layer.
    data, settings, kind = layer.as_layer_data_tuple()
    twin = Layer.create(copy.deepcopy(data), settings, kind)
    assert tile_loader_of(twin) is not fetcher
    np.testing.assert_array_equal(twin.data[0][window], fine.pixels[window])
    qtbot.waitUntil(lambda: not fetcher.is_loading and not threads(), timeout=10_000)
    # napari's own slicing comes to its end, too.
    qtbot.waitUntil(lambda: seen(viewer).min() > 0, timeout=10_000)


def test_a_decoding_error_is_reported_once(viewer, slow, qtbot, monkeypatch):
    from hrviewer.viewer.image import layer_refresh

    warnings = []
    monkeypatch.setattr(layer_refresh, "show_warning", warnings.append)
    fine, coarse = slow
    fine.broken = True
    coarse.gate.set()
    fine.gate.set()
    _, fetcher = add(viewer, slow)
    qtbot.waitUntil(lambda: fetcher.coarsest_loaded, timeout=10_000)
    look(viewer, (256, 256), 4.0)
    qtbot.waitUntil(lambda: bool(warnings), timeout=10_000)
    qtbot.waitUntil(lambda: not fetcher.is_loading and not threads(), timeout=10_000)
    reads = len(fine.reads)
    assert "bad sector" in warnings[0]
    qtbot.wait(250)
    assert len(fine.reads) == reads
    assert seen(viewer).std() < 8


def test_contrast_comes_with_the_pixels(viewer, monkeypatch, qtbot):
    monkeypatch.setattr("hrviewer.viewer.image.image_layer.MAX_SINGLE_ARRAY_VALUES", 0)
    ramp = Slow(np.linspace(0, 4000, 600 * 600).reshape(600, 600).astype(np.uint16))
    layer = viewer.add_layer(
        Layer.create(*image_layer_data(open_pyramid(ramp), load_coarsest=False))
    )
    assert [*layer.contrast_limits] == [0, 65535]
    ramp.gate.set()
    qtbot.waitUntil(lambda: layer.contrast_limits[1] < 4000, timeout=10_000)


def test_a_dropped_file_is_not_read_in_the_window(viewer, tmp_path, monkeypatch, qtbot):
    import tifffile

    from hrviewer.pyramid.level import Level

    pixels = np.full((3000, 3000, 3), 120, np.uint8)
    path = tmp_path / "flat.svs"
    tifffile.imwrite(path, pixels, tile=(256, 256), photometric="rgb")
    fetch = Level.load_tile

    def elsewhere(self, key, meter=None):
        assert threading.current_thread() is not threading.main_thread()
        return fetch(self, key, meter)

    monkeypatch.setattr(Level, "load_tile", elsewhere)
    [(data, settings, kind)] = read_image_layers(str(path))
    # One stored level: the others are built beside the event loop.
    assert [level.shape[0] for level in data] == [3000, 1500, 750]
    viewer.add_layer(Layer.create(data, settings, kind))
    qtbot.waitUntil(lambda: seen(viewer).min() == 120, timeout=20_000)
    qtbot.waitUntil(lambda: not threads(), timeout=10_000)


def test_progress_of_building_overviews_is_reported(tmp_path, monkeypatch):
    import tifffile

    from hrviewer.pyramid import Pyramid

    path = tmp_path / "flat.svs"
    pixels = np.full((3000, 3000, 3), 120, np.uint8)
    tifffile.imwrite(path, pixels, tile=(256, 256), photometric="rgb")
    build, fractions = Pyramid.build_overviews, []
    with open_pyramid(path) as pyramid:
        loader = TileLoader(pyramid, 4.0)

        def observed(self, progress, cancelled, preview):
            def report(fraction):
                progress(fraction)
                fractions.append(loader.build_fraction)

            build(self, report, cancelled, preview)
            # Blocks are shown before the level is complete.
            assert (loader.coarsest == 120).all()
            assert not loader.coarsest_loaded

        monkeypatch.setattr(Pyramid, "build_overviews", observed)
        loader.load_coarsest()
        assert fractions == sorted(fractions)
        assert fractions[-1] == 1.0
        assert loader.build_fraction is None
