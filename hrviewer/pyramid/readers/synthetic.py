"""Procedural scenes as images: ``sample:NAME?size=131072&seed=3``.

Every level is rendered where it is looked at; nothing is stored.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Self
from urllib.parse import parse_qsl

import numpy as np

from hrviewer.errors import HrviewerError
from hrviewer.geometry import Rect
from hrviewer.pyramid import fingerprint
from hrviewer.pyramid.readers.base import Reader, select_channels, select_plane
from hrviewer.pyramid.synthetic import SyntheticImage, make_synthetic_image
from hrviewer.pyramid.tile_cache import DecodedTile

__all__ = ["SyntheticReader"]

SCHEME = "sample:"
TILE = 512
MAX_COARSEST_SIDE = 1024
"""Pixels; the side of the last level is at most this."""


class SyntheticReader(Reader):
    """One scene."""

    priority = 90

    @classmethod
    def supports(cls, obj: object) -> bool:
        """Whether it is a scene's URL."""
        return isinstance(obj, str) and obj.startswith(SCHEME)

    @classmethod
    def open(cls, obj: object, *, plane: Mapping[str, int], channels: Sequence[int] | None) -> Self:
        """Make the scene that a URL names."""
        return cls(str(obj), plane, channels)

    def __init__(self, url: str, plane: Mapping[str, int], channels: Sequence[int] | None) -> None:
        scene, numbers = _parse_url(url)
        recipe = self.synthetic_image = self._image = make_synthetic_image(scene, **numbers)
        self.path = f"{SCHEME}{scene}?size={recipe.size}&seed={recipe.seed}"
        self.name = f"{scene}-{recipe.size}-{recipe.seed}"
        self.notes = []
        self.fingerprint = fingerprint.of_text(self.path, str(recipe.version))
        self.plane = select_plane(self.name, {}, plane, self.notes)
        self.selected_channels = select_channels(self.name, 3, channels)
        self.dtype = np.dtype(np.uint8)
        if recipe.pixel_size is None:
            self.notes.append("pixel size unknown")
        else:
            self.pixel_size = recipe.pixel_size, recipe.pixel_size
        bands = 3 if self.selected_channels is None else len(self.selected_channels)
        sides = [recipe.size]
        while sides[-1] > MAX_COARSEST_SIDE:
            sides.append(-(-sides[-1] // 2))
        self.set_levels([((side, side, bands), (TILE, TILE)) for side in sides])

    def decode(self, level: int, row: int, column: int) -> DecodedTile:
        """Render a tile."""
        _warm_up(type(self._image))
        start = time.perf_counter()
        scale = 2**level
        side = TILE * scale
        whole = Rect(0, 0, self._image.size, self._image.size)
        pixels = self._image.render(Rect(row * side, column * side, side, side) & whole, scale)
        if self.selected_channels is not None:
            pixels = pixels[..., list(self.selected_channels)]
        return DecodedTile(pixels, pixels.nbytes, time.perf_counter() - start)


@cache
def _warm_up(kind: type[SyntheticImage]) -> None:
    """Let a scene's code be compiled or loaded: no tile's price holds that."""
    kind(1024, 0).render(Rect(0, 0, 1, 1), 1)


def _parse_url(url: str) -> tuple[str, dict[str, int]]:
    """Return a scene's name, and what its URL says of size and seed."""
    scene, _, query = url.removeprefix(SCHEME).partition("?")
    numbers: dict[str, int] = {}
    for key, value in parse_qsl(query, keep_blank_values=True):
        if key not in ("size", "seed"):
            raise HrviewerError(f"{url}: a scene has a size and a seed, not {key!r}")
        if not value.isdecimal():
            raise HrviewerError(f"{url}: {key} is a whole number, not {value!r}")
        numbers[key] = int(value)
    return scene, numbers
