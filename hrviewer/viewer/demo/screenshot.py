"""``python -m hrviewer.viewer.demo.screenshot OUT.png``: the picture in the README, made anew."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from hrviewer.viewer.demo.window_driver import demo_image, screenshot, set_up_window, wait_until
from hrviewer.viewer.view import view

__all__ = ["main"]


def main(
    out: Path,
    *,
    width: int = 1600,
    height: int = 1000,
    theme: str = "dark",
    strategy: str = "patches",
) -> None:
    """Run a strategy on the best image at hand, and take the window's picture."""
    from hrviewer.engine import ResultCache

    opened = view(demo_image(), "nuclei", strategy)
    opened.viewer.theme = theme
    controller = opened.controller
    controller.cache, controller.low_priority = ResultCache(), False
    with tempfile.TemporaryDirectory() as folder:
        set_up_window(opened, width, height)
        controller.start(out=Path(folder) / "picture.run.zarr")
        wait_until(lambda: controller.state == "idle")
        base = controller.image_layer
        if base is not None and controller.run is not None:
            shape = controller.run.image_shape
            controller.inspect_patch(base.data_to_world([shape[0] * 0.38, shape[1] * 0.5]))
            wait_until(lambda: not controller.has_pending_work)
        opened.viewer.reset_view()
        screenshot(opened, out)
        opened.close()


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m hrviewer.viewer.demo.screenshot OUT.png")
    main(Path(sys.argv[1]))
