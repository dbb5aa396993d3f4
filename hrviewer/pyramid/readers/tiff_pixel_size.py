"""Pixel size of TIFF files, as OME, the scanners' vendors and ImageJ write it.

An attribute that cannot be read never costs the image: its pixel size is unknown then.
"""

from __future__ import annotations

import math
import re
from typing import Any

from hrviewer.pyramid.readers.tiff_tags import ome_pixels, read_tag
from hrviewer.pyramid.units import micrometres, plausible

__all__ = ["read_pixel_size", "read_plane_steps"]

PRINTER_DPI = {72, 96, 120, 144, 180, 240, 360, 720, 1440}
"""Dots per inch of screens and printers, besides the multiples of 50."""
MAX_PRINTER_DPI = 4800
INCH = 25_400.0
RESOLUTION_UNITS = {2: "inch", 3: "cm"}


def read_pixel_size(tiff: Any, series: Any) -> tuple[float, float] | None:
    """Return micrometres per pixel ``(y, x)`` of a series, if the file has a plausible value."""
    description = series.keyframe.description
    sizes = (
        _ome(tiff, series) if tiff.is_ome else None,
        _attribute(description, r"\bMPP *= *([0-9.,]+)"),  # Aperio
        _philips(description),
        _ventana(tiff),
        _resolution(tiff, series.keyframe),
    )
    return next((size for size in sizes if size is not None and plausible(size)), None)


def read_plane_steps(tiff: Any, series: Any) -> dict[str, float]:
    """Return the distance between planes, µm along z and seconds along t, where it is known."""
    steps: dict[str, float | None] = {}
    pixels = ome_pixels(tiff, series) if tiff.is_ome else None
    if pixels is not None:
        length = parse_number(pixels.get("PhysicalSizeZ"))
        unit = pixels.get("PhysicalSizeZUnit", "µm")
        steps["z"] = None if length is None else micrometres(length, unit)
        if pixels.get("TimeIncrementUnit", "s") == "s":
            steps["t"] = parse_number(pixels.get("TimeIncrement"))
    elif tiff.is_imagej:
        metadata = tiff.imagej_metadata or {}
        length = parse_number(str(metadata.get("spacing", "")))
        steps["z"] = None if length is None else micrometres(length, str(metadata.get("unit", "")))
        steps["t"] = parse_number(str(metadata.get("finterval", "")))
    return {axis: step for axis, step in steps.items() if step is not None}


def parse_number(text: str | None) -> float | None:
    """Return a positive number, written with a decimal point or comma; None for anything else.

    Examples
    --------
    >>> parse_number("0,325"), parse_number("0.5"), parse_number("1,234.5"), parse_number("none")
    (0.325, 0.5, None, None)
    """
    try:
        number = float((text or "").strip().replace(",", "."))
    except ValueError:
        return None
    return number if 0 < number < math.inf else None


def _attribute(text: str, pattern: str) -> tuple[float, float] | None:
    found = re.search(pattern, text)
    size = parse_number(found[1].rstrip(".,")) if found else None
    return None if size is None else (size, size)


def _ome(tiff: Any, series: Any) -> tuple[float, float] | None:
    pixels = ome_pixels(tiff, series)
    if pixels is None:
        return None
    sides = []
    for axis in "YX":
        length = parse_number(pixels.get(f"PhysicalSize{axis}"))
        if length is not None:
            sides.append(micrometres(length, pixels.get(f"PhysicalSize{axis}Unit", "µm")))
    match sides:
        case [float(y), float(x)]:
            return y, x
        case [float(side)]:  # one side only: pixels are square
            return side, side
    return None


def _philips(description: str) -> tuple[float, float] | None:
    """Return the spacing in mm of the first scanned image that has one, rows first."""
    found = re.search(
        r'Name="DICOM_PIXEL_SPACING"[^>]*>\s*(?:&quot;|")([^"&]+)(?:&quot;|")\s+'
        r'(?:&quot;|")([^"&]+)(?:&quot;|")',
        description,
    )
    sides = [parse_number(text) for text in found.groups()] if found else []
    match sides:
        case [float(y), float(x)]:
            return y * 1000, x * 1000
    return None


def _ventana(tiff: Any) -> tuple[float, float] | None:
    """Return the resolution of the scan, which the metadata of some page give."""
    if not tiff.is_bif:
        return None
    for page in tiff.pages:
        metadata = read_tag(page, "XMP")
        text = metadata.decode("utf-8", "replace") if isinstance(metadata, bytes) else ""
        size = _attribute(text, r'\bScanRes="([0-9.,]+)"')
        if size is not None:
            return size
    return None


def _resolution(tiff: Any, key: Any) -> tuple[float, float] | None:
    """Use the resolution tags, or their numbers in ImageJ's own unit."""
    unit = RESOLUTION_UNITS.get(int(read_tag(key, "ResolutionUnit") or 0))
    if tiff.is_imagej:
        unit = str((tiff.imagej_metadata or {}).get("unit", ""))
    sides = []
    for name in ("YResolution", "XResolution"):
        match read_tag(key, name):
            case (int(count), int(per)) if count > 0 and per > 0:
                sides.append(micrometres(per / count, unit))
    match sides:
        # Per inch, only what no printer has is a scanner's.
        case [float(y), float(x)] if unit == "inch" and max(y, x) > INCH / MAX_PRINTER_DPI:
            return None
        case [float(y), float(x)] if not (is_printers(y) and is_printers(x)):
            return y, x
    return None


def is_printers(side: float) -> bool:
    """Whether a pixel size in µm is a resolution of screens and printers, as 300 dots per inch.

    Examples
    --------
    >>> is_printers(84.667), is_printers(352.78), is_printers(0.5), is_printers(10.0)
    (True, True, False, False)
    """
    dpi = INCH / side
    rounded = round(dpi)
    known = rounded in PRINTER_DPI or (rounded % 50 == 0 and rounded > 0)
    return dpi <= MAX_PRINTER_DPI * 1.001 and known and abs(dpi - rounded) < 0.002 * dpi
