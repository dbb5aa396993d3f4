"""Reading a run's folder, and its image where nobody shows it, beside the window's thread."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from hrviewer.errors import UserError
from hrviewer.pyramid import Pyramid, open_pyramid
from hrviewer.runs import Run
from hrviewer.viewer.picture import Picture

__all__ = ["Reopened", "reopen"]


@dataclass(frozen=True, eq=False)
class Reopened:
    """What is needed to show a run again.

    Parameters
    ----------
    run : Run
        Its folder.
    picture : Picture
        Its maps.
    pyramid : Pyramid, optional
        What now lies where its image was; None if a layer shows the image, or it is gone.
    """

    run: Run
    picture: Picture
    pyramid: Pyramid | None


def reopen(path: Path, shown: Collection[str | None]) -> Reopened:
    """Read a run.

    Parameters
    ----------
    path : Path
        Its folder.
    shown : collection of str
        Fingerprints of the images that layers show.

    Raises
    ------
    UserError
        If it is not a run's folder.
    """
    run = Run(path)
    wanted = run.header["image"]
    pyramid = None
    if wanted["fingerprint"] not in shown:
        with suppress(UserError):
            pyramid = open_pyramid(wanted["path"])
    return Reopened(run, Picture.of(run), pyramid)
