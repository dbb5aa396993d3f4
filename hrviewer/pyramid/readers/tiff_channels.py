"""Channels of TIFF files: names, colours and windows in the metadata of their dialects."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from hrviewer.pyramid.channels import ChannelInfo
from hrviewer.pyramid.readers.tiff_tags import ome_pixels, read_tag

__all__ = ["has_rgb_samples", "mask_pages", "read_channels", "ycbcr_to_rgb"]

RGB, YCBCR = 2, 6
"""Values of the tag PhotometricInterpretation."""

MASK = 4
"""Bit of the tag NewSubfileType."""


def has_rgb_samples(key: Any) -> bool:
    """Whether the first three samples of a page are red, green and blue."""
    if key.photometric in (RGB, YCBCR):
        return bool(key.samplesperpixel >= 3)
    # A triple of bytes without a statement of colour; planes of their own are channels.
    return bool(key.samplesperpixel == 3 and key.dtype == np.uint8 and key.shaped[0] == 1)


def read_channels(tiff: Any, series: Any, count: int) -> list[ChannelInfo]:
    """Return what the file says of each of `count` channels of a series."""
    found: Sequence[ChannelInfo] = ()
    if tiff.is_ome:
        found = _ome_channels(tiff, series)
    elif tiff.is_imagej:
        found = _imagej_channels(tiff.imagej_metadata or {}, count)
    elif tiff.is_qpi:
        found = _qpi_channels(series, count)
    if not found:
        found = _gdal_bands(read_tag(series.keyframe, "GDAL_METADATA"), count)
    return [*found[:count], *[ChannelInfo()] * (count - len(found))]


def mask_pages(tiff: Any) -> dict[tuple[int, int], Any]:
    """Return the pages that are masks of an image, by height and width."""
    masks: dict[tuple[int, int], Any] = {}
    for page in tiff.pages:
        # Frames share the tags of their keyframe, which is no mask.
        tags = getattr(page, "tags", None)
        if tags is None or not int(read_tag(page, "NewSubfileType") or 0) & MASK:
            continue
        if page.dtype is not None and page.samplesperpixel == 1 and page.shaped[1] == 1:
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
