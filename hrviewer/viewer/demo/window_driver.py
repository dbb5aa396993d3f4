"""Driving a real window from a script: waiting without freezing it, and taking its picture."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from hrviewer.errors import HrviewerError
from hrviewer.viewer.contributions.sample_data import sample_path

if TYPE_CHECKING:
    from hrviewer.viewer.view import View

__all__ = ["demo_image", "is_headless", "screenshot", "set_up_window", "wait_until"]

DEMO_SLIDE = Path("data/wsi/CMU-1-Small-Region.svs")


def demo_image() -> Path:
    """Return a slide from the shared data, where it is there; else a photograph that always is."""
    checkout = Path(__file__).resolve().parents[2]
    shared = Path(os.environ.get("HRVIEWER_SHARED") or checkout.parent / "shared")
    return shared / DEMO_SLIDE if (shared / DEMO_SLIDE).is_file() else sample_path("ihc.png")


def is_headless() -> bool:
    """Tell whether nobody sits before the screen: it is a virtual one."""
    return bool(os.environ.get("HRVIEWER_HEADLESS")) or "xvfb-run" in os.environ.get(
        "XAUTHORITY", ""
    )


def wait_until(condition: Callable[[], bool], seconds: float = 120.0) -> None:
    """Let the window live until something is true.

    Raises
    ------
    UserError
        If it never is.
    """
    from qtpy.QtCore import QCoreApplication, QEvent, QEventLoop

    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise HrviewerError(f"the window did not get there in {seconds:.0f} s")
        QCoreApplication.processEvents(QEventLoop.ProcessEventsFlag.AllEvents, 20)
        QCoreApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)
        time.sleep(0.005)


def process_events_for(seconds: float) -> None:
    """Let the window live for a while."""
    end = time.monotonic() + seconds
    wait_until(lambda: time.monotonic() > end, seconds + 1)


def set_up_window(view: View, width: int = 1600, height: int = 1000) -> None:
    """Give the window a size, the image its place, and wait until both are drawn."""
    view.viewer.window.resize(width, height)
    process_events_for(0.5)
    view.viewer.canvas.overlays.scale_bar.visible = view.controller.image_layer is not None and (
        str(view.controller.image_layer.units[-1]) != "pixel"
    )
    view.viewer.reset_view()
    process_events_for(0.3)


def screenshot(view: View, path: Path) -> None:
    """Save a picture of the whole window."""
    process_events_for(0.3)
    path.parent.mkdir(parents=True, exist_ok=True)
    view.viewer.window.screenshot(str(path), canvas_only=False, flash=False)
