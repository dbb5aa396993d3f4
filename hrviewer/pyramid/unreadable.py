"""Files that cannot be opened as images: what they are instead, and the next step."""

from __future__ import annotations

from pathlib import Path

__all__ = ["TO_TILED_TIFF", "check_content", "explain_unreadable"]

TO_TILED_TIFF = "convert it, for example by `vips tiffsave IN OUT.tif --tile --pyramid --bigtiff`"
"""A next step for pictures that are read no other way."""

HEAD_BYTES = 1024

NOT_AN_IMAGE = (
    (b"version https://git-lfs.github.com/", "is a pointer of Git LFS: run `git lfs pull`"),
    (b"/annex/objects/", "is a pointer of git-annex: run `git annex get` on it"),
    (b"<!doctype html", "is a web page: the download failed, or needs a log-in"),
    (b"<html", "is a web page: the download failed, or needs a log-in"),
)
"""Beginnings of files that stand in for an image, in small letters."""

BY_VIEWER = "which is not read: export it as OME-TIFF or TIFF in its own viewer"
BY_PACKAGE = "which is not read: load it by {} in Python and pass its array to hrviewer.open"
TO_FLOATS = "which is not read: convert it by `vips tiffsave IN OUT.tif --tile --pyramid`"
BY_GDAL = "which is not read: convert it by `gdal_translate -of COG IN OUT.tif`"
BY_IMAGECODECS = (
    "which is not read: decode it by imagecodecs.imread in Python and pass the array to "
    "hrviewer.open"
)
CUT = "that cannot be decoded: it may be cut short, copy it again"
BY_TIFFCP = "is a TIFF that is not read: convert it by `tiffcp -t IN OUT.tif`"
HDF5 = (
    "is HDF5 (also Imaris and NetCDF 4), which is not read: convert an .ims by `bioformats2raw`, "
    "or open an array with h5py in Python and pass it to hrviewer.open"
)
UNSUPPORTED = (
    (b"\x89HDF\r\n\x1a\n", HDF5),
    (b"CDF", f"is NetCDF, {BY_GDAL}"),
    (b"<VRTDataset", f"is a virtual mosaic of GDAL, {BY_GDAL}"),
    (b"SQLite format 3", f"is a database (MBTiles, GeoPackage), {BY_GDAL}"),
    (b"PK\x03\x04", "is a zip archive: unpack it and open what is inside"),
    (b"\x1f\x8b", "is compressed by gzip: unpack it and open what is inside"),
    (b"\x93NUMPY", "is a NumPy array: load it by np.load in Python and pass it to hrviewer.open"),
    (b"MATLAB", "is a MATLAB file: load it by scipy.io.loadmat and pass its array"),
    (b"GRIB", f"is GRIB, {BY_GDAL}"),
    (b"[NanoZoomer", "is a list of NDPI files: open one of those that it names"),
    (b"\xff\x0a", f"is JPEG XL, {BY_IMAGECODECS}"),
    (b"\0\0\0\x0cJXL ", f"is JPEG XL, {BY_IMAGECODECS}"),
    (b"II\xbc\x01", f"is JPEG XR, {BY_IMAGECODECS}"),
    (b"qoif", f"is QOI, {BY_IMAGECODECS}"),
    (b"\xff\xd8\xff", f"is a JPEG {CUT}"),
    (b"\x89PNG", f"is a PNG {CUT}"),
    (b"GIF8", f"is a GIF {CUT}"),
    (b"BM", f"is a BMP {CUT}"),
    (b"\0\0\0\x0cjP  ", f"is JPEG 2000 {CUT}"),
    (b"\xffO\xffQ", f"is JPEG 2000 {CUT}"),
    (b"SIMPLE  =", f"is FITS, {BY_PACKAGE.format('astropy.io.fits.getdata')}"),
    (b"NRRD000", f"is NRRD, {BY_PACKAGE.format('nrrd.read')}"),
    (b"8BPS", f"is a PSD of Photoshop, {BY_VIEWER}"),
    (b"v/1\x01", f"is OpenEXR, {TO_FLOATS}"),
    (b"#?R", f"is Radiance HDR, {TO_FLOATS}"),
    (b"%PDF", "is a PDF: save its picture, for example by `pdfimages -all`"),
    (b"II*\0", BY_TIFFCP),
    (b"MM\0*", BY_TIFFCP),
)
"""Beginnings of formats that are known but not read."""

INSIDE = (
    (4, b"ftypheic", "is HEIC, which is not read: save it as PNG or TIFF"),
    (4, b"ftypheix", "is HEIC, which is not read: save it as PNG or TIFF"),
    (4, b"ftypavif", f"is an AVIF {CUT}"),
    (8, b"WEBP", f"is a WebP {CUT}"),
    (208, b"MAP ", f"is MRC, {BY_PACKAGE.format('mrcfile.read')}"),
    (344, b"n+1\0", f"is NIfTI, {BY_PACKAGE.format('nibabel.load')}"),
)
"""Marks of others by their offset."""

