"""Codes on the screen: their colours, and what looks like a place that was clicked.

Both layers are hidden at first. Where the colours are shown, a click shows what looks like there.
"""

from __future__ import annotations

from collections.abc import Iterator

from napari.layers import Image

from hrviewer.app.maps.embedding_map import Codes
from hrviewer.viewer.image.image_layer import KEY, placement
from hrviewer.viewer.layers.feature_layers import Companion

__all__ = ["Coded"]


class Coded(Companion):
    """The layers of an image's codes.

    Parameters
    ----------
    base : Image
        What was encoded.
    codes : Codes
        What is shown.
    like : Coded, optional
        Those before them: what was shown stays shown.
    """

    def __init__(self, base: Image, codes: Codes, like: Coded | None = None) -> None:
        super().__init__()
        self.codes = codes
        place = placement(base, codes.cell)
        self.colours: Image = Image(
            codes.colours,
            rgb=True,
            name="codes",
            visible=like is not None and like.colours.visible,
            opacity=0.9,
            interpolation2d="nearest",
            blending="translucent_no_depth",
            metadata={KEY: {"overlay": "codes"}},
            **place,
        )
        self.alike: Image = Image(
            codes.alike,
            name="alike",
            visible=False,
            colormap="viridis",
            contrast_limits=(0.0, 1.0),
            opacity=0.8,
            interpolation2d="nearest",
            blending="translucent_no_depth",
            metadata={KEY: {"overlay": "alike", "unit": "likeness to the place that was clicked"}},
            **place,
        )

    def __iter__(self) -> Iterator[Image]:
        """Both layers, the lower one first."""
        yield self.colours
        yield self.alike

    def refresh(self) -> None:
        """Bring onto the screen what is new."""
        if not self.codes.changed:
            return
        self.codes.changed = False
        if self.codes.found:
            self.codes.found = False
            self.alike.visible = True
        self._redraw()
