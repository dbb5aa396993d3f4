"""Reader of the image format ``.npy``: a NumPy array on disk, read lazily."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
from hrviewer.errors import ImageReadError
from hrviewer.pyramid.fingerprint import of_files
from hrviewer.pyramid.readers.base import ChannelSelection, DecodedTile, Reader, native_dtype

__all__ = ["NpyReader"]

TILE = 512


class NpyReader(Reader):
    """A picture ``(h, w)`` or ``(h, w, channels)``; of one level, which hrviewer shrinks itself."""

    priority = 10

    @classmethod
    def supports(cls, obj: object) -> bool:
        """Whether it is such a file, by its name."""
        return isinstance(obj, str) and obj.endswith(".npy") and Path(obj).is_file()

    @classmethod
    def open(
        cls,
        obj: object,
        *,
        plane: Mapping[str, int],
        channels: ChannelSelection | None,
        series: str | int | None,
    ) -> Self:
        """Map the file; nothing of it is read yet."""
        path = Path(str(obj))
        try:
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise ImageReadError(f"{path.name} is no array of NumPy's: {error}") from error
        if array.ndim not in (2, 3):
            raise ImageReadError(
                f"{path.name} has {array.ndim} axes; (y, x) or (y, x, channel) are read"
            )
        return cls(path, array if array.ndim == 3 else array[..., None], channels)

    def __init__(
        self, path: Path, array: np.ndarray[Any, np.dtype[Any]], channels: ChannelSelection | None
    ) -> None:
        self.name, self.path = path.name, str(path)
        self.dtype = native_dtype(self.name, array.dtype)
        self.fingerprint = of_files([path])
        self.plane, self.notes = {}, ["pixel size unknown"]
        bands = len(self.set_channels(array.shape[2], channels))
        self._array = array
        h, w, _ = array.shape
        self.set_levels([((h, w, bands), (TILE, TILE))])

    def decode(self, level: int, row: int, column: int) -> DecodedTile:
        """Read a tile."""
        y, x = row * TILE, column * TILE
        part = self._array[y : y + TILE, x : x + TILE]
        if self.selected_channels is not None:
            part = part[..., list(self.selected_channels)]
        return DecodedTile(np.array(part, self.dtype), part.nbytes)
