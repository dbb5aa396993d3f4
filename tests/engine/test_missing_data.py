"""Places without data: not inferred on, not counted, missing in the map, no part of densities.

`Bright` counts red, and what has no data is filled with white, so that it would count most.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from toys import POLICIES, Bright, ToyBundle, Workbench, card, picture, toy_bundle

from hrviewer.engine.missing_data import blank_missing, fill_missing
from hrviewer.pyramid import open_pyramid
from hrviewer.runs import run

IMAGE = picture(256, 256)
IMAGE[..., 0] |= 16  # no place is without a count
HOLE = np.s_[64:192, 32:160]
"""Whole cells, and whole patches of 32 pixels."""


@pytest.fixture
def holed(tmp_path: Path) -> Path:
    alpha = np.full((256, 256, 1), 255, np.uint8)
    alpha[HOLE] = 0
    path = tmp_path / "hole.tif"
    tifffile.imwrite(
        path, np.concatenate([IMAGE, alpha], 2), photometric="rgb", extrasamples=["unassalpha"]
    )
    return path


def known_count() -> float:
    red = IMAGE[..., 0].astype(float)
    return float((red.sum() - red[HOLE].sum()) / 255)


@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: policy.__name__)
def test_every_family_leaves_them_out(policy: Any, holed: Path) -> None:
    with open_pyramid(holed) as pyramid, Workbench(pyramid, toy_bundle()) as bench:
        estimate, record, _ = bench.run(policy)
        assert estimate.values is not None
        assert record.counts()["failed"] == 0
        values = np.asarray(record.output.values)[0]
        inside = values[16:48, 8:40]  # cells of 4 pixels
        if policy.__name__ == "warped":  # it interpolates between cells of some 20 pixels
            inside = inside[9:-9, 9:-9]
        assert np.isnan(inside).all()
        if policy.__name__ in ("many_patches", "features_then_head"):
            assert estimate.values[0] == pytest.approx(known_count(), rel=1e-5)
            assert np.isnan(values).sum() == inside.size


def test_inputs_without_data_are_not_run(holed: Path) -> None:
    network = Bright()
    with open_pyramid(holed) as pyramid, Workbench(pyramid, ToyBundle(main=network)) as bench:
        _, record, _ = bench.run(POLICIES[0])
        assert network.inferred == 64 - 16
        rows = [row for row in record.patches if row.flops == 0]
        assert len(rows) == 16
        assert {row.status for row in rows} == {"done"}


def test_densities_are_of_the_area_with_data(holed: Path, tmp_path: Path) -> None:
    result = run(
        holed, toy_bundle(), "patches", tile=64, pixel_size=2.0, out=tmp_path / "x.run.zarr",
        cache="off",
    )  # fmt: skip
    assert result.estimate["value"] == pytest.approx(known_count(), rel=1e-5)
    area = 256 * 256 - 128 * 128
    assert result.header["data_area"] == area
    assert result.estimate["per_mm2"] == pytest.approx(known_count() / (area * 4e-6), rel=1e-5)
    assert any("25.00% of the region has no data" in note for note in result.header["notes"])
    assert np.nansum(result.output) == pytest.approx(known_count(), rel=1e-5)


@pytest.mark.parametrize(
    ("channels", "letterbox", "expected"),
    [("rgb", None, 1.0), ("rgb", 51.0, 0.2), (3, None, None), ("gray", None, None)],
)
def test_background_of_an_input(
    channels: Any, letterbox: float | None, expected: float | None
) -> None:
    settings = card("x", channels=channels)
    if letterbox is not None:
        settings = settings.model_copy(
            update={"input": settings.input.model_copy(update={"letterbox": letterbox})}
        )
    array = np.linspace(0, 0.5, 3 * 16, dtype=np.float32).reshape(3, 4, 4)
    coverage = np.ones((4, 4), np.float32)
    coverage[:2] = 0
    before = array.copy()
    fill_missing(settings, array, coverage)
    np.testing.assert_array_equal(array[:, 2:], before[:, 2:])
    wanted = before[:, 2:].mean((1, 2)) if expected is None else np.full(3, expected)
    np.testing.assert_allclose(array[:, :2], wanted[:, None, None].repeat(2, 1).repeat(4, 2), 1e-6)


def test_a_cell_is_blank_only_without_any_data() -> None:
    coverage = np.zeros((10, 8), np.float32)
    coverage[3, 5] = 0.1
    coverage[9, 0] = 1
    got = blank_missing(np.ones((2, 3, 2), np.float32), coverage, 4)
    assert np.isnan(got[0]).tolist() == [[True, False], [True, True], [False, True]]


def test_the_hole_of_a_case_is_not_counted(shared: Path, tmp_path: Path) -> None:
    pytest.importorskip("hrviewer_histology")
    case = shared / "cases" / "formats" / "he_rgba_hole.tif"
    result = run(case, "nuclei", "patches", out=tmp_path / "x.run.zarr", cache="off")
    assert result.header["data_area"] == 256 * 128
    assert 0 < result.estimate["value"] < 14.06
