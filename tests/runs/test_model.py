"""Loaded models: `hrviewer.load` and the process's shared networks."""

from __future__ import annotations

import json
import threading

import numpy as np
import pytest
from toys import Bright, picture, toy_bundle

import hrviewer
from hrviewer.errors import HrviewerError, ModelError, ParameterError
from hrviewer.models import open_bundle
from hrviewer.runs import Model

IMAGE = picture(200, 260)


@pytest.fixture
def model_file(tmp_path, monkeypatch):
    """Path of a small counting network, in torch."""
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file

    from hrviewer.models.architectures import DensityUNet

    torch.manual_seed(0)
    params = {"widths": [4, 6, 8, 8], "blocks": [0, 1, 1]}
    network = DensityUNet(**params)
    card = {
        "name": "small",
        "task": "density",
        "architecture": {"name": "density-unet", "params": params},
        "input": {"channels": "rgb", "scale": 1 / 255, "tile": 64, "multiple_of": 16},
        "output": {"stride": 4, "halo": network.halo, "classes": ["thing"]},
    }
    save_file(network.state_dict(), tmp_path / "small.safetensors")
    (tmp_path / "small.json").write_text(json.dumps(card))
    return tmp_path / "small.safetensors"


def test_a_model_runs_on_images(tmp_path):
    bundle = toy_bundle()
    with Model(bundle) as model:
        assert (model.name, model.card) == ("toys", bundle.roles["main"])
        assert repr(model).startswith("<Model toys on auto in float32: main, scout")
        out = tmp_path / "a.run.zarr"
        run = model.run(IMAGE, "patches", tile=64, out=out, progress=False)
        assert run.estimate["value"] == pytest.approx(IMAGE[..., 0].sum() / 255, rel=1e-5)
        again = hrviewer.run(IMAGE, model, tile=64, progress=False, out=tmp_path / "b.run.zarr")
        assert again.estimate == run.estimate
        table = hrviewer.compare(IMAGE, model, "patches", out=tmp_path / "all", progress=False)
        assert list(table["model"]) == ["toys"]


def test_a_second_run_sets_up_in_a_twentieth_of_the_time(model_file, tmp_path):
    settings = {"model": model_file, "device": "cpu", "cache": "off", "progress": False}
    first, second = (
        hrviewer.run(IMAGE, out=tmp_path / f"{name}.run.zarr", **settings) for name in "ab"
    )
    assert first.header["setup_s"] > 0
    assert second.header["setup_s"] < 0.05 * first.header["setup_s"]
    np.testing.assert_array_equal(first.output, second.output)


def test_a_loaded_model_has_set_up_before_its_first_run(model_file, tmp_path):
    model = hrviewer.load(model_file, device="cpu")
    assert model.card.name == "small"
    network = model.bundle.load("main", "cpu")
    assert open_bundle(model_file).load("main", "cpu") is network
    run = model.run(IMAGE, out=tmp_path / "a.run.zarr", progress=False)
    assert run.header["setup_s"] < 0.1
    model.close()
    assert model.bundle.load("main", "cpu") is not network


def test_threads_share_a_model(model_file, tmp_path):
    model, runs = hrviewer.load(model_file, device="cpu"), {}

    def work(name):
        out = tmp_path / f"{name}.run.zarr"
        runs[name] = model.run(IMAGE, out=out, cache="off", progress=False)

    threads = [threading.Thread(target=work, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    np.testing.assert_array_equal(runs["a"].output, runs["b"].output)


def test_device_and_precision_are_those_of_the_model():
    model = Model(toy_bundle(), "cpu")
    with pytest.raises(ParameterError, match="with device cpu, not cuda: load it with cuda"):
        model.run(IMAGE, device="cuda")
    with pytest.raises(ParameterError, match="with precision float32, not int8"):
        hrviewer.run(IMAGE, model, precision="int8")


@pytest.mark.parametrize(
    "call",
    [
        lambda: hrviewer.run(IMAGE),
        lambda: hrviewer.compare(IMAGE),
        lambda: hrviewer.load(),
        lambda: hrviewer.cost(None),
    ],
)
def test_there_is_no_default_model(call, monkeypatch):
    monkeypatch.setattr("hrviewer.models.bundle.installed_bundles", dict)
    with pytest.raises(ModelError, match=r'no model is given: pip install "hrviewer\[histology\]"'):
        call()
    monkeypatch.setattr("hrviewer.models.bundle.installed_bundles", lambda: {"nuclei": None})
    with pytest.raises(ModelError, match=r"installed models \(nuclei\), or pip.*hrviewer\[crowd\]"):
        call()


def test_a_model_that_is_not_installed_names_its_package(monkeypatch):
    monkeypatch.setattr("hrviewer.models.bundle.installed_bundles", dict)
    with pytest.raises(HrviewerError, match=r'named .nuclei.*pip install "hrviewer\[histology\]"'):
        hrviewer.load("nuclei")


def test_a_bundle_without_main_has_the_card_of_its_first_role():
    from toys import ToyBundle

    assert Model(ToyBundle(scout=Bright("scout"))).card.name == "scout"


def test_the_window_takes_a_loaded_model():
    from hrviewer.app.state import AppState

    model, state = Model(toy_bundle()), AppState()
    state.set_model(model)
    assert state.settings.model is model.bundle


def test_an_exact_halo_is_measured_once_per_network(monkeypatch):
    from hrviewer.engine import DeviceScheduler, LoadedModels

    measured = []
    monkeypatch.setattr(
        "hrviewer.models.probe.measure_exact_halo", lambda network: measured.append(network) or 4
    )
    bundle = toy_bundle()
    for _ in range(2):
        scheduler = DeviceScheduler()
        try:
            assert LoadedModels(bundle, scheduler).exact_halo("main") == 4
        finally:
            scheduler.close()
    assert measured == [bundle.networks["main"]]
