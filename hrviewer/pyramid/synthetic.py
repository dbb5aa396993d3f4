"""Synthetic images: rendered on request at any scale, with exact ground truth."""

from __future__ import annotations

from abc import ABC, abstractmethod
from importlib.metadata import entry_points
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from hrviewer.errors import ParameterError
from hrviewer.extensions import load_extension
from hrviewer.geometry import Rect
from hrviewer.ground_truth import GroundTruth

__all__ = ["GROUP", "SyntheticImage", "make_synthetic_image", "synthetic_image_names"]

GROUP = "hrviewer.samples"
"""Entry points whose value is a `SyntheticImage`, and whose name is that in ``sample:NAME``."""

SIZE_RANGE = (1024, 262_144)
"""Smallest and largest side in pixels."""

SIZE_STEP = 256
"""The side is a multiple of this, so that halving it to an overview leaves no remainder."""

SEED_COUNT = 12_000


class SyntheticImage(ABC):
    """One synthetic image.

    Subclasses take ``(size, seed)``, are made in no time, and are thread-safe. Every pixel and
    every object depends on `size`, `seed` and `version` only, never on earlier requests.

    Parameters
    ----------
    size : int
        Side in level-0 pixels.
    seed : int
        0–9999 for training, 10000–10999 for validation, 11100–11899 for published tables.

    Attributes
    ----------
    title : str
        Title for the user.
    classes : tuple of str
        Classes of the objects.
    pixel_size : float or None
        µm per pixel.
    version : int
        Incremented whenever a pixel or an object changes; part of the fingerprint.
    """

    title: ClassVar[str]
    classes: ClassVar[tuple[str, ...]]
    pixel_size: ClassVar[float | None] = None
    version: ClassVar[int]

    def __init__(self, size: int, seed: int) -> None:
        self.size, self.seed = size, seed

    @abstractmethod
    def render(self, rect: Rect, scale: int) -> NDArray[np.uint8]:
        """Return the pixels of a rectangle.

        Parameters
        ----------
        rect : Rect
            Inside the image; its corner is a multiple of `scale`.
        scale : int
            A power of two: level-0 pixels per pixel.

        Returns
        -------
        ndarray of uint8, shape (h, w, 3)
            ``ceil(rect.h / scale)`` rows: the box-filtered full resolution, within 2 grey levels
            on average.
        """

    @abstractmethod
    def ground_truth(self, rect: Rect) -> GroundTruth:
        """Return the objects whose point lies in `rect`, with their boxes."""

    @abstractmethod
    def labels(self, rect: Rect) -> NDArray[np.int32]:
        """Return the instance map at full resolution, ``(h, w)``: 0, or 1 + an object's index.

        The index is that in ``ground_truth(rect)`` if the object's point lies in `rect`; parts of
        other objects get numbers beyond ``len(ground_truth(rect))``.
        """


def synthetic_image_names() -> list[str]:
    """Return the names of the installed synthetic images."""
    return sorted({entry.name for entry in entry_points(group=GROUP)})


def make_synthetic_image(name: str, size: int = 8192, seed: int = 0) -> SyntheticImage:
    """Make a synthetic image.

    Parameters
    ----------
    name : str
        One of `synthetic_image_names`.
    size : int
        Side in pixels, a multiple of 256 from 1024 to 262144.
    seed : int
        0 to 11999.

    Raises
    ------
    ParameterError
        If there is no such image, size or seed.

    Examples
    --------
    >>> image = make_synthetic_image("crowd", size=4096, seed=3)  # doctest: +SKIP
    >>> people = image.ground_truth(Rect(0, 0, 4096, 4096))  # doctest: +SKIP
    """
    installed = {entry.name: entry for entry in entry_points(group=GROUP)}
    if name not in installed:
        names = ", ".join(sorted(installed)) or "none; install hrviewer-samples"
        raise ParameterError(f"there is no synthetic image {name!r}; installed: {names}")
    low, high = SIZE_RANGE
    if not low <= size <= high or size % SIZE_STEP:
        raise ParameterError(
            f"the size of a synthetic image is a multiple of {SIZE_STEP} from {low} to {high}, "
            f"not {size}"
        )
    if not 0 <= seed < SEED_COUNT:
        raise ParameterError(
            f"there is no seed {seed}: 0 to 9999 are for training, 10000 to 10999 for validation, "
            "11100 to 11899 for published tables, and there are no more than 11999"
        )
    kind: type[SyntheticImage] = load_extension(
        installed[name], "the synthetic image", ParameterError
    )
    return kind(size, seed)
