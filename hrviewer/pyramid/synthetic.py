"""Procedural scenes: images that are computed where they are looked at, and know their truth."""

from __future__ import annotations

from abc import ABC, abstractmethod
from importlib.metadata import entry_points
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from hrviewer.errors import ParameterError
from hrviewer.geometry import Rect
from hrviewer.ground_truth import GroundTruth

__all__ = ["GROUP", "SyntheticImage", "make_synthetic_image", "synthetic_image_names"]

GROUP = "hrviewer.samples"
"""Entry points whose value is a `Recipe`; their name is what ``sample:NAME`` asks for."""

SIZE_RANGE = (1024, 262_144)
"""The smallest and the largest side of a scene."""

SIZE_STEP = 256
"""A side is a multiple of this, so that halving it to an overview leaves no remainder."""

SEED_COUNT = 12_000


class SyntheticImage(ABC):
    """One scene.

    Subclasses take ``(size, seed)``, cost next to nothing to make, and are thread-safe. Every
    pixel and every object depends on `size`, `seed` and `version` only, never on what was asked
    for before.

    Parameters
    ----------
    size : int
        Side in level-0 pixels.
    seed : int
        0–9999 train, 10000–10999 choose, 11000–11999 test.

    Attributes
    ----------
    title : str
        What a person reads.
    classes : tuple of str
        Of its objects.
    pixel_size : float or None
        µm per pixel.
    version : int
        Raised whenever a pixel or an object changes: part of the fingerprint.
    """

    title: ClassVar[str]
    classes: ClassVar[tuple[str, ...]]
    pixel_size: ClassVar[float | None] = None
    version: ClassVar[int]

    def __init__(self, size: int, seed: int) -> None:
        self.size, self.seed = size, seed

    @abstractmethod
    def render(self, rect: Rect, scale: int) -> NDArray[np.uint8]:
        """Return what is seen in a rectangle.

        Parameters
        ----------
        rect : Rect
            Inside the scene; its corner is a multiple of `scale`.
        scale : int
            A power of two: level-0 pixels per pixel.

        Returns
        -------
        ndarray of uint8, shape (h, w, 3)
            ``ceil(rect.h / scale)`` rows; what a box filter makes of the full resolution, within
            2 grey levels on average.
        """

    @abstractmethod
    def ground_truth(self, rect: Rect) -> GroundTruth:
        """Return the objects whose point lies in `rect`, with their boxes."""

    @abstractmethod
    def labels(self, rect: Rect) -> NDArray[np.int32]:
        """Return the objects' instance map at full resolution, ``(h, w)``: 0, or 1 + an index.

        The index is that of ``truth(rect)`` where the object's point lies in `rect`; parts of
        objects whose point lies outside get numbers beyond ``len(truth(rect))``.
        """


def synthetic_image_names() -> list[str]:
    """Return the scenes that are installed."""
    return sorted({entry.name for entry in entry_points(group=GROUP)})


def make_synthetic_image(name: str, size: int = 8192, seed: int = 0) -> SyntheticImage:
    """Make a scene.

    Parameters
    ----------
    name : str
        One of `recipe_names`.
    size : int
        Side in pixels, a multiple of 256 from 1024 to 262144.
    seed : int
        0 to 11999.

    Raises
    ------
    UserError
        If there is no such scene, size or seed.
    """
    found = {entry.name: entry for entry in entry_points(group=GROUP)}
    if name not in found:
        there = ", ".join(sorted(found)) or "none is installed; install hrviewer-samples"
        raise ParameterError(f"there is no scene {name!r}; there are: {there}")
    low, high = SIZE_RANGE
    if not low <= size <= high or size % SIZE_STEP:
        raise ParameterError(
            f"a scene's size is a multiple of {SIZE_STEP} from {low} to {high}, not {size}"
        )
    if not 0 <= seed < SEED_COUNT:
        raise ParameterError(
            f"there is no seed {seed}: 0 to 9999 are for training, 10000 to 10999 for choosing, "
            "11000 to 11999 for testing"
        )
    try:
        kind: type[SyntheticImage] = found[name].load()
    except Exception as error:
        raise ParameterError(f"the scene {name!r} cannot be loaded: {error}") from error
    return kind(size, seed)
