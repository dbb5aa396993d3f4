"""A run whose inference is on workers: the same bits as on this process's device."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from distributed import Client
from PIL import Image
from toys import write_thin_model

from hrviewer.batch import inference_pool
from hrviewer.batch.pool import loaded_models
from hrviewer.errors import HrviewerError
from hrviewer.models import threads
from hrviewer.runs import run

from .thread_workers import threads_as_workers


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    """Return a client of two workers on threads of this process."""
    with threads_as_workers(2) as client:
        yield client


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("HRVIEWER_BACKEND", "torch")
    monkeypatch.setattr(threads, "_process_limit", 1)
    path = write_thin_model(tmp_path / "model.onnx")
    yield path
    loaded_models(str(path), trust=False).device.close()  # as a worker's end would
    loaded_models.cache_clear()


@pytest.mark.parametrize("strategy", ["patches", "uniform", "nonuniform", "zoom"])
def test_runs_have_the_same_bits(client, model, tmp_path, strategy):
    path = tmp_path / "image.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (200, 260, 3), np.uint8)).save(path)
    params = {"tile": 64} if strategy == "patches" else {}
    settings = {"cache": "off", "budget": "50%", "params": params}
    here = run(path, model, strategy, out=tmp_path / "here.run.zarr", **settings)
    with inference_pool(model, client=client, cores=1) as pool:
        there = run(
            path, model, strategy, out=tmp_path / "there.run.zarr", scheduler=pool, **settings
        )
    assert there.estimate == here.estimate
    assert there.output.tobytes() == here.output.tobytes()
    assert there.cost["flops"] == here.cost["flops"]
    assert there.header["engine"] == here.header["engine"] | {"streams": 1}


def test_errors_of_a_worker_reach_the_run(client, model, tmp_path, monkeypatch):
    path = tmp_path / "image.png"
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(path)

    def fail(*_: object, **__: object) -> None:
        raise HrviewerError("no such luck")

    with inference_pool(model, client=client, cores=1) as pool:
        monkeypatch.setattr("hrviewer.batch.pool.predict", fail)
        done = run(path, model, out=tmp_path / "a.run.zarr", cache="off", scheduler=pool)
    assert not done.complete
    assert "no such luck" in done.patches["error"].iloc[0]


def test_workers_of_another_model_are_refused(client, model, tmp_path):
    path = tmp_path / "image.png"
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(path)
    (tmp_path / "other").mkdir()
    other = write_thin_model(tmp_path / "other" / "model.onnx")
    card = other.with_suffix(".json")
    card.write_text(card.read_text().replace('"thing"', '"other"'))
    with inference_pool(model, client=client, cores=1) as pool:
        done = run(path, other, out=tmp_path / "a.run.zarr", cache="off", scheduler=pool)
    assert not done.complete
    assert "another main" in done.patches["error"].iloc[0]


def test_a_worker_on_another_back_end_is_refused(client, model, tmp_path, monkeypatch):
    """An export that fails on one worker alone must not mix two kinds of bits."""
    path = tmp_path / "image.png"
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(path)
    with inference_pool(model, client=client, cores=1) as pool:
        network = copy.copy(loaded_models(str(model), trust=False)["main"])
        network.backend = "onnxruntime 1.0"
        monkeypatch.setattr("hrviewer.batch.pool.loaded_models", lambda *_, **__: {"main": network})
        done = run(path, model, out=tmp_path / "a.run.zarr", cache="off", scheduler=pool)
    assert not done.complete
    assert "runs on onnxruntime 1.0 at worker" in done.patches["error"].iloc[0]


def test_the_cores_of_this_process_are_its_own_again(client, model, monkeypatch):
    monkeypatch.setattr(threads, "_process_limit", None)
    with inference_pool(model, client=client, cores=1):
        assert threads.core_limit() == 1
    assert threads.core_limit() is None