JPEG_CODINGS = {0xC3: "a lossless JPEG", 0xF7: "JPEG-LS"}
"""By the marker of the frame."""
MAX_JPEG_HEADER = 1 << 18
"""Bytes in which it is, behind comments and previews."""

ISYNTAX = (
    "is iSyntax, which is not read without Philips' library: convert it by `isyntax-to-tiff IN "
    "OUT.tiff` of libisyntax, or by `isyntax2raw`"
)
BY_SUFFIX = {
    ".czi": 'is read by slideio: pip install "hrviewer[microscopes]"',
    ".vsi": 'is read by slideio: pip install "hrviewer[microscopes]"',
    ".nd2": 'is read by nd2: pip install "hrviewer[microscopes]"',
    ".lif": 'is read by liffile: pip install "hrviewer[microscopes]"',
    ".ets": "holds the pixels of a VSI: open the .vsi file that belongs to it",
    ".mrxs": "is the index of a slide, whose folder of the same name is missing or incomplete: "
    "copy both",
    ".dcm": "is DICOM, but no whole-slide image: convert it, for example by `dcm2img`",
    ".isyntax": ISYNTAX,
    ".i2syntax": ISYNTAX,
    **dict.fromkeys(
        (".onnx", ".safetensors", ".pt", ".pth", ".torchscript"),
        "is a model, not an image: open it as one, with `--model` on the command line",
    ),
    **{
        suffix: f"is in the format {name}, which is not read: convert it by `bioformats2raw`, "
        "which makes an OME-Zarr"
        for suffix, name in {
            ".oir": "OIR", ".oib": "OIB", ".oif": "OIF", ".stk": "STK", ".dv": "DeltaVision",
        }.items()
    },
    **{
        suffix: f"is in the format {name}, {BY_VIEWER}"
        for suffix, name in {".kfb": "KFB", ".sdpc": "SDPC", ".mds": "MDS"}.items()
    },
    **{
        suffix: f"is in the format {name}, {BY_GDAL}"
        for suffix, name in {".ecw": "ECW", ".sid": "MrSID"}.items()
    },
    **{
        suffix: f"is in the format {name}, which is not read: save it as PNG or TIFF"
        for suffix, name in {
            ".heic": "HEIC", ".heif": "HEIF", ".svg": "SVG", ".mp4": "MP4", ".mov": "MOV",
            ".avi": "AVI",
        }.items()
    },
}  # fmt: skip


def check_content(path: Path) -> str | None:
    """Return why a file holds no image at all, before a reader is asked; None if it may.

    It may be empty, or stand in for an image that was not downloaded.
    """
    try:
        if not path.is_file():
            special = path.exists() and not path.is_dir()
            return f"{path.name} is a device or pipe, not a file" if special else None
    except OSError as error:  # as of a name that is too long
        return f"{str(path)[:60]}… cannot be opened: {error.strerror}"
    if path.stat().st_size == 0:
        return f"{path.name} is empty (0 bytes): copy or download it again"
    head = _head(path)
    for beginning, reason in NOT_AN_IMAGE:
        if head.lstrip().lower().startswith(beginning):
            return f"{path.name} {reason}"
    if not any(head):
        return f"{path.name} begins with zeros only, as after a broken copy: copy it again"
    return None


def explain_unreadable(path: Path) -> str:
    """Return why no reader opens a file or folder, and what to do."""
    if not path.exists():
        return f"{path}: there is no such file or folder"
    if path.is_dir():
        return f"{path.name} is a folder that is not an image: name the file or OME-Zarr in it"
    if path.suffix.lower() in BY_SUFFIX:
        return f"{path.name} {BY_SUFFIX[path.suffix.lower()]}"
    head = _head(path)
    coding = _jpeg_coding(_head(path, MAX_JPEG_HEADER))
    if coding is not None:
        return f"{path.name} is {coding}, {BY_IMAGECODECS}"
    reasons = [reason for beginning, reason in UNSUPPORTED if head.startswith(beginning)]
    reasons += [reason for at, mark, reason in INSIDE if head.startswith(mark, at)]
    if reasons:
        return f"{path.name} {reasons[0]}"
    text = head.decode("utf-8", "ignore")  # the last character may be cut
    if len(text.encode()) > len(head) - 4 and all(c.isprintable() or c in "\r\n\t" for c in text):
        return f"{path.name} is a text file, not an image"
    return f"{path.name} is not an image in a format that hrviewer reads: {TO_TILED_TIFF}"


def _head(path: Path, size: int = HEAD_BYTES) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(size)
    except OSError:
        return b"?"


def _jpeg_coding(data: bytes) -> str | None:
    """Return the coding of a JPEG that few programs decode; None for the usual one."""
    at = 2
    while data[:2] == b"\xff\xd8" and at + 5 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker in JPEG_CODINGS:
            return JPEG_CODINGS[marker]
        if marker in (0xC0, 0xC1, 0xC2):
            return f"a JPEG of {data[at + 4]} bits" if data[at + 4] > 8 else None
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None
