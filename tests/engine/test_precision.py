"""Lower precisions: deviation measured on the image, recorded, and part of cache keys."""

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
    """In bfloat16 its network predicts 2 % too much."""

    def load(self, role="main", device="auto", threads=None, precision="float32"):
        found = super().load(role, device, threads)
        if precision == "float32":
            return found
        other = Bright("bright")
        other.predict = lambda batch: np.float32(1.02) * Bright.predict(other, batch)
        other.precision = precision
        return other


@pytest.fixture
def bundle():
    return Rounded(main=Bright("bright"))


@pytest.fixture
def device():
    device = DeviceScheduler()
    yield device
    device.close()


def spec(bundle):
    strategy = get_strategy("patches")
    return RunSpec(open_pyramid(PHOTO), bundle, strategy, strategy.Params())


def test_the_deviation_of_the_sum(bundle, device):
    pyramid = open_pyramid(PHOTO)
    for precision in "float32", "bfloat16":
        models = LoadedModels(bundle, device, precision=precision)
        context, _, _ = build_context(pyramid, models, get_strategy("patches"))
        off = measure_deviation(pyramid, models, context)
        if precision == "float32":
            assert off is None
            continue
        assert off.tiles == 8
        assert off.total == pytest.approx(0.02, rel=1e-4)
        assert "off by +2.00%" in str(off)


def test_a_run_records_its_precision_and_is_not_resumed_in_another(bundle, device, tmp_path):
    cache = ResultCache()
    out = tmp_path / "a.run.zarr"
    exact = spec(bundle).run(LoadedModels(bundle, device), out=tmp_path / "b.run.zarr", cache=cache)
    assert exact.header["precision"] is None
    rough = spec(bundle).run(
        LoadedModels(bundle, device, precision="bfloat16"), out=out, cache=cache
    )
    assert rough.header["precision"]["total"] == pytest.approx(0.02, rel=1e-4)
    assert any("bfloat16" in note for note in rough.header["notes"])
    assert rough.header["patches"]["cached"] == 0
    ratio = rough.estimate["value"] / exact.estimate["value"]
    assert ratio == pytest.approx(1.02, rel=1e-5)
    header = out / "run.json"
    header.write_text(header.read_text().replace('"complete": true', '"complete": false'))
    with pytest.raises(HrviewerError, match="another engine"):
        spec(bundle).run(LoadedModels(bundle, device), out=out, resume=True)


class Calibrated(ToyBundle):
    """In int8 its network predicts 3 % too much; its digest depends on the calibration tiles."""

    def load(self, role="main", device="auto", threads=None, precision="float32", samples=()):
        found = super().load(role, device, threads)
        if precision == "float32":
            return found
        assert (role, precision) == ("main", "int8")
        name = sha256(b"".join(sample.tobytes() for sample in samples)).hexdigest()
        other = Bright(name)
        other.predict = lambda batch: np.float32(1.03) * Bright.predict(other, batch)
        other.precision = precision
        return other


def eight(device):
    bundle = Calibrated(main=Bright("bright"), scout=Bright("scout"))
    return LoadedModels(bundle, device, precision="int8")


def measured(models, photo, region=None):
    pyramid = open_pyramid(photo)
    here = models.for_image(pyramid)
    context, _, _ = build_context(pyramid, here, get_strategy("patches"), region=region)
    return here, measure_deviation(pyramid, here, context)


def test_int8_is_measured_outside_its_calibration_tiles(device):
    dull = PHOTO // 4
    dull[:64, :128] = PHOTO[:64, :128]  # of 4 × 5 tiles, two have the most contrast
    here, off = measured(eight(device), dull)
    assert len(here.calibrated) == 8
    assert {(0, 0), (0, 64)} <= {(rect.y, rect.x) for rect in here.calibrated}
    assert (off.precision, off.tiles, off.calibrated) == ("int8", 8, 0)
    assert off.total == pytest.approx(0.03, rel=1e-4)
    assert "calibrated" not in str(off)
    assert here["scout"].precision == "float32"


def test_tiles_with_contrast_are_measured(device):
    mostly = np.zeros((1024, 1024, 3), np.uint8)
    mostly[64 : 64 + PHOTO.shape[0], 64 : 64 + PHOTO.shape[1]] = PHOTO
    models = LoadedModels(Rounded(main=Bright("bright")), device, precision="bfloat16")
    _, off = measured(models, mostly)
    assert off.total == pytest.approx(0.02, rel=1e-4)
    blank = np.zeros((1024, 1024, 3), np.uint8)
    _, off = measured(models, blank)
    assert off.total == 0


