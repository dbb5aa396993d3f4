"""Batches in this process: a row per image, resuming, retries, stopping."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from distributed import Client
from PIL import Image
from toys import write_thin_model

from hrviewer.batch import (
    Batch,
    batch,
    folder_totals,
    read_table,
    require_batch_file,
    worker,
    write_batch_file,
)
from hrviewer.batch.results_table import COLUMNS
from hrviewer.batch.worker import stop_batch
from hrviewer.engine import Budget, RunControl
from hrviewer.errors import ClaimedError, HrviewerError, ParameterError, RunError
from hrviewer.models import threads
from hrviewer.runs import run
from hrviewer.runs.batch_runner import BatchRunner

from .thread_workers import threads_as_workers

GOOD = ("a.png", "b.png")


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    """Return a client of one worker on a thread of this process."""
    with threads_as_workers(1) as client:
        yield client


@pytest.fixture
def slides(tmp_path: Path) -> Path:
    folder = tmp_path / "slides"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name in GOOD:
        Image.fromarray(rng.integers(0, 256, (96, 128, 3), np.uint8)).save(folder / name)
    (folder / "broken.png").write_bytes(b"no image")
    (folder / "empty.tif").touch()
    write_thin_model(tmp_path / "model.onnx")
    return folder


@pytest.fixture
def start(client: Client, slides: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that runs a batch of the slides."""
    monkeypatch.setenv("HRVIEWER_BACKEND", "torch")
    monkeypatch.setattr(threads, "_process_limit", None)
    monkeypatch.setattr("hrviewer.batch.job.CLAIMED_DELAY_S", 0.0)

    def begin(images: Any = slides, **settings: Any) -> Batch:
        settings = {"model": tmp_path / "model.onnx", "out": tmp_path / "batch"} | settings
        return batch(images, client=client, **settings)

    yield begin
    worker.close_runner()
    worker.opened_bundle.cache_clear()


def by_name(table: pd.DataFrame) -> dict[str, dict[str, Any]]:
    return {Path(row["image"]).name: row for row in table.to_dict("records")}


def test_every_image_has_a_row(start, slides, tmp_path):
    job = start().wait()
    rows = by_name(job.table)
    assert {name: row["status"] for name, row in rows.items()} == {
        "a.png": "done", "b.png": "done", "broken.png": "failed", "empty.tif": "failed",
    }  # fmt: skip
    assert "empty" in rows["empty.tif"]["error"]
    assert np.isnan(rows["broken.png"]["estimate"])
    assert [Path(name).name for name in job.failed["image"]] == ["broken.png", "empty.tif"]
    assert not job.complete
    assert not job.stopped
    for read, name in ((pd.read_csv, "table.csv"), (pd.read_parquet, "table.parquet")):
        written = read(tmp_path / "batch" / name)
        assert written["image"].tolist() == job.table["image"].tolist()
        assert written["estimate"].dropna().tolist() == job.table["estimate"].dropna().tolist()


def test_answers_equal_those_of_single_runs(start, slides, tmp_path, monkeypatch):
    rows = by_name(start([slides / name for name in GOOD], cores=1).wait().table)
    monkeypatch.setattr(threads, "_process_limit", 1)
    for name in GOOD:
        alone = run(slides / name, tmp_path / "model.onnx", out=tmp_path / f"{name}.run.zarr")
        assert rows[name]["estimate"] == alone.estimate["value"]
        assert rows[name]["flops"] == alone.cost["flops"]


def test_the_same_call_goes_on(start, slides, monkeypatch):
    first = by_name(start([slides / "a.png"]).wait().table)
    loaded: list[object] = []
    run_in = BatchRunner.run_in
    monkeypatch.setattr(
        BatchRunner, "run_in", lambda self, *args: loaded.append(1) or run_in(self, *args)
    )
    table = by_name(start([slides / name for name in GOOD]).wait().table)
    assert len(loaded) == 1  # of the second image alone
    pd.testing.assert_series_equal(pd.Series(table["a.png"]), pd.Series(first["a.png"]))
    assert table["b.png"]["status"] == "done"


def test_an_image_that_changed_is_run_again(start, slides):
    first = by_name(start([slides / "a.png"]).wait().table)
    Image.fromarray(np.zeros((96, 128, 3), np.uint8)).save(slides / "a.png")
    second = by_name(start([slides / "a.png"]).wait().table)
    assert second["a.png"]["estimate"] != first["a.png"]["estimate"]


def test_other_settings_need_another_folder(start):
    start().wait()
    with pytest.raises(RunError, match="other settings"):
        start(strategy="uniform")


