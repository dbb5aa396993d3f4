"""Readers of ground truth: each format against known objects, and invalid files."""

from __future__ import annotations

import contextlib
import json
import os
import struct
import sys
import xml.etree.ElementTree as ET
import zlib

import numpy as np
import pytest
import scipy.io
import tifffile
from numpy.testing import assert_allclose, assert_array_equal

from hrviewer.errors import GroundTruthError, HrviewerError
from hrviewer.geometry import Rect
from hrviewer.ground_truth import GroundTruth
from hrviewer.io.ground_truth import label_maps, read_features, read_ground_truth
from hrviewer.io.ground_truth.points import write_csv
from hrviewer.io.ome_metadata import multiscales

SHAPE = (100, 200)
POINTS = np.array([[10.5, 20.0], [99.0, 150.25], [50.0, 60.0]])
BOXES = np.array([[10, 20, 4, 6], [80, 150, 20, 10]], float)
CENTRES = BOXES[:, :2] + BOXES[:, 2:] / 2


def read(path, name="photo.png", shape=SHAPE):
    return read_ground_truth(path, name, shape)


def error_of(path, **options) -> str:
    with pytest.raises(HrviewerError) as error:
        read(path, **options)
    line = str(error.value)
    assert "\n" not in line
    assert path.name in line
    return line


@pytest.mark.parametrize("header", ["y,x", "row,col", "axis-0,axis-1", " Y , X "])
def test_csv_points(tmp_path, header):
    path = tmp_path / "p.csv"
    path.write_text(header + "\n" + "\n".join(f"{y},{x}" for y, x in POINTS))
    ground_truth = read(path)
    assert_array_equal(ground_truth.points, POINTS)
    assert ground_truth.classes == ("object",)
    assert ground_truth.source == str(path)


def test_csv_boxes_of_one_of_several_images(tmp_path):
    path = tmp_path / "p.csv"
    rows = [
        f"b/photo.png,{x},{y},{x + w},{y + h},{'ab'[i]}" for i, (y, x, h, w) in enumerate(BOXES)
    ]
    path.write_text(
        "\n".join(["image_path,xmin,ymin,xmax,ymax,label", "other.png,1,1,2,2,c", *rows])
    )
    ground_truth = read(path)
    assert_array_equal(ground_truth.boxes, BOXES)
    assert_array_equal(ground_truth.points, CENTRES)
    assert ground_truth.classes == ("a", "b")
    assert_array_equal(ground_truth.class_ids, [0, 1])
    assert "other.png" in error_of(path, name="third.png")


def test_csv_round_trip(tmp_path):
    path = tmp_path / "p.csv"
    wrote = GroundTruth(CENTRES + 0.125, ("cell", "dirt"), np.array([1, 0]), BOXES)
    write_csv(wrote, path)
    ground_truth = read(path)
    assert_array_equal(ground_truth.points, wrote.points)
    assert_array_equal(ground_truth.boxes, BOXES)
    assert [ground_truth.classes[i] for i in ground_truth.class_ids] == ["dirt", "cell"]


def polygon(*corners):
    return [[list(corner) for corner in (*corners, corners[0])]]


def feature(kind, coordinates, **properties):
    return {
        "type": "Feature",
        "properties": properties,
        "geometry": {"type": kind, "coordinates": coordinates},
    }


