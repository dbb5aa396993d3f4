"""Whose truth is asked for."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from hrviewer.errors import HrviewerError

__all__ = ["ImageRef"]


@dataclass(frozen=True, slots=True)
class ImageRef:
    """An image, as a file of truths may know it.

    Parameters
    ----------
    name : str
        Its path or its name.
    shape : tuple of int
        Height and width, level-0 pixels.
    """

    name: str
    shape: tuple[int, int]

    def check_size(self, path: Path, h: float, w: float) -> None:
        """Refuse the truth of an image of another size.

        Raises
        ------
        UserError
            With both sizes.
        """
        if (h, w) != self.shape:
            mine = f"{self.shape[0]} × {self.shape[1]}"
            raise HrviewerError(
                f"{path.name} is the truth of an image of {h:g} × {w:g} pixels, not of {mine}"
            )

    def match(self, path: Path, names: Iterable[str]) -> str:
        """Return the one of `names` that means this image.

        Raises
        ------
        UserError
            If none does.
        """
        known = list(dict.fromkeys(names))
        mine = file_name(self.name)
        for fits in (file_name, file_stem):
            for name in known:
                if fits(name) == fits(mine):
                    return name
        some = ", ".join(map(repr, known[:3])) + (", …" if len(known) > 3 else "")
        raise HrviewerError(f"{path.name} holds the truth of {some or 'no image'}, not of {mine!r}")


def file_name(name: str) -> str:
    """Return a path's last part, whichever system wrote it."""
    return PurePosixPath(name.replace("\\", "/")).name


def file_stem(name: str) -> str:
    """Return it without its ending."""
    return PurePosixPath(file_name(name)).stem
