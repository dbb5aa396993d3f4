"""Saving layers through napari: ours and anybody's, read again by napari-ome-zarr and others."""

from __future__ import annotations

import json
import os

import geopandas
import numpy as np
import pandas as pd
import pytest
from napari.components import ViewerModel
from napari.layers import Image, Labels, Points, Shapes, Surface, Vectors
from napari_ome_zarr import napari_get_reader
from npe2 import PluginManager, PluginManifest
from npe2.io_utils import write_get_writer
from vispy.io import read_mesh
from yaozarrs import validate_zarr_store

from hrviewer.errors import HrviewerError
from hrviewer.viewer.contributions import writers


@pytest.fixture
def layers():
    rng = np.random.default_rng(0)
    shapes = Shapes(name="drawn", scale=(2, 3))
    shapes.add_rectangles(np.array([[1, 2], [1, 12], [5, 12], [5, 2]], float))
    shapes.add_ellipses(np.array([[10, 10], [10, 20], [20, 20], [20, 10]], float))
    shapes.add_paths(np.array([[0, 0], [3, 4], [9, 9]], float))
    return {
        "image": Image(rng.random((601, 203)).astype(np.float32), name="im", scale=(2, 3),
                       translate=(10, 20), units=("um", "um")),
        "labels": Labels(rng.integers(0, 9, (601, 203)), name="lab", scale=(2, 3),
                         translate=(10, 20)),
        "points": Points(np.array([[1.0, 2.0], [3.5, 4.5]]), name="p",
                         features={"label": ["a", "b"], "score": [0.5, 1.0]}),
        "shapes": shapes,
        "vectors": Vectors(np.array([[[1, 2], [3, 4]]], float), name="v"),
        "surface": Surface((np.array([[0, 0, 0], [0, 5, 0], [4, 0, 7]], float),
                            np.array([[0, 1, 2]]), np.array([0.0, 0.5, 1.0])), name="s"),
    }  # fmt: skip


def tuples(*found):
    return [layer.as_layer_data_tuple() for layer in found]


def save(path, *found):
    """Save as File → Save Selected Layers does, by our plugin."""
    manager = PluginManager.instance()
    if "hrviewer" not in manager:
        manager.register(PluginManifest.from_distribution("hrviewer"))
    paths, writer = write_get_writer(str(path), layer_data=tuples(*found), plugin_name="hrviewer")
    assert writer.command.startswith("hrviewer.")
    return paths


@pytest.mark.parametrize(
    ("kind", "suffix"),
    [
        ("image", ".ome.zarr"),
        ("labels", ".ome.zarr"),
        ("points", ".geojson"),
        ("shapes", ".geojson"),
        ("vectors", ".csv"),
        ("surface", ".obj"),
    ],
)
def test_every_kind_of_layer_is_saved_alone(layers, tmp_path, kind, suffix):
    path = tmp_path / f"a{suffix}"
    assert save(path, layers[kind]) == [str(path)]
    assert os.listdir(tmp_path) == [path.name]


def test_all_together(layers, tmp_path):
    path = tmp_path / "a.ome.zarr"
    assert save(path, *layers.values()) == [str(path)]
    validate_zarr_store(str(path))
    assert sorted(os.listdir(path / "geometry")) == ["drawn.geojson", "p.geojson", "s.obj", "v.csv"]
    read = {kind: (data, about) for data, about, kind in napari_get_reader(str(path))(str(path))}
    assert set(read) == {"image", "labels"}
    for kind in ("image", "labels"):
        np.testing.assert_array_equal(np.asarray(read[kind][0][0]), layers[kind].data)
        assert list(read[kind][1]["scale"]) == [2, 3]
    viewer = ViewerModel()
    viewer.add_image(read["image"][0], **read["image"][1])


def test_a_colour_image_keeps_its_colours(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (40, 50, 3), np.uint8)
    path = tmp_path / "a.ome.zarr"
    save(path, Image(pixels, rgb=True, name="c"))
    ((data, _, _),) = napari_get_reader(str(path))(str(path))
    np.testing.assert_array_equal(np.asarray(data[0]), pixels.transpose(2, 0, 1))


def test_a_mirrored_layer_is_saved_as_it_lies(tmp_path):
    pixels = np.arange(12).reshape(3, 4)
    path = tmp_path / "a.ome.zarr"
    save(path, Image(pixels, rotate=90, name="c"))
    ((data, _, _),) = napari_get_reader(str(path))(str(path))
    assert np.asarray(data[0]).shape == (4, 3)


def test_points_and_shapes_keep_place_and_class(layers, tmp_path):
    save(tmp_path / "p.geojson", layers["points"])
    table = geopandas.read_file(tmp_path / "p.geojson")
    # A pixel's centre is at a whole number in napari, at a half in level-0 pixels.
    assert [(p.y, p.x) for p in table.geometry] == [(1.5, 2.5), (4.0, 5.0)]
    held = json.loads((tmp_path / "p.geojson").read_text())["features"]
    assert [f["properties"]["classification"]["name"] for f in held] == ["a", "b"]
    assert held[0]["properties"]["measurements"] == {"score": 0.5}
    save(tmp_path / "s.geojson", layers["shapes"])
    table = geopandas.read_file(tmp_path / "s.geojson")
    assert list(table.geometry.type) == ["Polygon", "Polygon", "LineString"]
    assert table.geometry[0].bounds == (2.5, 1.5, 12.5, 5.5)
    assert table.geometry[1].area == pytest.approx(np.pi * 25, rel=0.01)


def test_vectors_and_surfaces_are_read_by_others(layers, tmp_path):
    save(tmp_path / "v.csv", layers["vectors"])
    assert pd.read_csv(tmp_path / "v.csv").iloc[0].to_dict() == {"y": 1, "x": 2, "dy": 3, "dx": 4}
    save(tmp_path / "s.obj", layers["surface"])
    vertices, faces, _, texture = read_mesh(str(tmp_path / "s.obj"))
    np.testing.assert_allclose(vertices, layers["surface"].data[0][:, ::-1])
    np.testing.assert_array_equal(faces, [[0, 1, 2]])
    np.testing.assert_allclose(texture[:, 0], [0, 0.5, 1])


def test_nothing_is_overwritten(layers, tmp_path):
    path = tmp_path / "a.geojson"
    path.write_text("mine")
    with pytest.raises(HrviewerError, match="exists"):
        writers.write_layers(str(path), tuples(layers["points"]))
    assert path.read_text() == "mine"


def test_a_rotated_layer_is_reported(tmp_path, monkeypatch):
    warnings: list[str] = []
    monkeypatch.setattr("napari.utils.notifications.show_warning", warnings.append)
    save(tmp_path / "a.ome.zarr", Image(np.zeros((4, 5)), rotate=30, name="askew"))
    assert "askew is turned" in warnings[0]


def test_an_unfinished_run_is_saved_as_it_is(tmp_path, monkeypatch):
    from hrviewer.app.maps.result_maps import Completion
    from hrviewer.viewer.image.geometry import METADATA_KEY

    warnings: list[str] = []
    monkeypatch.setattr("napari.utils.notifications.show_warning", warnings.append)
    completion = Completion()
    layer = Image(
        np.zeros((4, 5)), name="output", metadata={METADATA_KEY: {"completion": completion}}
    )
    save(tmp_path / "a.ome.zarr", layer)
    assert "saved as it is now" in warnings[0]
    completion.is_final = True
    save(tmp_path / "b.ome.zarr", layer)
    assert len(warnings) == 1
