"""Channels of TIFF files: names, colours and windows in the metadata of their dialects."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from hrviewer.errors import ImageReadError
from hrviewer.pyramid.channels import ChannelInfo
from hrviewer.pyramid.readers.base import UnsupportedFormat
from hrviewer.pyramid.readers.tiff_tags import ome_pixels, read_tag, unsupported_coding
from hrviewer.pyramid.unreadable import TO_TILED_TIFF

__all__ = [
    "find_colour_samples",
    "has_rgb_samples",
    "is_mask",
    "mask_pages",
    "read_channels",
    "ycbcr_to_rgb",
]

RGB, YCBCR = 2, 6
"""Values of the tag PhotometricInterpretation."""

ALPHA_NAME = re.compile(r"alpha|mask|opacity|transparen", re.IGNORECASE)

MASK = 4
"""Bit of the tag NewSubfileType."""


def find_colour_samples(name: str, key: Any) -> tuple[list[int], int | None]:
    """Return the samples of a page that are colours or bands, and the one that is transparency.

    Parameters
    ----------
    name : str
        Name of the file, for messages.
    key : tifffile.TiffPage
        The page.

    Raises
    ------
    ImageReadError
        If its colours would need colour management, or its coding is not supported.
    """
    import tifffile

    if key.dtype is None:
        raise ImageReadError(f"{name} stores pixels as {key.bitspersample} bits; {TO_TILED_TIFF}")
    if 0 in key.shaped:
        raise ImageReadError(f"{name} has no pixels (one side is 0)")
    if key.shaped[1] != 1:
        raise ImageReadError(
            f"{name} stores volumes within a page: convert it by `bfconvert IN OUT.ome.tif`"
        )
    if key.photometric not in (0, 1, 2, 3, 4, 6):
        kind = getattr(key.photometric, "name", key.photometric)
        raise ImageReadError(
            f"{name} has {kind} colours; convert it to RGB, for example by "
            "`vips colourspace IN OUT.tif srgb`"
        )
    if reason := unsupported_coding(key):
        raise UnsupportedFormat(f"{name} {reason}; {TO_TILED_TIFF}")
    alpha = (tifffile.EXTRASAMPLE.ASSOCALPHA, tifffile.EXTRASAMPLE.UNASSALPHA)
    first = key.samplesperpixel - len(key.extrasamples)
    named = dict(_gdal_descriptions(str(read_tag(key, "GDAL_METADATA") or "")))
    transparent = {
        first + at
        for at, kind in enumerate(key.extrasamples)
        # Near infrared is often marked as alpha, but called by its name.
        if kind in alpha and ALPHA_NAME.search(named.get(first + at) or "alpha")
    }
    samples = [band for band in range(key.samplesperpixel) if band not in transparent]
    return samples, min(transparent, default=None)


def has_rgb_samples(key: Any) -> bool:
    """Whether the first three samples of a page are red, green and blue."""
    if key.photometric in (RGB, YCBCR):
        return bool(key.samplesperpixel >= 3)
    # A triple of bytes without a statement of colour; planes of their own are channels.
    return bool(key.samplesperpixel == 3 and key.dtype == np.uint8 and key.shaped[0] == 1)


def read_channels(
    tiff: Any, series: Any, count: int, alpha: int | None = None
) -> list[ChannelInfo]:
    """Return what the file says of each of `count` channels of a series, and which is alpha."""
    found: Sequence[ChannelInfo] = ()
    if tiff.is_ome:
        found = _ome_channels(tiff, series)
    elif tiff.is_imagej:
        found = _imagej_channels(tiff.imagej_metadata or {}, count)
    elif tiff.is_qpi:
        found = _qpi_channels(series, count)
    if not found:
        found = _gdal_bands(read_tag(series.keyframe, "GDAL_METADATA"), count)
    infos = [*found[:count], *[ChannelInfo()] * (count - len(found))]
    if alpha is not None and alpha < count and not infos[alpha].name:
        infos[alpha] = replace(infos[alpha], name="alpha")
    return infos


def is_mask(page: Any) -> bool:
    """Whether the tags of a page call it a mask."""
    # Frames share the tags of their keyframe, which is no mask.
    tags = getattr(page, "tags", None)
    return tags is not None and bool(int(read_tag(page, "NewSubfileType") or 0) & MASK)


def mask_pages(tiff: Any, *, every: bool = False) -> dict[tuple[int, int], Any]:
    """Return the pages that are masks of an image, by height and width.

    Parameters
    ----------
    tiff : tifffile.TiffFile
        The file.
    every : bool
        Whether all its pages are masks, without the tag as well.
    """
    masks: dict[tuple[int, int], Any] = {}
    for page in tiff.pages:
        usable = is_mask(page) or (every and getattr(page, "tags", None) is not None)
        if not usable or page.dtype is None:
            continue
        if page.samplesperpixel == 1 and page.shaped[1] == 1:
            masks[page.imagelength, page.imagewidth] = page
    return masks


def _ome_channels(tiff: Any, series: Any) -> list[ChannelInfo]:
    pixels = ome_pixels(tiff, series)
    if pixels is None:
        return []
    found = []
    for channel in pixels.iterfind("{*}Channel"):
        samples = _whole(channel.get("SamplesPerPixel")) or 1
        color = _whole(channel.get("Color"))
        # A signed number, of which the last byte is the opacity; -1 is the default, white.
        digits = None if color is None or samples > 1 else f"{(color & 0xFFFFFFFF) >> 8:06X}"
        name = channel.get("Name") or channel.get("Fluor") or ""
        found += [ChannelInfo(name if samples == 1 else "", digits)] * samples
    return found


def _imagej_channels(metadata: dict[str, Any], count: int) -> list[ChannelInfo]:
    labels = metadata.get("Labels") or []
    names = [str(label) for label in labels] if len(labels) == count else [""] * count
    ranges = np.ravel(metadata.get("Ranges") or ())
    windows = [
        (float(ranges[2 * i]), float(ranges[2 * i + 1])) if len(ranges) == 2 * count else None
        for i in range(count)
    ]
    tables = metadata.get("LUTs") or []
    colors = []
    for i in range(count):
        table = np.asarray(tables[i]) if i < len(tables) else np.zeros(0)
        usable = table.shape == (3, 256)
        colors.append("".join(f"{int(v):02X}" for v in table[:, -1]) if usable else None)
    return [ChannelInfo(*entry) for entry in zip(names, colors, windows, strict=True)]


def _qpi_channels(series: Any, count: int) -> list[ChannelInfo]:
    """Return the channels of Akoya's and PerkinElmer's QPTIFF, described page by page."""
    found = []
    for page in list(series.pages)[:count]:
        try:
            root = ElementTree.fromstring(str(read_tag(page, "ImageDescription")))
        except (ElementTree.ParseError, AttributeError):
            return []
        color = root.findtext(".//Color") or ""
        parts = [_whole(part) for part in color.split(",")]
        digits = "".join(f"{part & 255:02X}" for part in parts if part is not None)
        found.append(ChannelInfo(root.findtext(".//Name") or "", digits or None))
    return found


def _gdal_bands(metadata: Any, count: int) -> list[ChannelInfo]:
    """Return the descriptions of GDAL's bands."""
    names = dict(_gdal_descriptions(str(metadata or "")))
    return [ChannelInfo(names.get(i, "")) for i in range(count)] if names else []


def _gdal_descriptions(metadata: str) -> Iterator[tuple[int, str]]:
    try:
        root = ElementTree.fromstring(metadata.strip("\0 \n"))
    except ElementTree.ParseError:
        return
    for item in root.iterfind("Item"):
        sample = _whole(item.get("sample"))
        if item.get("role") == "description" and sample is not None:
            yield sample, (item.text or "").strip()


def _whole(text: str | None) -> int | None:
    try:
        return int(text or "")
    except ValueError:
        return None


def ycbcr_to_rgb(pixels: NDArray[Any]) -> NDArray[Any]:
    """Turn full-range YCbCr (ITU-R 601, as in JPEG) into RGB."""
    y, cb, cr = np.moveaxis(pixels.astype(np.float32), 2, 0)
    cb, cr = cb - 128, cr - 128
    rgb = np.stack([y + 1.402 * cr, y - 0.344136 * cb - 0.714136 * cr, y + 1.772 * cb], axis=2)
    return np.clip(np.floor(rgb + 0.5), 0, 255).astype(pixels.dtype)
