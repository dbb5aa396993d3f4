"""ND2 and LIF: pixels, series, planes, channels and pixel sizes are those that were written."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from microscope_files import write_lif, write_nd2

from hrviewer.errors import HrviewerError
from hrviewer.pyramid import open_pyramid
from hrviewer.pyramid.channels import ChannelInfo
from hrviewer.pyramid.readers import frames

RNG = np.random.default_rng(0)
STAINS = RNG.integers(0, 4096, (2, 3, 60, 80), np.uint16)
"""Channels, z, y, x."""
COLOURS = RNG.integers(0, 256, (700, 600, 3), np.uint8)


@pytest.fixture
def lif(tmp_path: Path) -> Path:
    pytest.importorskip("liffile")
    path = tmp_path / "a.lif"
    facts = {
        "size": {"y": 0.5e-6, "x": 0.25e-6, "z": 2e-6}, "bits": 12, "tables": ["Blue", "Green"],
        "dyes": ["DAPI"],
    }  # fmt: skip
    bgr = {"tags": [3, 2, 1], "size": {"y": 1e-6, "x": 1e-6}}
    write_lif(
        path,
        {
            "Overview": (COLOURS[:9, :8, 0], "yx", {}),
            "Stains": (STAINS, "czyx", facts),
            "Colours": (COLOURS[..., ::-1].copy(), "yxc", bgr),
        },
    )
    return path


def test_lif(lif: Path) -> None:
    with open_pyramid(lif) as image:
        image.check()
        assert [entry.name for entry in image.series] == ["Overview", "Stains", "Colours"]
        assert image.series[0].kind == "macro"
        assert image.is_rgb
        assert image.pixel_size == pytest.approx((1, 1))
        np.testing.assert_array_equal(image[...], COLOURS)
    with open_pyramid(lif, series="Stains", plane={"z": 2}, channels=["dapi", 1]) as image:
        assert image.pixel_size == pytest.approx((0.5, 0.25))
        assert image.plane_sizes == {"z": 3}
        assert image.plane_steps == pytest.approx({"z": 2})
        assert image.channel_info == (ChannelInfo("DAPI", "0000FF"), ChannelInfo("", "00FF00"))
        assert image.value_range.ends == (0, 4095)
        np.testing.assert_array_equal(image[...], np.moveaxis(STAINS[:, 2], 0, 2))


def test_lif_equals_its_own_reader(lif: Path) -> None:
    liffile = pytest.importorskip("liffile")
    with liffile.LifFile(lif) as file, open_pyramid(lif) as image:
        np.testing.assert_array_equal(image[...], file.images[2].asarray())
    with open_pyramid(lif, series=1, plane={"z": 1}) as image, liffile.LifFile(lif) as file:
        np.testing.assert_array_equal(image[..., 1], file.images[1].asarray()[1, 1])


def test_a_lif_that_was_scanned_across_y(tmp_path: Path) -> None:
    liffile = pytest.importorskip("liffile")
    path = tmp_path / "a.lif"
    steps = {"size": {"z": 2e-6, "x": 0.5e-6}}
    stack = RNG.integers(0, 255, (4, 3, 2, 30, 20), np.uint8)
    write_lif(path, {"Plane": (STAINS[0], "tzx", steps), "Waves": (stack, "leqyx", {})})
    with open_pyramid(path) as image, liffile.LifFile(path) as file:
        assert image.pixel_size == pytest.approx((2, 0.5))
        assert image.plane_sizes == {"t": 3}
        assert "its rows lie along z, as it was scanned across y" in image.notes
        np.testing.assert_array_equal(image[..., 0], file.images[0].asarray()[0])
    # Every axis is kept, of an unknown kind as well.
    with open_pyramid(path, series="Waves", plane={"l": 3, "e": 1, "axis77": 1}) as image:
        np.testing.assert_array_equal(image[..., 0], stack[3, 1, 1])


def test_a_lif_that_is_cut_short(lif: Path) -> None:
    lif.write_bytes(lif.read_bytes()[:-1000])
    with open_pyramid(lif) as image:
        assert image.plane_shape == (60, 80)
        assert any("1 images whose pixels are not in the file" in note for note in image.notes)
    lif.write_bytes(lif.read_bytes()[:3000])
    with pytest.raises(HrviewerError, match=r"cannot be read by liffile|holds no image"):
        open_pyramid(lif)


@pytest.mark.parametrize("compressed", [False, True])
def test_nd2(tmp_path: Path, compressed: bool) -> None:
    nd2 = pytest.importorskip("nd2")
    path = tmp_path / "a.nd2"
    stored = [np.moveaxis(STAINS[:, z] + 5 * p, 0, 2).copy() for p in range(2) for z in range(3)]
    write_nd2(
        path, stored, names=["DAPI", "FITC"], colors=[0xFF0000, 0x00FF00], size=0.325, bits=12,
        positions=["left", "right"], depth=3, compressed=compressed, dyes=not compressed,
    )  # fmt: skip
    with open_pyramid(path, series="right", plane={"z": 2}) as image:
        image.check()
        assert [entry.name for entry in image.series] == ["left", "right"]
        assert image.pixel_size == pytest.approx((0.325, 0.325))
        assert image.plane_steps == {"z": 2}
        assert image.channel_info == (ChannelInfo("DAPI", "0000FF"), ChannelInfo("FITC", "00FF00"))
        assert image.value_range.ends == (0, 4095)
        np.testing.assert_array_equal(image[...], stored[5])
        with nd2.ND2File(path) as file:  # positions, z, channels, y, x
            np.testing.assert_array_equal(image[..., 1], file.asarray()[1, 2, 1])


@pytest.mark.parametrize("compressed", [False, True])
def test_a_frame_of_nd2_that_is_not_stored_has_no_data(tmp_path: Path, compressed: bool) -> None:
    pytest.importorskip("nd2")
    path = tmp_path / "a.nd2"
    frames = [np.full((60, 80, 1), 7, np.uint16)] * 3
    write_nd2(path, frames, size=0.5, depth=3, compressed=compressed, missing=[2])
    with open_pyramid(path, plane={"z": 2}) as image:
        assert "this plane is not in the file: it has no data" in image.notes
        assert image.data_area(image.rect) == 0
    with open_pyramid(path, plane={"z": 1}) as image:
        assert image.data_area(image.rect) == 60 * 80
        assert (image[...] == 7).all()


def test_colours_of_nd2_are_stored_as_blue_green_red(tmp_path: Path) -> None:
    pytest.importorskip("nd2")
    path = tmp_path / "a.nd2"
    write_nd2(path, [COLOURS[..., ::-1]], size=0.5, padding=2)
    with open_pyramid(path) as image:
        assert image.is_rgb
        np.testing.assert_array_equal(image[...], COLOURS)


def test_a_frame_that_is_compressed_as_a_whole_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("nd2")
    monkeypatch.setattr(frames, "MAX_DECODED_BYTES", 1000)
    path = tmp_path / "a.nd2"
    write_nd2(path, [COLOURS], compressed=True)
    with (
        open_pyramid(path) as image,
        pytest.raises(HrviewerError, match="save it without compression"),
    ):
        image.check()


@pytest.mark.parametrize(("name", "package"), [("a.nd2", "nd2"), ("a.lif", "liffile")])
def test_without_its_package_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    (tmp_path / name).write_bytes(bytes(range(256)))
    with pytest.raises(HrviewerError, match=rf"is read by {package}: .*\[microscopes\]"):
        open_pyramid(tmp_path / name)


@pytest.mark.parametrize(("name", "package"), [("a.nd2", "nd2"), ("a.lif", "liffile")])
def test_damaged_files_are_one_line(tmp_path: Path, name: str, package: str) -> None:
    pytest.importorskip(package)
    (tmp_path / name).write_bytes(bytes(range(1, 256)))
    with pytest.raises(HrviewerError, match=f"{name} cannot be read by {package}") as caught:
        open_pyramid(tmp_path / name)
    assert "\n" not in str(caught.value)
