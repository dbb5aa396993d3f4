"""Identity of the image whose ground truth is read."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from hrviewer.errors import GroundTruthError

__all__ = ["ImageRef", "file_name", "find_names"]


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
        if found := find_names(self.name, known):
            return found[0]
        some = ", ".join(map(repr, known[:3])) + (", …" if len(known) > 3 else "")
        wanted = file_name(self.name)
        raise GroundTruthError(f"{path.name} is about {some or 'no image'}, not about {wanted!r}")


def find_names(image: str, names: Iterable[str]) -> list[str]:
    """Return those of `names` that refer to an image, of all only the closest.

    Closest is the same file name, then the image's without its suffix, then the same name with
    another suffix, last the image's up to its first dot.

    Examples
    --------
    >>> find_names("slides/case.1.svs", ["case", "case.1", "case.2"])
    ['case.1']
    >>> find_names("slide.ome.tif", ["slide", "other"])
    ['slide']
    """
    listed = [(name, file_name(name.strip())) for name in names]
    wanted, stem = file_name(image), file_stem(image)
    kinds: tuple[Callable[[str], bool], ...] = (
        lambda known: known == wanted,
        lambda known: known == stem,
        lambda known: file_stem(known) == stem,
        lambda known: known == wanted.partition(".")[0],
    )
    found = ([name for name, known in listed if fits(known)] for fits in kinds)
    return next(filter(None, found), [])


def file_name(name: str) -> str:
    """Return the last part of a POSIX or Windows path."""
    return PurePosixPath(name.replace("\\", "/")).name


def file_stem(name: str) -> str:
    """Return the file name without its suffix."""
    return PurePosixPath(file_name(name)).stem
