"""The Slides tab: rows with thumbnails, found by name, opened by a double click."""

import pandas as pd
import pytest
from app.headless import make_app, wait
from napari.components import ViewerModel
from PIL import Image
from qtpy.QtCore import Qt

from hrviewer.viewer.widgets.slide_tab import SlideTab, short_answer


@pytest.fixture
def app(tmp_path):
    made = make_app(tmp_path / "runs")
    made.viewer = ViewerModel()
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


def test_results_of_a_batch_are_shown(app, qtbot, tmp_path):
    """Rows, sums and histogram of a batch's folder; a double click opens the run."""
    folder = tmp_path / "batch"
    folder.mkdir()
    paths = [str(tmp_path / name) for name in ("a.png", "b.png", "c.png")]
    Image.new("RGB", (50, 40)).save(paths[0])
    table = pd.DataFrame(
        {
            "image": paths, "status": ["done", "done", "failed"],
            "run": [str(tmp_path / "r"), "", ""], "answer": ["1,200 nuclei", "300 nuclei", None],
            "error": [None, None, "c.png is damaged"],
            "estimate": [1200.0, 300.0, None], "count": [1200.0, 300.0, None],
            "ci95_low": [1170.0, 260.0, None], "ci95_high": [1230.0, 340.0, None],
            "area_px2": [9.0, 9.0, None], "seconds": [1.0, 2.0, 0.0],
        }
    )  # fmt: skip
    table.to_parquet(folder / "table.parquet")
    table[["image"]].to_csv(folder / "table.csv")
    tab = SlideTab(app)
    qtbot.addWidget(tab)
    form = tab.batch_form
    assert not form.run_button.isEnabled()
    form.open_batch(folder)
    wait(app, lambda: tab.model.rowCount() == 3 and not app.batch_service.is_running)
    texts = [tab.model.index(i).data() for i in range(3)]
    assert tab.summary.text().startswith("3 images, 2 with runs")
    assert texts[1].endswith("done\n300 nuclei (260 – 340)")
    assert texts[2].endswith("failed\nc.png is damaged")
    assert form.run_button.isEnabled()
    assert form.summary.text().splitlines() == [
        "2 of 3 images done · 1 failed · 3.0 s",
        f"{tmp_path.name}: 1,500 (1,450 – 1,550) in 2 of 3 images",
        "in brackets: 95 % intervals for exhaustive inference",
    ]
    assert [form.quantity.itemText(i) for i in range(form.quantity.count())] == ["count", "seconds"]
    # The folder of its run was moved: the image alone is opened.
    notified = []
    app.state.error_notified.connect(notified.append)
    tab.list.activated.emit(tab.shown.index(0, 0))
    wait(app, lambda: app.state.image is not None)
    assert app.state.image.name == "a.png"
    assert str(tmp_path / "r") in notified[0]
    opened = []
    app.run_loader.open = lambda path, otherwise: opened.append(path)
    tab.list.activated.emit(tab.shown.index(0, 0))
    assert opened == [tmp_path / "r"]


def test_an_image_without_estimate_has_a_short_answer():
    assert short_answer({"answer": None, "count": None, "ci95_low": None}) == "no estimate"
