"""What fewer digits do: measured on the image, told, and part of what a result is called."""

from __future__ import annotations

import numpy as np
import pytest
from toys import Bright, ToyPack, picture

from hrviewer.engine import Device, Networks, ResultCache, build_scene, how_far_off
from hrviewer.errors import UserError
from hrviewer.pyramid import open_pyramid
from hrviewer.runs import Job
from hrviewer.strategies import get_strategy

PHOTO = picture(200, 260)


class Rounded(ToyPack):
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
    device = Device()
    yield device
    device.close()


def job(pack):
    strategy = get_strategy("patches")
    return Job(open_pyramid(PHOTO), pack, strategy, strategy.Params())


def test_the_error_is_that_of_the_sum(pack, device):
    pyramid = open_pyramid(PHOTO)
    for precision in "float32", "bfloat16":
        networks = Networks(pack, device, precision=precision)
        scene, _, _ = build_scene(pyramid, networks, get_strategy("patches"))
        off = how_far_off(pyramid, networks, scene)
        if precision == "float32":
            assert off is None
            continue
        assert off.tiles == 8
        assert off.total == pytest.approx(0.02, rel=1e-4)
        assert "off by +2.00%" in str(off)


def test_a_run_says_it_and_is_not_resumed_in_another(pack, device, tmp_path):
    cache = ResultCache()
    out = tmp_path / "a.run.zarr"
    exact = job(pack).run(Networks(pack, device), out=tmp_path / "b.run.zarr", cache=cache)
    assert exact.header["precision"] is None
    rough = job(pack).run(Networks(pack, device, precision="bfloat16"), out=out, cache=cache)
    assert rough.header["precision"]["total"] == pytest.approx(0.02, rel=1e-4)
    assert any("bfloat16" in note for note in rough.header["notes"])
    assert rough.header["patches"]["cached"] == 0
    ratio = rough.estimate["value"] / exact.estimate["value"]
    assert ratio == pytest.approx(1.02, rel=1e-5)
    header = out / "run.json"
    header.write_text(header.read_text().replace('"complete": true', '"complete": false'))
    with pytest.raises(UserError, match="another engine"):
        job(pack).run(Networks(pack, device), out=out, resume=True)