def test_geojson(tmp_path):
    square = polygon((20, 10), (26, 10), (26, 14), (20, 14))
    # An L of a 4 × 4 square and a 4 × 2 one beside it; a 10 × 10 square whose left half is a hole.
    bent = polygon((0, 0), (8, 0), (8, 2), (4, 2), (4, 4), (0, 4))
    holed = [
        *polygon((40, 40), (50, 40), (50, 50), (40, 50)),
        *polygon((40, 40), (45, 40), (45, 50), (40, 50)),
    ]
    lower = polygon((20, 20), (26, 20), (26, 24), (20, 24))
    path = tmp_path / "q.geojson"
    path.write_text(
        json.dumps(
            {
                "type": "FeatureCollection",
                "features": [
                    feature("Point", [20, 10.5], classification={"name": "cell"}),
                    feature("MultiPoint", [[1, 2], [3, 4]], label="dirt"),
                    feature("Polygon", square),
                    feature("Polygon", bent),
                    feature("Polygon", holed),
                    feature("MultiPolygon", [square, lower]),
                ],
            }
        )
    )
    ground_truth = read(path)
    l_shape = (np.array([2, 2]) * 16 + np.array([1, 6]) * 8) / 24
    centres = [[10.5, 20], [2, 1], [4, 3], [12, 23], l_shape, [45, 47.5], [17, 23]]
    assert_allclose(ground_truth.points, centres)
    assert_array_equal(ground_truth.boxes[3], [10, 20, 4, 6])
    assert [ground_truth.classes[i] for i in ground_truth.class_ids[:4]] == [
        "cell",
        "dirt",
        "dirt",
        "object",
    ]
    path.write_text(json.dumps([feature("LineString", [[0, 0], [1, 1]])]))
    assert "LineString" in error_of(path)


def coco(**size):
    return {
        "images": [{"id": 7, "file_name": "photo.png", **size}, {"id": 8, "file_name": "b.png"},
                   {"id": 9, "file_name": "empty.png"}],
        "categories": [{"id": 3, "name": "tree"}, {"id": 4, "name": "car"}],
        "annotations": [
            {"image_id": 7, "category_id": 4 - i, "bbox": [x, y, w, h]}
            for i, (y, x, h, w) in enumerate(BOXES.tolist())
        ]
        + [{"image_id": 7, "category_id": 3, "bbox": [0, 0, 50, 50], "iscrowd": 1}]
        + [{"image_id": 8, "category_id": 3, "bbox": [0, 0, 9, 9]}],
    }  # fmt: skip


def test_coco(tmp_path):
    path = tmp_path / "c.json"
    path.write_text(json.dumps(coco(height=100, width=200)))
    ground_truth = read(path)
    assert_array_equal(ground_truth.boxes, BOXES)
    assert ground_truth.classes == ("car", "tree")
    assert_array_equal(ground_truth.class_ids, [0, 1])
    assert len(read(path, name="empty.png")) == 0
    assert "99.png" in error_of(path, name="99.png")
    path.write_text(json.dumps(coco(height=101, width=200)))
    assert "101 × 200" in error_of(path)


@pytest.mark.parametrize("layout", ["shanghaitech", "qnrf"])
def test_mat(tmp_path, layout):
    path = tmp_path / "GT_photo.mat"
    clicks = POINTS[:, ::-1]
    if layout == "qnrf":
        scipy.io.savemat(path, {"annPoints": clicks})
    else:
        info = np.empty((1, 1), object)
        info[0, 0] = {"location": clicks, "number": np.array([[3]])}
        scipy.io.savemat(path, {"image_info": info})
    ground_truth = read(path)
    assert_array_equal(ground_truth.points, POINTS)
    assert ground_truth.classes == ("person",)


def test_other_mat_files_are_rejected(tmp_path):
    path = tmp_path / "m.mat"
    scipy.io.savemat(path, {"a": 1})
    assert "image_info" in error_of(path)
    path.write_bytes(b"MATLAB 7.3 MAT-file" + bytes(200))
    error_of(path)


def voc(h=100, w=200, before=""):
    objects = "".join(
        f"<object><name>tree</name><bndbox><xmin>{x}</xmin><ymin>{y}</ymin><xmax>{x + bw}</xmax>"
        f"<ymax>{y + bh}</ymax></bndbox></object>"
        for y, x, bh, bw in BOXES
    )
    size = f"<size><width>{w}</width><height>{h}</height></size>"
    return f"{before}<annotation>{size}{objects}</annotation>"


