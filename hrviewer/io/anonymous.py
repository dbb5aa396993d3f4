"""Runs without the paths and names of files, for exports that are passed on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from hrviewer.errors import ImageReadError
from hrviewer.io.exportable import Exportable

if TYPE_CHECKING:
    from hrviewer.pyramid import Pyramid

__all__ = ["AnonymousRun", "anonymous_name", "open_image"]


class AnonymousRun:
    """A run whose header names no file; its image and maps can still be read.

    Parameters
    ----------
    run : Exportable
        The run.

    Attributes
    ----------
    path, header
        As of any run.
    image_record : mapping
        The entry of the image as the run recorded it, to open it.
    """

    def __init__(self, run: Exportable) -> None:
        self.path = run.path
        self.image_record: Mapping[str, Any] = run.header["image"]
        self.header = _without_files(run.header)


def anonymous_name(image: Mapping[str, Any]) -> str:
    """Return a name for an image that says nothing of its file: of its fingerprint."""
    return f"image-{image['fingerprint'][:8]}"


@contextmanager
def open_image(run: Exportable) -> Iterator[Pyramid]:
    """Open a run's image, as it was when the run was made.

    Raises
    ------
    ImageReadError
        If the image is gone, or has changed since.
    """
    from hrviewer.pyramid import reopen_pyramid  # heavy, and the list of formats needs none

    record = getattr(run, "image_record", run.header["image"])
    with reopen_pyramid(record) as pyramid:
        if pyramid.fingerprint != record["fingerprint"]:
            raise ImageReadError(
                f"{run.header['image']['path']} has changed since this run: export without the "
                "image"
            )
        yield pyramid


def _without_files(header: Mapping[str, Any]) -> dict[str, Any]:
    """Return a header with another name for the image, and no path or name of a file."""
    path = str(header["image"]["path"])
    name = anonymous_name(header["image"])
    file = PurePath(path.replace("\\", "/"))
    clean = {**header, "image": {**header["image"], "path": name}}
    if "run" in header:
        clean["run"] = f"{name}.run.zarr"
    clean["notes"] = [_replace(note, path, file, name) for note in header.get("notes", ())]
    if isinstance(truth := header.get("truth"), dict) and "source" in truth:
        clean["truth"] = {**truth, "source": "ground truth"}
    # A model may be a file of the user's.
    if "model" in header:
        clean["model"] = Path(str(header["model"])).name
    return clean


def _replace(text: str, path: str, file: PurePath, name: str) -> str:
    for part in (path, file.name, file.stem):
        text = text.replace(part, name) if len(part) > 2 else text
    return text
