"""Runs: what is written, refused, resumed and read back."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from toys import Blurred, Bright, Encoder, ToyBundle, Workbench, picture, toy_bundle

from hrviewer.engine import InferenceResult, RunClock, RunControl
from hrviewer.engine.rate_probe import NO_LIMIT, measure_rates
from hrviewer.errors import HrviewerError
from hrviewer.formatting import describe_estimate, format_number, format_range
from hrviewer.geometry import Rect
from hrviewer.models.accuracy import CountError, ModelAccuracy
from hrviewer.pyramid import open_pyramid
from hrviewer.runs import Run, estimate_to_dict, format_estimate, run
from hrviewer.runs import writer as writer_module
from hrviewer.runs.estimates import map_sum_notes, true_interval
from hrviewer.runs.region_sums import sum_map
from hrviewer.runs.writer import write_header
from hrviewer.strategies import Rates

IMAGE = picture(300, 400)
KEYS = {
    "format_version", "image", "region", "model", "strategy", "params", "seed", "device", "run",
    "complete",
    "estimate", "truth", "cost", "spent", "setup_s", "patches",
}  # fmt: skip
COSTS = {
    "flops", "wall_s", "read_s", "prepare_s", "infer_s", "post_s", "bytes_read", "pixels_read",
    "peak_rss_bytes", "peak_device_bytes",
}  # fmt: skip


@pytest.fixture
def out(tmp_path) -> Path:
    return tmp_path / "x.run.zarr"


def test_a_run_records_everything(out):
    result = run(IMAGE, toy_bundle(), "patches", tile=64, out=out, cache="off")
    header = json.loads((out / "run.json").read_text("utf-8"))
    assert header.keys() >= KEYS
    assert header["cost"].keys() == COSTS
    assert result.complete
    assert result.estimate["value"] == pytest.approx(IMAGE[..., 0].sum() / 255, rel=1e-5)
    assert result.cost["pixels_read"] == 300 * 400
    assert result.of_once_per_pixel == 1  # no halos
    assert header["patches"] == {"planned": 35, "done": 35, "cached": 0, "failed": 0, "skipped": 0}
    assert len(result.patches) == 35
    assert result.patches["value"].sum() == pytest.approx(result.estimate["value"])
    assert np.nansum(result.output) == pytest.approx(result.estimate["value"], rel=1e-5)
    assert result.saliency.shape == (19, 25)
    assert np.isfinite(result.saliency).all()
    assert result.cost_map().sum() == pytest.approx(result.cost["flops"], rel=1e-9)
    assert not (out / "journal").exists()
    assert "patches" in result._repr_html_()
    assert "patches" in repr(result)


def test_every_tile_gives_the_same_answer_and_the_chosen_one_is_kept(tmp_path):
    runs = {
        tile: run(IMAGE, toy_bundle(Blurred()), "patches", tile=tile, cache="off",
                  out=tmp_path / f"{tile}.run.zarr")
        for tile in (0, 32, 64)
    }  # fmt: skip
    # Tiles of 336 pixels are enough for halos to cost 20 %: 400 pixels are two tiles of 200.
    assert [runs[tile].header["chosen"] for tile in (0, 32)] == [{"tile": 200}, {}]
    assert runs[0].cost["flops"] < runs[64].cost["flops"] < runs[32].cost["flops"]
    for tile in (0, 32):
        assert runs[tile].estimate["value"] == pytest.approx(runs[64].estimate["value"], rel=1e-6)
        np.testing.assert_allclose(runs[tile].output, runs[64].output, rtol=1e-5)
    header = json.loads((tmp_path / "0.run.zarr" / "run.json").read_text("utf-8"))
    write_header(tmp_path / "0.run.zarr", {**header, "chosen": {"tile": 64}, "complete": False})
    again = run(IMAGE, toy_bundle(Blurred()), "patches", cache="off", resume=True,
                out=tmp_path / "0.run.zarr")  # fmt: skip
    assert again.cost["flops"] == runs[64].cost["flops"]


def test_seconds_are_nominal_though_tiles_come_from_memory(tmp_path):
    with open_pyramid(IMAGE) as pyramid:
        level = pyramid.levels[0]
        decode = level._decode
        # As if each tile had once taken a hundred seconds.
        level._decode = lambda row, column: decode(row, column)._replace(seconds=100.0)
        tiles = len(pyramid.tiles(pyramid.rect))
        for name in ("first", "second"):
            out = tmp_path / f"{name}.run.zarr"
            cost = run(pyramid, toy_bundle(), "patches", out=out, cache="off").cost
            assert cost["read_s"] == pytest.approx(100 * tiles)
            assert 100 * tiles <= cost["wall_s"] < 100 * tiles + 60


def test_maps_are_empty_outside_the_region(out):
    region = Rect(70, 101, 90, 130)
    result = run(IMAGE, toy_bundle(), "patches", tile=32, region=region, out=out, cache="off")
    for values, cell in ((result.output[0], 4), (result.saliency, 16), (result.cost_map(), 16)):
        rows, columns = np.nonzero(np.nan_to_num(values))
        assert rows.min() >= region.y // cell
        assert rows.max() <= (region.y1 - 1) // cell
        assert columns.min() >= region.x // cell
        assert columns.max() <= (region.x1 - 1) // cell


def test_uniform_costs_a_tenth(out):
    whole = run(IMAGE, toy_bundle(), "patches", cache="off", out=out)
    shrunk = run(IMAGE, toy_bundle(), "uniform", cache="off", out=out.with_name("u.run.zarr"))
    ratio = shrunk.cost["flops"] / whole.cost["flops"]
    assert 0.08 < ratio <= 0.1
    # Brightness per pixel stays, so the sum falls with the area.
    scale = shrunk.patches["scale"].iloc[0]
    assert shrunk.estimate["value"] * scale**2 == pytest.approx(whole.estimate["value"], rel=0.05)


def test_existing_runs_are_not_overwritten(out):
    run(IMAGE, toy_bundle(), "patches", out=out)
    with pytest.raises(HrviewerError, match="--resume"):
        run(IMAGE, toy_bundle(), "patches", out=out)
    again = run(IMAGE, toy_bundle(), "patches", out=out, resume=True)
    assert again.complete
    with pytest.raises(HrviewerError, match="no run to resume"):
        run(IMAGE, toy_bundle(), out=out.with_name("none.run.zarr"), resume=True)
    with pytest.raises(HrviewerError, match=r"NAME\.run\.zarr"):
        run(IMAGE, toy_bundle(), out=out.with_name("folder"))


@pytest.mark.parametrize(
    ("changed", "name"),
    [
        ({"image": picture(300, 400, seed=1)}, "image"),
        ({"strategy": "uniform"}, "strategy"),
        ({"tile": 32}, "parameters"),
        ({"region": (0, 0, 64, 64)}, "region"),
        ({"budget": "1GFLOP"}, "budget"),
        ({"seed": 5}, "seed"),
        ({"model": ToyBundle(main=Bright("other"))}, "model"),
    ],
)
def test_only_the_same_run_is_resumed(out, changed, name):
    control = RunControl()
    how = {"image": IMAGE, "model": toy_bundle(), "strategy": "patches", "tile": 64, "out": out}
    run(**how, control=control, on_event=lambda update: control.stop(), cache="off")
    if "strategy" in changed:
        how.pop("tile")
    with pytest.raises(HrviewerError, match=f"another {name}"):
        run(**(how | changed), resume=True, cache="off")


def test_plane_channels_and_pixel_size_are_passed_recorded_and_checked(out):
    stack = np.stack([IMAGE, IMAGE[::-1]])
    options = {"plane": {"z": 1}, "channels": [0, 0, 0], "pixel_size": (0.5, 0.25)}
    result = run(stack, toy_bundle(), "patches", tile=64, out=out, cache="off", **options)
    image = result.header["image"]
    assert (image["plane"], image["channels"]) == ({"z": 1}, [0, 0, 0])
    assert image["pixel_size"] == [0.5, 0.25]
    expected = IMAGE[::-1, :, 0].sum() / 255
    assert result.estimate["value"] == pytest.approx(expected, rel=1e-5)
    again = {**options, "out": out, "resume": True, "tile": 64}
    assert run(stack, toy_bundle(), "patches", **again).estimate == result.estimate
    with pytest.raises(HrviewerError, match="another pixel size"):
        run(stack, toy_bundle(), "patches", **{**again, "pixel_size": 0.5})
    with pytest.raises(HrviewerError, match="another channels"):
        run(stack, toy_bundle(), "patches", **{**again, "channels": None})


def test_the_callers_pyramid_stays_open(tmp_path):
    file = tmp_path / "image.png"
    Image.fromarray(picture(128, 128)).save(file)
    with open_pyramid(file) as pyramid:
        for name in ("a", "b"):
            run(pyramid, toy_bundle(), tile=64, out=tmp_path / f"{name}.run.zarr", cache="off")
        assert pyramid[:4, :4].shape == (4, 4, 3)


@pytest.mark.parametrize("small", [0, writer_module.MAX_IN_MEMORY])
@pytest.mark.parametrize("after", [60, 300])
def test_a_stopped_run_keeps_its_results_and_resumes(out, monkeypatch, small, after):
    """Also of the request in flight, and whether maps are painted in memory or on disk."""
    monkeypatch.setattr(writer_module, "MAX_IN_MEMORY", small)
    image = picture(1200, 1200)  # more than one request
    whole = run(image, toy_bundle(), tile=64, cache="off", out=out.with_name("w.run.zarr"))
    control = RunControl()
    results: list[InferenceResult] = []

    def watch(update):
        if isinstance(update, InferenceResult):
            results.append(update)
        if len(results) == after:
            control.stop()

    part = run(image, toy_bundle(), tile=64, out=out, cache="off", control=control, on_event=watch)
    assert not part.complete
    assert after <= len(part.patches) < 361
    first = part.patches.sort_values(["y", "x"])[["y", "x", "value"]].reset_index(drop=True)
    order = whole.patches.set_index(["y", "x"])["value"]
    assert [order[row.y, row.x] for row in first.itertuples()] == list(first["value"])
    there = np.isfinite(part.output)
    assert there.sum() * 4 * 4 == (part.patches["h"] * part.patches["w"]).sum()
    assert part.cost_map().sum() == pytest.approx(part.cost["flops"], rel=1e-9)
    np.testing.assert_array_equal(part.output[there], whole.output[there])
    done = run(image, toy_bundle(), tile=64, out=out, cache="off", resume=True)
    assert done.complete
    assert done.estimate == whole.estimate
    np.testing.assert_array_equal(done.output, whole.output)


def test_a_run_refused_before_inference_leaves_no_folder(out):
    bundle = ToyBundle(main=Bright(), encoder=Encoder())
    with pytest.raises(HrviewerError, match="no resizer"):
        run(IMAGE, bundle, "compression", encoder="resizer", out=out)
    assert not out.exists()
    assert run(IMAGE, bundle, "compression", out=out).complete


def test_a_run_refused_in_the_data_folder_leaves_none_there(monkeypatch, tmp_path):
    monkeypatch.setenv("HRVIEWER_DATA", str(tmp_path))
    with pytest.raises(HrviewerError, match="outside"):
        run(IMAGE, toy_bundle(), region=(9000, 9000, 10, 10))
    assert not [*tmp_path.rglob("*.run.zarr")]
    with pytest.raises(HrviewerError, match="give its folder"):
        run(IMAGE, toy_bundle(), resume=True)
    assert run(IMAGE, toy_bundle()).path.parent == tmp_path / "runs"


def test_a_paused_run_waits_and_finishes_when_resumed(out):
    import threading

    control = RunControl()
    control.pause()
    results: list[Run] = []
    thread = threading.Thread(
        target=lambda: results.append(run(IMAGE, toy_bundle(), out=out, control=control))
    )
    thread.start()
    time.sleep(0.3)
    assert not results
    assert control.paused
    control.resume()
    thread.join(20)
    assert results[0].complete


def test_a_full_disk_stops_the_run_with_its_results_intact(out, monkeypatch):
    bundle = toy_bundle()
    real = os.replace
    commits: list[str] = []

    def full(source, target):
        if str(target).endswith(".results"):
            commits.append(str(target))
            if len(commits) == 2:
                raise OSError(errno.ENOSPC, "No space left on device")
        return real(source, target)

    image = picture(1200, 1200)
    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(HrviewerError, match=r"disk is full.*resume"):
        run(image, bundle, tile=64, out=out, cache="off")
    monkeypatch.setattr(os, "replace", real)
    part = Run(out)
    assert not part.complete
    assert len(part.patches) == 256
    done = run(image, bundle, tile=64, out=out, cache="off", resume=True)
    assert done.complete
    assert done.header["spent"]["flops"] < done.cost["flops"]
    assert done.estimate["value"] == pytest.approx(image[..., 0].sum() / 255, rel=1e-5)


def test_invalid_run_folders(tmp_path):
    with pytest.raises(HrviewerError, match=r"no run\.json"):
        Run(tmp_path)
    (tmp_path / "run.json").write_text("{]")
    with pytest.raises(HrviewerError, match="not a readable run"):
        Run(tmp_path)
    for version in ("", '"format_version": 2, '):
        (tmp_path / "run.json").write_text(f'{{{version}"strategy": "x"}}')
        with pytest.raises(HrviewerError, match=r"run format [02], and this hrviewer reads 1"):
            Run(tmp_path)
    (tmp_path / "run.json").write_text('{"format_version": 1, "strategy": "x"}')
    with pytest.raises(HrviewerError, match=r"not written by hrviewer: image: Field required"):
        Run(tmp_path)
    with pytest.raises(HrviewerError, match="is not a run folder"):
        run(IMAGE, toy_bundle(), out=make(tmp_path / "y.run.zarr"), resume=True)


def make(path: Path) -> Path:
    path.mkdir()
    return path


def test_regions_and_parameters_are_checked(out):
    with pytest.raises(HrviewerError, match="outside the image"):
        run(IMAGE, toy_bundle(), region=Rect(1000, 0, 10, 10), out=out)
    for seed in (-1, 0.5, "1"):
        with pytest.raises(HrviewerError, match="a seed is a whole number of 0 or more"):
            run(IMAGE, toy_bundle(), seed=seed, out=out)
    with pytest.raises(HrviewerError, match="no annotations at nowhere"):
        run(IMAGE, toy_bundle(), region="nowhere.geojson", out=out)
    with pytest.raises(HrviewerError, match="no parameter 'tiles'; it has: tile, halo, grid"):
        run(IMAGE, toy_bundle(), tiles=3, out=out)
    with pytest.raises(HrviewerError, match="patches: tile"):
        run(IMAGE, toy_bundle(), tile=-3, out=out)
    with pytest.raises(HrviewerError, match="unknown strategy 'best'"):
        run(IMAGE, toy_bundle(), "best", out=out)
    with pytest.raises(HrviewerError, match="does not pay for a single input"):
        run(IMAGE, toy_bundle(), "uniform", budget="1FLOP", out=out)


def test_a_region_that_reaches_beyond_the_image_is_noted(out):
    beyond = run(IMAGE, toy_bundle(), "uniform", region=(-10, 0, 50, 60), out=out)
    assert beyond.region == Rect(0, 0, 40, 60)
    assert (
        "the region reaches beyond the image: 40 × 60 of its 50 × 60 pixels are inside"
        in (beyond.header["notes"])
    )


def test_seconds_end_a_run_and_are_recorded(out, monkeypatch):
    monkeypatch.setattr(
        "hrviewer.engine.plan_setup.measure_rates", lambda *image: Rates(1e-9, 1e-9, 5e5)
    )
    ticks = iter(range(10_000))
    monkeypatch.setattr("hrviewer.runs.runner.RunClock", partial(RunClock, now=lambda: next(ticks)))
    result = run(IMAGE, ToyBundle(main=Bright()), budget="20s", tile=64, cache="off", out=out)
    # A second passes with every result.
    assert 15 <= len(result.patches) <= 20
    assert result.complete
    assert 40 < result.coverage < 60
    assert "drawn at random" in result.header["notes"][-1]
    assert result.header["rates"]["flops_per_second"] == 5e5


@pytest.mark.parametrize(
    ("strategy", "params"),
    [
        ("zoom", {"tile": 16}),
        ("zoom", {"tile": 16, "method": "threshold"}),
        ("zoom", {"tile": 16, "method": "quadtree"}),
        ("scanner", {"tile": 16, "share": 0.9}),
    ],
)
def test_under_a_limit_of_seconds_there_is_time_for_random_draws(
    strategy, params, out, monkeypatch
):
    monkeypatch.setattr(
        "hrviewer.engine.plan_setup.measure_rates", lambda *image: Rates(1e-9, 1e-9, 5e4)
    )
    ticks = iter(range(10_000))
    monkeypatch.setattr("hrviewer.runs.runner.RunClock", partial(RunClock, now=lambda: next(ticks)))
    limit = {"budget": "120s", "cache": "off", "out": out}
    result = run(IMAGE, toy_bundle(), strategy, params=params, **limit)
    # A second passes with every result: fewer than the rates promise.
    assert len(result.patches) <= 120
    low, high = result.estimate["ci95"]
    assert low < result.estimate["value"] < high
    assert "at random" in "; ".join(result.header["notes"])


def test_rates_are_measured_with_reading(tmp_path):
    file = tmp_path / "image.png"
    Image.fromarray(picture(640, 640)).save(file)
    with open_pyramid(file) as pyramid, Workbench(pyramid, toy_bundle()) as bench:
        rates = measure_rates(pyramid, bench.models, pyramid.rect, 1.0)
    assert min(rates.per_flop, rates.per_pixel, rates.flops_per_second) > 0
    # The parts add up to the rate at native scale; a tile is read once, at 100 FLOP per pixel.
    assert 1 / rates.flops_per_second >= rates.per_flop


def test_where_no_rate_can_be_measured_the_clock_alone_ends_the_run():
    blank = np.full((300, 400, 3), np.nan, np.float32)  # no data, so no inference
    with open_pyramid(blank) as pyramid, Workbench(pyramid, toy_bundle()) as bench:
        rates = measure_rates(pyramid, bench.models, pyramid.rect, 1.0)
    assert (rates.per_flop, rates.flops_per_second) == (0, NO_LIMIT)


def test_runs_go_to_the_users_folder_by_default():
    first = run(IMAGE, toy_bundle(), "patches")
    second = run(IMAGE, toy_bundle(), "patches")
    assert first.path != second.path
    assert second.header["patches"]["cached"] == second.header["patches"]["planned"]
    assert second.cost["flops"] == first.cost["flops"]
    assert second.header["spent"]["flops"] == 0


# Killed at any moment.

CHILD = """
import sys, time
sys.path.insert(0, {tests!r})
import numpy as np
from toys import Blurred, ToyBundle, picture
from hrviewer.runs import run, writer
net = Blurred()
writer.MAX_IN_MEMORY = int(sys.argv[3])
net.before = lambda batch: time.sleep(0.0005)
from hrviewer.strategies import patches, tiling
patches.batches = lambda items, size: tiling.batches(items, 9)
run(picture(500, 700), ToyBundle(main=net), "patches", tile=32, out=sys.argv[1], cache="off",
    resume=sys.argv[2] == "resume")
