"""Names, colours and windows of channels, and their selection by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr

from hrviewer.errors import ParameterError
from hrviewer.pyramid import open_pyramid
from hrviewer.pyramid.channels import ChannelInfo, select_channels

STACK = np.arange(3 * 4 * 20 * 30, dtype=np.uint16).reshape(3, 4, 20, 30)
"""Channels, z, y, x."""


@pytest.fixture
def ome(tmp_path: Path) -> Path:
    path = tmp_path / "stack.ome.tif"
    tifffile.imwrite(
        path,
        STACK,
        metadata={
            "axes": "CZYX",
            "Channel": {"Name": ["DAPI", "FITC", "Cy5"], "Color": [65535, 16711935, -16776961]},
        },
    )
    return path


def test_ome_channels_are_selected_by_name(ome: Path) -> None:
    with open_pyramid(ome, channels=["cy5", 0], plane={"z": 3}) as pyramid:
        assert pyramid.channel_info == (
            ChannelInfo("Cy5", "FF0000"),
            ChannelInfo("DAPI", "0000FF"),
        )
        assert pyramid.selected_channels == (2, 0)
        assert [info.name for info in pyramid.available_channels] == ["DAPI", "FITC", "Cy5"]
        assert pyramid.plane_sizes == {"z": 4}
        np.testing.assert_array_equal(pyramid[...], np.moveaxis(STACK[[2, 0], 3], 0, 2))
        # An open image is the same one by other names of its channels.
        assert open_pyramid(pyramid, channels=["Cy5", "dapi"]) is pyramid
        with pytest.raises(ParameterError, match="is open with channels="):
            open_pyramid(pyramid, channels=["FITC"])
    with pytest.raises(ParameterError, match=r"no channel 'PI'; it has 0 DAPI, 1 FITC, 2 Cy5"):
        open_pyramid(ome, channels=["PI"])
    with pytest.raises(ParameterError, match=r"no channel 3"):
        open_pyramid(ome, channels=[3])


def test_names_come_before_numbers_and_must_be_unique() -> None:
    infos = [ChannelInfo("405"), ChannelInfo("1"), ChannelInfo("a"), ChannelInfo("A")]
    assert select_channels("x", infos, ["1", "0", 2]) == (1, 0, 2)
    assert select_channels("x", infos, ["A", "405"]) == (3, 0)
    infos[3] = ChannelInfo("a")
    with pytest.raises(ParameterError, match="several channels named 'a': select one by its"):
        select_channels("x", infos, ["a"])


def test_imagej_channels(tmp_path: Path) -> None:
    path = tmp_path / "j.tif"
    table = np.zeros((3, 256), np.uint8)
    table[1] = np.arange(256)
    tifffile.imwrite(
        path,
        STACK[:2, 0],
        imagej=True,
        metadata={
            "axes": "CYX",
            "Labels": ["actin", "nuclei"],
            "Ranges": (0.0, 50.0, 10.0, 900.0),
            "LUTs": [table, table],
        },
    )
    with open_pyramid(path) as pyramid:
        assert pyramid.channel_info == (
            ChannelInfo("actin", "00FF00", (0, 50)),
            ChannelInfo("nuclei", "00FF00", (10, 900)),
        )


def write_omezarr(path: Path, omero: Any, version: int = 2) -> None:
    group = zarr.open_group(path, mode="w", zarr_format=version)  # type: ignore[arg-type]
    group.create_array("0", data=STACK)
    axes = [{"name": name} for name in "czyx"]
    group.attrs["multiscales"] = [{"axes": axes, "datasets": [{"path": "0"}]}]
    group.attrs["omero"] = omero


def test_omero_channels_and_default_plane(tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    channels = [
        {"label": name, "color": "00ff00", "window": {"start": 1, "end": 9, "min": 0, "max": 99}}
        for name in ("a", "b", "c")
    ]
    write_omezarr(path, {"channels": channels, "rdefs": {"defaultZ": 2, "defaultT": 7}})
    with open_pyramid(path) as pyramid:
        assert pyramid.plane == {"z": 2}
        assert pyramid.channel_info[1] == ChannelInfo("b", "00FF00", (1, 9))
        np.testing.assert_array_equal(pyramid[...], np.moveaxis(STACK[:, 2], 0, 2))
    with open_pyramid(path, plane={"z": 0}) as pyramid:
        assert pyramid.plane == {"z": 0}


@pytest.mark.parametrize(
    "omero",
    [
        None,
        "x",
        {"channels": 3, "rdefs": []},
        {"channels": [{"label": None, "color": "no", "window": {"start": "a"}}] * 3},
        {"channels": [{}, {}], "rdefs": {"defaultZ": "2"}},
        {"channels": [{"window": {"start": 5, "end": 5}}] * 3, "rdefs": {"defaultZ": 99}},
    ],
)
def test_malformed_omero_never_costs_the_image(tmp_path: Path, omero: Any) -> None:
    write_omezarr(tmp_path / "a.zarr", omero)
    with open_pyramid(tmp_path / "a.zarr") as pyramid:
        assert pyramid.channel_info == (ChannelInfo(),) * 3
        assert pyramid.plane["z"] in (0, 3)


def test_gdal_bands(tmp_path: Path) -> None:
    rasterio = pytest.importorskip("rasterio")
    path = tmp_path / "bands.tif"
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        width=30,
        height=20,
        count=4,
        dtype="uint16",
        photometric="RGB",
        transform=rasterio.Affine(2, 0, 0, 0, -2, 0),
    ) as file:
        file.write(STACK[0].astype(np.uint16))
        file.descriptions = ("red", "green", "blue", "near infrared")
        file.colorinterp = [
            rasterio.enums.ColorInterp[c] for c in ("red", "green", "blue", "alpha")
        ]
    with open_pyramid(path, channels=[0, 1, 2, "near infrared"]) as pyramid:
        assert pyramid.is_rgb
        assert pyramid.channels == 4
        np.testing.assert_array_equal(pyramid[...], np.moveaxis(STACK[0], 0, 2))
    with open_pyramid(path, channels=["near infrared"]) as pyramid:
        assert not pyramid.is_rgb


@pytest.mark.parametrize(
    ("name", "names", "is_rgb"),
    [
        ("vectra_5ch.qptiff", ["DAPI", "Opal 520", "Opal 570", "Opal 690", "Sample AF"], False),
        ("fluo_16bit_4ch.ome.tif", ["DAPI", "CD8", "PanCK", "FoxP3"], False),
        ("s2_13band.tif", [f"B{i:02}" for i in range(1, 14)], False),
        ("naip_4band.tif", ["red", "green", "blue", ""], True),
        ("s2_rgb_uint16.tif", ["red", "green", "blue"], True),
    ],
)
def test_cases(shared: Path, name: str, names: list[str], is_rgb: bool) -> None:
    folder = shared / "cases" / "formats"
    case = next(c for c in json.loads((folder / "cases.json").read_text()) if c["name"] == name)
    if isinstance(case["right"], dict) and "names" in case["right"]:
        assert case["right"]["names"] == names
    with open_pyramid(folder / name) as pyramid:
        assert [info.name for info in pyramid.channel_info] == names
        assert pyramid.is_rgb == is_rgb


@pytest.mark.parametrize("scale", [["a", 1, 0.5, 0.5], [1, 1, "a", 0.5], [1, 1, -1, 0.5], None])
def test_a_bad_scale_never_costs_the_image(tmp_path: Path, scale: Any) -> None:
    write_omezarr(tmp_path / "a.zarr", {})
    group = zarr.open_group(tmp_path / "a.zarr")
    units = {"y": "micrometer", "x": "micrometer"}
    axes = [{"name": a, **({"unit": units[a]} if a in units else {})} for a in "czyx"]
    change = {"type": "scale", "scale": scale}
    group.attrs["multiscales"] = [
        {"axes": axes, "datasets": [{"path": "0", "coordinateTransformations": [change]}]}
    ]
    with open_pyramid(tmp_path / "a.zarr") as pyramid:
        known = scale is not None and scale[0] == "a"
        assert pyramid.pixel_size == ((0.5, 0.5) if known else None)
