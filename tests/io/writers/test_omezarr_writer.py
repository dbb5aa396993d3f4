"""OME-Zarr export: valid for several validators, aligned with the image, in bounded memory."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import zarr
from made_runs import Made
from toys import picture, toy_bundle

from hrviewer.errors import HrviewerError
from hrviewer.io import export
from hrviewer.io.downsampling import mean_2x2
from hrviewer.io.ome_metadata import create_image
from hrviewer.io.run_maps import open_map
from hrviewer.io.writers.omezarr import COARSEST, copy_map
from hrviewer.pyramid import open_pyramid
from hrviewer.runs import run as run_strategy

MAPS = ("output", "saliency", "cost")


def attributes(path: Path) -> dict:
    return json.loads((path / "zarr.json").read_text("utf-8"))["attributes"]


def means(values: np.ndarray) -> np.ndarray:
    """Halve by NumPy's own means."""
    k, rows, columns = values.shape
    even = np.full((k, rows + rows % 2, columns + columns % 2), np.nan)
    even[:, :rows, :columns] = values
    parts = np.stack([even[:, i::2, j::2] for i in (0, 1) for j in (0, 1)])
    empty = np.isnan(parts).all(0)
    parts[:, empty] = 0
    return np.where(empty, np.nan, np.nanmean(parts, 0))


@pytest.fixture
def real(tmp_path):
    """Return a run that the engine made."""
    out = tmp_path / "real.run.zarr"
    return run_strategy(picture(300, 400), toy_bundle(), "patches", tile=64, out=out, cache="off")


@pytest.fixture
def stores(made, real, tmp_path):
    """Return all that must be valid: images alone and together, exported and as runs keep them."""
    one, two = export(made(), tmp_path / "a.ome.zarr"), export(real, tmp_path / "b.ome.zarr")
    return [one, two, *(path / name for path in (one, two, real.path) for name in MAPS)]


def test_valid_for_yaozarrs(stores):
    yaozarrs = pytest.importorskip("yaozarrs")
    for path in stores:
        assert yaozarrs.validate_zarr_store(str(path)) is not None


def test_valid_for_ome_zarr_models(stores):
    models = pytest.importorskip("ome_zarr_models")
    for path in stores:
        found = models.open_ome_zarr(zarr.open_group(path, mode="r"), version="0.5")
        assert type(found).__name__ == "Image"


def validators(shared: Path, version: str):
    """Return what checks attributes against an official schema."""
    jsonschema = pytest.importorskip("jsonschema")
    from referencing import Registry
    from referencing.jsonschema import DRAFT202012

    folder = shared / "data" / "ngff-schemas" / version
    schemas = {path.name: json.loads(path.read_text()) for path in folder.glob("*.schema")}
    registry = Registry().with_resources(
        (schema["$id"], DRAFT202012.create_resource(schema)) for schema in schemas.values()
    )

    def check(name: str, document: dict) -> None:
        jsonschema.Draft202012Validator(schemas[name], registry=registry).validate(document)

    return check


def test_valid_for_the_official_schemas(stores, shared):
    import jsonschema

    check = validators(shared, "0.5")
    for path in stores:
        check("strict_image.schema", attributes(path))
        if path.name.endswith(".ome.zarr"):
            check("bf2raw.schema", attributes(path))
            check("ome.schema", attributes(path / "OME"))
    with pytest.raises(jsonschema.ValidationError):
        check("strict_image.schema", attributes(stores[0] / "OME"))


@pytest.fixture(params=["0.5", "0.4"])
def classes(request, made, tmp_path):
    """Return a segmentation's export with its image, and the run, by version."""
    output = np.random.default_rng(0).random((2, 700, 600), dtype=np.float32)
    output[:, :100] = np.nan
    run = made(output=output, answer="area", geo=True)
    with open_pyramid(run.header["image"]["path"]) as pyramid:
        run.header["image"]["fingerprint"] = pyramid.fingerprint
    path = export(run, tmp_path / "a.ome.zarr", version=request.param, image=True)
    return request.param, path, run


def ome_attributes(version: str, path: Path) -> dict:
    """Return what the schemas check."""
    if version == "0.5":
        return attributes(path)
    return json.loads((path / ".zattrs").read_text("utf-8"))