"""


def child(out: Path, how: str, small: int = writer_module.MAX_IN_MEMORY) -> subprocess.Popen:
    script = CHILD.format(tests=str(Path(__file__).parents[1]))
    return subprocess.Popen([sys.executable, "-c", script, str(out), how, str(small)])


@pytest.mark.slow
def test_twenty_kills_change_no_bit(tmp_path):
    whole = tmp_path / "whole.run.zarr"
    assert child(whole, "new").wait(120) == 0
    out = tmp_path / "killed.run.zarr"
    rng = np.random.default_rng(0)
    kills = 0
    how = "new"
    while kills < 20:
        process = child(out, how, small=0 if kills % 2 else writer_module.MAX_IN_MEMORY)
        # Wait until it works, then a random while.
        start = time.monotonic()
        while not (out / "run.json").exists() and process.poll() is None:
            time.sleep(0.005)
        time.sleep(rng.uniform(0, 0.12) + (0.5 if how == "resume" else 0))
        assert time.monotonic() - start < 60
        if process.poll() is not None:
            assert process.returncode == 0
            import shutil

            check_equal(out, whole)
            shutil.rmtree(out)
            how = "new"
            continue
        process.send_signal(signal.SIGKILL)
        process.wait()
        kills += 1
        how = "resume" if out.exists() else "new"
    assert child(out, how).wait(120) == 0
    check_equal(out, whole)


@pytest.mark.parametrize(
    "small", [pytest.param(0, marks=pytest.mark.slow), writer_module.MAX_IN_MEMORY]
)
def test_one_kill_changes_no_bit(tmp_path, small):
    whole, out = tmp_path / "whole.run.zarr", tmp_path / "killed.run.zarr"
    assert child(whole, "new").wait(120) == 0
    process = child(out, "new", small)
    journal = out / "journal"
    while process.poll() is None and len(list(journal.glob("*.results"))) < 4:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not json.loads((out / "run.json").read_text())["complete"]
    again = child(out, "resume", small)
    assert again.wait(120) == 0
    check_equal(out, whole)
    spent = Run(out).header["spent"]["flops"]
    assert 0 < spent < Run(whole).header["spent"]["flops"]


def check_equal(out: Path, whole: Path) -> None:
    a, b = Run(out), Run(whole)
    assert a.complete
    assert a.estimate == b.estimate
    assert a.cost["flops"] == b.cost["flops"]
    assert a.cost["bytes_read"] == b.cost["bytes_read"]
    assert a.cost["pixels_read"] == b.cost["pixels_read"]
    np.testing.assert_array_equal(a.output, b.output)
    np.testing.assert_array_equal(a.saliency, b.saliency)
    np.testing.assert_array_equal(a.cost_map(), b.cost_map())
    same = ["id", "y", "x", "h", "w", "scale", "role", "order", "value", "flops", "status"]
    assert a.patches[same].equals(b.patches[same])


# Estimates.


@pytest.mark.parametrize(
    ("task", "estimate", "expected"),
    [
        ("density", [3.0, 4.0], {"kind": "count", "value": 7.0, "per_mm2": 7.0 / 0.0025}),
        ("segmentation", [250.0, 750.0], {"kind": "area", "fraction": {"a": 0.025, "b": 0.075}}),
        ("classification", [0.2, 0.8], {"kind": "probabilities", "vote": "b", "value": 0.8}),
    ],
)
def test_estimates_by_task(task, estimate, expected):
    from toys import card

    described = estimate_to_dict(
        card("x", task=task, classes=["a", "b"]),
        np.array(estimate),
        (1.0, 2.0),
        Rect(0, 0, 100, 100),
        (0.5, 0.5),
    )
    for key, value in expected.items():
        assert described[key] == pytest.approx(value)
    low, high = described["ci95"] or (0, 9)
    if task != "classification":
        assert low <= sum(estimate) <= high  # an interval is never beside its estimate
    assert described["per_class"] == {"a": estimate[0], "b": estimate[1]}
    assert format_estimate(described)


def counts(per_class: dict[str, float], **more: object) -> str:
    value = sum(per_class.values())
    return format_estimate({"kind": "count", "value": value, "per_class": per_class, **more})


@pytest.mark.parametrize(
    ("name", "count", "text"),
    [
        ("nucleus", 2418.1, "2,418 nuclei"),
        ("nucleus", 1.0, "1 nucleus"),
        ("person", 0.7, "0.7 people"),
        ("tumour cell", 9.96, "10 tumour cells"),
        ("mitosis", 3.0, "3 mitoses"),
        ("body", 0.0, "0 bodies"),
        ("ray", 2.04, "2 rays"),
        ("cells", 12.0, "12 cells"),
        ("people", 3.0, "3 people"),
        ("Tumour nuclei", 3.0, "3 Tumour nuclei"),
        ("bus", 3.0, "3 buses"),
        ("nucleus", -0.01, "0 nuclei"),
        ("class 3", 12.0, "12 × class 3"),
        ("g", 10.5, "10 × g"),
    ],
)
def test_counts_read_as_people_write_them(name, count, text):
    assert counts({name: count}) == f"{text} (rough)"


def test_a_count_says_what_its_intervals_cover():
    found, density = {"nucleus": 2418.1}, {"per_mm2": 1473.6}
    both = {"ci95": [2301.4, 2535.2], "ci95_truth": [2100.0, 2699.5]}
    text = counts(found, **density, **both)
    assert text == (
        "2,418 nuclei, 1,474 per mm²; 95 % intervals: 2,301 – 2,536 for exhaustive inference, "
        "2,100 – 2,700 for the true count"
    )
    assert counts(found, ci95=both["ci95"], ci95_truth=None) == (
        "2,418 nuclei; 95 % interval: 2,301 – 2,536 for exhaustive inference"
    )
    exhaustive = {"ci95": [2418.1, 2418.1], "exhaustive": True}
    assert counts(found, **exhaustive, ci95_truth=both["ci95_truth"]) == (
        "2,418 nuclei (exhaustive); 95 % interval: 2,100 – 2,700 for the true count"
    )
    assert counts(found, **exhaustive) == ("2,418 nuclei (exhaustive; rough as a true count)")
    assert counts({"nucleus": 24.0}, per_mm2=1.46) == "24 nuclei (rough), 1.5 per mm²"
    assert counts(found, coverage=0.5797) == "2,418 nuclei (rough); 57 % of the region"
    parts = describe_estimate({"kind": "count", "value": 2418.1, "per_class": found, **both})
    assert (parts.amount, parts.true_interval) == (
        "2,418 nuclei",
        "2,100 – 2,700 for the true count",
    )


def test_a_printed_range_holds_the_printed_number():
    rng = np.random.default_rng(0)
    for value in [0.0, 0.04, 0.8, 9.94, 9.96, 12.5, *np.exp(rng.uniform(-3, 10, 300))]:
        low, high = value - rng.exponential(value + 0.01), value + rng.exponential(value + 0.01)
        ends = [
            float(end.replace(",", "")) for end in format_range([low, high], value).split(" – ")
        ]
        printed = float(format_number(value).replace(",", ""))
        assert ends[0] <= min(low, printed) + 1e-6
        assert ends[1] >= max(high, printed) - 1e-6
    assert format_range([1.0, 2.0], 0.8) == "0.8 – 2"  # also one that does not hold it itself


def test_the_interval_of_the_true_count_adds_the_models_own_error():
    figures = {"domain": "x", "images": 9, "data": "", "command": "", "counts": (0, 500)}
    error = CountError(relative=0.1, quantiles=(-2, 2), **figures)
    # Exhaustive inference has the model's error alone; a sample's is added by squares.
    assert true_interval(100.0, (100.0, 100.0), error) == (80.0, 120.0)
    assert true_interval(100.0, (85.0, 115.0), error) == (75.0, 125.0)
    # A bias shifts the interval, which still holds the estimate; no count is negative.
    biased = error.model_copy(update={"bias": 0.25, "constant": 30.0})
    low, high = true_interval(100.0, (100.0, 100.0), biased)
    assert (low + high) / 2 == pytest.approx(80)
    assert (
        true_interval(1000.0, (1000.0, 1000.0), biased.model_copy(update={"bias": 1.0}))[1] == 1000
    )
    assert true_interval(0.0, (0.0, 0.0), biased) == (0.0, 60.0)


def test_the_error_is_that_of_the_kind_of_image():
    from toys import card

    figures = {"domain": "x", "images": 9, "data": "", "command": "", "counts": (0, 500)}
    accuracy = ModelAccuracy(
        count_error=(
            CountError(relative=0.1, synthetic="dots", quantiles=(-2, 2), **figures),
            CountError(relative=0.2, quantiles=(-2, 2), **figures),
        )
    )
    measured = card("x").model_copy(update={"accuracy": accuracy})

    def found(one, **known):
        count = np.array([100.0])
        return estimate_to_dict(one, count, None, Rect(0, 0, 9, 9), None, **known)["ci95_truth"]

    assert found(measured, exhaustive=True, synthetic="dots") == [80, 120]
    assert found(measured, exhaustive=True) == [60, 140]
    assert found(measured, exhaustive=True, synthetic="lines") is None
    assert found(measured) is None  # a rough estimate's error is not known
    assert found(card("x"), exhaustive=True) is None


def test_a_model_that_stands_in_for_main_has_the_error_of_main():
    origin = {"domain": "a test", "images": 9, "data": "", "command": ""}
    errors = [CountError(relative=part, quantiles=(-2, 2), counts=(0, 9), **origin)
              for part in (0.1, 0.3)]  # fmt: skip
    main, head, other = (
        Bright(classes=[name]).card.model_copy(
            update={"accuracy": ModelAccuracy(count_error=(error,))}
        )
        for name, error in zip(("red", "red", "blue"), (*errors, errors[1]), strict=True)
    )

    def truth(card, **known):
        count = np.array([100.0])
        rect = Rect(0, 0, 9, 9)
        return estimate_to_dict(card, count, (100, 100), rect, None, **known)["ci95_truth"]

    assert truth(head) == pytest.approx([40, 160])
    assert truth(head, main=main) == pytest.approx([80, 120])
    assert truth(other, main=main) == pytest.approx([40, 160])


def test_the_sum_of_a_map_is_that_of_its_data():
    def total(values):
        return sum_map(values, 1.0, None, Rect(0, 0, *values.shape[1:]))

    values = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    assert total(values) == 276
    values[1, 2, 3] = np.nan  # no data
    assert total(values) == 253
    # In double precision, some rows at a time: single precision ends at 2**24.
    assert total(np.full((1, 9, 2_100_000), 1, np.uint8).astype(np.float32)) == 18_900_000
    assert total(np.zeros((1, 0, 5))) == 0
    assert map_sum_notes({"map_sum": 100.05, "value": 100.0}) == []  # by rounding
    (note,) = map_sum_notes({"map_sum": 80.0, "value": 100.0})
    assert "add up to 80, not to the estimate, 100" in note


def test_of_many_classes_the_largest_are_listed():
    def text(**found):
        return counts(dict.fromkeys("abcdefgh", 0.0) | found).removesuffix(" (rough)")

    assert text() == "none of 8 classes"
    assert text(c=2.0, g=9.5) == "9.5 × g, 2 × c"
    assert text(b=2.0, c=3.0, d=4.0, e=5.0, f=6.0) == ("6 × f, 5 × e, 4 × d, 3 × c, 1 more class")
    assert text(a=1.0, b=2.0, c=3.0, d=4.0, e=5.0, f=6.0).endswith(", 2 more classes")
    two = {"kind": "area", "value": 5.0, "ci95": None, "fraction": {"a": 0.25, "b": 0.0}}
    assert format_estimate(two) == "a 25.0%, b 0.0% (rough)"

    one = {"kind": "area", "value": 50.0, "ci95": [44.4, 55.0], "fraction": {"a": 0.25}}
    assert format_estimate(one) == (
        "a 25.0%; 95 % interval: 22.2 – 27.5 % for exhaustive inference"
    )


def test_no_prediction_is_no_estimate():
    from toys import card

    assert estimate_to_dict(card("x"), None, None, Rect(0, 0, 1, 1), None) is None
    assert format_estimate(None) == "no estimate"
