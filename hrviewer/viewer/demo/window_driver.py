"""Driving a real window from a script: waiting without freezing it, and taking its picture."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from hrviewer.errors import UserError
from hrviewer.viewer.contributions.sample_data import sample_path

if TYPE_CHECKING:
    from hrviewer.viewer.view import View

__all__ = ["best_image", "picture", "set_up", "unattended", "wait"]

SLIDE = Path("data/wsi/CMU-1-Small-Region.svs")


def best_image() -> Path:
    """Return a slide from the shared data, where it is there; else a photograph that always is."""
    checkout = Path(__file__).resolve().parents[2]
    shared = Path(os.environ.get("HRVIEWER_SHARED") or checkout.parent / "shared")
    return shared / SLIDE if (shared / SLIDE).is_file() else sample_path("ihc.png")


def unattended() -> bool:
    """Tell whether nobody sits before the screen: it is a virtual one."""
    return bool(os.environ.get("HRVIEWER_HEADLESS")) or "xvfb-run" in os.environ.get(
        "XAUTHORITY", ""
    )


def wait(until: Callable[[], bool], seconds: float = 120.0) -> None:
    """Let the window live until something is true.

    Raises
    ------
    UserError
        If it never is.
    """
    from qtpy.QtCore import QCoreApplication, QEvent, QEventLoop

    end = time.monotonic() + seconds
    while not until():
        if time.monotonic() > end:
            raise UserError(f"the window did not get there in {seconds:.0f} s")
        QCoreApplication.processEvents(QEventLoop.ProcessEventsFlag.AllEvents, 20)
        QCoreApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)
        time.sleep(0.005)


def rest(seconds: float) -> None:
    """Let the window live for a while."""
    end = time.monotonic() + seconds
    wait(lambda: time.monotonic() > end, seconds + 1)


def set_up(view: View, width: int = 1600, height: int = 1000) -> None:
    """Give the window a size, the image its place, and wait until both are drawn."""
    view.viewer.window.resize(width, height)
    rest(0.5)
    view.viewer.canvas.overlays.scale_bar.visible = view.controller.base is not None and (
        str(view.controller.base.units[-1]) != "pixel"
    )
    view.viewer.reset_view()
    rest(0.3)


def picture(view: View, path: Path) -> None:
    """Save a picture of the whole window."""
    rest(0.3)
    path.parent.mkdir(parents=True, exist_ok=True)
    view.viewer.window.screenshot(str(path), canvas_only=False, flash=False)
