"""Tags of TIFF files: orientation, no-data value, range of values."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from hrviewer.errors import ImageReadError
from hrviewer.pyramid.readers.jpeg_check import require_few_scans
from hrviewer.pyramid.value_range import stored_range

__all__ = [
    "JPEG_COMPRESSIONS",
    "ORIENTATIONS",
    "coded_pixels",
    "ome_pixels",
    "read_nodata",
    "read_stored_range",
    "read_tag",
    "require_coded_size",
    "unsupported_coding",
]

MAX_XML_BYTES = 4_000_000

MAX_CODED_HEADER = 1 << 18
"""Bytes of a tile in which its own header is, behind comments and tables."""

JPEG_COMPRESSIONS = {6, 7, 34892, 33007}
LOSSLESS_COMPRESSIONS = {1, 5, 8, 32773, 32946, 34925, 50000}

# Orientation tag -> whether to transpose, then to flip rows, then columns.
ORIENTATIONS = {
    1: (False, False, False),
    2: (False, False, True),
    3: (False, True, True),
    4: (False, True, False),
    5: (True, False, False),
    6: (True, False, True),
    7: (True, True, True),
    8: (True, True, False),
}


def read_tag(page: Any, name: str) -> Any:
    """Return the value of a page's tag; None if the page lacks it."""
    tag = page.tags.get(name)
    return None if tag is None else tag.value


def unsupported_coding(key: Any) -> str | None:
    """Return why tifffile cannot decode a page, which is known from its tags; None if it can."""
    import tifffile

    if key.compression == tifffile.COMPRESSION.OJPEG:
        return "is compressed by JPEG in the old style, which is not supported"
    try:
        tifffile.TIFF.DECOMPRESSORS[key.compression]
    except KeyError:
        if key.compression != tifffile.COMPRESSION.NONE:
            name = getattr(key.compression, "name", key.compression)
            return f"is compressed by {name}, which is not supported"
    subsampled = read_tag(key, "YCbCrSubSampling") not in (None, (1, 1))
    if key.photometric == 6 and subsampled and key.compression in LOSSLESS_COMPRESSIONS:
        return "stores colours at a lower resolution without JPEG, which is not supported"
    return None


def coded_pixels(data: bytes) -> int:
    """Return the pixels in the header of a JPEG or JPEG 2000 codestream; 0 if it has none.

    See ITU-T T.81, section B.2.2, and T.800, section A.5.1.
    """
    if data[:4] == b"\xff\x4f\xff\x51":
        width, height, x, y = (int.from_bytes(data[i : i + 4], "big") for i in (8, 12, 16, 20))
        return max(0, width - x) * max(0, height - y)
    at = 2
    while data[:2] == b"\xff\xd8" and at + 9 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = (int.from_bytes(data[i : i + 2], "big") for i in (at + 5, at + 7))
            return height * width
        at += 1 if marker == 0xFF else 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return 0


def require_coded_size(data: bytes, limit: int, name: str) -> None:
    """Refuse a tile whose own header has more than `limit` pixels: it would be decoded as such."""
    require_few_scans(data, name)
    if coded_pixels(data[:MAX_CODED_HEADER]) > limit:
        raise ImageReadError(
            f"{name} has a tile whose own header gives it more pixels than the file does; the file "
            "is damaged"
        )


def read_nodata(key: Any, path: str) -> float | None:
    """Return the stored value of pixels without data, as GDAL writes it: in a tag, or beside.

    Parameters
    ----------
    key : tifffile.TiffPage
        The page.
    path : str
        The file; GDAL's ``.aux.xml`` may lie beside it.
    """
    value = read_tag(key, "GDAL_NODATA")
    if value is None:
        value = _beside(Path(f"{path}.aux.xml"))
    try:
        return None if value is None else float(str(value).strip("\0 "))
    except ValueError:
        return None


def _beside(path: Path) -> str | None:
    """Return the no-data value of the first band in a file of metadata of GDAL."""
    if not path.is_file() or path.stat().st_size > MAX_XML_BYTES:
        return None
    try:
        root = ElementTree.fromstring(path.read_bytes())
    except ElementTree.ParseError:
        return None
    return root.findtext("PAMRasterBand/NoDataValue")


def read_stored_range(tiff: Any, series: Any) -> tuple[float, float] | None:
    """Return the range of the pixels by the metadata: significant bits, or smallest and largest."""
    key = series.keyframe
    if key.photometric == 3 or key.dtype.kind == "b":
        return None
    bits = key.bitspersample
    pixels = ome_pixels(tiff, series) if tiff.is_ome else None
    if pixels is not None and str(pixels.get("SignificantBits")).isdecimal():
        bits = min(bits, int(pixels.get("SignificantBits")))
    if key.dtype.kind == "u" and bits < 8 * key.dtype.itemsize:
        return 0.0, 2.0**bits - 1
    for prefix in ("S", ""):
        low, high = (read_tag(key, f"{prefix}{end}SampleValue") for end in ("Min", "Max"))
        if high is not None:
            return stored_range(_number(low, min), _number(high, max))
    return None


def _number(value: Any, of: Any) -> float | None:
    """Return a tag of one number, or of one for each sample."""
    try:
        return float(of(value) if isinstance(value, (tuple, list)) else value)
    except (TypeError, ValueError):
        return None


def ome_pixels(tiff: Any, series: Any) -> Any | None:
    """Return the OME-XML element Pixels of the image that has a series' name and size."""
    try:
        root = ElementTree.fromstring(tiff.ome_metadata)
    except ElementTree.ParseError:
        return None
    sizes = dict(zip(series.axes, map(str, series.shape), strict=True))
    found = [
        (image.get("Name", "") == series.name, pixels)
        for image in root.iterfind("{*}Image")
        if (pixels := image.find("{*}Pixels")) is not None
        and (pixels.get("SizeY"), pixels.get("SizeX")) == (sizes["Y"], sizes["X"])
    ]
    return max(found, key=lambda entry: entry[0])[1] if found else None
