"""Pictures of the three jobs of docs/jobs, done with mouse and keyboard, and the clicks they take.

    scripts/headless.sh python docs/job_pictures.py nuclei SLIDE
    scripts/headless.sh python docs/job_pictures.py boats PHOTO MODEL
    scripts/headless.sh python docs/job_pictures.py people

Real events go to the widgets and the canvas. A click, a double click (two) and a drag count; keys
do not. A file is chosen with a double click in the dialog, which a script cannot show; a new file's
name is typed. Prints what each job gave, and how many clicks it took, as JSON.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import tifffile
from PIL import Image
from qtpy.QtCore import QPoint, Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QComboBox, QFileDialog, QLabel, QLineEdit, QScrollArea, QWidget

from hrviewer.strategies import strategy_ids
from hrviewer.viewer.demo.window_driver import (
    grab,
    process_events_for,
    set_up_window,
    use_text_size,
    wait_until,
)
from hrviewer.viewer.view import view

IMAGES = Path(__file__).parent / "images"
SIZE = 1400, 900
LEFT = Qt.MouseButton.LeftButton

FIELDS = ((600, 1000, 1100, 1550), (1200, 1000, 1750, 1700), (2100, 500, 2650, 1250))
"""The regions of the first job: top, left, bottom and right in pixels of the slide."""

FIELD = "0.05mm2"
"""Area of a hot spot: the slide has half a square millimetre of tissue."""

SQUARE = (1600, 1600, 6200, 6200)
"""The square of the third job, in pixels of the synthetic image."""

PLACE = (0.25, 600_000.0, 5_900_000.0, 32632)
"""Made up: metres per pixel, the upper left corner in UTM zone 32 north, and its EPSG code."""


class Hand:
    """A user's hand on a window: what it does is counted."""

    def __init__(self, image: str | None = None) -> None:
        use_text_size(11)
        self.window = view(image)
        self.panel, self.controller = self.window.panel, self.window.controller
        self.clicks, self.keys = 0, 0
        set_up_window(self.window, *SIZE)
        self.panel.arrange()
        self.settle()

    def settle(self, seconds: float = 0.5) -> None:
        """Wait until the window is at rest."""
        process_events_for(seconds)
        wait_until(lambda: not self.controller.has_pending_work, 1800)
        process_events_for(seconds)

    def click(self, widget: QWidget, at: QPoint | None = None) -> None:
        """Click on a widget."""
        area = self.panel.currentWidget()
        if isinstance(area, QScrollArea) and area.isAncestorOf(widget):
            area.ensureWidgetVisible(widget)
        assert widget.isVisible()
        assert widget.isEnabled()
        self.clicks += 1
        QTest.mouseClick(widget, LEFT, pos=at or widget.rect().center())
        self.settle(0.2)

    def open_tab(self, title: str) -> None:
        """Click on a tab of the panel."""
        bar = self.panel.tabBar()
        at = next(i for i in range(bar.count()) if bar.tabText(i) == title)
        self.click(bar, bar.tabRect(at).center())

    def choose(self, box: QComboBox, title: str) -> None:
        """Open a list with a click, and choose with another one."""
        self.click(box)
        popup = box.view()
        index = box.model().index(box.findText(title), 0)
        assert index.isValid()
        popup.scrollTo(index)
        place = popup.visualRect(index).center()
        self.settle(0.5)  # Qt takes an earlier release for that of the first click
        QTest.mouseMove(popup.viewport(), place)
        self.click(popup.viewport(), place)
        assert box.currentText() == title

    def open_file(self, button: QWidget, path: str) -> None:
        """Press a button, and choose a file in its dialog with a double click."""
        kept = QFileDialog.getOpenFileName
        QFileDialog.getOpenFileName = lambda *args, **options: (path, "")
        try:
            self.click(button, QPoint(8, button.height() // 2))
        finally:
            QFileDialog.getOpenFileName = kept
        self.clicks += 2

    def save_file(self, button: QWidget, path: Path) -> None:
        """Press a button, and type a name in its dialog."""
        kept = QFileDialog.getSaveFileName
        QFileDialog.getSaveFileName = lambda *args, **options: (str(path), "")
        try:
            self.click(button)
        finally:
            QFileDialog.getSaveFileName = kept
        self.keys += 1
        wait_until(path.exists, 300)

    def press(self, key: Qt.Key, times: int = 1) -> None:
        """Press a key."""
        window = self.panel.window()
        window.activateWindow()
        wait_until(window.isActiveWindow, 10)
        for _ in range(times):
            self.keys += 1
            QTest.keyClick(self.panel, key)
            process_events_for(0.1)

    def type(self, field: QLineEdit, text: str) -> None:
        """Click into a field, and replace its text."""
        self.click(field)
        field.selectAll()
        self.keys += len(text) + 2
        QTest.keyClicks(field, text)
        QTest.keyClick(field, Qt.Key.Key_Return)
        self.settle(0.2)

    def drag(self, box: tuple[int, int, int, int]) -> None:
        """Draw a rectangle on the image: top, left, bottom and right in its pixels."""
        window = self.panel.window()
        canvas = next(
            w for w in window.findChildren(QWidget) if "CanvasBackend" in type(w).__name__
        )
        camera, layer = self.window.viewer.scene.camera, self.controller.image_layer
        assert layer is not None
        start, end = (self._place(canvas, camera, layer, each) for each in (box[:2], box[2:]))
        self.clicks += 1
        QTest.mousePress(canvas, LEFT, pos=start)
        for part in np.linspace(0.2, 1, 5):
            QTest.mouseMove(canvas, start + (end - start) * float(part))
            process_events_for(0.05)
        QTest.mouseRelease(canvas, LEFT, pos=end)
        self.settle(0.2)

    def _place(self, canvas: QWidget, camera: Any, layer: Any, pixel: Sequence[float]) -> QPoint:
        world = np.asarray(layer.data_to_world(pixel))[-2:]
        y, x = (world - np.asarray(camera.center[-2:])) * camera.zoom
        return QPoint(round(x + canvas.width() / 2), round(y + canvas.height() / 2))

    def run(self, strategy: str) -> None:
        """Choose a strategy with F9, and run it with F5."""
        state = self.controller.state
        for _ in strategy_ids():
            if state.settings.strategy.id != strategy:
                self.press(Qt.Key.Key_F9)
        assert state.settings.strategy.id == strategy
        before = state.run
        self.press(Qt.Key.Key_F5)
        wait_until(lambda: state.run_state != "idle" or state.run is not before, 60)
        wait_until(lambda: state.run_state == "idle", 3600)
        self.settle()

    def photograph(self, name: str) -> None:
        """Save a picture of the window."""
        self.settle(1)
        pixels = grab(self.window)[..., :3]
        Image.fromarray(pixels).save(IMAGES / f"job_{name}.webp", quality=85, method=6)

    def report(self, **facts: Any) -> None:
        """Print what came out, and close the window."""
        controls = self.panel.run_controls
        labels = controls.estimate, controls.estimate_details
        answer = [label.text() for label in labels if isinstance(label, QLabel)]
        found = {"answer": answer, "clicks": self.clicks, "keys": self.keys, **facts}
        print(json.dumps(found, indent=1, ensure_ascii=False))
        self.window.close()


def count_nuclei(slide: str) -> None:
    """Nuclei per mm² of tissue in three regions of a slide, and its hot spots."""
    hand = Hand()
    settings, tab = hand.panel.run_settings, hand.panel.region_tab
    hand.open_file(settings.open_button, slide)
    hand.settle(2)
    hand.open_tab("Regions")
    hand.choose(tab.tissue, "found in the image")
    hand.settle(1)
    hand.click(tab.tool_buttons["Rectangle"])
    for box in FIELDS:
        hand.drag(box)
    hand.photograph("nuclei_regions")
    hand.run("patches")
    wait_until(lambda: all(row.measured for row in hand.controller.region_service.rows), 120)
    hand.photograph("nuclei_measured")
    hand.type(tab.size_field, FIELD)
    hand.settle(2)
    wait_until(lambda: len(hand.controller.region_service.rows) > len(FIELDS), 300)
    wait_until(lambda: all(row.measured for row in hand.controller.region_service.rows), 120)
    hand.photograph("nuclei_hot_spots")
    table = Path("regions.csv").absolute()
    hand.save_file(tab.export_button, table)
    hand.report(table=table.read_text().splitlines())


def count_boats(photo: str, model: str) -> None:
    """Boats per hectare of a GeoTIFF, with their outlines on the map."""
    geotiff = Path("boats.tif").absolute()
    write_geotiff(photo, geotiff)
    hand = Hand()
    settings, tab = hand.panel.run_settings, hand.panel.export_tab
    hand.open_file(settings.open_button, str(geotiff))
    hand.settle(2)
    hand.open_file(hand.panel.run_settings.model_button, model)
    hand.settle(2)
    hand.run("patches")
    hand.photograph("boats_counted")
    hand.open_tab("Export")
    assert tab.options is not None
    hand.choose(tab.options.fields["coordinates"].native, "map")
    target = Path(tab.path.text())
    hand.photograph("boats_export")
    hand.click(tab.export_button)
    wait_until(target.exists, 300)
    hand.settle(1)
    frame = geopandas.read_file(target)
    west, south, east, north = (float(edge) for edge in frame.total_bounds)
    metres, x, y, _ = PLACE
    height, width = tifffile.imread(geotiff).shape[:2]
    assert x <= west < east <= x + metres * width
    assert y - metres * height <= south < north <= y
    hand.report(crs=str(frame.crs), bounds=[west, south, east, north], features=len(frame))


def write_geotiff(photo: str, path: Path) -> None:
    """Write a photo as a GeoTIFF at the made-up place."""
    metres, x, y, code = PLACE
    keys = (1, 1, 0, 3, 1024, 0, 1, 1, 1025, 0, 1, 1, 3072, 0, 1, code)
    tifffile.imwrite(
        path, np.asarray(Image.open(photo).convert("RGB")), tile=(256, 256), photometric="rgb",
        compression="jpeg", extratags=[
            (33550, "d", 3, (metres, metres, 0.0)),
            (33922, "d", 6, (0.0, 0.0, 0.0, x, y, 0.0)),
            (34735, "H", len(keys), keys),
        ],
    )  # fmt: skip


def count_people() -> None:
    """People in a square of a synthetic crowd, with an interval."""
    hand = Hand()
    settings = hand.panel.run_settings
    hand.clicks += 1  # on the link, which QTest cannot aim at
    settings.image_summary.linkActivated.emit("a crowd")
    wait_until(lambda: hand.controller.state.image is not None, 120)
    hand.settle(1)
    wait_until(lambda: hand.controller.live.session is not None, 600)
    hand.click(settings.draw_button)
    hand.drag(SQUARE)
    hand.run("zoom")
    hand.click(hand.panel.ground_truth.checkbox)
    hand.settle(2)
    hand.photograph("people_truth")
    image = hand.controller.state.image
    top, left, bottom, right = SQUARE
    assert image is not None
    truth = image.source.pyramid().ground_truth((top, left, bottom - top, right - left))
    hand.report(people=None if truth is None else len(truth.points))


if __name__ == "__main__":
    job, *files = sys.argv[1:] or [""]
    jobs = {"nuclei": count_nuclei, "boats": count_boats, "people": count_people}
    if job not in jobs or len(files) != {"nuclei": 1, "boats": 2, "people": 0}[job]:
        sys.exit("usage: python docs/job_pictures.py nuclei SLIDE | boats PHOTO MODEL | people")
    files = [str(Path(file).resolve()) for file in files]
    with tempfile.TemporaryDirectory() as folder:
        os.environ["HRVIEWER_DATA"] = folder
        os.chdir(folder)
        jobs[job](*files)  # type: ignore[operator]
