"""Driver of a real window for scripts: waiting without freezing it, its camera, its screenshots."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hrviewer.errors import HrviewerError

if TYPE_CHECKING:
    from hrviewer.viewer.view import View

__all__ = [
    "grab",
    "is_headless",
    "move_camera",
    "process_events_for",
    "screenshot",
    "set_up_window",
    "use_text_size",
    "wait_until",
]


def is_headless() -> bool:
    """Whether the screen is a virtual one (`scripts/headless.sh` sets ``HRVIEWER_HEADLESS``)."""
    return bool(os.environ.get("HRVIEWER_HEADLESS"))


def wait_until(
    condition: Callable[[], bool],
    seconds: float = 120.0,
    meanwhile: Callable[[], None] = lambda: None,
) -> None:
    """Process events until a condition holds.

    Parameters
    ----------
    condition : callable
        Checked about 100 times a second.
    seconds : float
        Time limit.
    meanwhile : callable
        Called after each check.

    Raises
    ------
    HrviewerError
        If the time limit is exceeded.
    """
    from hrviewer.viewer.widgets.window import process_events

    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise HrviewerError(f"the window was not ready within {seconds:.0f} s")
        process_events()
        time.sleep(0.005)
        meanwhile()


def process_events_for(seconds: float) -> None:
    """Process events for a while."""
    end = time.monotonic() + seconds
    wait_until(lambda: time.monotonic() > end, seconds + 1)


def use_text_size(points: int) -> None:
    """Set the size of napari's text, in a process that has no window yet.

    Pages show pictures smaller than they are. The user's settings are neither read nor changed.
    """
    from napari.settings import get_settings

    get_settings(None).appearance.font_size = points


def set_up_window(view: View, width: int = 1600, height: int = 1000) -> None:
    """Resize the window, fit the image, and wait until both are drawn."""
    view.viewer.window.resize(width, height)
    process_events_for(0.5)
    view.viewer.canvas.overlays.scale_bar.visible = view.controller.image_layer is not None and (
        str(view.controller.image_layer.units[-1]) != "pixel"
    )
    view.viewer.reset_view()
    process_events_for(0.3)


def move_camera(view: View, centre: tuple[float, float], pixel: float) -> None:
    """Centre the camera on a pixel of the image.

    Parameters
    ----------
    view : View
        The window.
    centre : tuple of float
        Level-0 pixels, ``(y, x)``.
    pixel : float
        Level-0 pixels per screen pixel.
    """
    layer = view.controller.image_layer
    assert layer is not None
    camera = view.viewer.scene.camera
    camera.center = tuple(layer.data_to_world(centre))[-2:]
    camera.zoom = 1 / (pixel * abs(layer.scale[-1]))


def grab(view: View, *, canvas: bool = False) -> NDArray[np.uint8]:
    """Return a screenshot of the window, or of its canvas, ``(h, w, 4)``."""
    if canvas:
        pixels: Any = view.viewer.screenshot(canvas_only=True, flash=False)
    else:
        pixels = view.viewer.window.screenshot(canvas_only=False, flash=False)
    return np.asarray(pixels, np.uint8)


def screenshot(view: View, path: Path) -> None:
    """Save a screenshot of the whole window."""
    process_events_for(0.3)
    path.parent.mkdir(parents=True, exist_ok=True)
    view.viewer.window.screenshot(str(path), canvas_only=False, flash=False)
