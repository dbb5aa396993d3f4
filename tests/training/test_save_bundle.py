"""A role is saved in its bundle, next to the others."""

from __future__ import annotations

import hashlib
import json

import torch
from safetensors.torch import load_file

from hrviewer.models import open_bundle
from hrviewer.training import TaskSet, write_role
from hrviewer.training.density_task import build
from hrviewer.training.save_bundle import round_weights

from .fixtures import CARD

TASKS = TaskSet("Squares", "Counts squares.", {})


def test_other_roles_stay_as_they_are(tmp_path):
    torch.manual_seed(0)
    network = build(CARD.architecture).eval()
    round_weights(network)

    def write(role, **entries):
        write_role(tmp_path, "squares", TASKS, role, network, CARD, **entries)

    write("main", training={"seed": 1}, metrics={"mae": 2.0})
    before = json.loads((tmp_path / "bundle.json").read_text())
    data = (tmp_path / "main.safetensors").read_bytes()
    write("scanner", training={"seed": 3}, metrics={})
    after = json.loads((tmp_path / "bundle.json").read_text())

    assert after["roles"]["main"] == before["roles"]["main"]
    assert (tmp_path / "main.safetensors").read_bytes() == data
    assert after["roles"]["main"]["card"]["sha256"] == hashlib.sha256(data).hexdigest()
    bundle = open_bundle(tmp_path)
    assert (bundle.name, bundle.title, bundle.description) == (
        "squares",
        TASKS.title,
        TASKS.description,
    )
    assert bundle.roles["main"].training == {"seed": 1}
    assert bundle.roles["scanner"].training == {"seed": 3}
    x = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(
            torch.from_numpy(bundle.load("main", "cpu")(x.numpy())),
            network(x),
            atol=1e-5,
            rtol=1e-4,
        )


def test_kernels_are_written_in_half_precision_and_nothing_else(tmp_path):
    torch.manual_seed(0)
    network = build(CARD.architecture).eval()
    exact = {name: value.clone() for name, value in network.state_dict().items()}
    round_weights(network)
    write_role(tmp_path, "squares", TASKS, "main", network, CARD, training={}, metrics={})
    written = load_file(tmp_path / "main.safetensors")
    for name, value in network.state_dict().items():
        assert (written[name].dtype == torch.float16) == (value.ndim > 1)
        torch.testing.assert_close(written[name].to(value.dtype), value, atol=0, rtol=0)
        torch.testing.assert_close(value, exact[name], atol=1e-6, rtol=2**-11)
    assert any((value != exact[name]).any() for name, value in network.state_dict().items())