def test_two_batches_never_share_a_folder(start, monkeypatch):
    wait = worker.threading.Event()
    monkeypatch.setattr(worker, "run_entry", lambda *_: wait.wait(60))
    job = start()
    try:
        with pytest.raises(ClaimedError):
            start()
    finally:
        wait.set()
        job.wait()


def test_a_stopped_batch_goes_on(start, slides, monkeypatch):
    run_entry = worker.run_entry

    def stop_after_the_first(*arguments):
        done = run_entry(*arguments)
        worker.stop_batch()
        return done

    monkeypatch.setattr(worker, "run_entry", stop_after_the_first)
    images = [slides / name for name in GOOD]
    job = start(images).wait()
    assert job.table["status"].tolist() == ["done", "stopped"]
    monkeypatch.setattr(worker, "run_entry", run_entry)
    job = start(images).wait()
    assert job.table["status"].tolist() == ["done", "done"]
    assert job.complete


def test_stop_reaches_the_running_image(start, slides, monkeypatch):
    begun, run_entry = worker.threading.Event(), worker.run_entry

    def wait_for_stop(*arguments):
        begun.set()
        while not worker._process.control.stopped:
            worker.time.sleep(0.01)
        return run_entry(*arguments)

    monkeypatch.setattr(worker, "run_entry", wait_for_stop)
    job = start([slides / name for name in GOOD])
    begun.wait(60)
    job.stop()
    assert job.wait().table["status"].tolist() == ["stopped", "stopped"]
    assert job.stopped


def test_on_error_stop_ends_the_batch(start, slides):
    job = start([slides / "empty.tif", slides / "a.png"], on_error="stop").wait()
    assert job.table["status"].iloc[0] == "failed"
    assert job.stopped
    assert job.table["status"].iloc[1] in ("stopped", "done")  # it may have begun already


@pytest.mark.parametrize(("retries", "attempts", "status"), [(2, 3, "done"), (1, 2, "failed")])
def test_errors_that_may_pass_are_tried_again(
    start, slides, monkeypatch, retries, attempts, status
):
    run_entry, failures = worker.run_entry, iter([ClaimedError("x"), MemoryError("y")])

    def fail_twice(*arguments):
        for error in failures:
            raise error
        return run_entry(*arguments)

    monkeypatch.setattr(worker, "run_entry", fail_twice)
    row = start([slides / "a.png"], retries=retries).wait().table.iloc[0]
    assert (row["status"], row["attempts"]) == (status, attempts)


def test_invalid_images_are_not_tried_again(start, slides):
    assert start([slides / "empty.tif"]).wait().table["attempts"].tolist() == [1]


def test_runs_are_exported(start, slides, tmp_path):
    start([slides / "a.png"], exports=["csv", "geojson"]).wait()
    files = sorted((tmp_path / "batch" / "exports").iterdir())
    assert [file.suffix for file in files] == [".csv", ".geojson"]
    assert json.loads(files[1].read_text())["type"] == "FeatureCollection"


def test_a_table_sets_region_and_parameters_and_keeps_its_columns(start, slides, tmp_path):
    (slides / "cohort.csv").write_text(
        'image,region,set.scale,patient\na.png,"0,0,64,64",2,P1\nb.png,,,P2\n'
    )
    table = start(slides / "cohort.csv", strategy="uniform", budget="100%").wait().table
    assert table["patient"].tolist() == ["P1", "P2"]
    assert table["area_px2"].tolist() == [64 * 64, 96 * 128]
    header = json.loads((Path(table["run"].iloc[0]) / "run.json").read_text())
    assert header["params"] == {"scale": 2.0}
    assert Budget.parse(header["budget"]) == Budget.parse("100%")


def test_settings_are_checked_before_anything_runs(start, tmp_path):
    for wrong in ({"strategy": "none"}, {"budget": "3 apples"}, {"exports": ["none"]},
                  {"seed": -1}, {"params": {"nothing": 1}}, {"retries": -1}):  # fmt: skip
        with pytest.raises(HrviewerError):
            start(**wrong)
    assert not (tmp_path / "batch").exists()


def test_every_image_may_have_its_own_model(start, slides, tmp_path):
    (slides / "cohort.csv").write_text(f"image,model\na.png,{tmp_path / 'model.onnx'}\n")
    assert start(slides / "cohort.csv", model=None).wait().table["status"].tolist() == ["done"]


