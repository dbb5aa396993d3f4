"""Files with several images: which is opened, and how another one is chosen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile

from hrviewer.errors import ParameterError
from hrviewer.pyramid import open_pyramid, reopen_pyramid
from hrviewer.pyramid.series import Series, choose_series, kind_by_name
from hrviewer.runs.runner import image_info


@pytest.fixture
def several(tmp_path: Path) -> Path:
    """Return an OME-TIFF of a label, two images and a mask, each filled with its index."""
    path = tmp_path / "several.ome.tif"
    shapes = {"label image": (30, 40), "left": (60, 80), "right": (90, 80), "cells_mask": (95, 90)}
    with tifffile.TiffWriter(path, ome=True) as tiff:
        for index, (name, shape) in enumerate(shapes.items()):
            size = {"PhysicalSizeX": 0.25 * (index + 1), "PhysicalSizeY": 0.5 * (index + 1)}
            pixels = np.full(shape, index, np.uint8)
            tiff.write(pixels, photometric="minisblack", metadata={"Name": name, **size})
    return path


def test_the_largest_image_is_opened_with_its_own_pixel_size(several: Path) -> None:
    with open_pyramid(several) as image:
        assert [entry.kind for entry in image.series] == ["label", "image", "image", "mask"]
        assert image.selected_series == "2"
        assert (image[...] == 2).all()
        assert image.pixel_size == (1.5, 0.75)
        assert "label image" in image.notes[0]
        record = image_info(image)
    with open_pyramid(several, series="left") as left:
        assert (left[...] == 1).all()
        assert left.pixel_size == (1.0, 0.5)
        assert left.image_key != image.image_key
        assert left.notes == []
    with reopen_pyramid(record) as again:
        assert again.image_key == image.image_key
    with pytest.raises(ParameterError, match=r"no series 'third'; it has: 0 'label image'"):
        open_pyramid(several, series="third")
    with pytest.raises(ParameterError, match="open with series=2"):
        open_pyramid(image, series=0)


def test_what_is_stored_besides_does_not_change_the_identity(tmp_path: Path) -> None:
    path = tmp_path / "thumbnail-first.tif"
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(np.zeros((20, 30), np.uint8), subfiletype=1)
        tiff.write(np.ones((200, 300), np.uint8))
    with open_pyramid(path) as image:
        assert image.plane_shape == (200, 300)
        assert [entry.kind for entry in image.series] == ["thumbnail", "image"]
        thumbnail = open_pyramid(path, series=0)
        assert thumbnail.plane_shape == (20, 30)
        assert thumbnail.fingerprint != image.fingerprint


def test_a_file_of_one_image_has_one_series() -> None:
    array = np.zeros((20, 30), np.uint8)
    with open_pyramid(array, series=0) as image:
        assert image.series == (Series("0", shape=(20, 30)),)
        assert (image.selected_series, len(image.notes)) == (None, 1)
    with pytest.raises(ParameterError, match="no series 1"):
        open_pyramid(array, series=1)


def test_choice_prefers_ids_then_names_then_indices() -> None:
    series = [Series("7", "a"), Series("a", "7"), Series("x", "b")]
    assert [choose_series("f", series, wanted, []) for wanted in ("7", "a", "B", 2)] == [0, 1, 2, 2]
    names = ("Macro", "macrophages", "label image", "Thumbnail", "LabelFree", "tissue_mask")
    kinds = ["macro", "image", "label", "thumbnail", "image", "mask"]
    assert [kind_by_name(name) for name in names] == kinds
