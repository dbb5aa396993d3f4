"""Import of other tools' results: patches, probabilities, and invalid files."""

from __future__ import annotations

import h5py
import numpy as np
import pandas as pd
import pytest
from toys import picture, toy_bundle

from hrviewer.errors import HrviewerError, RunError
from hrviewer.geometry import Rect
from hrviewer.io import export
from hrviewer.io.patch_tables import read_patch_table
from hrviewer.runs import run
from hrviewer.runs.importers import import_run

SHAPE = 300, 400


@pytest.fixture
def image():
    return picture(*SHAPE)


def wsinfer(path, rects, probabilities):
    y, x, h, w = np.array(rects).T
    columns = {"minx": x, "miny": y, "width": w, "height": h}
    named = {f"prob_{name}": values for name, values in probabilities.items()}
    pd.DataFrame(columns | named).to_csv(path, index=False)
    return path


def coordinates(path, rects, kind):
    at = np.array(rects)[:, [1, 0]]
    side = rects[0][2]
    with h5py.File(path, "w") as file:
        coords = file.create_dataset("coords", data=at)
        if kind == "trident":
            about = {"patch_size": side // 2, "patch_size_level0": side, "overlap": 0,
                     "level0_height": SHAPE[0], "level0_width": SHAPE[1]}  # fmt: skip
        else:
            about = {"patch_size": side // 2, "patch_level": 1, "downsample": (2.0, 2.0)}
        coords.attrs.update(about)
    return path


RECTS = [(0, 0, 64, 64), (64, 128, 64, 64), (192, 320, 64, 64)]


def test_wsinfer_becomes_a_run(image, tmp_path):
    tumour = [0.9, 0.2, 0.4]
    probabilities = {"notumor": [1 - p for p in tumour], "tumor": tumour}
    path = wsinfer(tmp_path / "slide.csv", RECTS, probabilities)
    made = import_run(path, image, tmp_path / "a.run.zarr")
    assert made.complete
    assert made.estimate["kind"] == "probabilities"
    assert made.estimate["per_class"] == pytest.approx({"notumor": 0.5, "tumor": 0.5})
    rows = made.patches
    assert rows[["y", "x", "h", "w"]].to_numpy().tolist() == [list(rect) for rect in RECTS]
    assert rows["score"].tolist() == pytest.approx([0.9, 0.8, 0.6])
    cells, cell = made.map("output")
    assert cell == 64
    for (y, x, *_), p in zip(RECTS, tumour, strict=True):
        assert cells[1, y // 64, x // 64] == pytest.approx(p)
    assert np.isnan(cells[:]).sum() == 2 * (cells.shape[1] * cells.shape[2] - 3)
    assert len(pd.read_csv(export(made, tmp_path / "a.csv"))) == 3
    export(made, tmp_path / "a.html")


@pytest.mark.parametrize("kind", ["trident", "clam"])
def test_coordinates_become_a_run(image, tmp_path, kind):
    path = coordinates(tmp_path / "slide.h5", RECTS, kind)
    made = import_run(path, image, tmp_path / "a.run.zarr")
    assert made.header["strategy"] == kind
    assert made.patches[["y", "x", "h", "w"]].to_numpy().tolist() == [list(r) for r in RECTS]
    assert made.estimate["value"] == 3 * 64 * 64
    assert made.estimate["fraction"] == {"patch": pytest.approx(3 * 64 * 64 / (300 * 400))}


def test_patches_beyond_the_end_are_cut(image, tmp_path):
    path = coordinates(tmp_path / "a.h5", [(256, 384, 64, 64)], "trident")
    made = import_run(path, image, tmp_path / "a.run.zarr")
    assert made.estimate["value"] == 44 * 16


def broken(path, kind):
    if kind == "no prob":
        pd.DataFrame({"minx": [1], "miny": [1]}).to_csv(path.with_suffix(".csv"))
        return path.with_suffix(".csv")
    if kind == "no hdf5":
        path.write_text("no")
    elif kind == "no coords":
        with h5py.File(path, "w") as file:
            file["features"] = np.zeros((3, 4))
    elif kind == "no size":
        with h5py.File(path, "w") as file:
            file["coords"] = np.zeros((3, 2))
    elif kind == "elsewhere":
        coordinates(path, [(0, 5000, 64, 64)], "clam")
    elif kind == "empty":
        coordinates(path, RECTS, "clam")
        with h5py.File(path, "r+") as file:
            about = dict(file["coords"].attrs)
            del file["coords"]
            file.create_dataset("coords", data=np.zeros((0, 2), int)).attrs.update(about)
    return path


@pytest.mark.parametrize(
    ("kind", "match"),
    [
        ("no prob", "not a result of WSInfer"),
        ("no hdf5", "not a readable HDF5"),
        ("no coords", "no dataset coords"),
        ("no size", "no patch size"),
        ("elsewhere", "another image: 1 of 1"),
        ("empty", "no patch"),
        ("missing", "no file"),
    ],
)
def test_invalid_files_are_refused_in_one_line(image, tmp_path, kind, match):
    path = broken(tmp_path / "a.h5", kind)
    with pytest.raises(HrviewerError, match=match) as raised:
        import_run(path, image, tmp_path / "a.run.zarr")
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "a.run.zarr").exists()


def test_a_file_marks_the_region(image, tmp_path):
    path = tmp_path / "roi.csv"
    path.write_text("ymin,xmin,ymax,xmax\n64,64,128,192\n128.5,100,190.5,130\n")
    done = run(image, toy_bundle(), "patches", tile=64, region=path, out=tmp_path / "a.run.zarr",
               cache="off")  # fmt: skip
    assert done.region == Rect(64, 64, 127, 128)
    path.write_text("y,x\n64,64\n")
    with pytest.raises(HrviewerError, match="marks no area"):
        run(image, toy_bundle(), "patches", region=path, cache="off")


@pytest.mark.parametrize("kind", ["link", "raw", "virtual", "bomb", "group", "text", "nan"])
def test_coordinates_are_read_from_the_file_itself_and_bounded(kind, tmp_path):

    path, other = tmp_path / "a.h5", tmp_path / "other.h5"
    with h5py.File(other, "w") as file:
        file["coords"] = np.zeros((4, 2), int)
        file["coords"].attrs["patch_size_level0"] = 32
    with h5py.File(path, "w") as file:
        if kind == "link":
            file["coords"] = h5py.ExternalLink(str(other), "coords")
        elif kind == "raw":
            (tmp_path / "secret").write_bytes(bytes(40))
            outside = [(str(tmp_path / "secret"), 0, 40)]
            file.create_dataset("coords", shape=(20, 2), dtype="u1", external=outside)
        elif kind == "virtual":
            layout = h5py.VirtualLayout(shape=(4, 2), dtype=int)
            layout[:] = h5py.VirtualSource(str(other), "coords", shape=(4, 2))
            file.create_virtual_dataset("coords", layout)
        elif kind == "bomb":
            options = {"chunks": (1_000_000, 2), "compression": "gzip"}
            file.create_dataset("coords", shape=(10**9, 2), dtype="i8", **options)
        elif kind == "group":
            file.create_group("coords")
        else:
            file["coords"] = np.array([["a", "b"]], "S1") if kind == "text" else [[np.nan, 1.0]]
        if kind != "link":
            file["coords"].attrs["patch_size_level0"] = 32
    with pytest.raises(RunError, match=r"a\.h5 is not a readable HDF5 file") as caught:
        read_patch_table(path)
    assert "\n" not in str(caught.value)
