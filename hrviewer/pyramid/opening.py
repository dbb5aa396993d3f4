"""From anything that is an image to a pyramid."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from weakref import WeakValueDictionary

from hrviewer.errors import HrviewerError
from hrviewer.pyramid.pyramid import Pyramid
from hrviewer.pyramid.readers.array import ArrayReader, find_level
from hrviewer.pyramid.readers.base import Reader, UnsupportedFormat
from hrviewer.pyramid.readers.omezarr import OmeZarrReader
from hrviewer.pyramid.readers.openslide import OpenSlideReader
from hrviewer.pyramid.readers.pillow import PillowReader
from hrviewer.pyramid.readers.synthetic import SyntheticReader
from hrviewer.pyramid.readers.tiff import TiffReader

__all__ = ["installed_readers", "open_pyramid"]

GROUP = "hrviewer.readers"
BUILT_IN_READERS: tuple[type[Reader], ...] = (
    TiffReader,
    OmeZarrReader,
    OpenSlideReader,
    PillowReader,
    ArrayReader,
    SyntheticReader,
)

_open_pyramids: WeakValueDictionary[str, Pyramid] = WeakValueDictionary()


def installed_readers() -> list[type[Reader]]:
    """Return every source, the one to be asked first in front."""
    plugged: list[type[Reader]] = [entry.load() for entry in entry_points(group=GROUP)]
    return sorted([*plugged, *BUILT_IN_READERS], key=lambda source: -source.priority)


def open_pyramid(
    source: object,
    *,
    plane: Mapping[str, int] | None = None,
    channels: Sequence[int] | None = None,
) -> Pyramid:
    """Open an image.

    Parameters
    ----------
    source : object
        A path; the URL of an OME-Zarr; a scene, ``sample:NAME?size=8192&seed=0``; a NumPy, dask
        or zarr array ``(h, w)``, ``(h, w, c)`` or with further axes in front, or a list of them,
        finest first; a napari image layer; a pyramid, which is returned as it is.
    plane : mapping of str to int, optional
        Which index of each further axis to show, as ``{"z": 3}``; 0 where nothing is said.
    channels : sequence of int, optional
        Which channels to show, and in which order; all if not given.

    Returns
    -------
    Pyramid
        Nothing but metadata has been read; `Pyramid.notes` says what was assumed.

    Raises
    ------
    UserError
        If it cannot be opened; says in one line why, and what to do.
    """
    if isinstance(source, Pyramid):
        return source
    behind = find_level(source)
    if behind is not None and behind.image_key in _open_pyramids:
        return _open_pyramids[behind.image_key]
    if isinstance(source, (str, os.PathLike)):
        source = os.fspath(source)
    refusal: UnsupportedFormat | None = None
    for kind in installed_readers():
        if not kind.supports(source):
            continue
        try:
            pyramid = Pyramid(kind.open(source, plane=plane or {}, channels=channels))
        except (
            UnsupportedFormat
        ) as error:  # if no other source reads it, the first reason is the best
            refusal = refusal or error
        else:
            _open_pyramids[pyramid.levels[0].image_key] = pyramid
            return pyramid
    raise refusal or _unsupported_error(source)


def _unsupported_error(source: object) -> HrviewerError:
    if not isinstance(source, str):
        return HrviewerError(
            f"cannot open {type(source).__name__} as an image: pass a path or an array"
        )
    if "://" in source:
        return HrviewerError(f"{source} cannot be opened: only OME-Zarr is read from a URL")
    path = Path(source)
    if not path.exists():
        return HrviewerError(f"{source}: there is no such file or folder")
    return HrviewerError(
        f"{path.name} is not an image in a format that hrviewer reads, or it is damaged; "
        "convert it to a tiled TIFF or OME-Zarr"
    )
