"""The window at every size, theme, size of text and scale of the screen; `make walk`.

Its pictures go to build/walk: one for each combination, and each is to be checked by eye.
"""

import os
from pathlib import Path

import pytest
from cut_texts import cut_texts, outside, overlapping
from napari.settings import get_settings
from PIL import Image
from toys import Bright, ToyBundle, picture

from hrviewer.engine import ResultCache
from hrviewer.strategies import strategy_ids
from hrviewer.viewer.demo.window_driver import grab, process_events_for, wait_until
from hrviewer.viewer.view import view
from hrviewer.viewer.widgets.window import image_share

pytestmark = pytest.mark.walk

PICTURES = Path(__file__).parents[3] / "build" / "walk"
SCALE = float(os.environ.get("QT_SCALE_FACTOR", "1"))
"""Of the screen; `make walk` runs these tests at 1 and at 2."""

SIZES = [(1280, 800), (1600, 1000), (2560, 1440)] if SCALE == 1 else [(1280, 720)]
POINTS = (9, 13)


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """A window with the results of a run."""
    window = view(picture(900, 1200), ToyBundle(main=Bright()), "patches")
    controller = window.controller
    controller.resources.cache = ResultCache()
    controller.run_service.start(out=tmp_path_factory.mktemp("walk") / "a.run.zarr")
    wait_until(lambda: controller.state.run_state != "idle", 60)
    wait_until(lambda: controller.state.run_state == "idle", 600)
    assert controller.state.run is not None
    controller.state.set_model("crowd")  # with texts of a real one
    controller.inspect_patch((300.0, 300.0))
    yield window
    window.close()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("points", POINTS)
@pytest.mark.parametrize("theme", ["dark", "light"])
def test_room(opened, size, theme, points):
    panel, appearance = opened.panel, get_settings().appearance
    before = appearance.font_size
    appearance.theme = theme
    appearance.font_size = points
    opened.viewer.window.resize(*size)
    process_events_for(0.3)
    panel.arrange()
    process_events_for(0.6)
    opened.viewer.reset_view()
    faults = []
    PICTURES.mkdir(parents=True, exist_ok=True)
    try:
        for tab in range(panel.count()):
            panel.setCurrentIndex(tab)
            process_events_for(0.3)
            name = f"{size[0]}x{size[1]}-{points}pt-{theme}-{SCALE:g}-{panel.tabText(tab)}.png"
            Image.fromarray(grab(opened)[..., :3]).save(PICTURES / name)
            for find in (cut_texts, overlapping, outside):
                faults += [f"{panel.tabText(tab)}: {line}" for line in find(panel)]
        faults += cut_texts(panel.parentWidget().titleBarWidget())
        panel.setCurrentIndex(0)
        assert faults == []
        overview = panel.overview
        bottom = overview.mapTo(panel, overview.rect().bottomLeft()).y()
        assert bottom < panel.height() or size[1] < 1000 or points > 9
        # In a wide window napari's lists have a column of their own.
        assert image_share(panel) >= (0.55 if size[0] < 1600 else 0.5)
    finally:
        appearance.font_size = before


def test_nothing_jumps_when_the_strategy_changes(opened):
    panel, state = opened.panel, opened.controller.state
    panel.setCurrentIndex(0)
    fixed = (
        panel.run_controls.run_button,
        panel.run_controls.estimate,
        panel.overlay_legend,
    )
    places = set()
    for name in strategy_ids():
        state.set_strategy(name)
        process_events_for(0.5)
        body = panel.widget(0).widget()
        places.add(tuple(part.mapTo(body, part.rect().topLeft()).y() for part in fixed))
    assert len(places) == 1
