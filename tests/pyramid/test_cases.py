"""Files that other programs read wrong: what must hold of each, with its right value.

The cases lie outside the project (``cases/formats`` of the real data) with their right values in
``cases.json``; the tests are skipped where they are absent.
"""

from __future__ import annotations

import json
import sys
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from hrviewer.errors import HrviewerError
from hrviewer.pyramid import Pyramid, open_pyramid


@pytest.fixture(scope="session")
def right_values(cases: Path) -> Mapping[str, Any]:
    entries = json.loads((cases / "cases.json").read_text())
    return {entry["name"]: entry["right"] for entry in entries}


def open_case(cases: Path, name: str, folder: Path, **options: Any) -> Pyramid:
    path = cases / name
    if name.endswith(".unzip-first.zip"):
        with zipfile.ZipFile(path) as archive:
            archive.extractall(folder)
        stem = name.removesuffix(".unzip-first.zip")
        path = folder / stem if (folder / stem).exists() else next(folder.iterdir())
    return open_pyramid(path, **options)


def check_scn(image: Pyramid, right: Any) -> None:
    assert [level.shape[1::-1] for level in image.levels] == [
        tuple(size) for size in right["openslide_levels_wh"]
    ]
    assert image.pixel_size == pytest.approx((right["openslide_mpp"],) * 2)
    assert [entry.kind for entry in image.series] == ["image", "macro"]


def check_label_first(image: Pyramid, right: Any) -> None:
    assert image.plane_shape == tuple(right["shape"])
    assert len(image.levels) == right["levels"]
    assert image.pixel_size == pytest.approx(right["pixel_size"])
    assert [entry.kind for entry in image.series] == ["label", "macro", "image"]
    assert any("slide_20x" in note and "label image" in note for note in image.notes)


def check_thumbnail_first(image: Pyramid, right: Any) -> None:
    assert image.plane_shape == tuple(right["shape"])
    assert any("128 × 128" in note for note in image.notes)


def check_philips(image: Pyramid, right: Any) -> None:
    assert image.pixel_size == pytest.approx((right["mpp"],) * 2)
    assert [list(level.shape[:2]) for level in image.levels] == right["levels"]
    row, column = right["left_out_tiles_256"][0]
    assert (image.levels[0][256 * row, 256 * column] == 255).all()


def check_ventana(image: Pyramid, right: Any) -> None:
    assert image.plane_shape == tuple(right["openslide_shape"])
    assert image.pixel_size == pytest.approx((right["mpp"],) * 2)


def check_collection(image: Pyramid, right: Any) -> None:
    assert [entry.id for entry in image.series] == right["series"]
    assert image.plane_shape == tuple(right["main_shape"])
    assert any(note.startswith("series 1") for note in image.notes)


def check_several_files(image: Pyramid, right: Any) -> None:
    assert image.plane_shape == tuple(right["shape"])
    assert any(f"of {right['z']}" in note for note in image.notes)


OPENED: dict[str, Callable[[Pyramid, Any], None]] = {
    "leica_macro_first.scn": check_scn,
    "ome_label_first.ome.tif": check_label_first,
    "thumb_page_first.tif": check_thumbnail_first,
    "philips_sparse.tiff": check_philips,
    "ventana_overlap.bif": check_ventana,
    "bf2raw.zarr.unzip-first.zip": check_collection,
    "viv_multifile/multifile-Z1.ome.tiff": check_several_files,
    "viv_multifile/multifile.companion.ome": check_several_files,
}


@pytest.mark.parametrize("name", OPENED)
def test_the_image_that_is_meant_is_opened(
    cases: Path, right_values: Mapping[str, Any], tmp_path: Path, name: str
) -> None:
    if name.endswith((".scn", ".bif")) or name.startswith("philips"):
        pytest.importorskip("openslide")
    with open_case(cases, name, tmp_path) as image:
        OPENED[name](image, right_values[name.split("/")[0]])
        image.check()


def check_shape_and_size(image: Pyramid, right: Any) -> None:
    assert image.plane_shape == tuple(right["shape"])
    if "pixel_size" in right:
        assert image.pixel_size == pytest.approx(right["pixel_size"])


def check_two_colours(image: Pyramid, right: Any) -> None:
    found = {tuple(map(int, colour)) for colour in image[...].reshape(-1, 3)}
    assert found == {tuple(colour) for colour in right["colours"]}


def check_range(image: Pyramid, right: Any) -> None:
    assert image.value_range.ends == (0, 1)


def check_metres(image: Pyramid, right: Any) -> None:
    assert image.georeference is not None
    assert image.georeference.crs == "EPSG:32633"
    assert image.pixel_size == pytest.approx((200_000, 200_000))


@pytest.mark.parametrize(
    ("name", "check"),
    [
        ("ome_decimal_comma.ome.tif", check_shape_and_size),
        ("pillow_palette_1bit.tiff", check_shape_and_size),
        ("landcover_1bit_palette.tif", check_two_colours),
        ("he_f32_0to1.tif", check_range),
        ("naip_4band.tif", check_metres),
    ],
)
def test_numbers_and_sizes(
    cases: Path,
    right_values: Mapping[str, Any],
    name: str,
    check: Callable[[Pyramid, Any], None],
) -> None:
    with open_pyramid(cases / name) as image:
        check(image, right_values[name])


@pytest.mark.parametrize(
    ("name", "message"), [("image.h5", "is HDF5"), ("mosaic.vrt", "gdal_translate")]
)
def test_what_is_not_read_is_called_so(cases: Path, name: str, message: str) -> None:
    with pytest.raises(HrviewerError, match=message) as caught:
        open_pyramid(cases / name)
    assert "damaged" not in str(caught.value)


def test_a_preview_is_not_opened_as_the_slide(cases: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "slideio", None)
    with pytest.raises(HrviewerError, match="preview"):
        open_pyramid(cases / "vsi-ets-test-jpg2k.vsi")
