"""What files are called that are no images, or not read; and the next step."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image

from hrviewer.errors import HrviewerError, ImageReadError, ParameterError
from hrviewer.pyramid import open_pyramid
from hrviewer.pyramid.readers import tiff_channels


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.svs", b"", "is empty (0 bytes)"),
        ("a.png", b"", "is empty (0 bytes)"),
        ("a.tif", b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "`git lfs pull`"),
        ("a.svs", b"\n<!DOCTYPE html><html>", "is a web page: the download failed"),
        ("a.jpg", bytes(4096), "begins with zeros only"),
        ("a.ims", b"\x89HDF\r\n\x1a\n" + bytes(2048), "is HDF5 (also Imaris and NetCDF 4)"),
        ("a.nc", b"CDF\x01" + bytes(64), "`gdal_translate -of COG IN OUT.tif`"),
        ("a.vrt", b"<VRTDataset rasterXSize='1'>", "is a virtual mosaic of GDAL"),
        ("a.isyntax", b"<DataObject>", "`isyntax-to-tiff IN OUT.tiff` of libisyntax"),
        (
            "a.npy",
            b"\x93NUMPY\x01\x00" + bytes(99),
            "is a NumPy array: load it by np.load",
        ),
        ("a.grb", b"GRIB" + bytes(99), "is GRIB, which is not read: convert it by `gdal_translate"),
        (
            "a.jxl",
            b"\xff\x0a" + bytes(9),
            "is JPEG XL, which is not read: decode it by imagecodecs",
        ),
        ("a.jpg", b"\xff\xd8\xff\xc1\x00\x0b\x0c" + bytes(9), "is a JPEG of 12 bits, which is not"),
        ("a.jpg", b"\xff\xd8\xff\xc3\x00\x0b\x10" + bytes(9), "is a lossless JPEG, which is not"),
        ("a.jls", b"\xff\xd8\xff\xf7\x00\x0b\x08" + bytes(9), "is JPEG-LS, which is not read"),
        ("a.webp", b"RIFF\x09\x01\x00\x00WEBPVP8X" + bytes(9), "is a WebP that cannot be decoded"),
        ("a.fits", b"SIMPLE  =" + b" " * 90 + b"T", "load it by astropy.io.fits.getdata in Python"),
        (
            "a.nrrd",
            b"NRRD0004\ntype: uint8\n\n",
            "is NRRD, which is not read: load it by nrrd.read",
        ),
        ("a.mrc", b"\x09" + bytes(207) + b"MAP " + bytes(9), "load it by mrcfile.read in Python"),
        ("a.nii", b"\x5c\x01" + bytes(342) + b"n+1\0" + bytes(9), "load it by nibabel.load"),
        ("a.psd", b"8BPS\x00\x01" + bytes(9), "is a PSD of Photoshop"),
        ("a.jpg", b"\xff\xd8\xff\xe0\x00\x10JFIF\x00", "may be cut short, copy it again"),
        ("a.ndpis", b"[NanoZoomer Digital Pathology Image Set]\n", "is a list of NDPI files"),
        ("a.dcm", bytes(128) + b"DICM" + bytes(range(99)), "is DICOM, but no whole-slide image"),
        ("a.mrxs", b"\xff\xd8\xff\xe0" + bytes(99), "folder of the same name is missing"),
        ("a.kfb", b"KFB\xff", "export it as OME-TIFF or TIFF in its own viewer"),
        ("a.pdf", b"%PDF-1.7", "is a PDF"),
        ("a.onnx", b"\x08\x07", "is a model, not an image"),
        ("a.md", "# 12 µm × 3\n".encode() * 99, "is a text file, not an image"),
        ("a.csv", b"x,y\n1,2\n", "is a text file, not an image"),
        ("a.svs", b"\x01\x02\xff", "`vips tiffsave IN OUT.tif --tile --pyramid --bigtiff`"),
    ],
)
def test_a_file_is_called_what_it_is(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(HrviewerError, match=re.escape(message)) as caught:
        open_pyramid(path)
    assert "damaged" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_folders_and_missing_files(tmp_path: Path) -> None:
    with pytest.raises(HrviewerError, match="is a folder that is not an image"):
        open_pyramid(tmp_path)
    with pytest.raises(HrviewerError, match="there is no such file"):
        open_pyramid(tmp_path / "gone.tif")


@pytest.mark.filterwarnings("ignore:Dataset has no geotransform")
def test_a_palette_of_two_colours(tmp_path: Path) -> None:
    rasterio = pytest.importorskip("rasterio")
    marks = np.arange(200).reshape(10, 20) % 3 == 0
    path = tmp_path / "a.tif"
    with rasterio.open(
        path, "w", driver="GTiff", width=20, height=10, count=1, dtype="uint8", nbits=1
    ) as out:
        out.write(marks.astype(np.uint8), 1)
        out.write_colormap(1, {0: (0, 0, 200), 1: (30, 160, 30)})
    with open_pyramid(path) as image:
        assert (image[...][marks] == (30, 160, 30)).all()
        assert (image[...][~marks] == (0, 0, 200)).all()


def test_another_reader_is_asked_for_a_coding_that_is_not_supported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.tif"
    pixels = np.arange(600, dtype=np.uint8).reshape(20, 30)
    Image.fromarray(pixels).save(path, compression="tiff_lzw")
    monkeypatch.setattr(tiff_channels, "unsupported_coding", lambda key: "is in another coding")
    with open_pyramid(path) as image:
        np.testing.assert_array_equal(image[..., 0], pixels)
    # What Pillow does not decode either is refused by the first reason.
    with tifffile.TiffFile(path) as tiff:
        at, count = tiff.pages[0].dataoffsets[0], tiff.pages[0].databytecounts[0]
    content = bytearray(path.read_bytes())
    content[at : at + count] = b"\xff" * count
    path.write_bytes(content)
    with pytest.raises(HrviewerError, match=r"a\.tif is in another coding"):
        open_pyramid(path)


def test_a_format_of_an_extra_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "slideio", None)
    path = tmp_path / "a.czi"
    path.write_bytes(bytes(range(256)))
    with pytest.raises(HrviewerError, match=r'a\.czi is read by slideio: .*\[microscopes\]"$'):
        open_pyramid(path)


def test_a_wrong_option_is_not_called_an_unsupported_coding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.tif"
    Image.fromarray(np.zeros((20, 30), np.uint8)).save(path)
    monkeypatch.setattr(tiff_channels, "unsupported_coding", lambda key: "is in another coding")
    with pytest.raises(ParameterError, match=r"a\.tif has no channel 5"):
        open_pyramid(path, channels=[5])


@pytest.mark.skipif(sys.platform == "win32", reason="pipes are POSIX's")
def test_a_pipe_is_refused_before_it_is_read(tmp_path):
    os.mkfifo(tmp_path / "a.tif")
    with pytest.raises(ImageReadError, match="device or pipe"):
        open_pyramid(tmp_path / "a.tif")


def test_images_of_thousands_of_levels_are_refused(tmp_path):
    levels = [{"path": "0"}] * 2000
    axes = [{"name": "y"}, {"name": "x"}]
    ome = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": levels}]}
    group = zarr.open_group(tmp_path / "a.ome.zarr", mode="w", attributes={"ome": ome})
    group.create_array("0", shape=(8, 8), dtype="u1")
    with pytest.raises(ImageReadError, match="2,000 levels"):
        open_pyramid(tmp_path / "a.ome.zarr")


def test_images_of_impossible_size_are_refused(tmp_path):
    axes = [{"name": "y"}, {"name": "x"}]
    ome = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": [{"path": "0"}]}]}
    group = zarr.open_group(tmp_path / "a.ome.zarr", mode="w", attributes={"ome": ome})
    group.create_array("0", shape=(1 << 31, 8), chunks=(8, 8), dtype="u1")
    with pytest.raises(ImageReadError, match="too many"):
        open_pyramid(tmp_path / "a.ome.zarr")