def test_a_batch_stopped_before_its_workers_are_there_runs_nothing(start, slides, monkeypatch):
    connected, begin = worker.threading.Event(), Batch._run_on

    def wait(self, workers):
        connected.wait(60)
        return begin(self, workers)

    monkeypatch.setattr(Batch, "_run_on", wait)
    job = start([slides / "a.png"])
    job.stop()
    connected.set()
    assert job.wait().table["status"].tolist() == ["stopped"]


def test_what_was_done_stays_done_if_the_next_batch_is_stopped(start, slides, monkeypatch):
    first = start([slides / "a.png"]).wait().table
    setup = worker.WorkerState.setup

    def stopped_at_once(self, worker):
        setup(self, worker)
        stop_batch()

    monkeypatch.setattr(worker.WorkerState, "setup", stopped_at_once)
    table = start([slides / name for name in GOOD]).wait().table
    assert table["status"].tolist() == ["done", "stopped"]
    assert table["estimate"].iloc[0] == first["estimate"].iloc[0]


def test_a_worker_that_starts_after_a_stop_takes_no_image(start, slides, tmp_path, monkeypatch):
    """A worker that was restarted has not been asked to stop; the batch's folder says so."""
    run_entry = worker.run_entry

    def stop_then_restart(*arguments):
        done = run_entry(*arguments)
        job.stop()
        monkeypatch.setattr(worker._process, "control", RunControl())
        return done

    monkeypatch.setattr(worker, "run_entry", stop_then_restart)
    job = start([slides / name for name in GOOD])
    assert job.wait().table["status"].tolist() == ["done", "stopped"]
    assert not (tmp_path / "batch" / "stopping").exists()


def test_a_model_is_needed(start):
    with pytest.raises(HrviewerError, match="model"):
        start(model=None)


def test_damaged_notes_of_an_earlier_part_are_one_line(start, tmp_path):
    start().wait()
    for name in ("rows.json", "batch.json"):
        kept = (tmp_path / "batch" / name).read_bytes()
        (tmp_path / "batch" / name).write_bytes(b"[")
        with pytest.raises(RunError, match="damaged"):
            start()
        (tmp_path / "batch" / name).write_bytes(kept)


def test_a_worker_with_another_version_is_refused(monkeypatch):
    engine = worker.EngineSettings(
        version="0", device="cpu", backend="torch", cores=1, streams=1, batch=1
    )
    with pytest.raises(ParameterError, match="same version"):
        worker.use_engine(engine, elsewhere=False)
    assert os.environ.get("HRVIEWER_BACKEND") != "nothing"


def test_other_tables_are_refused_and_those_of_earlier_versions_completed(tmp_path):
    pd.DataFrame({"x": [1]}).to_parquet(tmp_path / "table.parquet")
    with pytest.raises(RunError, match="not the table of a batch"):
        read_table(tmp_path)
    (tmp_path / "table.parquet").write_bytes(b"PAR1")
    with pytest.raises(RunError, match="cannot be read"):
        read_table(tmp_path)
    rows = pd.DataFrame({"image": ["a.png"], "status": "done", "run": "r", "estimate": ["x"]})
    rows.to_parquet(tmp_path / "table.parquet")
    with pytest.raises(RunError, match="cannot be read"):
        read_table(tmp_path)
    rows["estimate"] = 3
    rows.to_parquet(tmp_path / "table.parquet")
    table = read_table(tmp_path)
    assert tuple(table) == COLUMNS
    assert table["estimate"].tolist() == [3.0]
    assert table[["answer", "seconds"]].isna().all(axis=None)


def test_a_file_for_results_is_checked_before_the_batch(tmp_path):
    with pytest.raises(ParameterError, match=r"b\.txt: a batch is written as one of \.parquet"):
        require_batch_file(tmp_path / "b.txt")
    assert require_batch_file(tmp_path / "b.HTML").name == "b.HTML"


def test_a_report_of_many_images_names_what_it_shows(tmp_path):
    """Also where their runs are elsewhere by now; probabilities of classes have no mean."""
    rows = pd.DataFrame(
        {"image": [f"{i}.png" for i in range(25)], "status": "done", "run": "moved.run.zarr",
         "estimate": 0.9, "probabilities_a": 0.9, "probabilities_b": 0.1, "seconds": 1.0}
    )  # fmt: skip
    rows.to_parquet(tmp_path / "table.parquet")
    table = read_table(tmp_path)
    page = write_batch_file(table, tmp_path / "b.html").read_text()
    assert "of the first 24 images that are done" in page
    assert folder_totals(table)[["mean", "sd"]].isna().all(axis=None)
    one = table.drop(columns="probabilities_b")
    assert folder_totals(one)["mean"].tolist() == [pytest.approx(0.9)]
