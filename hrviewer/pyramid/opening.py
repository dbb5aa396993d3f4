"""From anything that is an image to a pyramid."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from weakref import WeakValueDictionary

from hrviewer.errors import UserError
from hrviewer.pyramid.pyramid import Pyramid
from hrviewer.pyramid.readers.array import ArraySource, level_behind
from hrviewer.pyramid.readers.base import Refusal, Source
from hrviewer.pyramid.readers.omezarr import OmeZarrSource
from hrviewer.pyramid.readers.openslide import SlideSource
from hrviewer.pyramid.readers.pillow import PictureSource
from hrviewer.pyramid.readers.synthetic import SampleSource
from hrviewer.pyramid.readers.tiff import TiffSource

__all__ = ["open_pyramid", "sources"]

GROUP = "hrviewer.sources"
BUILT_IN: tuple[type[Source], ...] = (
    TiffSource,
    OmeZarrSource,
    SlideSource,
    PictureSource,
    ArraySource,
    SampleSource,
)

_open: WeakValueDictionary[str, Pyramid] = WeakValueDictionary()


def sources() -> list[type[Source]]:
    """Return every source, the one to be asked first in front."""
    plugged: list[type[Source]] = [entry.load() for entry in entry_points(group=GROUP)]
    return sorted([*plugged, *BUILT_IN], key=lambda source: -source.priority)


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
    behind = level_behind(source)
    if behind is not None and behind.image in _open:
        return _open[behind.image]
    if isinstance(source, (str, os.PathLike)):
        source = os.fspath(source)
    refusal: Refusal | None = None
    for kind in sources():
        if not kind.supports(source):
            continue
        try:
            pyramid = Pyramid(kind.open(source, plane=plane or {}, channels=channels))
        except Refusal as error:  # if no other source reads it, the first reason is the best
            refusal = refusal or error
        else:
            _open[pyramid.levels[0].image] = pyramid
            return pyramid
    raise refusal or _unsupported(source)


def _unsupported(source: object) -> UserError:
    if not isinstance(source, str):
        return UserError(
            f"cannot open {type(source).__name__} as an image: pass a path or an array"
        )
    if "://" in source:
        return UserError(f"{source} cannot be opened: only OME-Zarr is read from a URL")
    path = Path(source)
    if not path.exists():
        return UserError(f"{source}: there is no such file or folder")
    return UserError(
        f"{path.name} is not an image in a format that hrviewer reads, or it is damaged; "
        "convert it to a tiled TIFF or OME-Zarr"
    )