def test_both_versions_are_valid(classes, shared):
    import ome_zarr_models
    import yaozarrs

    version, path, _ = classes
    schemas = validators(shared, version)
    images = [path, *(path / name for name in (*MAPS, "image"))]
    for image in images:
        group = zarr.open_group(image, mode="r")
        assert group.metadata.zarr_format == {"0.5": 3, "0.4": 2}[version]
        assert type(ome_zarr_models.open_ome_zarr(group, version=version)).__name__ == "Image"
        yaozarrs.validate_zarr_store(str(image))
        schemas("strict_image.schema", ome_attributes(version, image))
    schemas("bf2raw.schema", ome_attributes(version, path))
    schemas("ome.schema", ome_attributes(version, path / "OME"))
    labels = path / "output" / "labels"
    yaozarrs.validate_zarr_store(str(labels / "classes"))
    schemas("strict_label.schema", ome_attributes(version, labels / "classes"))


def test_labels_are_the_most_probable_classes(classes):
    _, path, run = classes
    output = zarr.open_array(run.path / "output" / "0")[:]
    expected = np.where(np.isnan(output[0]), 0, 1 + (output[1] > output[0]))
    for i in range(2):
        found = zarr.open_array(path / "output" / "labels" / "classes" / str(i))
        np.testing.assert_array_equal(found[0], expected[:: 2**i, :: 2**i])


def test_napari_ome_zarr_opens_both_versions(classes):
    reader = pytest.importorskip("napari_ome_zarr").napari_get_reader
    _, path, run = classes
    layers = reader(str(path))(str(path))
    assert [kind for *_, kind in layers].count("image") == 4
    both = reader(str(path / "output"))(str(path / "output"))
    kinds = {kind: (data, about) for data, about, kind in both}
    assert set(kinds) == {"image", "labels"}
    assert kinds["labels"][0][0].shape[-2:] == (700, 600)
    total = np.nansum(np.asarray(kinds["image"][0][0]), dtype=float)
    assert total == pytest.approx(np.nansum(zarr.open_array(run.path / "output" / "0")[:]), 1e-6)


def test_image_is_included_on_request(classes):
    _, path, run = classes
    with open_pyramid(path / "image") as image, open_pyramid(run.header["image"]["path"]) as base:
        assert image.plane_shape == base.plane_shape == (2800, 2400)
        assert len(image.levels) == 4
        np.testing.assert_array_equal(image.read(image.rect, 8.0), base.read(base.rect, 8.0))


