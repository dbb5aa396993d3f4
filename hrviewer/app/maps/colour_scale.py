"""Colour scales: what the ends of colours stand for, one for each quantity on an image.

A scale follows the values while a first result fills in. From then on it is held, so that a colour
means the same for every strategy, model and magnification, until the user releases or edits it.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ColourScale", "ColourScales"]


@dataclass(eq=False)
class ColourScale:
    """Ends of the colours of one quantity.

    Parameters
    ----------
    limits : tuple of float
        Values at the low and the high end, in the quantity's unit.
    held : bool
        Whether the limits stay; otherwise they follow the displayed values in round steps.
    fitted : bool
        Whether the limits come from values, from the quantity itself or from the user.
    released : bool
        Whether the user lets the limits follow the values.
    """

    limits: tuple[float, float] = (0.0, 1.0)
    held: bool = False
    fitted: bool = False
    released: bool = False

    def follow(self, limits: tuple[float, float]) -> bool:
        """Take the limits of displayed values, unless they are held; return whether they moved."""
        if self.held:
            return False
        self.fitted = True
        moved, self.limits = limits != self.limits, limits
        return moved

    def settle(self) -> None:
        """Hold the limits once a result is complete, unless the user released them."""
        self.held = self.held or (self.fitted and not self.released)

    def hold(self, limits: tuple[float, float] | None = None) -> None:
        """Hold the limits, or the given ones."""
        self.limits = self.limits if limits is None else limits
        self.held, self.fitted, self.released = True, True, False

    def release(self) -> None:
        """Let the limits follow the displayed values again."""
        self.held, self.released = False, True


class ColourScales:
    """The colour scales of an image, by map and unit."""

    def __init__(self) -> None:
        self._scales: dict[tuple[str, str], ColourScale] = {}

    def share(self, name: str, unit: str, scale: ColourScale) -> ColourScale:
        """Return the image's scale of a map in a unit; the given one becomes it if it is new."""
        return self._scales.setdefault((name, unit), scale)
