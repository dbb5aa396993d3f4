"""Screenshot of the window after a run: the picture in the README.

python -m hrviewer.viewer.demo.screenshot OUT.png [IMAGE]
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from hrviewer.viewer.contributions.sample_data import sample_path
from hrviewer.viewer.demo.window_driver import (
    screenshot,
    set_up_window,
    use_text_size,
    wait_until,
)
from hrviewer.viewer.view import view

__all__ = ["main"]


def main(
    out: Path,
    image: str | Path | None = None,
    *,
    width: int = 1280,
    height: int = 960,
    points: int = 12,
    theme: str = "dark",
    strategy: str = "patches",
) -> None:
    """Run a strategy on an image, by default a photograph, and save a screenshot of the window."""
    from hrviewer.engine import ResultCache

    use_text_size(points)
    with tempfile.TemporaryDirectory() as folder:
        opened = view(sample_path("ihc.png") if image is None else image, "nuclei", strategy)
        opened.viewer.theme = theme
        controller = opened.controller
        controller.resources.cache, controller.resources.low_priority = ResultCache(), False
        set_up_window(opened, width, height)
        controller.run_service.start(out=Path(folder) / "picture.run.zarr")
        wait_until(lambda: controller.state.run_state == "idle", 900)
        layer = controller.image_layer
        if layer is not None and controller.state.run is not None:
            shape = controller.state.run.image_shape
            controller.inspect_patch(layer.data_to_world([shape[0] * 0.38, shape[1] * 0.5]))
            wait_until(lambda: not controller.has_pending_work, 300)
        opened.viewer.reset_view()
        screenshot(opened, out)
        opened.close()


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit("usage: python -m hrviewer.viewer.demo.screenshot OUT.png [IMAGE]")
    main(Path(sys.argv[1]), *sys.argv[2:])
