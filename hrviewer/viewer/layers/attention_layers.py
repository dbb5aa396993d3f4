"""Attention on the screen: three layers, hidden at first.

Where one of them is shown, a click on a token shows its attention, and that of its region.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from napari.layers import Image
from numpy.typing import NDArray

from hrviewer.app.maps.attention_map import Attention
from hrviewer.viewer.image.image_layer import KEY, placement
from hrviewer.viewer.layers.feature_layers import Companion

__all__ = ["Attending"]


class Attending(Companion):
    """The layers of an image's attention.

    Parameters
    ----------
    base : Image
        What was looked at.
    attention : Attention
        What is shown.
    like : Attending, optional
        Those before them: what was shown stays shown.
    """

    def __init__(self, base: Image, attention: Attention, like: Attending | None = None) -> None:
        super().__init__()
        self.attention, self._base = attention, base
        before = [layer.visible for layer in like or ()] or [False] * 3
        said = "%s, over the most"
        self.merged = self._layer("merged", attention.merged, "one colour: one token", before[0])
        self.taken = self._layer("attended", attention.taken, said % "taken by all", before[1])
        self.looks = self._layer(
            "attention", attention.looks, said % "taken by the token clicked", before[2]
        )

    def _layer(self, name: str, data: NDArray[Any], unit: str, visible: bool) -> Image:
        scale: dict[str, Any] = {"colormap": "magma", "contrast_limits": (0.0, 1.0)}
        return Image(
            data,
            rgb=data.ndim == 3,
            name=name,
            visible=visible,
            opacity=0.7,
            interpolation2d="nearest",
            blending="translucent_no_depth",
            metadata={KEY: {"overlay": name, "unit": unit}},
            **(scale if data.ndim == 2 else {}),
            **placement(self._base, self.attention.cell),
        )

    def __iter__(self) -> Iterator[Image]:
        """All layers, the lowest first."""
        yield self.merged
        yield self.taken
        yield self.looks

    @property
    def asked(self) -> bool:
        """Whether somebody looks at one of them."""
        return any(layer.visible for layer in self)

    def refresh(self) -> None:
        """Bring onto the screen what is new."""
        if not self.attention.changed:
            return
        self.attention.changed = False
        self._redraw()
