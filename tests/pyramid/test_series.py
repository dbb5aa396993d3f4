"""Files with several images: which is opened, and how another one is chosen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr

from hrviewer.errors import ParameterError
from hrviewer.pyramid import open_pyramid, reopen_pyramid
from hrviewer.pyramid.readers.openslide import DICOM_SERIES
from hrviewer.pyramid.series import Series, choose_series, kind_by_name
from hrviewer.runs.provenance import image_info


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


def test_an_omezarr_with_two_multiscales(tmp_path: Path) -> None:
    group = zarr.open_group(tmp_path / "two.zarr", mode="w")
    multiscales = []
    for name, side in ("small", 20), ("large", 40):
        group.create_array(name, data=np.full((side, side), side, np.uint8))
        axes = [{"name": "y"}, {"name": "x"}]
        multiscales.append({"name": name, "axes": axes, "datasets": [{"path": name}]})
    group.attrs["ome"] = {"version": "0.5", "multiscales": multiscales}
    with open_pyramid(tmp_path / "two.zarr") as image:
        assert (image.selected_series, image.plane_shape) == ("1", (40, 40))
        assert any("choose another with series: 0 'small'" in note for note in image.notes)
        other = open_pyramid(tmp_path / "two.zarr", series="small")
        assert (other[...] == 20).all()
        assert other.fingerprint != image.fingerprint


def test_a_folder_of_two_dicom_slides(shared: Path, tmp_path: Path) -> None:
    pytest.importorskip("openslide")
    for number, folder in enumerate(("first", "second")):
        for file in (shared / "data" / "wsi" / "CMU-1-Small-Region-dicom").glob("*.dcm"):
            content = file.read_bytes()
            found = DICOM_SERIES.search(content)
            assert found is not None
            other = found[1][:-1] + str((int(found[1][-1:]) + number) % 10).encode()
            changed = content.replace(found[1], other)
            (tmp_path / f"{folder}-{file.name}").write_bytes(changed)
    with open_pyramid(tmp_path) as image:
        assert [entry.kind for entry in image.series] == ["image", "image"]
        assert image.selected_series == "0"
        assert len(image.notes) == 1
        image.check()
        second = open_pyramid(tmp_path, series=1)
        assert second.plane_shape == image.plane_shape
        assert second.fingerprint != image.fingerprint
