"""Regions of a real slide: its tissue against a mask drawn by hand, hot spots, points of a count.

The mask, `tests/data/cmu_1_tissue.geojson`, names its author and licence.
"""

from __future__ import annotations

from pathlib import Path

import geopandas
import pytest

from hrviewer.geometry import Rect
from hrviewer.io import export
from hrviewer.io.region_files import read_regions
from hrviewer.pyramid import open_pyramid
from hrviewer.regions import Region
from hrviewer.runs import run
from hrviewer.runs.tissue import find_tissue

SLIDE = "data/wsi/CMU-1-Small-Region.svs"


def test_tissue_against_a_mask_drawn_by_hand(shared):
    path = Path(__file__).parents[1] / "data" / "cmu_1_tissue.geojson"
    with open_pyramid(shared / SLIDE) as pyramid:
        (drawn,) = read_regions(path, pyramid.name, pyramid.plane_shape)
        found = find_tissue(pyramid)
    assert found.area == pytest.approx(drawn.area, rel=0.07)
    both = found.intersect(drawn)
    assert both is not None
    assert 2 * both.area / (found.area + drawn.area) > 0.95


@pytest.mark.slow
def test_regions_hot_spots_and_points(shared, tmp_path):
    pytest.importorskip("hrviewer_histology")
    regions = [
        Region.from_polygons([[[(1800, 1100), (1800, 1400), (2300, 1150)]]], "epidermis"),
        Region.from_polygons([[[(2400, 900), (2400, 1300), (2700, 1300), (2700, 900)]]], "dermis"),
        Region.from_rect(Rect(1500, 0, 900, 330), "glass"),
    ]
    done = run(
        shared / SLIDE, "nuclei", "patches", out=tmp_path / "x.run.zarr", cache="off",
        progress=False,
    )  # fmt: skip
    table = done.measure(regions)
    assert (table["count"][:2] > 10).all()
    assert table["count"][2] < 0.02 * table["count"][:2].min()
    assert table["area_mm2"][2] == pytest.approx(900 * 330 * 0.499e-3**2)
    spots = done.hot_spots("0.2mm2", 2)
    assert spots["area_mm2"].to_numpy() == pytest.approx([0.2] * 2, rel=1e-6)
    assert spots["count"].is_monotonic_decreasing
    assert spots["per_mm2"][0] > done.estimate["per_mm2"]
    path = tmp_path / "x.geojson"
    export(done, path, "geojson", points=True, patches=False)
    points = geopandas.read_file(path)
    assert len(points) == round(done.estimate["map_sum"])