def test_voc(tmp_path):
    path = tmp_path / "v.xml"
    path.write_text(voc())
    ground_truth = read(path)
    assert_array_equal(ground_truth.boxes, BOXES)
    assert ground_truth.classes == ("tree",)
    path.write_text(voc(h=99))
    assert "99 × 200" in error_of(path)
    path.write_text(voc()[:-5])
    assert "XML" in error_of(path)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_xml_entities_are_rejected(tmp_path, encoding):
    path = tmp_path / "v.xml"
    bomb = '<!DOCTYPE a [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;&a;"><!ENTITY c SYSTEM "x">]>'
    path.write_bytes(f'<?xml version="1.0" encoding="{encoding}"?>{bomb}{voc()}'.encode(encoding))
    assert "document type" in error_of(path)
    ET.fromstring(voc())


def disc_map(shape=SHAPE, dtype=np.uint16):
    values = np.zeros(shape, dtype)
    values[10:14, 20:26] = 5
    values[40:80, 30:31] = 300
    values[99, 199] = 2
    return values


def slow_centroids(values):
    """One object after the other."""
    return np.array(
        [np.argwhere(values == number).mean(axis=0) + 0.5 for number in np.unique(values)[1:]]
    )


@pytest.mark.parametrize("window", [2048, 33])
def test_label_maps(tmp_path, monkeypatch, window):
    monkeypatch.setattr(label_maps.iter_windows, "__defaults__", (window,))
    path = tmp_path / "labels.tif"
    tifffile.imwrite(path, disc_map(), tile=(16, 16))
    ground_truth = read(path)
    assert_allclose(ground_truth.points, slow_centroids(disc_map()))
    assert_array_equal(ground_truth.boxes, [[99, 199, 1, 1], [10, 20, 4, 6], [40, 30, 40, 1]])
    assert "50 × 200" in error_of(path, shape=(50, 200))


def test_labels_of_an_omezarr(tmp_path):
    import zarr

    path = tmp_path / "a.zarr"
    group = zarr.open_group(path / "labels" / "nuclei", mode="w", zarr_format=3)
    group.attrs["ome"] = multiscales("nuclei", 1, None, channels=False)
    group.create_array("0", data=disc_map(dtype=np.int32))
    assert_allclose(read(path).points, slow_centroids(disc_map()))


def test_rgb_image_is_not_a_label_map(tmp_path):
    path = tmp_path / "labels.tif"
    tifffile.imwrite(path, np.zeros((*SHAPE, 3), np.uint8), photometric="rgb")
    assert "not a label map" in error_of(path)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", ""),
        ("a.csv", "y,x\n"),
        ("a.csv", "a,b\n1,2\n"),
        ("a.csv", "y,x\n1,two\n"),
        ("a.csv", "y,x\n1,\n"),
        ("a.json", "{"),
        ("a.json", "[1, 2]"),
        ("a.json", "3"),
        ("a.json", '{"type": "FeatureCollection"}'),
        ("a.json", '{"annotations": []}'),
        ("a.geojson", '{"type": "FeatureCollection", "features": []}'),
        ("a.mat", "no"),
        ("a.tif", "no"),
        ("a.xml", "<annotation/>"),
        ("a.txt", "1 2"),
    ],
)
def test_invalid_files_are_rejected_in_one_line(tmp_path, name, text):
    path = tmp_path / name
    path.write_text(text)
    error_of(path)


def test_empty_label_map_is_rejected(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.zeros(SHAPE, np.uint8))
    assert "no annotations" in error_of(path)


def test_a_missing_file(tmp_path):
    assert "no such file" in error_of(tmp_path / "none.csv")


