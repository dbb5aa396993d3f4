"""Pictures of a detector in the window: Live, Compare and Export.

    scripts/headless.sh python docs/detector.py IMAGE MODEL

Writes docs/images/detector_live.webp, detector_compare.webp and detector_export.webp.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image

from hrviewer.viewer.demo.window_driver import (
    grab,
    move_camera,
    process_events_for,
    set_up_window,
    wait_until,
)
from hrviewer.viewer.view import View, view

IMAGES = Path(__file__).parent / "images"
RUNS: list[tuple[str, dict[str, Any], str]] = [
    ("patches", {}, ""),
    ("patches", {"halo": 0}, ""),
    ("uniform", {}, "80%"),
    ("zoom", {}, "80%"),
]
"""Strategies, parameters and budgets."""


def main(image: str, model: str) -> None:
    """Run a detector in the window, live and with every strategy that needs it alone."""
    opened = view(image, model, "patches")
    set_up_window(opened)
    controller, state = opened.controller, opened.controller.state
    layer = controller.image_layer
    assert layer is not None
    h, w = layer.data.shape[:2]

    controller.live.set_enabled(True)
    move_camera(opened, (h / 2, w * 0.6), 0.9)
    process_events_for(1)
    live = controller.live
    wait_until(lambda: live.session is not None or not live.enabled, 300)
    wait_until(lambda: live.session is None or not live.session.pending, 600)
    settle(opened)
    picture(opened, "live")
    controller.live.set_enabled(False)

    with tempfile.TemporaryDirectory() as folder:
        for number, (strategy, params, budget) in enumerate(RUNS):
            state.set_strategy(strategy)
            state.settings.params, state.settings.budget = params, budget
            controller.run_service.start(out=Path(folder) / f"{number}.run.zarr")
            wait_until(lambda: state.run_state != "starting", 600)
            wait_until(lambda: state.run_state == "idle", 1800)
        opened.viewer.reset_view()
        show_tab(opened, "Compare")
        service = controller.compare_service
        wait_until(lambda: service.is_ready and not service.is_running, 600)
        opened.panel.compare_tab.select_run(service.entries[0], add=False)
        settle(opened)
        picture(opened, "compare")
        show_tab(opened, "Export")
        settle(opened)
        opened.panel.export_tab.path.setText("boats.geojson")
        process_events_for(0.5)
        picture(opened, "export")
        opened.close()


def show_tab(opened: View, title: str) -> None:
    """Show a tab of the panel."""
    panel = opened.panel
    panel.setCurrentIndex(next(i for i in range(panel.count()) if panel.tabText(i) == title))


def settle(opened: View) -> None:
    """Wait until nothing is read or drawn."""
    process_events_for(2)
    wait_until(lambda: not opened.controller.has_pending_work, 600)
    process_events_for(2)


def picture(opened: View, name: str) -> None:
    """Save the window."""
    pixels = grab(opened)[..., :3]
    Image.fromarray(pixels).save(IMAGES / f"detector_{name}.webp", quality=80)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python docs/detector.py IMAGE MODEL")
    main(*sys.argv[1:])
