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

    def clean(self, text: str) -> str:
        """Return a text of the run without the image's path and name."""
        return _replace(text, self.image_record)


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
    image = header["image"]
    name = anonymous_name(image)
    clean = {**header, "image": {**image, "path": name}}
    if "run" in header:
        clean["run"] = f"{name}.run.zarr"
    clean["notes"] = [_replace(note, image) for note in header.get("notes", ())]
    if header.get("incomplete"):  # may quote the first failed patch
        clean["incomplete"] = _replace(header["incomplete"], image)
    if "prior_sources" in header:
        clean["prior_sources"] = dict.fromkeys(header["prior_sources"], "prior map")
    if isinstance(truth := header.get("truth"), dict) and "source" in truth:
        clean["truth"] = {**truth, "source": "ground truth"}
    # A model may be a file of the user's.
    if "model" in header:
        clean["model"] = Path(str(header["model"])).name
    return clean


def _replace(text: str, image: Mapping[str, Any]) -> str:
    path = str(image["path"])
    file = PurePath(path.replace("\\", "/"))
    for part in (path, file.name, file.stem):
        text = text.replace(part, anonymous_name(image)) if len(part) > 2 else text
    return text
