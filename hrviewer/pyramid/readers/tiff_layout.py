"""Where the pixels of a TIFF file's levels lie: pages, segments, offsets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

__all__ = ["SinglePage", "StoredLevel", "StoredPage", "is_sparse"]


@dataclass(frozen=True)
class StoredPage:
    """Data of a page that decoding needs, read while the file's structure is open."""

    path: str
    offsets: Sequence[int]
    counts: Sequence[int]
    tables: bytes | None

    @classmethod
    def from_tifffile(cls, page: Any) -> Self | None:
        """Return the data of tifffile's page; None for a page that the file lacks."""
        if page is None:
            return None
        path = page.parent.filehandle.path
        return cls(path, page.dataoffsets, page.databytecounts, page.jpegtables)


@dataclass(frozen=True)
class StoredLevel:
    """Layout of one level in the file, before orientation."""

    pages: tuple[StoredPage | None, ...]
    """Pages of the selected plane: one, or one for each channel."""
    keyframe: Any
    """The page whose tags hold for all pages."""
    raw_offsets: tuple[int, ...] | None
    """Offset of each page's pixels, if they are stored uncompressed, row by row."""
    height: int
    width: int
    segment: tuple[int, int]
    segment_rows: int
    """Rows of segments in a tile."""

    @property
    def tile(self) -> tuple[int, int]:
        """Height and width of a tile."""
        return self.segment[0] * self.segment_rows, self.segment[1]


class SinglePage:
    """A page in the form of tifffile's levels."""

    def __init__(self, page: Any) -> None:
        self.keyframe, self.dataoffset = page, None

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> Any:
        return self.keyframe


def is_sparse(stored: StoredLevel) -> bool:
    """Whether the file lacks some of a level's tiles."""
    if stored.raw_offsets is not None:
        return False
    return any(page is None or not np.all(page.counts) for page in stored.pages)
