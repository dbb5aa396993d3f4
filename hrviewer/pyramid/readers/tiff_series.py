"""Series of TIFF files: OME images, baseline and associated images, the parts of an OME-TIFF."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hrviewer.errors import ImageReadError
from hrviewer.pyramid.readers.tiff_tags import read_tag
from hrviewer.pyramid.remote import BLOCK, RemoteFile, RemoteStream, is_url, url_name
from hrviewer.pyramid.series import Series, SeriesKind, kind_by_name

__all__ = ["describe_series", "is_companion", "list_series", "open_tiff"]

REDUCED, MASK = 1, 4
"""Bits of the tag NewSubfileType."""

COMPANION = ".companion.ome"
MAX_COMPANION_BYTES = 64_000_000


def is_companion(path: Path) -> bool:
    """Whether it is the metadata file of an OME-TIFF in several files."""
    return path.name.lower().endswith(COMPANION)


def open_tiff(source: str) -> tuple[Any, RemoteFile | None]:
    """Open a TIFF file with tifffile; a part of an OME-TIFF with the metadata of all parts.

    Returns
    -------
    tiff : tifffile.TiffFile
    remote : RemoteFile or None
        The file behind a URL.
    """
    import tifffile

    if not is_url(source):
        return _open_local(Path(source)), None
    remote = RemoteFile(source)
    stream = io.BufferedReader(RemoteStream(remote), BLOCK)
    return tifffile.TiffFile(stream, name=url_name(source)), remote


def _open_local(path: Path) -> Any:
    import tifffile

    if is_companion(path):
        metadata = _read_companion(path)
        part = re.search(r'<UUID[^>]*\bFileName="([^"/\\]+)"', metadata)
        if part is None:
            raise ImageReadError(f"{path.name} names no TIFF file: open one of those beside it")
        return tifffile.TiffFile(path.parent / part[1], omexml=metadata)
    tiff = tifffile.TiffFile(path)
    if tiff.is_ome and "BinaryOnly" in (tiff.ome_metadata or ""):
        named = re.search(r'<BinaryOnly[^>]*\bMetadataFile="([^"/\\]+)"', tiff.ome_metadata)
        companion = path.parent / named[1] if named else None
        if companion is not None and is_companion(companion) and companion.is_file():
            tiff.close()
            return tifffile.TiffFile(path, omexml=_read_companion(companion))
    return tiff


def _read_companion(path: Path) -> str:
    if path.stat().st_size > MAX_COMPANION_BYTES:
        raise ImageReadError(f"{path.name} is too large for the metadata of an OME-TIFF")
    return path.read_text("utf-8")


def list_series(tiff: Any) -> list[Any]:
    """Return tifffile's series with pixels; later versions of tifffile have a method for it."""
    series = tiff.series
    entries = list(series() if callable(series) else series)
    return [entry for entry in entries if entry.keyframe is not None]


def describe_series(entries: Sequence[Any]) -> list[Series]:
    """Return what the metadata says of tifffile's series."""
    kinds = [_kind(entry) for entry in entries]
    if "image" not in kinds:  # nothing larger is there than what is reduced
        kinds = ["image" if kind == "thumbnail" else kind for kind in kinds]
    return [
        Series(str(i), entry.name.strip(), _shape(entry), kind)
        for i, (entry, kind) in enumerate(zip(entries, kinds, strict=True))
    ]


def _kind(entry: Any) -> SeriesKind:
    subfile = int(read_tag(entry.keyframe, "NewSubfileType") or 0)
    if entry.dtype == bool or subfile & MASK:
        return "mask"
    named = kind_by_name(entry.name)
    return "thumbnail" if named == "image" and subfile & REDUCED else named


def _shape(entry: Any) -> tuple[int, int]:
    sizes = dict(zip(entry.axes, entry.shape, strict=True))
    return int(sizes["Y"]), int(sizes["X"])
