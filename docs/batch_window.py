"""Picture of a batch in the window.

    scripts/headless.sh python docs/batch_window.py [FOLDER|TABLE]

Writes docs/images/batch.png: the tab Slides after a batch by zoom, an image open with its overlays.
By default of ten synthetic sections.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from hrviewer.viewer.demo.window_driver import (
    process_events_for,
    screenshot,
    set_up_window,
    use_text_size,
    wait_until,
)
from hrviewer.viewer.view import view

OUT = Path(__file__).parent / "images" / "batch.png"
SECTIONS = [f"sample:tissue?size=2048&seed={seed}" for seed in range(10100, 10110)]


def main(source: Path) -> None:
    """Run a batch in the window, open its second image, and save a screenshot."""
    use_text_size(12)
    opened = view(None, "nuclei", "zoom")
    controller, tab = opened.controller, opened.panel.slide_tab
    slides, batch = controller.slide_list, controller.batch_service
    set_up_window(opened, 1280, 960)
    opened.panel.setCurrentWidget(tab)
    slides.open(source)
    wait_until(lambda: bool(slides.slides))
    tab.batch_form.run_button.click()
    wait_until(lambda: not batch.is_running, 1800)
    controller.run_loader.open(Path(batch.rows[slides.slides[1].path]["run"]))
    wait_until(lambda: controller.state.run is not None and not controller.has_pending_work, 300)
    opened.viewer.reset_view()
    process_events_for(2.0)
    screenshot(opened, OUT)
    opened.close()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        os.environ["HRVIEWER_DATA"] = folder
        table = Path(folder) / "sections.csv"
        table.write_text("\n".join(["image", *SECTIONS]))
        main(Path(sys.argv[1]) if len(sys.argv) > 1 else table)
