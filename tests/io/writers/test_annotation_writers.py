"""GeoJSON, COCO and DSA exports of one run, read by other packages and by hrviewer."""

from __future__ import annotations

import ast
import copy
import json
from contextlib import redirect_stdout
from dataclasses import replace
from importlib.util import find_spec
from io import StringIO
from pathlib import Path

import geopandas
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_runs import blobs
from shapely.geometry import shape

from hrviewer.io import export
from hrviewer.io.annotations import read_annotations, write_annotations
from hrviewer.io.dsa import as_elements, read_dsa
from hrviewer.io.features import Feature, area_of, rectangle
from hrviewer.io.geojson import as_geojson, read_geojson
from hrviewer.io.ground_truth import read_ground_truth
from hrviewer.io.run_features import FeatureSelection, id_namespace, iter_features

ALL = {"contours": True, "points": True, "spacing": 64}
DISCS = blobs((100, 140), (30, 40, 12), (70, 100, 9)) - blobs((100, 140), (30, 40, 5)) * 0.875


SHAPE = 400, 560


@pytest.fixture
def run(made):
    y, x = np.indices(DISCS.shape)
    plane = DISCS + np.exp(-((y - 60) ** 2 + (x - 20) ** 2) / 8) / 8
    made_run = made(output=plane[None].astype(np.float32))
    drawn = [
        Feature("annotation", "tumour", (rectangle(10, 20, 30, 40),), name="mine", number=0,
                metadata={"author": "Ada", "time": "2026-01-01T00:00:00+00:00"}),
        Feature("annotation", "mitosis", point=(50.5, 60.25), number=1, metadata={"author": "Ada"}),
    ]  # fmt: skip
    write_annotations(made_run.path, drawn)
    return made_run


def counts(run):
    kinds = [feature.kind for feature in iter_features(run, FeatureSelection(**ALL))]
    return {kind: kinds.count(kind) for kind in ("patch", "contour", "point", "annotation")}


def test_geopandas_reads_every_feature(run, tmp_path):
    path = export(run, tmp_path / "a.geojson", **ALL)
    table = geopandas.read_file(path, engine="pyogrio")
    number = counts(run)
    assert len(table) == sum(number.values())
    assert number["patch"] == 230
    assert number["contour"] == 2
    assert number["annotation"] == 2
    assert table.geometry.is_valid.all()
    kinds = table["objectType"].value_counts()
    assert kinds["tile"] == number["patch"]
    assert kinds["detection"] == number["point"]
    assert kinds["annotation"] == number["contour"] + number["annotation"]
    assert table["id"].is_unique


def test_contours_have_measurements(run, tmp_path):
    path = export(run, tmp_path / "a.geojson", patches=False, annotations=False, contours=True,
                  smoothing=4)  # fmt: skip
    features = json.loads(path.read_text())["features"]
    for feature in features:
        outline = shape(feature["geometry"])
        assert outline.exterior.is_ccw
        assert not any(ring.is_ccw for ring in outline.interiors)
        assert feature["properties"]["measurements"]["area px^2"] == pytest.approx(outline.area)
        assert feature["properties"]["classification"]["name"] == "cell"
    assert sorted(len(shape(f["geometry"]).interiors) for f in features) == [0, 1]


def test_pycocotools_reads_every_annotation(run, tmp_path):
    from pycocotools import mask as maskUtils
    from pycocotools.coco import COCO

    path = export(run, tmp_path / "a.coco.json", **ALL)
    with redirect_stdout(StringIO()):
        coco = COCO(str(path))
    number = counts(run)
    assert len(coco.getAnnIds()) == sum(number.values())
    assert coco.imgs[1] == {"id": 1, "file_name": "a.svs", "height": 400, "width": 560}
    by_kind = {c["supercategory"] for c in coco.cats.values()}
    assert by_kind == set(number)
    (cell,) = [c["id"] for c in coco.cats.values() if c["supercategory"] == "contour"]
    features = iter_features(run, FeatureSelection(patches=False, annotations=False, contours=True))
    for entry, feature in zip(coco.loadAnns(coco.getAnnIds(catIds=[cell])), features, strict=True):
        assert entry["area"] == pytest.approx(area_of(feature.polygons))
        # Drawn by pycocotools; it fills the holes.
        outer = area_of(tuple((part[0],) for part in feature.polygons))
        drawn = maskUtils.area(
            maskUtils.merge(maskUtils.frPyObjects(entry["segmentation"], *SHAPE))
        )
        assert drawn == pytest.approx(outer, rel=0.03)


def dsa_schema() -> dict:
    """Return what the archive checks, from its package; that needs a server to be imported."""
    spec = find_spec("girder_large_image_annotation")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("girder-large-image-annotation is not installed (pip install --no-deps)")
    source = Path(spec.submodule_search_locations[0], "models", "annotation.py").read_text()
    wanted = ("AnnotationSchema", "extendSchema")
    found = [node for node in ast.parse(source).body if getattr(node, "name", "") in wanted]
    names: dict = {"copy": copy}
    exec(compile(ast.Module(found, []), "schema", "exec"), names)
    return names["AnnotationSchema"].annotationSchema


