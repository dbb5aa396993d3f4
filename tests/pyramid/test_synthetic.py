from __future__ import annotations

from typing import ClassVar

import numpy as np
import pytest
from numpy.typing import NDArray

from hrviewer.errors import HrviewerError
from hrviewer.geometry import Rect
from hrviewer.ground_truth import GroundTruth
from hrviewer.pyramid import open_pyramid, synthetic
from hrviewer.pyramid.synthetic import SyntheticImage, make_synthetic_image


class Slope(SyntheticImage):
    """Brightness rises with x; an object stands in the middle of every 100 × 100 pixels."""

    title = "Slope"
    classes = ("thing",)
    pixel_size: ClassVar[float | None] = 0.5
    version = 1

    def render(self, rect: Rect, scale: int) -> NDArray[np.uint8]:
        assert rect.y % scale == rect.x % scale == 0
        columns = np.arange(rect.x, rect.x1).reshape(-1, scale).mean(1)
        row = np.round(columns * 255 / self.size).astype(np.uint8)
        return np.broadcast_to(row[None, :, None], (-(-rect.h // scale), len(row), 3)).copy()

    def ground_truth(self, rect: Rect) -> GroundTruth:
        at = np.arange(50, self.size, 100.0)
        points = np.stack(np.meshgrid(at, at, indexing="ij"), -1).reshape(-1, 2)
        return GroundTruth(points, self.classes).clip(rect)

    def labels(self, rect: Rect) -> NDArray[np.int32]:
        return np.zeros((rect.h, rect.w), np.int32)


class Entry:
    name = "slope"

    @staticmethod
    def load() -> type[SyntheticImage]:
        return Slope


@pytest.fixture(autouse=True)
def _slope(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synthetic, "entry_points", lambda group: [Entry])


def test_a_synthetic_image_has_levels_down_to_an_overview() -> None:
    with open_pyramid("sample:slope?size=131072&seed=3") as pyramid:
        assert [level.shape[0] for level in pyramid.levels] == [131072 >> k for k in range(8)]
        assert pyramid.missing_levels() == 0
        assert pyramid.pixel_size == (0.5, 0.5)
        got = pyramid.read(Rect(0, 0, 131072, 131072), 512)
        assert got.shape == (256, 256, 3)
        np.testing.assert_allclose(got[5, :, 0], np.arange(256), atol=1)


def test_tiles_at_the_border_are_clipped() -> None:
    with open_pyramid("sample:slope?size=1280") as pyramid:
        got = pyramid.read(Rect(1000, 1000, 280, 280))
        np.testing.assert_array_equal(got, Slope(1280, 0).render(Rect(1000, 1000, 280, 280), 1))


def test_equivalent_urls_have_one_name() -> None:
    plain = open_pyramid("sample:slope")
    assert plain.path == "sample:slope?size=8192&seed=0"
    for url in ("sample:slope?seed=0&size=8192", "sample:slope?size=08192", str(plain.path)):
        assert open_pyramid(url).fingerprint == plain.fingerprint
    assert open_pyramid("sample:slope?seed=1").fingerprint != plain.fingerprint


def test_a_new_version_is_another_image(monkeypatch: pytest.MonkeyPatch) -> None:
    before = open_pyramid("sample:slope").fingerprint
    monkeypatch.setattr(Slope, "version", 2)
    assert open_pyramid("sample:slope").fingerprint != before


def test_the_ground_truth_of_an_image() -> None:
    pyramid = open_pyramid("sample:slope?size=1024")
    ground_truth = pyramid.ground_truth(Rect(0, 0, 200, 100))
    assert ground_truth is not None
    np.testing.assert_array_equal(ground_truth.points, [[50, 50], [150, 50]])
    assert ground_truth.source == "sample:slope?size=1024&seed=0"
    assert open_pyramid(np.zeros((9, 9), np.uint8)).ground_truth(Rect(0, 0, 9, 9)) is None


def test_channels_can_be_chosen() -> None:
    assert open_pyramid("sample:slope?size=1024", channels=[1]).channels == 1


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("sample:slopes", "there is no synthetic image 'slopes'; installed: slope"),
        ("sample:slope?size=1000", "a multiple of 256 from 1024 to 262144, not 1000"),
        ("sample:slope?size=524288", "a multiple of 256 from 1024 to 262144"),
        ("sample:slope?size=big", "size is a whole number, not 'big'"),
        ("sample:slope?size=", "size is a whole number, not ''"),
        ("sample:slope?seed=-1", "seed is a whole number, not '-1'"),
        ("sample:slope?seed=12000", "0 to 9999 are for training, 10000 to 10999 for validation"),
        ("sample:slope?weather=rain", "a synthetic image has a size and a seed, not 'weather'"),
    ],
)
def test_invalid_urls_are_refused_in_one_line(url: str, says: str) -> None:
    with pytest.raises(HrviewerError) as caught:
        open_pyramid(url)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_synthetic_image_is_made_by_name() -> None:
    made = make_synthetic_image("slope", size=2048, seed=10_500)
    assert isinstance(made, Slope)
    assert (made.size, made.seed) == (2048, 10_500)
