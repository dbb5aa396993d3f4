"""Features of a run, against discs of known area and a slow search for peaks."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_runs import blobs
from shapely.geometry import Polygon

from hrviewer.errors import HrviewerError
from hrviewer.io.density_points import place_points
from hrviewer.io.features import area_of, centroid
from hrviewer.io.run_features import FeatureSelection, iter_features, trace_outlines
from hrviewer.io.run_maps import coarsen, open_map, reduce_blocks

ONLY = {"patches": False, "annotations": False}


def polygons(feature):
    return [Polygon(part[0][:, ::-1], [r[:, ::-1] for r in part[1:]]) for part in feature.polygons]


def test_contours_have_the_discs_areas_and_centres(made):
    plane = blobs((120, 160), (40, 50, 20), (90, 120, 15)) - blobs((120, 160), (40, 50, 8))
    run = made(output=plane[None], answer="area")
    features = list(iter_features(run, FeatureSelection(contours=True, **ONLY)))
    assert [f.kind for f in features] == ["contour"] * 2
    expected = [(np.pi * (20**2 - 8**2), (40, 50), 1), (np.pi * 15**2, (90, 120), 0)]
    for feature, (cells, centre, holes) in zip(features, expected, strict=True):
        (shape,) = polygons(feature)
        assert shape.is_valid
        assert len(shape.interiors) == holes
        assert feature.measurements["area px^2"] == pytest.approx(shape.area, rel=1e-9)
        assert shape.area == pytest.approx(cells * 16, rel=0.04)
        # Cell i's centre is at 4 i + 2 level-0 pixels.
        assert feature.center == pytest.approx([4 * c + 2 for c in centre], abs=0.5)
        assert feature.measurements["area µm^2"] == pytest.approx(shape.area * 0.125)
        assert feature.measurements["mean"] == 1


def test_contours_of_a_density_sum_their_cells(made):
    plane = 7 * blobs((60, 60), (20, 20, 9)) + 2 * blobs((60, 60), (45, 45, 5))
    run = made(output=plane[None])
    exact = {**ONLY, "smoothing": 0, "min_area": 0}
    (first,) = iter_features(run, FeatureSelection(contours=True, **exact))
    assert first.measurements["sum"] == pytest.approx(7 * blobs((60, 60), (20, 20, 9)).sum())
    both = list(iter_features(run, FeatureSelection(contours=True, threshold=0.2, **exact)))
    assert sum(f.measurements["sum"] for f in both) == pytest.approx(plane.sum())


def test_contours_end_at_the_image(made):
    run = made(output=np.ones((1, 50, 70), np.float32), answer="area")
    (feature,) = iter_features(run, FeatureSelection(contours=True, **ONLY))
    (shape,) = polygons(feature)
    assert shape.is_valid
    assert shape.bounds == (0, 0, 280, 200)
    assert shape.area == pytest.approx(280 * 200, rel=1e-3)


def test_unprocessed_cells_are_outside(made):
    plane = np.full((40, 40), np.nan, np.float32)
    plane[10:20, 10:30] = 1
    (feature,) = iter_features(
        made(output=plane[None], answer="area"), FeatureSelection(contours=True, **ONLY)
    )
    assert feature.box == pytest.approx((40, 40, 40, 80), abs=0.01)


@given(st.lists(st.lists(st.sampled_from([0.0, 0.3, 0.5, 1.0]), min_size=7, max_size=7),
                min_size=1, max_size=9))  # fmt: skip
def test_outlines_are_valid_and_contain_every_cell_once(rows):
    plane = np.array(rows, np.float32)
    shapes = []
    total = 0.0
    for polygon, measured in trace_outlines(plane, 0.5, 1.0, True):
        shapes.append(Polygon(polygon[0][:, ::-1], [r[:, ::-1] for r in polygon[1:]]))
        total += measured["sum"]
        assert area_of((polygon,)) == pytest.approx(shapes[-1].area)
        assert centroid((polygon,))[::-1] == pytest.approx(shapes[-1].centroid.coords[0], abs=1e-6)
    assert all(shape.is_valid for shape in shapes)
    assert total == pytest.approx(plane[plane >= 0.5].sum())
    from shapely.geometry import Point

    for y, x in np.ndindex(plane.shape):
        area = sum(shape.covers(Point(x + 0.5, y + 0.5)) for shape in shapes)
        assert area == (plane[y, x] >= 0.5)


def test_points_of_a_density_are_as_many_as_its_count(made, monkeypatch):
    monkeypatch.setattr("hrviewer.io.density_points.TILE", 32)
    rng = np.random.default_rng(0)
    y, x = np.indices((90, 75))
    centers = np.array([(9 + 12 * i, 8 + 12 * j) for i in range(7) for j in range(6)], float)
    centers += rng.uniform(-3, 3, centers.shape)
    gaussians = [np.exp(-((y - a) ** 2 + (x - b) ** 2) / 4.5) for a, b in centers]
    plane = sum(blob / blob.sum() for blob in gaussians) + 0.3 / y.size
    run = made(output=plane[None].astype(np.float32))
    points = list(iter_features(run, FeatureSelection(points=True, spacing=24, **ONLY)))
    assert len(points) == len(centers)
    found = np.array([point.point for point in points]) / 4 - 0.5
    distances = np.linalg.norm(found[:, None] - centers, axis=2).min(axis=0)
    assert (distances < 1).mean() > 0.8  # some lie on the borders of tiles
    masses = [mass for _, mass in place_points(rng.random((60, 70)) / 9, 31, 2)]
    assert len(masses) == 31
    assert masses == pytest.approx([1] * 31)


def test_blurred_object_is_located(made):
    y, x = np.indices((60, 60))
    plane = np.exp(-((y - 20.3) ** 2 + (x - 31.6) ** 2) / 8).astype(np.float32)
    plane /= plane.sum()
    (feature,) = iter_features(
        made(output=plane[None]), FeatureSelection(points=True, spacing=64, **ONLY)
    )
    assert feature.point == pytest.approx((4 * 20.8, 4 * 32.1), abs=0.2)
    assert feature.measurements["mass"] == pytest.approx(1, rel=1e-3)


def test_contours_of_a_density_are_smooth_and_state_their_level(made):
    plane = np.zeros((100, 100), np.float32)
    plane[20:40:2, 20:40:2], plane[80, 80] = 1, 1  # a crowd of single cells, and one alone
    run = made(output=plane[None])
    (crowd,) = iter_features(run, FeatureSelection(contours=True, **ONLY))
    assert crowd.measurements["sum"] > 80
    assert crowd.measurements["area px^2"] > 60 * 60
    level = crowd.measurements["level per mm^2"]
    # Half of the maximum: a square of 20 cells under a Gaussian of 8, a quarter of them filled.
    maximum = 0.25 * math.erf(10 / (8 * math.sqrt(2))) ** 2
    assert level == pytest.approx(0.5 * maximum / (16 * 0.125e-6), rel=0.02)


def test_every_detection_is_a_point(made):
    plane = np.zeros((2, 30, 40), np.float32)
    plane[0, 3, 4], plane[0, 3, 5], plane[1, 29, 39] = 2, 1, 1
    features = list(iter_features(made(output=plane), FeatureSelection(points=True, **ONLY)))
    assert len(features) == plane.sum()
    assert sorted((f.label, *f.point) for f in features) == [
        ("cell", 14, 18), ("cell", 14, 18), ("cell", 14, 22), ("stroma", 118, 158)
    ]  # fmt: skip


def test_points_need_a_counting_run(made):
    with pytest.raises(HrviewerError, match="does not count objects"):
        list(iter_features(made(answer="area"), FeatureSelection(points=True, **ONLY)))


@pytest.mark.parametrize("additive", [True, False])
def test_coarser_cells_are_sums_or_means(additive):
    nan = np.nan
    cells = np.array([[[1, 3, nan], [nan, 5, nan], [2, nan, 4]]])
    sums, means = [[9, nan], [2, 4]], [[3, nan], [2, 4]]
    np.testing.assert_array_equal(reduce_blocks(cells, 2, additive), [sums if additive else means])


def test_large_maps_are_traced_coarser(made):
    run_map = open_map(made(), "output")
    values, cell = coarsen(run_map, 50_000)
    assert (values.shape, cell) == ((2, 175, 275), 16)
    assert np.nansum(values) == pytest.approx(np.nansum(run_map.cells[:]), rel=1e-6)


def test_contours_of_the_most_likely_class(made):
    """Of three classes near a third none reaches one half; their areas share the image."""
    disc = blobs((60, 80), (30, 30, 12))
    noise = np.random.default_rng(0).uniform(-0.02, 0.02, (60, 80)).astype(np.float32)
    planes = np.stack([0.38 - 0.1 * disc + noise, 0.28 + 0.1 * disc - noise])
    run = made(output=np.concatenate([planes, 1 - planes.sum(axis=0, keepdims=True) - 0.06]))
    run.header["estimate"] |= {"kind": "probabilities", "exclusive": True}
    run.header["estimate"]["per_class"] = {"a": 0.4, "b": 0.3, "c": 0.3}
    features = list(iter_features(run, FeatureSelection(contours=True, **ONLY)))
    assert [feature.label for feature in features] == ["output 0", "output 1"]
    (ground,), (shape,) = map(polygons, features)
    assert shape.area == pytest.approx(disc.sum() * 16, rel=0.04)
    assert len(ground.interiors) == 1
    assert Polygon(ground.interiors[0]).area == pytest.approx(shape.area, rel=1e-6)
    assert features[1].measurements["max"] == pytest.approx(planes[1].max())
    assert not list(iter_features(run, FeatureSelection(contours=True, threshold=0.5, **ONLY)))