def test_points_outside_are_rejected_or_moved_onto_the_border(tmp_path):
    path = tmp_path / "p.csv"
    path.write_text("y,x\n100.5,-0.5\n50,201.5\n")
    ground_truth = read(path)
    assert (ground_truth.points >= 0).all()
    assert (ground_truth.points < SHAPE).all()
    assert_allclose(ground_truth.points, [[100, 0], [50, 200]])
    assert len(ground_truth.clip(Rect(0, 0, *SHAPE))) == 2
    path.write_text("y,x\n10,10\n50,203\n")
    assert "1 of 2" in error_of(path)


@pytest.mark.parametrize(
    ("file", "image", "shape", "count"),
    [
        ("OSBS_029.csv", "OSBS_029.tif", (400, 400), 61),
        ("terrain1_coco.json", "terrain1.jpg", (1365, 2048), 7),
        (
            "2019_YELL_2_541000_4977000_image_crop.xml",
            "2019_YELL_2_541000_4977000_image_crop.png",
            (1035, 1249),
            279,
        ),
    ],
)
def test_real_annotations(shared, file, image, shape, count):
    assert len(read_ground_truth(shared / "data" / "aerial" / file, image, shape)) == count


def test_real_nuclei(shared):
    path = shared / "data" / "nuclei" / "00ae65c1c663.labels.tif"
    values = tifffile.imread(path)
    ground_truth = read_ground_truth(path, "00ae65c1c663.png", values.shape)
    assert_allclose(ground_truth.points, slow_centroids(values))


def test_features_keep_their_outlines(tmp_path):
    from hrviewer.io.ground_truth import read_features

    square = polygon((20, 10), (26, 10), (26, 14), (20, 14))
    path = tmp_path / "q.geojson"
    path.write_text(json.dumps([feature("Polygon", square), feature("Point", [1, 2])]))
    first, second = read_features(path, "photo.png", SHAPE)
    assert_array_equal(first.polygons[0][0], [[10, 20], [10, 26], [14, 26], [14, 20]])
    assert second.point == (2, 1)
    path = tmp_path / "p.csv"
    path.write_text("ymin,xmin,ymax,xmax,label\n1,2,3,4,cell\n")
    (boxed,) = read_features(path, "photo.png", SHAPE)
    assert (boxed.label, boxed.box) == ("cell", (1, 2, 2, 2))


def test_dsa_annotations(tmp_path):
    path = tmp_path / "d.json"
    elements = [
        {"type": "point", "center": [20, 10.5, 0], "group": "cell"},
        {"type": "rectangle", "center": [23, 12, 0], "width": 6, "height": 4,
         "label": {"value": "tree"}},
    ]  # fmt: skip
    path.write_text(json.dumps({"annotation": {"name": "mine", "elements": elements}}))
    ground_truth = read(path)
    assert_allclose(ground_truth.points, [[10.5, 20], [12, 23]])
    assert [ground_truth.classes[i] for i in ground_truth.class_ids] == ["cell", "tree"]
    elements.append({"type": "point"})
    path.write_text(json.dumps({"elements": elements}))
    assert "element 3" in error_of(path)


# Files that state false sizes.


def mat_bytes(tmp_path, **variables):
    path = tmp_path / "good.mat"
    compressed = variables.pop("compressed", False)
    scipy.io.savemat(path, variables, do_compression=compressed)
    return bytearray(path.read_bytes())


@pytest.mark.parametrize("compressed", [False, True])
def test_sizes_in_mat_files_are_checked_before_scipy_believes_them(
    tmp_path, monkeypatch, compressed
):
    """A matrix of 2³⁰ × 2³⁰ ended the process."""
    monkeypatch.setattr(scipy.io, "loadmat", lambda *_: pytest.fail("scipy was asked"))
    plain = mat_bytes(tmp_path, annPoints=POINTS)
    at = plain.index(struct.pack("<ii", *POINTS.shape))
    for rows in (1 << 30, -1, 4):
        changed = bytearray(plain)
        changed[at : at + 4] = struct.pack("<i", rows)
        if compressed:
            body = zlib.compress(changed[128:])
            changed = changed[:128] + struct.pack("<ii", 15, len(body)) + body
        (tmp_path / "a.mat").write_bytes(changed)
        assert "matrix" in error_of(tmp_path / "a.mat")


