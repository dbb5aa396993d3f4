"""``python -m hrviewer.viewer.demo.screenshot OUT.png``: the picture in the README, made anew."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from hrviewer.viewer.demo.window_driver import best_image, picture, set_up, wait
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

    opened = view(best_image(), "nuclei", strategy)
    opened.viewer.theme = theme
    controller = opened.controller
    controller.cache, controller.polite = ResultCache(), False
    with tempfile.TemporaryDirectory() as folder:
        set_up(opened, width, height)
        controller.start(out=Path(folder) / "picture.run.zarr")
        wait(lambda: controller.state == "idle")
        base = controller.base
        if base is not None and controller.run is not None:
            shape = controller.run.image_shape
            controller.ask(base.data_to_world([shape[0] * 0.38, shape[1] * 0.5]))
            wait(lambda: not controller.busy)
        opened.viewer.reset_view()
        picture(opened, out)
        opened.close()


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m hrviewer.viewer.demo.screenshot OUT.png")
    main(Path(sys.argv[1]))
