"""Hundreds of views, strategies and networks at random: nothing stale, nothing left, no growth."""

from __future__ import annotations

import gc
import random
import threading
import time

import numpy as np
import psutil
import pytest
from napari.components import ViewerModel
from toys import Bright, ToyBundle, picture, threads

from hrviewer.app.maps.raster import cell_slices
from hrviewer.engine import ResultCache
from hrviewer.strategies import strategy_ids
from hrviewer.viewer.controller import Controller
from hrviewer.viewer.image.geometry import screen_pixel, visible_rect

from .test_live import look, rest

PHOTO = picture(3000, 4000)
VIEWS = 300
GROWTH = 64 << 20
"""Bytes by which the second half may grow; one leaked picture of this image is a fifth of it."""


class Doubled(Bright):
    """Predictions twice as large."""

    def predict(self, batch):
        return 2 * super().predict(batch)


def begin(model, add, bundle, strategy, folder):
    if not model.layers:
        add(model, PHOTO)
    made = Controller(
        model, cache=ResultCache(memory_bytes=0), run_folder=folder, low_priority=False
    )
    made.state.set_model(bundle)
    made.state.set_strategy(strategy)
    made.live.set_enabled(True)
    return made


def shown(controller):
    """What the overlays show of the view, by name, at the resolution of the screen."""
    picture = controller.overlays.maps
    model = controller.viewer
    view = visible_rect(model, controller.image_layer, picture.image)
    found = {}
    for name in ("output", "cost"):
        drawn = picture.rasters[name]
        level = drawn.level_for(screen_pixel(model, controller.image_layer))
        values = drawn.levels[level][cell_slices(view, drawn.cell * 2**level)]
        # A cell that the view only touches at its rim may hold what lies outside.
        found[name] = values[1:-1, 1:-1]
    return found


@pytest.mark.soak
def test_hundreds_of_views_leave_nothing_stale_and_nothing_behind(model, add, tmp_path):
    chance = random.Random(0)
    bundles = ToyBundle(main=Bright("bright")), ToyBundle(main=Doubled("doubled"))
    strategies = strategy_ids()
    chosen = {"bundle": bundles[0], "strategy": strategies[0]}
    look(model, (1500, 2000), 1.0)
    controller = begin(model, add, chosen["bundle"], chosen["strategy"], tmp_path)
    process, sizes, running = psutil.Process(), [], []
    for i in range(VIEWS):
        centre = chance.uniform(0, PHOTO.shape[0]), chance.uniform(0, PHOTO.shape[1])
        look(model, centre, 2 ** chance.uniform(-1.5, 2))
        if chance.random() < 0.2:
            chosen["strategy"] = chance.choice(strategies)
            controller.state.set_strategy(chosen["strategy"])
        if chance.random() < 0.2:
            chosen["bundle"] = chance.choice(bundles)
            controller.state.set_model(chosen["bundle"])
        # Now and then long enough for a cell or for all of them, mostly not.
        end = time.monotonic() + chance.choice([0.0, 0.02, 0.1, 0.3])
        controller.tick()
        while time.monotonic() < end:
            controller.tick()
            time.sleep(0.005)
        if i >= VIEWS // 3 and i % 20 == 0:
            gc.collect()
            sizes.append(process.memory_info().rss)
            running.append(len(threads()))
    rest(controller, 120)
    now = shown(controller)
    camera = model.scene.camera
    again = ViewerModel()
    again.canvas.size = model.canvas.size
    look(again, camera.center[-2:], camera.zoom)
    fresh = begin(again, add, chosen["bundle"], chosen["strategy"], tmp_path)
    look(again, camera.center[-2:], camera.zoom)
    rest(fresh, 120)
    for name, values in shown(fresh).items():
        assert np.isfinite(values).any()
        np.testing.assert_array_equal(now[name], values, err_msg=name)
    fresh.close()
    controller.close()
    assert max(running) <= 8, "threads pile up"
    left = [t for t in threading.enumerate() if t.name.startswith("hrviewer")]
    for thread in left:
        thread.join(5)
    assert not [t.name for t in left if t.is_alive()]
    half = len(sizes) // 2
    assert np.median(sizes[half:]) - np.median(sizes[:half]) < GROWTH