def test_changed_image_is_rejected(made, tmp_path):
    with pytest.raises(HrviewerError, match="has changed since"):
        export(made(geo=True), tmp_path / "a.ome.zarr", image=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["geo", "made.run.zarr"]


def test_large_maps_are_sharded(made, tmp_path):
    path = export(made(), tmp_path / "a.ome.zarr")
    finest = zarr.open_array(path / "output" / "0")
    assert finest.shards == (1, 1024, 1024)
    assert finest.chunks == (1, 512, 512)


def test_napari_ome_zarr_opens_every_map(made, tmp_path):
    reader = pytest.importorskip("napari_ome_zarr").napari_get_reader
    path = export(made(), tmp_path / "a.ome.zarr")
    together = reader(str(path))(str(path))
    assert [len(layer[1]["name"]) for layer in together] == [2, 1, 7]
    for name, cell, layer in zip(MAPS, (4, 16, 16), together, strict=True):
        for data, about, kind in (layer, *reader(str(path / name))(str(path / name))):
            assert kind == "image"
            assert [level.shape for level in data] == [
                zarr.open_array(path / name / str(i)).shape for i in range(len(data))
            ]
            # It leaves the levels' translations out (0.10).
            assert about["scale"] == [cell * 0.25, cell * 0.5]


def test_hrviewer_opens_its_own_export(made, tmp_path):
    with open_pyramid(export(made(), tmp_path / "a.ome.zarr")) as pyramid:
        assert pyramid.plane_shape == (700, 1100)
        assert pyramid.channels == 2
        assert pyramid.pixel_size == pytest.approx((1.0, 2.0))
        pyramid.check()


def test_levels_are_means_down_to_the_coarsest(made, tmp_path):
    run = made()
    path = export(run, tmp_path / "a.ome.zarr")
    for name in MAPS:
        datasets = attributes(path / name)["ome"]["multiscales"][0]["datasets"]
        expected = zarr.open_array(run.path / name / "0")[:]
        kind = expected.dtype
        for i, dataset in enumerate(datasets):
            level = zarr.open_array(path / name / dataset["path"])
            assert level.dtype == kind
            np.testing.assert_allclose(level[:], expected, rtol=1e-6)
            expected = means(level[:])
            assert (max(level.shape) <= COARSEST) == (i == len(datasets) - 1)
    assert len(attributes(path / "output")["ome"]["multiscales"][0]["datasets"]) == 3
    assert len(attributes(path / "cost")["ome"]["multiscales"][0]["datasets"]) == 1


@pytest.mark.parametrize("size", [None, (0.25, 0.5)])
def test_every_level_is_aligned_with_the_image(made, tmp_path, size):
    path = export(made(pixel_size=size), tmp_path / "a.ome.zarr")
    multiscale = attributes(path / "output")["ome"]["multiscales"][0]
    units = [axis.get("unit") for axis in multiscale["axes"]]
    assert units == [None, *([None] * 2 if size is None else ["micrometer"] * 2)]
    for i, dataset in enumerate(multiscale["datasets"]):
        scale, translation = dataset["coordinateTransformations"]
        for axis, pixel in enumerate(size or (1, 1)):
            step, start = scale["scale"][axis + 1], translation["translation"][axis + 1]
            assert step == 4 * 2**i * pixel
            # The first cell begins where the first pixel does, half a pixel before its centre.
            assert start - step / 2 == pytest.approx(-pixel / 2)


def test_channels_are_named(made, tmp_path):
    run = made()
    path = export(run, tmp_path / "a.ome.zarr")
    output = attributes(path / "output")["ome"]["omero"]["channels"]
    assert [channel["label"] for channel in output] == ["cell", "stroma"]
    assert len({channel["color"] for channel in output}) == 2
    values = zarr.open_array(run.path / "output" / "0")[:]
    for channel, plane in zip(output, values, strict=True):
        window = channel["window"]
        assert (window["start"], window["end"]) == (np.nanmin(plane), np.nanmax(plane))


def test_provenance_is_recorded(made, real, tmp_path):
    run = made()
    assert attributes(export(run, tmp_path / "a.ome.zarr"))["hrviewer"] == run.header
    costs = attributes(export(real, tmp_path / "b.ome.zarr") / "cost")["hrviewer"]
    assert costs["cell"] == 16
    assert costs["quantities"][0] == "flops"


def test_empty_map_is_exported(tmp_path):
    path = tmp_path / "output"
    create_image(path, (1, 30, 40), name="output", cell=4, pixel_size=None, labels=["a"])
    run = Made(tmp_path, {"estimate": None, "image": {"shape": [120, 160]}})
    copy = copy_map(open_map(run, "output"), tmp_path / "copy", None)
    assert np.isnan(copy[:]).all()
    window = attributes(tmp_path / "copy")["ome"]["omero"]["channels"][0]["window"]
    assert window == {"min": 0, "max": 1, "start": 0, "end": 1}


def test_downsampling_ignores_unprocessed_cells():
    nan = np.nan
    cells = np.array([[1, 3, nan, nan, 5], [nan, nan, nan, nan, 7], [2, 4, nan, 8, nan]])
    expected = np.array([[2, nan, 6], [3, 8, nan]])
    np.testing.assert_array_equal(mean_2x2(cells), expected)


def test_memory_is_bounded(tmp_path):
    side = 4096
    array = create_image(
        tmp_path / "output", (1, side, side), name="output", cell=4, pixel_size=None, labels=["a"]
    )
    row = np.random.default_rng(0).random((1, 512, side), dtype=np.float32)
    for y in range(0, side, 512):
        array[:, y : y + 512] = row
    run = Made(tmp_path, {"estimate": None, "image": {"shape": [4 * side, 4 * side]}})
    tracemalloc.start()
    try:
        copy_map(open_map(run, "output"), tmp_path / "copy", None)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 40e6  # of 67 MB
    assert zarr.open_array(tmp_path / "copy" / "3").shape == (1, 512, 512)