def test_valid_for_the_dsa_schema(run, tmp_path):
    jsonschema = pytest.importorskip("jsonschema")
    schema = dsa_schema()
    document = json.loads(export(run, tmp_path / "a.dsa.json", **ALL).read_text())
    jsonschema.Draft6Validator(schema).validate(document)
    assert len(document["elements"]) == sum(counts(run).values())
    assert len({element["id"] for element in document["elements"]}) == len(document["elements"])
    document["elements"][0]["type"] = "blob"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft6Validator(schema).validate(document)


@pytest.mark.parametrize("suffix", [".geojson", ".dsa.json", ".coco.json"])
def test_exports_can_be_used_as_ground_truth(run, tmp_path, suffix):
    path = export(run, tmp_path / f"a{suffix}", patches=False, points=True, spacing=64)
    ground_truth = read_ground_truth(path, "a.svs", SHAPE)
    what = FeatureSelection(patches=False, points=True, spacing=64)
    expected = [feature.center for feature in iter_features(run, what)]
    np.testing.assert_allclose(ground_truth.points, expected, rtol=1e-12)
    assert set(ground_truth.classes) == {"cell", "tumour", "mitosis"}


def test_annotations_are_saved_with_author_and_time(run):
    first, second = read_annotations(run.path)
    assert (first.label, first.name, first.metadata["author"]) == ("tumour", "mine", "Ada")
    assert first.metadata["time"] == "2026-01-01T00:00:00+00:00"
    assert second.point == (50.5, 60.25)


place = st.floats(-1e6, 1e6, allow_nan=False).map(lambda value: round(value, 3))
sizes = st.floats(0.25, 1e5).map(lambda value: round(value, 3))
texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)


@st.composite
def features(draw):
    kind = draw(st.sampled_from(["annotation", "contour", "point", "patch"]))
    number, label = draw(st.integers(0, 10**6)), draw(texts)
    about = draw(st.dictionaries(st.sampled_from(["author", "time", "status"]), texts))
    measured = draw(st.dictionaries(st.sampled_from(["sum", "area px^2"]), st.floats(-1e9, 1e9)))
    where = {}
    if draw(st.booleans()):
        where["point"] = draw(place), draw(place)
    else:
        y, x, h, w = draw(place), draw(place), draw(sizes), draw(sizes)
        outer = rectangle(y, x, h, w)[0]
        hole = rectangle(y + h / 4, x + w / 4, h / 2, w / 2)[0]
        parts = [(outer, hole) if draw(st.booleans()) else (outer,)]
        if draw(st.booleans()):
            parts.append(rectangle(y + 2 * h, x, h, w))
        where["polygons"] = tuple(parts)
    return Feature(kind, label, number=number, name=draw(texts), measurements=measured,
                   metadata=about, **where)  # fmt: skip


def same(ours, theirs, *, holes_first=False):
    assert (ours.label, ours.name) == (theirs.label, theirs.name)
    assert ours.measurements == theirs.measurements
    assert ours.metadata == theirs.metadata
    assert ours.point == theirs.point
    assert len(ours.polygons) == len(theirs.polygons)
    for mine, read in zip(ours.polygons, theirs.polygons, strict=True):
        assert [set(map(tuple, ring.tolist())) for ring in mine] == [
            set(map(tuple, ring.tolist())) for ring in read
        ]


NAMES = id_namespace(type("Run", (), {"header": {"image": {"fingerprint": 1}, "strategy": 2,
                                             "started": 3}})())  # fmt: skip


@given(features())
def test_geojson_round_trip(feature):
    document = json.loads(json.dumps(as_geojson(feature, NAMES), allow_nan=False))
    (read,) = read_geojson([document], Path("a"))
    same(feature, read)


@given(features())
def test_dsa_round_trip(feature):
    document = json.loads(json.dumps({"elements": list(as_elements(feature, NAMES))}))
    read = list(read_dsa(document, Path("a")))
    # Of several parts it makes several elements.
    parts = tuple(part for element in read for part in element.polygons)
    same(feature, replace(read[0], polygons=parts))


def test_rotated_dsa_rectangles_and_ellipses():
    turn = np.pi / 6
    boxed = {"type": "rectangle", "center": [10, 20, 0], "width": 4, "height": 2, "rotation": turn}
    round_ = {"type": "ellipse", "center": [10, 20, 0], "width": 40, "height": 20, "rotation": turn}
    circle = {"type": "circle", "center": [10, 20, 0], "radius": 5}
    arrow = {"type": "arrow", "points": [[0, 0, 0], [1, 1, 0]]}
    read = list(
        read_dsa(
            [{"annotation": {"name": "n", "elements": [boxed, round_, circle, arrow]}}], Path()
        )
    )
    assert [f.label for f in read] == ["n"] * 3
    # The corner at (-2, -1) from the centre, (x, y), turned from x towards y.
    corner = np.array([-2 * np.cos(turn) + np.sin(turn), -2 * np.sin(turn) - np.cos(turn)])
    ring = read[0].polygons[0][0]
    assert np.abs(ring[:, ::-1] - (corner + np.array([10, 20]))).sum(axis=1).min() < 1e-12
    assert area_of(read[0].polygons) == pytest.approx(8)
    assert area_of(read[1].polygons) == pytest.approx(np.pi * 20 * 10, rel=0.01)
    assert area_of(read[2].polygons) == pytest.approx(np.pi * 25, rel=0.01)
    assert all(f.center == pytest.approx((20, 10)) for f in read)
