"""Names of the classes of a map on the canvas, each in its colour."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from napari.components.overlays import TextOverlay

from hrviewer.io.geojson import class_colors

if TYPE_CHECKING:
    from napari.components import ViewerModel

__all__ = ["ClassLegend"]

MAX_LINES = 12
"""Classes that are listed; of more, the last line has the number of the others."""


class ClassLegend:
    """Lines of text in the lower right corner of the canvas: napari's colour bar has numbers only.

    Parameters
    ----------
    viewer : ViewerModel
        The viewer.
    owner : str
        Whose legend it is; each owner has lines of its own.
    """

    def __init__(self, viewer: ViewerModel, owner: str) -> None:
        self._viewer, self._owner = viewer, owner

    @property
    def lines(self) -> list[str]:
        """The visible lines from top to bottom."""
        return [line.text for line in reversed(self._lines()) if line.visible]

    def show(self, classes: Sequence[str], hidden: Collection[int] = ()) -> None:
        """Show the classes without those that are hidden; none clears the legend."""
        colours = class_colors(classes)
        listed: list[tuple[str, tuple[float, ...] | None]] = [
            (f"■ {name}", tuple(part / 255 for part in colour))
            for i, (name, colour) in enumerate(zip(classes, colours, strict=True))
            if i not in hidden
        ]
        if len(listed) > MAX_LINES:
            others = len(listed) - MAX_LINES + 1
            listed[MAX_LINES - 1 :] = [(f"and {others:,} more", None)]
        listed.reverse()  # napari stacks them from below
        overlays = self._viewer.canvas.overlays
        for i in range(len(self._lines()), len(listed)):
            overlays[self._key(i)] = TextOverlay(position="bottom_right", box=True)
        for i, line in enumerate(self._lines()):
            if i < len(listed):
                line.text, line.color = listed[i]
            if line.visible != (i < len(listed)):
                line.visible = i < len(listed)

    def _lines(self) -> list[TextOverlay]:
        """The lines that were made, from the lowest."""
        overlays = self._viewer.canvas.overlays
        keys = (self._key(i) for i in range(MAX_LINES))
        return [overlays[key] for key in keys if key in overlays]

    def _key(self, line: int) -> str:
        return f"_hrviewer_{self._owner}_class_{line}"
