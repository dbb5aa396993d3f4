"""`info`: what an image is, and what is none."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest

from hrviewer.cli import view

from .calling import RUN, call, refused, started


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
        shape=(2, 3),
        channels=1,
        dtype=np.dtype("f4"),
        pixel_size=(1, 2),
        nodata=float("nan"),
        levels=[level],
        fingerprint="f",
        notes=[],
    )
    properties = view.describe_image(pyramid)
    assert properties["nodata"] == "nan"
    json.dumps(properties, allow_nan=False)


def test_unreadable_images_are_one_line(tmp_path):
    (tmp_path / "torn.tif").write_bytes(b"II*\0torn")
    assert "nothing.tif" in refused("info", tmp_path / "nothing.tif")
    assert "torn.tif" in refused("info", tmp_path / "torn.tif")
    assert "torn.tif" in refused("run", tmp_path / "torn.tif", *RUN)


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
