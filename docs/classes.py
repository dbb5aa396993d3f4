"""Screenshots of a classification and a segmentation in the window.

    scripts/headless.sh python docs/classes.py SLIDE [map|compare|export]...

The tiny networks of `benchmarks.class_models` run on a part of a slide stained with haematoxylin
and eosin: the U-Net with `patches` shows the map of the most likely class (classes_map.png), the
tile classifier runs with every strategy that it can use, which are compared, the others'
refusals beside them (classes_compare.png), and the form of the export (classes_export.png).
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from benchmarks.class_models import write_models
from hrviewer.geometry import Rect
from hrviewer.viewer.demo.window_driver import (
    move_camera,
    process_events_for,
    screenshot,
    set_up_window,
    wait_until,
)
from hrviewer.viewer.view import View, view

IMAGES = Path(__file__).parent / "images"
PART = Rect(0, 0, 1344, 1344)


def open_slide(slide: str, model: Path, folder: Path) -> View:
    """Open the slide with a model and the upper left part of it in view."""
    opened = view(slide, str(model))
    opened.controller.resources.run_folder = folder
    set_up_window(opened)
    move_camera(opened, PART.center, PART.h / 760)
    process_events_for(0.5)
    opened.controller.state.settings.region = "visible"
    return opened


def run(opened: View, strategy: str) -> None:
    """Run a strategy on the visible part."""
    controller = opened.controller
    controller.state.set_strategy(strategy)
    controller.run_service.start()
    wait_until(lambda: controller.state.run_state != "starting", 600)
    wait_until(lambda: controller.state.run_state == "idle", 600)


def show_tab(opened: View, name: str) -> None:
    """Show a tab of the panel."""
    panel = opened.panel
    panel.setCurrentIndex(next(i for i in range(panel.count()) if panel.tabText(i) == name))
    process_events_for(1)


def main(slide: str, *names: str) -> None:
    """Take the screenshots."""
    names = names or ("map", "compare", "export")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        models = write_models(folder / "models")
        if "map" in names:
            opened = open_slide(slide, models["unet"], folder / "unet")
            run(opened, "patches")
            legend = opened.panel.overlay_legend
            legend.rows["patches"].checkbox.setChecked(False)
            glass, *_ = legend.classes_button.menu().actions()
            glass.setChecked(False)
            process_events_for(1)
            screenshot(opened, IMAGES / "classes_map.png")
            opened.close()
        if {"compare", "export"} & {*names}:
            opened = open_slide(slide, models["tiles"], folder / "tiles")
            run(opened, "patches")
            if "export" in names:
                show_tab(opened, "Export")
                screenshot(opened, IMAGES / "classes_export.png")
            if "compare" in names:
                show_tab(opened, "Compare")
                controller = opened.controller
                controller.run_queue.start(["patches"])
                wait_until(lambda: controller.state.run_state == "idle", 900)
                process_events_for(2)
                wait_until(lambda: not controller.compare_service.is_running, 60)
                screenshot(opened, IMAGES / "classes_compare.png")
            opened.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
