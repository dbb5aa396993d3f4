"""JPEGs of many scans: a small file that takes minutes to decode."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from hrviewer.errors import ImageReadError
from hrviewer.pyramid import open_pyramid


def progressive(scans: int = 0) -> bytes:
    """Return a progressive JPEG, with its last scan repeated."""
    pixels = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    Image.fromarray(pixels).save(stream := io.BytesIO(), "JPEG", progressive=True)
    data = stream.getvalue()
    return data[:-2] + data[data.rindex(b"\xff\xda") : -2] * scans + b"\xff\xd9"


def test_many_scans_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(progressive(100))
    with pytest.raises(ImageReadError, match="more than 100 scans"):
        open_pyramid(path)


def test_usual_ones_open_also_with_a_film_behind_them(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(progressive(5) + b"\xff\xda" * 1000)
    with open_pyramid(path) as image:
        assert image.shape == (64, 64, 3)


def test_tiles_of_many_scans_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as file:
        file.write(
            iter([progressive(100)]), shape=(64, 64, 3), dtype="u1", tile=(64, 64),
            photometric="ycbcr", compression="jpeg", subsampling=(2, 2),
        )  # fmt: skip
    with pytest.raises(ImageReadError, match="more than 100 scans"):
        open_pyramid(path).levels[0].read(0, 64, 0, 64)
