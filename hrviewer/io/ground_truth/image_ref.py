"""Identity of the image whose ground truth is read."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from hrviewer.errors import GroundTruthError

__all__ = ["ImageRef"]


@dataclass(frozen=True, slots=True)
class ImageRef:
    """Name and size of an image, for finding it in a file of ground truth.

    Parameters
    ----------
    name : str
        Path or file name.
    shape : tuple of int
        Height and width, level-0 pixels.
    """

    name: str
    shape: tuple[int, int]

    def check_size(self, path: Path, h: float, w: float) -> None:
        """Check that the annotated image has the same size.

        Raises
        ------
        HrviewerError
            If it has another size; the message has both.
        """
        if (h, w) != self.shape:
            expected = f"{self.shape[0]} × {self.shape[1]}"
            raise GroundTruthError(
                f"{path.name} is about an image of {h:g} × {w:g} pixels, not of {expected}"
            )

    def match(self, path: Path, names: Iterable[str]) -> str:
        """Return the one of `names` that refers to this image.

        Raises
        ------
        HrviewerError
            If none does.
        """
        known = list(dict.fromkeys(names))
        wanted = file_name(self.name)
        for simplify in (file_name, file_stem):
            for name in known:
                if simplify(name) == simplify(wanted):
                    return name
        some = ", ".join(map(repr, known[:3])) + (", …" if len(known) > 3 else "")
        raise GroundTruthError(f"{path.name} is about {some or 'no image'}, not about {wanted!r}")


def file_name(name: str) -> str:
    """Return the last part of a POSIX or Windows path."""
    return PurePosixPath(name.replace("\\", "/")).name


def file_stem(name: str) -> str:
    """Return the file name without its suffix."""
    return PurePosixPath(file_name(name)).stem
