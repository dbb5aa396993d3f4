"""What fewer digits do: measured on the image, told, and part of what a result is called."""

from __future__ import annotations

import itertools
import json
from hashlib import sha256

import numpy as np
import pytest
from toys import Bright, ToyBundle, picture

from hrviewer.engine import (
    DeviceScheduler,
    LoadedModels,
    ResultCache,
    build_context,
    measure_deviation,
)
from hrviewer.errors import HrviewerError
from hrviewer.geometry import Rect
from hrviewer.models import open_bundle
from hrviewer.pyramid import open_pyramid
from hrviewer.runs import RunSpec
from hrviewer.strategies import get_strategy

PHOTO = picture(200, 260)


class Rounded(ToyBundle):
    """In bfloat16 its network says 2 % too much."""

    def load(self, role="main", device="auto", threads=None, precision="float32"):
        found = super().load(role, device, threads)
        if precision == "float32":
            return found
        other = Bright("bright")
        other.see = lambda batch: np.float32(1.02) * Bright.see(other, batch)
        other.precision = precision
        return other


@pytest.fixture
def pack():
    return Rounded(main=Bright("bright"))


@pytest.fixture
def device():
    device = DeviceScheduler()
    yield device
    device.close()


def job(pack):
    strategy = get_strategy("patches")
    return RunSpec(open_pyramid(PHOTO), pack, strategy, strategy.Params())


def test_the_error_is_that_of_the_sum(pack, device):
    pyramid = open_pyramid(PHOTO)
    for precision in "float32", "bfloat16":
        networks = LoadedModels(pack, device, precision=precision)
        scene, _, _ = build_context(pyramid, networks, get_strategy("patches"))
        off = measure_deviation(pyramid, networks, scene)
        if precision == "float32":
            assert off is None
            continue
        assert off.tiles == 8
        assert off.total == pytest.approx(0.02, rel=1e-4)
        assert "off by +2.00%" in str(off)


def test_a_run_says_it_and_is_not_resumed_in_another(pack, device, tmp_path):
    cache = ResultCache()
    out = tmp_path / "a.run.zarr"
    exact = job(pack).run(LoadedModels(pack, device), out=tmp_path / "b.run.zarr", cache=cache)
    assert exact.header["precision"] is None
    rough = job(pack).run(LoadedModels(pack, device, precision="bfloat16"), out=out, cache=cache)
    assert rough.header["precision"]["total"] == pytest.approx(0.02, rel=1e-4)
    assert any("bfloat16" in note for note in rough.header["notes"])
    assert rough.header["patches"]["cached"] == 0
    ratio = rough.estimate["value"] / exact.estimate["value"]
    assert ratio == pytest.approx(1.02, rel=1e-5)
    header = out / "run.json"
    header.write_text(header.read_text().replace('"complete": true', '"complete": false'))
    with pytest.raises(HrviewerError, match="another engine"):
        job(pack).run(LoadedModels(pack, device), out=out, resume=True)


class Calibrated(ToyBundle):
    """In int8 its network says 3 % too much, and is named by what it was calibrated on."""

    def load(self, role="main", device="auto", threads=None, precision="float32", samples=()):
        found = super().load(role, device, threads)
        if precision == "float32":
            return found
        assert (role, precision) == ("main", "int8")
        name = sha256(b"".join(sample.tobytes() for sample in samples)).hexdigest()
        other = Bright(name)
        other.see = lambda batch: np.float32(1.03) * Bright.see(other, batch)
        other.precision = precision
        return other


def eight(device):
    pack = Calibrated(main=Bright("bright"), scout=Bright("scout"))
    return LoadedModels(pack, device, precision="int8")


def measured(networks, photo, region=None):
    pyramid = open_pyramid(photo)
    here = networks.for_image(pyramid)
    scene, _, _ = build_context(pyramid, here, get_strategy("patches"), region=region)
    return here, measure_deviation(pyramid, here, scene)


def test_eight_bits_are_measured_where_they_were_not_calibrated(device):
    dull = PHOTO // 4
    dull[:64, :128] = PHOTO[:64, :128]  # of 4 × 5 tiles, two are the fullest
    here, off = measured(eight(device), dull)
    assert len(here.calibrated) == 8
    assert {(0, 0), (0, 64)} <= {(rect.y, rect.x) for rect in here.calibrated}
    assert (off.precision, off.tiles, off.calibrated) == ("int8", 8, 0)
    assert off.total == pytest.approx(0.03, rel=1e-4)
    assert "calibrated" not in str(off)
    assert here["scout"].precision == "float32"


def test_it_is_measured_where_there_is_something(device):
    mostly = np.zeros((1024, 1024, 3), np.uint8)
    mostly[64 : 64 + PHOTO.shape[0], 64 : 64 + PHOTO.shape[1]] = PHOTO
    networks = LoadedModels(Rounded(main=Bright("bright")), device, precision="bfloat16")
    _, off = measured(networks, mostly)
    assert off.total == pytest.approx(0.02, rel=1e-4)
    blank = np.zeros((1024, 1024, 3), np.uint8)
    _, off = measured(networks, blank)
    assert off.total == 0


