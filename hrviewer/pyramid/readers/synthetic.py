"""Synthetic images: ``sample:NAME?size=131072&seed=3``.

Every level is rendered tile by tile on request; nothing is stored.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import cache
from typing import Self
from urllib.parse import parse_qsl

import numpy as np

from hrviewer.errors import ParameterError
from hrviewer.geometry import Rect
from hrviewer.pyramid import fingerprint
from hrviewer.pyramid.readers.base import ChannelSelection, Reader
from hrviewer.pyramid.series import Series
from hrviewer.pyramid.synthetic import SyntheticImage, make_synthetic_image
from hrviewer.pyramid.tile_cache import DecodedTile
from hrviewer.pyramid.units import UNKNOWN_PIXEL_SIZE

__all__ = ["SyntheticReader"]

SCHEME = "sample:"
TILE = 512
MAX_COARSEST_SIDE = 1024
"""Pixels; the largest side of the last level."""


class SyntheticReader(Reader):
    """One synthetic image."""

    priority = 90

    @classmethod
    def supports(cls, obj: object) -> bool:
        """Whether it is the URL of a synthetic image."""
        return isinstance(obj, str) and obj.startswith(SCHEME)

    @classmethod
    def open(
        cls,
        obj: object,
        *,
        plane: Mapping[str, int],
        channels: ChannelSelection | None,
        series: str | int | None,
    ) -> Self:
        """Make the synthetic image that a URL names."""
        return cls(str(obj), plane, channels, series)

    def __init__(
        self,
        url: str,
        plane: Mapping[str, int],
        channels: ChannelSelection | None,
        series: str | int | None,
    ) -> None:
        name, numbers = _parse_url(url)
        image = self.synthetic_image = self._image = make_synthetic_image(name, **numbers)
        self.path = f"{SCHEME}{name}?size={image.size}&seed={image.seed}"
        self.name = f"{name}-{image.size}-{image.seed}"
        self.notes = []
        self.fingerprint = fingerprint.of_text(self.path, str(image.version))
        self.set_series([Series("0", shape=(image.size, image.size))], series)
        self.set_plane({}, plane)
        self.set_channels(3, channels, is_rgb=True)
        self.dtype = np.dtype(np.uint8)
        if image.pixel_size is None:
            self.notes.append(UNKNOWN_PIXEL_SIZE)
        else:
            self.pixel_size = image.pixel_size, image.pixel_size
        bands = 3 if self.selected_channels is None else len(self.selected_channels)
        sides = [image.size]
        while sides[-1] > MAX_COARSEST_SIDE:
            sides.append(-(-sides[-1] // 2))
        self.set_levels([((side, side, bands), (TILE, TILE)) for side in sides])

    def decode(self, level: int, row: int, column: int) -> DecodedTile:
        """Render a tile."""
        _warm_up(type(self._image))
        start = time.perf_counter()
        scale = 2**level
        side = TILE * scale
        bounds = Rect(0, 0, self._image.size, self._image.size)
        pixels = self._image.render(Rect(row * side, column * side, side, side) & bounds, scale)
        if self.selected_channels is not None:
            pixels = pixels[..., list(self.selected_channels)]
        return DecodedTile(pixels, pixels.nbytes, time.perf_counter() - start)


@cache
def _warm_up(kind: type[SyntheticImage]) -> None:
    """Compile or load an image's code, so that no tile's cost includes that."""
    kind(1024, 0).render(Rect(0, 0, 1, 1), 1)


def _parse_url(url: str) -> tuple[str, dict[str, int]]:
    """Return the name in a URL, and its size and seed."""
    name, _, query = url.removeprefix(SCHEME).partition("?")
    numbers: dict[str, int] = {}
    for key, value in parse_qsl(query, keep_blank_values=True):
        if key not in ("size", "seed"):
            raise ParameterError(f"{url}: a synthetic image has a size and a seed, not {key!r}")
        if not value.isdecimal():
            raise ParameterError(f"{url}: {key} is a whole number, not {value!r}")
        numbers[key] = int(value)
    return name, numbers
