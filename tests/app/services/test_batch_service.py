"""A batch of the listed images from the application: rows as they come, stopped, resumed, read."""

import threading

import numpy as np
import pandas as pd
import pytest
from batch.thread_workers import threads_as_workers
from PIL import Image
from toys import toy_bundle, write_thin_model

from app.headless import wait
from hrviewer.app.services.batch_service import batch_settings
from hrviewer.batch import folder_totals, worker
from hrviewer.models import threads as model_threads


@pytest.fixture(scope="module")
def client():
    with threads_as_workers(1) as made:
        yield made


@pytest.fixture
def slides(tmp_path):
    folder = tmp_path / "slides"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name in ("a.png", "b.png"):
        Image.fromarray(rng.integers(0, 256, (96, 128, 3), np.uint8)).save(folder / name)
    (folder / "broken.png").write_bytes(b"no image")
    return folder


@pytest.fixture
def service(app, client, tmp_path, monkeypatch):
    monkeypatch.setenv("HRVIEWER_BACKEND", "torch")
    monkeypatch.setenv("HRVIEWER_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(model_threads, "_process_limit", None)
    write_thin_model(tmp_path / "model.onnx")
    app.state.set_model(tmp_path / "model.onnx")
    app.batch_service.places = {"client": client}
    yield app.batch_service
    worker.close_runner()
    worker.opened_bundle.cache_clear()


def by_name(service):
    return {path.rpartition("/")[2]: row for path, row in service.rows.items()}


def test_listed_images_are_run_and_read_again(app, service, slides, tmp_path, monkeypatch):
    counts, threads_of_sums = [], set()

    def totals(table):
        threads_of_sums.add(threading.current_thread())
        return folder_totals(table)

    monkeypatch.setattr("hrviewer.batch.folder_totals", totals)
    service.changed.connect(lambda: counts.append(len(service.rows)))
    service.start(slides)
    assert service.is_running
    service.start(slides)  # one at a time
    wait(app, lambda: not service.is_running)
    rows = by_name(service)
    assert {name: row["status"] for name, row in rows.items()} == {
        "a.png": "done", "b.png": "done", "broken.png": "failed",
    }  # fmt: skip
    assert rows["a.png"]["answer"].startswith(f"{rows['a.png']['estimate']:,.0f} ")
    assert rows["broken.png"]["error"]
    assert rows["broken.png"]["estimate"] is None
    assert service.summary.startswith("2 of 3 images done · 1 failed")
    assert counts[0] == 0
    assert threads_of_sums
    assert threading.main_thread() not in threads_of_sums
    for suffix in ("parquet", "csv", "html"):
        service.export(tmp_path / f"batch.{suffix}")
    wait(app, lambda: (tmp_path / "batch.html").exists())
    assert pd.read_parquet(tmp_path / "batch.parquet").equals(service.results.table)
    report = (tmp_path / "batch.html").read_text()
    assert report.count("<img") >= 3  # the histogram, and each image
    assert "broken.png: " in report
    folder, service.results = service.results.folder, None
    service.open(folder)
    wait(app, lambda: not service.is_running)
    assert by_name(service) == rows
    assert service.results.folder == folder
    assert app.errors[-1] == ""


def test_a_stopped_batch_goes_on(app, service, slides, monkeypatch):
    run_entry = worker.run_entry

    def stop_after_the_first(*arguments):
        done = run_entry(*arguments)
        service.stop()
        worker.stop_batch()
        return done

    monkeypatch.setattr(worker, "run_entry", stop_after_the_first)
    service.start(slides)
    wait(app, lambda: not service.is_running)
    assert by_name(service)["b.png"]["status"] == "stopped"
    monkeypatch.setattr(worker, "run_entry", run_entry)
    service.start(slides)
    wait(app, lambda: not service.is_running)
    assert by_name(service)["b.png"]["status"] == "done"


def test_what_cannot_start_is_one_line(app, service, tmp_path):
    app.state.settings.tissue = "file"
    service.start(tmp_path)
    assert "belongs to one image" in app.errors[-1]
    app.state.settings.tissue = "off"
    (tmp_path / "nothing").mkdir()
    service.start(tmp_path / "nothing")
    wait(app, lambda: not service.is_running)
    assert "nothing" in app.errors[-1]
    service.open(tmp_path)
    wait(app, lambda: not service.is_running)
    assert "not the folder of a batch" in app.errors[-1]
    app.state.set_model(toy_bundle())
    service.start(tmp_path)
    assert "no file" in app.errors[-1]


def test_settings_are_those_of_the_run_tab(app, service):
    app.state.set_strategy("zoom")
    app.state.settings.budget = " 10% "
    app.state.settings.tissue = "auto"
    app.state.settings.params = {"k": 3}
    chosen = batch_settings(app.state.settings)
    assert chosen["model"].endswith("model.onnx")
    assert (chosen["strategy"], chosen["budget"], chosen["tissue"]) == ("zoom", "10%", "auto")
    assert chosen["params"] == {"k": 3}


def test_a_batch_is_stopped_while_it_is_prepared(app, service, slides, monkeypatch):
    """Stop, pressed before there is a batch, reaches it when there is."""
    prepared, stopped = threading.Event(), threading.Event()

    class Job:
        folder, table = slides, pd.DataFrame({"image": [], "status": [], "seconds": []})
        stop = staticmethod(stopped.set)

        def __iter__(self):
            assert stopped.is_set()
            return iter(())

    def batch(*_, **__):
        prepared.wait(20)
        return Job()

    monkeypatch.setattr("hrviewer.batch.batch", batch)
    service.start(slides)
    service.stop()
    assert service.is_stopping
    prepared.set()
    wait(app, lambda: not service.is_running)
    assert stopped.is_set()
    assert app.errors[-1] == ""