def test_it_says_where_it_was_calibrated_on_what_it_is_measured_on(device):
    here, off = measured(eight(device), PHOTO[:64, :64])
    assert here.calibrated == (Rect(0, 0, 64, 64),)
    assert (off.tiles, off.calibrated) == (1, 1)
    assert "on 1 tiles of this image (1 of which it was calibrated on)" in str(off)


def test_a_region_is_measured_with_the_network_of_the_whole_image(device):
    networks = eight(device)
    whole, _ = measured(networks, PHOTO)
    part, off = measured(networks, PHOTO, Rect(0, 0, 64, 64))
    assert whole is part
    assert off.tiles == 1


def test_results_of_eight_bits_are_never_anothers(device, tmp_path):
    cache, networks = ResultCache(), eight(device)
    pack, strategy = networks.bundle, get_strategy("patches")

    def run(photo, precision, name):
        job = RunSpec(open_pyramid(photo), pack, strategy, strategy.Params())
        theirs = networks if precision == "int8" else LoadedModels(pack, device)
        return job.run(theirs, out=tmp_path / f"{name}.run.zarr", cache=cache).header

    exact, rough = run(PHOTO, "float32", "a"), run(PHOTO, "int8", "b")
    changed = run(picture(200, 260, seed=1), "int8", "c")
    assert [header["patches"]["cached"] for header in (exact, rough, changed)] == [0, 0, 0]
    assert len({header["networks"]["main"] for header in (exact, rough, changed)}) == 3
    assert rough["precision"]["total"] == pytest.approx(0.03, rel=1e-4)
    assert any(note.startswith("int8: ") for note in rough["notes"])
    again = run(PHOTO, "int8", "d")
    assert again["patches"]["cached"] == 20
    assert again["networks"] == rough["networks"]


def test_a_run_in_eight_bits_goes_on_in_eight_bits(device, tmp_path):
    networks, strategy = eight(device), get_strategy("patches")
    job = RunSpec(open_pyramid(PHOTO), networks.bundle, strategy, strategy.Params())
    out = tmp_path / "a.run.zarr"
    first = job.run(networks, out=out)
    header = out / "run.json"
    header.write_text(header.read_text().replace('"complete": true', '"complete": false'))
    with pytest.raises(HrviewerError, match="another"):
        job.run(LoadedModels(networks.bundle, device), out=out, resume=True)
    again = job.run(eight(device), out=out, resume=True)
    assert again.estimate["value"] == first.estimate["value"]


def test_the_error_told_is_what_comes_out_by_hand(device, tmp_path):
    pytest.importorskip("onnxruntime")
    pack = layered(tmp_path)
    pyramid = open_pyramid(PHOTO)
    networks = LoadedModels(pack, device, "cpu", "int8")
    here, off = measured(networks, PHOTO)
    samples = []
    for rect in here.calibrated:
        pixels = pyramid.read(rect, 1.0)
        samples.append(pack.roles["main"].prepare(pixels))
    exact = pack.load(device="cpu")
    rough = pack.load(device="cpu", precision="int8", samples=samples)
    assert rough.digest == here["main"].digest
    said = []
    corners = itertools.product(range(0, 200, 64), range(0, 260, 64))
    cores = [Rect(y, x, 64, 64) & pyramid.rect for y, x in corners]
    fresh = [core for core in cores if core not in here.calibrated]
    assert len(fresh) == 12
    batches = [pack.roles["main"].prepare(pyramid.read(core, 1.0))[None] for core in fresh]
    for batch in sorted(batches, key=lambda batch: -batch.std())[:8]:
        said.append((exact(batch).ravel(), rough(batch).ravel()))
    one, other = (np.concatenate(side).astype(float) for side in zip(*said, strict=True))
    assert off.tiles == 8
    assert off.total == pytest.approx((other.sum() - one.sum()) / abs(one.sum()), rel=1e-9)
    assert off.rms == pytest.approx(np.sqrt(np.mean((other - one) ** 2)) / one.std(), rel=1e-9)
    assert 0 < off.rms < 0.05


def layered(folder):
    """Write a network of two products, and open it."""
    import torch
    from safetensors.torch import save_file

    from hrviewer.models.registry import register_architecture

    def layers():
        torch.manual_seed(0)
        return torch.nn.Sequential(
            torch.nn.Conv2d(3, 8, 1), torch.nn.ReLU(), torch.nn.Conv2d(8, 1, 1)
        )

    register_architecture("two-layers", layers)
    save_file(layers().state_dict(), folder / "net.safetensors")
    card = {
        "name": "net",
        "task": "density",
        "architecture": {"name": "two-layers", "params": {}},
        "input": {"channels": "rgb", "tile": 64, "scale": 1 / 255, "mean": [0.0], "std": [1.0]},
        "output": {"stride": 1, "classes": ["thing"]},
    }
    (folder / "net.json").write_text(json.dumps(card))
    return open_bundle(folder / "net.safetensors")
