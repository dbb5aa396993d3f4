"""The Slides tab: rows with thumbnails, found by name, opened by a double click."""

import pytest
from app.headless import make_app, wait
from PIL import Image
from qtpy.QtCore import Qt

from hrviewer.viewer.widgets.slide_tab import SlideTab


@pytest.fixture
def app(tmp_path):
    made = make_app(tmp_path / "runs")
    yield made
    made.close()


def test_slides_are_found_and_opened(app, qtbot, tmp_path):
    folder = tmp_path / "slides"
    folder.mkdir()
    for name in ("liver.png", "colon.png"):
        Image.new("RGB", (50, 40), (200, 30, 60)).save(folder / name)
    tab = SlideTab(app)
    qtbot.addWidget(tab)
    assert tab.summary.text().startswith("open a folder")
    app.slide_list.open(folder)
    wait(app, lambda: tab.model.rowCount() == 2)
    assert tab.summary.text().startswith("2 images, 0 with runs")
    index = tab.shown.index(0, 0)
    assert index.data() == "colon.png\nno run yet"
    wait(app, lambda: not app.slide_list.is_running)
    assert index.data() == "colon.png\n40 × 50 px · no run yet"
    icon = index.data(Qt.ItemDataRole.DecorationRole).toImage()
    assert icon.pixelColor(32, 32).getRgb() == (200, 30, 60, 255)
    tab.filter.setText("LIVER")
    assert tab.shown.rowCount() == 1
    tab.list.activated.emit(tab.shown.index(0, 0))
    wait(app, lambda: app.state.image is not None)
    assert app.state.image.name == "liver.png"
