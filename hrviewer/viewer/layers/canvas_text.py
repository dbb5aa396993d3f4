"""Line of text on the canvas: speed and progress of Live."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hrviewer.app.maps.live_summary import wrap_text
from hrviewer.app.state import AppState

if TYPE_CHECKING:
    from napari.components import ViewerModel

__all__ = ["CanvasText"]

CHARACTER_WIDTH = 1.0
"""Width of a character per size of its font, about; screen pixels."""


class CanvasText:
    """Displays `AppState.hud_changed` in napari's text overlay.

    Parameters
    ----------
    viewer : ViewerModel
        The viewer.
    state : AppState
        Emits the text.
    """

    def __init__(self, viewer: ViewerModel, state: AppState) -> None:
        self._viewer, self._shown = viewer, False
        state.hud_changed.connect(self._show)

    def close(self) -> None:
        """Take the text off the canvas."""
        self._show("")

    def _show(self, line: str) -> None:
        if not line and not self._shown:
            return  # a text that is there is not ours
        self._shown = bool(line)
        canvas = self._viewer.canvas
        text = canvas.overlays.text
        if line:
            text.text = wrap_text(line, int(canvas.size[1] / (CHARACTER_WIDTH * text.font_size)))
            text.position = "bottom_left"  # legends are above, the scale bar is on the right
        if text.visible != bool(line):
            text.visible = bool(line)
