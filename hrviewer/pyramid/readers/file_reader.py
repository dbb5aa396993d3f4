"""Readers of one local file: how it is opened, and how a failure is reported."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, NamedTuple, Self

from hrviewer.errors import ImageReadError
from hrviewer.pyramid import fingerprint
from hrviewer.pyramid.readers.base import ChannelSelection, Reader, UnsupportedFormat, reporting

__all__ = ["FileReader", "Selection", "has_package", "tile_window"]


class Selection(NamedTuple):
    """What a user selects of a file; see `hrviewer.open`."""

    plane: Mapping[str, int]
    channels: ChannelSelection | None
    series: str | int | None


class FileReader(Reader):
    """One local file, opened by a library.

    Subclasses implement `load`, which sets what `Reader` lists, but for name, path, notes and
    fingerprint.

    Attributes
    ----------
    failure : str
        What is reported of a file that its library does not open, after its name.
    failure_kind : type of ImageReadError
        `UnsupportedFormat` lets the next reader try.
    """

    failure: ClassVar[str]
    failure_kind: ClassVar[type[ImageReadError]] = UnsupportedFormat

    @classmethod
    def open(
        cls,
        obj: object,
        *,
        plane: Mapping[str, int],
        channels: ChannelSelection | None,
        series: str | int | None,
    ) -> Self:
        """Open a file."""
        path = cls.locate(Path(str(obj)))
        self = cls()
        with reporting(f"{path.name} {cls.failure}", cls.failure_kind):
            self.name, self.path, self.notes = path.name, str(path), []
            self.fingerprint = fingerprint.of_files(cls.files(path))
            try:
                self.load(path, Selection(plane, channels, series))
            except BaseException:
                self.close()
                raise
        return self

    @classmethod
    def locate(cls, path: Path) -> Path:
        """Return the file that a path names."""
        return path

    @classmethod
    def files(cls, path: Path) -> Sequence[Path]:
        """Return all files with the image's pixels, which its fingerprint is made of."""
        return [path]

    @abstractmethod
    def load(self, path: Path, selection: Selection) -> None:
        """Read the metadata; what is open is closed by `close` if this raises."""


def has_package(name: str) -> bool:
    """Whether a package can be imported; without it, the message for the file names the extra."""
    try:
        __import__(name)
    except ImportError:
        return False
    return True


def tile_window(
    shape: Sequence[int], side: int, row: int, column: int
) -> tuple[int, int, int, int]:
    """Return the rectangle ``(y, x, h, w)`` of a square tile, clipped to ``(height, width)``."""
    y, x = row * side, column * side
    return y, x, min(side, shape[0] - y), min(side, shape[1] - x)