def test_calibration_tiles_among_the_measured_ones_are_reported(device):
    here, off = measured(eight(device), PHOTO[:64, :64])
    assert here.calibrated == (Rect(0, 0, 64, 64),)
    assert (off.tiles, off.calibrated) == (1, 1)
    assert "on 1 tiles of this image (1 of which it was calibrated on)" in str(off)


def test_a_region_uses_the_calibration_of_the_whole_image(device):
    models = eight(device)
    whole, _ = measured(models, PHOTO)
    part, off = measured(models, PHOTO, Rect(0, 0, 64, 64))
    assert whole is part
    assert off.tiles == 1


def test_int8_results_are_not_reused_in_other_precisions(device, tmp_path):
    cache, models = ResultCache(), eight(device)
    bundle, strategy = models.bundle, get_strategy("patches")

    def run(photo, precision, name):
        spec = RunSpec(open_pyramid(photo), bundle, strategy, strategy.Params())
        theirs = models if precision == "int8" else LoadedModels(bundle, device)
        return spec.run(theirs, out=tmp_path / f"{name}.run.zarr", cache=cache).header

    exact, rough = run(PHOTO, "float32", "a"), run(PHOTO, "int8", "b")
    changed = run(picture(200, 260, seed=1), "int8", "c")
    assert [header["patches"]["cached"] for header in (exact, rough, changed)] == [0, 0, 0]
    assert len({header["networks"]["main"] for header in (exact, rough, changed)}) == 3
    assert rough["precision"]["total"] == pytest.approx(0.03, rel=1e-4)
    assert any(note.startswith("int8: ") for note in rough["notes"])
    again = run(PHOTO, "int8", "d")
    assert again["patches"]["cached"] == 20
    assert again["networks"] == rough["networks"]


def test_an_int8_run_resumes_in_int8(device, tmp_path):
    models, strategy = eight(device), get_strategy("patches")
    spec = RunSpec(open_pyramid(PHOTO), models.bundle, strategy, strategy.Params())
    out = tmp_path / "a.run.zarr"
    first = spec.run(models, out=out)
    header = out / "run.json"
    header.write_text(header.read_text().replace('"complete": true', '"complete": false'))
    with pytest.raises(HrviewerError, match="another"):
        spec.run(LoadedModels(models.bundle, device), out=out, resume=True)
    again = spec.run(eight(device), out=out, resume=True)
    assert again.estimate["value"] == first.estimate["value"]


def test_the_deviation_equals_a_direct_computation(device, tmp_path):
    pytest.importorskip("onnxruntime")
    bundle = layered(tmp_path)
    pyramid = open_pyramid(PHOTO)
    models = LoadedModels(bundle, device, "cpu", "int8")
    here, off = measured(models, PHOTO)
    samples = []
    for rect in here.calibrated:
        pixels = pyramid.read(rect, 1.0)
        samples.append(bundle.roles["main"].prepare(pixels))
    exact = bundle.load(device="cpu")
    rough = bundle.load(device="cpu", precision="int8", samples=samples)
    assert rough.digest == here["main"].digest
    outputs = []
    corners = itertools.product(range(0, 200, 64), range(0, 260, 64))
    cores = [Rect(y, x, 64, 64) & pyramid.rect for y, x in corners]
    fresh = [core for core in cores if core not in here.calibrated]
    assert len(fresh) == 12
    batches = [bundle.roles["main"].prepare(pyramid.read(core, 1.0))[None] for core in fresh]
    for batch in sorted(batches, key=lambda batch: -batch.std())[:8]:
        outputs.append((exact(batch).ravel(), rough(batch).ravel()))
    one, other = (np.concatenate(side).astype(float) for side in zip(*outputs, strict=True))
    assert off.tiles == 8
    # The last bits of a convolution depend on how many threads share it.
    assert off.total == pytest.approx((other.sum() - one.sum()) / abs(one.sum()), rel=1e-4)
    assert off.rms == pytest.approx(np.sqrt(np.mean((other - one) ** 2)) / one.std(), rel=1e-4)
    assert 0 < off.rms < 0.05


def layered(folder):
    """Write a network of two linear layers, and open it."""
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
