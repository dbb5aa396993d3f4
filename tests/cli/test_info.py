"""`info`: what an image is, and what is none."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile

from hrviewer.cli import view
from hrviewer.pyramid import open_pyramid
from hrviewer.pyramid.value_range import ValueRange

from .calling import RUN, call, error_of, started


def test_info(image):
    text = call("info", image).stdout
    assert "300 × 400 pixels" in text
    assert "3 × uint8" in text
    properties = json.loads(call("info", image, "--json").stdout)
    assert properties["shape"] == [300, 400]
    assert properties["channels"] == 3
    assert properties["dtype"] == "uint8"
    assert properties["pixel_size"] is None
    assert properties["levels"][0] == {"shape": [300, 400], "downsample": [1, 1], "tile": [64, 64]}
    assert properties["fingerprint"] in text


def test_json_of_info_is_strict_with_nan_nodata(monkeypatch):
    level = SimpleNamespace(shape=(2, 3, 1), downsample=(1.0, 1.0), tile=(2, 3))
    pyramid = SimpleNamespace(
        path=None,
        name="a",
        plane_shape=(2, 3),
        channels=1,
        dtype=np.dtype("f4"),
        pixel_size=(1, 2),
        nodata=float("nan"),
        has_mask=False,
        levels=[level],
        fingerprint="f",
        series=(),
        value_range=ValueRange(0, 1),
        selected_series=None,
        available_channels=(),
        plane_sizes={},
        plane={},
        notes=[],
    )
    properties = view.describe_image(pyramid)
    assert properties["nodata"] == "nan"
    json.dumps(properties, allow_nan=False)


def test_unreadable_images_are_one_line(toys, tmp_path):
    (tmp_path / "torn.tif").write_bytes(b"II*\0torn")
    assert "nothing.tif" in error_of("info", tmp_path / "nothing.tif")
    assert "torn.tif" in error_of("info", tmp_path / "torn.tif")
    assert "torn.tif" in error_of("run", tmp_path / "torn.tif", *RUN)


GOOD = ("wsi/*", "aerial/*.tif", "aerial/*.png", "aerial/*.jp*", "nuclei/0*.png",
        "orientation/*.tif*", "omezarr/valid/image-*", "omezarr/warning/image-*")  # fmt: skip


@pytest.mark.parametrize("pattern", GOOD)
def test_valid_files_are_opened(shared, pattern):
    for path in sorted((shared / "data").glob(pattern)):
        properties = json.loads(call("info", path, "--json").stdout)
        assert min(properties["shape"]) > 0, path


@pytest.mark.parametrize("pattern", ["bad/*", "omezarr/invalid/*"])
def test_invalid_files_are_one_line(shared, pattern):
    for path in sorted((shared / "data").glob(pattern)):
        process = started(f"from hrviewer.cli import app; app(['info', {str(path)!r}])")
        out, err = process.communicate()
        assert (process.returncode, out, len(err.splitlines())) == (1, "", 1), (path, err)


@pytest.fixture
def stack(tmp_path):
    """A z stack of four channels whose pixels are ``10 z + c``."""
    values = np.arange(3)[:, None, None, None] * 10 + np.arange(4)[None, :, None, None]
    path = tmp_path / "stack.ome.tif"
    pixels = np.broadcast_to(values, (3, 4, 64, 80)).astype(np.uint8)
    tifffile.imwrite(path, pixels, ome=True, metadata={"axes": "ZCYX"}, photometric="minisblack")
    return path


OPTIONS = ("--plane", "z=2", "--channels", "3,1", "--pixel-size", "0.5,0.25")


def test_plane_channels_and_pixel_size(stack, tmp_path):
    properties = json.loads(call("info", stack, *OPTIONS, "--json").stdout)
    assert properties["channels"] == 2
    assert properties["pixel_size"] == [0.5, 0.25]
    out = tmp_path / "a.ome.zarr"
    call("convert", stack, out, *OPTIONS)
    with open_pyramid(out) as pyramid:
        assert pyramid.pixel_size == pytest.approx((0.5, 0.25))
        np.testing.assert_array_equal(np.unique(pyramid.read(pyramid.rect)[..., 0]), [23])
        np.testing.assert_array_equal(np.unique(pyramid.read(pyramid.rect)[..., 1]), [21])
    assert json.loads(call("info", stack, "--pixel-size", "0.5", "--json").stdout)[
        "pixel_size"
    ] == [0.5, 0.5]
    assert "z" in error_of("info", stack, "--plane", "z=9")
    assert "channel" in error_of("info", stack, "--channels", "9")


@pytest.mark.parametrize(
    ("option", "value"),
    [("--plane", "z"), ("--plane", "z=top"), ("--plane", "z=1,t"), ("--channels", "red,"),
     ("--channels", ""),
     ("--pixel-size", "small"), ("--pixel-size", "0"), ("--pixel-size", "1,2,3"),
     ("--pixel-size", "nan")],
)  # fmt: skip
def test_invalid_image_options_are_wrong_usage(option, value):
    for command in (["info", "a.tif"], ["run", "a.tif", *RUN], ["convert", "a.tif", "b.ome.zarr"]):
        assert option in call(*command, option, value, status=2).stderr


def test_series_are_listed_and_selected(tmp_path):
    path = tmp_path / "two.tif"
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(np.zeros((40, 50), np.uint8))
        tiff.write(np.zeros((20, 30), np.uint8))
    printed = call("info", str(path)).stdout
    assert "series       0 (40 × 50)" in printed
    assert "series       1 (20 × 30)" in printed
    assert "size         20 × 30" in call("info", str(path), "--series", "1").stdout
    assert "has no series '2'" in error_of("info", path, "--series", "2")
