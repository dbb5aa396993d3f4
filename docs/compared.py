"""Screenshot of a comparison in the window: four runs side by side, and the plot.

    scripts/headless.sh python docs/compared.py IMAGE MODEL DIR [STRATEGY...]

IMAGE is the image of `hrviewer compare`, DIR its output. Writes docs/images/compare_window.png.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from hrviewer.viewer.demo.window_driver import (
    screenshot,
    set_up_window,
    use_text_size,
    wait_until,
)
from hrviewer.viewer.view import view


def main(image: str, model: str, folder: str, *names: str) -> None:
    """Open the image, select runs of these strategies, and take the screenshot."""
    use_text_size(12)
    with tempfile.TemporaryDirectory() as empty:
        opened = view(image, model)
        controller, panel = opened.controller, opened.panel
        comparison = controller.compare_service
        controller.resources.run_folder = Path(empty)
        set_up_window(opened, 1280, 800)
        tab = next(i for i in range(panel.count()) if panel.tabText(i) == "Compare")
        panel.setCurrentIndex(tab)
        comparison.add_folder(Path(folder))
        wait_until(lambda: comparison.is_ready and not comparison.is_running)
        runs = {entry.strategy: entry for entry in comparison.entries}
        for i, name in enumerate(names or [*runs][:4]):
            panel.widget(tab).select_run(runs[name], add=bool(i))
        map_box = panel.widget(tab).map_box
        map_box.setCurrentText("Cost")
        map_box.activated.emit(map_box.currentIndex())
        panel.widget(tab).grid_button.click()
        layers = controller.comparison
        wait_until(lambda: layers.grid is not None and layers.grid.is_ready)
        screenshot(opened, Path(__file__).parent / "images" / "compare_window.png")
        opened.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
