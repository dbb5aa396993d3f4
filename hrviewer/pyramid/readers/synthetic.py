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

from hrviewer.errors import UserError
from hrviewer.geometry import Rect
from hrviewer.pyramid import fingerprint
from hrviewer.pyramid.readers.base import Source, pick_channels, pick_plane
from hrviewer.pyramid.synthetic import Recipe, make_recipe
from hrviewer.pyramid.tile_cache import Decoded

__all__ = ["SampleSource"]

SCHEME = "sample:"
TILE = 512
COARSEST = 1024
"""Pixels; the side of the last level is at most this."""


class SampleSource(Source):
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
        scene, numbers = _parse(url)
        recipe = self.recipe = self._recipe = make_recipe(scene, **numbers)
        self.path = f"{SCHEME}{scene}?size={recipe.size}&seed={recipe.seed}"
        self.name = f"{scene}-{recipe.size}-{recipe.seed}"
        self.notes = []
        self.fingerprint = fingerprint.of_text(self.path, str(recipe.version))
        self.plane = pick_plane(self.name, {}, plane, self.notes)
        self.selected = pick_channels(self.name, 3, channels)
        self.dtype = np.dtype(np.uint8)
        if recipe.pixel_size is None:
            self.notes.append("pixel size unknown")
        else:
            self.pixel_size = recipe.pixel_size, recipe.pixel_size
        bands = 3 if self.selected is None else len(self.selected)
        sides = [recipe.size]
        while sides[-1] > COARSEST:
            sides.append(-(-sides[-1] // 2))
        self.lay_out([((side, side, bands), (TILE, TILE)) for side in sides])

    def decode(self, level: int, row: int, column: int) -> Decoded:
        """Render a tile."""
        _compiled(type(self._recipe))
        start = time.perf_counter()
        scale = 2**level
        side = TILE * scale
        whole = Rect(0, 0, self._recipe.size, self._recipe.size)
        pixels = self._recipe.render(Rect(row * side, column * side, side, side) & whole, scale)
        if self.selected is not None:
            pixels = pixels[..., list(self.selected)]
        return Decoded(pixels, pixels.nbytes, time.perf_counter() - start)


@cache
def _compiled(kind: type[Recipe]) -> None:
    """Let a scene's code be compiled or loaded: no tile's price holds that."""
    kind(1024, 0).render(Rect(0, 0, 1, 1), 1)


def _parse(url: str) -> tuple[str, dict[str, int]]:
    """Return a scene's name, and what its URL says of size and seed."""
    scene, _, query = url.removeprefix(SCHEME).partition("?")
    numbers: dict[str, int] = {}
    for key, value in parse_qsl(query, keep_blank_values=True):
        if key not in ("size", "seed"):
            raise UserError(f"{url}: a scene has a size and a seed, not {key!r}")
        if not value.isdecimal():
            raise UserError(f"{url}: {key} is a whole number, not {value!r}")
        numbers[key] = int(value)
    return scene, numbers
