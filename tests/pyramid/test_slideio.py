"""VSI and CZI, read by slideio."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hrviewer.errors import HrviewerError
from hrviewer.pyramid import open_pyramid

slideio = pytest.importorskip("slideio")


def test_a_vsi_is_the_slide_and_not_its_preview(shared: Path) -> None:
    path = shared / "cases" / "formats" / "vsi-ets-test-jpg2k.vsi"
    with open_pyramid(path, plane={"z": 5}) as pyramid:
        pyramid.check()
        assert pyramid.shape == (1682, 1645, 2)
        assert [info.name for info in pyramid.channel_info] == ["C405", "C488"]
        assert pyramid.pixel_size == pytest.approx((0.108333, 0.108333), rel=1e-5)
        assert pyramid.plane_sizes == {"z": 11}
        scene = slideio.open_slide(str(path), "VSI").get_scene(0)
        expected = scene.read_block((600, 500, 300, 200), slices=(5, 6))
        np.testing.assert_array_equal(pyramid[500:700, 600:900], expected.reshape(200, 300, 2))
    with open_pyramid(path, channels=["c488"]) as pyramid:
        assert pyramid.channels == 1


def test_a_czi_equals_what_was_written(tmp_path: Path) -> None:
    czi = pytest.importorskip("pylibCZIrw.czi")
    pixels = np.random.default_rng(0).integers(0, 60_000, (700, 900, 1), np.uint16)
    path = tmp_path / "a.czi"
    with czi.create_czi(str(path)) as file:
        file.write(pixels, location=(0, 0), plane={"C": 0})
        file.write(pixels // 2, location=(0, 0), plane={"C": 1})
        file.write_metadata(
            "a", channel_names={0: "DAPI", 1: "FITC"}, scale_x=0.5e-6, scale_y=0.25e-6
        )
    with open_pyramid(path) as pyramid:
        assert pyramid.shape == (700, 900, 2)
        assert [info.name for info in pyramid.channel_info] == ["DAPI", "FITC"]
        assert pyramid.pixel_size == pytest.approx((0.25, 0.5))
        np.testing.assert_array_equal(pyramid[..., :1], pixels)
        np.testing.assert_array_equal(pyramid[..., 1:], pixels // 2)
        bioio = pytest.importorskip("bioio")
        bioio_czi = pytest.importorskip("bioio_czi")
        # By libCZI's other binding, aicspylibczi, which shares no code with slideio.
        other = bioio.BioImage(path, reader=bioio_czi.Reader, use_aicspylibczi=True)
        np.testing.assert_array_equal(pyramid[...], other.get_image_data("YXC"))
        assert other.channel_names == [info.name for info in pyramid.channel_info]
        size = other.physical_pixel_sizes
        assert pyramid.pixel_size == pytest.approx((size.Y, size.X))


def test_a_preview_alone_is_refused(tmp_path: Path, shared: Path) -> None:
    path = tmp_path / "alone.vsi"
    path.write_bytes((shared / "cases/formats/vsi-ets-test-jpg2k.vsi").read_bytes())
    with pytest.raises(HrviewerError):
        open_pyramid(path)
