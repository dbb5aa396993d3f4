"""Pictures of a classifier, a segmentation and a detector in the window: Live, Compare and Export.

    scripts/headless.sh python docs/task_pictures.py tiles|unet SLIDE
    scripts/headless.sh python docs/task_pictures.py detector PHOTO MODEL

`tiles` and `unet` are the networks of `benchmarks.class_models`, on a part of a slide stained with
haematoxylin and eosin. Each model runs with every strategy that it can use; Compare names the
others, with the roles that they need. Writes docs/images/NAME_live.webp, NAME_compare.webp and
NAME_export.webp.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from PIL import Image

from benchmarks.class_models import write_models
from hrviewer.viewer.demo.window_driver import (
    grab,
    move_camera,
    process_events_for,
    set_up_window,
    wait_until,
)
from hrviewer.viewer.view import View, view

IMAGES = Path(__file__).parent / "images"
SIZE = 1400, 900
"""Of the window, in pixels."""

PLACES = {"tiles": ((1680, 1200), 1.3), "unet": ((1400, 1250), 1.0), "detector": ((540, 1150), 0.9)}
"""Centre of the view, and level-0 pixels per screen pixel."""

BUDGET = "80%"
"""Of the strategies besides `patches`: these models cost little more than a saliency."""


def main(name: str, image: str, model: str = "") -> None:
    """Take the pictures of one model."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        model = model or str(write_models(folder / "models")[name])
        opened = view(image, model, "patches")
        opened.controller.resources.run_folder = folder / "runs"
        set_up_window(opened, *SIZE)
        opened.panel.arrange()
        move_camera(opened, *PLACES[name])
        show_live(opened)
        save(opened, name, "live")
        opened.controller.live.set_enabled(False)
        run_all(opened, "whole" if name == "detector" else "visible")
        if name == "detector":
            opened.viewer.reset_view()
        compare(opened)
        save(opened, name, "compare")
        export(opened, f"{name}.geojson")
        save(opened, name, "export")
        opened.close()


def show_live(opened: View) -> None:
    """Switch Live on, and wait until the view is done."""
    live = opened.controller.live
    live.set_enabled(True)
    wait_until(lambda: live.session is not None or not live.enabled, 300)
    process_events_for(1)
    wait_until(lambda: live.session is None or not live.session.pending, 600)


def run_all(opened: View, region: str) -> None:
    """Run `patches` without a limit, and the other strategies that the model has networks for."""
    controller, state = opened.controller, opened.controller.state
    state.settings.region = region
    controller.run_service.start()
    wait_until(lambda: state.run_state != "starting", 600)
    wait_until(lambda: state.run_state == "idle", 1800)
    state.settings.budget = BUDGET
    controller.run_queue.start(["patches"])
    wait_until(lambda: not controller.run_queue.is_running, 3600)
    wait_until(lambda: state.run_state == "idle", 600)


def compare(opened: View) -> None:
    """Show the runs, and the overlays of `patches`."""
    show_tab(opened, "Compare")
    service = opened.controller.compare_service
    wait_until(lambda: service.is_ready and not service.is_running, 600)
    exhaustive = next(entry for entry in service.entries if entry.strategy == "patches")
    opened.panel.compare_tab.select_run(exhaustive, add=False)


def export(opened: View, name: str) -> None:
    """Show the form of an export to GeoJSON."""
    show_tab(opened, "Export")
    settle(opened)
    opened.panel.export_tab.path.setText(name)


def show_tab(opened: View, title: str) -> None:
    """Show a tab of the panel."""
    panel = opened.panel
    panel.setCurrentIndex(next(i for i in range(panel.count()) if panel.tabText(i) == title))


def settle(opened: View) -> None:
    """Wait until nothing is read or drawn."""
    process_events_for(2)
    wait_until(lambda: not opened.controller.has_pending_work, 600)
    process_events_for(2)


def save(opened: View, name: str, what: str) -> None:
    """Save the window once it is drawn."""
    settle(opened)
    pixels = grab(opened)[..., :3]
    Image.fromarray(pixels).save(IMAGES / f"{name}_{what}.webp", quality=85, method=6)


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4) or sys.argv[1] not in PLACES:
        sys.exit("usage: python docs/task_pictures.py tiles|unet|detector IMAGE [MODEL]")
    main(*sys.argv[1:])
