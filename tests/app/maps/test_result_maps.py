from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from toys import STRIDE

from hrviewer.app.maps import result_maps as module
from hrviewer.app.maps.difference import subtract_maps
from hrviewer.app.maps.prediction_kinds import describe_prediction
from hrviewer.app.maps.raster import COST_QUANTITIES, cell_areas, coarsen
from hrviewer.app.maps.result_maps import MOST_LIKELY, ResultMaps
from hrviewer.engine import InferenceResult
from hrviewer.engine.cost import Cost
from hrviewer.errors import RunError
from hrviewer.geometry import Patch, Rect
from hrviewer.runs import run
from hrviewer.strategies import PatchRequest, Publish

IMAGE = Rect(0, 0, 300, 420)


def seen(core, value=2.0, flops=1000.0, scale=1.0):
    rows, columns = -(-core.h // 4), -(-core.w // 4)
    values = np.full((1, rows, columns), value, np.float32)
    box = (core.y, core.x, rows * 4, columns * 4)
    return InferenceResult(
        Patch(core, scale), "main", values.sum((1, 2)), values, box, Cost(flops=flops)
    )


def a_picture(**changes):
    return ResultMaps(IMAGE, STRIDE, "mass", ["thing"], **changes)


def test_nothing_is_drawn_before_anything_was_seen():
    picture = a_picture()
    for drawn in picture.rasters.values():
        assert drawn.values.dtype == np.float32
        assert np.isnan(drawn.values).all()
    assert picture.patch_at(3, 3) is None


def test_a_look_is_drawn_where_it_was_taken():
    picture = a_picture()
    core = Rect(64, 128, 64, 64)
    picture.update(PatchRequest("main", (Patch(core),), target="output", scores=(0.25,)))
    picture.update(seen(core))
    output, cost = picture.rasters["output"], picture.rasters["cost"]
    rows, columns = np.nonzero(np.isfinite(output.values))
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (16, 31, 32, 47)
    # 2 per cell of 4 × 4 pixels is 125,000 per megapixel.
    assert np.nanmax(output.values) == pytest.approx(125_000)
    assert np.nansum(cost.values) * cost.cell**2 == pytest.approx(1000)
    assert picture.record.patches[0].score == 0.25
    assert picture.patch_at(100, 150).order == 0
    assert picture.patch_at(10, 10) is None
    assert picture.rasters["patches"].values[64 // 16, 128 // 16] == 1


def test_what_is_context_is_not_drawn():
    picture = a_picture()
    token, around = Rect(64, 128, 16, 16), Rect(96, 100, 0, 0)
    picture.update(
        PatchRequest(
            "transformer", (Patch(token), Patch(around, 8, 8)), target="output", group=(0, 0)
        )
    )
    picture.update(seen(token))
    picture.update(replace(seen(token), patch=Patch(around, 8, 8), cost=Cost()))
    assert [(row.y, row.x) for row in picture.record.patches] == [(64, 128)]
    assert np.isfinite(picture.rasters["output"].values).sum() == 16
    assert np.isfinite(picture.rasters["patches"].values).sum() == 1


def test_density_is_per_square_millimetre_where_the_pixel_size_is_known():
    picture = a_picture(pixel_size=(0.5, 0.5))
    picture.update(PatchRequest("main", (Patch(IMAGE),), target="output"))
    picture.update(seen(IMAGE))
    assert picture.rasters["output"].unit == "things per mm²"
    assert np.nanmedian(picture.rasters["output"].values) == pytest.approx(2 / (16 * 0.25e-6))


def test_coarser_levels_are_means_of_what_was_seen():
    picture = a_picture()
    core = Rect(0, 0, 8, 4)
    picture.update(PatchRequest("main", (Patch(core),), target="output"))
    picture.update(seen(core))
    levels = picture.rasters["output"].levels
    assert [level.shape for level in levels][:3] == [(75, 105), (38, 53), (19, 27)]
    assert all(level[0, 0] == pytest.approx(levels[0][0, 0]) for level in levels)
    assert all(np.isfinite(level).sum() == 1 for level in levels[1:])


def test_the_level_suits_the_screen():
    drawn = a_picture().rasters["output"]
    last = len(drawn.levels) - 1
    assert [drawn.level_for(side) for side in (0.1, 4, 4.1, 8, 1e9)] == [0, 0, 1, 1, last]


def test_limits_follow_in_round_steps():
    picture = a_picture()
    output = picture.rasters["output"]
    assert not output.autoscale()
    picture.update(PatchRequest("main", (Patch(IMAGE),), target="output"))
    picture.update(seen(IMAGE))
    assert output.autoscale()
    assert output.limits == (0.0, 200_000.0)
    assert not output.autoscale()


def test_a_probability_has_fixed_limits_and_a_chosen_class():
    picture = ResultMaps(IMAGE, STRIDE, "intensity", ["glass", "tissue"])
    core = Rect(0, 0, 4, 4)
    values = np.array([0.2, 0.8], np.float32)[:, None, None]
    look = InferenceResult(Patch(core), "main", values[:, 0, 0], values, (0, 0, 4, 4), Cost())
    picture.update(PatchRequest("main", (Patch(core),), target="output"))
    picture.update(look)
    output = picture.rasters["output"]
    assert output.values[0, 0] == pytest.approx(0.8)
    assert not output.autoscale()
    assert output.limits == (0.0, 1.0)
    picture.set_class(0)
    assert output.values[0, 0] == pytest.approx(0.2)


def classes(values, core, **more):
    """Return maps with the shares of three classes in one patch."""
    maps = ResultMaps(
        IMAGE, STRIDE, "intensity", ["glass", "tissue", "ink"], exclusive=True, **more
    )
    shares = np.asarray(values, np.float32)
    value = shares.mean((1, 2)).astype(float)
    result = InferenceResult(Patch(core), "main", value, shares, core.astuple(), Cost())
    maps.update(PatchRequest("main", (Patch(core),), target="output"))
    maps.update(result)
    return maps


def test_the_most_likely_class_of_several():
    core = Rect(0, 0, 16, 16)
    shares = np.random.default_rng(0).random((3, 4, 4))
    shares[:, 0, 0] = np.nan
    maps = classes(shares, core, task="area")
    output, best = maps.rasters["output"], shares.argmax(axis=0)
    assert maps.class_index == MOST_LIKELY
    assert output.categories == ("glass", "tissue", "ink")
    assert (output.limits, output.unit) == ((0, 3), "most likely class")
    expected = np.where(np.isnan(shares[0]), np.nan, best + 0.5)
    np.testing.assert_array_equal(output.values[:4, :4], expected)
    # A coarser level has classes, not means of their numbers.
    np.testing.assert_array_equal(output.levels[1][:2, :2], expected[::2, ::2])
    maps.hide_classes([1])
    hidden = np.where(best == 1, np.nan, expected)
    np.testing.assert_array_equal(output.values[:4, :4], hidden)
    maps.set_class(1)
    np.testing.assert_allclose(output.values[:4, :4], shares[1], rtol=1e-6)
    assert (output.categories, output.limits, output.unit) == ((), (0, 1), "probability")
    two = ResultMaps(IMAGE, STRIDE, "intensity", ["glass", "tissue"], exclusive=True)
    assert two.class_index == 1  # a background comes first


def described(maps, row):
    return describe_prediction(row, maps.classes, maps.task, maps.units)


def test_predictions_of_a_patch_by_class():
    core = Rect(0, 0, 16, 16)
    shares = np.array([0.25, 0.7, 0.05])[:, None, None] * np.ones((3, 4, 4))
    maps = classes(shares, core, task="probabilities")
    (row,) = maps.record.patches
    assert described(maps, row) == ["tissue 70.0%", "glass 25.0%", "ink 5.0%"]
    areas = classes(shares, core, task="area")
    row = replace(row, values=tuple(256 * value for value in row.values))
    assert described(areas, row) == ["tissue 70.0%", "glass 25.0%", "ink 5.0%"]
    means = ResultMaps(IMAGE, STRIDE, "intensity", ["age", "n"], task="mean", units=["a", ""])
    assert means.rasters["output"].unit == "n"
    means.set_class(0)
    assert means.rasters["output"].unit == "age (a)"
    assert described(means, replace(row, values=(3.0, 50.0))) == ["age 3 a", "n 50"]
    assert described(means, replace(row, values=(1.0,))) == []


def test_classes_differ_or_do_not():
    core, shares = Rect(0, 0, 16, 16), np.eye(3)[:, [0, 1, 2, 2]][:, :, None] * np.ones((1, 1, 4))
    one, other = classes(shares, core), classes(shares[[1, 0, 2]], core)
    found = subtract_maps(one, other)
    np.testing.assert_array_equal(np.unique(found.values[np.isfinite(found.values)]), [0, 1])
    assert found.unit == "another class"
    other.set_class(0)
    with pytest.raises(RunError, match="different classes"):
        subtract_maps(one, other)


def test_saliency_is_drawn_as_it_is_shown():
    picture = a_picture()
    picture.update(Publish("saliency", np.full((3, 5), 0.5), IMAGE))
    assert picture.rasters["saliency"].changed
    assert np.nanmin(picture.rasters["saliency"].values) == pytest.approx(0.5)


def test_the_finest_and_latest_look_answers_for_a_point():
    picture = a_picture()
    coarse, fine = Rect(0, 0, 64, 64), Rect(0, 0, 32, 32)
    for core, scale in ((fine, 1.0), (coarse, 4.0), (fine, 1.0)):
        picture.update(PatchRequest("main", (Patch(core, scale),)))
        picture.update(seen(core, scale=scale))
    assert picture.patch_at(5, 5).order == 2
    assert picture.patch_at(50, 50).order == 1


def test_a_huge_image_is_drawn_with_coarser_cells(monkeypatch):
    monkeypatch.setattr(module, "MAX_CELLS", 1000)
    picture = a_picture()
    assert picture.downsampling == 4
    assert picture.rasters["output"].cell == 16
    core = Rect(64, 64, 64, 64)
    picture.update(PatchRequest("main", (Patch(core),), target="output"))
    picture.update(seen(core))
    assert np.nanmax(picture.rasters["output"].values) == pytest.approx(125_000)


@pytest.mark.parametrize("region", [None, Rect(64, 96, 112, 160)])
@pytest.mark.parametrize("largest", [10**9, 1000])
def test_a_run_folder_is_drawn_as_the_run_was(photo, toys, tmp_path, monkeypatch, largest, region):
    monkeypatch.setattr(module, "MAX_CELLS", largest)
    live = a_picture(region=region)
    settings = {"region": region, "tile": 64, "cache": "off", "on_event": live.update}
    done = run(photo, toys, out=tmp_path / "x.run.zarr", **settings)
    kept = ResultMaps.from_run(done)
    for name, drawn in live.rasters.items():
        np.testing.assert_allclose(drawn.values, kept.rasters[name].values, rtol=1e-5)
    assert kept.record.cost_map.total.flops == live.record.cost_map.total.flops
    assert kept.classes == ("thing",)
    assert kept.rasters["output"].limits != (0.0, 1.0)


def test_cells_join_by_sum_or_mean():
    values = np.array([[[1, 2, np.nan], [3, np.nan, np.nan]]], np.float32)
    np.testing.assert_allclose(coarsen(values, 2, "mass"), [[[6, np.nan]]])
    np.testing.assert_allclose(coarsen(values, 2, "intensity"), [[[2, np.nan]]])
    assert coarsen(values, 1, "mass").shape == values.shape


def test_joined_cells_have_the_mean_of_the_known_ones():
    rng = np.random.default_rng(0)
    values = rng.random((2, 12, 18)).astype(np.float32)
    values[rng.random(values.shape) < 0.4] = np.nan
    blocks = values.reshape(2, 4, 3, 6, 3)
    np.testing.assert_allclose(
        coarsen(values, 3, "intensity"), np.nanmean(blocks, axis=(2, 4)), rtol=1e-6
    )


def test_areas_of_some_cells_are_those_of_all():
    areas = cell_areas(IMAGE, 16.0, (19, 27))
    assert areas.sum() == IMAGE.area
    np.testing.assert_array_equal(cell_areas(IMAGE, 16.0, (4, 5), (15, 22)), areas[15:, 22:])


def test_the_cost_map_shows_what_is_asked_for():
    picture = a_picture()
    core = Rect(0, 0, 32, 32)
    charge = Cost(flops=1e5, bytes=2048.0, read_s=0.001, infer_s=0.003)
    picture.update(PatchRequest("main", (Patch(core),), target="output"))
    picture.update(replace(seen(core), cost=charge))
    cost = picture.rasters["cost"]
    expected = {
        "FLOPs": (1e5 / 1024, "FLOP per pixel"),
        "time": (4.0 / (1024 / 1e6), "ms per megapixel"),
        "bytes": (2.0, "bytes per pixel"),
    }
    assert list(expected) == list(COST_QUANTITIES)
    for name in [*reversed(expected), "FLOPs"]:
        value, unit = expected[name]
        cost.changed = False
        picture.set_cost_quantity(name)
        assert cost.changed
        assert cost.unit == unit
        np.testing.assert_allclose(cost.values[:2, :2], value, rtol=1e-6)
        assert np.isnan(cost.values[2:]).all()
    # Later results are drawn in the same quantity, and processed areas stay.
    picture.set_cost_quantity("bytes")
    other = Rect(64, 64, 32, 32)
    picture.update(PatchRequest("main", (Patch(other),), target="output"))
    picture.update(replace(seen(other), cost=Cost(flops=1.0)))
    assert (cost.values[4:6, 4:6] == 0).all()


def test_patches_have_the_halo_of_the_run(photo, toys, tmp_path):
    for halo, used, reopened in ((8, 8, {"main": 8}), (-1, 0, {})):
        live, out = a_picture(), tmp_path / f"{halo}.run.zarr"
        done = run(photo, toys, tile=64, halo=halo, out=out, cache="off", on_event=live.update)
        assert live.halos == {"main": used}
        assert ResultMaps.from_run(done).halos == reopened
