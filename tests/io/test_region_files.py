"""Regions in files: every format against the same polygons, and what is refused."""

from __future__ import annotations

import json
from uuid import UUID

import geopandas
import numpy as np
import pytest
import shapely
import tifffile
from pycocotools import mask as coco_mask

from hrviewer.errors import HrviewerError
from hrviewer.io.geojson import as_geojson
from hrviewer.io.ground_truth import label_maps
from hrviewer.io.region_files import feature_of_region, read_regions
from hrviewer.pyramid.georeference import Georeference
from hrviewer.regions import Region, cell_areas

SHAPE = (100, 200)
PLACE_ON_EARTH = (0.5, 0.0, 500_000.0, 0.0, -0.5, 4_500_000.0)
OUTER = [[10, 20], [10, 60], [50, 60]]  # y, x
HOLE = [[15, 50], [15, 55], [20, 55]]
AREA = 800 - 12.5


def flipped(ring, closed=False):
    points = [[x, y] for y, x in ring]
    return [*points, points[0]] if closed else points


def geojson():
    rings = [flipped(OUTER, True), flipped(HOLE, True)]
    properties = {"name": "A", "classification": {"name": "tumour"}}
    point = {"type": "Feature", "geometry": {"type": "Point", "coordinates": [1, 2]}}
    polygon = {"type": "Polygon", "coordinates": rings}
    return [{"type": "Feature", "geometry": polygon, "properties": properties}, point]


def dsa():
    element = {"type": "polyline", "closed": True, "points": [[x, y, 0] for y, x in OUTER],
               "holes": [[[x, y, 0] for y, x in HOLE]], "group": "tumour",
               "label": {"value": "A"}}  # fmt: skip
    return {"annotation": {"name": "mine", "elements": [element]}}


def coco(segmentation):
    entry = {"image_id": 1, "category_id": 1, "bbox": [20, 10, 40, 40],
             "segmentation": segmentation}  # fmt: skip
    return {"images": [{"id": 1, "file_name": "photo.png", "height": 100, "width": 200}],
            "categories": [{"id": 1, "name": "tumour"}], "annotations": [entry]}  # fmt: skip


def read(tmp_path, data, name="r.json"):
    path = tmp_path / name
    path.write_text(data if isinstance(data, str) else json.dumps(data))
    return read_regions(path, "photo.png", SHAPE)


@pytest.mark.parametrize(
    ("data", "name", "area"),
    [
        (geojson(), "A", AREA),
        (dsa(), "A", AREA),
        (coco([np.ravel(flipped(OUTER)).tolist()]), "tumour", 800),
        (coco([]), "tumour", 1600),
    ],
)
def test_polygons_of_every_format(tmp_path, data, name, area):
    (region,) = read(tmp_path, data)
    assert (region.name, region.label, region.area) == (name, "tumour", area)
    assert region.bounds.astuple() == (10, 20, 40, 40)


def test_boxes_and_names_that_are_not_unique(tmp_path):
    table = "ymin,xmin,ymax,xmax,label\n1,2,3,4,cell\n5,5,9,9,cell\n0,0,1,1,cell 1\n"
    regions = read(tmp_path, table, "r.csv")
    assert [region.name for region in regions] == ["cell 2", "cell 3", "cell 1"]
    assert [region.area for region in regions] == [4, 16, 1]


def test_a_region_over_the_border_keeps_its_outline(tmp_path):
    data = geojson()
    data[0]["geometry"]["coordinates"] = [flipped([[-300, 10], [-300, 50], [20, 30]], True)]
    (region,) = read(tmp_path, data)
    assert region.bounds.y == -300


def test_written_and_read_again(tmp_path):
    region = Region.from_polygons([[OUTER, HOLE], [[[60, 0], [60, 9], [70, 9]]]], "A", "tumour")
    (again,) = read(tmp_path, as_geojson(feature_of_region(region, 0), UUID(int=1)))
    assert again.shape.equals(region.shape)
    assert (again.name, again.label) == ("A", "tumour")


@pytest.mark.parametrize(
    ("data", "name", "message"),
    [
        (geojson()[1:], "r.geojson", "marks no area"),
        (coco({"counts": "x", "size": [100, 200]}), "r.json", "cannot be read"),
        (coco({"counts": [5, 2], "size": [100, 200]}), "r.json", "100 × 200"),
        ("y,x\n1,2\n", "r.csv", "marks no area"),
        ("x", "r.txt", "not a known format"),
        ("x", "r.gpkg", "image has none"),
        ('[{"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [1]}}]', "r.json",
         "no valid geometry"),
        (json.dumps(geojson()).replace("20, 10", "20, 1000").replace("60, 10", "60, 1000")
         .replace("60, 50", "60, 1500"), "r.json", "another image"),
    ],
)  # fmt: skip
def test_files_without_regions_are_refused(tmp_path, data, name, message):
    with pytest.raises(HrviewerError, match=message) as error:
        read(tmp_path, data, name)
    assert name in str(error.value)
    assert "\n" not in str(error.value)


def labels():
    """A label map: a ring of 3 and a part of 5 across windows."""
    found = np.zeros(SHAPE, np.uint8)
    found[10:50, 20:60] = 3
    found[20:30, 30:40] = 0
    found[70:90, 150:190] = 5
    return found


@pytest.mark.parametrize("compressed", [False, True])
def test_masks_in_run_lengths_are_their_pixels(tmp_path, compressed):
    mask = np.asfortranarray(labels() > 0).astype(np.uint8)
    encoded = coco_mask.encode(mask)
    counts = encoded["counts"].decode()
    if not compressed:
        flat = mask.ravel(order="F")
        counts = np.diff(np.flatnonzero(np.diff(flat, prepend=2, append=2))).tolist()
    (region,) = read(tmp_path, coco({"counts": counts, "size": list(SHAPE)}))
    assert region.area == mask.sum()
    areas = cell_areas(region, np.arange(101.0), np.arange(201.0))
    np.testing.assert_array_equal(areas, mask)


def test_label_maps_have_a_region_for_each_number(tmp_path, monkeypatch):
    monkeypatch.setattr(label_maps, "WINDOW", 64)
    path = tmp_path / "labels.tif"
    tifffile.imwrite(path, labels())
    ring, part = read_regions(path, "photo.png", SHAPE)
    assert (ring.name, ring.area, part.name, part.area) == ("label 3", 1500, "label 5", 800)
    areas = cell_areas(ring, np.arange(101.0), np.arange(201.0))
    np.testing.assert_array_equal(areas, labels() == 3)


@pytest.mark.parametrize(("name", "crs"), [("a.gpkg", 32618), ("a.shp", 32618), ("a.fgb", 4326)])
def test_vector_files_of_maps_are_placed_on_the_image(tmp_path, name, crs):
    place = Georeference("EPSG:32618", PLACE_ON_EARTH, 1.0)
    wanted = Region.from_polygons([[OUTER, HOLE]], "A", "tumour")
    a, _, c, _, e, f = PLACE_ON_EARTH
    shape = shapely.transform(wanted.shape, lambda p: p * (a, e) + (c, f))
    frame = geopandas.GeoDataFrame(
        {"name": ["A"], "class": ["tumour"]}, geometry=[shape], crs=32618
    ).to_crs(crs)
    frame.to_file(tmp_path / name)
    (region,) = read_regions(tmp_path / name, "photo.tif", SHAPE, place)
    assert (region.name, region.label) == ("A", "tumour")
    assert region.area == pytest.approx(AREA, rel=1e-4)
    assert region.shape.symmetric_difference(wanted.shape).area < 1
