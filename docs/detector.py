"""Pictures of a detector in the window: Live, Compare and Export.

    scripts/headless.sh python docs/detector.py IMAGE MODEL

Writes docs/images/detector_live.webp, detector_compare.webp and detector_export.webp.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

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
STRATEGIES = "patches", "uniform", "zoom"


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
    session = controller.live.session
    wait_until(lambda: session is None or not session.pending, 600)
    settle(opened)
    picture(opened, "live")
    controller.live.set_enabled(False)

    with tempfile.TemporaryDirectory() as folder:
        for strategy in STRATEGIES:
            state.set_strategy(strategy)
            controller.run_service.start(out=Path(folder) / f"{strategy}.run.zarr")
            wait_until(lambda: state.run_state != "starting", 600)
            wait_until(lambda: state.run_state == "idle", 1800)
        opened.viewer.reset_view()
        show_tab(opened, "Compare")
        service = controller.compare_service
        wait_until(lambda: service.is_ready and not service.is_running, 600)
        entries = {entry.strategy: entry for entry in service.entries}
        opened.panel.compare_tab.select_run(entries["patches"], add=False)
        settle(opened)
        picture(opened, "compare")
        show_tab(opened, "Export")
        settle(opened)
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