def test_every_truncation_and_flip_of_a_mat_file_is_one_line_or_points(tmp_path):
    info = np.empty((1, 1), object)
    info[0, 0] = {"location": POINTS, "number": np.array([[3]])}
    data = mat_bytes(tmp_path, image_info=info)
    path = tmp_path / "a.mat"
    for at in range(0, len(data), 16):
        path.write_bytes(data[:at] or b"x")
        error_of(path)
    for at in range(128, len(data), 3):
        changed = bytearray(data)
        changed[at] ^= 0xFF
        path.write_bytes(changed)
        with contextlib.suppress(HrviewerError):
            read(path)


def test_a_mat_bomb_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("hrviewer.io.ground_truth.mat_check.MAX_BYTES", 1 << 20)
    data = mat_bytes(tmp_path, annPoints=np.zeros((1 << 17, 2)), compressed=True)
    (tmp_path / "a.mat").write_bytes(data)
    assert "decompresses to more" in error_of(tmp_path / "a.mat")


POINT = (
    '{"type": "Feature", "geometry": {"type": "Point", "coordinates": [1, %s]}, "properties": %s}'
)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.geojson", POINT % ("1" + "0" * 400, "{}")),
        ("a.geojson", POINT % ("NaN", "{}")),
        ("a.geojson", POINT % ("1", "[1]")),
        ("a.geojson", "[" * 100_000),
        ("a.json", '{"elements": ["point"]}'),
        ("a.json", '{"elements": [{"type": "point", "center": [1, 1, 0]}], "annotation": 3}'),
        ("a.csv", "y,x,h,w\n1,1,-5,5\n"),
        ("a.csv", "xmin,ymin,xmax,ymax\n5,5,1,1\n"),
    ],
)
def test_values_of_another_kind_are_rejected_in_one_line(tmp_path, name, text):
    path = tmp_path / name
    path.write_text(text)
    error_of(path)


def test_text_in_place_of_a_dsa_label_is_ignored(tmp_path):
    path = tmp_path / "a.json"
    element = {"type": "point", "center": [3, 5, 0], "label": "x", "user": "y"}
    path.write_text(json.dumps({"elements": [element]}))
    assert_array_equal(read(path).points, [[5, 3]])


def test_measurements_that_are_not_numbers_are_left_out(tmp_path):
    path = tmp_path / "a.geojson"
    path.write_text(POINT % ("1", '{"measurements": {"a": NaN, "b": 2}}'))
    (feature,) = read_features(path, "photo.png", SHAPE)
    assert feature.measurements == {"b": 2.0}


def test_points_of_a_mat_file_are_pairs(tmp_path):
    """Others were taken for pairs, row by row."""
    scipy.io.savemat(tmp_path / "a.mat", {"annPoints": np.ones((4, 6))})
    with pytest.raises(GroundTruthError, match="shape"):
        read_ground_truth(tmp_path / "a.mat", "a.png", SHAPE)


def test_a_table_of_very_many_columns_is_refused(tmp_path):
    (tmp_path / "a.csv").write_text(",".join(f"c{i}" for i in range(20_000)) + "\n")
    with pytest.raises(GroundTruthError, match="more than 10,000 columns"):
        read_ground_truth(tmp_path / "a.csv", "a.png", SHAPE)


@pytest.mark.skipif(sys.platform == "win32", reason="pipes are POSIX's")
def test_a_pipe_is_refused_before_it_is_read(tmp_path):
    os.mkfifo(tmp_path / "a.csv")
    with pytest.raises(GroundTruthError, match="device or pipe"):
        read_ground_truth(tmp_path / "a.csv", "a.png", SHAPE)
